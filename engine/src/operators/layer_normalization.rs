//! Layer and RMS norm: LayerNormalization, RMSNormalization, and the contrib operators
//! SimplifiedLayerNormalization, SkipLayerNormalization, SkipSimplifiedLayerNormalization, which
//! add a second tensor first.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html> (opset 17),
//! `RMSNormalization` (23); contrib:
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.
//! Shapes: `X: [.., N₁, N₂ …]`, the axes from `axis` on being normalised together; `scale` and
//! `bias` broadcast to `X`; `Y` as `X`; the statistics have size 1 along the normalised axes.
//! Types: f32, f16, bf16, all computed in f32.

use std::borrow::Cow;

use super::axes::normalize_axis;
use super::element_types::{F32_LIKE, compute_in_f32, widened, write_narrowed};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::elementwise::{Arithmetic, Expansion, Operand, arithmetic, zip};
use crate::kernels::env::Env;
use crate::kernels::normalization::{RowAffine, RowNorm, RowStatistics, normalize_rows};
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, TensorView};

/// Which inputs and outputs mean what.
#[derive(Debug, Clone, Copy)]
struct Signature {
    /// The tensor that is added to the first.
    skip: Option<usize>,
    scale: usize,
    bias: Option<usize>,
    /// A row that is added to the sum of the first and the second.
    skip_bias: Option<usize>,
    mean: Option<usize>,
    inverse: usize,
    /// The sum that is normalised.
    sum: Option<usize>,
}

/// One of the operators with its attributes.
#[derive(Debug)]
pub(super) struct RowNormalization {
    norm: RowNorm,
    axis: i64,
    signature: Signature,
    /// Type of the statistics; `None`: that of the input.
    statistics_type: Option<DataType>,
}

const PLAIN: Signature = Signature {
    skip: None,
    scale: 1,
    bias: Some(2),
    skip_bias: None,
    mean: Some(1),
    inverse: 2,
    sum: None,
};
const PLAIN_RMS: Signature = Signature {
    bias: None,
    mean: None,
    inverse: 1,
    ..PLAIN
};
const SKIP: Signature = Signature {
    skip: Some(1),
    scale: 2,
    bias: Some(3),
    skip_bias: Some(4),
    mean: Some(1),
    inverse: 2,
    sum: Some(3),
};
const SKIP_RMS: Signature = Signature {
    bias: None,
    skip_bias: Some(3),
    ..SKIP
};

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident = $centres:literal, $signature:ident, $epsilon:literal;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(node: &Attributes) -> Result<RowNormalization, OpError> {
                let epsilon = node.float_or("epsilon", $epsilon)?;
                Ok(RowNormalization {
                    norm: RowNorm { centres: $centres, epsilon },
                    axis: node.int_or("axis", -1)?,
                    signature: $signature,
                    statistics_type: match node.int_or("stash_type", 1)? {
                        1 => Some(DataType::Float32),
                        _ => None,
                    },
                })
            }
        }
    )*};
}

operators! {
    /// `(X - mean) / √(variance + ε) · scale + bias`.
    LayerNormalization = true, PLAIN, 1e-5;
    /// `X / √(mean of X² + ε) · scale`.
    RmsNormalization = false, PLAIN_RMS, 1e-5;
    /// Layer norm of `X + skip (+ bias)`.
    SkipLayerNormalization = true, SKIP, 1e-12;
    /// RMS norm of `X + skip (+ bias)`.
    SkipSimplifiedLayerNormalization = false, SKIP_RMS, 1e-5;
}

impl Operator for RowNormalization {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", F32_LIKE)?;
        inputs.data_type_of(self.signature.scale, "scale", F32_LIKE)?;
        let x = inputs.required(0, "X")?;
        let dims = x.to_dims();
        let statistics = match x.dims {
            None => None,
            Some(dims) => {
                let axis = normalize_axis(self.axis, dims.len())?;
                let ones = dims[axis..].iter().map(|_| Dim::Known(1));
                Some(dims[..axis].iter().cloned().chain(ones).collect::<Dims>())
            }
        };
        let statistics_type = self.statistics_type.unwrap_or(data_type);
        let outputs = (0..inputs.output_count().max(1)).map(|i| {
            if i == 0 || Some(i) == self.signature.sum {
                OutputInfo::maybe(data_type, dims.clone())
            } else {
                OutputInfo::maybe(statistics_type, statistics.clone())
            }
        });
        Ok(outputs.collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, signature) = (ctx.env, self.signature);
        let shape = ctx.input_shape(0, "X")?;
        let axis = normalize_axis(self.axis, shape.len())?;
        let n: usize = shape[axis..].iter().product();
        let optional = |i: Option<usize>| match i {
            Some(i) => ctx.optional_input(i),
            None => Ok(None),
        };
        let scale = Some(ctx.input(signature.scale, "scale")?);
        let (scale, bias) = (
            Factor::new(scale, shape, axis)?,
            Factor::new(optional(signature.bias)?, shape, axis)?,
        );
        let skips = [optional(signature.skip)?, optional(signature.skip_bias)?];
        let is_wanted =
            ctx.wants(signature.inverse) || signature.mean.is_some_and(|i| ctx.wants(i));
        let mut sum_output = signature.sum.and_then(|i| ctx.optional_output(i));
        let rows = shape[..axis].iter().product();
        let mut statistics: Option<Vec<RowStatistics>> =
            is_wanted.then(|| limits::filled([0.0; 2], rows));

        compute_in_f32(ctx, 0, "X", |mut x, y| {
            for skip in skips.into_iter().flatten() {
                let first = match x.take() {
                    Some(x) => Operand::Elements(x, Expansion::new(shape, shape)),
                    None => Operand::InOutput,
                };
                apply(env, Arithmetic::Add, &first, skip, shape, y)?;
            }
            if let Some(output) = &mut sum_output {
                write_narrowed(output, x.unwrap_or(y))?;
            }
            // Factors that differ from row to row are applied afterwards.
            let is_row_wise = scale.is_row_wise() && bias.is_row_wise();
            let affine = match is_row_wise {
                true => RowAffine {
                    scale: scale.row(),
                    bias: bias.row(),
                },
                false => RowAffine::default(),
            };
            normalize_rows(
                env,
                self.norm,
                n.max(1),
                affine,
                x,
                y,
                statistics.as_deref_mut(),
            );
            if !is_row_wise {
                for (function, factor) in [(Arithmetic::Mul, scale), (Arithmetic::Add, bias)] {
                    if let Some(view) = factor.view {
                        apply(env, function, &Operand::InOutput, view, shape, y)?;
                    }
                }
            }
            Ok(())
        })?;

        let Some(statistics) = statistics else {
            return Ok(());
        };
        for (output, column) in [(signature.mean, 0), (Some(signature.inverse), 1)] {
            if let Some(mut output) = output.and_then(|i| ctx.optional_output(i)) {
                let column: Vec<f32> = statistics.iter().map(|row| row[column]).collect();
                write_narrowed(&mut output, &column)?;
            }
        }
        Ok(())
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

/// `y = function(a, b)`, `b` spread over the shape.
fn apply(
    env: &Env,
    function: Arithmetic,
    a: &Operand<'_, f32>,
    b: TensorView<'_>,
    shape: &[usize],
    y: &mut [f32],
) -> Result<(), OpError> {
    check_broadcast("skip", b.shape(), shape)?;
    let elements = widened(b)?;
    let b = Operand::Elements(&elements[..], Expansion::new(b.shape(), shape));
    zip(env, arithmetic::<f32>(function), a, &b, y);
    Ok(())
}

/// That `shape` broadcasts to `output` without changing it.
fn check_broadcast(name: &str, shape: &[usize], output: &[usize]) -> Result<(), OpError> {
    let fits = shape.len() <= output.len()
        && shape
            .iter()
            .rev()
            .zip(output.iter().rev())
            .all(|(&a, &b)| a == b || a == 1);
    match fits {
        true => Ok(()),
        false => Err(OpError::shape(
            name,
            format!("a shape that broadcasts to {output:?}"),
            format!("{shape:?}"),
        )),
    }
}

/// Scale or bias.
struct Factor<'a> {
    view: Option<TensorView<'a>>,
    /// One element for each of a row, where rows do not differ.
    row: Option<Cow<'a, [f32]>>,
}

impl<'a> Factor<'a> {
    fn new(
        view: Option<TensorView<'a>>,
        shape: &[usize],
        axis: usize,
    ) -> Result<Factor<'a>, OpError> {
        let n: usize = shape[axis..].iter().product();
        let mut factor = Factor { view, row: None };
        let Some(view) = view else { return Ok(factor) };
        check_broadcast("scale", view.shape(), shape)?;
        let missing = shape.len() - view.rank();
        let mut outer = view.shape().iter().take(axis.saturating_sub(missing));
        if view.len() == n && outer.all(|&size| size == 1) {
            factor.row = Some(widened(view)?);
        }
        Ok(factor)
    }

    /// Whether there is nothing, or the same for all rows.
    fn is_row_wise(&self) -> bool {
        self.view.is_none() || self.row.is_some()
    }

    fn row(&self) -> Option<&[f32]> {
        self.row.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use crate::operators::case::{Case, tensor};
    use crate::tensor::Tensor;

    fn close(got: &Tensor, want: &[f32]) {
        let got = got.as_slice::<f32>().expect("f32");
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-4, "{got}, not {want}");
        }
    }

    #[test]
    fn layer_normalization_gives_its_statistics() {
        let x = tensor(&[2, 2], &[1f32, 3.0, -2.0, 2.0]);
        let scale = tensor(&[2], &[1f32, 2.0]);
        let bias = tensor(&[2], &[0.5f32, 0.0]);
        let case = Case::of("LayerNormalization", 17).outputs(3);
        let outputs = case
            .tensors(&[x.clone(), scale.clone(), bias])
            .expect("it fits");
        close(&outputs[0], &[-0.5, 2.0, -0.5, 2.0]);
        close(&outputs[1], &[2.0, 0.0]);
        close(&outputs[2], &[1.0, 0.5]);
        assert_eq!(outputs[1].shape(), [2, 1]);
        let rms = Case::of("RMSNormalization", 23)
            .one(&[x.clone(), scale])
            .expect("it fits");
        let (a, b) = (5f32.sqrt(), 2.0);
        close(&rms, &[1.0 / a, 6.0 / a, -2.0 / b, 4.0 / b]);
        // A scale that differs from row to row.
        let scale = tensor(&[2, 1], &[1f32, 10.0]);
        let y = Case::of("LayerNormalization", 17)
            .one(&[x, scale])
            .expect("it fits");
        close(&y, &[-1.0, 1.0, -10.0, 10.0]);
    }

    #[test]
    fn skip_layer_normalization_adds_first() {
        let x = tensor(&[1, 1, 2], &[1f32, 1.0]);
        let skip = tensor(&[1, 1, 2], &[0f32, 1.0]);
        let row = |a, b| tensor(&[2], &[a, b]);
        let case = Case::in_domain("com.microsoft", "SkipLayerNormalization", 1).outputs(4);
        let inputs = [
            x.clone(),
            skip.clone(),
            row(1f32, 1.0),
            row(0.0, 1.0),
            row(0.0, 1.0),
        ];
        let outputs = case.tensors(&inputs).expect("it fits");
        close(&outputs[0], &[-1.0, 2.0]);
        close(outputs.last().expect("the sum"), &[1.0, 3.0]);
        let case = Case::in_domain("com.microsoft", "SkipSimplifiedLayerNormalization", 1);
        let y = case.one(&[x, skip, row(1f32, 1.0)]).expect("it fits");
        let root = 2.5f32.sqrt();
        close(&y, &[1.0 / root, 2.0 / root]);
    }

    #[test]
    fn layer_normalization_rejects_a_scale_that_does_not_fit() {
        let x = tensor(&[1, 3], &[1f32, 2.0, 3.0]);
        let result = Case::of("LayerNormalization", 17).one(&[x, tensor(&[2], &[1f32, 1.0])]);
        assert!(result.is_err());
    }
}
