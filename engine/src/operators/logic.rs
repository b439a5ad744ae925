//! Truth values and bits of two inputs: And, Or, Xor, BitwiseAnd, BitwiseOr, BitwiseXor, BitShift.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset; before 7 with the
//! attributes `broadcast` and `axis`. Shapes: `A` and `B` broadcast to each other → `C`.
//! Types: bool, or integers. A shift by the width or more gives 0.

use super::binary::Broadcasting;
use super::element_types::{INTEGERS, match_integer, refused};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{Bits, Logic, bits, logic};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// One of the functions of truth values.
#[derive(Debug)]
pub(super) struct BinaryLogic {
    function: Logic,
    broadcasting: Broadcasting,
}

impl Operator for BinaryLogic {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "A", &[DataType::Bool])?;
        inputs.data_type_of(1, "B", &[DataType::Bool])?;
        Ok(OutputInfo::maybe(DataType::Bool, self.broadcasting.infer(inputs)?).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        self.broadcasting.run(ctx, logic(self.function))
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0), (1, 0)]
    }
}

/// One of the functions of bits.
#[derive(Debug)]
pub(super) struct BinaryBits(Bits);

impl Operator for BinaryBits {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "A", INTEGERS)?;
        inputs.data_type_of(1, "B", &[data_type])?;
        Ok(OutputInfo::maybe(data_type, Broadcasting::Numpy.infer(inputs)?).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        match_integer!(ctx.input_type(0, "A")?; T =>
            Broadcasting::Numpy.run(ctx, bits::<T>(self.0)); other => Err(refused(other)))
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0), (1, 0)]
    }
}

macro_rules! operators {
    ($($name:ident($node:ident) -> $operator:ty = $value:expr;)*) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse($node: &Attributes) -> Result<$operator, OpError> {
                Ok($value)
            }
        }
    )*};
}

operators! {
    And(node) -> BinaryLogic =
        BinaryLogic { function: Logic::And, broadcasting: Broadcasting::parse(node)? };
    Or(node) -> BinaryLogic =
        BinaryLogic { function: Logic::Or, broadcasting: Broadcasting::parse(node)? };
    Xor(node) -> BinaryLogic =
        BinaryLogic { function: Logic::Xor, broadcasting: Broadcasting::parse(node)? };
    BitwiseAnd(_node) -> BinaryBits = BinaryBits(Bits::And);
    BitwiseOr(_node) -> BinaryBits = BinaryBits(Bits::Or);
    BitwiseXor(_node) -> BinaryBits = BinaryBits(Bits::Xor);
    BitShift(node) -> BinaryBits = match node.string("direction")? {
        "LEFT" => BinaryBits(Bits::ShiftLeft),
        "RIGHT" => BinaryBits(Bits::ShiftRight),
        other => return Err(OpError::Attribute {
            name: "direction".into(),
            expected: "LEFT or RIGHT".into(),
            found: other.into(),
        }),
    };
}
