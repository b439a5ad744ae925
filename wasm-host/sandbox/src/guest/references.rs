//! What code and data of a module refer to, as the linker wrote it down.
//!
//! A function that is not called by its number is called by its place in a table, and that place is
//! a number like any other. The linker knows each of them: `build.rs` has it keep its relocations
//! (`--emit-relocs`), which say for every such number in the code and in the data, and for every
//! address of a constant, which symbol it stands for. So nothing has to be guessed from values.
//!
//! ```text
//! reloc.CODE   where in a function's body ─┐
//! reloc.DATA   where in the memory        ─┴─► symbol ─► a function, or bytes of the memory
//! ```
//!
//! Format: <https://github.com/WebAssembly/tool-conventions/blob/main/Linking.md>.

use std::ops::Range;

use wasmparser::{
    CustomSectionReader, DataKind, DataSectionReader, GlobalSectionReader, KnownCustom, Linking,
    LinkingSectionReader, Operator, Parser, Payload, RelocationEntry, RelocationType, SymbolFlags,
    SymbolInfo,
};

use super::GuestError;

/// Data that no program writes lies in a segment of this name.
const CONSTANTS: &str = ".rodata";
/// What the name of the table of operators ([`lethe_engine::operators::TABLE`]) contains, however the
/// compiler decorates it.
const OPERATORS: &str = "lethe_engine9operators5TABLE";
/// The global that points to the top of the stack, as the linker names it.
const STACK_POINTER: &str = "__stack_pointer";

/// What a symbol stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The function of this number.
    Function(u32),
    /// The memory at this address.
    Memory(usize),
}

/// Where in a module the number of a place in the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TablePlace {
    /// In an instruction, as a signed LEB128 of five bytes.
    Code(usize),
    /// In the data, as four bytes.
    Data(usize),
}

/// What code and data refer to.
#[derive(Debug, Default)]
pub(super) struct References {
    /// By place in the module, ascending.
    code: Vec<(usize, Target)>,
    /// By address, ascending.
    data: Vec<(usize, Target)>,
    /// Addresses of constants, ascending and apart: what overlaps is one.
    constants: Vec<Range<usize>>,
    /// Where in the module numbers of places in the table are.
    table_places: Vec<TablePlace>,
    /// Addresses of the stack: none where it is not known.
    stack: Range<usize>,
    /// Address of the table of operators.
    operators: Option<usize>,
}

impl References {
    /// Reads them.
    ///
    /// # Errors
    /// When the module's linker did not leave them.
    pub(super) fn read(module: &[u8]) -> Result<Self, GuestError> {
        let mut sections = Sections::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::CodeSectionStart { range, .. } => sections.code = range.start,
                Payload::GlobalSection(section) => sections.read_globals(section)?,
                Payload::DataSection(section) => sections.read_data(section)?,
                Payload::CustomSection(section) => sections.read_custom(&section)?,
                _ => {}
            }
        }
        match sections.has_symbols && sections.has_references {
            true => sections.references(),
            false => Err(GuestError("its linker left no relocations".into())),
        }
    }

    /// What the code in this range of the module refers to.
    pub(super) fn of_code(&self, body: Range<usize>) -> impl Iterator<Item = Target> {
        within(&self.code, body).map(|(_, target)| target)
    }

    /// What the data at these addresses refer to, and where.
    pub(super) fn of_data_at(
        &self,
        addresses: Range<usize>,
    ) -> impl Iterator<Item = (usize, Target)> {
        within(&self.data, addresses)
    }

    /// What the data that a program may write refer to before it does.
    pub(super) fn of_variables(&self) -> impl Iterator<Item = Target> {
        let variables = self.data.iter();
        let variables = variables.filter(|(address, _)| self.constant_at(*address).is_none());
        variables.map(|(_, target)| *target)
    }

    /// Address of the table of operators.
    pub(super) fn operators(&self) -> Option<usize> {
        self.operators
    }

    /// Addresses of constants, ascending and apart.
    pub(super) fn constants(&self) -> &[Range<usize>] {
        &self.constants
    }

    /// Where in the module numbers of places in the table are.
    pub(super) fn table_places(&self) -> &[TablePlace] {
        &self.table_places
    }

    /// Addresses of the stack, which lies below all data; none where that is not so.
    pub(super) fn stack(&self) -> &Range<usize> {
        &self.stack
    }

    /// The number of the constant that `address` lies in.
    pub(super) fn constant_at(&self, address: usize) -> Option<usize> {
        let all = self.constants.first()?.start..self.constants.last()?.end;
        if !all.contains(&address) {
            return None;
        }
        let after = self.constants.partition_point(|c| c.start <= address);
        let last = after.checked_sub(1)?;
        self.constants[last].contains(&address).then_some(last)
    }
}

fn within(all: &[(usize, Target)], places: Range<usize>) -> impl Iterator<Item = (usize, Target)> {
    let first = all.partition_point(|(place, _)| *place < places.start);
    let inside = all[first..]
        .iter()
        .take_while(move |(place, _)| *place < places.end);
    inside.copied()
}

/// A data segment.
struct DataPlace {
    address: usize,
    len_bytes: usize,
    /// Where its bytes begin, from the start of the data section.
    in_section: usize,
}

/// A symbol, before it is known where segments are.
enum Symbol {
    Function(u32),
    Data {
        segment: usize,
        offset: usize,
        len_bytes: usize,
    },
    /// A global, a table, or an address that nothing lies at.
    Other,
}

/// What is read of a module's sections, in whatever order they come.
#[derive(Default)]
struct Sections<'a> {
    /// Where the code section begins, and where the data section does.
    code: usize,
    data_section: usize,
    data: Vec<DataPlace>,
    segment_names: Vec<&'a str>,
    symbols: Vec<Symbol>,
    /// First values of globals that are numbers, and which of them is the stack pointer.
    globals: Vec<Option<i32>>,
    stack_pointer: Option<usize>,
    /// The symbol of the table of operators.
    operators: Option<usize>,
    code_entries: Vec<RelocationEntry>,
    data_entries: Vec<RelocationEntry>,
    has_symbols: bool,
    has_references: bool,
}

impl<'a> Sections<'a> {
    fn read_globals(&mut self, section: GlobalSectionReader<'_>) -> Result<(), GuestError> {
        for global in section {
            let first = global?.init_expr.get_operators_reader().read()?;
            self.globals.push(match first {
                Operator::I32Const { value } => Some(value),
                _ => None,
            });
        }
        Ok(())
    }

    fn read_data(&mut self, section: DataSectionReader<'_>) -> Result<(), GuestError> {
        let start = section.range().start;
        self.data_section = start;
        for segment in section {
            let segment = segment?;
            let DataKind::Active { offset_expr, .. } = segment.kind else {
                return Err(GuestError("a data segment without an address".into()));
            };
            let Operator::I32Const { value } = offset_expr.get_operators_reader().read()? else {
                return Err(GuestError("a data segment without an address".into()));
            };
            self.data.push(DataPlace {
                address: value.cast_unsigned() as usize,
                len_bytes: segment.data.len(),
                in_section: segment.range.end - segment.data.len() - start,
            });
        }
        Ok(())
    }

    fn read_custom(&mut self, section: &CustomSectionReader<'a>) -> Result<(), GuestError> {
        match (section.name(), section.as_known()) {
            (_, KnownCustom::Linking(linking)) => self.read_linking(linking)?,
            (name @ ("reloc.CODE" | "reloc.DATA"), KnownCustom::Reloc(relocations)) => {
                let entries = relocations.entries().into_iter();
                let entries = entries.collect::<Result<Vec<_>, _>>()?;
                match name {
                    "reloc.CODE" => self.code_entries = entries,
                    _ => self.data_entries = entries,
                }
                self.has_references = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn read_linking(&mut self, linking: LinkingSectionReader<'a>) -> Result<(), GuestError> {
        for part in linking.subsections() {
            match part? {
                Linking::SegmentInfo(segments) => {
                    for segment in segments {
                        self.segment_names.push(segment?.name);
                    }
                }
                Linking::SymbolTable(symbols) => {
                    for symbol in symbols {
                        let symbol = symbol?;
                        if let SymbolInfo::Data { name, .. } = symbol
                            && name.contains(OPERATORS)
                        {
                            self.operators = Some(self.symbols.len());
                        }
                        self.symbols.push(match symbol {
                            SymbolInfo::Global {
                                index,
                                name: Some(STACK_POINTER),
                                ..
                            } => {
                                self.stack_pointer = Some(index as usize);
                                Symbol::Other
                            }
                            SymbolInfo::Func { index, .. } => Symbol::Function(index),
                            SymbolInfo::Data {
                                flags,
                                symbol: Some(place),
                                ..
                            } if !flags.contains(SymbolFlags::ABSOLUTE) => Symbol::Data {
                                segment: place.index as usize,
                                offset: place.offset as usize,
                                len_bytes: place.size as usize,
                            },
                            _ => Symbol::Other,
                        });
                    }
                    self.has_symbols = true;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn references(&self) -> Result<References, GuestError> {
        let mut code = Vec::new();
        for entry in &self.code_entries {
            if let Some(target) = self.target(entry)? {
                code.push((self.code + entry.offset as usize, target));
            }
        }
        let mut data = Vec::new();
        for entry in &self.data_entries {
            if let Some(target) = self.target(entry)? {
                data.push((self.address_in_data(entry.offset as usize)?, target));
            }
        }
        code.sort_by_key(|(place, _)| *place);
        data.sort_by_key(|(place, _)| *place);
        Ok(References {
            code,
            data,
            constants: self.constants(),
            table_places: self.table_places()?,
            stack: self.stack(),
            operators: self.operators(),
        })
    }

    fn target(&self, entry: &RelocationEntry) -> Result<Option<Target>, GuestError> {
        use RelocationType::{
            EventIndexLeb, GlobalIndexI32, GlobalIndexLeb, SectionOffsetI32, TableNumberLeb,
            TypeIndexLeb,
        };
        let neither_code_nor_data = [
            EventIndexLeb,
            GlobalIndexI32,
            GlobalIndexLeb,
            SectionOffsetI32,
            TableNumberLeb,
            TypeIndexLeb,
        ];
        if neither_code_nor_data.contains(&entry.ty) {
            return Ok(None);
        }
        match self.symbols.get(entry.index as usize) {
            None => Err(GuestError(format!("no symbol {}", entry.index))),
            Some(&Symbol::Function(function)) => Ok(Some(Target::Function(function))),
            Some(Symbol::Other) => Ok(None),
            // The memory behind the last segment is zero before anything runs, and no constant.
            Some(&Symbol::Data {
                segment, offset, ..
            }) => Ok(self
                .data
                .get(segment)
                .map(|place| Target::Memory(place.address + offset))),
        }
    }

    fn table_places(&self) -> Result<Vec<TablePlace>, GuestError> {
        use RelocationType::{
            TableIndexI32, TableIndexI64, TableIndexRelSleb, TableIndexRelSleb64, TableIndexSleb,
            TableIndexSleb64,
        };
        let code = self.code_entries.iter().map(|entry| (entry, self.code));
        let data = self.data_entries.iter();
        let data = data.map(|entry| (entry, self.data_section));
        let mut places = Vec::new();
        for (entry, section) in code.chain(data) {
            let place = section + entry.offset as usize;
            match entry.ty {
                TableIndexSleb => places.push(TablePlace::Code(place)),
                TableIndexI32 => places.push(TablePlace::Data(place)),
                TableIndexI64 | TableIndexRelSleb | TableIndexRelSleb64 | TableIndexSleb64 => {
                    return Err(GuestError(format!("a relocation {:?}", entry.ty)));
                }
                _ => {}
            }
        }
        Ok(places)
    }

    fn address_in_data(&self, in_section: usize) -> Result<usize, GuestError> {
        let holds = |place: &&DataPlace| {
            (place.in_section..place.in_section + place.len_bytes).contains(&in_section)
        };
        let place = self.data.iter().find(holds);
        let place = place.ok_or_else(|| GuestError("a relocation outside of the data".into()))?;
        Ok(place.address + in_section - place.in_section)
    }

    fn operators(&self) -> Option<usize> {
        match self.symbols.get(self.operators?)? {
            Symbol::Data {
                segment, offset, ..
            } => Some(self.data.get(*segment)?.address + offset),
            _ => None,
        }
    }

    fn stack(&self) -> Range<usize> {
        let pointer = self
            .stack_pointer
            .and_then(|global| *self.globals.get(global)?);
        let end = pointer.and_then(|pointer| usize::try_from(pointer).ok());
        let data = self.data.iter().map(|place| place.address).min();
        match (end, data) {
            (Some(end), Some(data)) if end <= data => 0..end,
            _ => 0..0,
        }
    }

    fn constants(&self) -> Vec<Range<usize>> {
        let mut constants: Vec<Range<usize>> = Vec::new();
        for symbol in &self.symbols {
            let &Symbol::Data {
                segment,
                offset,
                len_bytes,
            } = symbol
            else {
                continue;
            };
            let name = self.segment_names.get(segment);
            let Some(place) = self.data.get(segment) else {
                continue;
            };
            if len_bytes > 0 && name.is_some_and(|name| name.starts_with(CONSTANTS)) {
                let start = place.address + offset;
                constants.push(start..start + len_bytes);
            }
        }
        constants.sort_by_key(|constant| constant.start);
        constants.dedup_by(|next, last| {
            let overlap = next.start < last.end;
            if overlap {
                last.end = last.end.max(next.end);
            }
            overlap
        });
        constants
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{GUEST, MODULE};

    #[test]
    fn the_linkers_record_holds_for_the_guest() {
        let references = References::read(MODULE).unwrap();
        let stack = references.stack();
        let first = references.constants()[0].start;
        assert!(!stack.is_empty() && stack.end <= first, "{stack:?} {first}");
        // An address in the data is that of the symbol that the relocation names, or within it.
        let mut checked = 0;
        for segment in GUEST.data() {
            let addresses = segment.address..segment.address + segment.bytes.len();
            for &(address, target) in &references.data {
                let Target::Memory(expected) = target else {
                    continue;
                };
                if !addresses.contains(&address) {
                    continue;
                }
                let bytes = &segment.bytes[address - segment.address..][..4];
                let found = u32::from_le_bytes(bytes.try_into().unwrap()) as usize;
                let constant = references.constant_at(expected);
                assert!(found >= expected, "at {address}: {found} for {expected}");
                assert!(constant.is_none() || constant == references.constant_at(found));
                checked += 1;
            }
        }
        assert!(checked > 1000, "{checked} addresses");
    }

    #[test]
    fn a_module_without_a_record_is_an_error() {
        let bare = GUEST.moved();
        let error = References::read(bare.module).unwrap_err().to_string();
        assert!(error.contains("relocations"), "{error}");
    }
}
