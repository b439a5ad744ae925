//! Functions of one real number without attributes: Exp, Log, Sqrt, Erf, Sigmoid, Tanh, rounding,
//! trigonometry. `Y[i] = f(X[i])`.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset. Shapes: `X: [..]` →
//! `Y: [..]`. Types: f32, f64, f16, bf16 (computed in f32). Accuracy:
//! [`vector_math`](crate::kernels::vector_math).

use super::element_types::{REAL, elements_or_in_place, match_f32_like, refused};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{Unary, map, map_doubles};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// A function of one real number, with the values of its attributes.
#[derive(Debug)]
pub(super) struct RealFunction(pub(super) Unary);

impl Operator for RealFunction {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", REAL)?;
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "X")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        run_real(ctx, self.0)
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

/// `Y = function(X)` for any real type.
pub(super) fn run_real(ctx: &mut RunContext<'_>, function: Unary) -> Result<(), OpError> {
    let env = ctx.env;
    let data_type = ctx.input_type(0, "X")?;
    if data_type == DataType::Float64 {
        let x = elements_or_in_place(ctx, 0, "X")?;
        map_doubles(env, function, x, ctx.output(0)?.as_mut_slice()?);
        return Ok(());
    }
    match_f32_like!(data_type; T => {
        let x = elements_or_in_place::<T>(ctx, 0, "X")?;
        map(env, function, x, ctx.output(0)?.as_mut_slice()?);
        Ok(())
    }; other => Err(refused(other)))
}

macro_rules! plain_functions {
    ($($name:ident),* $(,)?) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(_: &Attributes) -> Result<RealFunction, OpError> {
                Ok(RealFunction(Unary::$name))
            }
        }
    )*};
}

plain_functions! {
    Acos, Acosh, Asin, Asinh, Atan, Atanh, Ceil, Cos, Cosh, Erf, Exp, Floor, HardSwish, Log, Mish,
    Reciprocal, Round, Sigmoid, Sin, Sinh, Softplus, Softsign, Sqrt, Tan, Tanh,
}
