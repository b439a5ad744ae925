//! `Identity`: the input as it is.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Identity.html>, opsets 1 to 25. Any kind of value.

use super::rearrange::copy_input;
use crate::error::OpError;
use crate::graph::{Attributes, ValueType};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// The operator.
#[derive(Debug)]
pub(super) struct Identity;

impl Identity {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Identity {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        let value_type = ValueType {
            kind: input.kind.cloned(),
            dims: input.to_dims(),
        };
        let ints = input.ints.map(Into::into);
        Ok(OutputInfo { value_type, ints }.into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        copy_input(ctx, "input")
    }

    fn is_alias(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use crate::tensor::{DataType, Sequence, Value, ValueKind};

    #[test]
    fn identity_gives_any_kind_of_value_back() {
        let sequence = Value::Sequence(Sequence {
            element: ValueKind::Tensor(DataType::Float32),
            values: vec![tensor(&[1], &[1f32]).into()],
        });
        for value in [tensor(&[2], &[1i64, 2]).into(), sequence] {
            let found = Case::of("Identity", 16).run(&[Some(value.clone())]);
            assert_eq!(found, Ok(vec![value]));
        }
    }
}
