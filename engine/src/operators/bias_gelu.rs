//! GELU of a sum: BiasGelu and FastGelu (contrib).
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>, version 1.
//! Shapes: `A: [.., N]`, `B: [N]` (FastGelu: optional) → `C: [.., N]`. Types: f32, f64, f16, bf16.

use super::binary::Broadcasting;
use super::element_types::{REAL, elements_or_in_place, match_f32_like, match_type, refused};
use super::real_functions::run_real;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{
    Arithmetic, Expansion, Operand, Unary, arithmetic, map, map_doubles, zip,
};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// `gelu(A + B)`.
#[derive(Debug)]
pub(super) struct GeluOfSum(Unary);

impl Operator for GeluOfSum {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "A", REAL)?;
        let a = inputs.required(0, "A")?;
        if inputs.optional(1).is_some() {
            inputs.data_type_of(1, "B", &[data_type])?;
            inputs.with_rank(1, "B", 1)?;
            Broadcasting::Along(None).infer(inputs)?;
        }
        Ok(OutputInfo::maybe(data_type, a.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let Some(bias) = ctx.optional_input(1)? else {
            return run_real(ctx, self.0);
        };
        let env = ctx.env;
        let shape = ctx.input_shape(0, "A")?;
        let mut sum = match_type!(bias.data_type(); f32, half::f16, half::bf16, f64 as T => {
            let a = match elements_or_in_place::<T>(ctx, 0, "A")? {
                Some(a) => Operand::Elements(a, Expansion::new(shape, shape)),
                None => Operand::InOutput,
            };
            let expansion = Expansion::new(bias.shape(), shape);
            let bias = Operand::Elements(bias.as_slice::<T>()?, expansion);
            let mut output = ctx.output(0)?;
            zip(env, arithmetic::<T>(Arithmetic::Add), &a, &bias, output.as_mut_slice()?);
            Ok(output)
        }; other => Err(refused(other)))?;
        match_f32_like!(sum.data_type(); T => map::<T>(env, self.0, None, sum.as_mut_slice()?);
            _ => map_doubles(env, self.0, None, sum.as_mut_slice()?));
        Ok(())
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

/// `C = (A + B)/2 (1 + erf((A + B)/√2))`.
pub(super) struct BiasGelu;

impl BiasGelu {
    pub(super) fn parse(_: &Attributes) -> Result<GeluOfSum, OpError> {
        Ok(GeluOfSum(Unary::Gelu))
    }
}

/// The same by the approximation with tanh, the bias being optional.
pub(super) struct FastGelu;

impl FastGelu {
    pub(super) fn parse(_: &Attributes) -> Result<GeluOfSum, OpError> {
        Ok(GeluOfSum(Unary::GeluTanh))
    }
}
