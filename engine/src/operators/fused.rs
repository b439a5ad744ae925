//! What the operators of `ai.lethe` do after their sums: an activation, named by attributes.
//!
//! `activation` is the name of a unary operator and `activation_params` has its numbers:
//! `[min, max]` for `Clip`, `[alpha]` for `LeakyRelu`, `[alpha, beta]` for `HardSigmoid`.
//!
//! A residual that is added before is meant to have the shape of the sum, and kernels add it while
//! they write. One that has another shape is added afterwards, as `Add` adds: shapes that a rewrite
//! took for equal need not be so in a run.

use half::{bf16, f16};

use super::broadcasting::broadcast_dims;
use super::element_types::{match_type, refused};
use crate::error::OpError;
use crate::graph::{Attributes, Dims};
use crate::kernels::elementwise::{
    Arithmetic, Expansion, Operand, Unary, arithmetic, map, map_doubles, zip,
};
use crate::kernels::env::Env;
use crate::kernels::gemm::Activation;
use crate::kernels::scratch;
use crate::operator::{InferContext, NoSubgraphs, OutputSlot, OutputSlots, RunContext};
use crate::tensor::{DataType, Shape, TensorView, TensorViewMut, element_count};

/// Which input of a fused operator the residual is.
pub(super) const RESIDUAL: usize = 3;

/// An activation, as the kernels of f32 and as sums of other types take it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct AfterSum {
    /// For kernels that apply it while they write.
    pub(super) inline: Activation,
    function: Option<Unary>,
}

impl AfterSum {
    /// The activation of a fused node; none where there is no such attribute.
    ///
    /// # Errors
    /// When it is unknown or has too few numbers.
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let params = node.optional_floats("activation_params")?.unwrap_or(&[]);
        let (inline, function) = match (node.string_or("activation", "")?, params) {
            ("", _) => return Ok(Self::default()),
            ("Relu", _) => (Activation::Relu, Unary::Relu),
            ("Clip", &[min, max]) => (Activation::Clip { min, max }, Unary::Clip { min, max }),
            ("LeakyRelu", &[alpha]) => {
                (Activation::LeakyRelu { alpha }, Unary::LeakyRelu { alpha })
            }
            ("HardSigmoid", &[alpha, beta]) => (
                Activation::HardSigmoid { alpha, beta },
                Unary::HardSigmoid { alpha, beta },
            ),
            ("HardSwish", _) => (Activation::HardSwish, Unary::HardSwish),
            ("Sigmoid", _) => (Activation::Sigmoid, Unary::Sigmoid),
            ("Silu", _) => (Activation::Silu, Unary::Silu),
            ("Tanh", _) => (Activation::Tanh, Unary::Tanh),
            ("Gelu", _) => (Activation::Gelu, Unary::Gelu),
            ("GeluTanh", _) => (Activation::GeluTanh, Unary::GeluTanh),
            ("Elu", &[alpha]) => (Activation::Elu { alpha }, Unary::Elu { alpha }),
            ("Softplus", _) => (Activation::Softplus, Unary::Softplus),
            ("Mish", _) => (Activation::Mish, Unary::Mish),
            (other, params) => {
                return Err(OpError::Attribute {
                    name: "activation".into(),
                    expected: "a known activation with its numbers".into(),
                    found: format!("{other:?} with {params:?}"),
                });
            }
        };
        Ok(Self {
            inline,
            function: Some(function),
        })
    }

    /// Whether there is nothing to do.
    pub(super) fn is_none(&self) -> bool {
        self.function.is_none()
    }

    /// Applies the activation to a tensor.
    fn apply(&self, env: &Env, y: &mut TensorViewMut<'_>) -> Result<(), OpError> {
        let Some(function) = self.function else {
            return Ok(());
        };
        match_type!(y.data_type(); f32, f16, bf16 as T => {
            map(env, function, None, y.as_mut_slice::<T>()?);
            Ok(())
        }; other => match other {
            DataType::Float64 => {
                map_doubles(env, function, None, y.as_mut_slice()?);
                Ok(())
            }
            other => Err(refused(other)),
        })
    }

    /// The function in double precision, for sums that no kernel finishes.
    pub(super) fn double(&self, x: f64) -> f64 {
        self.function.map_or(x, |function| function.double(x))
    }
}

/// The output's axes: those of the sum, broadcast with the residual's.
///
/// # Errors
/// When the residual is of another type than the sum, or they do not broadcast.
pub(super) fn with_residual(
    inputs: &InferContext<'_>,
    data_type: DataType,
    sum: Option<Dims>,
) -> Result<Option<Dims>, OpError> {
    let Some(residual) = inputs.optional(RESIDUAL) else {
        return Ok(sum);
    };
    inputs.data_type_of(RESIDUAL, "residual", &[data_type])?;
    match (sum, residual.dims) {
        (Some(sum), Some(residual)) => broadcast_dims(&[&sum, residual]).map(Some),
        _ => Ok(None),
    }
}

/// The residual, where it has another shape than the sum.
///
/// # Errors
/// When it is no tensor.
pub(super) fn other_residual<'a>(
    ctx: &RunContext<'a>,
    sum_shape: &[usize],
) -> Result<Option<TensorView<'a>>, OpError> {
    let residual = ctx.optional_input(RESIDUAL)?;
    Ok(residual.filter(|residual| residual.shape() != sum_shape))
}

/// `activation(sum + residual)` as `Add` and the activation's own operator compute it, for real numbers. `sum` is given the inputs before the residual, and memory for its shape.
///
/// # Errors
/// Those of `sum`, and when the two do not broadcast.
pub(super) fn add_apart(
    ctx: &mut RunContext<'_>,
    sum_shape: &[usize],
    residual: TensorView<'_>,
    after: AfterSum,
    sum: impl FnOnce(&mut RunContext<'_>) -> Result<(), OpError>,
) -> Result<(), OpError> {
    let env = ctx.env;
    let data_type = residual.data_type();
    let too_large = || OpError::TooLarge {
        what: format!("shape {sum_shape:?}"),
    };
    let count = element_count(sum_shape).ok_or_else(too_large)?;
    let len_bytes = data_type.size_bytes(count).ok_or_else(too_large)?;
    let mut output = ctx.output(0)?;
    let before = &ctx.inputs()[..RESIDUAL];
    scratch::with(len_bytes, |bytes: &mut [u8]| {
        let to = TensorViewMut::from_bytes(data_type, sum_shape, bytes);
        sum(&mut RunContext::new(
            env,
            before,
            slot(to),
            &mut NoSubgraphs,
        ))?;
        let sum = TensorView::from_bytes(data_type, sum_shape, bytes);
        let shape = Shape::from_slice(output.shape());
        // Not the operator `Add` itself: it has code for each type, and these are what is fused.
        match_type!(data_type; f32, f16, bf16, f64 as T => {
            let expansion = |view: TensorView<'_>| Expansion::new(view.shape(), &shape);
            let sum = Operand::Elements(sum.as_slice::<T>()?, expansion(sum));
            let residual = Operand::Elements(residual.as_slice::<T>()?, expansion(residual));
            zip(env, arithmetic::<T>(Arithmetic::Add), &sum, &residual, output.as_mut_slice()?);
            Ok(())
        }; other => Err(refused(other)))
    })?;
    after.apply(env, &mut output)
}

/// The only output.
fn slot(view: TensorViewMut<'_>) -> OutputSlots<'_> {
    OutputSlots::from_iter([OutputSlot::Sized(view)])
}
