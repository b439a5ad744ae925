//! Arithmetic of two inputs: Add, Sub, Mul, Div, Mod, Pow.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset; before 7 with the
//! attributes `broadcast` and `axis`. Shapes: `A` and `B` broadcast to each other → `C`.
//! Types: f32, f64, f16, bf16 and integers. Integers wrap and round towards zero; an integer
//! divided by zero, which the specification leaves open, gives 0.

use super::binary::Broadcasting;
use super::element_types::{NUMBERS, match_integer, match_type, refused};
use crate::error::OpError;
use crate::graph::{Attributes, Int, Ints};
use crate::kernels::elementwise::{Arithmetic, arithmetic};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// One of the operators.
#[derive(Debug)]
pub(super) struct BinaryArithmetic {
    function: Arithmetic,
    broadcasting: Broadcasting,
}

impl BinaryArithmetic {
    fn new(function: Arithmetic, node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            function,
            broadcasting: Broadcasting::parse(node)?,
        })
    }

    /// What is known of the elements when the inputs are small integer tensors, such as shapes.
    fn known_elements(&self, inputs: &InferContext<'_>, len: Option<usize>) -> Option<Ints> {
        let (a, b) = (inputs.optional(0)?, inputs.optional(1)?);
        let (a, b) = (a.ints()?, b.ints()?);
        let len =
            len.filter(|&len| len <= 64 && [&a, &b].iter().all(|x| [1, len].contains(&x.len())))?;
        let at = |x: &Ints, i: usize| x[if x.len() == 1 { 0 } else { i }].clone();
        Some(
            (0..len)
                .map(|i| self.of_ints(at(&a, i), at(&b, i)))
                .collect(),
        )
    }

    fn of_ints(&self, a: Int, b: Int) -> Int {
        use Arithmetic::{Add, Div, Mul, Sub};
        match (self.function, a, b) {
            (Add | Sub, symbol, Int::Known(0)) | (Add, Int::Known(0), symbol) => symbol,
            (Mul | Div, symbol, Int::Known(1)) | (Mul, Int::Known(1), symbol) => symbol,
            (function, Int::Known(a), Int::Known(b)) => {
                let result = match function {
                    Add => a.checked_add(b),
                    Sub => a.checked_sub(b),
                    Mul => a.checked_mul(b),
                    Div => a.checked_div(b),
                    _ => None,
                };
                result.map_or(Int::Unknown, Int::Known)
            }
            _ => Int::Unknown,
        }
    }
}

impl Operator for BinaryArithmetic {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "A", NUMBERS)?;
        inputs.data_type_of(1, "B", &[data_type])?;
        let dims = self.broadcasting.infer(inputs)?;
        let ints = if data_type == DataType::Int64 {
            let len = dims.as_deref().and_then(|dims| match dims {
                [] => Some(1),
                [n] => n.known(),
                _ => None,
            });
            self.known_elements(inputs, len)
        } else {
            None
        };
        Ok(OutputInfo::maybe(data_type, dims).with_ints(ints).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        match_type!(ctx.input_type(0, "A")?; f32, f64, half::f16, half::bf16 as T =>
            self.broadcasting.run(ctx, arithmetic::<T>(self.function));
            other => match_integer!(other; T =>
                self.broadcasting.run(ctx, arithmetic::<T>(self.function));
                other => Err(refused(other))))
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0), (1, 0)]
    }
}

macro_rules! operators {
    ($($name:ident),*) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(node: &Attributes) -> Result<BinaryArithmetic, OpError> {
                BinaryArithmetic::new(Arithmetic::$name, node)
            }
        }
    )*};
}

operators!(Add, Sub, Mul, Div);

/// `Mod`: the remainder with the sign of the divisor or, with `fmod`, of the dividend.
pub(super) struct Mod;

impl Mod {
    pub(super) fn parse(node: &Attributes) -> Result<BinaryArithmetic, OpError> {
        let function = if node.flag_or("fmod", false)? {
            Arithmetic::Fmod
        } else {
            Arithmetic::Mod
        };
        BinaryArithmetic::new(function, node)
    }
}
