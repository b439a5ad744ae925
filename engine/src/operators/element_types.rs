//! Choosing the Rust type for a tensor's element type, and what operators on it share.

use crate::error::OpError;
use crate::operator::RunContext;
use crate::tensor::{DataType, Element};

/// The real types: f32, f64 and the 16-bit floats.
pub(super) const REAL: &[DataType] = &[
    DataType::Float32,
    DataType::Float64,
    DataType::Float16,
    DataType::Bfloat16,
];

/// The real types and the integers of whole bytes.
pub(super) const NUMBERS: &[DataType] = &[
    DataType::Float32,
    DataType::Float64,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Uint8,
    DataType::Uint16,
    DataType::Uint32,
    DataType::Uint64,
];

/// The integers of whole bytes.
pub(super) const INTEGERS: &[DataType] = NUMBERS.split_at(4).1;

/// The error for an element type that an operator's `infer` has refused already.
pub(super) fn refused(found: DataType) -> OpError {
    OpError::unsupported(format!("elements of type {found}"))
}

/// The elements of an input, or `None` where they lie in the output's memory.
pub(super) fn elements_or_in_place<'a, T: Element>(
    ctx: &RunContext<'a>,
    i: usize,
    name: &'static str,
) -> Result<Option<&'a [T]>, OpError> {
    if ctx.is_in_place(i) {
        return Ok(None);
    }
    ctx.input(i, name)?.as_slice::<T>().map(Some)
}

/// Real types, as the nearest value to a number in double precision.
pub(super) trait FromDouble: Element {
    /// Rounds to the nearest.
    fn from_double(x: f64) -> Self;
}

macro_rules! from_double {
    ($($t:ty => $convert:expr),*) => {
        $(impl FromDouble for $t {
            fn from_double(x: f64) -> Self {
                $convert(x)
            }
        })*
    };
}

from_double!(
    f32 => |x| x as f32,
    f64 => |x| x,
    half::f16 => half::f16::from_f64,
    half::bf16 => half::bf16::from_f64
);

/// `match_type!(data_type; f32, i64 as T => expression; other => expression)`: the expression with
/// `T` being the first of the types that is the element type.
macro_rules! match_type {
    ($data_type:expr; $($t:ty),+ as $name:ident => $body:expr; $other:pat => $otherwise:expr) => {{
        use crate::tensor::Element as _;
        match $data_type {
            $(t if t == <$t>::DATA_TYPE => {
                type $name = $t;
                $body
            })+
            $other => $otherwise,
        }
    }};
}

/// [`match_type`] over the integers of whole bytes.
macro_rules! match_integer {
    ($data_type:expr; $name:ident => $body:expr; $other:pat => $otherwise:expr) => {
        crate::operators::element_types::match_type!($data_type; i8, i16, i32, i64, u8, u16, u32, u64 as $name => $body;
            $other => $otherwise)
    };
}

/// [`match_type`] over the types that are computed with in f32.
macro_rules! match_f32_like {
    ($data_type:expr; $name:ident => $body:expr; $other:pat => $otherwise:expr) => {
        crate::operators::element_types::match_type!($data_type; f32, half::f16, half::bf16 as $name => $body; $other => $otherwise)
    };
}

pub(super) use {match_f32_like, match_integer, match_type};
