//! `DepthToSpace`, `SpaceToDepth`, `ReverseSequence` and `EyeLike`: elements at other places by a
//! fixed rule.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__DepthToSpace.html> (opsets 1, 11, 13),
//! <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>,
//! <https://onnx.ai/onnx/operators/onnx__ReverseSequence.html> (10),
//! <https://onnx.ai/onnx/operators/onnx__EyeLike.html> (9).
//! Shapes, with block size `b`: `[N, C·b², H, W]` ↔ `[N, C, H·b, W·b]`. Types: any.

use smallvec::SmallVec;

use super::rearrange::{Rearrange, Strided, rearrange};
use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::conversion::{SmallFloatRounding, convert};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Shape, Tensor, TensorView, row_major_strides};

/// `DepthToSpace`.
#[derive(Debug)]
pub(super) struct DepthToSpace {
    block: usize,
    /// Whether the channel is the outermost part of the depth (mode `CRD`).
    channel_first: bool,
}

/// `SpaceToDepth`.
#[derive(Debug)]
pub(super) struct SpaceToDepth {
    block: usize,
    channel_first: bool,
}

fn block_size(node: &Attributes) -> Result<usize, OpError> {
    let block = *node.int("blocksize")?;
    usize::try_from(block)
        .ok()
        .filter(|&b| b > 0 && b < 1 << 16)
        .ok_or_else(|| OpError::value("blocksize", "a number from 1 to 65535", block))
}

/// `[N, C, H, W]` with the last three multiplied or divided.
fn scaled(
    inputs: &InferContext<'_>,
    scale: impl Fn(usize, usize) -> Option<usize>,
) -> Result<OutputInfos, OpError> {
    let input = inputs.with_rank(0, "input", 4)?;
    let dims = match input.dims {
        None => Dims::from_elem(Dim::Unknown, 4),
        Some(dims) => dims
            .iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                dim if axis == 0 => Ok(dim.clone()),
                Dim::Known(size) => scale(axis, *size).map(Dim::Known).ok_or_else(|| {
                    let found = display_dims(Some(dims));
                    OpError::shape("input", "sizes that the block size divides", found)
                }),
                _ => Ok(Dim::Unknown),
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(OutputInfo::tensor(input.data_type()?, dims).into())
}

fn divided(size: usize, by: usize) -> Option<usize> {
    size.is_multiple_of(by).then(|| size / by)
}

/// Copies input 0, seen as `axes`, with its axes in another order.
fn permute(
    ctx: &mut RunContext<'_>,
    axes: &[usize; 6],
    order: [usize; 6],
    shape: &[usize],
) -> Result<(), OpError> {
    let input = ctx.input(0, "input")?;
    let strides = row_major_strides(axes);
    let strides: SmallVec<[isize; 8]> = order.iter().map(|&i| strides[i] as isize).collect();
    let permuted: Shape = order.iter().map(|&i| axes[i]).collect();
    rearrange(
        ctx,
        &[input],
        0,
        shape,
        Strided::new(0, &permuted, &strides),
    )
}

fn four(shape: &[usize]) -> Result<[usize; 4], OpError> {
    shape
        .try_into()
        .map_err(|_| OpError::shape("input", "[N, C, H, W]", format!("{shape:?}")))
}

/// Whether the channel is the outermost part of the depth.
fn channel_first(node: &Attributes) -> Result<bool, OpError> {
    match node.string_or("mode", "DCR")? {
        "DCR" => Ok(false),
        "CRD" => Ok(true),
        other => Err(OpError::Attribute {
            name: "mode".into(),
            expected: "DCR or CRD".into(),
            found: other.into(),
        }),
    }
}

impl DepthToSpace {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            block: block_size(node)?,
            channel_first: channel_first(node)?,
        })
    }
}

impl Operator for DepthToSpace {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let b = self.block;
        scaled(inputs, |axis, size| match axis {
            1 => divided(size, b * b),
            _ => size.checked_mul(b),
        })
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let b = self.block;
        let [n, depth, h, w] = four(ctx.input_shape(0, "input")?)?;
        let c = depth / (b * b);
        let shape = [n, c, h * b, w * b];
        match self.channel_first {
            true => permute(ctx, &[n, c, b, b, h, w], [0, 1, 4, 2, 5, 3], &shape),
            false => permute(ctx, &[n, b, b, c, h, w], [0, 3, 4, 1, 5, 2], &shape),
        }
    }
}

impl SpaceToDepth {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            block: block_size(node)?,
            channel_first: channel_first(node)?,
        })
    }
}

impl Operator for SpaceToDepth {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let b = self.block;
        scaled(inputs, |axis, size| match axis {
            1 => size.checked_mul(b * b),
            _ => divided(size, b),
        })
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let b = self.block;
        let [n, c, h, w] = four(ctx.input_shape(0, "input")?)?;
        let (h, w) = (h / b, w / b);
        let order = match self.channel_first {
            true => [0, 1, 3, 5, 2, 4],
            false => [0, 3, 5, 1, 2, 4],
        };
        permute(ctx, &[n, c, h, b, w, b], order, &[n, c * b * b, h, w])
    }
}

/// `ReverseSequence`: the first elements of each sequence, in the opposite order.
#[derive(Debug)]
pub(super) struct ReverseSequence {
    batch_axis: usize,
    time_axis: usize,
}

impl ReverseSequence {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let axes = (node.int_or("batch_axis", 1)?, node.int_or("time_axis", 0)?);
        let (batch_axis, time_axis) = match axes {
            (0, 1) => (0, 1),
            (1, 0) => (1, 0),
            (batch, time) => {
                let (what, expected) = ("batch_axis and time_axis", "0 and 1 or 1 and 0");
                return Err(OpError::value(
                    what,
                    expected,
                    format!("{batch} and {time}"),
                ));
            }
        };
        Ok(Self {
            batch_axis,
            time_axis,
        })
    }
}

impl Operator for ReverseSequence {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        inputs.data_type_of(1, "sequence_lens", &[DataType::Int64])?;
        if let Some(dims) = input.dims
            && dims.len() < 2
        {
            let found = display_dims(Some(dims));
            return Err(OpError::shape("input", "at least 2 axes", found));
        }
        Ok(OutputInfo::maybe(input.data_type()?, input.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let input = ctx.input(0, "input")?;
        let lengths = ctx.input(1, "sequence_lens")?.as_slice::<i64>()?;
        let shape = input.shape();
        let (batch, time) = (shape[self.batch_axis], shape[self.time_axis]);
        let length = |&n: &i64| usize::try_from(n).ok().filter(|&n| n <= time);
        let counts: Option<SmallVec<[usize; 8]>> = lengths.iter().map(length).collect();
        let Some(counts) = counts.filter(|counts| counts.len() == batch) else {
            let expected = format!("{batch} lengths from 0 to {time}");
            return Err(OpError::value(
                "sequence_lens",
                expected,
                format!("{lengths:?}"),
            ));
        };
        let job = Reversed {
            lengths: &counts,
            second: shape[1],
            time_first: self.time_axis == 0,
            inner: shape[2..].iter().product(),
        };
        rearrange(ctx, &[input], 0, shape, job)
    }
}

struct Reversed<'a> {
    lengths: &'a [usize],
    second: usize,
    time_first: bool,
    inner: usize,
}

impl Rearrange for Reversed<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        for (i, to) in output.chunks_exact_mut(self.inner.max(1)).enumerate() {
            let (first, second) = (i / self.second, i % self.second);
            let (time, batch) = if self.time_first {
                (first, second)
            } else {
                (second, first)
            };
            let length = self.lengths[batch];
            let from = if time < length {
                length - 1 - time
            } else {
                time
            };
            let place = match self.time_first {
                true => from * self.second + batch,
                false => batch * self.second + from,
            };
            to.clone_from_slice(&inputs[0][place * self.inner..][..self.inner]);
        }
        Ok(())
    }
}

/// `EyeLike`: ones on a diagonal, in the shape of the input.
#[derive(Debug)]
pub(super) struct EyeLike {
    data_type: Option<DataType>,
    diagonal: i64,
}

impl EyeLike {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            data_type: node.optional_data_type("dtype")?,
            diagonal: node.int_or("k", 0)?,
        })
    }
}

impl Operator for EyeLike {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.with_rank(0, "input", 2)?;
        let data_type = match self.data_type {
            Some(data_type) => data_type,
            None => input.data_type()?,
        };
        Ok(OutputInfo::maybe(data_type, input.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let &[rows, columns] = ctx.input_shape(0, "input")? else {
            let found = format!("{:?}", ctx.input_shape(0, "input")?);
            return Err(OpError::shape("input", "2 axes", found));
        };
        let diagonal = self.diagonal;
        let one = |i: usize| {
            let (row, column) = (i / columns, i % columns);
            f32::from(u8::from(column as i128 == row as i128 + diagonal as i128))
        };
        let ones: Vec<f32> = (0..rows * columns).map(one).collect();
        let ones = Tensor::from_slice(&[rows, columns], &ones)?;
        let mut output = ctx.output(0)?;
        let view: TensorView<'_> = ones.view();
        convert(view, &mut output, SmallFloatRounding::default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};

    #[test]
    fn depth_and_space_are_opposites() {
        let x = tensor(&[1, 8, 2, 3], &(0..48).collect::<Vec<i32>>());
        let spread = Case::of("DepthToSpace", 13)
            .int("blocksize", 2)
            .one(&[x.clone()])
            .expect("fits");
        assert_eq!(spread.shape(), [1, 2, 4, 6]);
        assert_eq!(
            spread.as_slice::<i32>().expect("int32")[..6],
            [0, 12, 1, 13, 2, 14]
        );
        let back = Case::of("SpaceToDepth", 13)
            .int("blocksize", 2)
            .one(&[spread]);
        assert_eq!(back, Ok(x.clone()));
        let crd = Case::of("DepthToSpace", 13)
            .int("blocksize", 2)
            .text("mode", "CRD")
            .one(&[x.clone()]);
        assert_eq!(
            crd.expect("fits").as_slice::<i32>().expect("int32")[..6],
            [0, 6, 1, 7, 2, 8]
        );
        for block in [0, -1, 3] {
            assert!(
                Case::of("DepthToSpace", 13)
                    .int("blocksize", block)
                    .one(&[x.clone()])
                    .is_err()
            );
        }
    }

    #[test]
    fn sequences_are_reversed_up_to_their_length() {
        let x = tensor(&[2, 3], &[0i64, 1, 2, 3, 4, 5]);
        let case = Case::of("ReverseSequence", 10)
            .int("batch_axis", 0)
            .int("time_axis", 1);
        let found = case.one(&[x.clone(), ints(&[3, 2])]);
        assert_eq!(found, Ok(tensor(&[2, 3], &[2i64, 1, 0, 4, 3, 5])));
        let found = Case::of("ReverseSequence", 10).one(&[x.clone(), ints(&[2, 1, 0])]);
        assert_eq!(found, Ok(tensor(&[2, 3], &[3i64, 1, 2, 0, 4, 5])));
        assert!(case.one(&[x, ints(&[4, 1])]).is_err());
    }

    #[test]
    fn eye_like_puts_ones_on_a_diagonal() {
        let x = tensor(&[2, 3], &[7i32; 6]);
        let found = Case::of("EyeLike", 9).int("k", 1).one(&[x.clone()]);
        assert_eq!(found, Ok(tensor(&[2, 3], &[0, 1, 0, 0, 0, 1])));
        let floats = Case::of("EyeLike", 9)
            .int("dtype", 1)
            .int("k", i64::MIN)
            .one(&[x]);
        assert_eq!(floats, Ok(tensor(&[2, 3], &[0f32; 6])));
    }
}
