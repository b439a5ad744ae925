//! Choosing the Rust type for a tensor's element type, and what operators on it share.

use std::borrow::Cow;

use crate::error::OpError;
use crate::kernels::half_precision::Real;
use crate::kernels::scratch;
use crate::limits;
use crate::operator::RunContext;
use crate::tensor::{DataType, Element, TensorView, TensorViewMut};

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

/// The types that are computed with in f32.
pub(super) const F32_LIKE: &[DataType] =
    &[DataType::Float32, DataType::Float16, DataType::Bfloat16];

/// The elements as f32, converted where they are 16-bit floats.
pub(super) fn widened<'a>(view: TensorView<'a>) -> Result<Cow<'a, [f32]>, OpError> {
    match_f32_like!(view.data_type(); T => {
        let elements = view.as_slice::<T>()?;
        if let Some(elements) = T::as_f32(elements) {
            return Ok(Cow::Borrowed(elements));
        }
        let mut wide = limits::zeroed(elements.len());
        T::widen(elements, &mut wide);
        Ok(Cow::Owned(wide))
    }; other => Err(refused(other)))
}

/// Lets `work` compute output 0, which has the type and size of input `i`, in f32: its arguments
/// are the input, or `None` where it lies in the output, and the output.
pub(super) fn compute_in_f32(
    ctx: &mut RunContext<'_>,
    i: usize,
    name: &'static str,
    work: impl FnOnce(Option<&[f32]>, &mut [f32]) -> Result<(), OpError>,
) -> Result<(), OpError> {
    match_f32_like!(ctx.input_type(i, name)?; T => {
        let x = elements_or_in_place::<T>(ctx, i, name)?;
        let mut output = ctx.output(0)?;
        let y = output.as_mut_slice::<T>()?;
        if let Some(y) = T::as_f32_mut(y) {
            return work(x.and_then(T::as_f32), y);
        }
        scratch::with::<f32, _>(y.len(), |wide| {
            T::widen(x.unwrap_or(y), wide);
            work(None, wide)?;
            T::narrow(wide, y);
            Ok(())
        })
    }; other => Err(refused(other)))
}

/// Writes f32 elements to an output of a type that is computed with in f32.
pub(super) fn write_narrowed(
    output: &mut TensorViewMut<'_>,
    elements: &[f32],
) -> Result<(), OpError> {
    match_f32_like!(output.data_type(); T => {
        T::narrow(elements, output.as_mut_slice()?);
        Ok(())
    }; other => Err(refused(other)))
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

pub(super) use {match_f32_like, match_integer, match_type};
