//! ArgMax and ArgMin: the index of the largest or smallest element along an axis.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__ArgMax.html` and `ArgMin`, opsets 1, 11, 12, 13.
//! Shapes: `data: [..]` → `reduced`, the axis of size 1 or, without `keepdims`, gone.
//! Types: f32, f64, f16, bf16 and integers → int64. Of equals the first, or the last with
//! `select_last_index`.

use super::axes::normalize_axis;
use super::element_types::{NUMBERS, match_integer, match_type, refused};
use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::kernels::reduction::scan::{Extremum, arg_extremum};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// The operator with its attributes.
#[derive(Debug)]
pub(super) struct ArgExtremum {
    extremum: Extremum,
    axis: i64,
    keeps_axis: bool,
    takes_last: bool,
}

impl Operator for ArgExtremum {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "data", NUMBERS)?;
        let mut dims = inputs.required(0, "data")?.to_dims();
        if let Some(dims) = &mut dims {
            let axis = normalize_axis(self.axis, dims.len())?;
            if dims[axis] == Dim::Known(0) {
                return Err(OpError::shape(
                    "data",
                    "an axis that is not empty",
                    "0 elements",
                ));
            }
            if self.keeps_axis {
                dims[axis] = Dim::Known(1);
            } else {
                dims.remove(axis);
            }
        }
        Ok(OutputInfo::maybe(DataType::Int64, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "data")?;
        let axis = normalize_axis(self.axis, x.rank())?;
        let (len, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product());
        let mut output = ctx.output(0)?;
        let y = output.as_mut_slice::<i64>()?;
        match_type!(x.data_type(); f32, f64, half::f16, half::bf16 as T => {
            arg_extremum(self.extremum, self.takes_last, len, inner, x.as_slice::<T>()?, y);
            Ok(())
        }; other => match_integer!(other; T => {
            arg_extremum(self.extremum, self.takes_last, len, inner, x.as_slice::<T>()?, y);
            Ok(())
        }; other => Err(refused(other))))
    }
}

macro_rules! operators {
    ($($name:ident = $extremum:ident;)*) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(node: &Attributes) -> Result<ArgExtremum, OpError> {
                Ok(ArgExtremum {
                    extremum: Extremum::$extremum,
                    axis: node.int_or("axis", 0)?,
                    keeps_axis: node.flag_or("keepdims", true)?,
                    takes_last: node.flag_or("select_last_index", false)?,
                })
            }
        }
    )*};
}

operators! {
    ArgMax = Max;
    ArgMin = Min;
}

#[cfg(test)]
mod tests {
    use crate::operators::case::{Case, tensor};

    #[test]
    fn arg_extremum_keeps_or_drops_the_axis() {
        let x = tensor(&[2, 3], &[1f32, 5.0, 5.0, 4.0, -1.0, 2.0]);
        let case = Case::of("ArgMax", 13).int("axis", -1);
        assert_eq!(case.one(&[x.clone()]), Ok(tensor(&[2, 1], &[1i64, 0])));
        let last = case.int("select_last_index", 1).int("keepdims", 0);
        assert_eq!(last.one(&[x.clone()]), Ok(tensor(&[2], &[2i64, 0])));
        let min = Case::of("ArgMin", 11).int("keepdims", 0);
        assert_eq!(min.one(&[x]), Ok(tensor(&[3], &[0i64, 1, 1])));
        assert!(min.one(&[tensor::<f32>(&[0, 3], &[])]).is_err());
    }
}
