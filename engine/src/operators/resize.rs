//! `Resize` and `Upsample`: a tensor sampled at other places along some axes.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Resize.html> (opsets 10, 11, 13, 18, 19),
//! <https://onnx.ai/onnx/operators/onnx__Upsample.html> (7 with an attribute, 9).
//! Shapes: `X: [n]` → `Y: [floor(n · scale)]`, or what `sizes` say. Types: numbers; `nearest` any.
//!
//! Every mode works along one axis after another: each output index is a sum of a few weighted
//! input indices ([`taps`]).

mod taps;

use smallvec::SmallVec;

use self::taps::{Coordinates, Interpolation, NearestRounding, Taps};
use super::axes::{at_most, axis_set, normalize_axis};
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::conversion::{SmallFloatRounding, convert};
use crate::limits::{self, Watch};
use crate::operator::{InferContext, InputInfo, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Buffer, DataType, Shape, TensorView, TensorViewMut};

/// Axes of this size and more would need tables beyond any image.
const LARGEST_SIZE: i64 = 1 << 31;

/// Where the sizes of the output come from.
#[derive(Debug, Clone)]
enum Sizes {
    /// Scales as an attribute.
    Attribute(Vec<f32>),
    /// Scales as the input of this index.
    Scales(usize),
    /// Scales or sizes, inputs 2 and 3, whichever is there.
    Either,
}

/// What sizes that are given for several axes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AspectRatio {
    Stretch,
    NotLarger,
    NotSmaller,
}

/// The operator.
#[derive(Debug)]
pub(super) struct Resize {
    sizes: Sizes,
    interpolation: Interpolation,
    axes: Option<Vec<i64>>,
    aspect_ratio: AspectRatio,
    extrapolation_value: f32,
}

/// `Resize` of opset 10.
pub(super) struct ResizeByScales;
/// `Upsample` of opset 7.
pub(super) struct UpsampleByAttribute;
/// `Upsample` of opset 9.
pub(super) struct Upsample;

/// Old operators: corners coincide at the origin and indices are cut off.
fn simple(node: &Attributes, sizes: Sizes) -> Result<Resize, OpError> {
    let mode = node.string_or("mode", "nearest")?;
    Ok(Resize {
        sizes,
        interpolation: Interpolation {
            coordinates: Coordinates::Asymmetric,
            rounding: NearestRounding::Floor,
            ..Interpolation::new(mode)?
        },
        axes: None,
        aspect_ratio: AspectRatio::Stretch,
        extrapolation_value: 0.0,
    })
}

impl ResizeByScales {
    pub(super) fn parse(node: &Attributes) -> Result<Resize, OpError> {
        simple(node, Sizes::Scales(1))
    }
}

impl Upsample {
    pub(super) fn parse(node: &Attributes) -> Result<Resize, OpError> {
        simple(node, Sizes::Scales(1))
    }
}

impl UpsampleByAttribute {
    pub(super) fn parse(node: &Attributes) -> Result<Resize, OpError> {
        simple(node, Sizes::Attribute(node.floats("scales")?.to_vec()))
    }
}

impl Resize {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let mode = node.string_or("mode", "nearest")?;
        let policy = node.string_or("keep_aspect_ratio_policy", "stretch")?;
        Ok(Self {
            sizes: Sizes::Either,
            interpolation: Interpolation {
                coordinates: Coordinates::parse(
                    node.string_or("coordinate_transformation_mode", "half_pixel")?,
                )?,
                rounding: NearestRounding::parse(
                    node.string_or("nearest_mode", "round_prefer_floor")?,
                )?,
                cubic_coefficient: node.float_or("cubic_coeff_a", -0.75)?.into(),
                exclude_outside: node.flag_or("exclude_outside", false)?,
                antialias: node.flag_or("antialias", false)?,
                ..Interpolation::new(mode)?
            },
            axes: node.optional_ints("axes")?.map(<[i64]>::to_vec),
            aspect_ratio: match policy {
                "stretch" => AspectRatio::Stretch,
                "not_larger" => AspectRatio::NotLarger,
                "not_smaller" => AspectRatio::NotSmaller,
                other => {
                    return Err(OpError::Attribute {
                        name: "keep_aspect_ratio_policy".into(),
                        expected: "stretch, not_larger or not_smaller".into(),
                        found: other.into(),
                    });
                }
            },
            extrapolation_value: node.float_or("extrapolation_value", 0.0)?,
        })
    }

    /// The axes that scales and sizes are for, in their order.
    fn axes(&self, rank: usize) -> Result<SmallVec<[usize; 8]>, OpError> {
        match &self.axes {
            None => Ok((0..rank).collect()),
            Some(axes) => {
                axis_set(axes, rank)?;
                axes.iter()
                    .map(|&axis| normalize_axis(axis, rank))
                    .collect()
            }
        }
    }

    /// The size of each axis of the output and the scale it comes from.
    fn outputs(
        &self,
        shape: &[usize],
        scales: Option<&[f32]>,
        sizes: Option<&[i64]>,
    ) -> Result<SmallVec<[(usize, f64); 8]>, OpError> {
        let axes = self.axes(shape.len())?;
        let mut outputs: SmallVec<[(usize, f64); 8]> = shape.iter().map(|&n| (n, 1.0)).collect();
        let check = |name: &str, len: usize| match len == axes.len() {
            true => Ok(()),
            false => Err(OpError::value(name, format!("{} numbers", axes.len()), len)),
        };
        match (scales, sizes) {
            (Some(scales), None) => {
                check("scales", scales.len())?;
                for (&axis, &scale) in axes.iter().zip(scales) {
                    // In the scale's own precision: 0.7 of 10 are 7, though no float is 0.7.
                    let size = f64::from((scale * shape[axis] as f32).floor());
                    if scale.is_nan() || scale <= 0.0 || size >= LARGEST_SIZE as f64 {
                        return Err(OpError::value(
                            "scales",
                            "numbers above 0 that give sizes below 2^31",
                            scale,
                        ));
                    }
                    outputs[axis] = (size as usize, scale.into());
                }
            }
            (None, Some(sizes)) => {
                check("sizes", sizes.len())?;
                if let Some(bad) = sizes.iter().find(|&&n| !(0..LARGEST_SIZE).contains(&n)) {
                    return Err(OpError::value("sizes", "sizes from 0 to 2^31", bad));
                }
                let scale =
                    |(&axis, &size): (&usize, &i64)| size as f64 / shape[axis].max(1) as f64;
                let all = axes.iter().zip(sizes).map(scale);
                let common = match self.aspect_ratio {
                    AspectRatio::Stretch => None,
                    AspectRatio::NotLarger => all.reduce(f64::min),
                    AspectRatio::NotSmaller => all.reduce(f64::max),
                };
                for (&axis, &size) in axes.iter().zip(sizes) {
                    outputs[axis] = match common {
                        None => (at_most(size), scale((&axis, &size))),
                        Some(scale) => {
                            let size = (scale * shape[axis] as f64 + 0.5).floor() as usize;
                            (size, scale)
                        }
                    };
                }
            }
            _ => {
                return Err(OpError::value(
                    "scales and sizes",
                    "one of them",
                    "both or none",
                ));
            }
        }
        Ok(outputs)
    }

    /// The inputs that say sizes, where they are known.
    fn inferred(
        &self,
        inputs: &InferContext<'_>,
        shape: &[usize],
    ) -> Result<Option<SmallVec<[(usize, f64); 8]>>, OpError> {
        let present = |i: usize| -> Option<InputInfo<'_>> {
            inputs
                .optional(i)
                .filter(|v| v.shape().is_none_or(|s| s[..] != [0]))
        };
        match &self.sizes {
            Sizes::Attribute(scales) => self.outputs(shape, Some(scales), None).map(Some),
            Sizes::Scales(i) => match inputs.required(*i, "scales")?.value {
                Some(scales) => self
                    .outputs(shape, Some(scales.as_slice()?), None)
                    .map(Some),
                None => Ok(None),
            },
            Sizes::Either => {
                let (scales, sizes) = (present(2), present(3));
                let known = |v: &Option<InputInfo<'_>>| v.is_none_or(|v| v.value.is_some());
                if !known(&scales) || !known(&sizes) {
                    return Ok(None);
                }
                let scales = scales.and_then(|v| v.value);
                let sizes = sizes
                    .and_then(|v| v.value)
                    .map(|v| v.to_i64s())
                    .transpose()?;
                let scales = scales.map(|v| v.as_slice::<f32>()).transpose()?;
                self.outputs(shape, scales, sizes.as_deref()).map(Some)
            }
        }
    }

    /// The region that `tf_crop_and_resize` samples: starts and ends of every axis.
    fn region(&self, ctx: &RunContext<'_>, rank: usize) -> Result<Vec<(f64, f64)>, OpError> {
        let mut region = limits::filled((0.0, 1.0), rank);
        if self.interpolation.coordinates != Coordinates::CropAndResize {
            return Ok(region);
        }
        let Some(roi) = ctx.optional_input(1)? else {
            return Err(OpError::MissingInput { input: "roi" });
        };
        let mut bytes = Buffer::try_zeroed(roi.len() * 8)?;
        let mut wide = TensorViewMut::from_bytes(DataType::Float64, roi.shape(), &mut bytes);
        convert(roi, &mut wide, SmallFloatRounding::default())?;
        let roi = wide.as_mut_slice::<f64>()?;
        let axes = self.axes(rank)?;
        if roi.len() != 2 * axes.len() {
            let expected = format!("{} numbers", 2 * axes.len());
            return Err(OpError::value("roi", expected, roi.len()));
        }
        for (i, &axis) in axes.iter().enumerate() {
            region[axis] = (roi[i], roi[axes.len() + i]);
        }
        Ok(region)
    }
}

impl Operator for Resize {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let x = inputs.required(0, "X")?;
        let data_type = x.data_type()?;
        let dims = match (x.dims, x.shape()) {
            (_, Some(shape)) => match self.inferred(inputs, &shape)? {
                Some(outputs) => Some(outputs.iter().map(|o| Dim::Known(o.0)).collect()),
                None => Some(Dims::from_elem(Dim::Unknown, shape.len())),
            },
            (Some(dims), None) => Some(Dims::from_elem(Dim::Unknown, dims.len())),
            (None, _) => None,
        };
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let given = |i: usize| Ok::<_, OpError>(ctx.optional_input(i)?.filter(|v| !v.is_empty()));
        let outputs = match &self.sizes {
            Sizes::Attribute(scales) => self.outputs(x.shape(), Some(scales), None)?,
            Sizes::Scales(i) => {
                self.outputs(x.shape(), Some(ctx.input(*i, "scales")?.as_slice()?), None)?
            }
            Sizes::Either => {
                let scales = given(2)?.map(|v| v.as_slice::<f32>()).transpose()?;
                let sizes = given(3)?.map(|v| v.to_i64s()).transpose()?;
                self.outputs(x.shape(), scales, sizes.as_deref())?
            }
        };
        let region = self.region(ctx, x.rank())?;
        let shape: Shape = outputs.iter().map(|o| o.0).collect();
        if x.is_empty() && !shape.contains(&0) {
            return Err(OpError::shape(
                "X",
                "elements to sample",
                format!("{:?}", x.shape()),
            ));
        }
        let taps: Vec<Taps> = outputs
            .iter()
            .zip(x.shape())
            .zip(&region)
            .map(|((&(to, scale), &from), &region)| {
                self.interpolation.taps(from, to, scale, region)
            })
            .collect();
        let all_inside = taps.iter().all(|t| t.outside.iter().all(|o| !o));
        if self.interpolation.is_nearest() && all_inside {
            return rearrange(
                ctx,
                &[x],
                0,
                &shape,
                Nearest {
                    from: x.shape(),
                    to: &shape,
                    taps: &taps,
                },
            );
        }
        let Some(mut output) = ctx.optional_output(0) else {
            return Ok(());
        };
        let values = interpolated(x, &shape, &taps, self.extrapolation_value.into())?;
        let view = TensorView::from_bytes(DataType::Float64, &shape, bytemuck::cast_slice(&values));
        convert(view, &mut output, SmallFloatRounding::default())
    }
}

/// One input index for each output index of each axis.
struct Nearest<'a> {
    from: &'a [usize],
    to: &'a [usize],
    taps: &'a [Taps],
}

impl Rearrange for Nearest<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        let Some((&width, outer)) = self.to.split_last() else {
            output.clone_from_slice(inputs[0]);
            return Ok(());
        };
        if output.is_empty() {
            return Ok(());
        }
        let strides = crate::tensor::row_major_strides(self.from);
        let last = &self.taps[outer.len()];
        let mut watch = Watch::begin();
        for (i, row) in output.chunks_exact_mut(width).enumerate() {
            watch.count(4 * (width + outer.len()));
            let (mut rest, mut base) = (i, 0);
            for (axis, &size) in outer.iter().enumerate().rev() {
                base += self.taps[axis].of(rest % size)[0].0 * strides[axis];
                rest /= size;
            }
            for (j, to) in row.iter_mut().enumerate() {
                *to = inputs[0][base + last.of(j)[0].0].clone();
            }
        }
        Ok(())
    }
}

/// Sums of weighted elements along one axis after another, in f64.
fn interpolated(
    x: TensorView<'_>,
    shape: &[usize],
    taps: &[Taps],
    extrapolation_value: f64,
) -> Result<Vec<f64>, OpError> {
    let mut bytes = Buffer::try_zeroed(x.len() * 8)?;
    let mut wide = TensorViewMut::from_bytes(DataType::Float64, x.shape(), &mut bytes);
    convert(x, &mut wide, SmallFloatRounding::default())?;
    let mut values = limits::copied(wide.as_mut_slice::<f64>()?);
    let mut sizes = Shape::from_slice(x.shape());
    let mut watch = Watch::begin();
    for (axis, taps) in taps.iter().enumerate() {
        if taps.is_identity {
            continue;
        }
        let (from, to) = (sizes[axis], shape[axis]);
        let inner: usize = sizes[axis + 1..].iter().product();
        let outer: usize = sizes[..axis].iter().product();
        let mut next = limits::zeroed(outer * to * inner);
        for (i, target) in next.chunks_exact_mut(inner.max(1)).enumerate() {
            let (o, index) = (i / to.max(1), i % to.max(1));
            for &(source, weight) in taps.of(index) {
                watch.count(inner + 8);
                let row = &values[(o * from + source) * inner..][..inner];
                target
                    .iter_mut()
                    .zip(row)
                    .for_each(|(t, v)| *t += weight * v);
            }
        }
        values = next;
        sizes[axis] = to;
    }
    let strides = crate::tensor::row_major_strides(shape);
    for (axis, taps) in taps.iter().enumerate() {
        if taps.outside.contains(&true) {
            for (i, value) in values.iter_mut().enumerate() {
                if taps.outside[i / strides[axis] % shape[axis]] {
                    *value = extrapolation_value;
                }
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};
    use crate::tensor::{Tensor, Value};

    fn resize(
        case: &Case,
        x: Tensor,
        scales: Option<&[f32]>,
        sizes: Option<&[i64]>,
    ) -> Option<Vec<f32>> {
        let scales = scales.map(|s| Value::from(tensor(&[s.len()], s)));
        let sizes = sizes.map(|s| Value::from(ints(s)));
        let found = case.run(&[Some(x.into()), None, scales, sizes]).ok()?;
        let found = found[0].as_tensor().expect("a tensor").clone();
        Some(found.as_slice::<f32>().expect("f32").to_vec())
    }

    fn row() -> Tensor {
        tensor(&[4], &[1f32, 2., 3., 4.])
    }

    #[test]
    fn resize_samples_between_elements() {
        let case = Case::of("Resize", 19);
        let nearest = resize(&case, row(), Some(&[0.5]), None);
        assert_eq!(nearest, Some(vec![1., 3.]));
        let linear = case.clone().text("mode", "linear");
        assert_eq!(
            resize(&linear, row(), None, Some(&[2])),
            Some(vec![1.5, 3.5])
        );
        let corners = linear.text("coordinate_transformation_mode", "align_corners");
        assert_eq!(
            resize(&corners, row(), None, Some(&[7])),
            Some(vec![1., 1.5, 2., 2.5, 3., 3.5, 4.])
        );
        let cubic = case.text("mode", "cubic");
        let same = resize(&cubic, row(), Some(&[1.0]), None);
        assert_eq!(same, Some(vec![1., 2., 3., 4.]));
    }

    #[test]
    fn sizes_are_counted_in_the_precision_of_scales() {
        // In double precision each product lies below the whole number that onnxruntime gives.
        for (len, scale, size) in [(10, 0.7f32, 7), (10, 0.9, 9), (5, 1.4, 7), (10, 0.25, 2)] {
            let x = tensor(&[len], &vec![1f32; len]);
            let found = resize(&Case::of("Resize", 19), x, Some(&[scale]), None);
            assert_eq!(found.map(|y| y.len()), Some(size), "{scale} of {len}");
        }
    }

    #[test]
    fn upsample_repeats() {
        let x = tensor(&[1, 2], &[5i32, 6]);
        let scales = tensor(&[2], &[1f32, 2.]);
        let found = Case::of("Upsample", 9).one(&[x, scales]);
        assert_eq!(found, Ok(tensor(&[1, 4], &[5, 5, 6, 6])));
    }

    #[test]
    fn hostile_sizes_are_errors() {
        let case = Case::of("Resize", 19);
        for scales in [
            &[0f32][..],
            &[-1.],
            &[f32::NAN],
            &[f32::INFINITY],
            &[1., 1.],
        ] {
            assert_eq!(resize(&case, row(), Some(scales), None), None, "{scales:?}");
        }
        assert_eq!(resize(&case, row(), None, Some(&[-1])), None);
        assert_eq!(resize(&case, row(), None, None), None);
        assert_eq!(
            resize(&case, tensor::<f32>(&[0], &[]), None, Some(&[2])),
            None
        );
        assert_eq!(
            resize(&case.text("mode", "psychic"), row(), Some(&[1.]), None),
            None
        );
    }
}
