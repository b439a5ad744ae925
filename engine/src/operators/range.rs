//! `Range`: numbers from `start` up to, not including, `limit`, `delta` apart.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Range.html>, opsets 11, 27.
//! Shapes: three scalars → `output: [max(ceil((limit - start) / delta), 0)]`. Types: f32, f64, f16,
//! bf16, int16, int32, int64.

use half::{bf16, f16};

use crate::error::OpError;
use crate::graph::{Attributes, Dim, Int, Ints};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Element, TensorView, TensorViewMut};

/// The operator.
#[derive(Debug)]
pub(super) struct Range;

const TYPES: &[DataType] = &[
    DataType::Float32,
    DataType::Float64,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Float16,
    DataType::Bfloat16,
];

/// Elements up to which `infer` gives them.
const KNOWN_LEN: usize = 64;

impl Range {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

/// A number that a range can be made of.
trait Number: Element {
    fn to_f64(self) -> f64;
    /// Elements from `self` to `limit`.
    fn count(self, limit: Self, delta: Self) -> Option<usize>;
    /// `self + i * delta`.
    fn plus(self, i: usize, delta: Self) -> Self;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn count(self, limit: Self, delta: Self) -> Option<usize> {
                let (distance, delta) = (limit as i128 - self as i128, delta as i128);
                if delta == 0 {
                    return None;
                }
                if (distance > 0) != (delta > 0) {
                    return Some(0);
                }
                usize::try_from((distance.abs() + delta.abs() - 1) / delta.abs()).ok()
            }
            fn plus(self, i: usize, delta: Self) -> Self {
                self.wrapping_add((i as Self).wrapping_mul(delta))
            }
        }
    )*};
}

macro_rules! floats {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn count(self, limit: Self, delta: Self) -> Option<usize> {
                let count = ((limit - self) / delta).ceil();
                // 2^52 numbers would not fit any memory.
                (count < 4.5e15).then_some(count.max(0.0) as usize)
            }
            fn plus(self, i: usize, delta: Self) -> Self {
                self + i as Self * delta
            }
        }
    )*};
}

integers!(i16, i32, i64);
floats!(f32, f64);

macro_rules! halves {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn count(self, limit: Self, delta: Self) -> Option<usize> {
                self.to_f32().count(limit.to_f32(), delta.to_f32())
            }
            fn plus(self, i: usize, delta: Self) -> Self {
                Self::from_f32(self.to_f32().plus(i, delta.to_f32()))
            }
        }
    )*};
}

halves!(f16, bf16);

fn count<T: Number>(views: [TensorView<'_>; 3]) -> Result<usize, OpError> {
    let [start, limit, delta] = [
        views[0].single::<T>()?,
        views[1].single()?,
        views[2].single()?,
    ];
    start.count(limit, delta).ok_or_else(|| {
        let found = format!(
            "{} to {} by {}",
            start.to_f64(),
            limit.to_f64(),
            delta.to_f64()
        );
        OpError::value("start, limit, delta", "a finite range", found)
    })
}

fn fill<T: Number>(
    views: [TensorView<'_>; 3],
    output: &mut TensorViewMut<'_>,
) -> Result<(), OpError> {
    let (start, delta) = (views[0].single::<T>()?, views[2].single::<T>()?);
    for (i, to) in output.as_mut_slice::<T>()?.iter_mut().enumerate() {
        *to = start.plus(i, delta);
    }
    Ok(())
}

/// Calls a function that is generic over the type of the range.
macro_rules! by_type {
    ($data_type:expr, $function:ident($($argument:expr),*)) => {
        match $data_type {
            DataType::Float32 => $function::<f32>($($argument),*),
            DataType::Float64 => $function::<f64>($($argument),*),
            DataType::Int16 => $function::<i16>($($argument),*),
            DataType::Int32 => $function::<i32>($($argument),*),
            DataType::Float16 => $function::<f16>($($argument),*),
            DataType::Bfloat16 => $function::<bf16>($($argument),*),
            _ => $function::<i64>($($argument),*),
        }
    };
}

impl Operator for Range {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "start", TYPES)?;
        let values = [
            inputs.required(0, "start")?,
            inputs.required(1, "limit")?,
            inputs.required(2, "delta")?,
        ];
        let info = |dim: Dim| OutputInfo::tensor(data_type, [dim].into_iter().collect());
        let [Some(start), Some(limit), Some(delta)] = values.map(|v| v.value) else {
            // From 0 by 1 there are as many numbers as the limit says.
            let ints = values.map(|v| v.ints().and_then(|i| i.first().cloned()));
            return Ok(match ints {
                [Some(Int::Known(0)), Some(limit), Some(Int::Known(1))] => info(limit.to_dim()?),
                _ => info(Dim::Unknown),
            }
            .into());
        };
        let views = [start, limit, delta];
        let len = by_type!(data_type, count(views))?;
        let ints: Option<Ints> = (data_type == DataType::Int64 && len <= KNOWN_LEN)
            .then(|| -> Result<Ints, OpError> {
                let (start, delta) = (start.single::<i64>()?, delta.single::<i64>()?);
                Ok((0..len).map(|i| Int::Known(start.plus(i, delta))).collect())
            })
            .transpose()?;
        Ok(info(Dim::Known(len)).with_ints(ints).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let views = [
            ctx.input(0, "start")?,
            ctx.input(1, "limit")?,
            ctx.input(2, "delta")?,
        ];
        let mut output = ctx.output(0)?;
        by_type!(output.data_type(), fill(views, &mut output))
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use crate::tensor::Element;

    fn range<T: Element>(start: T, limit: T, delta: T) -> Option<Vec<T>> {
        let inputs = [start, limit, delta].map(|x| tensor(&[], &[x]));
        let found = Case::of("Range", 11).one(&inputs).ok()?;
        Some(found.as_slice::<T>().expect("the same type").to_vec())
    }

    #[test]
    fn range_stops_before_its_limit() {
        assert_eq!(range(10i32, 4, -2), Some(vec![10, 8, 6]));
        assert_eq!(range(1f32, 5., 2.), Some(vec![1., 3.]));
        assert_eq!(range(0i64, 7, 3), Some(vec![0, 3, 6]));
        assert_eq!(range(0f64, 0.3, 0.1), Some(vec![0., 0.1, 0.2]));
        assert_eq!(range(5i16, 5, 1), Some(vec![]));
        assert_eq!(range(5i64, 0, 1), Some(vec![]));
    }

    #[test]
    fn endless_ranges_are_errors() {
        assert_eq!(range(0i64, 5, 0), None);
        assert_eq!(range(0f32, 5., 0.), None);
        assert_eq!(range(0f32, f32::INFINITY, 1.), None);
        assert_eq!(range(0f32, f32::NAN, 1.), None);
        assert_eq!(range(i64::MIN, i64::MAX, 1), None);
    }
}
