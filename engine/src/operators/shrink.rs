//! `Shrink`: `x + bias` below `-lambd`, `x - bias` above `lambd`, otherwise 0.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Shrink.html>, opset 9. Shapes: `input: [..]` →
//! `output: [..]`. Types: f32, f64, f16, bf16 and integers, which are computed with in f64 and
//! truncated.

use super::element_types::{NUMBERS, elements_or_in_place, match_integer, refused};
use super::real_functions::run_real;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{Unary, map_plain};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// The operator with its attributes.
#[derive(Debug)]
pub(super) struct Shrink(Unary);

impl Shrink {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self(Unary::Shrink {
            bias: node.float_or("bias", 0.0)?,
            lambd: node.float_or("lambd", 0.5)?,
        }))
    }
}

impl Operator for Shrink {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "input", NUMBERS)?;
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "input")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, function, data_type) = (ctx.env, self.0, ctx.input_type(0, "input")?);
        if data_type.is_float() {
            return run_real(ctx, function);
        }
        match_integer!(data_type; T => {
            let x = elements_or_in_place::<T>(ctx, 0, "input")?;
            let f = |x: T| function.double(x as f64) as T;
            map_plain(env, x, ctx.output(0)?.as_mut_slice()?, f);
            Ok(())
        }; other => Err(refused(other)))
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}
