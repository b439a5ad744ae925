//! Convolutions of bytes: `ConvInteger` and `QLinearConv`.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__ConvInteger.html> and
//! <https://onnx.ai/onnx/operators/onnx__QLinearConv.html>, opset 10.
//! Shapes: `x: [N, C, in..]`, `w: [M, C / group, kernel..]`, `B: [M]` → `y: [N, M, out..]`, with up
//! to three spatial axes. Scales and zero points of `w` are one or one an output channel, the
//! others one. Types: u8 and i8 → i32, or u8 and i8. Sums are exact; padding counts as zero, that
//! is as `x`'s zero point. `QLinearConv` rounds `(sum + B) · (x_scale · w_scale / y_scale)` to even
//! and saturates.

use super::byte_products::{bytes_of, check_scales, with_zeros};
use super::conv::{check_ranks, each_tap, groups, output_dims};
use super::widened::with_optional_f32;
use super::window::{WindowAttributes, geometry_error};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::graph::dimension::known_dims;
use crate::kernels::convolution::Geometry;
use crate::kernels::env::Env;
use crate::kernels::integer_gemm::{Bytes, Lhs, Output, PackedRhs, gemm};
use crate::kernels::scratch;
use crate::operator::{
    InferContext, InputInfo, Operator, OutputInfo, OutputInfos, Prepared, RunContext,
};
use crate::tensor::{DataType, Shape, Tensor, TensorView, TensorViewMut};

/// Which input is what.
#[derive(Debug, Clone, Copy)]
struct Slots {
    w: usize,
    x_zero: usize,
    w_zero: usize,
    /// Of a quantised output: scales of `x`, `w` and `y`, zero point of `y`, bias.
    requantised: Option<[usize; 5]>,
}

/// Either operator.
#[derive(Debug)]
pub(super) struct ByteConv {
    window: WindowAttributes,
    groups: usize,
    slots: Slots,
    weights: Option<Weights>,
}

/// Constant weights, packed.
#[derive(Debug)]
struct Weights {
    /// `[M, C / group, kernel..]`
    dims: Shape,
    /// `[C / group · kernel.., M / group]` of each group.
    groups: Vec<PackedRhs>,
}

/// `ConvInteger`.
pub(super) struct ConvInteger;
/// `QLinearConv`.
pub(super) struct QLinearConv;

const BYTES: &[DataType] = &[DataType::Uint8, DataType::Int8];

/// Output channels of a group under which a matrix product would mostly multiply padding.
const LEAST_CHANNELS: usize = 4;

/// Windows that are written out at a time.
const WINDOWS: usize = 512;

impl ConvInteger {
    pub(super) fn parse(node: &Attributes) -> Result<ByteConv, OpError> {
        let slots = Slots {
            w: 1,
            x_zero: 2,
            w_zero: 3,
            requantised: None,
        };
        ByteConv::parse(node, slots)
    }
}

impl QLinearConv {
    pub(super) fn parse(node: &Attributes) -> Result<ByteConv, OpError> {
        let slots = Slots {
            w: 3,
            x_zero: 2,
            w_zero: 5,
            requantised: Some([1, 4, 6, 7, 8]),
        };
        ByteConv::parse(node, slots)
    }
}

/// How sums become outputs.
struct Requantised<'a> {
    /// `x_scale · w_scale / y_scale` of each output channel.
    factors: &'a [f32],
    zero_point: i32,
    bias: &'a [i32],
}

/// A convolution with everything but the weights and the output.
struct Job<'a> {
    geometry: &'a Geometry,
    x: Bytes<'a>,
    x_zero: i32,
    /// None (zero), one, or one an output channel.
    w_zeros: &'a [i32],
    requantised: Option<Requantised<'a>>,
}

impl ByteConv {
    fn parse(node: &Attributes, slots: Slots) -> Result<Self, OpError> {
        Ok(Self {
            window: WindowAttributes::parse(node)?,
            groups: groups(node)?,
            slots,
            weights: None,
        })
    }

    fn geometry(&self, image: &[usize], weights: &[usize]) -> Result<Geometry, OpError> {
        check_ranks(image, weights)?;
        let window = self.window.over(&image[2..], Some(&weights[2..]))?;
        Geometry::convolution(image, weights, window.as_window(), self.groups)
            .map_err(geometry_error(image))
    }

    fn convolve(
        &self,
        env: &Env,
        job: &Job<'_>,
        w: Option<TensorView<'_>>,
        y: &mut TensorViewMut<'_>,
    ) -> Result<(), OpError> {
        let w = w.map(|w| bytes_of(w, "w")).transpose()?;
        let geometry = job.geometry;
        let sizes = (geometry.group_in() * geometry.taps(), geometry.group_out());
        let (images, planes) = (geometry.batch, geometry.in_channels * geometry.input_len());
        for image in 0..images {
            let x = job.x.slice(image * planes..(image + 1) * planes);
            for group in 0..geometry.groups {
                match (&self.weights, w) {
                    (Some(weights), _) => {
                        job.by_product(env, x, &weights.groups[group], image, group, y)?;
                    }
                    (None, Some(w)) if geometry.group_out() >= LEAST_CHANNELS => {
                        let packed = pack(w, job.w_zeros, sizes, group);
                        job.by_product(env, x, &packed, image, group, y)?;
                    }
                    (None, Some(w)) => job.directly(x, w, image, group, y)?,
                    (None, None) => {}
                }
            }
        }
        Ok(())
    }
}

/// The weights of a group, `n` filters of `k` taps, transposed and packed.
fn pack(w: Bytes<'_>, zeros: &[i32], (k, n): (usize, usize), group: usize) -> PackedRhs {
    let zeros = match zeros.len() {
        0 | 1 => zeros,
        _ => &zeros[group * n..][..n],
    };
    PackedRhs::transposed(w.slice(group * n * k..(group + 1) * n * k), k, n, zeros)
}

impl Job<'_> {
    /// One group of one image as a product of its windows with packed weights.
    fn by_product(
        &self,
        env: &Env,
        x: Bytes<'_>,
        weights: &PackedRhs,
        image: usize,
        group: usize,
        y: &mut TensorViewMut<'_>,
    ) -> Result<(), OpError> {
        let geometry = self.geometry;
        let (taps, plane_in, plane_out) =
            (geometry.taps(), geometry.input_len(), geometry.output_len());
        let (k, n) = (geometry.group_in() * taps, geometry.group_out());
        let first_in = group * geometry.group_in();
        let channels = x.slice(first_in * plane_in..(first_in + geometry.group_in()) * plane_in);
        let first_out = image * geometry.out_channels + group * n;
        scratch::with(WINDOWS.min(plane_out) * k, |windows: &mut [u8]| {
            scratch::with(WINDOWS.min(plane_out) * n, |sums: &mut [i32]| {
                for start in (0..plane_out).step_by(WINDOWS) {
                    let count = WINDOWS.min(plane_out - start);
                    let windows = &mut windows[..count * k];
                    // What lies beside the image counts as zero.
                    windows.fill(self.x_zero as u8);
                    for (i, window) in windows.chunks_exact_mut(k).enumerate() {
                        each_tap(geometry, start + i..start + i + 1, |from, _, tap| {
                            for (c, place) in window.chunks_exact_mut(taps).enumerate() {
                                place[tap] = channels.get(c * plane_in + from) as u8;
                            }
                        });
                    }
                    let data = match self.x {
                        Bytes::Unsigned(_) => Bytes::Unsigned(windows),
                        Bytes::Signed(_) => Bytes::Signed(bytemuck::cast_slice(windows)),
                    };
                    let lhs = Lhs {
                        m: count,
                        data,
                        zero_points: &[self.x_zero],
                    };
                    let sums = &mut sums[..count * n];
                    gemm(env, lhs, weights, Output::Integers(sums));
                    for channel in 0..n {
                        let column = sums[channel..].iter().step_by(n).copied();
                        let at = (first_out + channel) * plane_out + start;
                        self.store(group * n + channel, column, y, at)?;
                    }
                }
                Ok(())
            })
        })
    }

    /// One group of one image, tap by tap.
    fn directly(
        &self,
        x: Bytes<'_>,
        w: Bytes<'_>,
        image: usize,
        group: usize,
        y: &mut TensorViewMut<'_>,
    ) -> Result<(), OpError> {
        let geometry = self.geometry;
        let (plane_in, plane_out) = (geometry.input_len(), geometry.output_len());
        let (taps, group_in) = (geometry.taps(), geometry.group_in());
        scratch::with(plane_out, |sums: &mut [i32]| {
            for channel in group * geometry.group_out()..(group + 1) * geometry.group_out() {
                let zero = match self.w_zeros {
                    [] => 0,
                    [one] => *one,
                    many => many[channel],
                };
                sums.fill(0);
                for c in 0..group_in {
                    let plane = (group * group_in + c) * plane_in;
                    let filter = (channel * group_in + c) * taps;
                    each_tap(geometry, 0..plane_out, |from, to, tap| {
                        let x = x.get(plane + from) - self.x_zero;
                        let w = w.get(filter + tap) - zero;
                        sums[to] = sums[to].wrapping_add(x * w);
                    });
                }
                let at = (image * geometry.out_channels + channel) * plane_out;
                self.store(channel, sums.iter().copied(), y, at)?;
            }
            Ok(())
        })
    }

    /// Writes the sums of an output channel from element `at` of the output on.
    fn store(
        &self,
        channel: usize,
        sums: impl ExactSizeIterator<Item = i32>,
        y: &mut TensorViewMut<'_>,
        at: usize,
    ) -> Result<(), OpError> {
        let place = at..at + sums.len();
        let Some(to) = &self.requantised else {
            let y = &mut y.as_mut_slice::<i32>()?[place];
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum);
            return Ok(());
        };
        let bias = to.bias.get(channel).copied().unwrap_or(0);
        let factor = to.factors[channel];
        let quantised = sums.map(|sum| {
            let scaled = sum.wrapping_add(bias) as f32 * factor;
            (scaled.round_ties_even() + to.zero_point as f32) as i32
        });
        match y.data_type() {
            DataType::Uint8 => {
                let y = &mut y.as_mut_slice::<u8>()?[place];
                let quantised = quantised.map(|q| q.clamp(0, 255) as u8);
                y.iter_mut().zip(quantised).for_each(|(y, q)| *y = q);
            }
            _ => {
                let y = &mut y.as_mut_slice::<i8>()?[place];
                let quantised = quantised.map(|q| q.clamp(-128, 127) as i8);
                y.iter_mut().zip(quantised).for_each(|(y, q)| *y = q);
            }
        }
        Ok(())
    }
}

impl Operator for ByteConv {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let slots = &self.slots;
        inputs.data_type_of(0, "x", BYTES)?;
        let x = inputs.required(0, "x")?;
        let packed = self.weights.as_ref().map(|w| known_dims(&w.dims));
        let w = match &packed {
            Some(dims) => InputInfo {
                kind: None,
                dims: Some(dims),
                value: None,
                ints: None,
            },
            None => {
                inputs.data_type_of(slots.w, "w", BYTES)?;
                inputs.required(slots.w, "w")?
            }
        };
        let dims = output_dims(x, w, |w| w[0].clone(), |x, w| self.geometry(x, w))?;
        let data_type = match slots.requantised {
            Some([_, _, _, y_zero, _]) => inputs.data_type_of(y_zero, "y_zero_point", BYTES)?,
            None => DataType::Int32,
        };
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, slots) = (ctx.env, &self.slots);
        let x = ctx.input(0, "x")?;
        let w = match &self.weights {
            Some(_) => None,
            None => Some(ctx.input(slots.w, "w")?),
        };
        let dims = match (&self.weights, w) {
            (Some(weights), _) => &weights.dims[..],
            (None, Some(w)) => w.shape(),
            (None, None) => &[],
        };
        let geometry = &self.geometry(x.shape(), dims)?;
        let channels = geometry.out_channels;
        let (x_zero, w_zero) = (
            ctx.optional_input(slots.x_zero)?,
            ctx.optional_input(slots.w_zero)?,
        );
        if self.weights.is_some() && w_zero.is_some() {
            return Err(OpError::unsupported(
                "computed zero points of constant weights",
            ));
        }
        let x_zero = with_zeros(x_zero, "x_zero_point", 1, |zero| {
            Ok(zero.first().copied().unwrap_or(0))
        })?;
        let x = bytes_of(x, "x")?;
        with_zeros(w_zero, "w_zero_point", channels, |w_zeros| {
            let job = Job {
                geometry,
                x,
                x_zero,
                w_zeros,
                requantised: None,
            };
            let Some([x_scale, w_scale, y_scale, y_zero, bias]) = slots.requantised else {
                return self.convolve(env, &job, w, &mut ctx.output(0)?);
            };
            let y_zero = with_zeros(ctx.optional_input(y_zero)?, "y_zero_point", 1, |zero| {
                Ok(zero.first().copied().unwrap_or(0))
            })?;
            let bias = match ctx.optional_input(bias)? {
                Some(bias) => bias.as_slice::<i32>()?,
                None => &[],
            };
            if ![0, channels].contains(&bias.len()) {
                let found = format!("{} elements", bias.len());
                return Err(OpError::shape("B", format!("[{channels}]"), found));
            }
            let scales = [
                Some(ctx.input(x_scale, "x_scale")?),
                Some(ctx.input(w_scale, "w_scale")?),
                Some(ctx.input(y_scale, "y_scale")?),
            ];
            let mut y = ctx.output(0)?;
            with_optional_f32(scales[0], |x_scale| {
                with_optional_f32(scales[1], |w_scale| {
                    with_optional_f32(scales[2], |y_scale| {
                        check_scales(x_scale, "x_scale", 1)?;
                        check_scales(w_scale, "w_scale", channels)?;
                        check_scales(y_scale, "y_scale", 1)?;
                        scratch::with(channels, |factors: &mut [f32]| {
                            for (m, factor) in factors.iter_mut().enumerate() {
                                let own = w_scale[if w_scale.len() == 1 { 0 } else { m }];
                                *factor = x_scale[0] * own / y_scale[0];
                            }
                            let requantised = Some(Requantised {
                                factors,
                                zero_point: y_zero,
                                bias,
                            });
                            self.convolve(env, &Job { requantised, ..job }, w, &mut y)
                        })
                    })
                })
            })
        })
    }

    fn prepare(&self, constants: &[Option<&Tensor>], _: &Env) -> Result<Option<Prepared>, OpError> {
        let constant = |i: usize| constants.get(i).copied().flatten();
        let (Some(w), None) = (constant(self.slots.w), &self.weights) else {
            return Ok(None);
        };
        let dims = Shape::from_slice(w.shape());
        let (&[m, group_in, ..], groups) = (&dims[..], self.groups) else {
            return Ok(None);
        };
        if dims.len() < 3 || m / groups < LEAST_CHANNELS || !m.is_multiple_of(groups) {
            return Ok(None);
        }
        let (k, n) = (dims[1..].iter().product::<usize>(), m / groups);
        if group_in == 0 || k == 0 {
            return Ok(None);
        }
        let zeros = constant(self.slots.w_zero);
        let bytes = bytes_of(w.view(), "w")?;
        let packed = with_zeros(zeros.map(Tensor::view), "w_zero_point", m, |zeros| {
            let groups = (0..groups).map(|group| pack(bytes, zeros, (k, n), group));
            Ok(groups.collect())
        })?;
        let mut consumed: smallvec::SmallVec<[usize; 4]> = [self.slots.w].into_iter().collect();
        if zeros.is_some() {
            consumed.push(self.slots.w_zero);
        }
        Ok(Some(Prepared {
            operator: Box::new(Self {
                window: self.window.clone(),
                groups,
                slots: self.slots,
                weights: Some(Weights {
                    dims,
                    groups: packed,
                }),
            }),
            consumed,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use super::*;
    use crate::operator::run_alone;
    use crate::tensor::Value;

    /// The formula, over `[1, c, h, w]` with 3x3 windows and padding 1.
    fn reference(
        (x, x_zero): (&[i32], i32),
        (w, w_zero): (&[i32], i32),
        [c, h, wide, m, groups]: [usize; 5],
    ) -> Vec<i32> {
        let (per_in, per_out) = (c / groups, m / groups);
        let mut y = Vec::new();
        for o in 0..m {
            for at in 0..h * wide {
                let mut sum = 0;
                for i in 0..per_in {
                    for tap in 0..9 {
                        let (row, column) = (at / wide + tap / 3, at % wide + tap % 3);
                        if (1..=h).contains(&row) && (1..=wide).contains(&column) {
                            let from = (o / per_out * per_in + i) * h * wide;
                            let x = x[from + (row - 1) * wide + column - 1] - x_zero;
                            sum += x * (w[(o * per_in + i) * 9 + tap] - w_zero);
                        }
                    }
                }
                y.push(sum);
            }
        }
        y
    }

    #[test]
    fn sums_of_products_of_bytes_are_exact() {
        // Many channels, few, and one a group; packed at load and not.
        for [c, m, groups] in [[3, 6, 1], [4, 2, 1], [4, 8, 2], [5, 5, 5]] {
            let sizes = [c, 4, 5, m, groups];
            let x: Vec<u8> = (0..c * 20).map(|i| (i * 37 % 256) as u8).collect();
            let w: Vec<i8> = (0..m * c / groups * 9)
                .map(|i| (i * 53 % 256) as u8 as i8)
                .collect();
            let wide = |list: &[u8]| list.iter().map(|&x| x.into()).collect::<Vec<i32>>();
            let w_wide: Vec<i32> = w.iter().map(|&x| x.into()).collect();
            let want = reference((&wide(&x), 7), (&w_wide, -3), sizes);
            let inputs = [
                tensor(&[1, c, 4, 5], &x),
                tensor(&[m, c / groups, 3, 3], &w),
                tensor(&[], &[7u8]),
                tensor(&[], &[-3i8]),
            ];
            let case = Case::of("ConvInteger", 10)
                .ints("pads", &[1, 1, 1, 1])
                .int("group", groups as i64);
            let want = tensor(&[1, m, 4, 5], &want);
            assert_eq!(case.one(&inputs), Ok(want.clone()), "{sizes:?}");

            let attributes = Attributes::new(10, 1)
                .with(
                    "pads",
                    crate::graph::attributes::Attribute::Ints(vec![1; 4].into()),
                )
                .with(
                    "group",
                    crate::graph::attributes::Attribute::Int(groups as i64),
                );
            let operator = ConvInteger::parse(&attributes).expect("valid");
            let constants = [None, Some(&inputs[1]), None, Some(&inputs[3])];
            let prepared = operator
                .prepare(&constants, &Env::default())
                .expect("packs");
            let Some(prepared) = prepared else {
                assert!(m / groups < LEAST_CHANNELS);
                continue;
            };
            let left: Vec<Option<Value>> = (0..4)
                .map(|i| (!prepared.consumed.contains(&i)).then(|| inputs[i].clone().into()))
                .collect();
            let y = run_alone(&*prepared.operator, &Env::default(), &left, 1).expect("runs");
            assert_eq!(y[0], Some(want.into()), "{sizes:?}");
        }
    }

    #[test]
    fn quantised_outputs_are_rounded_to_even_and_saturate() {
        let case = Case::of("QLinearConv", 10);
        let scalar = |x: f32| tensor(&[], &[x]);
        let inputs = [
            tensor(&[1, 1, 1, 4], &[10u8, 11, 12, 255]),
            scalar(0.5),
            tensor(&[], &[10u8]),
            tensor(&[2, 1, 1, 1], &[1i8, -2]),
            tensor(&[2], &[1f32, 4.]),
            tensor(&[2], &[0i8, 0]),
            scalar(1.0),
            tensor(&[], &[100u8]),
            tensor(&[2], &[0i32, 3]),
        ];
        // Channel 0: (0, 1, 2, 245) / 2; channel 1: (3, 1, -1, -487) · 2.
        let want = [100u8, 100, 101, 222, 106, 102, 98, 0];
        assert_eq!(case.one(&inputs), Ok(tensor(&[1, 2, 1, 4], &want)));
        let mut wrong = inputs.clone();
        wrong[8] = tensor(&[1], &[0i32]);
        assert!(matches!(case.one(&wrong), Err(OpError::Shape { .. })));
    }
}
