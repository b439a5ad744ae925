//! `OneHot`: for each index a row that is `on` at this index and `off` elsewhere.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__OneHot.html>, opsets 9, 11.
//! Shapes: `indices: [..]`, `depth: []` or `[1]`, `values: [2]` (off, on) → `[.., depth, ..]` with
//! the new axis at `axis`. Indices outside of `-depth..depth` give rows that are off.

use super::axes::{normalize_axis, normalize_index, size};
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::conversion::{SmallFloatRounding, convert};
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Buffer, DataType, Shape, TensorView, TensorViewMut};

/// The operator.
#[derive(Debug)]
pub(super) struct OneHot {
    axis: i64,
}

/// A tensor of any number type as int64; fractions are cut off.
fn integers(view: TensorView<'_>) -> Result<Vec<i64>, OpError> {
    let mut bytes = Buffer::try_zeroed(view.len() * 8)?;
    let mut wide = TensorViewMut::from_bytes(DataType::Int64, view.shape(), &mut bytes);
    convert(view, &mut wide, SmallFloatRounding::default())?;
    Ok(limits::copied(wide.as_mut_slice::<i64>()?))
}

fn depth_of(view: TensorView<'_>) -> Result<usize, OpError> {
    match integers(view)?[..] {
        [depth] => size("depth", depth),
        ref other => Err(OpError::value("depth", "one number", format!("{other:?}"))),
    }
}

impl OneHot {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.int_or("axis", -1)?,
        })
    }
}

impl Operator for OneHot {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let indices = inputs.required(0, "indices")?;
        let depth = match inputs.required(1, "depth")?.value {
            Some(depth) => Dim::Known(depth_of(depth)?),
            None => Dim::Unknown,
        };
        let dims = match indices.dims {
            None => None,
            Some(dims) => {
                let axis = normalize_axis(self.axis, dims.len() + 1)?;
                let mut dims = Dims::from(dims);
                dims.insert(axis, depth);
                Some(dims)
            }
        };
        Ok(OutputInfo::maybe(inputs.required(2, "values")?.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let indices = ctx.input(0, "indices")?;
        let depth = depth_of(ctx.input(1, "depth")?)?;
        let values = ctx.input(2, "values")?;
        if values.len() != 2 {
            return Err(OpError::shape(
                "values",
                "[2]",
                format!("{:?}", values.shape()),
            ));
        }
        let mut shape = Shape::from_slice(indices.shape());
        let axis = normalize_axis(self.axis, shape.len() + 1)?;
        shape.insert(axis, depth);
        let job = Rows {
            indices: &integers(indices)?,
            depth,
            inner: indices.shape()[axis..].iter().product(),
        };
        rearrange(ctx, &[values], 0, &shape, job)
    }
}

struct Rows<'a> {
    indices: &'a [i64],
    depth: usize,
    inner: usize,
}

impl Rearrange for Rows<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        output.fill(inputs[0][0].clone());
        for (i, &index) in self.indices.iter().enumerate() {
            let Some(at) = normalize_index(index, self.depth) else {
                continue;
            };
            let (outer, inner) = (i / self.inner, i % self.inner);
            output[(outer * self.depth + at) * self.inner + inner] = inputs[0][1].clone();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};

    #[test]
    fn one_hot_marks_indices_along_the_new_axis() {
        let inputs = [
            ints(&[0, -1, 5]),
            tensor(&[], &[3f32]),
            tensor(&[2], &[0i32, 9]),
        ];
        let found = Case::of("OneHot", 11).one(&inputs);
        assert_eq!(found, Ok(tensor(&[3, 3], &[9, 0, 0, 0, 0, 9, 0, 0, 0])));
        let found = Case::of("OneHot", 11).int("axis", 0).one(&inputs);
        assert_eq!(found, Ok(tensor(&[3, 3], &[9, 0, 0, 0, 0, 0, 0, 9, 0])));
        let negative = [ints(&[0]), tensor(&[], &[-3i64]), tensor(&[2], &[0i32, 9])];
        assert!(Case::of("OneHot", 11).one(&negative).is_err());
    }
}
