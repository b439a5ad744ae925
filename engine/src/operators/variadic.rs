//! Functions of any number of inputs: Max, Min, Sum, Mean.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset. Shapes: the inputs
//! broadcast to each other → the output (before opset 8 they are equal, which is the same rule).
//! Types: f32, f64, f16, bf16; Max and Min also integers. NaN propagates.

use super::broadcasting::broadcast_inputs;
use super::element_types::{FromDouble, NUMBERS, REAL, match_integer, match_type, refused};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{Arithmetic, Expansion, Number, Operand, arithmetic, zip};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::Element;

/// One of the functions: a fold by `step`, the result divided by the number of inputs for a mean.
#[derive(Debug)]
pub(super) struct Fold {
    step: Arithmetic,
    is_mean: bool,
}

impl Operator for Fold {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let allowed = if self.step == Arithmetic::Add {
            REAL
        } else {
            NUMBERS
        };
        let data_type = inputs.data_type_of(0, "data_0", allowed)?;
        for i in 1..inputs.len() {
            inputs.data_type_of(i, "data_0", &[data_type])?;
        }
        Ok(OutputInfo::maybe(data_type, broadcast_inputs(inputs)?).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        match_type!(ctx.input_type(0, "data_0")?; f32, f64, half::f16, half::bf16 as T =>
            self.fold::<T>(ctx, |n| T::from_double(n as f64));
            other => match_integer!(other; T => self.fold::<T>(ctx, |n| n as T);
                other => Err(refused(other))))
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

impl Fold {
    fn fold<T: Element + Number>(
        &self,
        ctx: &mut RunContext<'_>,
        from_count: impl Fn(usize) -> T,
    ) -> Result<(), OpError> {
        let env = ctx.env;
        let mut output = ctx.output(0)?;
        let shape = crate::tensor::Shape::from_slice(output.shape());
        let y = output.as_mut_slice::<T>()?;
        if !ctx.is_in_place(0) {
            let first = ctx.input(0, "data_0")?;
            let expansion = Expansion::new(first.shape(), &shape);
            expansion.copy_range(first.as_slice::<T>()?, 0..y.len(), y);
        }
        for i in 1..ctx.input_count() {
            let next = ctx.input(i, "data_0")?;
            let expansion = Expansion::new(next.shape(), &shape);
            let next = Operand::Elements(next.as_slice::<T>()?, expansion);
            zip(
                env,
                arithmetic::<T>(self.step),
                &Operand::InOutput,
                &next,
                y,
            );
        }
        if self.is_mean {
            let count = [from_count(ctx.input_count())];
            let count = Operand::Elements(&count[..], Expansion::new(&[], &shape));
            zip(
                env,
                arithmetic::<T>(Arithmetic::Div),
                &Operand::InOutput,
                &count,
                y,
            );
        }
        Ok(())
    }
}

macro_rules! operators {
    ($($name:ident = $step:ident, $is_mean:literal;)*) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(_: &Attributes) -> Result<Fold, OpError> {
                Ok(Fold { step: Arithmetic::$step, is_mean: $is_mean })
            }
        }
    )*};
}

operators! {
    Max = Max, false;
    Min = Min, false;
    Sum = Add, false;
    Mean = Add, true;
}
