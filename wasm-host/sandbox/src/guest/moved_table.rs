//! The same guest with every function one place further in the table.
//!
//! It does what the guest does and computes the same. Only where it stores a function, the number is
//! [`SHIFT`] more, which tells functions in a memory from other numbers.

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{ConstExpr, ElementSection, Elements, Module, TableType};
use wasmparser::{
    CustomSectionReader, ElementItems, ElementKind, ElementSectionReader, Operator, Parser,
};

use super::GuestError;
use super::references::{References, TablePlace};

/// How many places functions are moved.
pub(super) const SHIFT: u32 = 1;

/// Bytes of a number in an instruction that the linker has filled in.
const LEB_BYTES: usize = 5;

/// The module with its table moved.
///
/// # Errors
/// When the linker did not leave what code and data refer to.
pub(super) fn moved(module: &[u8]) -> Result<Vec<u8>, GuestError> {
    let references = References::read(module)?;
    let mut module = module.to_vec();
    for place in references.table_places() {
        match *place {
            TablePlace::Code(at) => {
                let bytes = &mut module[at..at + LEB_BYTES];
                let number = read_leb(bytes) + SHIFT;
                write_leb(bytes, number);
            }
            TablePlace::Data(at) => {
                let bytes: &mut [u8; 4] = (&mut module[at..at + 4])
                    .try_into()
                    .expect("four bytes were taken");
                *bytes = (u32::from_le_bytes(*bytes) + SHIFT).to_le_bytes();
            }
        }
    }
    let mut out = Module::new();
    MovedTable
        .parse_core_module(&mut out, Parser::new(0), &module)
        .map_err(|error| GuestError(error.to_string()))?;
    Ok(out.finish())
}

/// A number below 2^31 as a signed LEB128, whatever its length.
fn read_leb(bytes: &[u8]) -> u32 {
    let sevens = bytes.iter().enumerate();
    sevens.fold(0, |number, (i, byte)| {
        number | u32::from(byte & 0x7f) << (7 * i)
    })
}

/// Fills `bytes` with a number below 2^31.
fn write_leb(bytes: &mut [u8], number: u32) {
    let last = bytes.len() - 1;
    for (i, byte) in bytes.iter_mut().enumerate() {
        let continues = if i < last { 0x80 } else { 0 };
        *byte = (number >> (7 * i)) as u8 & 0x7f | continues;
    }
}

struct MovedTable;

type Reencoded<T> = Result<T, reencode::Error<GuestError>>;

impl Reencode for MovedTable {
    type Error = GuestError;

    fn table_type(&mut self, table: wasmparser::TableType) -> Reencoded<TableType> {
        let mut table = reencode::utils::table_type(self, table)?;
        table.minimum += u64::from(SHIFT);
        table.maximum = table.maximum.map(|most| most + u64::from(SHIFT));
        Ok(table)
    }

    /// The linker's record is about the places that numbers had.
    fn parse_custom_section(
        &mut self,
        out: &mut Module,
        section: CustomSectionReader<'_>,
    ) -> Reencoded<()> {
        match section.name().starts_with("component-type") {
            true => reencode::utils::parse_custom_section(self, out, section),
            false => Ok(()),
        }
    }

    fn parse_element_section(
        &mut self,
        out: &mut ElementSection,
        section: ElementSectionReader<'_>,
    ) -> Reencoded<()> {
        for element in section {
            let element = element?;
            let unknown = || GuestError("a table that is not filled with functions".into());
            let (ElementKind::Active { offset_expr, .. }, ElementItems::Functions(functions)) =
                (element.kind, element.items)
            else {
                return Err(reencode::Error::UserError(unknown()));
            };
            let Operator::I32Const { value } = offset_expr.get_operators_reader().read()? else {
                return Err(reencode::Error::UserError(unknown()));
            };
            let functions: Vec<u32> = functions.into_iter().collect::<Result<_, _>>()?;
            let first = ConstExpr::i32_const(value + SHIFT.cast_signed());
            out.active(None, &first, Elements::Functions(functions.into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_code_keep_their_length() {
        for number in [0, 1, 63, 64, 127, 128, 8191, 8192, 1 << 30] {
            let mut bytes = [0; LEB_BYTES];
            write_leb(&mut bytes, number);
            assert_eq!(read_leb(&bytes), number);
            let mut reader = wasmparser::BinaryReader::new(&bytes, 0);
            let read = reader.read_var_i32().unwrap();
            assert_eq!(read, number.cast_signed());
            assert!(reader.eof());
        }
    }
}
