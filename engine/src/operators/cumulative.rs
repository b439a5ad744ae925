//! CumSum and CumProd: running sums and products along an axis.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__CumSum.html` (opsets 11, 14) and `CumProd` (26).
//! Shapes: `x: [..]`, `axis: []` → `y: [..]`. Types: f32, f64, f16, bf16 and integers, which wrap.

use super::axes::normalize_axis;
use super::element_types::{NUMBERS, match_f32_like, match_integer, match_type, refused};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::half_precision::Real;
use crate::kernels::reduction::scan::running;
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// The operator with its attributes.
#[derive(Debug)]
pub(super) struct Cumulative {
    is_product: bool,
    is_exclusive: bool,
    is_reverse: bool,
}

/// The tensor as `[outer, len, inner]` around the axis.
#[derive(Clone, Copy)]
struct Extent {
    len: usize,
    inner: usize,
}

impl Cumulative {
    fn new(is_product: bool, node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            is_product,
            is_exclusive: node.flag_or("exclusive", false)?,
            is_reverse: node.flag_or("reverse", false)?,
        })
    }

    fn run_in_f32<T: Real>(&self, extent: Extent, x: &[T], y: &mut [T]) {
        let (mut wide_x, mut wide_y) = (limits::zeroed(x.len()), limits::zeroed(y.len()));
        T::widen(x, &mut wide_x);
        let Extent { len, inner } = extent;
        let (exclusive, reverse) = (self.is_exclusive, self.is_reverse);
        if self.is_product {
            running(
                1.0,
                |a, b| a * b,
                exclusive,
                reverse,
                len,
                inner,
                &wide_x,
                &mut wide_y,
            );
        } else {
            running(
                0.0,
                |a, b| a + b,
                exclusive,
                reverse,
                len,
                inner,
                &wide_x,
                &mut wide_y,
            );
        }
        T::narrow(&wide_y, y);
    }
}

impl Operator for Cumulative {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "x", NUMBERS)?;
        inputs.data_type_of(1, "axis", &[DataType::Int32, DataType::Int64])?;
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "x")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (x, axis) = (ctx.input(0, "x")?, ctx.input(1, "axis")?.to_i64s()?);
        let &[axis] = &axis[..] else {
            return Err(OpError::shape(
                "axis",
                "one element",
                format!("{} elements", axis.len()),
            ));
        };
        let axis = normalize_axis(axis, x.rank())?;
        let extent = Extent {
            len: x.shape()[axis],
            inner: x.shape()[axis + 1..].iter().product(),
        };
        let Extent { len, inner } = extent;
        let (exclusive, reverse) = (self.is_exclusive, self.is_reverse);
        let mut output = ctx.output(0)?;
        match_f32_like!(x.data_type(); T => {
            self.run_in_f32::<T>(extent, x.as_slice()?, output.as_mut_slice()?);
            Ok(())
        }; other => match_integer!(other; T => {
            let (x, y) = (x.as_slice::<T>()?, output.as_mut_slice::<T>()?);
            if self.is_product {
                running(1, T::wrapping_mul, exclusive, reverse, len, inner, x, y);
            } else {
                running(0, T::wrapping_add, exclusive, reverse, len, inner, x, y);
            }
            Ok(())
        }; other => match_type!(other; f64 as T => {
            let (x, y) = (x.as_slice::<T>()?, output.as_mut_slice::<T>()?);
            if self.is_product {
                running(1.0, |a: T, b| a * b, exclusive, reverse, len, inner, x, y);
            } else {
                running(0.0, |a: T, b| a + b, exclusive, reverse, len, inner, x, y);
            }
            Ok(())
        }; other => Err(refused(other)))))
    }
}

/// Running sums.
pub(super) struct CumSum;

impl CumSum {
    pub(super) fn parse(node: &Attributes) -> Result<Cumulative, OpError> {
        Cumulative::new(false, node)
    }
}

/// Running products.
pub(super) struct CumProd;

impl CumProd {
    pub(super) fn parse(node: &Attributes) -> Result<Cumulative, OpError> {
        Cumulative::new(true, node)
    }
}

#[cfg(test)]
mod tests {
    use crate::operators::case::{Case, tensor};
    use crate::tensor::Tensor;

    #[test]
    fn cumulative_along_any_axis() {
        let x = tensor(&[2, 3], &[1i32, 2, 3, 4, 5, 6]);
        let sum = Case::of("CumSum", 14);
        let axis = |axis: i64| Tensor::scalar(axis);
        let rows = sum.one(&[x.clone(), axis(-1)]);
        assert_eq!(rows, Ok(tensor(&[2, 3], &[1i32, 3, 6, 4, 9, 15])));
        let columns = sum.one(&[x.clone(), axis(0)]);
        assert_eq!(columns, Ok(tensor(&[2, 3], &[1i32, 2, 3, 5, 7, 9])));
        let product = Case::of("CumProd", 26)
            .int("exclusive", 1)
            .int("reverse", 1);
        assert_eq!(
            product.one(&[x.clone(), axis(1)]),
            Ok(tensor(&[2, 3], &[6i32, 3, 1, 30, 6, 1]))
        );
        assert!(sum.one(&[x, axis(2)]).is_err());
    }
}
