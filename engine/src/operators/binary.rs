//! What the element-wise operators of two inputs share: the shape rule with both kinds of
//! broadcasting, the choice of loops, and computing in place.
//!
//! Since opset 7 operands broadcast to each other as in numpy. Before, `broadcast = 1` lays `B`
//! along axes of `A` that begin at `axis` (by default the last ones); this is numpy's rule after
//! ones have been appended to `B`'s shape.

use smallvec::SmallVec;

use super::broadcasting::broadcast_dims;
use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::elementwise::{BinaryFunction, Expansion, Operand, broadcast_shape, zip};
use crate::operator::{InferContext, RunContext};
use crate::tensor::{Element, Shape};

/// How shapes are made to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broadcasting {
    /// As numpy does.
    Numpy,
    /// Not at all: the shapes are equal.
    None,
    /// `B` lies along axes of `A` from this one on; without it, along the last ones.
    Along(Option<i64>),
}

impl Broadcasting {
    /// The rule of a node, by its opset and attributes.
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(if node.opset >= 7 {
            Self::Numpy
        } else if node.flag_or("broadcast", false)? {
            Self::Along(node.optional_int("axis")?.copied())
        } else {
            Self::None
        })
    }

    /// `B`'s sizes with ones appended, so that numpy's rule applies.
    fn sizes_of_b<T: Clone>(self, a: &[T], b: &[T], one: T) -> Result<SmallVec<[T; 8]>, OpError> {
        let mut sizes = SmallVec::from(b);
        if let Self::Along(Some(axis)) = self {
            let rank = a.len() as i64;
            let first = if axis < 0 { axis + rank } else { axis };
            let left = usize::try_from(first)
                .ok()
                .and_then(|first| a.len().checked_sub(first));
            let Some(left) = left.filter(|&left| b.len() <= left) else {
                let expected = format!("an axis with room for {} within {rank}", b.len());
                return Err(OpError::value("axis", expected, axis));
            };
            sizes.resize(left, one);
        }
        Ok(sizes)
    }

    /// The output's axes.
    pub(super) fn output_dims(self, a: &[Dim], b: &[Dim]) -> Result<Dims, OpError> {
        let b = self.sizes_of_b(a, b, Dim::Known(1))?;
        let output = broadcast_dims(&[a, &b])?;
        let is_of_a = output.len() == a.len()
            && a.iter().zip(&output).all(|(a, out)| match (a, out) {
                (Dim::Known(a), Dim::Known(out)) => a == out,
                _ => true,
            });
        let is_equal = self != Self::None
            || a.len() == b.len()
                && a.iter().zip(&b).all(|(a, b)| match (a, b) {
                    (Dim::Known(a), Dim::Known(b)) => a == b,
                    _ => true,
                });
        if self != Self::Numpy && !(is_of_a && is_equal) {
            return Err(OpError::shape(
                "B",
                format!("a shape that fits {}", display_dims(Some(a))),
                display_dims(Some(&b)),
            ));
        }
        Ok(output)
    }

    /// The output's axes from a node's first two inputs, `None` where a rank is not known.
    pub(super) fn infer(self, inputs: &InferContext<'_>) -> Result<Option<Dims>, OpError> {
        let (a, b) = (inputs.required(0, "A")?, inputs.required(1, "B")?);
        match (a.dims, b.dims) {
            (Some(a), Some(b)) => self.output_dims(a, b).map(Some),
            _ => Ok(None),
        }
    }

    /// `C = f(A, B)`, where `infer` has accepted the shapes.
    pub(super) fn run<T: Element, U: Element>(
        self,
        ctx: &mut RunContext<'_>,
        f: BinaryFunction<T, U>,
    ) -> Result<(), OpError> {
        let a_shape = ctx.input_shape(0, "A")?;
        let b_shape: Shape = self.sizes_of_b(a_shape, ctx.input_shape(1, "B")?, 1)?;
        let output_shape = broadcast_shape(&[a_shape, &b_shape]).ok_or_else(|| {
            OpError::shape(
                "B",
                format!("a shape that fits {a_shape:?}"),
                format!("{b_shape:?}"),
            )
        })?;
        let operand = |i, name, shape: &[usize]| {
            if ctx.is_in_place(i) {
                return Ok::<_, OpError>(Operand::InOutput);
            }
            let elements = ctx.input(i, name)?.as_slice::<T>()?;
            Ok(Operand::Elements(
                elements,
                Expansion::new(shape, &output_shape),
            ))
        };
        let a = operand(0, "A", a_shape)?;
        let b = operand(1, "B", &b_shape)?;
        zip(ctx.env, f, &a, &b, ctx.output(0)?.as_mut_slice::<U>()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::dimension::known_dims;

    #[test]
    fn old_broadcasting_lays_b_along_axes_of_a() {
        let cases: [(Broadcasting, &[usize], &[usize], Option<&[usize]>); 9] = [
            (
                Broadcasting::Along(Some(1)),
                &[2, 3, 4],
                &[3],
                Some(&[3, 1]),
            ),
            (
                Broadcasting::Along(Some(0)),
                &[2, 3, 4],
                &[2, 3],
                Some(&[2, 3, 1]),
            ),
            (
                Broadcasting::Along(Some(-2)),
                &[2, 3, 4],
                &[3],
                Some(&[3, 1]),
            ),
            (Broadcasting::Along(None), &[2, 3, 4], &[4], Some(&[4])),
            (Broadcasting::Along(Some(2)), &[2, 3, 4], &[3, 4], None),
            (Broadcasting::Along(Some(1)), &[2, 3, 4], &[4], None),
            (Broadcasting::None, &[2, 3], &[3], None),
            (Broadcasting::None, &[2, 3], &[2, 3], Some(&[2, 3])),
            (Broadcasting::Along(None), &[3], &[2, 3], None),
        ];
        for (rule, a, b, want) in cases {
            let got = rule.output_dims(&known_dims(a), &known_dims(b));
            assert_eq!(got.is_ok(), want.is_some(), "{rule:?} {a:?} {b:?}: {got:?}");
            if let Some(want) = want {
                assert_eq!(&rule.sizes_of_b(a, b, 1).expect("it fits")[..], want);
            }
        }
    }
}
