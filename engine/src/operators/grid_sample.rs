//! `GridSample`: an image sampled at places that a grid gives.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__GridSample.html>, opsets 16, 20, 22.
//! Shapes: `X: [N, C, in..]`, `grid: [N, out.., r]` with one coordinate for each of the `r` spatial
//! axes, the last axis first, from -1 to 1 → `Y: [N, C, out..]`. Types: f32, f64, f16, bf16;
//! computed in f64.
//!
//! ```text
//! for each place of the grid: Y = Σ over neighbours of X · Π over axes of weight
//! ```

use smallvec::{SmallVec, smallvec};

use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Attributes, Dims};
use crate::kernels::conversion::{SmallFloatRounding, convert};
use crate::limits::{self, Watch};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Buffer, DataType, Shape, TensorView, TensorViewMut, row_major_strides};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What lies beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// The operator.
#[derive(Debug)]
pub(super) struct GridSample {
    mode: Mode,
    padding: Padding,
    align_corners: bool,
}

const TYPES: &[DataType] = &[
    DataType::Float32,
    DataType::Float64,
    DataType::Float16,
    DataType::Bfloat16,
];

impl GridSample {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let unknown = |name: &str, found: &str| OpError::Attribute {
            name: name.into(),
            expected: "a known name".into(),
            found: found.into(),
        };
        Ok(Self {
            mode: match node.string_or("mode", "linear")? {
                "nearest" => Mode::Nearest,
                "linear" | "bilinear" => Mode::Linear,
                "cubic" | "bicubic" => Mode::Cubic,
                other => return Err(unknown("mode", other)),
            },
            padding: match node.string_or("padding_mode", "zeros")? {
                "zeros" => Padding::Zeros,
                "border" => Padding::Border,
                "reflection" => Padding::Reflection,
                other => return Err(unknown("padding_mode", other)),
            },
            align_corners: node.flag_or("align_corners", false)?,
        })
    }

    /// The place on an axis of `size` elements that a coordinate names.
    fn place(&self, coordinate: f64, size: usize) -> f64 {
        let size = size as f64;
        match self.align_corners {
            true => (coordinate + 1.0) / 2.0 * (size - 1.0),
            false => ((coordinate + 1.0) * size - 1.0) / 2.0,
        }
    }

    /// The index that is seen at a whole place; `None` where nothing is.
    fn seen(&self, place: f64, size: usize) -> Option<usize> {
        let last = size as f64 - 1.0;
        let inside = (0.0..=last).contains(&place);
        match self.padding {
            _ if inside => Some(place as usize),
            Padding::Zeros => None,
            Padding::Border => Some(place.clamp(0.0, last) as usize),
            Padding::Reflection => Some(self.reflected(place, size).round() as usize),
        }
    }

    /// A place mirrored at the borders until it lies inside.
    fn reflected(&self, place: f64, size: usize) -> f64 {
        let (low, high) = match self.align_corners {
            true => (0.0, size as f64 - 1.0),
            false => (-0.5, size as f64 - 0.5),
        };
        let range = high - low;
        if range <= 0.0 || !place.is_finite() {
            return 0.0;
        }
        let at = (place - low).rem_euclid(2.0 * range);
        let mirrored = low + at.min(2.0 * range - at);
        mirrored.clamp(0.0, size as f64 - 1.0)
    }

    /// Indices and weights along one axis.
    fn taps(&self, coordinate: f64, size: usize) -> SmallVec<[(Option<usize>, f64); 4]> {
        let mut place = self.place(coordinate, size);
        if self.mode != Mode::Cubic {
            place = match self.padding {
                Padding::Zeros => place,
                Padding::Border => place.clamp(0.0, size as f64 - 1.0),
                Padding::Reflection => self.reflected(place, size),
            };
        }
        let tap = |at: f64, weight: f64| (self.seen(at, size), weight);
        let floor = place.floor();
        let fraction = place - floor;
        match self.mode {
            Mode::Nearest => smallvec![tap(place.round_ties_even(), 1.0)],
            Mode::Linear => smallvec![tap(floor, 1.0 - fraction), tap(floor + 1.0, fraction)],
            Mode::Cubic => (-1..3)
                .map(|i| tap(floor + f64::from(i), cubic(fraction - f64::from(i))))
                .collect(),
        }
    }
}

/// The cubic convolution kernel (Keys, 1981) with coefficient -0.75.
fn cubic(x: f64) -> f64 {
    let (a, x) = (-0.75, x.abs());
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

fn doubles(view: TensorView<'_>) -> Result<Vec<f64>, OpError> {
    let mut bytes = Buffer::try_zeroed(view.len() * 8)?;
    let mut wide = TensorViewMut::from_bytes(DataType::Float64, view.shape(), &mut bytes);
    convert(view, &mut wide, SmallFloatRounding::default())?;
    Ok(limits::copied(wide.as_mut_slice::<f64>()?))
}

impl Operator for GridSample {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", TYPES)?;
        inputs.data_type_of(1, "grid", TYPES)?;
        let (x, grid) = (inputs.required(0, "X")?, inputs.required(1, "grid")?);
        let dims = match (x.dims, grid.dims) {
            (Some(x), Some(grid)) => {
                let differ =
                    |a: Option<usize>, b: Option<usize>| a.zip(b).is_some_and(|(a, b)| a != b);
                let wrong = x.len() < 3
                    || x.len() != grid.len()
                    || differ(x[0].known(), grid[0].known())
                    || differ(grid[x.len() - 1].known(), Some(x.len() - 2));
                if wrong {
                    let found =
                        format!("{} and {}", display_dims(Some(x)), display_dims(Some(grid)));
                    return Err(OpError::shape(
                        "X and grid",
                        "[N, C, in..] and [N, out.., r]",
                        found,
                    ));
                }
                let mut dims = Dims::from(&x[..2]);
                dims.extend(grid[1..x.len() - 1].iter().cloned());
                Some(dims)
            }
            _ => None,
        };
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (x, grid) = (ctx.input(0, "X")?, ctx.input(1, "grid")?);
        let Some(mut output) = ctx.optional_output(0) else {
            return Ok(());
        };
        let spatial = &x.shape()[2..];
        let rank = spatial.len();
        let strides: Shape = row_major_strides(spatial);
        let (channels, plane) = (x.shape()[1], spatial.iter().product::<usize>());
        let places: usize = grid.shape()[1..=rank].iter().product();
        let (values, coordinates) = (doubles(x)?, doubles(grid)?);
        let mut y = limits::zeroed::<f64>(x.shape()[0] * channels * places);
        let mut watch = Watch::begin();
        if plane > 0 {
            for (i, place) in coordinates.chunks_exact(rank).enumerate() {
                let (image, at) = (i / places, i % places);
                // Coordinates come with the last axis first.
                let axes = place.iter().rev().zip(spatial);
                let taps: SmallVec<[_; 3]> = axes.map(|(&c, &size)| self.taps(c, size)).collect();
                let count: usize = taps.iter().map(|t| t.len()).product();
                for combination in 0..count {
                    // Every channel's element lies in another line of memory.
                    watch.count(8 * (channels + rank + 1));
                    let (mut rest, mut offset, mut weight) = (combination, Some(0), 1.0);
                    for (taps, stride) in taps.iter().zip(&strides) {
                        let (index, w) = taps[rest % taps.len()];
                        rest /= taps.len();
                        offset = offset.zip(index).map(|(sum, index)| sum + index * stride);
                        weight *= w;
                    }
                    let Some(offset) = offset else { continue };
                    for channel in 0..channels {
                        let row = image * channels + channel;
                        y[row * places + at] += weight * values[row * plane + offset];
                    }
                }
            }
        }
        let shape = output.shape();
        let view = TensorView::from_bytes(DataType::Float64, shape, bytemuck::cast_slice(&y));
        convert(view, &mut output, SmallFloatRounding::default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};

    #[test]
    fn grids_sample_corners_and_beyond() {
        let x = tensor(&[1, 1, 2, 2], &[1f32, 2., 3., 4.]);
        let at = |x: f32, y: f32| tensor(&[1, 1, 1, 2], &[x, y]);
        let corners = Case::of("GridSample", 20).int("align_corners", 1);
        for ((x0, y0), expected) in [
            ((-1., -1.), 1f32),
            ((1., -1.), 2.),
            ((0., 0.), 2.5),
            ((0., 1.), 3.5),
        ] {
            let found = corners.one(&[x.clone(), at(x0, y0)]);
            assert_eq!(found, Ok(tensor(&[1, 1, 1, 1], &[expected])), "{x0} {y0}");
        }
        let far = at(5., -5.);
        for (padding, expected) in [("zeros", 0f32), ("border", 2.)] {
            let case = Case::of("GridSample", 20)
                .text("padding_mode", padding)
                .text("mode", "nearest");
            let found = case.one(&[x.clone(), far.clone()]).expect("fits");
            assert_eq!(found, tensor(&[1, 1, 1, 1], &[expected]), "{padding}");
        }
        assert!(
            Case::of("GridSample", 20)
                .one(&[x.clone(), tensor(&[1, 1, 1, 3], &[0f32; 3])])
                .is_err()
        );
        let nan = Case::of("GridSample", 20).one(&[x, at(f32::NAN, f32::INFINITY)]);
        assert!(nan.is_ok());
    }
}
