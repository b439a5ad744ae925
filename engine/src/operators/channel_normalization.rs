//! Normalisation with a scale for each channel: BatchNormalization, InstanceNormalization,
//! GroupNormalization.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset. `X: [N, C, ..]` → `Y` alike;
//! `scale`, `B`, `mean`, `var`: `[C]`. BatchNormalization uses the given statistics (since opset 14
//! with `training_mode` those of the batch, and returns running ones); before opset 9 `spatial = 0`
//! has them for each element of a sample. GroupNormalization has its scale per group in opset 18
//! and per channel in 21. Types: f32, f16, bf16, all computed in f32.

use std::borrow::Cow;

use super::element_types::{F32_LIKE, compute_in_f32, widened, write_narrowed};
use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::kernels::normalization::{SegmentAffine, affine_segments, row_moments};
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// `[N, C, ..]` as sizes.
struct Extent {
    batch: usize,
    channels: usize,
    inner: usize,
}

impl Extent {
    fn of(shape: &[usize]) -> Extent {
        Extent {
            batch: shape.first().copied().unwrap_or(1),
            channels: shape.get(1).copied().unwrap_or(1),
            inner: shape.get(2..).unwrap_or_default().iter().product(),
        }
    }
}

/// An input of one element for each channel (or whatever `expected` counts).
fn per_channel<'a>(
    ctx: &RunContext<'a>,
    i: usize,
    name: &'static str,
    expected: usize,
) -> Result<Cow<'a, [f32]>, OpError> {
    let elements = widened(ctx.input(i, name)?)?;
    match elements.len() == expected {
        true => Ok(elements),
        false => Err(OpError::shape(
            name,
            format!("{expected} elements"),
            format!("{} elements", elements.len()),
        )),
    }
}

/// The operator with its attributes.
#[derive(Debug)]
pub(super) struct BatchNormalization {
    epsilon: f32,
    momentum: f32,
    is_training: bool,
    is_per_element: bool,
}

impl BatchNormalization {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            epsilon: node.float_or("epsilon", 1e-5)?,
            momentum: node.float_or("momentum", 0.9)?,
            is_training: node.opset >= 14 && node.flag_or("training_mode", false)?,
            is_per_element: node.opset < 9 && !node.flag_or("spatial", true)?,
        })
    }

    /// Mean and variance of each channel over the batch.
    fn batch_moments(
        &self,
        ctx: &RunContext<'_>,
        extent: &Extent,
    ) -> Result<[Vec<f32>; 2], OpError> {
        let &Extent {
            batch,
            channels,
            inner,
        } = extent;
        let x = widened(ctx.input(0, "X")?)?;
        let mut parts = limits::filled([0.0; 2], batch * channels);
        row_moments(ctx.env, &x, &mut parts);
        // Chan's rule for joining moments: the variance of the parts plus that of their means.
        let of_channel = |c: usize| (0..batch).map(move |n| n * channels + c);
        let count = batch as f32;
        let means: Vec<f32> = (0..channels)
            .map(|c| of_channel(c).map(|i| parts[i][0]).sum::<f32>() / count)
            .collect();
        let variances = (0..channels)
            .map(|c| {
                let part = |i: usize| parts[i][1] + (parts[i][0] - means[c]).powi(2);
                of_channel(c).map(part).sum::<f32>() / count
            })
            .collect();
        match inner {
            0 => Err(OpError::shape(
                "X",
                "at least one element a channel",
                "none",
            )),
            _ => Ok([means, variances]),
        }
    }
}

impl Operator for BatchNormalization {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", F32_LIKE)?;
        let x = inputs.required(0, "X")?;
        let mut outputs = OutputInfos::from_iter([OutputInfo::maybe(data_type, x.to_dims())]);
        for (i, name) in [(1, "scale"), (2, "B"), (3, "mean"), (4, "var")] {
            let input = inputs.required(i, name)?;
            inputs.data_type_of(i, name, F32_LIKE)?;
            if let (Some([_, channels @ Dim::Known(_), ..]), Some([n @ Dim::Known(_)])) =
                (x.dims, input.dims)
                && channels != n
                && !self.is_per_element
            {
                return Err(OpError::shape(
                    name,
                    format!("[{channels}]"),
                    format!("[{n}]"),
                ));
            }
        }
        let mean = inputs.required(3, "mean")?;
        if self.is_training {
            for _ in 1..inputs.output_count() {
                outputs.push(OutputInfo::maybe(mean.data_type()?, mean.to_dims()));
            }
        } else if inputs.output_count() > 1 {
            // Old opsets list outputs of training, which inference leaves out.
            outputs.extend(
                (1..inputs.output_count()).map(|_| OutputInfo::maybe(data_type, mean.to_dims())),
            );
        }
        Ok(outputs)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let env = ctx.env;
        let extent = Extent::of(ctx.input_shape(0, "X")?);
        let (entries, len) = match self.is_per_element {
            true => (extent.channels * extent.inner, 1),
            false => (extent.channels, extent.inner),
        };
        let scale = per_channel(ctx, 1, "scale", entries)?;
        let bias = per_channel(ctx, 2, "B", entries)?;
        let mut mean = per_channel(ctx, 3, "mean", entries)?;
        let mut variance = per_channel(ctx, 4, "var", entries)?;
        if self.is_training {
            let [batch_mean, batch_variance] = self.batch_moments(ctx, &extent)?;
            for (i, (old, new)) in [(&mean, &batch_mean), (&variance, &batch_variance)]
                .into_iter()
                .enumerate()
            {
                let Some(mut output) = ctx.optional_output(i + 1) else {
                    continue;
                };
                let running = old.iter().zip(new);
                let running: Vec<f32> = running
                    .map(|(old, new)| old * self.momentum + new * (1.0 - self.momentum))
                    .collect();
                write_narrowed(&mut output, &running)?;
            }
            (mean, variance) = (batch_mean.into(), batch_variance.into());
        } else {
            for (i, statistics) in [(1, &mean), (2, &variance), (3, &mean), (4, &variance)] {
                if let Some(mut output) = ctx.optional_output(i) {
                    write_narrowed(&mut output, statistics)?;
                }
            }
        }
        let affine: Vec<SegmentAffine> = (0..entries)
            .map(|c| SegmentAffine {
                shift: mean[c],
                scale: scale[c] / (variance[c] + self.epsilon).sqrt(),
                bias: bias[c],
            })
            .collect();
        compute_in_f32(ctx, 0, "X", |x, y| {
            affine_segments(env, len.max(1), &affine, x, y);
            Ok(())
        })
    }

    fn in_place(&self) -> &[(usize, usize)] {
        if self.is_training { &[] } else { &[(0, 0)] }
    }
}

/// How many channels are normalised together.
#[derive(Debug, Clone, Copy)]
enum Groups {
    /// Each by itself.
    Channels,
    /// So many groups; whether scale and bias have an element for each channel.
    Count { groups: usize, is_per_channel: bool },
}

/// InstanceNormalization or GroupNormalization.
#[derive(Debug)]
pub(super) struct GroupNorm {
    epsilon: f32,
    groups: Groups,
}

impl Operator for GroupNorm {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", F32_LIKE)?;
        inputs.data_type_of(1, "scale", F32_LIKE)?;
        inputs.data_type_of(2, "bias", F32_LIKE)?;
        let x = inputs.required(0, "X")?;
        if let (Groups::Count { groups, .. }, Some(&[_, Dim::Known(channels), ..])) =
            (self.groups, x.dims)
            && !channels.is_multiple_of(groups)
        {
            let expected = format!("channels that make {groups} groups");
            return Err(OpError::shape(
                "X",
                expected,
                format!("{channels} channels"),
            ));
        }
        Ok(OutputInfo::maybe(data_type, x.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let env = ctx.env;
        let Extent {
            batch,
            channels,
            inner,
        } = Extent::of(ctx.input_shape(0, "X")?);
        let (groups, is_per_channel) = match self.groups {
            Groups::Channels => (channels, true),
            Groups::Count {
                groups,
                is_per_channel,
            } => (groups, is_per_channel),
        };
        let entries = if is_per_channel { channels } else { groups };
        let scale = per_channel(ctx, 1, "scale", entries)?;
        let bias = per_channel(ctx, 2, "bias", entries)?;
        let epsilon = self.epsilon;
        compute_in_f32(ctx, 0, "X", |x, y| {
            if y.is_empty() {
                return Ok(());
            }
            let mut moments = limits::filled([0.0; 2], batch * groups);
            row_moments(env, x.unwrap_or(y), &mut moments);
            let channels_per_group = channels / groups;
            let affine: Vec<SegmentAffine> = (0..batch * channels)
                .map(|i| {
                    let [mean, variance] = moments[i / channels_per_group];
                    let channel = i % channels;
                    let entry = if is_per_channel {
                        channel
                    } else {
                        channel / channels_per_group
                    };
                    SegmentAffine {
                        shift: mean,
                        scale: scale[entry] / (variance + epsilon).sqrt(),
                        bias: bias[entry],
                    }
                })
                .collect();
            affine_segments(env, inner, &affine, x, y);
            Ok(())
        })
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

/// Each channel of each sample by itself.
pub(super) struct InstanceNormalization;

impl InstanceNormalization {
    pub(super) fn parse(node: &Attributes) -> Result<GroupNorm, OpError> {
        Ok(GroupNorm {
            epsilon: node.float_or("epsilon", 1e-5)?,
            groups: Groups::Channels,
        })
    }
}

/// Groups of channels of each sample.
pub(super) struct GroupNormalization;

impl GroupNormalization {
    pub(super) fn parse(node: &Attributes) -> Result<GroupNorm, OpError> {
        let count = *node.int("num_groups")?;
        let groups = usize::try_from(count)
            .ok()
            .filter(|&n| n > 0)
            .ok_or_else(|| OpError::Attribute {
                name: "num_groups".into(),
                expected: "at least 1".into(),
                found: count.to_string(),
            })?;
        let is_per_channel = node.opset >= 21;
        let groups = Groups::Count {
            groups,
            is_per_channel,
        };
        Ok(GroupNorm {
            epsilon: node.float_or("epsilon", 1e-5)?,
            groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::attributes::Attribute;
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
    fn batch_normalization_uses_given_statistics() {
        let x = tensor(&[1, 2, 2], &[1f32, 2.0, 3.0, 4.0]);
        let channels = |a, b| tensor(&[2], &[a, b]);
        let inputs = [
            x,
            channels(1f32, 2.0),
            channels(0.0, 1.0),
            channels(1.0, 3.0),
            channels(1.0, 4.0),
        ];
        let case = Case::of("BatchNormalization", 15).with("epsilon", Attribute::Float(0.0));
        close(&case.one(&inputs).expect("it fits"), &[0.0, 1.0, 1.0, 2.0]);
        let training = case
            .int("training_mode", 1)
            .with("momentum", Attribute::Float(0.5))
            .outputs(3);
        let outputs = training.tensors(&inputs).expect("it fits");
        close(&outputs[0], &[-1.0, 1.0, -1.0, 3.0]);
        close(&outputs[1], &[1.25, 3.25]);
        close(&outputs[2], &[0.625, 2.125]);
        let wrong = [&inputs[..4], &[tensor(&[3], &[1f32; 3])]].concat();
        assert!(Case::of("BatchNormalization", 15).one(&wrong).is_err());
    }

    #[test]
    fn groups_are_normalised_together() {
        let x = tensor(&[1, 4, 1], &[1f32, 3.0, 10.0, 20.0]);
        let case = |opset| {
            let case = Case::of("GroupNormalization", opset).int("num_groups", 2);
            case.with("epsilon", Attribute::Float(0.0))
        };
        let y = case(18).one(&[
            x.clone(),
            tensor(&[2], &[1f32, 2.0]),
            tensor(&[2], &[0f32, 1.0]),
        ]);
        close(&y.expect("it fits"), &[-1.0, 1.0, -1.0, 3.0]);
        let four = [1f32, 2.0, 3.0, 4.0];
        let y = case(21).one(&[x.clone(), tensor(&[4], &four), tensor(&[4], &[0f32; 4])]);
        close(&y.expect("it fits"), &[-1.0, 2.0, -3.0, 4.0]);
        let instance = Case::of("InstanceNormalization", 6).with("epsilon", Attribute::Float(0.0));
        let x = tensor(&[1, 2, 2], &[1f32, 3.0, 10.0, 20.0]);
        let y = instance.one(&[x, tensor(&[2], &[1f32, 1.0]), tensor(&[2], &[0f32, 5.0])]);
        close(&y.expect("it fits"), &[-1.0, 1.0, 4.0, 6.0]);
    }
}
