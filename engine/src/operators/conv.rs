//! `Conv` and `ConvTranspose`.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Conv.html> and
//! <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>, opsets 1, 11, 22.
//! Shapes: `X: [N, C, in..]`, `W: [M, C / group, kernel..]` (transposed:
//! `[C, M / group, kernel..]`), `B: [M]` → `Y: [N, M, out..]`, with up to three spatial axes.
//! Types: f32; f16 and bf16, summed in f32; f64.
//!
//! `ai.lethe.FusedConv` adds a `residual` of the output's shape, or one that broadcasts with it, as
//! fourth input, and an activation.

use half::{bf16, f16};
use std::ops::Range;

use super::fused::{AfterSum, RESIDUAL, add_apart, other_residual, with_residual};
use super::window::{AutoPad, SizedWindow, Sizes, WindowAttributes, counts, geometry_error};
use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::convolution::{
    Convolution, Geometry, TransposedConvolution, convolve, convolve_transposed,
};
use crate::kernels::env::Env;
use crate::kernels::half_precision::Real;
use crate::kernels::scratch;
use crate::limits::Watch;
use crate::operator::{InferContext, InputInfo, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Shape, TensorView};

const TYPES: &[DataType] = &[
    DataType::Float32,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Float64,
];

/// `Conv` and its fused form.
#[derive(Debug)]
pub(super) struct Conv {
    window: WindowAttributes,
    groups: usize,
    after: AfterSum,
}

/// `ai.lethe.FusedConv`.
pub(super) struct FusedConv;

/// `ConvTranspose`.
#[derive(Debug)]
pub(super) struct ConvTranspose {
    window: WindowAttributes,
    groups: usize,
    output_padding: Option<Sizes>,
    output_shape: Option<Sizes>,
}

pub(super) fn groups(node: &Attributes) -> Result<usize, OpError> {
    let groups = node.int_or("group", 1)?;
    usize::try_from(groups)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| OpError::value("group", "at least 1", groups))
}

impl Conv {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            window: WindowAttributes::parse(node)?,
            groups: groups(node)?,
            after: AfterSum::default(),
        })
    }

    fn geometry(&self, image: &[usize], weights: &[usize]) -> Result<Geometry, OpError> {
        check_ranks(image, weights)?;
        let window = self.window.over(&image[2..], Some(&weights[2..]))?;
        Geometry::convolution(image, weights, window.as_window(), self.groups)
            .map_err(geometry_error(image))
    }
}

impl FusedConv {
    pub(super) fn parse(node: &Attributes) -> Result<Conv, OpError> {
        Ok(Conv {
            after: AfterSum::parse(node)?,
            ..Conv::parse(node)?
        })
    }
}

pub(super) fn check_ranks(image: &[usize], weights: &[usize]) -> Result<(), OpError> {
    if image.len() >= 3 && image.len() == weights.len() {
        return Ok(());
    }
    Err(OpError::shape(
        "X and W",
        "[N, C, in..] and [M, C / group, kernel..] with one number of axes",
        format!("{image:?} and {weights:?}"),
    ))
}

/// Sizes of the output: those of `geometry` where the spatial ones of image and weights are known.
pub(super) fn output_dims(
    x: InputInfo<'_>,
    w: InputInfo<'_>,
    out_channels: impl Fn(&[Dim]) -> Dim,
    geometry: impl Fn(&[usize], &[usize]) -> Result<Geometry, OpError>,
) -> Result<Option<Dims>, OpError> {
    let (Some(image), Some(weights)) = (x.dims, w.dims) else {
        return Ok(None);
    };
    if image.len() < 3 || image.len() != weights.len() {
        let found = format!("{} and {}", display_dims(x.dims), display_dims(w.dims));
        let expected = "[N, C, in..] and [M, C / group, kernel..] with one number of axes";
        return Err(OpError::shape("X and W", expected, found));
    }
    let mut dims = Dims::from_elem(Dim::Unknown, image.len());
    dims[0] = image[0].clone();
    dims[1] = out_channels(weights);
    // The number of images changes nothing else.
    let with_one_image: Option<Shape> = std::iter::once(Some(image[0].known().unwrap_or(1)))
        .chain(image[1..].iter().map(Dim::known))
        .collect();
    if let (Some(image), Some(weights)) = (with_one_image, w.shape()) {
        let geometry = geometry(&image, &weights)?;
        let spatial = &geometry.output[3 - (image.len() - 2)..];
        for (dim, &size) in dims[2..].iter_mut().zip(spatial) {
            *dim = Dim::Known(size);
        }
    }
    Ok(Some(dims))
}

/// Checks that a bias has one number a channel.
fn check_bias(inputs: &InferContext<'_>, channels: Option<usize>) -> Result<(), OpError> {
    let bias = inputs.optional(2).and_then(|b| b.shape());
    match (bias, channels) {
        (Some(bias), Some(m)) if bias[..] != [m] => {
            Err(OpError::shape("B", format!("[{m}]"), format!("{bias:?}")))
        }
        _ => Ok(()),
    }
}

impl Operator for Conv {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", TYPES)?;
        inputs.data_type_of(1, "W", &[data_type])?;
        let (x, w) = (inputs.required(0, "X")?, inputs.required(1, "W")?);
        let dims = output_dims(x, w, |w| w[0].clone(), |x, w| self.geometry(x, w))?;
        check_bias(inputs, dims.as_ref().and_then(|d| d[1].known()))?;
        let dims = with_residual(inputs, data_type, dims)?;
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let image = ctx.input_shape(0, "X")?;
        let geometry = self.geometry(image, ctx.input_shape(1, "W")?)?;
        if ctx.input_count() > RESIDUAL {
            let spatial = &geometry.output[3 - (image.len() - 2)..];
            let channels = [image[0], geometry.out_channels];
            let shape: Shape = channels.iter().chain(spatial).copied().collect();
            if let Some(residual) = other_residual(ctx, &shape)? {
                return add_apart(ctx, &shape, residual, self.after, |ctx| {
                    convolution(ctx, &geometry, AfterSum::default())
                });
            }
        }
        convolution(ctx, &geometry, self.after)
    }
}

/// The convolution with all that comes after it.
fn convolution(
    ctx: &mut RunContext<'_>,
    geometry: &Geometry,
    after: AfterSum,
) -> Result<(), OpError> {
    let floats = |env: &Env, [x, w, b, residual]: [Option<&[f32]>; 4], y: &mut [f32]| {
        let (Some(x), Some(w)) = (x, w) else { return };
        convolve(
            env,
            Convolution {
                geometry,
                input: x,
                weights: w,
                bias: b,
                residual,
                activation: after.inline,
                output: y,
            },
        );
    };
    let doubles = |[x, w, b, residual]: [Option<&[f64]>; 4], y: &mut [f64]| {
        let (Some(x), Some(w)) = (x, w) else { return };
        convolve_doubles(geometry, x, w, y);
        let plane = geometry.output_len().max(1);
        for (i, y) in y.iter_mut().enumerate() {
            *y += b.map_or(0.0, |b| b[i / plane % geometry.out_channels]);
            *y = after.double(*y + residual.map_or(0.0, |r| r[i]));
        }
    };
    by_type(ctx, floats, doubles)
}

/// Runs a computation of floats on the inputs X, W, B and residual, as far as they are there.
fn by_type(
    ctx: &mut RunContext<'_>,
    floats: impl Fn(&Env, [Option<&[f32]>; 4], &mut [f32]),
    doubles: impl Fn([Option<&[f64]>; 4], &mut [f64]),
) -> Result<(), OpError> {
    let views = [
        Some(ctx.input(0, "X")?),
        Some(ctx.input(1, "W")?),
        ctx.optional_input(2)?,
        ctx.optional_input(3)?,
    ];
    let env = ctx.env;
    let mut output = ctx.output(0)?;
    match output.data_type() {
        DataType::Float16 => halves::<f16>(env, views, output.as_mut_slice()?, floats),
        DataType::Bfloat16 => halves::<bf16>(env, views, output.as_mut_slice()?, floats),
        DataType::Float64 => {
            let mut slices = [None; 4];
            for (slice, view) in slices.iter_mut().zip(views) {
                *slice = view.map(|v| v.as_slice::<f64>()).transpose()?;
            }
            doubles(slices, output.as_mut_slice()?);
            Ok(())
        }
        _ => {
            let mut slices = [None; 4];
            for (slice, view) in slices.iter_mut().zip(views) {
                *slice = view.map(|v| v.as_slice::<f32>()).transpose()?;
            }
            floats(env, slices, output.as_mut_slice()?);
            Ok(())
        }
    }
}

fn halves<T: Real>(
    env: &Env,
    views: [Option<TensorView<'_>>; 4],
    y: &mut [T],
    floats: impl Fn(&Env, [Option<&[f32]>; 4], &mut [f32]),
) -> Result<(), OpError> {
    let len = |view: &Option<TensorView<'_>>| view.map_or(0, |v| v.len());
    scratch::with(views.iter().map(len).sum(), |wide: &mut [f32]| {
        let mut rest = wide;
        let mut slices: [Option<&[f32]>; 4] = [None; 4];
        for (slice, view) in slices.iter_mut().zip(views) {
            let Some(view) = view else { continue };
            let (part, tail) = rest.split_at_mut(view.len());
            T::widen(view.as_slice()?, part);
            *slice = Some(part);
            rest = tail;
        }
        scratch::with(y.len(), |wide_y: &mut [f32]| {
            floats(env, slices, wide_y);
            T::narrow(wide_y, y);
        });
        Ok(())
    })
}

/// Calls `visit(in_position, out_position, tap)` for every tap of these windows that lies on the
/// image, positions being those of a plane.
pub(super) fn each_tap(
    geometry: &Geometry,
    windows: Range<usize>,
    mut visit: impl FnMut(usize, usize, usize),
) {
    let Geometry {
        input,
        kernel,
        strides,
        dilations,
        pads_begin,
        output,
        ..
    } = geometry;
    let coordinates = |sizes: &[usize; 3], i: usize| {
        [
            i / sizes[2] / sizes[1],
            i / sizes[2] % sizes[1],
            i % sizes[2],
        ]
    };
    let mut watch = Watch::begin();
    for out in windows {
        watch.count(geometry.taps());
        let window = coordinates(output, out);
        for tap in 0..geometry.taps() {
            let offset = coordinates(kernel, tap);
            let place = [0, 1, 2].map(|i| {
                (window[i] * strides[i] + offset[i] * dilations[i]).checked_sub(pads_begin[i])
            });
            if let [Some(d), Some(h), Some(w)] = place
                && d < input[0]
                && h < input[1]
                && w < input[2]
            {
                visit((d * input[1] + h) * input[2] + w, out, tap);
            }
        }
    }
}

/// A convolution in double precision, one tap after another.
fn convolve_doubles(geometry: &Geometry, x: &[f64], w: &[f64], y: &mut [f64]) {
    let (planes_in, planes_out) = (geometry.input_len(), geometry.output_len());
    let (group_in, group_out) = (geometry.group_in(), geometry.group_out());
    if planes_out == 0 {
        return;
    }
    for (i, y) in y.chunks_exact_mut(planes_out).enumerate() {
        let (image, out_channel) = (i / geometry.out_channels, i % geometry.out_channels);
        let first_in = out_channel / group_out * group_in;
        y.fill(0.0);
        for channel in 0..group_in {
            let plane = image * geometry.in_channels + first_in + channel;
            let x = &x[plane * planes_in..][..planes_in];
            let w = &w[(out_channel * group_in + channel) * geometry.taps()..];
            each_tap(geometry, 0..planes_out, |from, to, tap| {
                y[to] += x[from] * w[tap]
            });
        }
    }
}

/// A transposed convolution in double precision: `geometry` has the sizes of the image as output.
fn spread_doubles(geometry: &Geometry, x: &[f64], w: &[f64], b: Option<&[f64]>, y: &mut [f64]) {
    // Seen from the output, the taps are those of a convolution from the output to the image.
    let reversed = Geometry {
        input: geometry.output,
        output: geometry.input,
        ..geometry.clone()
    };
    let (planes_in, planes_out) = (geometry.input_len(), geometry.output_len());
    let (group_in, group_out) = (geometry.group_in(), geometry.group_out());
    if planes_out == 0 {
        return;
    }
    for (i, y) in y.chunks_exact_mut(planes_out).enumerate() {
        let (image, out_channel) = (i / geometry.out_channels, i % geometry.out_channels);
        let group = out_channel / group_out;
        y.fill(b.map_or(0.0, |b| b[out_channel]));
        for channel in group * group_in..(group + 1) * group_in {
            let x = &x[(image * geometry.in_channels + channel) * planes_in..][..planes_in];
            let w = &w[(channel * group_out + out_channel % group_out) * geometry.taps()..];
            each_tap(&reversed, 0..planes_in, |to, from, tap| {
                y[to] += x[from] * w[tap]
            });
        }
    }
}

impl ConvTranspose {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let sizes = |name: &str| -> Result<Option<Sizes>, OpError> {
            let Some(list) = node.optional_ints(name)? else {
                return Ok(None);
            };
            counts(list)
                .map(Some)
                .ok_or_else(|| OpError::value(name, "at least 0", format!("{list:?}")))
        };
        Ok(Self {
            window: WindowAttributes::parse(node)?,
            groups: groups(node)?,
            output_padding: sizes("output_padding")?,
            output_shape: sizes("output_shape")?.filter(|s| !s.is_empty()),
        })
    }

    fn geometry(&self, image: &[usize], weights: &[usize]) -> Result<Geometry, OpError> {
        check_ranks(image, weights)?;
        let spatial = &image[2..];
        let mut window = self.window.over(spatial, Some(&weights[2..]))?;
        let output = self.output(spatial, &mut window)?;
        Geometry::transposed(image, weights, window.as_window(), self.groups, &output)
            .map_err(geometry_error(image))
    }

    /// Spatial sizes of the output; chooses the padding where the output's size is given.
    fn output(&self, spatial: &[usize], window: &mut SizedWindow) -> Result<Sizes, OpError> {
        let rank = spatial.len();
        let list = |name: &str, list: &Option<Sizes>| match list {
            Some(list) if list.len() < rank => Err(OpError::value(
                name,
                format!("{rank} numbers"),
                format!("{list:?}"),
            )),
            // Some exporters give the sizes of all axes: the last ones count.
            Some(list) => Ok(Some(Sizes::from_slice(&list[list.len() - rank..]))),
            None => Ok(None),
        };
        let extra = list("output_padding", &self.output_padding)?;
        let given = list("output_shape", &self.output_shape)?;
        let mut output = Sizes::new();
        for (axis, &size) in spatial.iter().enumerate() {
            let stride = window.strides[axis];
            let full = size
                .saturating_sub(1)
                .checked_mul(stride)
                .and_then(|n| n.checked_add(window.extent(axis)))
                .and_then(|n| n.checked_add(extra.as_ref().map_or(0, |e| e[axis])))
                .ok_or_else(|| OpError::TooLarge {
                    what: "the output of a convolution".into(),
                })?;
            let same = matches!(
                self.window.auto_pad,
                AutoPad::SameUpper | AutoPad::SameLower
            );
            let wanted = match &given {
                Some(given) => Some(given[axis]),
                None => same.then(|| size.saturating_mul(stride)),
            };
            output.push(match wanted {
                Some(wanted) => {
                    let total = full.saturating_sub(wanted);
                    window.split_padding(axis, total, self.window.auto_pad);
                    wanted
                }
                None => full
                    .checked_sub(window.begin[axis])
                    .and_then(|n| n.checked_sub(window.end[axis]))
                    .ok_or_else(|| {
                        let found = format!("{} and {}", window.begin[axis], window.end[axis]);
                        OpError::value("pads", format!("at most {full} together"), found)
                    })?,
            });
        }
        Ok(output)
    }
}

impl Operator for ConvTranspose {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", TYPES)?;
        inputs.data_type_of(1, "W", &[data_type])?;
        let (x, w) = (inputs.required(0, "X")?, inputs.required(1, "W")?);
        let channels = |w: &[Dim]| match &w[1] {
            Dim::Known(n) => n.checked_mul(self.groups).map_or(Dim::Unknown, Dim::Known),
            _ => Dim::Unknown,
        };
        let dims = output_dims(x, w, channels, |x, w| self.geometry(x, w))?;
        check_bias(inputs, dims.as_ref().and_then(|d| d[1].known()))?;
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let geometry = self.geometry(ctx.input_shape(0, "X")?, ctx.input_shape(1, "W")?)?;
        let floats = |env: &Env, [x, w, bias, _]: [Option<&[f32]>; 4], output: &mut [f32]| {
            let (Some(input), Some(weights)) = (x, w) else {
                return;
            };
            let convolution = TransposedConvolution {
                geometry: &geometry,
                input,
                weights,
                bias,
                activation: Default::default(),
                output,
            };
            convolve_transposed(env, convolution);
        };
        let doubles = |[x, w, b, _]: [Option<&[f64]>; 4], y: &mut [f64]| {
            let (Some(x), Some(w)) = (x, w) else { return };
            spread_doubles(&geometry, x, w, b, y);
        };
        by_type(ctx, floats, doubles)
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use super::*;
    use crate::tensor::Tensor;

    fn numbers(shape: &[usize], seed: usize) -> Vec<f64> {
        let count: usize = shape.iter().product();
        (0..count)
            .map(|i| ((i * 5 + seed) % 7) as f64 - 3.0)
            .collect()
    }

    fn as_type(
        case: &Case,
        shapes: [&[usize]; 3],
        data_type: DataType,
    ) -> Result<Vec<f64>, OpError> {
        let cast = |t: &Tensor, to: DataType| {
            Case::of("Cast", 13)
                .int("to", to as i64)
                .one(std::slice::from_ref(t))
        };
        let inputs = [0, 1, 2].map(|i| {
            cast(&tensor(shapes[i], &numbers(shapes[i], i + 1)), data_type).expect("casts")
        });
        let found = case.one(&inputs)?;
        let found = cast(&found, DataType::Float64).expect("casts");
        Ok(found.as_slice::<f64>().expect("f64").to_vec())
    }

    #[test]
    fn every_type_gives_the_same_small_integers() {
        let cases: &[(&str, &[usize], &[usize], usize, i64)] = &[
            ("Conv", &[2, 2, 5], &[4, 1, 3], 4, 2),
            ("Conv", &[1, 3, 4, 5], &[2, 3, 2, 3], 2, 1),
            ("ConvTranspose", &[1, 2, 3, 4], &[2, 3, 2, 3], 3, 1),
            ("ConvTranspose", &[2, 4, 3], &[4, 1, 2], 2, 2),
        ];
        for &(op_type, x, w, channels, group) in cases {
            let ones = vec![1; x.len() - 2];
            let strides = vec![2; x.len() - 2];
            let pads = [ones.clone(), ones].concat();
            let op_type = if op_type == "Conv" {
                "Conv"
            } else {
                "ConvTranspose"
            };
            let case = Case::of(op_type, 22)
                .int("group", group)
                .ints("strides", &strides)
                .ints("pads", &pads);
            let shapes = [x, w, &[channels]];
            let doubles = as_type(&case, shapes, DataType::Float64).expect("fits");
            assert!(!doubles.is_empty());
            for data_type in [DataType::Float32, DataType::Float16, DataType::Bfloat16] {
                let found = as_type(&case, shapes, data_type).expect("fits");
                assert_eq!(found, doubles, "{op_type} {x:?} {w:?} {data_type}");
            }
        }
    }

    #[test]
    fn conv_slides_and_pads() {
        let x = tensor(&[1, 1, 3, 3], &[1f32, 2., 3., 4., 5., 6., 7., 8., 9.]);
        let w = tensor(&[1, 1, 2, 2], &[1f32; 4]);
        let case = Case::of("Conv", 11);
        let expected = tensor(&[1, 1, 2, 2], &[12f32, 16., 24., 28.]);
        assert_eq!(case.one(&[x.clone(), w.clone()]), Ok(expected));
        let upper = case
            .clone()
            .text("auto_pad", "SAME_UPPER")
            .one(&[x.clone(), w.clone()]);
        let expected = [12f32, 16., 9., 24., 28., 15., 15., 17., 9.];
        assert_eq!(upper, Ok(tensor(&[1, 1, 3, 3], &expected)));
        let lower = case
            .clone()
            .text("auto_pad", "SAME_LOWER")
            .one(&[x.clone(), w.clone()]);
        let expected = [1f32, 3., 5., 5., 12., 16., 11., 24., 28.];
        assert_eq!(lower, Ok(tensor(&[1, 1, 3, 3], &expected)));
        assert!(
            case.clone()
                .ints("kernel_shape", &[3, 3])
                .one(&[x.clone(), w.clone()])
                .is_err()
        );
        assert!(
            case.clone()
                .ints("pads", &[1, 1])
                .one(&[x.clone(), w.clone()])
                .is_err()
        );
        assert!(
            case.clone()
                .ints("strides", &[0, 1])
                .one(&[x.clone(), w.clone()])
                .is_err()
        );
        assert!(
            case.clone()
                .ints("pads", &[i64::MAX; 4])
                .one(&[x.clone(), w.clone()])
                .is_err()
        );
        assert!(case.clone().int("group", 0).one(&[x.clone(), w]).is_err());
        assert!(
            case.one(&[x.clone(), tensor(&[1, 2, 2, 2], &[1f32; 8])])
                .is_err()
        );
        assert!(case.one(&[x, tensor(&[1, 1, 4, 4], &[1f32; 16])]).is_err());
    }

    #[test]
    fn fused_convolutions_add_and_activate() {
        let x = tensor(&[1, 1, 3], &[1f32, -2., 3.]);
        let w = tensor(&[1, 1, 1], &[1f32]);
        let inputs = [
            x,
            w,
            tensor(&[1], &[1f32]),
            tensor(&[1, 1, 3], &[0f32, 0., -9.]),
        ];
        let case = Case::in_domain("ai.lethe", "FusedConv", 1);
        let found = case.clone().text("activation", "Relu").one(&inputs);
        assert_eq!(found, Ok(tensor(&[1, 1, 3], &[2f32, 0., 0.])));
        let found = case
            .text("activation", "Sigmoid")
            .one(&inputs)
            .expect("fits");
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for (y, x) in found
            .as_slice::<f32>()
            .expect("f32")
            .iter()
            .zip([2f32, -1., -5.])
        {
            assert!((y - sigmoid(x)).abs() < 1e-6);
        }
    }

    #[test]
    fn transposed_convolutions_choose_padding_for_a_given_shape() {
        let x = tensor(&[1, 1, 3], &[1f32, 2., 3.]);
        let w = tensor(&[1, 1, 3], &[1f32, 1., 1.]);
        let case = Case::of("ConvTranspose", 11).ints("strides", &[2]);
        let full = case.one(&[x.clone(), w.clone()]);
        assert_eq!(
            full,
            Ok(tensor(&[1, 1, 7], &[1f32, 1., 3., 2., 5., 3., 3.]))
        );
        let cut = case
            .clone()
            .ints("output_shape", &[6])
            .one(&[x.clone(), w.clone()]);
        assert_eq!(cut, Ok(tensor(&[1, 1, 6], &[1f32, 3., 2., 5., 3., 3.])));
        let same = case.text("auto_pad", "SAME_UPPER").one(&[x, w]);
        assert_eq!(same, Ok(tensor(&[1, 1, 6], &[1f32, 1., 3., 2., 5., 3.])));
    }
}
