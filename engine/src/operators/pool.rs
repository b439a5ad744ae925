//! Pools: the largest, the average or the norm of the elements under a sliding window, or of a
//! whole image.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__MaxPool.html> (opsets 1 to 22; indices since 8),
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>,
//! <https://onnx.ai/onnx/operators/onnx__LpPool.html>, and their `Global` forms.
//! Shapes: `X: [N, C, in..]` → `Y: [N, C, out..]`, with up to three spatial axes; the global ones
//! any number, each of size 1 in `Y`. A maximum skips NaN. Types: f32, f16, bf16, f64; `MaxPool` also int8 and uint8.

use half::{bf16, f16};
use std::ops::Range;

use super::window::{WindowAttributes, geometry_error};
use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::convolution::Geometry;
use crate::kernels::pooling::{self, Pooling};
use crate::limits::Watch;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Element, Shape};

/// How elements become one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reduction {
    Max,
    /// Whether padding counts as elements.
    Average {
        padding_counts: bool,
    },
    /// `(Σ |x|^p)^(1/p)`
    Norm {
        p: f64,
    },
}

/// A pool with a window.
#[derive(Debug)]
pub(super) struct Pool {
    window: WindowAttributes,
    round_up: bool,
    column_major_indices: bool,
    reduction: Reduction,
}

/// `MaxPool`.
pub(super) struct MaxPool;
/// `AveragePool`.
pub(super) struct AveragePool;
/// `LpPool`.
pub(super) struct LpPool;

/// A pool over whole images.
#[derive(Debug)]
pub(super) struct GlobalPool {
    reduction: Reduction,
}

/// `GlobalMaxPool`.
pub(super) struct GlobalMaxPool;
/// `GlobalAveragePool`.
pub(super) struct GlobalAveragePool;
/// `GlobalLpPool`.
pub(super) struct GlobalLpPool;

impl Pool {
    fn parse_with(node: &Attributes, reduction: Reduction) -> Result<Self, OpError> {
        Ok(Self {
            window: WindowAttributes::parse(node)?,
            round_up: node.flag_or("ceil_mode", false)?,
            column_major_indices: node.flag_or("storage_order", false)?,
            reduction,
        })
    }

    fn geometry(&self, image: &[usize]) -> Result<Geometry, OpError> {
        let window = self.window.over(image.get(2..).unwrap_or(&[]), None)?;
        Geometry::pooling(image, window.as_window(), self.round_up).map_err(geometry_error(image))
    }
}

/// The exponent, a float in opset 1.
fn exponent(node: &Attributes) -> Result<Reduction, OpError> {
    use crate::graph::attributes::Attribute;
    let p = match node.get("p") {
        None => 2.0,
        Some(Attribute::Float(p)) => f64::from(*p),
        Some(_) => *node.int("p")? as f64,
    };
    match p > 0.0 {
        true => Ok(Reduction::Norm { p }),
        false => Err(OpError::value("p", "a number above 0", p)),
    }
}

impl MaxPool {
    pub(super) fn parse(node: &Attributes) -> Result<Pool, OpError> {
        Pool::parse_with(node, Reduction::Max)
    }
}

impl AveragePool {
    pub(super) fn parse(node: &Attributes) -> Result<Pool, OpError> {
        let padding_counts = node.flag_or("count_include_pad", false)?;
        Pool::parse_with(node, Reduction::Average { padding_counts })
    }
}

impl LpPool {
    pub(super) fn parse(node: &Attributes) -> Result<Pool, OpError> {
        Pool::parse_with(node, exponent(node)?)
    }
}

impl GlobalMaxPool {
    pub(super) fn parse(_: &Attributes) -> Result<GlobalPool, OpError> {
        let reduction = Reduction::Max;
        Ok(GlobalPool { reduction })
    }
}

impl GlobalAveragePool {
    pub(super) fn parse(_: &Attributes) -> Result<GlobalPool, OpError> {
        let reduction = Reduction::Average {
            padding_counts: false,
        };
        Ok(GlobalPool { reduction })
    }
}

impl GlobalLpPool {
    pub(super) fn parse(node: &Attributes) -> Result<GlobalPool, OpError> {
        let reduction = exponent(node)?;
        Ok(GlobalPool { reduction })
    }
}

const FLOATS: &[DataType] = &[
    DataType::Float32,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Float64,
];
const MAX_TYPES: &[DataType] = &[
    DataType::Float32,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Float64,
    DataType::Int8,
    DataType::Uint8,
];

/// Elements of padding, whatever the size of the image, with which a channel is still copied.
const MOST_PADDING: usize = 1 << 16;

impl Reduction {
    fn of_f32(self) -> Pooling {
        match self {
            Self::Max => Pooling::Max,
            Self::Average { padding_counts } => Pooling::Average {
                count_include_pad: padding_counts,
            },
            Self::Norm { p } => Pooling::Lp { p: p as f32 },
        }
    }

    fn types(self) -> &'static [DataType] {
        match self {
            Self::Max => MAX_TYPES,
            _ => FLOATS,
        }
    }
}

fn too_few_axes(dims: &[Dim]) -> OpError {
    OpError::shape("X", "[N, C, in..]", display_dims(Some(dims)))
}

impl Operator for Pool {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", self.reduction.types())?;
        let dims = match inputs.required(0, "X")?.dims {
            None => None,
            Some(image) if image.len() < 3 => return Err(too_few_axes(image)),
            Some(image) => {
                let mut dims = Dims::from_elem(Dim::Unknown, image.len());
                dims[..2].clone_from_slice(&image[..2]);
                // Images and channels are independent of each other.
                let plane: Option<Shape> = [Some(1), Some(1)]
                    .into_iter()
                    .chain(image[2..].iter().map(Dim::known))
                    .collect();
                if let Some(plane) = plane {
                    let geometry = self.geometry(&plane)?;
                    let spatial = &geometry.output[3 - (image.len() - 2)..];
                    for (dim, &size) in dims[2..].iter_mut().zip(spatial) {
                        *dim = Dim::Known(size);
                    }
                }
                Some(dims)
            }
        };
        Ok([
            OutputInfo::maybe(data_type, dims.clone()),
            OutputInfo::maybe(DataType::Int64, dims),
        ]
        .into_iter()
        .take(inputs.output_count().max(1))
        .collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let geometry = self.geometry(ctx.input_shape(0, "X")?)?;
        // The kernel copies each channel with its padding.
        let padding_is_small =
            geometry.reach().iter().product::<usize>() <= 8 * geometry.input_len() + MOST_PADDING;
        match ctx.input_type(0, "X")? {
            DataType::Float32 if !ctx.wants(1) && padding_is_small => {
                let env = ctx.env;
                let mut output = ctx.output(0)?;
                let x = ctx.input(0, "X")?.as_slice::<f32>()?;
                let y = output.as_mut_slice::<f32>()?;
                pooling::pool(env, &geometry, self.reduction.of_f32(), x, y);
                Ok(())
            }
            DataType::Float32 => self.planes::<f32>(ctx, &geometry),
            DataType::Float16 => self.planes::<f16>(ctx, &geometry),
            DataType::Bfloat16 => self.planes::<bf16>(ctx, &geometry),
            DataType::Float64 => self.planes::<f64>(ctx, &geometry),
            DataType::Int8 => self.planes::<i8>(ctx, &geometry),
            _ => self.planes::<u8>(ctx, &geometry),
        }
    }
}

/// An element that can be pooled; averages and norms are computed in the accumulator.
trait Pooled: Element + PartialOrd {
    type Sum: Accumulator;
    fn widen(self) -> Self::Sum;
    fn narrow(sum: Self::Sum) -> Self;
    fn is_nan(self) -> bool;
    /// Below every number.
    const LOWEST: Self;
}

trait Accumulator: Copy + std::ops::Add<Output = Self> + std::ops::Div<Output = Self> {
    const ZERO: Self;
    fn of_count(count: usize) -> Self;
    fn power(self, p: f64) -> Self;
    fn root(self, p: f64) -> Self;
}

macro_rules! accumulators {
    ($($t:ty: $abs_pow:expr, $root:expr;)*) => {$(
        impl Accumulator for $t {
            const ZERO: Self = 0.0;
            fn of_count(count: usize) -> Self {
                count as Self
            }
            fn power(self, p: f64) -> Self {
                match p {
                    1.0 => self.abs(),
                    2.0 => self * self,
                    p => $abs_pow(self.abs(), p as Self),
                }
            }
            fn root(self, p: f64) -> Self {
                match p {
                    1.0 => self,
                    2.0 => self.sqrt(),
                    p => $root(self, 1.0 / p as Self),
                }
            }
        }
    )*};
}

accumulators! {
    f32: libm::powf, libm::powf;
    f64: libm::pow, libm::pow;
}

macro_rules! pooled {
    ($($t:ty, $sum:ty, $widen:expr, $narrow:expr, $is_nan:expr, $lowest:expr;)*) => {$(
        impl Pooled for $t {
            type Sum = $sum;
            #[inline(always)]
            fn widen(self) -> $sum {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(sum: $sum) -> Self {
                $narrow(sum)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $is_nan(self)
            }
            const LOWEST: Self = $lowest;
        }
    )*};
}

pooled! {
    f32, f32, |x| x, |x| x, f32::is_nan, f32::NEG_INFINITY;
    f64, f64, |x| x, |x| x, f64::is_nan, f64::NEG_INFINITY;
    f16, f32, f16::to_f32, f16::from_f32, f16::is_nan, f16::NEG_INFINITY;
    bf16, f32, bf16::to_f32, bf16::from_f32, bf16::is_nan, bf16::NEG_INFINITY;
    i8, f32, f32::from, |x| x as i8, |_| false, i8::MIN;
    u8, f32, f32::from, |x| x as u8, |_| false, u8::MIN;
}

/// The taps of one axis for one window: how many of them are padding before the first one on the
/// image, and the image's places under the others.
fn taps_on_image(geometry: &Geometry, axis: usize, window: usize) -> (Range<usize>, usize) {
    let (dilation, begin) = (geometry.dilations[axis], geometry.pads_begin[axis]);
    let start = window * geometry.strides[axis];
    let first = begin.saturating_sub(start).div_ceil(dilation);
    let place = |tap: usize| (start + tap * dilation).saturating_sub(begin);
    let size = geometry.input[axis];
    let room = (size + begin).saturating_sub(start).div_ceil(dilation);
    let end = room.min(geometry.kernel[axis]).max(first);
    (first..end, place(first))
}

/// Taps of one axis that lie on the image or its padding.
fn taps_on_padded(geometry: &Geometry, axis: usize, window: usize) -> usize {
    let padded = geometry.input[axis] + geometry.pads_begin[axis] + geometry.pads_end[axis];
    let room = padded.saturating_sub(window * geometry.strides[axis]);
    room.div_ceil(geometry.dilations[axis])
        .min(geometry.kernel[axis])
}

impl Pool {
    fn planes<T: Pooled>(
        &self,
        ctx: &mut RunContext<'_>,
        geometry: &Geometry,
    ) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?.as_slice::<T>()?;
        let (plane_in, plane_out) = (geometry.input_len(), geometry.output_len());
        let mut indices = ctx.optional_output(1);
        let mut indices = match &mut indices {
            Some(view) => Some(view.as_mut_slice::<i64>()?),
            None => None,
        };
        let Some(mut output) = ctx.optional_output(0) else {
            return Ok(());
        };
        let y = output.as_mut_slice::<T>()?;
        if plane_out == 0 {
            return Ok(());
        }
        if let Some(indices) = &mut indices {
            let planes = y
                .chunks_exact_mut(plane_out)
                .zip(indices.chunks_exact_mut(plane_out));
            for (i, (y, indices)) in planes.enumerate() {
                let x = &x[i * plane_in..][..plane_in];
                self.plane(geometry, x, y, |out, place| {
                    indices[out] = (i * plane_in + self.index(geometry, place)) as i64;
                });
            }
            return Ok(());
        }
        // At least so many windows are worth another thread.
        let least = (1usize << 14).div_ceil(plane_out * geometry.taps());
        let group = ctx.env.threads.piece_len(y.len() / plane_out, least, 1);
        ctx.env
            .threads
            .for_each_chunk_mut(y, group * plane_out, |g, y| {
                for (i, y) in y.chunks_exact_mut(plane_out).enumerate() {
                    let x = &x[(g * group + i) * plane_in..][..plane_in];
                    self.plane(geometry, x, y, |_, _| {});
                }
            });
        Ok(())
    }

    /// The index that the standard gives a place of a plane.
    fn index(&self, geometry: &Geometry, place: usize) -> usize {
        if !self.column_major_indices {
            return place;
        }
        let [depth, height, width] = geometry.input;
        let (d, h, w) = (
            place / width / height,
            place / width % height,
            place % width,
        );
        d + depth * (h + height * w)
    }

    /// One channel of one image; `chosen(out, place)` is told which element was the largest.
    #[inline(always)]
    fn plane<T: Pooled>(
        &self,
        geometry: &Geometry,
        x: &[T],
        y: &mut [T],
        mut chosen: impl FnMut(usize, usize),
    ) {
        let [_, height, width] = geometry.input;
        let [out_depth, out_height, out_width] = geometry.output;
        let [_, dilation_h, dilation_w] = geometry.dilations;
        let mut watch = Watch::begin();
        let mut out = 0;
        for d in 0..out_depth {
            let (taps_d, place_d) = taps_on_image(geometry, 0, d);
            for h in 0..out_height {
                let (taps_h, place_h) = taps_on_image(geometry, 1, h);
                for w in 0..out_width {
                    let (taps_w, place_w) = taps_on_image(geometry, 2, w);
                    watch.count(taps_d.len() * taps_h.len() * taps_w.len());
                    let rows = (0..taps_d.len()).flat_map(|i| {
                        let d = place_d + i * geometry.dilations[0];
                        (0..taps_h.len())
                            .map(move |j| (d * height + place_h + j * dilation_h) * width + place_w)
                    });
                    let row = taps_w.len();
                    y[out] = match self.reduction {
                        Reduction::Max => {
                            let mut best = (T::LOWEST, None);
                            for start in rows {
                                for i in 0..row {
                                    let at = start + i * dilation_w;
                                    let value = x[at];
                                    if value > best.0 || best.1.is_none() && !value.is_nan() {
                                        best = (value, Some(at));
                                    }
                                }
                            }
                            chosen(out, best.1.unwrap_or(0));
                            best.0
                        }
                        Reduction::Average { padding_counts } => {
                            let mut sum = T::Sum::ZERO;
                            for start in rows {
                                for i in 0..row {
                                    sum = sum + x[start + i * dilation_w].widen();
                                }
                            }
                            let count = match padding_counts {
                                false => taps_d.len() * taps_h.len() * row,
                                true => {
                                    let padded = [(0, d), (1, h), (2, w)];
                                    padded
                                        .map(|(axis, i)| taps_on_padded(geometry, axis, i))
                                        .iter()
                                        .product()
                                }
                            };
                            T::narrow(sum / T::Sum::of_count(count))
                        }
                        Reduction::Norm { p } => {
                            let mut sum = T::Sum::ZERO;
                            for start in rows {
                                for i in 0..row {
                                    sum = sum + x[start + i * dilation_w].widen().power(p);
                                }
                            }
                            T::narrow(sum.root(p))
                        }
                    };
                    out += 1;
                }
            }
        }
    }
}

impl Operator for GlobalPool {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", FLOATS)?;
        let dims = match inputs.required(0, "X")?.dims {
            None => None,
            Some(image) if image.len() < 2 => return Err(too_few_axes(image)),
            Some(image) => {
                let mut dims = Dims::from_elem(Dim::Known(1), image.len());
                dims[..2].clone_from_slice(&image[..2]);
                Some(dims)
            }
        };
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        match ctx.input_type(0, "X")? {
            DataType::Float32 => {
                let env = ctx.env;
                let mut output = ctx.output(0)?;
                let view = ctx.input(0, "X")?;
                let channel_len = view.shape()[2..].iter().product();
                let (x, y) = (view.as_slice::<f32>()?, output.as_mut_slice::<f32>()?);
                pooling::pool_global(env, self.reduction.of_f32(), channel_len, x, y);
                Ok(())
            }
            DataType::Float16 => self.images::<f16>(ctx),
            DataType::Bfloat16 => self.images::<bf16>(ctx),
            _ => self.images::<f64>(ctx),
        }
    }
}

/// Sums that are kept side by side, so that a sum's error stays small and the loop is wide.
const LANES: usize = 16;

impl GlobalPool {
    fn images<T: Pooled>(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let view = ctx.input(0, "X")?;
        let x = view.as_slice::<T>()?;
        let plane: usize = view.shape()[2..].iter().product();
        let mut output = ctx.output(0)?;
        for (i, y) in output.as_mut_slice::<T>()?.iter_mut().enumerate() {
            let x = &x[i * plane..][..plane];
            *y = match self.reduction {
                Reduction::Max => x.iter().fold(
                    T::LOWEST,
                    |best, &value| {
                        if value > best { value } else { best }
                    },
                ),
                Reduction::Average { .. } => T::narrow(sum(x, T::widen) / T::Sum::of_count(plane)),
                Reduction::Norm { p } => T::narrow(sum(x, |v| v.widen().power(p)).root(p)),
            };
        }
        Ok(())
    }
}

fn sum<T: Pooled>(x: &[T], term: impl Fn(T) -> T::Sum) -> T::Sum {
    let mut sums = [T::Sum::ZERO; LANES];
    for chunk in x.chunks(LANES) {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum = *sum + term(value);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] = sums[i] + sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use crate::graph::attributes::Attribute;
    use crate::tensor::Tensor;

    fn image() -> Tensor {
        tensor(
            &[1, 1, 4, 4],
            &(1..=16).map(|i| i as f32).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn max_pool_gives_values_and_indices() {
        let case = Case::of("MaxPool", 12)
            .ints("kernel_shape", &[2, 2])
            .ints("strides", &[2, 2])
            .outputs(2);
        let found = case.tensors(&[image()]);
        let values = tensor(&[1, 1, 2, 2], &[6f32, 8., 14., 16.]);
        assert_eq!(
            found,
            Ok(vec![
                values.clone(),
                tensor(&[1, 1, 2, 2], &[5i64, 7, 13, 15])
            ])
        );
        let found = case.int("storage_order", 1).tensors(&[image()]);
        assert_eq!(
            found,
            Ok(vec![values, tensor(&[1, 1, 2, 2], &[5i64, 13, 7, 15])])
        );
        let bytes = tensor(&[1, 1, 3], &[-3i8, -1, -2]);
        let found = Case::of("MaxPool", 12)
            .ints("kernel_shape", &[2])
            .ints("pads", &[1, 0])
            .one(&[bytes]);
        assert_eq!(found, Ok(tensor(&[1, 1, 3], &[-3i8, -1, -1])));
    }

    #[test]
    fn average_pool_counts_padding_when_told() {
        let x = tensor(&[1, 1, 3], &[3f32, 6., 9.]);
        let case = Case::of("AveragePool", 11)
            .ints("kernel_shape", &[3])
            .ints("pads", &[1, 1]);
        assert_eq!(
            case.one(&[x.clone()]),
            Ok(tensor(&[1, 1, 3], &[4.5f32, 6., 7.5]))
        );
        let all = case.int("count_include_pad", 1);
        assert_eq!(all.one(&[x]), Ok(tensor(&[1, 1, 3], &[3f32, 6., 5.])));
    }

    #[test]
    fn rounding_up_adds_a_window_that_starts_on_the_image() {
        let case = Case::of("MaxPool", 12)
            .ints("kernel_shape", &[3, 3])
            .ints("strides", &[2, 2]);
        let up = case.clone().int("ceil_mode", 1).one(&[image()]);
        assert_eq!(up, Ok(tensor(&[1, 1, 2, 2], &[11f32, 12., 15., 16.])));
        assert_eq!(case.one(&[image()]), Ok(tensor(&[1, 1, 1, 1], &[11f32])));
    }

    #[test]
    fn norms_have_an_exponent() {
        let x = tensor(&[1, 1, 2], &[3f32, -4.]);
        let pool = |p| {
            Case::of("LpPool", 11)
                .ints("kernel_shape", &[2])
                .int("p", p)
                .one(&[x.clone()])
        };
        assert_eq!(pool(2), Ok(tensor(&[1, 1, 1], &[5f32])));
        assert_eq!(pool(1), Ok(tensor(&[1, 1, 1], &[7f32])));
        assert!(pool(0).is_err());
        let first = Case::of("LpPool", 1)
            .ints("kernel_shape", &[2])
            .with("p", Attribute::Float(2.0));
        assert_eq!(first.one(&[x.clone()]), Ok(tensor(&[1, 1, 1], &[5f32])));
        assert_eq!(
            Case::of("GlobalLpPool", 2).one(&[x]),
            Ok(tensor(&[1, 1, 1], &[5f32]))
        );
    }

    #[test]
    fn global_pools_reduce_whole_images() {
        let x = tensor(&[1, 2, 1, 2], &[1f32, 3., -5., -7.]);
        let found = Case::of("GlobalAveragePool", 1).one(&[x.clone()]);
        assert_eq!(found, Ok(tensor(&[1, 2, 1, 1], &[2f32, -6.])));
        let found = Case::of("GlobalMaxPool", 1).one(&[x]);
        assert_eq!(found, Ok(tensor(&[1, 2, 1, 1], &[3f32, -5.])));
    }

    #[test]
    fn maxima_skip_nan_whatever_the_type_and_the_path() {
        let x = [f32::NAN, 1., 2., f32::NAN, f32::NAN, -3.];
        let halves = x.map(half::f16::from_f32);
        let case = Case::of("MaxPool", 12).ints("kernel_shape", &[2]);
        let want = [1f32, 2., 2., f32::NEG_INFINITY, -3.];
        let found = case.one(&[tensor(&[1, 1, 6], &x)]);
        assert_eq!(found, Ok(tensor(&[1, 1, 5], &want)));
        let found = case.one(&[tensor(&[1, 1, 6], &halves)]);
        let want = want.map(half::f16::from_f32);
        assert_eq!(found, Ok(tensor(&[1, 1, 5], &want)));
        let found = case.outputs(2).tensors(&[tensor(&[1, 1, 6], &halves)]);
        let places = tensor(&[1, 1, 5], &[1i64, 2, 2, 0, 5]);
        assert_eq!(found.map(|y| y[1].clone()), Ok(places));
        let global = Case::of("GlobalMaxPool", 1);
        let found = global.one(&[tensor(&[1, 1, 6], &x)]);
        assert_eq!(found, Ok(tensor(&[1, 1, 1], &[2f32])));
        let found = global.one(&[tensor(&[1, 1, 6], &halves)]);
        assert_eq!(found, Ok(tensor(&[1, 1, 1], &[half::f16::from_f32(2.)])));
    }

    #[test]
    fn hostile_windows_are_errors() {
        let case = Case::of("MaxPool", 12);
        assert!(case.one(&[image()]).is_err());
        for kernel in [&[0, 1][..], &[5, 5], &[2], &[-1, 2], &[i64::MAX, 2]] {
            let found = case.clone().ints("kernel_shape", kernel).one(&[image()]);
            assert!(found.is_err(), "{kernel:?}");
        }
        let flat = tensor(&[1, 2], &[1f32, 2.]);
        assert!(case.ints("kernel_shape", &[]).one(&[flat]).is_err());
    }
}
