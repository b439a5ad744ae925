//! `ConstantOfShape`: a tensor of the given shape, filled with one value.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html>, opsets 9, 20, 21, 23, 24.
//! Shapes: `input: [rank]` → `output: [input[0], input[1], …]`. Types: any of fixed size.

use crate::error::OpError;
use crate::graph::{Attributes, Int};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Tensor};

/// The operator with its value.
#[derive(Debug)]
pub(super) struct ConstantOfShape {
    value: Tensor,
}

impl ConstantOfShape {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let value = node.optional_tensor("value")?.cloned();
        let value = value.unwrap_or_else(|| Tensor::scalar(0f32));
        if value.len() != 1 || value.data_type() == DataType::String {
            return Err(OpError::Attribute {
                name: "value".into(),
                expected: "one element of fixed size".into(),
                found: format!("{} elements of {}", value.len(), value.data_type()),
            });
        }
        Ok(Self { value })
    }
}

impl Operator for ConstantOfShape {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.with_rank(0, "input", 1)?;
        inputs.data_type_of(0, "input", &[DataType::Int64])?;
        if let Some(bad) = input.known_ints().iter().flatten().find(|&&n| n < 0) {
            return Err(OpError::value("input", "sizes of at least 0", bad));
        }
        let dims = input
            .ints()
            .map(|ints| ints.iter().map(Int::to_dim).collect::<Result<_, _>>())
            .transpose()?;
        Ok(OutputInfo::maybe(self.value.data_type(), dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let mut output = ctx.output(0)?;
        let pattern = self.value.bytes();
        if self.value.data_type().is_sub_byte() {
            // The one element stands in the low bits of its byte: repeat it over the byte.
            let bits = self.value.data_type().bits();
            let element = pattern[0] & ((1 << bits) - 1);
            let byte = (0..8 / bits).fold(0, |byte, i| byte | element << (i * bits));
            output.bytes_mut().fill(byte);
        } else {
            for element in output.bytes_mut().chunks_exact_mut(pattern.len()) {
                element.copy_from_slice(pattern);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::env::Env;
    use crate::operator::run_alone;
    use crate::tensor::Value;

    fn run(value: Option<Tensor>, shape: &[i64]) -> Result<Tensor, OpError> {
        use crate::graph::attributes::Attribute;
        let mut node = Attributes::new(9, 1);
        if let Some(value) = value {
            node.insert("value", Attribute::Tensor(value));
        }
        let shape = Value::Tensor(Tensor::from_slice(&[shape.len()], shape)?);
        let operator = ConstantOfShape::parse(&node)?;
        let outputs = run_alone(&operator, &Env::default(), &[Some(shape)], 1)?;
        Ok(outputs[0]
            .as_ref()
            .expect("the only output")
            .as_tensor()?
            .clone())
    }

    #[test]
    fn constant_of_shape_fills() {
        let tensor = run(Some(Tensor::scalar(7i64)), &[2, 3]).expect("fits");
        assert_eq!(
            tensor,
            Tensor::from_slice(&[2, 3], &[7i64; 6]).expect("fits")
        );
        assert_eq!(run(None, &[]), Ok(Tensor::scalar(0f32)));
        assert_eq!(run(None, &[0, 5]).map(|t| t.len()), Ok(0));
        let nibble = Tensor::from_bytes(DataType::Uint4, &[1], vec![0x05]).expect("fits");
        assert_eq!(
            run(Some(nibble), &[3]).expect("fits").bytes(),
            &[0x55, 0x55]
        );
    }

    #[test]
    fn constant_of_shape_rejects_negative_sizes() {
        assert!(matches!(run(None, &[2, -1]), Err(OpError::Value { .. })));
    }
}
