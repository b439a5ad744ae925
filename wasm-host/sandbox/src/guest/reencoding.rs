//! Writes the guest module anew with some doors closed.
//!
//! An import that is closed becomes a function of the same type that traps. It moves from the
//! imports to the front of the defined functions, so function indices change: a kept import gets
//! the number of kept imports before it, a closed one follows all kept ones, and what was defined
//! stays where it was, since the number of imports and closed functions together is the same.
//!
//! What no request can reach is *dead* ([`super::liveness`]): a component never loads a model again,
//! so the code that reads, rewrites and plans models is not in it. Dead functions become traps too,
//! which keeps all indices and tables.

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, CustomSection, DataSection, EntityType, ExportSection, Function,
    FunctionSection, ImportSection, MemorySection, Module,
};
use wasmparser::{
    CodeSectionReader, CustomSectionReader, DataSectionReader, ExportSectionReader, FunctionBody,
    FunctionSectionReader, ImportSectionReader, MemorySectionReader, TypeRef,
};

use super::{Door, GuestError, Live, Segment};

type Result<T> = std::result::Result<T, reencode::Error<GuestError>>;

pub(super) fn open(
    module: &[u8],
    door: Door,
    live: &Live,
    memory_pages: u64,
    data: &[Segment<'_>],
) -> std::result::Result<Vec<u8>, GuestError> {
    let mut opening = Opening {
        door,
        memory_pages,
        data,
        live: &live.functions,
        body: 0,
        imports: Vec::new(),
        closed: Vec::new(),
    };
    let mut out = Module::new();
    opening
        .parse_core_module(&mut out, wasmparser::Parser::new(0), module)
        .map_err(|error| GuestError(error.to_string()))?;
    Ok(out.finish())
}

fn trap() -> Function {
    let mut trap = Function::new([]);
    trap.instructions().unreachable().end();
    trap
}

struct Opening<'a> {
    door: Door,
    memory_pages: u64,
    data: &'a [Segment<'a>],
    /// Which functions can be called.
    live: &'a [bool],
    /// The function, imports included, whose body comes next.
    body: usize,
    /// New indices of the imported functions.
    imports: Vec<u32>,
    /// Types of the functions that take the place of closed imports.
    closed: Vec<u32>,
}

impl Reencode for Opening<'_> {
    type Error = GuestError;

    fn function_index(&mut self, index: u32) -> Result<u32> {
        Ok(self.imports.get(index as usize).copied().unwrap_or(index))
    }

    fn parse_import_section(
        &mut self,
        out: &mut ImportSection,
        section: ImportSectionReader<'_>,
    ) -> Result<()> {
        let mut places = Vec::new();
        let mut kept = 0;
        for import in section.into_imports() {
            let import = import?;
            let TypeRef::Func(ty) = import.ty else {
                let what = format!("{}.{} is not a function", import.module, import.name);
                return Err(reencode::Error::UserError(GuestError(what)));
            };
            if self.door.keeps_import(import.module) {
                out.import(import.module, import.name, EntityType::Function(ty));
                places.push(Ok(kept));
                kept += 1;
            } else {
                places.push(Err(self.closed.len() as u32));
                self.closed.push(ty);
            }
        }
        let place = |place: std::result::Result<u32, u32>| place.unwrap_or_else(|i| kept + i);
        self.imports = places.into_iter().map(place).collect();
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        out: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<()> {
        for &ty in &self.closed {
            out.function(ty);
        }
        utils::parse_function_section(self, out, section)
    }

    fn parse_code_section(
        &mut self,
        out: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<()> {
        for _ in &self.closed {
            out.function(&trap());
        }
        self.body = self.imports.len();
        utils::parse_code_section(self, out, section)
    }

    fn parse_function_body(&mut self, out: &mut CodeSection, body: FunctionBody<'_>) -> Result<()> {
        let is_live = self.live.get(self.body) == Some(&true);
        self.body += 1;
        match is_live {
            true => utils::parse_function_body(self, out, body)?,
            false => drop(out.function(&trap())),
        }
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        out: &mut MemorySection,
        section: MemorySectionReader<'_>,
    ) -> Result<()> {
        for memory in section {
            let mut memory = self.memory_type(memory?)?;
            memory.minimum = self.memory_pages;
            out.memory(memory);
        }
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        out: &mut ExportSection,
        section: ExportSectionReader<'_>,
    ) -> Result<()> {
        for export in section {
            let export = export?;
            if self.door.keeps_export(export.name) {
                utils::parse_export(self, out, export)?;
            }
        }
        Ok(())
    }

    fn parse_data_section(
        &mut self,
        out: &mut DataSection,
        _: DataSectionReader<'_>,
    ) -> Result<()> {
        for segment in self.data {
            let address = (segment.address as u32).cast_signed();
            out.active(
                0,
                &ConstExpr::i32_const(address),
                segment.bytes.iter().copied(),
            );
        }
        Ok(())
    }

    fn data_count(&mut self, _: u32) -> Result<u32> {
        Ok(self.data.len() as u32)
    }

    fn parse_custom_section(
        &mut self,
        out: &mut Module,
        section: CustomSectionReader<'_>,
    ) -> Result<()> {
        if self.door.keeps_custom_section(section.name()) {
            let (name, data) = (section.name().into(), section.data().into());
            out.section(&CustomSection { name, data });
        }
        Ok(())
    }
}
