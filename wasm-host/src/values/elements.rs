//! Elements of any type as numbers, for comparing, summing up and printing.

use lethe_engine::tensor::{Bool, decode_small_float, encode_small_float};
use lethe_engine::{DataType, Tensor};
use std::fmt;

use half::{bf16, f16};

/// A tensor's elements, widened.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements<'a> {
    /// Floating-point numbers of any width.
    Reals(Vec<f64>),
    /// Integers of any width.
    Integers(Vec<i128>),
    /// Complex numbers: real and imaginary part.
    Complexes(Vec<(f64, f64)>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Strings.
    Strings(&'a [String]),
}

impl<'a> Elements<'a> {
    /// The elements of a tensor.
    pub fn of(tensor: &'a Tensor) -> Self {
        use DataType::*;
        macro_rules! cast {
            ($variant:ident, $type:ty, $to:expr) => {
                Self::$variant(pods::<$type>(tensor).map($to).collect())
            };
        }
        match tensor.data_type() {
            Float32 => cast!(Reals, f32, f64::from),
            Float64 => cast!(Reals, f64, |v| v),
            Float16 => cast!(Reals, f16, f64::from),
            Bfloat16 => cast!(Reals, bf16, f64::from),
            Int8 => cast!(Integers, i8, i128::from),
            Int16 => cast!(Integers, i16, i128::from),
            Int32 => cast!(Integers, i32, i128::from),
            Int64 => cast!(Integers, i64, i128::from),
            Uint8 => cast!(Integers, u8, i128::from),
            Uint16 => cast!(Integers, u16, i128::from),
            Uint32 => cast!(Integers, u32, i128::from),
            Uint64 => cast!(Integers, u64, i128::from),
            Bool => cast!(Bools, self::Bool, self::Bool::get),
            Complex64 => cast!(Complexes, [f32; 2], |[re, im]| (re.into(), im.into())),
            Complex128 => cast!(Complexes, [f64; 2], |[re, im]| (re, im)),
            String => Self::Strings(tensor.as_strings().unwrap_or_default()),
            small @ (Float8E4M3FN | Float8E4M3FNUZ | Float8E5M2 | Float8E5M2FNUZ | Float8E8M0
            | Float4E2M1) => Self::Reals(
                codes(tensor)
                    .map(|code| decode_small_float(small, code).into())
                    .collect(),
            ),
            Uint4 | Uint2 => Self::Integers(codes(tensor).map(i128::from).collect()),
            signed @ (Int4 | Int2) => {
                let unused = 8 - signed.bits() as u32;
                let extend = |code: u8| i128::from((code << unused).cast_signed() >> unused);
                Self::Integers(codes(tensor).map(extend).collect())
            }
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Reals(v) => v.len(),
            Self::Integers(v) => v.len(),
            Self::Complexes(v) => v.len(),
            Self::Bools(v) => v.len(),
            Self::Strings(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as real numbers, where they are ordered numbers.
    pub fn to_reals(&self) -> Option<Vec<f64>> {
        match self {
            Self::Reals(v) => Some(v.clone()),
            Self::Integers(v) => Some(v.iter().map(|&n| n as f64).collect()),
            Self::Bools(v) => Some(v.iter().map(|&b| f64::from(u8::from(b))).collect()),
            Self::Complexes(_) | Self::Strings(_) => None,
        }
    }

    /// The `i`-th element for people.
    pub fn show(&self, i: usize) -> Shown<'_> {
        Shown { elements: self, i }
    }
}

/// One element, to be printed.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    elements: &'a Elements<'a>,
    i: usize,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.elements {
            // As many digits as an f32 has, and no trailing noise of the widening.
            Elements::Reals(v) => write!(f, "{}", v[self.i] as f32),
            Elements::Integers(v) => write!(f, "{}", v[self.i]),
            Elements::Complexes(v) => write!(f, "{}{:+}i", v[self.i].0 as f32, v[self.i].1 as f32),
            Elements::Bools(v) => write!(f, "{}", v[self.i]),
            Elements::Strings(v) => write!(f, "{:?}", v[self.i]),
        }
    }
}

/// A number read from text, before it has a type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Without fraction or exponent.
    Integer(i128),
    /// Any other.
    Real(f64),
}

impl Number {
    fn to_f64(self) -> f64 {
        match self {
            Self::Integer(n) => n as f64,
            Self::Real(x) => x,
        }
    }

    /// The integer that this is, if it lies between these.
    fn integer(self, least: i128, most: i128) -> Option<i128> {
        let n = match self {
            Self::Integer(n) => n,
            Self::Real(x) if x.fract() == 0.0 && x.abs() < 1e15 => x as i128,
            Self::Real(_) => return None,
        };
        (least..=most).contains(&n).then_some(n)
    }
}

/// A tensor of numbers, which must be of its type: no fractions for integers, nothing beyond its
/// range.
///
/// # Errors
/// The number that is not, or that they are too many or too few.
pub fn tensor_of_numbers(
    data_type: DataType,
    shape: &[usize],
    numbers: &[Number],
) -> Result<Tensor, String> {
    use DataType::*;
    macro_rules! floats {
        ($from:expr) => {
            numbers
                .iter()
                .flat_map(|n| $from(n.to_f64()).to_le_bytes())
                .collect()
        };
    }
    macro_rules! integers {
        ($type:ty) => {
            checked(data_type, numbers, <$type>::MIN.into(), <$type>::MAX.into())?
                .into_iter()
                .flat_map(|n| (n as $type).to_le_bytes())
                .collect()
        };
    }
    let bytes: Vec<u8> = match data_type {
        Float32 => floats!(|x| x as f32),
        Float64 => floats!(|x: f64| x),
        Float16 => floats!(f16::from_f64),
        Bfloat16 => floats!(bf16::from_f64),
        Int8 => integers!(i8),
        Int16 => integers!(i16),
        Int32 => integers!(i32),
        Int64 => integers!(i64),
        Uint8 => integers!(u8),
        Uint16 => integers!(u16),
        Uint32 => integers!(u32),
        Uint64 => integers!(u64),
        Bool => checked(data_type, numbers, 0, 1)?
            .into_iter()
            .map(|n| n as u8)
            .collect(),
        Complex64 => numbers
            .iter()
            .flat_map(|n| [n.to_f64() as f32, 0.0])
            .flat_map(f32::to_le_bytes)
            .collect(),
        Complex128 => numbers
            .iter()
            .flat_map(|n| [n.to_f64(), 0.0])
            .flat_map(f64::to_le_bytes)
            .collect(),
        Int4 => pack(
            checked(data_type, numbers, -8, 7)?
                .into_iter()
                .map(|n| n as u8),
            4,
        ),
        Uint4 => pack(
            checked(data_type, numbers, 0, 15)?
                .into_iter()
                .map(|n| n as u8),
            4,
        ),
        Int2 => pack(
            checked(data_type, numbers, -2, 1)?
                .into_iter()
                .map(|n| n as u8),
            2,
        ),
        Uint2 => pack(
            checked(data_type, numbers, 0, 3)?
                .into_iter()
                .map(|n| n as u8),
            2,
        ),
        small @ (Float8E4M3FN | Float8E4M3FNUZ | Float8E5M2 | Float8E5M2FNUZ | Float8E8M0
        | Float4E2M1) => {
            let codes = numbers
                .iter()
                .map(|n| encode_small_float(small, n.to_f64() as f32, true));
            pack(codes, small.bits())
        }
        String => return Err("numbers where strings are expected".into()),
    };
    Tensor::from_bytes(data_type, shape, bytes).map_err(|e| e.to_string())
}

fn checked(
    data_type: DataType,
    numbers: &[Number],
    least: i128,
    most: i128,
) -> Result<Vec<i128>, String> {
    let integer = |n: &Number| {
        n.integer(least, most)
            .ok_or_else(|| format!("{} is no {data_type}", n.to_f64()))
    };
    numbers.iter().map(integer).collect()
}

/// Codes of `bits` bits, the first one in a byte's low bits.
fn pack(codes: impl Iterator<Item = u8>, bits: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let mask = 0xff >> (8 - bits);
    let codes: Vec<u8> = codes.collect();
    let byte = |codes: &[u8]| {
        let codes = codes.iter().enumerate();
        codes.fold(0, |byte, (i, code)| byte | (code & mask) << (i * bits))
    };
    codes.chunks(per_byte).map(byte).collect()
}

/// The elements of a type of whole bytes, wherever they lie.
fn pods<T: bytemuck::AnyBitPattern>(tensor: &Tensor) -> impl Iterator<Item = T> + '_ {
    let bytes = tensor.bytes().chunks_exact(size_of::<T>());
    bytes.map(bytemuck::pod_read_unaligned)
}

/// The codes of a type of at most a byte, one an element.
fn codes(tensor: &Tensor) -> impl Iterator<Item = u8> + '_ {
    let bits = tensor.data_type().bits();
    let per_byte = 8 / bits;
    let mask = 0xff >> (8 - bits);
    let bytes = tensor.bytes();
    (0..tensor.len()).map(move |i| (bytes[i / per_byte] >> (i % per_byte * bits)) & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_types_are_unpacked() {
        let cases: &[(DataType, usize, &[u8], Elements<'_>)] = &[
            (
                DataType::Int4,
                3,
                &[0xf1, 0x08],
                Elements::Integers(vec![1, -1, -8]),
            ),
            (
                DataType::Uint4,
                3,
                &[0xf1, 0x08],
                Elements::Integers(vec![1, 15, 8]),
            ),
            (
                DataType::Int2,
                5,
                &[0b11_10_01_00, 0b11],
                Elements::Integers(vec![0, 1, -2, -1, -1]),
            ),
            (
                DataType::Float4E2M1,
                2,
                &[0x9f],
                Elements::Reals(vec![-6.0, -0.5]),
            ),
            (
                DataType::Float8E4M3FN,
                1,
                &[0x38],
                Elements::Reals(vec![1.0]),
            ),
            (
                DataType::Complex64,
                1,
                &[0, 0, 128, 63, 0, 0, 0, 64],
                Elements::Complexes(vec![(1.0, 2.0)]),
            ),
            (
                DataType::Bool,
                2,
                &[0, 7],
                Elements::Bools(vec![false, true]),
            ),
        ];
        for (data_type, len, bytes, expected) in cases {
            let tensor = Tensor::from_bytes(*data_type, &[*len], bytes.to_vec()).unwrap();
            assert_eq!(&Elements::of(&tensor), expected, "{data_type}");
        }
    }

    #[test]
    fn numbers_become_every_type_and_come_back() {
        let numbers = [0, 1, 1, 0, 1].map(Number::Integer);
        for &data_type in DataType::ALL {
            let made = tensor_of_numbers(data_type, &[5], &numbers);
            if data_type == DataType::String {
                assert!(made.is_err());
                continue;
            }
            let made = made.unwrap();
            let expected = match data_type {
                // A power of two is never zero.
                DataType::Float8E8M0 => continue,
                DataType::Complex64 | DataType::Complex128 => continue,
                _ => vec![0.0, 1.0, 1.0, 0.0, 1.0],
            };
            assert_eq!(
                Elements::of(&made).to_reals(),
                Some(expected),
                "{data_type}"
            );
        }
    }

    #[test]
    fn numbers_beyond_a_type_are_refused() {
        let cases = [
            (DataType::Int8, Number::Integer(128)),
            (DataType::Uint64, Number::Integer(-1)),
            (DataType::Int4, Number::Integer(8)),
            (DataType::Bool, Number::Integer(2)),
            (DataType::Int32, Number::Real(0.5)),
        ];
        for (data_type, number) in cases {
            assert!(
                tensor_of_numbers(data_type, &[], &[number]).is_err(),
                "{data_type}"
            );
        }
    }
}
