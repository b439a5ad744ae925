//! LpNormalization, MeanVarianceNormalization and LRN.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset. Shapes: `X: [..]` →
//! `Y: [..]`. Types: f32, f16, bf16, all computed in f32.
//! - LpNormalization: `x / ‖x‖_p` along an axis, zero where the norm is.
//! - MeanVarianceNormalization: `(x - mean) / (√variance + 1e-9)` over `axes` (0, 2, 3 by default).
//! - LRN: `x / (bias + alpha/size Σ x²)^beta`, the sum running over `size` neighbouring channels.

use smallvec::SmallVec;

use super::axes::{axis_set, normalize_axis};
use super::element_types::{F32_LIKE, compute_in_f32};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{
    Arithmetic, Expansion, Operand, Unary, arithmetic, map, map_plain, zip,
};
use crate::kernels::env::Env;
use crate::kernels::normalization::{LocalWindow, local_response_base};
use crate::kernels::reduction::{Reduction, reduce};
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// One of the operators with its attributes.
#[derive(Debug)]
pub(super) enum VectorNormalization {
    Lp { axis: i64, norm: Reduction },
    MeanVariance { axes: Vec<i64> },
    LocalResponse { window: LocalWindow, beta: f32 },
}

/// The reduction of a tensor over some axes, to be broadcast over it again.
struct Reduced {
    shape: SmallVec<[usize; 8]>,
    values: Vec<f32>,
}

impl Reduced {
    fn new(env: &Env, reduction: Reduction, shape: &[usize], axes: &[bool], x: &[f32]) -> Reduced {
        let shape_of = shape
            .iter()
            .zip(axes)
            .map(|(&n, &is_reduced)| if is_reduced { 1 } else { n });
        let reduced_shape: SmallVec<[usize; 8]> = shape_of.collect();
        let mut values = limits::zeroed(reduced_shape.iter().product());
        reduce(env, reduction, shape, axes, x, &mut values);
        Reduced {
            shape: reduced_shape,
            values,
        }
    }

    /// `y = function(y, self)`.
    fn apply(&self, env: &Env, function: Arithmetic, shape: &[usize], y: &mut [f32]) {
        let expansion = Expansion::new(&self.shape, shape);
        let operand = Operand::Elements(&self.values[..], expansion);
        zip(
            env,
            arithmetic::<f32>(function),
            &Operand::InOutput,
            &operand,
            y,
        );
    }
}

impl Operator for VectorNormalization {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", F32_LIKE)?;
        let x = inputs.required(0, "X")?;
        if let Some(rank) = x.rank() {
            match self {
                Self::Lp { axis, .. } => drop(normalize_axis(*axis, rank)?),
                Self::MeanVariance { axes } => drop(axis_set(axes, rank)?),
                Self::LocalResponse { .. } if rank < 2 => {
                    return Err(OpError::shape(
                        "X",
                        "at least 2 axes",
                        format!("{rank} axes"),
                    ));
                }
                Self::LocalResponse { .. } => {}
            }
        }
        Ok(OutputInfo::maybe(data_type, x.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, shape) = (ctx.env, ctx.input_shape(0, "X")?);
        compute_in_f32(ctx, 0, "X", |x, y| {
            if y.is_empty() {
                return Ok(());
            }
            if let Some(x) = x {
                y.copy_from_slice(x);
            }
            match self {
                Self::Lp { axis, norm } => {
                    let axes = axis_set(&[*axis], shape.len())?;
                    let mut norms = Reduced::new(env, *norm, shape, &axes, y);
                    // A vector of zeros stays what it is.
                    let divisor = |norm: f32| if norm == 0.0 { 1.0 } else { norm };
                    map_plain(env, None, &mut norms.values, divisor);
                    norms.apply(env, Arithmetic::Div, shape, y);
                }
                Self::MeanVariance { axes } => {
                    let axes = axis_set(axes, shape.len())?;
                    let mean = Reduced::new(env, Reduction::Mean, shape, &axes, y);
                    mean.apply(env, Arithmetic::Sub, shape, y);
                    let mut deviation = Reduced::new(env, Reduction::SumSquare, shape, &axes, y);
                    let count = (y.len() / deviation.values.len()) as f32;
                    let root = |sum: f32| (sum / count).sqrt() + 1e-9;
                    map_plain(env, None, &mut deviation.values, root);
                    deviation.apply(env, Arithmetic::Div, shape, y);
                }
                Self::LocalResponse { window, beta } => {
                    let inner = shape[2..].iter().product();
                    let mut divisors = limits::zeroed(y.len());
                    local_response_base(*window, shape[1], inner, y, &mut divisors);
                    map(env, Unary::Pow { exponent: *beta }, None, &mut divisors);
                    let divisors = Operand::Elements(&divisors[..], Expansion::new(shape, shape));
                    zip(
                        env,
                        arithmetic::<f32>(Arithmetic::Div),
                        &Operand::InOutput,
                        &divisors,
                        y,
                    );
                }
            }
            Ok(())
        })
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

/// `x / ‖x‖_p` along an axis.
pub(super) struct LpNormalization;

impl LpNormalization {
    pub(super) fn parse(node: &Attributes) -> Result<VectorNormalization, OpError> {
        let norm = match node.int_or("p", 2)? {
            1 => Reduction::L1,
            2 => Reduction::L2,
            other => {
                return Err(OpError::Attribute {
                    name: "p".into(),
                    expected: "1 or 2".into(),
                    found: other.to_string(),
                });
            }
        };
        Ok(VectorNormalization::Lp {
            axis: node.int_or("axis", -1)?,
            norm,
        })
    }
}

/// `(x - mean) / √variance` over some axes.
pub(super) struct MeanVarianceNormalization;

impl MeanVarianceNormalization {
    pub(super) fn parse(node: &Attributes) -> Result<VectorNormalization, OpError> {
        let axes = node.optional_ints("axes")?.unwrap_or(&[0, 2, 3]).to_vec();
        Ok(VectorNormalization::MeanVariance { axes })
    }
}

/// Local response normalisation.
pub(super) struct Lrn;

impl Lrn {
    pub(super) fn parse(node: &Attributes) -> Result<VectorNormalization, OpError> {
        let size = *node.int("size")?;
        let size = u64::try_from(size)
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| OpError::Attribute {
                name: "size".into(),
                expected: "at least 1".into(),
                found: size.to_string(),
            })?;
        let window = LocalWindow {
            size,
            alpha: node.float_or("alpha", 1e-4)?,
            bias: node.float_or("bias", 1.0)?,
        };
        Ok(VectorNormalization::LocalResponse {
            window,
            beta: node.float_or("beta", 0.75)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::attributes::Attribute;
    use crate::operators::case::{Case, tensor};
    use crate::tensor::Tensor;

    fn close(got: &Tensor, want: &[f32]) {
        for (got, want) in got.as_slice::<f32>().expect("f32").iter().zip(want) {
            assert!((got - want).abs() < 1e-5, "{got}, not {want}");
        }
    }

    #[test]
    fn vectors_are_normalised_along_their_axes() {
        let x = tensor(&[2, 2], &[3f32, 4.0, 0.0, 0.0]);
        let y = Case::of("LpNormalization", 22)
            .one(&[x.clone()])
            .expect("it fits");
        close(&y, &[0.6, 0.8, 0.0, 0.0]);
        let y = Case::of("LpNormalization", 1)
            .int("p", 1)
            .int("axis", 0)
            .one(&[x]);
        close(&y.expect("it fits"), &[1.0, 1.0, 0.0, 0.0]);
        let x = tensor(&[1, 2, 1, 2], &[1f32, 3.0, 10.0, 14.0]);
        let y = Case::of("MeanVarianceNormalization", 13)
            .one(&[x])
            .expect("it fits");
        close(&y, &[-1.0, 1.0, -1.0, 1.0]);
        let lrn = Case::of("LRN", 13)
            .int("size", 3)
            .with("alpha", Attribute::Float(3.0));
        let y = lrn
            .with("beta", Attribute::Float(0.5))
            .one(&[tensor(&[1, 2, 1], &[2f32, 2.0])]);
        close(&y.expect("it fits"), &[2.0 / 3.0, 2.0 / 3.0]);
    }

    #[test]
    fn vector_normalization_rejects_bad_attributes() {
        let x = tensor(&[1, 1], &[1f32]);
        assert!(
            Case::of("LpNormalization", 1)
                .int("p", 3)
                .one(&[x.clone()])
                .is_err()
        );
        assert!(Case::of("LRN", 1).int("size", 0).one(&[x.clone()]).is_err());
        assert!(Case::of("MeanVarianceNormalization", 9).one(&[x]).is_err());
    }
}
