//! `Shape` and `Size`: the sizes of a tensor's axes, and their product, as data.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Shape.html> (opsets 1 to 25; `start` and `end` since
//! 15), <https://onnx.ai/onnx/operators/onnx__Size.html>.
//! Shapes: `data: [..]` → `shape: [end - start]`, `size: []`. Types: any → int64.

use super::axes::clamped;
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Int};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// `Shape` of the axes from `start` to `end`.
#[derive(Debug)]
pub(super) struct Shape {
    start: i64,
    end: Option<i64>,
}

/// `Size`.
#[derive(Debug)]
pub(super) struct Size;

impl Shape {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            start: node.int_or("start", 0)?,
            end: node.optional_int("end")?.copied(),
        })
    }

    /// The part of all axes that is asked for.
    fn part<'a, T>(&self, axes: &'a [T]) -> &'a [T] {
        let rank = axes.len();
        let counted = |i: i64| {
            if i < 0 {
                i.saturating_add(rank as i64)
            } else {
                i
            }
        };
        let end = self.end.map_or(rank, |end| clamped(counted(end), rank));
        let start = clamped(counted(self.start), end);
        &axes[start..end]
    }
}

impl Operator for Shape {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let Some(dims) = inputs.required(0, "data")?.dims else {
            return Ok(
                OutputInfo::tensor(DataType::Int64, [Dim::Unknown].into_iter().collect()).into(),
            );
        };
        let part = self.part(dims);
        Ok(OutputInfo::shaped(DataType::Int64, &[part.len()])
            .with_ints(Some(part.iter().map(Int::from).collect()))
            .into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let shape = self.part(ctx.input_shape(0, "data")?);
        let mut output = ctx.output(0)?;
        for (to, &size) in output.as_mut_slice::<i64>()?.iter_mut().zip(shape) {
            *to = size as i64;
        }
        Ok(())
    }
}

impl Size {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Size {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let shape = inputs.required(0, "data")?.shape();
        let size = shape
            .and_then(|s| crate::tensor::element_count(&s))
            .and_then(|n| i64::try_from(n).ok())
            .map_or(Int::Unknown, Int::Known);
        Ok(OutputInfo::shaped(DataType::Int64, &[])
            .with_ints(Some([size].into_iter().collect()))
            .into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let size: usize = ctx.input_shape(0, "data")?.iter().product();
        ctx.output(0)?.as_mut_slice::<i64>()?.fill(size as i64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};

    #[test]
    fn shape_takes_the_axes_from_start_to_end() {
        let data = tensor(&[2, 3, 4], &[0u8; 24]);
        let cases: &[(i64, Option<i64>, &[i64])] = &[
            (0, None, &[2, 3, 4]),
            (-1, None, &[4]),
            (0, Some(-1), &[2, 3]),
            (1, Some(2), &[3]),
            (2, Some(1), &[]),
            (-10, Some(10), &[2, 3, 4]),
            (i64::MIN, Some(i64::MAX), &[2, 3, 4]),
        ];
        for (start, end, expected) in cases {
            let mut case = Case::of("Shape", 15).int("start", *start);
            if let Some(end) = end {
                case = case.int("end", *end);
            }
            assert_eq!(
                case.one(&[data.clone()]),
                Ok(ints(expected)),
                "{start} {end:?}"
            );
        }
        assert_eq!(Case::of("Size", 13).one(&[data]), Ok(tensor(&[], &[24i64])));
    }
}
