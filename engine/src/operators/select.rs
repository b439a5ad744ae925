//! `Where`: elements of `X` where a condition holds and of `Y` where it does not.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Where.html>, opsets 9, 16.
//! Shapes: all three broadcast. Types: any.

use smallvec::SmallVec;

use super::broadcasting::{broadcast_dims, broadcast_strides};
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::dimension::{known_dims, known_shape};
use crate::graph::{Attributes, Int};
use crate::limits::Watch;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Bool, DataType, Shape};

/// The operator.
#[derive(Debug)]
pub(super) struct Where;

impl Where {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Where {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "condition", &[DataType::Bool])?;
        let condition = inputs.required(0, "condition")?;
        let (x, y) = (inputs.required(1, "X")?, inputs.required(2, "Y")?);
        let data_type = x.data_type()?;
        inputs.data_type_of(2, "Y", &[data_type])?;
        let dims = match (condition.dims, x.dims, y.dims) {
            (Some(condition), Some(x), Some(y)) => Some(broadcast_dims(&[condition, x, y])?),
            _ => None,
        };
        let ints = condition.value.and_then(|view| {
            let condition = view.as_slice::<Bool>().ok()?;
            let (x, y) = (x.ints?, y.ints?);
            let equal = x.len() == condition.len() && y.len() == condition.len();
            let choose = |(i, c): (usize, &Bool)| if c.get() { x[i].clone() } else { y[i].clone() };
            let chosen: SmallVec<[Int; 8]> = match equal {
                true => condition.iter().enumerate().map(choose).collect(),
                false => return None,
            };
            Some(chosen)
        });
        Ok(OutputInfo::maybe(data_type, dims).with_ints(ints).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let condition = ctx.input(0, "condition")?;
        let (x, y) = (ctx.input(1, "X")?, ctx.input(2, "Y")?);
        let shapes = [condition, x, y].map(|v| known_dims(v.shape()));
        let dims = broadcast_dims(&[&shapes[0], &shapes[1], &shapes[2]])?;
        let shape = known_shape(&dims).unwrap_or_default();
        let job = Select {
            condition: condition.as_slice()?,
            axes: Axes::new(
                &shape,
                [condition, x, y].map(|v| broadcast_strides(v.shape(), &shape)),
            ),
        };
        rearrange(ctx, &[x, y], 0, &shape, job)
    }
}

/// Axes of three tensors that are read together, adjacent ones merged where they can be.
struct Axes {
    outer: SmallVec<[(usize, [usize; 3]); 8]>,
    row: (usize, [usize; 3]),
}

impl Axes {
    fn new(shape: &[usize], strides: [Shape; 3]) -> Self {
        let mut axes: SmallVec<[(usize, [usize; 3]); 8]> = SmallVec::new();
        for (axis, &size) in shape.iter().enumerate() {
            let stride = [0, 1, 2].map(|i| strides[i][axis]);
            match axes.last_mut() {
                _ if size == 1 => {}
                Some((outer, outer_stride)) if *outer_stride == stride.map(|s| s * size) => {
                    *outer *= size;
                    *outer_stride = stride;
                }
                _ => axes.push((size, stride)),
            }
        }
        let row = axes.pop().unwrap_or((1, [0; 3]));
        Self { outer: axes, row }
    }
}

struct Select<'a> {
    condition: &'a [Bool],
    axes: Axes,
}

impl Rearrange for Select<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        if output.is_empty() {
            return Ok(());
        }
        let (len, [sc, sx, sy]) = self.axes.row;
        let outer = &self.axes.outer;
        let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, outer.len());
        let mut at = [0usize; 3];
        let mut watch = Watch::begin();
        for row in output.chunks_exact_mut(len) {
            watch.count(len + 8);
            let [c, x, y] = at;
            let (condition, x, y) = (&self.condition[c..], &inputs[0][x..], &inputs[1][y..]);
            match (sc, sx, sy) {
                (0, ..) => {
                    let (source, stride) = if condition[0].get() { (x, sx) } else { (y, sy) };
                    for (i, to) in row.iter_mut().enumerate() {
                        *to = source[i * stride].clone();
                    }
                }
                (1, 1, 1) => {
                    for (((to, c), x), y) in row.iter_mut().zip(condition).zip(x).zip(y) {
                        *to = if c.get() { x.clone() } else { y.clone() };
                    }
                }
                (1, 0, 1) => {
                    for ((to, c), y) in row.iter_mut().zip(condition).zip(y) {
                        *to = if c.get() { x[0].clone() } else { y.clone() };
                    }
                }
                (1, 1, 0) => {
                    for ((to, c), x) in row.iter_mut().zip(condition).zip(x) {
                        *to = if c.get() { x.clone() } else { y[0].clone() };
                    }
                }
                _ => {
                    for (i, to) in row.iter_mut().enumerate() {
                        let chosen = if condition[i * sc].get() {
                            &x[i * sx]
                        } else {
                            &y[i * sy]
                        };
                        *to = chosen.clone();
                    }
                }
            }
            for (i, &(size, strides)) in index.iter_mut().zip(outer).rev() {
                *i += 1;
                for (at, stride) in at.iter_mut().zip(strides) {
                    *at += stride;
                }
                if *i < size {
                    break;
                }
                *i = 0;
                for (at, stride) in at.iter_mut().zip(strides) {
                    *at -= stride * size;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, strings, tensor};
    use super::*;

    #[test]
    fn where_broadcasts_all_three() {
        let values: [&[usize]; 6] = [&[], &[3], &[2, 1], &[2, 3], &[1, 3], &[1]];
        let at = |shape: &[usize], row: usize, column: usize| -> usize {
            let strides = broadcast_strides(shape, &[2, 3]);
            row * strides[0] + column * strides[1]
        };
        for condition_shape in values {
            for x_shape in values {
                for y_shape in values {
                    let shapes = [condition_shape, x_shape, y_shape, &[2, 3]];
                    let full = shapes[..3].iter().any(|s| s.first() == Some(&2))
                        && shapes[..3].iter().any(|s| s.last() == Some(&3));
                    if !full {
                        continue;
                    }
                    let count = |s: &[usize]| s.iter().product::<usize>();
                    let condition: Vec<Bool> = (0..count(condition_shape))
                        .map(|i| Bool::from(i % 2 == 0))
                        .collect();
                    let x: Vec<f32> = (0..count(x_shape)).map(|i| i as f32).collect();
                    let y: Vec<f32> = (0..count(y_shape)).map(|i| -1. - i as f32).collect();
                    let expected: Vec<f32> = (0..6)
                        .map(
                            |i| match condition[at(condition_shape, i / 3, i % 3)].get() {
                                true => x[at(x_shape, i / 3, i % 3)],
                                false => y[at(y_shape, i / 3, i % 3)],
                            },
                        )
                        .collect();
                    let found = Case::of("Where", 16).one(&[
                        tensor(condition_shape, &condition),
                        tensor(x_shape, &x),
                        tensor(y_shape, &y),
                    ]);
                    assert_eq!(found, Ok(tensor(&[2, 3], &expected)), "{shapes:?}");
                }
            }
        }
    }

    #[test]
    fn where_chooses_strings_and_rejects_mixed_types() {
        let condition = tensor(&[2], &[Bool(1), Bool(0)]);
        let (x, y) = (strings(&[2], &["a", "b"]), strings(&[1], &["c"]));
        let found = Case::of("Where", 9).one(&[condition.clone(), x.clone(), y]);
        assert_eq!(found, Ok(strings(&[2], &["a", "c"])));
        assert!(
            Case::of("Where", 9)
                .one(&[condition, x, tensor(&[1], &[1f32])])
                .is_err()
        );
    }
}
