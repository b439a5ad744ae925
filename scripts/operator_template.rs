//! `OPERATOR`: what it computes, as a formula.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__OPERATOR.html>, opsets SINCE.
//! Shapes: `X: [..]` → `Y: [..]`. Types: f32.

use crate::error::OpError;
use crate::graph::Attributes;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// The operator with its attributes.
#[derive(Debug)]
pub(super) struct OPERATOR {
    alpha: f32,
}

impl OPERATOR {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            alpha: node.float_or("alpha", 1.0)?,
        })
    }
}

impl Operator for OPERATOR {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", &[DataType::Float32])?;
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "X")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let mut output = ctx.output(0)?;
        for (y, &x) in output.as_mut_slice::<f32>()?.iter_mut().zip(x.as_slice::<f32>()?) {
            *y = self.alpha * x;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::attributes::Attribute;
    use crate::kernels::env::Env;
    use crate::operator::run_alone;
    use crate::tensor::{Tensor, Value};

    fn reference_SNAKE(x: f32, alpha: f32) -> f32 {
        alpha * x
    }

    #[test]
    fn SNAKE_matches_its_formula() {
        let cases: &[(&str, &[usize], &[f32])] = &[
            ("the example of the spec", &[3], &[-1.0, 0.0, 1.0]),
            ("rank 0", &[], &[2.0]),
            ("nothing", &[0, 4], &[]),
        ];
        for (name, shape, x) in cases {
            let node = Attributes::new(SINCE, 1).with("alpha", Attribute::Float(0.5));
            let operator = OPERATOR::parse(&node).expect("good attributes");
            let input = Value::Tensor(Tensor::from_slice(shape, x).expect("sizes agree"));
            let outputs = run_alone(&operator, &Env::default(), &[Some(input)], 1).expect("runs");
            let y = outputs[0].as_ref().expect("one output").as_tensor().expect("a tensor");
            let want: Vec<f32> = x.iter().map(|&x| reference_SNAKE(x, 0.5)).collect();
            assert_eq!(y, &Tensor::from_slice(shape, &want).expect("sizes agree"), "{name} {shape:?}");
        }
    }
}
