//! `Trilu`: the upper or lower triangle of matrices, zeros elsewhere.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Trilu.html>, opset 14. The diagonal is `k` above
//! the main one. Shapes: `input: [.., rows, columns]` → the same. Types: any but strings.

use super::axes::clamped;
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::graph::dimension::display_dims;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// The operator.
#[derive(Debug)]
pub(super) struct Trilu {
    upper: bool,
}

impl Trilu {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            upper: node.flag_or("upper", true)?,
        })
    }
}

impl Operator for Trilu {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
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
        let diagonal = match ctx.optional_input(1)? {
            Some(k) => k.single::<i64>()?,
            None => 0,
        };
        let [.., rows, columns] = *input.shape() else {
            let found = format!("shape {:?}", input.shape());
            return Err(OpError::shape("input", "at least 2 axes", found));
        };
        let job = Triangle {
            upper: self.upper,
            diagonal,
            rows,
            columns,
        };
        rearrange(ctx, &[input], 0, input.shape(), job)
    }
}

struct Triangle {
    upper: bool,
    diagonal: i64,
    rows: usize,
    columns: usize,
}

impl Rearrange for Triangle {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        if output.is_empty() {
            return Ok(());
        }
        let rows = inputs[0].chunks_exact(self.columns);
        for (i, (to, from)) in output.chunks_exact_mut(self.columns).zip(rows).enumerate() {
            // First column of the upper triangle, or of what is above the lower one.
            let bound = ((i % self.rows) as i64)
                .saturating_add(self.diagonal)
                .saturating_add(i64::from(!self.upper));
            let bound = clamped(bound, self.columns);
            let (kept, cleared) = match self.upper {
                true => (bound..self.columns, 0..bound),
                false => (0..bound, bound..self.columns),
            };
            to[kept.clone()].clone_from_slice(&from[kept]);
            to[cleared].fill(T::default());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};

    #[test]
    fn trilu_keeps_a_triangle() {
        let data: Vec<i32> = (1..=18).collect();
        for upper in [false, true] {
            for k in [i64::MIN, -4, -1, 0, 1, 2, 5, i64::MAX] {
                let kept = |i: i64, j: i64| match upper {
                    true => j as i128 >= i as i128 + k as i128,
                    false => j as i128 <= i as i128 + k as i128,
                };
                let reference = |(i, &x): (usize, &i32)| {
                    let (row, column) = (i / 3 % 3, i % 3);
                    if kept(row as i64, column as i64) {
                        x
                    } else {
                        0
                    }
                };
                let expected: Vec<i32> = data.iter().enumerate().map(reference).collect();
                let inputs = [tensor(&[2, 3, 3], &data), tensor(&[], &[k])];
                let found = Case::of("Trilu", 14)
                    .int("upper", upper.into())
                    .one(&inputs);
                assert_eq!(
                    found,
                    Ok(tensor(&[2, 3, 3], &expected)),
                    "upper {upper} k {k}"
                );
            }
        }
        assert!(
            Case::of("Trilu", 14)
                .one(&[tensor(&[2], &[1i32, 2])])
                .is_err()
        );
    }
}
