//! Conversion between element types.
//!
//! The common pairs have loops of their own; every other pair goes through `i64`, `u64` or `f64`,
//! of which one holds each source exactly, a chunk at a time:
//! ```text
//! for each chunk: source → [i64 | u64 | f64; 256] → target
//! ```
//! Integers wrap, floats are truncated towards zero for integers and rounded to nearest even for
//! floats, as the `Cast` operator wants.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::error::OpError;
use crate::tensor::packed::{pack_codes, unpack_codes};
use crate::tensor::{
    DataType, Element, TensorView, TensorViewMut, decode_small_float, encode_small_float,
};

/// How numbers become 8-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmallFloatRounding {
    /// Whether numbers out of range become the largest one, rather than infinity or NaN.
    pub saturate: bool,
    /// Direction for float8e8m0, which holds powers of two only.
    pub power: PowerRounding,
}

/// Which power of two stands for a number between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerRounding {
    /// The larger one.
    Up,
    /// The smaller one.
    Down,
    /// The nearer one, the larger one on a tie.
    Nearest,
}

impl Default for SmallFloatRounding {
    fn default() -> Self {
        Self {
            saturate: true,
            power: PowerRounding::Up,
        }
    }
}

const CHUNK: usize = 256;

/// A chunk of numbers in a type that holds them exactly.
enum Wide {
    Signed([i64; CHUNK]),
    Unsigned([u64; CHUNK]),
    Float([f64; CHUNK]),
}

/// Converts every element. The shapes must have as many elements; strings and complex numbers are
/// not converted here.
///
/// # Errors
/// When a type is string or complex.
pub fn convert(
    from: TensorView<'_>,
    to: &mut TensorViewMut<'_>,
    rounding: SmallFloatRounding,
) -> Result<(), OpError> {
    if from.data_type() == to.data_type() {
        to.bytes_mut().copy_from_slice(from.bytes());
        return Ok(());
    }
    if convert_directly(from, to)? {
        return Ok(());
    }
    let len = from.len();
    let mut wide = Wide::Float([0.0; CHUNK]);
    for start in (0..len).step_by(CHUNK) {
        let count = CHUNK.min(len - start);
        load(from, start, count, &mut wide)?;
        store(&wide, to, start, count, rounding)?;
    }
    Ok(())
}

/// The pairs that models convert between while they run; `false` for the others.
fn convert_directly(from: TensorView<'_>, to: &mut TensorViewMut<'_>) -> Result<bool, OpError> {
    use DataType::*;
    match (from.data_type(), to.data_type()) {
        (Float16, Float32) => {
            let from: &[f16] = from.as_slice()?;
            from.convert_to_f32_slice(to.as_mut_slice()?);
        }
        (Float32, Float16) => to
            .as_mut_slice::<f16>()?
            .convert_from_f32_slice(from.as_slice()?),
        (Bfloat16, Float32) => map(from, to, |x: bf16| x.to_f32())?,
        (Float32, Bfloat16) => map(from, to, bf16::from_f32)?,
        (Int64, Int32) => map(from, to, |x: i64| x as i32)?,
        (Int32, Int64) => map(from, to, |x: i32| x as i64)?,
        (Int64, Float32) => map(from, to, |x: i64| x as f32)?,
        (Int32, Float32) => map(from, to, |x: i32| x as f32)?,
        (Uint8, Float32) => map(from, to, |x: u8| x as f32)?,
        (Int8, Float32) => map(from, to, |x: i8| x as f32)?,
        (Bool, Float32) => map(from, to, |x: crate::tensor::Bool| {
            f32::from(u8::from(x.get()))
        })?,
        (Float32, Bool) => map(from, to, |x: f32| crate::tensor::Bool::from(x != 0.0))?,
        (Float32, Int64) => map(from, to, |x: f32| x as i64)?,
        (Float32, Float64) => map(from, to, |x: f32| x as f64)?,
        (Float64, Float32) => map(from, to, |x: f64| x as f32)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn map<A: Element, B: Element>(
    from: TensorView<'_>,
    to: &mut TensorViewMut<'_>,
    convert: impl Fn(A) -> B,
) -> Result<(), OpError> {
    for (to, &from) in to
        .as_mut_slice::<B>()?
        .iter_mut()
        .zip(from.as_slice::<A>()?)
    {
        *to = convert(from);
    }
    Ok(())
}

fn load(from: TensorView<'_>, start: usize, count: usize, wide: &mut Wide) -> Result<(), OpError> {
    use DataType::*;
    let data_type = from.data_type();
    let codes = || {
        // Chunks begin at whole bytes.
        let bits = data_type.bits();
        unpack_codes(data_type, &from.bytes()[start * bits / 8..], count)
    };
    macro_rules! read {
        ($kind:ident, $rust:ty, $convert:expr) => {{
            let mut chunk = [Default::default(); CHUNK];
            let source = &from.as_slice::<$rust>()?[start..start + count];
            for (to, &from) in chunk.iter_mut().zip(source) {
                *to = $convert(from);
            }
            Wide::$kind(chunk)
        }};
    }
    macro_rules! read_codes {
        ($kind:ident, $convert:expr) => {{
            let mut chunk = [Default::default(); CHUNK];
            for (to, from) in chunk.iter_mut().zip(codes()) {
                *to = $convert(from);
            }
            Wide::$kind(chunk)
        }};
    }
    *wide = match data_type {
        Float64 => read!(Float, f64, |x| x),
        Float32 => read!(Float, f32, f64::from),
        Float16 => read!(Float, f16, f16::to_f64),
        Bfloat16 => read!(Float, bf16, bf16::to_f64),
        Int64 => read!(Signed, i64, |x| x),
        Int32 => read!(Signed, i32, i64::from),
        Int16 => read!(Signed, i16, i64::from),
        Int8 => read!(Signed, i8, i64::from),
        Uint64 => read!(Unsigned, u64, |x| x),
        Uint32 => read!(Signed, u32, i64::from),
        Uint16 => read!(Signed, u16, i64::from),
        Uint8 => read!(Signed, u8, i64::from),
        Bool => read!(Signed, crate::tensor::Bool, |x: crate::tensor::Bool| {
            i64::from(x.get())
        }),
        Uint4 | Uint2 => read_codes!(Signed, i64::from),
        Int4 => read_codes!(Signed, |x: u8| i64::from((x << 4) as i8 >> 4)),
        Int2 => read_codes!(Signed, |x: u8| i64::from((x << 6) as i8 >> 6)),
        Float4E2M1 => read_codes!(Float, |x| f64::from(decode_small_float(data_type, x))),
        Float8E4M3FN | Float8E4M3FNUZ | Float8E5M2 | Float8E5M2FNUZ | Float8E8M0 => {
            read_codes!(Float, |x| f64::from(decode_small_float(data_type, x)))
        }
        String | Complex64 | Complex128 => return Err(no_conversion(data_type)),
    };
    Ok(())
}

fn no_conversion(data_type: DataType) -> OpError {
    OpError::unsupported(format!("conversion from or to {data_type}"))
}

/// The low bits are those of any narrower integer.
fn wrapped(x: f64) -> i64 {
    if x >= 9_223_372_036_854_775_808.0 {
        x as u64 as i64
    } else {
        x as i64
    }
}

fn store(
    wide: &Wide,
    to: &mut TensorViewMut<'_>,
    start: usize,
    count: usize,
    rounding: SmallFloatRounding,
) -> Result<(), OpError> {
    use DataType::*;
    let data_type = to.data_type();
    macro_rules! write {
        ($rust:ty, $int:expr, $unsigned:expr, $float:expr) => {{
            let target = &mut to.as_mut_slice::<$rust>()?[start..start + count];
            match wide {
                Wide::Signed(chunk) => store_with(target, chunk, $int),
                Wide::Unsigned(chunk) => store_with(target, chunk, $unsigned),
                Wide::Float(chunk) => store_with(target, chunk, $float),
            }
        }};
    }
    macro_rules! integer {
        ($rust:ty) => {
            write!($rust, |x| x as $rust, |x| x as $rust, |x| wrapped(x)
                as $rust)
        };
    }
    let small = |x: f64| match (data_type, rounding.power) {
        (Float8E8M0, power) => encode_power(x as f32, power, rounding.saturate),
        _ => encode_small_float(data_type, x as f32, rounding.saturate),
    };
    match data_type {
        Float64 => write!(f64, |x| x as f64, |x| x as f64, |x| x),
        Float32 => write!(f32, |x| x as f32, |x| x as f32, |x| x as f32),
        Float16 => write!(
            f16,
            |x| f16::from_f64(x as f64),
            |x| f16::from_f64(x as f64),
            f16::from_f64
        ),
        Bfloat16 => write!(
            bf16,
            |x| bf16::from_f64(x as f64),
            |x| bf16::from_f64(x as f64),
            bf16::from_f64
        ),
        Int64 => integer!(i64),
        Int32 => integer!(i32),
        Int16 => integer!(i16),
        Int8 => integer!(i8),
        Uint64 => integer!(u64),
        Uint32 => integer!(u32),
        Uint16 => integer!(u16),
        Uint8 => integer!(u8),
        Bool => write!(
            crate::tensor::Bool,
            |x| crate::tensor::Bool::from(x != 0),
            |x| crate::tensor::Bool::from(x != 0),
            |x| crate::tensor::Bool::from(x != 0.0)
        ),
        Float8E4M3FN | Float8E4M3FNUZ | Float8E5M2 | Float8E5M2FNUZ | Float8E8M0 => {
            let target = &mut to.bytes_mut()[start..start + count];
            match wide {
                Wide::Signed(chunk) => store_with(target, chunk, |x| small(x as f64)),
                Wide::Unsigned(chunk) => store_with(target, chunk, |x| small(x as f64)),
                Wide::Float(chunk) => store_with(target, chunk, small),
            }
        }
        Uint4 | Int4 | Uint2 | Int2 | Float4E2M1 => {
            let mut codes = [0u8; CHUNK];
            let codes = &mut codes[..count];
            let is_float = data_type == Float4E2M1;
            let code = |x: f64| if is_float { small(x) } else { wrapped(x) as u8 };
            match wide {
                Wide::Signed(chunk) => store_with(codes, chunk, |x| match is_float {
                    true => small(x as f64),
                    false => x as u8,
                }),
                Wide::Unsigned(chunk) => store_with(codes, chunk, |x| match is_float {
                    true => small(x as f64),
                    false => x as u8,
                }),
                Wide::Float(chunk) => store_with(codes, chunk, code),
            }
            let first = start * data_type.bits() / 8;
            pack_codes(data_type, codes, &mut to.bytes_mut()[first..]);
        }
        String | Complex64 | Complex128 => return Err(no_conversion(data_type)),
    }
    Ok(())
}

fn store_with<A: Copy, B>(target: &mut [B], chunk: &[A], convert: impl Fn(A) -> B) {
    for (to, &from) in target.iter_mut().zip(chunk) {
        *to = convert(from);
    }
}

/// The code of a power of two: its exponent with the bias of binary32.
fn encode_power(value: f32, rounding: PowerRounding, saturate: bool) -> u8 {
    let bits = value.abs().to_bits();
    let (exponent, fraction) = (bits >> 23, bits & 0x7f_ffff);
    let up = match rounding {
        _ if !value.is_finite() => {
            return encode_small_float(DataType::Float8E8M0, value, saturate);
        }
        PowerRounding::Up => fraction != 0 && (exponent > 0 || fraction > 0x40_0000),
        PowerRounding::Down => false,
        PowerRounding::Nearest => fraction >= 0x40_0000,
    };
    let code = exponent + u32::from(up);
    match (code, saturate) {
        (0xff.., true) => 0xfe,
        (0xff.., false) => 0xff,
        (code, _) => code as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Buffer, Tensor};

    fn converted(from: &Tensor, to: DataType) -> Tensor {
        let size = to.size_bytes(from.len()).expect("small");
        let mut buffer = Buffer::zeroed(size);
        let mut view = TensorViewMut::from_bytes(to, from.shape(), &mut buffer);
        convert(from.view(), &mut view, SmallFloatRounding::default()).expect("convertible");
        Tensor::from_bytes(to, from.shape(), buffer).expect("sized")
    }

    #[test]
    fn small_integers_survive_every_pair_of_types() {
        use DataType::*;
        let types = DataType::ALL
            .iter()
            .copied()
            .filter(|t| !matches!(t, String | Complex64 | Complex128));
        // 0 and 1 (and for the powers of two: 1 and 1) are in every type.
        for a in types.clone() {
            for b in types.clone() {
                let ones = [1i64; 300];
                let start = Tensor::from_slice(&[300], &ones).expect("fits");
                let there = converted(&converted(&start, a), b);
                assert_eq!(converted(&there, Int64), start, "{a} to {b}");
            }
        }
    }

    #[test]
    fn numbers_wrap_truncate_and_round() {
        let floats = Tensor::from_slice(&[4], &[-1.9f32, 300.5, 2.5, 65520.0]).expect("fits");
        let as_i8 = converted(&floats, DataType::Int8);
        assert_eq!(as_i8.as_slice::<i8>().expect("int8"), [-1, 44, 2, -16]);
        let as_f16 = converted(&floats, DataType::Float16);
        assert!(as_f16.as_slice::<f16>().expect("f16")[3].is_infinite());
        let large = Tensor::from_slice(&[1], &[u64::MAX]).expect("fits");
        let as_f32 = converted(&large, DataType::Float32);
        assert_eq!(as_f32.as_slice::<f32>().expect("f32"), [1.8446744e19]);
        let nibbles = converted(
            &Tensor::from_slice(&[3], &[-8i32, 7, -1]).expect("fits"),
            DataType::Int4,
        );
        assert_eq!(nibbles.bytes(), [0x78, 0x0f]);
    }
}
