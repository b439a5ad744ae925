//! `Split`: a tensor cut into pieces along an axis.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Split.html>, opsets 1, 2, 11, 13 (lengths are an
//! input), 18 (`num_outputs`; the last piece may be shorter). Types: any.

use smallvec::SmallVec;

use super::axes::{IntList, KnownList, normalize_axis};
use super::rearrange::{Strided, rearrange};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Shape, row_major_strides};

/// The operator.
#[derive(Debug)]
pub(super) struct Split {
    axis: i64,
    lengths: IntList,
    pieces: usize,
}

/// `Split` before opset 13.
pub(super) struct SplitAttributeLengths;

/// A node has an output for each, so that this is far more than any model's.
const MOST_PIECES: usize = 1 << 20;

impl Split {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let pieces = node.int_or("num_outputs", node.output_count as i64)?;
        let pieces = usize::try_from(pieces)
            .ok()
            .filter(|&n| n >= node.output_count && n <= MOST_PIECES);
        Ok(Self {
            axis: node.int_or("axis", 0)?,
            lengths: IntList::Input(1),
            pieces: pieces.ok_or_else(|| {
                let expected = format!("{} to {MOST_PIECES}", node.output_count);
                OpError::value(
                    "num_outputs",
                    expected,
                    node.int_or("num_outputs", 0).unwrap_or(0),
                )
            })?,
        })
    }

    /// Sizes of the pieces of an axis of `size` elements.
    fn lengths(&self, size: usize, given: Option<&[i64]>) -> Result<SmallVec<[usize; 8]>, OpError> {
        let Some(given) = given else {
            let length = size.div_ceil(self.pieces.max(1));
            let piece = |i: usize| size.saturating_sub(i.saturating_mul(length)).min(length);
            return Ok((0..self.pieces).map(piece).collect());
        };
        let lengths: Option<SmallVec<[usize; 8]>> =
            given.iter().map(|&n| usize::try_from(n).ok()).collect();
        let sum = |l: &SmallVec<[usize; 8]>| l.iter().try_fold(0usize, |s, &n| s.checked_add(n));
        lengths
            .filter(|l| l.len() >= self.pieces && sum(l) == Some(size))
            .ok_or_else(|| {
                let expected = format!("{} lengths that add up to {size}", self.pieces);
                OpError::value("split", expected, format!("{given:?}"))
            })
    }
}

impl SplitAttributeLengths {
    pub(super) fn parse(node: &Attributes) -> Result<Split, OpError> {
        let lengths = IntList::attribute(node, "split")?;
        Ok(Split {
            axis: node.int_or("axis", 0)?,
            lengths: match lengths {
                // Opset 1 allows either.
                IntList::Attribute(None) => IntList::Input(1),
                given => given,
            },
            pieces: node.output_count,
        })
    }
}

impl Operator for Split {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        let data_type = input.data_type()?;
        let outputs = inputs.output_count().min(self.pieces);
        let Some(dims) = input.dims else {
            return Ok((0..outputs)
                .map(|_| OutputInfo::maybe(data_type, None))
                .collect());
        };
        let axis = normalize_axis(self.axis, dims.len())?;
        let given = self.lengths.infer(inputs);
        let lengths = match (dims[axis].known(), &given) {
            (Some(size), KnownList::Absent) => Some(self.lengths(size, None)?),
            (Some(size), KnownList::Ints(_)) => match given.known() {
                Some(given) => Some(self.lengths(size, Some(&given))?),
                None => None,
            },
            _ => None,
        };
        let piece = |i: usize| {
            let mut piece = Dims::from(dims);
            piece[axis] = match (&lengths, &given) {
                (Some(lengths), _) => Dim::Known(lengths[i]),
                (None, KnownList::Ints(given)) => match given.get(i) {
                    Some(length) => length.to_dim()?,
                    None => Dim::Unknown,
                },
                _ => Dim::Unknown,
            };
            Ok(OutputInfo::tensor(data_type, piece))
        };
        (0..outputs).map(piece).collect()
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let input = ctx.input(0, "input")?;
        let axis = normalize_axis(self.axis, input.rank())?;
        let given = self.lengths.read(ctx)?;
        let lengths = self.lengths(input.shape()[axis], given.as_deref())?;
        let strides = row_major_strides(input.shape());
        let strides: SmallVec<[isize; 8]> = strides.iter().map(|&s| s as isize).collect();
        let mut start = 0;
        let mut shape = Shape::from_slice(input.shape());
        for (i, &length) in lengths.iter().enumerate().take(ctx.output_count()) {
            shape[axis] = length;
            let piece = Strided::new(start, &shape, &strides);
            start += length * strides[axis] as usize;
            rearrange(ctx, &[input], i, &shape, piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};

    #[test]
    fn split_cuts_where_it_is_told() {
        let data = tensor(&[2, 5], &[0i32, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let expected = Ok(vec![
            tensor(&[2, 2], &[0i32, 1, 5, 6]),
            tensor(&[2, 3], &[2i32, 3, 4, 7, 8, 9]),
        ]);
        let case = |opset| Case::of("Split", opset).int("axis", 1).outputs(2);
        assert_eq!(case(13).tensors(&[data.clone(), ints(&[2, 3])]), expected);
        assert_eq!(
            case(11).ints("split", &[2, 3]).tensors(&[data.clone()]),
            expected
        );
        for wrong in [&[2, 2][..], &[5], &[-1, 6], &[i64::MAX, i64::MAX]] {
            assert!(
                case(13).tensors(&[data.clone(), ints(wrong)]).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn the_last_piece_may_be_shorter() {
        let data = tensor(&[7], &[0u8, 1, 2, 3, 4, 5, 6]);
        let pieces = Case::of("Split", 18)
            .int("num_outputs", 4)
            .outputs(4)
            .tensors(&[data.clone()]);
        let lengths: Vec<usize> = pieces.expect("fits").iter().map(|t| t.len()).collect();
        assert_eq!(lengths, [2, 2, 2, 1]);
        assert!(
            Case::of("Split", 18)
                .int("num_outputs", -1)
                .tensors(&[data])
                .is_err()
        );
    }
}
