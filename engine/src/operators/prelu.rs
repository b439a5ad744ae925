//! `PRelu`: `x` for `x >= 0`, otherwise `slope x`, with a slope for each element, channel or all.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__PRelu.html>, opsets 1, 6, 7, 9, 16.
//! Shapes: `X: [..]`, `slope` broadcast to it (in opsets 1 and 6: `[C]` along axis 1) → `Y: [..]`.
//! Types: f32, f64, f16, bf16 and integers.

use super::broadcasting::broadcast_dims;
use super::element_types::{NUMBERS, match_integer, match_type, refused};
use smallvec::SmallVec;

use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::kernels::elementwise::{Arithmetic, Expansion, Number, Operand, arithmetic, zip};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Element, Shape};

/// The operator.
#[derive(Debug)]
pub(super) struct PRelu {
    /// Whether a slope of rank 1 lies along axis 1.
    per_channel: bool,
}

impl PRelu {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            per_channel: node.opset < 7,
        })
    }

    /// The slope's sizes, with ones appended where it lies along axis 1.
    fn slope_sizes<T: Clone>(&self, slope: &[T], rank: usize, one: T) -> SmallVec<[T; 8]> {
        let mut sizes = SmallVec::from(slope);
        if self.per_channel && slope.len() == 1 && rank > 1 {
            sizes.resize(rank - 1, one);
        }
        sizes
    }
}

impl Operator for PRelu {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", NUMBERS)?;
        inputs.data_type_of(1, "slope", &[data_type])?;
        let x = inputs.required(0, "X")?;
        if let (Some(x), Some(slope)) = (x.dims, inputs.required(1, "slope")?.dims) {
            let slope = self.slope_sizes(slope, x.len(), Dim::Known(1));
            let output = broadcast_dims(&[x, &slope])?;
            if output.len() != x.len() {
                return Err(OpError::shape(
                    "slope",
                    format!("a shape that broadcasts to {} axes", x.len()),
                    format!("{} axes", slope.len()),
                ));
            }
        }
        Ok(OutputInfo::maybe(data_type, x.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let data_type = ctx.input_type(0, "X")?;
        match_type!(data_type; f32, f64, half::f16, half::bf16 as T =>
            self.run_as::<T>(ctx);
            other => match_integer!(other; T => self.run_as::<T>(ctx);
                other => Err(refused(other))))
    }
}

impl PRelu {
    fn run_as<T: Element + Number + PartialOrd>(
        &self,
        ctx: &mut RunContext<'_>,
    ) -> Result<(), OpError> {
        let (x, slope) = (ctx.input(0, "X")?, ctx.input(1, "slope")?);
        let shape = x.shape();
        let slope_shape: Shape = self.slope_sizes(slope.shape(), shape.len(), 1);
        let (x, slope) = (x.as_slice::<T>()?, slope.as_slice::<T>()?);
        let env = ctx.env;
        let mut output = ctx.output(0)?;
        let y = output.as_mut_slice::<T>()?;
        let identity = Expansion::new(shape, shape);
        let slope = Operand::Elements(slope, Expansion::new(&slope_shape, shape));
        let product = arithmetic::<T>(Arithmetic::Mul);
        zip(env, product, &Operand::Elements(x, identity), &slope, y);
        for (y, &x) in y.iter_mut().zip(x) {
            // NaN stays NaN either way.
            if x >= T::zeroed() {
                *y = x;
            }
        }
        Ok(())
    }
}
