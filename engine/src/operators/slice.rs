//! `Slice`: the elements between bounds along some axes, with steps.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Slice.html>, opsets 1 (attributes), 10, 11, 13.
//! Bounds count from the end where they are negative and are clamped to the axis; a negative step
//! walks backwards. Types: any.

use smallvec::SmallVec;

use super::axes::{IntList, KnownList, normalize_axis};
use super::rearrange::{Strided, rearrange};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims, Int, Ints};
use crate::operator::{InferContext, InputInfo, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Shape, row_major_strides};

/// The operator.
#[derive(Debug)]
pub(super) struct Slice {
    starts: IntList,
    ends: IntList,
    axes: IntList,
    steps: IntList,
}

/// `Slice` before opset 10.
pub(super) struct SliceAttributes;

/// A walk along one axis: the first index, the step and the number of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Walk {
    first: usize,
    step: isize,
    count: usize,
}

impl Walk {
    fn new(size: usize, start: i64, end: i64, step: i64) -> Result<Self, OpError> {
        if step == 0 {
            return Err(OpError::value("steps", "no 0", 0));
        }
        let size = size as i128;
        let (start, end, step) = (start as i128, end as i128, step as i128);
        let from_end = |i: i128| if i < 0 { i + size } else { i };
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let start = from_end(start).clamp(low.max(0).min(high.max(0)), high.max(0));
        let end = from_end(end).clamp(low, high.max(low));
        let distance = if step > 0 { end - start } else { start - end };
        let count = match (size, distance) {
            (0, _) | (_, ..=0) => 0,
            (_, distance) => (distance - 1) / step.abs() + 1,
        };
        Ok(Self {
            first: start as usize,
            // Where only one element is taken the step does not matter.
            step: if count > 1 { step as isize } else { 1 },
            count: count as usize,
        })
    }

    /// Everything, in order.
    fn whole(size: usize) -> Self {
        Self {
            first: 0,
            step: 1,
            count: size,
        }
    }
}

impl Slice {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            starts: IntList::Input(1),
            ends: IntList::Input(2),
            axes: IntList::Input(3),
            steps: IntList::Input(4),
        })
    }

    /// The lists as numbers: for each axis that is cut, its index, start, end and step.
    fn cuts(
        rank: usize,
        starts: &[i64],
        ends: &[i64],
        axes: Option<&[i64]>,
        steps: Option<&[i64]>,
    ) -> Result<SmallVec<[(usize, i64, i64, i64); 8]>, OpError> {
        let n = starts.len();
        let lengths = [Some(ends), axes, steps];
        if lengths.iter().flatten().any(|list| list.len() != n) || n > rank {
            return Err(OpError::value(
                "starts, ends, axes, steps",
                format!("lists of one length up to {rank}"),
                format!("{n}, {}, {:?}, {:?}", ends.len(), axes, steps),
            ));
        }
        (0..n)
            .map(|i| {
                let axis = axes.map_or(Ok(i), |axes| normalize_axis(axes[i], rank))?;
                Ok((axis, starts[i], ends[i], steps.map_or(1, |s| s[i])))
            })
            .collect()
    }

    fn infer_dims(
        &self,
        data: &InputInfo<'_>,
        inputs: &InferContext<'_>,
    ) -> Result<Option<Dims>, OpError> {
        let Some(dims) = data.dims else {
            return Ok(None);
        };
        let (starts, ends) = (self.starts.infer(inputs), self.ends.infer(inputs));
        let (axes, steps) = (self.axes.infer(inputs), self.steps.infer(inputs));
        if starts == KnownList::Absent || ends == KnownList::Absent {
            return Err(OpError::MissingInput {
                input: "starts or ends",
            });
        }
        let unknown = || Ok(Some(Dims::from_elem(Dim::Unknown, dims.len())));
        let optional = |list: &KnownList| match list {
            KnownList::Absent => Some(None),
            list => list.known().map(Some),
        };
        let (Some(axes), Some(steps)) = (optional(&axes), optional(&steps)) else {
            return unknown();
        };
        let (KnownList::Ints(starts), KnownList::Ints(ends)) = (&starts, &ends) else {
            return unknown();
        };
        // Unknown bounds stand as 0 until it is clear which axes they belong to.
        let numbers = |ints: &Ints| -> SmallVec<[i64; 8]> {
            ints.iter().map(|i| i.known().unwrap_or(0)).collect()
        };
        let cuts = Self::cuts(
            dims.len(),
            &numbers(starts),
            &numbers(ends),
            axes.as_deref(),
            steps.as_deref(),
        )?;
        let mut result = Dims::from(dims);
        for (i, (axis, start, end, step)) in cuts.into_iter().enumerate() {
            let from_first = starts[i] == Int::Known(0) && step == 1;
            result[axis] = match (&dims[axis], &starts[i], &ends[i]) {
                (Dim::Known(size), Int::Known(_), Int::Known(_)) => {
                    Dim::Known(Walk::new(*size, start, end, step)?.count)
                }
                // Bounds this large mean "to the end".
                (dim, _, Int::Known(end)) if from_first && *end >= i64::from(i32::MAX) => {
                    dim.clone()
                }
                (Dim::Symbol(size), _, Int::Symbol(end)) if from_first && size == end => {
                    Dim::Symbol(size.clone())
                }
                _ => Dim::Unknown,
            };
        }
        Ok(Some(result))
    }

    /// The elements of a small list of integers that is cut.
    fn infer_ints(&self, data: &InputInfo<'_>, inputs: &InferContext<'_>) -> Option<Ints> {
        let ints = data.ints?;
        let start = self.starts.infer(inputs).known()?;
        let end = self.ends.infer(inputs).known()?;
        let step = match self.steps.infer(inputs) {
            KnownList::Absent => 1,
            list => *list.known()?.first()?,
        };
        if data.rank() != Some(1) || start.len() != 1 || end.len() != 1 {
            return None;
        }
        let walk = Walk::new(ints.len(), start[0], end[0], step).ok()?;
        let at = |i: usize| {
            ints.get((walk.first as isize + i as isize * walk.step) as usize)
                .cloned()
        };
        (0..walk.count).map(at).collect()
    }
}

impl SliceAttributes {
    pub(super) fn parse(node: &Attributes) -> Result<Slice, OpError> {
        Ok(Slice {
            starts: IntList::Attribute(Some(node.ints("starts")?.to_vec())),
            ends: IntList::Attribute(Some(node.ints("ends")?.to_vec())),
            axes: IntList::attribute(node, "axes")?,
            steps: IntList::Attribute(None),
        })
    }
}

impl Operator for Slice {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let dims = self.infer_dims(&data, inputs)?;
        Ok(OutputInfo::maybe(data.data_type()?, dims)
            .with_ints(self.infer_ints(&data, inputs))
            .into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let data = ctx.input(0, "data")?;
        let starts = self
            .starts
            .read(ctx)?
            .ok_or(OpError::MissingInput { input: "starts" })?;
        let ends = self
            .ends
            .read(ctx)?
            .ok_or(OpError::MissingInput { input: "ends" })?;
        let (axes, steps) = (self.axes.read(ctx)?, self.steps.read(ctx)?);
        let cuts = Self::cuts(
            data.rank(),
            &starts,
            &ends,
            axes.as_deref(),
            steps.as_deref(),
        )?;
        let mut walks: SmallVec<[Walk; 8]> = data.shape().iter().map(|&n| Walk::whole(n)).collect();
        for (axis, start, end, step) in cuts {
            walks[axis] = Walk::new(data.shape()[axis], start, end, step)?;
        }
        let shape: Shape = walks.iter().map(|w| w.count).collect();
        let strides = row_major_strides(data.shape());
        let start = walks.iter().zip(&strides).map(|(w, s)| w.first * s).sum();
        let strides: SmallVec<[isize; 8]> = walks
            .iter()
            .zip(&strides)
            .map(|(walk, &stride)| walk.step * stride as isize)
            .collect();
        rearrange(
            ctx,
            &[data],
            0,
            &shape,
            Strided::new(start, &shape, &strides),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};

    /// What the standard says, one step after another.
    fn reference_slice(size: usize, start: i64, end: i64, step: i64) -> Vec<i64> {
        let size = size as i64;
        let clamp = |i: i64, low, high| if i < 0 { i + size } else { i }.clamp(low, high);
        let mut taken = Vec::new();
        if step > 0 {
            let (mut i, end) = (clamp(start, 0, size), clamp(end, 0, size));
            while i < end {
                taken.push(i);
                i += step;
            }
        } else {
            // Unlike Python, the standard moves a start before the first element to it.
            let (mut i, end) = (clamp(start, 0, size - 1), clamp(end, -1, size - 1));
            while i > end && i >= 0 {
                taken.push(i);
                i += step;
            }
        }
        taken
    }

    #[test]
    fn slice_walks_from_start_to_end() {
        for size in [0, 1, 5] {
            let data: Vec<i64> = (0..size as i64).collect();
            for start in -7..7 {
                for end in -7..7 {
                    for step in [-3, -2, -1, 1, 2, 3] {
                        if size == 0 && step < 0 {
                            continue;
                        }
                        let inputs = [
                            ints(&data),
                            ints(&[start]),
                            ints(&[end]),
                            ints(&[0]),
                            ints(&[step]),
                        ];
                        let found = Case::of("Slice", 13).one(&inputs);
                        let expected = reference_slice(size, start, end, step);
                        assert_eq!(found, Ok(ints(&expected)), "{size} {start}:{end}:{step}");
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_bounds_are_clamped() {
        let data = ints(&[0, 1, 2]);
        let cases: &[(i64, i64, i64, &[i64])] = &[
            (i64::MIN, i64::MAX, 1, &[0, 1, 2]),
            (i64::MAX, i64::MIN, -1, &[2, 1, 0]),
            (i64::MAX, i64::MIN, i64::MIN, &[2]),
            (0, i64::MAX, i64::MAX, &[0]),
        ];
        for (start, end, step, expected) in cases {
            let inputs = [
                data.clone(),
                ints(&[*start]),
                ints(&[*end]),
                ints(&[0]),
                ints(&[*step]),
            ];
            assert_eq!(
                Case::of("Slice", 13).one(&inputs),
                Ok(ints(expected)),
                "{start}:{end}:{step}"
            );
        }
        let zero = [data, ints(&[0]), ints(&[1]), ints(&[0]), ints(&[0])];
        assert!(Case::of("Slice", 13).one(&zero).is_err());
    }

    #[test]
    fn several_axes_are_cut_at_once() {
        let data = tensor(&[2, 3, 2], &(0..12).collect::<Vec<i32>>());
        let inputs = [
            data.clone(),
            ints(&[1, 2]),
            ints(&[2, i64::MIN]),
            ints(&[0, -2]),
            ints(&[1, -2]),
        ];
        let expected = tensor(&[1, 2, 2], &[10, 11, 6, 7]);
        assert_eq!(Case::of("Slice", 13).one(&inputs), Ok(expected));
        let old = Case::of("Slice", 1)
            .ints("starts", &[1])
            .ints("ends", &[9])
            .one(&[data]);
        assert_eq!(old, Ok(tensor(&[1, 3, 2], &[6, 7, 8, 9, 10, 11])));
    }
}
