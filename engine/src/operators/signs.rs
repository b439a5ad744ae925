//! Functions that integers have as well: Abs, Neg, Sign, Relu; and BitwiseNot.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset. Shapes: `X: [..]` →
//! `Y: [..]`. Types: f32, f64, f16, bf16 and integers (BitwiseNot: integers). The magnitude of the
//! smallest integer wraps to itself.

use super::element_types::{INTEGERS, NUMBERS, elements_or_in_place, match_integer, refused};
use super::real_functions::run_real;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{Unary, map_plain};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// The functions of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Abs,
    Neg,
    Sign,
    Relu,
    BitwiseNot,
}

/// One of the functions.
#[derive(Debug)]
pub(super) struct SignFunction(Function);

/// Integers that the functions are defined on.
trait Integer: Copy {
    fn apply(self, function: Function) -> Self;
}

macro_rules! integers {
    ($($signed:ty, $unsigned:ty);*) => {$(
        impl Integer for $signed {
            fn apply(self, function: Function) -> Self {
                match function {
                    Function::Abs => self.wrapping_abs(),
                    Function::Neg => self.wrapping_neg(),
                    Function::Sign => self.signum(),
                    Function::Relu => self.max(0),
                    Function::BitwiseNot => !self,
                }
            }
        }

        impl Integer for $unsigned {
            fn apply(self, function: Function) -> Self {
                match function {
                    Function::Abs | Function::Relu => self,
                    Function::Neg => self.wrapping_neg(),
                    Function::Sign => self.min(1),
                    Function::BitwiseNot => !self,
                }
            }
        }
    )*};
}

integers!(i8, u8; i16, u16; i32, u32; i64, u64);

impl Operator for SignFunction {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let allowed = if self.0 == Function::BitwiseNot {
            INTEGERS
        } else {
            NUMBERS
        };
        let data_type = inputs.data_type_of(0, "X", allowed)?;
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "X")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, function, data_type) = (ctx.env, self.0, ctx.input_type(0, "X")?);
        if data_type.is_float() {
            let real = match function {
                Function::Abs => Unary::Abs,
                Function::Neg => Unary::Neg,
                Function::Sign => Unary::Sign,
                Function::Relu => Unary::Relu,
                Function::BitwiseNot => return Err(refused(data_type)),
            };
            return run_real(ctx, real);
        }
        match_integer!(data_type; T => {
            let x = elements_or_in_place::<T>(ctx, 0, "X")?;
            map_plain(env, x, ctx.output(0)?.as_mut_slice()?, |x: T| x.apply(function));
            Ok(())
        }; other => Err(refused(other)))
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

macro_rules! functions {
    ($($name:ident),*) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(_: &Attributes) -> Result<SignFunction, OpError> {
                Ok(SignFunction(Function::$name))
            }
        }
    )*};
}

functions!(Abs, Neg, Sign, Relu, BitwiseNot);
