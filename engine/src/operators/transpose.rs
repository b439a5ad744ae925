//! `Transpose`: the axes in another order, by default reversed.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Transpose.html>, opsets 1, 13, 21, 23, 24, 25.
//! Shapes: `data: [d₀, d₁, …]` → `transposed: [d_perm[0], d_perm[1], …]`. Types: any.

use smallvec::SmallVec;

use super::axes::{axis_set, normalize_axis};
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::{Attributes, Dims};
use crate::kernels::env::Env;
use crate::kernels::transpose::transpose;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::Shape;

/// The operator with its attribute.
#[derive(Debug)]
pub(super) struct Transpose {
    permutation: Option<SmallVec<[usize; 8]>>,
}

impl Transpose {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let Some(axes) = node.optional_ints("perm")? else {
            return Ok(Self { permutation: None });
        };
        axis_set(axes, axes.len())?;
        let axes = axes.iter().map(|&axis| normalize_axis(axis, axes.len()));
        Ok(Self {
            permutation: Some(axes.collect::<Result<_, _>>()?),
        })
    }

    fn of_rank(&self, rank: usize) -> Result<SmallVec<[usize; 8]>, OpError> {
        match &self.permutation {
            None => Ok((0..rank).rev().collect()),
            Some(permutation) if permutation.len() == rank => Ok(permutation.clone()),
            Some(permutation) => {
                let expected = format!("{} axes", permutation.len());
                Err(OpError::shape("data", expected, format!("{rank} axes")))
            }
        }
    }
}

impl Operator for Transpose {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "data")?;
        let dims = match input.dims {
            None => None,
            Some(dims) => {
                let permutation = self.of_rank(dims.len())?;
                Some(
                    permutation
                        .iter()
                        .map(|&axis| dims[axis].clone())
                        .collect::<Dims>(),
                )
            }
        };
        Ok(OutputInfo::maybe(input.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "data")?;
        let permutation = self.of_rank(x.rank())?;
        let shape: Shape = permutation.iter().map(|&axis| x.shape()[axis]).collect();
        let job = Permute {
            env: ctx.env,
            shape: x.shape(),
            permutation: &permutation,
        };
        rearrange(ctx, &[x], 0, &shape, job)
    }
}

struct Permute<'a> {
    env: &'a Env,
    shape: &'a [usize],
    permutation: &'a [usize],
}

impl Rearrange for Permute<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        transpose(self.env, self.shape, self.permutation, inputs[0], output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::operators::case::{Case, strings, tensor};
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn transpose_reverses_by_default_and_takes_any_size() {
        let x: Vec<i64> = (0..6).collect();
        let case = Case::of("Transpose", 13);
        let wide = case.one(&[tensor(&[2, 3], &x)]).expect("it fits");
        assert_eq!(wide, tensor(&[3, 2], &[0i64, 3, 1, 4, 2, 5]));
        let bytes = case
            .one(&[tensor(&[1, 2, 2], &[1u8, 2, 3, 4])])
            .expect("it fits");
        assert_eq!(bytes, tensor(&[2, 2, 1], &[1u8, 3, 2, 4]));
        let text = case
            .one(&[strings(&[2, 2], &["a", "b", "c", "d"])])
            .expect("it fits");
        assert_eq!(text, strings(&[2, 2], &["a", "c", "b", "d"]));
        let nibbles = |bytes: Vec<u8>, shape: &[usize]| {
            Tensor::from_bytes(DataType::Int4, shape, bytes).expect("it fits")
        };
        let got = Case::of("Transpose", 21).one(&[nibbles(vec![0x21, 0x43, 0x65], &[2, 3])]);
        assert_eq!(
            got.expect("it fits"),
            nibbles(vec![0x41, 0x52, 0x63], &[3, 2])
        );
    }

    #[test]
    fn transpose_rejects_what_is_no_permutation() {
        for perm in [&[0, 0][..], &[0, 2], &[0, 1, 2]] {
            let case = Case::of("Transpose", 13).ints("perm", perm);
            assert!(
                case.one(&[tensor(&[1, 2], &[1f32, 2.0])]).is_err(),
                "{perm:?}"
            );
        }
    }
}
