//! `Expand` and `Tile`: elements repeated along axes.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Expand.html> (opsets 8, 13: broadcasts against a
//! shape), <https://onnx.ai/onnx/operators/onnx__Tile.html> (1: one axis; 6, 13: repeats of every
//! axis). Types: any.

use smallvec::SmallVec;

use super::axes::at_most;
use super::broadcasting::{broadcast_dims, broadcast_strides};
use super::rearrange::{Strided, rearrange};
use crate::error::OpError;
use crate::graph::dimension::{known_dims, known_shape};
use crate::graph::{Attributes, Dim, Dims, Int};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Shape, TensorView, row_major_strides};

/// `Expand`.
#[derive(Debug)]
pub(super) struct Expand;

/// `Tile`.
#[derive(Debug)]
pub(super) struct Tile;

/// `Tile` of opset 1: `tiles` repetitions of one `axis`, both inputs.
#[derive(Debug)]
pub(super) struct TileOneAxis;

impl Expand {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Expand {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        let shape = inputs.with_rank(1, "shape", 1)?;
        let dims = match (input.dims, shape.ints()) {
            (Some(from), Some(shape)) => {
                if let Some(bad) = shape.iter().find(|i| i.known().is_some_and(|n| n < 0)) {
                    return Err(OpError::value(
                        "shape",
                        "sizes of at least 0",
                        format!("{bad:?}"),
                    ));
                }
                let to = shape.iter().map(Int::to_dim).collect::<Result<Dims, _>>()?;
                Some(broadcast_dims(&[from, &to])?)
            }
            _ => None,
        };
        Ok(OutputInfo::maybe(input.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let input = ctx.input(0, "input")?;
        let shape = ctx.input(1, "shape")?.to_i64s()?;
        let to = shape.iter().map(|&n| Int::Known(n).to_dim());
        let to = to.collect::<Result<Dims, _>>()?;
        let shape = known_shape(&broadcast_dims(&[&known_dims(input.shape()), &to])?)
            .ok_or_else(|| OpError::value("shape", "sizes of at least 0", format!("{shape:?}")))?;
        let strides = broadcast_strides(input.shape(), &shape);
        let strides: SmallVec<[isize; 8]> = strides.iter().map(|&s| s as isize).collect();
        rearrange(ctx, &[input], 0, &shape, Strided::new(0, &shape, &strides))
    }
}

impl Tile {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl TileOneAxis {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }

    /// Repeats of every axis.
    fn repeats(rank: usize, tiles: i64, axis: i64) -> Result<SmallVec<[i64; 8]>, OpError> {
        let axis = super::axes::normalize_axis(axis, rank)?;
        Ok((0..rank)
            .map(|i| if i == axis { tiles } else { 1 })
            .collect())
    }
}

/// Sizes after repetition, where they are known.
fn tiled(from: &[Dim], repeats: &[Int]) -> Result<Dims, OpError> {
    let invalid = || {
        let parts: Vec<String> = repeats.iter().map(|i| format!("{i:?}")).collect();
        let expected = format!("{} numbers of at least 0", from.len());
        OpError::value("repeats", expected, parts.join(", "))
    };
    if from.len() != repeats.len() {
        return Err(invalid());
    }
    from.iter()
        .zip(repeats)
        .map(|(dim, repeat)| match (dim, repeat) {
            (_, Int::Known(n)) if *n < 0 => Err(invalid()),
            (dim, Int::Known(1)) => Ok(dim.clone()),
            (Dim::Known(size), Int::Known(n)) => usize::try_from(*n)
                .ok()
                .and_then(|n| size.checked_mul(n))
                .map(Dim::Known)
                .ok_or_else(|| OpError::TooLarge {
                    what: format!("{size} repeated {n} times"),
                }),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

fn tile(ctx: &mut RunContext<'_>, input: TensorView<'_>, repeats: &[i64]) -> Result<(), OpError> {
    let counts: SmallVec<[usize; 8]> = repeats.iter().map(|&n| at_most(n)).collect();
    let repeats: SmallVec<[Int; 8]> = repeats.iter().map(|&n| Int::Known(n)).collect();
    let shape = known_shape(&tiled(&known_dims(input.shape()), &repeats)?).unwrap_or_default();
    // Every axis as two: repetitions with stride 0, then the axis itself.
    let mut axes: Shape = Shape::new();
    let mut strides: SmallVec<[isize; 16]> = SmallVec::new();
    for ((&size, stride), repeat) in input
        .shape()
        .iter()
        .zip(row_major_strides(input.shape()))
        .zip(&counts)
    {
        axes.extend([*repeat, size]);
        strides.extend([0, stride as isize]);
    }
    rearrange(ctx, &[input], 0, &shape, Strided::new(0, &axes, &strides))
}

impl Operator for Tile {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        let repeats = inputs.with_rank(1, "repeats", 1)?;
        let dims = match (input.dims, repeats.ints()) {
            (Some(from), Some(repeats)) => Some(tiled(from, &repeats)?),
            (from, _) => from.map(|from| Dims::from_elem(Dim::Unknown, from.len())),
        };
        Ok(OutputInfo::maybe(input.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let input = ctx.input(0, "input")?;
        let repeats = ctx.input(1, "repeats")?.to_i64s()?;
        tile(ctx, input, &repeats)
    }
}

/// A number that an old operator takes as a tensor of its data's type.
fn whole_number(view: TensorView<'_>) -> Result<i64, OpError> {
    match view.data_type() {
        DataType::Float32 => Ok(view.single::<f32>()? as i64),
        DataType::Float64 => Ok(view.single::<f64>()? as i64),
        DataType::Float16 => Ok(view.single::<half::f16>()?.to_f32() as i64),
        DataType::Int32 => Ok(view.single::<i32>()?.into()),
        _ => view.single::<i64>(),
    }
}

impl Operator for TileOneAxis {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        let (tiles, axis) = (inputs.required(1, "tiles")?, inputs.required(2, "axis")?);
        let dims = match (input.dims, tiles.value, axis.value) {
            (Some(from), Some(tiles), Some(axis)) => {
                let repeats = Self::repeats(from.len(), whole_number(tiles)?, whole_number(axis)?)?;
                let repeats: SmallVec<[Int; 8]> = repeats.into_iter().map(Int::Known).collect();
                Some(tiled(from, &repeats)?)
            }
            (from, ..) => from.map(|from| Dims::from_elem(Dim::Unknown, from.len())),
        };
        Ok(OutputInfo::maybe(input.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let input = ctx.input(0, "input")?;
        let tiles = whole_number(ctx.input(1, "tiles")?)?;
        let axis = whole_number(ctx.input(2, "axis")?)?;
        tile(ctx, input, &Self::repeats(input.rank(), tiles, axis)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};

    #[test]
    fn expand_broadcasts_both_ways() {
        let data = tensor(&[3, 1], &[1f32, 2., 3.]);
        let found = Case::of("Expand", 13).one(&[data.clone(), ints(&[2, 1, 2])]);
        let row = [1f32, 1., 2., 2., 3., 3.];
        assert_eq!(found, Ok(tensor(&[2, 3, 2], &[row, row].concat())));
        let found = Case::of("Expand", 13).one(&[data.clone(), ints(&[1])]);
        assert_eq!(found, Ok(data.clone()));
        for bad in [&[2, 2][..], &[-1, 1]] {
            assert!(
                Case::of("Expand", 13)
                    .one(&[data.clone(), ints(bad)])
                    .is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn tile_repeats_every_axis() {
        let data = tensor(&[2, 2], &[0i16, 1, 2, 3]);
        let found = Case::of("Tile", 13).one(&[data.clone(), ints(&[2, 2])]);
        let expected = [0i16, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 2, 3, 2, 3];
        assert_eq!(found, Ok(tensor(&[4, 4], &expected)));
        for bad in [&[2][..], &[-1, 1], &[i64::MAX, i64::MAX]] {
            assert!(
                Case::of("Tile", 13)
                    .one(&[data.clone(), ints(bad)])
                    .is_err(),
                "{bad:?}"
            );
        }
        let floats = tensor(&[1, 2], &[1f32, 2.]);
        let old = Case::of("Tile", 1).one(&[floats, tensor(&[1], &[2f32]), tensor(&[1], &[1f32])]);
        assert_eq!(old, Ok(tensor(&[1, 4], &[1f32, 2., 1., 2.])));
    }
}
