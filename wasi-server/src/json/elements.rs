//! Tensor elements as JSON, both ways.

use std::fmt;
use std::marker::PhantomData;

use half::{bf16, f16};
use lethe_engine::tensor::{Storage, decode_small_float, element_count, encode_small_float};
use lethe_engine::{DataType, Tensor};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::nesting::Nesting;

/// The elements of one tensor, read but not yet given a shape.
#[derive(Debug, Default)]
pub(super) struct Elements {
    /// Fixed-size elements, little-endian; sub-byte types one to a byte.
    bytes: Vec<u8>,
    strings: Vec<String>,
    len: usize,
    wrong: Option<WrongElement>,
    nesting: Nesting,
}

/// The first element that does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrongElement {
    /// Its place in row-major order.
    pub index: usize,
    /// The JSON that was found.
    pub found: String,
}

impl Elements {
    /// The tensor of this type and shape.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn into_tensor(
        self,
        data_type: DataType,
        shape: &[usize],
    ) -> Result<Tensor, (String, String)> {
        if let Some(wrong) = self.wrong {
            let expected = format!("elements of {}", data_type.protocol_name());
            return Err((
                expected,
                format!("{} at index {}", wrong.found, wrong.index),
            ));
        }
        if element_count(shape) != Some(self.len) {
            let expected = match element_count(shape) {
                Some(count) => format!("{count} elements for shape {shape:?}"),
                None => format!("a shape that fits memory instead of {shape:?}"),
            };
            return Err((expected, self.len.to_string()));
        }
        self.nesting.check(shape)?;
        let tensor = match data_type {
            DataType::String => Tensor::from_strings(shape, self.strings),
            packed if packed.is_sub_byte() => {
                Tensor::from_bytes(packed, shape, pack(&self.bytes, packed.bits()))
            }
            other => Tensor::from_bytes(other, shape, self.bytes),
        };
        tensor.map_err(|error| ("a tensor".into(), error.to_string()))
    }
}

/// Codes of `bits` bits, the first in a byte's low bits.
fn pack(codes: &[u8], bits: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let pack = |codes: &[u8]| {
        codes
            .iter()
            .enumerate()
            .fold(0u8, |byte, (i, &code)| byte | code << (i * bits))
    };
    codes.chunks(per_byte).map(pack).collect()
}

/// An element type as JSON has it; each method says whether that JSON value is one.
trait JsonElement {
    fn push_integer(&self, _: i128, _: &mut Elements) -> bool {
        false
    }
    fn push_float(&self, _: f64, _: &mut Elements) -> bool {
        false
    }
    fn push_bool(&self, _: bool, _: &mut Elements) -> bool {
        false
    }
    fn push_text(&self, _: &str, _: &mut Elements) -> bool {
        false
    }
}

/// Any of them. A reader of JSON for each type would be a tenth of a small bundle.
impl JsonElement for &dyn JsonElement {
    fn push_integer(&self, value: i128, to: &mut Elements) -> bool {
        (**self).push_integer(value, to)
    }
    fn push_float(&self, value: f64, to: &mut Elements) -> bool {
        (**self).push_float(value, to)
    }
    fn push_bool(&self, value: bool, to: &mut Elements) -> bool {
        (**self).push_bool(value, to)
    }
    fn push_text(&self, text: &str, to: &mut Elements) -> bool {
        (**self).push_text(text, to)
    }
}

/// Elements that are numbers of a type of Rust's, or of `half`'s.
struct Number<T>(PhantomData<T>);

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl JsonElement for Number<$type> {
            fn push_integer(&self, value: i128, to: &mut Elements) -> bool {
                let Ok(value) = <$type>::try_from(value) else { return false };
                to.bytes.extend_from_slice(&value.to_le_bytes());
                true
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, u8, u16, u32, u64);

/// `value` as a float that JSON cannot write as a number.
fn non_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

macro_rules! floats {
    ($($type:ty, $from:expr;)*) => {$(
        impl JsonElement for Number<$type> {
            fn push_integer(&self, value: i128, to: &mut Elements) -> bool {
                self.push_float(value as f64, to)
            }
            fn push_float(&self, value: f64, to: &mut Elements) -> bool {
                let narrow: $type = $from(value);
                // A number beyond the type's range is a mistake, not an infinity.
                let fits = narrow.is_finite() || !value.is_finite();
                if fits {
                    to.bytes.extend_from_slice(&narrow.to_le_bytes());
                }
                fits
            }
            fn push_text(&self, text: &str, to: &mut Elements) -> bool {
                non_finite(text).is_some_and(|value| self.push_float(value, to))
            }
        }
    )*};
}
floats! { f32, |v| v as f32; f64, |v| v; f16, f16::from_f64; bf16, bf16::from_f64; }

struct Boolean;
impl JsonElement for Boolean {
    fn push_bool(&self, value: bool, to: &mut Elements) -> bool {
        to.bytes.push(value as u8);
        true
    }
}

struct Text;
impl JsonElement for Text {
    fn push_text(&self, text: &str, to: &mut Elements) -> bool {
        to.strings.push(text.to_owned());
        true
    }
}

/// A signed or unsigned integer of 4 or 2 bits.
struct Narrow<const BITS: u32, const SIGNED: bool>;
impl<const BITS: u32, const SIGNED: bool> JsonElement for Narrow<BITS, SIGNED> {
    fn push_integer(&self, value: i128, to: &mut Elements) -> bool {
        let (low, high) = if SIGNED {
            (-(1 << (BITS - 1)), 1 << (BITS - 1))
        } else {
            (0, 1 << BITS)
        };
        let fits = (low..high).contains(&value);
        if fits {
            to.bytes.push(value as u8 & ((1 << BITS) - 1));
        }
        fits
    }
}

/// An 8-bit or 4-bit float.
struct SmallFloat(DataType);
impl JsonElement for SmallFloat {
    fn push_integer(&self, value: i128, to: &mut Elements) -> bool {
        self.push_float(value as f64, to)
    }
    fn push_float(&self, value: f64, to: &mut Elements) -> bool {
        to.bytes
            .push(encode_small_float(self.0, value as f32, false));
        true
    }
    fn push_text(&self, text: &str, to: &mut Elements) -> bool {
        non_finite(text).is_some_and(|value| self.push_float(value, to))
    }
}

/// Reads a flat or nested JSON array as elements of one type.
pub(super) struct ElementsSeed(pub(super) DataType);

impl<'de> DeserializeSeed<'de> for ElementsSeed {
    type Value = Elements;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Elements, D::Error> {
        let mut to = Elements::default();
        let element: &dyn JsonElement = match self.0 {
            // What most requests are of has a reader of its own.
            DataType::Float32 => {
                let element = &Number::<f32>(PhantomData);
                Flatten {
                    to: &mut to,
                    element,
                }
                .deserialize(from)?;
                return Ok(to);
            }
            DataType::Float64 => &Number::<f64>(PhantomData),
            DataType::Float16 => &Number::<f16>(PhantomData),
            DataType::Bfloat16 => &Number::<bf16>(PhantomData),
            DataType::Int8 => &Number::<i8>(PhantomData),
            DataType::Int16 => &Number::<i16>(PhantomData),
            DataType::Int32 => &Number::<i32>(PhantomData),
            DataType::Int64 => &Number::<i64>(PhantomData),
            DataType::Uint8 => &Number::<u8>(PhantomData),
            DataType::Uint16 => &Number::<u16>(PhantomData),
            DataType::Uint32 => &Number::<u32>(PhantomData),
            DataType::Uint64 => &Number::<u64>(PhantomData),
            DataType::Bool => &Boolean,
            DataType::String => &Text,
            DataType::Int4 => &Narrow::<4, true>,
            DataType::Uint4 => &Narrow::<4, false>,
            DataType::Int2 => &Narrow::<2, true>,
            DataType::Uint2 => &Narrow::<2, false>,
            DataType::Float8E4M3FN
            | DataType::Float8E4M3FNUZ
            | DataType::Float8E5M2
            | DataType::Float8E5M2FNUZ
            | DataType::Float4E2M1
            | DataType::Float8E8M0 => &SmallFloat(self.0),
            DataType::Complex64 | DataType::Complex128 => {
                to.wrong = Some(WrongElement {
                    index: 0,
                    found: "JSON, which has none".into(),
                });
                IgnoredAny::deserialize(from)?;
                return Ok(to);
            }
        };
        Flatten {
            to: &mut to,
            element: &element,
        }
        .deserialize(from)?;
        Ok(to)
    }
}

/// Appends a JSON value, or the values of an array however nested, to `to`.
struct Flatten<'a, T> {
    to: &'a mut Elements,
    element: &'a T,
}

impl<'de, T: JsonElement> DeserializeSeed<'de> for Flatten<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<T: JsonElement> Flatten<'_, T> {
    #[inline]
    fn note<E>(self, fits: bool, found: impl fmt::Display) -> Result<(), E> {
        if !fits && self.to.wrong.is_none() {
            let found = found.to_string();
            self.to.wrong = Some(WrongElement {
                index: self.to.len,
                found,
            });
        }
        self.to.len += 1;
        self.to.nesting.element();
        Ok(())
    }
}

impl<'de, T: JsonElement> Visitor<'de> for Flatten<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of elements")
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        let fits = self.element.push_integer(value.into(), self.to);
        self.note(fits, value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        let fits = self.element.push_integer(value.into(), self.to);
        self.note(fits, value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        let fits = self.element.push_float(value, self.to);
        self.note(fits, value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        let fits = self.element.push_bool(value, self.to);
        self.note(fits, value)
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        let fits = self.element.push_text(value, self.to);
        self.note(fits, "a string")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.note(false, "null")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.to.nesting.open();
        let mut len = 0;
        while seq
            .next_element_seed(Flatten {
                to: &mut *self.to,
                element: self.element,
            })?
            .is_some()
        {
            len += 1;
        }
        self.to.nesting.close(len);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.note(false, "an object")
    }
}

/// Writes a tensor's elements as one flat JSON array.
///
/// # Errors
/// The element type, where JSON has no form for it.
pub fn write_elements(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), DataType> {
    let data_type = tensor.data_type();
    let bytes = match tensor.storage() {
        Storage::Strings(strings) => {
            write_array(out, strings.iter(), |out, text| write(out, text.as_str()));
            return Ok(());
        }
        Storage::Bytes(bytes) => &bytes[..],
    };
    macro_rules! array {
        ($type:ty, $write:expr) => {{
            let (elements, _) = bytes.as_chunks();
            write_array(
                out,
                elements.iter().map(|&e| <$type>::from_le_bytes(e)),
                $write,
            )
        }};
    }
    match data_type {
        DataType::Float32 => array!(f32, write_f32),
        DataType::Float64 => array!(f64, write_f64),
        DataType::Float16 => array!(f16, |out, v| write_f32(out, v.to_f32())),
        DataType::Bfloat16 => array!(bf16, |out, v| write_f32(out, v.to_f32())),
        DataType::Int8 => array!(i8, write),
        DataType::Int16 => array!(i16, write),
        DataType::Int32 => array!(i32, write),
        DataType::Int64 => array!(i64, write),
        DataType::Uint8 => array!(u8, write),
        DataType::Uint16 => array!(u16, write),
        DataType::Uint32 => array!(u32, write),
        DataType::Uint64 => array!(u64, write),
        DataType::Bool => array!(u8, |out, v| write(out, v != 0)),
        DataType::Complex64 | DataType::Complex128 | DataType::String => return Err(data_type),
        narrow => {
            let bits = narrow.bits();
            let codes = (0..tensor.len()).map(|i| {
                let (byte, shift) = (bytes[i * bits / 8], i * bits % 8);
                byte >> shift & (0xff >> (8 - bits))
            });
            write_array(out, codes, |out, code| match narrow {
                DataType::Int4 | DataType::Int2 => {
                    let shift = 8 - bits;
                    write(out, (code << shift).cast_signed() >> shift);
                }
                DataType::Uint4 | DataType::Uint2 => write(out, code),
                float => write_f32(out, decode_small_float(float, code)),
            });
        }
    }
    Ok(())
}

fn write_array<T>(
    out: &mut Vec<u8>,
    elements: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, element) in elements.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

fn write(out: &mut Vec<u8>, value: impl serde::Serialize) {
    serde_json::to_writer(out, &value).expect("writing a scalar to memory succeeds");
}

/// The shortest decimal that reads back as the same float.
fn write_f32(out: &mut Vec<u8>, value: f32) {
    match value.is_finite() {
        true => write(out, value),
        false => write_f64(out, value.into()),
    }
}

fn write_f64(out: &mut Vec<u8>, value: f64) {
    match value {
        value if value.is_finite() => write(out, value),
        value if value.is_nan() => write(out, "NaN"),
        value if value > 0.0 => write(out, "Infinity"),
        _ => write(out, "-Infinity"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data_type: DataType, shape: &[usize], json: &str) -> Result<Tensor, (String, String)> {
        let mut from = serde_json::Deserializer::from_str(json);
        let elements = ElementsSeed(data_type)
            .deserialize(&mut from)
            .expect("the JSON is valid");
        elements.into_tensor(data_type, shape)
    }

    #[test]
    fn elements_round_trip() {
        use DataType::*;
        let cases = [
            (
                Float32,
                "[1.5,-0.0,3.4028235e+38,1e-45,\"NaN\",\"-Infinity\"]",
            ),
            (Float64, "[0.1,1e+300,\"Infinity\"]"),
            (Float16, "[0.5,-65504.0,0.00006097555]"),
            (Bfloat16, "[1.0,3.3895314e+38]"),
            (Int8, "[-128,127]"),
            (Int64, "[-9223372036854775808,9223372036854775807]"),
            (Uint64, "[18446744073709551615]"),
            (Uint16, "[0,65535]"),
            (Bool, "[true,false,true]"),
            (String, "[\"λήθη\",\"a\\\"b\\n\",\"\"]"),
            (Int4, "[-8,7,-1]"),
            (Uint4, "[0,15,3]"),
            (Int2, "[-2,1,0,-1,1]"),
            (Float8E4M3FN, "[1.0,-448.0]"),
            (Float4E2M1, "[0.5,6.0,-1.5]"),
        ];
        for (data_type, json) in cases {
            let len = json.matches(',').count() + 1;
            let tensor = read(data_type, &[len], json).unwrap_or_else(|e| panic!("{json}: {e:?}"));
            let mut out = Vec::new();
            write_elements(&mut out, &tensor).unwrap();
            assert_eq!(
                std::string::String::from_utf8(out).unwrap(),
                json,
                "{data_type}"
            );
        }
    }

    #[test]
    fn nested_arrays_are_row_major() {
        let tensor = read(DataType::Int32, &[2, 2], "[[1,2],[3,4]]").unwrap();
        assert_eq!(tensor.as_slice::<i32>().unwrap(), [1, 2, 3, 4]);
        let scalar = read(DataType::Float32, &[], "[7]").unwrap();
        assert_eq!(scalar.as_slice::<f32>().unwrap(), [7.0]);
        assert!(read(DataType::Float32, &[0, 3], "[]").unwrap().is_empty());
    }

    #[test]
    fn wrong_elements_say_what_and_where() {
        use DataType::*;
        let cases = [
            (Int8, "[1,128]", "128 at index 1"),
            (Int64, "[1.5]", "1.5 at index 0"),
            (Float32, "[1,null]", "null at index 1"),
            (Float32, "[1,2,1e39]", "1e39 at index 2"),
            (Float32, "[\"1\"]", "a string at index 0"),
            (Float16, "[70000]", "70000 at index 0"),
            (Bool, "[1]", "1 at index 0"),
            (String, "[1]", "1 at index 0"),
            (Uint4, "[16]", "16 at index 0"),
            (Float32, "[{}]", "an object at index 0"),
        ];
        for (data_type, json, expected) in cases {
            let len = json.matches(',').count() + 1;
            let (wanted, found) = read(data_type, &[len], json).unwrap_err();
            assert!(wanted.ends_with(data_type.protocol_name()), "{wanted}");
            let found = found.replace("1000000000000000000000000000000000000000", "1e39");
            assert_eq!(found, expected, "{json}");
        }
        let (wanted, found) = read(Float32, &[2, 2], "[1,2,3]").unwrap_err();
        assert_eq!((&*wanted, &*found), ("4 elements for shape [2, 2]", "3"));
        assert!(read(Float32, &[usize::MAX, usize::MAX], "[1]").is_err());
        assert!(read(Complex64, &[1], "[1]").is_err());
    }
}
