//! `Einsum`: sums of products over named axes.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Einsum.html>, opset 12. A letter names an axis, in
//! every term the same size; `...` stands for axes that broadcast; a letter twice in a term takes
//! the diagonal. Without `->` the output has the letters that occur once, in alphabetical order.
//! Types: f32, f64, f16, bf16, int32, int64; floats are summed
//! in f64.
//!
//! ```text
//! for each output coordinate: sum over the other letters of the product of all terms
//! ```

use smallvec::SmallVec;
use std::collections::BTreeMap;

use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::conversion::{SmallFloatRounding, convert};
use crate::kernels::plain_product::Factor;
use crate::limits::{self, Watch};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Buffer, DataType, Tensor, TensorView, TensorViewMut, row_major_strides};

/// The operator.
#[derive(Debug)]
pub(super) struct Einsum {
    equation: String,
    terms: Vec<Vec<Axis>>,
    output: Vec<Axis>,
}

/// A letter, or the axes that `...` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Axis {
    /// The so-manyth axis of `...`, counted from the last one.
    Broadcast(usize),
    Letter(char),
    /// `...` as written.
    Ellipsis,
}

const TYPES: &[DataType] = &[
    DataType::Float32,
    DataType::Float64,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Int32,
    DataType::Int64,
];

impl Einsum {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let equation: String = node
            .string("equation")?
            .chars()
            .filter(|c| !c.is_whitespace())
            .collect();
        let wrong = || OpError::Attribute {
            name: "equation".into(),
            expected: "terms of letters and at most one ... each".into(),
            found: equation.clone(),
        };
        let term = |text: &str| -> Option<Vec<Axis>> {
            let mut axes = Vec::new();
            let mut rest = text;
            while let Some(c) = rest.chars().next() {
                if let Some(after) = rest.strip_prefix("...") {
                    axes.push(Axis::Ellipsis);
                    rest = after;
                } else if c.is_ascii_alphabetic() {
                    axes.push(Axis::Letter(c));
                    rest = &rest[1..];
                } else {
                    return None;
                }
            }
            (axes.iter().filter(|a| **a == Axis::Ellipsis).count() <= 1).then_some(axes)
        };
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (equation.as_str(), None),
        };
        let terms: Vec<Vec<Axis>> = left
            .split(',')
            .map(term)
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let output = match right {
            Some(right) => term(right).ok_or_else(wrong)?,
            None => {
                let mut counts = BTreeMap::new();
                for axis in terms.iter().flatten() {
                    *counts.entry(*axis).or_insert(0) += 1;
                }
                let has_ellipsis = counts.remove(&Axis::Ellipsis).is_some();
                let once = counts
                    .into_iter()
                    .filter(|(_, n)| *n == 1)
                    .map(|(axis, _)| axis);
                has_ellipsis
                    .then_some(Axis::Ellipsis)
                    .into_iter()
                    .chain(once)
                    .collect()
            }
        };
        let known = |axis: &Axis| terms.iter().flatten().any(|a| a == axis);
        let twice = (1..output.len()).any(|i| output[..i].contains(&output[i]));
        if twice || !output.iter().all(known) {
            return Err(wrong());
        }
        Ok(Self {
            equation,
            terms,
            output,
        })
    }

    /// Axes of a term with `...` as single axes. `rank` is that of the operand.
    fn expanded(term: &[Axis], rank: usize) -> Option<Vec<Axis>> {
        let letters = term.iter().filter(|a| **a != Axis::Ellipsis).count();
        let hidden = rank.checked_sub(letters)?;
        if hidden > 0 && letters == term.len() {
            return None;
        }
        Some(Self::with_hidden(term, hidden))
    }

    fn with_hidden(term: &[Axis], hidden: usize) -> Vec<Axis> {
        let expand = |axis: &Axis| match axis {
            Axis::Ellipsis => (0..hidden).rev().map(Axis::Broadcast).collect(),
            other => vec![*other],
        };
        term.iter().flat_map(expand).collect()
    }

    /// The axes of the operands and of the output, and the size of each.
    #[expect(clippy::type_complexity, reason = "three parts of one resolution")]
    fn resolve(
        &self,
        shapes: &[Vec<Dim>],
    ) -> Result<(Vec<Vec<Axis>>, Vec<Axis>, BTreeMap<Axis, Dim>), OpError> {
        let wrong = || {
            let found = format!("{shapes:?}");
            OpError::shape(
                "Inputs",
                format!("shapes that fit {}", self.equation),
                found,
            )
        };
        if shapes.len() != self.terms.len() {
            return Err(wrong());
        }
        let mut sizes: BTreeMap<Axis, Dim> = BTreeMap::new();
        let mut terms = Vec::new();
        for (term, shape) in self.terms.iter().zip(shapes) {
            let axes = Self::expanded(term, shape.len()).ok_or_else(wrong)?;
            for (&axis, dim) in axes.iter().zip(shape) {
                let size = sizes.entry(axis).or_insert(Dim::Known(1));
                match (&*size, dim) {
                    (Dim::Known(1), _) => *size = dim.clone(),
                    (Dim::Known(a), Dim::Known(b)) if a != b && *b != 1 => return Err(wrong()),
                    (Dim::Known(_), _) | (_, Dim::Known(1)) => {}
                    (_, Dim::Known(_)) => *size = dim.clone(),
                    _ => {}
                }
            }
            terms.push(axes);
        }
        let hidden = sizes
            .keys()
            .filter(|a| matches!(a, Axis::Broadcast(_)))
            .count();
        let output = Self::with_hidden(&self.output, hidden);
        Ok((terms, output, sizes))
    }
}

impl Operator for Einsum {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "Inputs", TYPES)?;
        let shapes: Option<Vec<Vec<Dim>>> =
            inputs.present().map(|v| Some(v.dims?.to_vec())).collect();
        let dims = match shapes {
            None => None,
            Some(shapes) => {
                let (_, output, sizes) = self.resolve(&shapes)?;
                Some(
                    output
                        .iter()
                        .map(|axis| sizes[axis].clone())
                        .collect::<Dims>(),
                )
            }
        };
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let views: Vec<TensorView<'_>> = (0..ctx.input_count())
            .map(|i| ctx.input(i, "Inputs"))
            .collect::<Result<_, _>>()?;
        let data_type = ctx.input_type(0, "Inputs")?;
        match data_type {
            DataType::Float64 => self.sum::<f64>(ctx, &views),
            DataType::Int32 => self.sum::<i32>(ctx, &views),
            DataType::Int64 => self.sum::<i64>(ctx, &views),
            // Exact products, rounded once.
            _ => {
                let wide: Vec<Tensor> = views
                    .iter()
                    .map(|v| as_doubles(*v))
                    .collect::<Result<_, _>>()?;
                let views: Vec<TensorView<'_>> = wide.iter().map(Tensor::view).collect();
                self.sum::<f64>(ctx, &views)
            }
        }
    }
}

fn as_doubles(view: TensorView<'_>) -> Result<Tensor, OpError> {
    let mut bytes = Buffer::try_zeroed(view.len() * 8)?;
    let mut wide = TensorViewMut::from_bytes(DataType::Float64, view.shape(), &mut bytes);
    convert(view, &mut wide, SmallFloatRounding::default())?;
    Tensor::from_bytes(DataType::Float64, view.shape(), bytes)
}

impl Einsum {
    fn sum<T: Factor>(
        &self,
        ctx: &mut RunContext<'_>,
        views: &[TensorView<'_>],
    ) -> Result<(), OpError> {
        let shapes: Vec<Vec<Dim>> = views
            .iter()
            .map(|v| v.shape().iter().map(|&n| Dim::Known(n)).collect())
            .collect();
        let (terms, output, sizes) = self.resolve(&shapes)?;
        let summed: Vec<Axis> = sizes
            .keys()
            .filter(|a| !output.contains(a))
            .copied()
            .collect();
        let size_of = |axis: &Axis| sizes[axis].known().unwrap_or(1);
        // For every operand, how far a step along each axis goes; an axis of size 1 stays.
        let strides: Vec<BTreeMap<Axis, usize>> = terms
            .iter()
            .zip(views)
            .map(|(axes, view)| {
                let mut strides = BTreeMap::new();
                let own = row_major_strides(view.shape());
                for ((axis, stride), &size) in axes.iter().zip(own).zip(view.shape()) {
                    if size != 1 {
                        *strides.entry(*axis).or_insert(0) += stride;
                    }
                }
                strides
            })
            .collect();
        let slices: Vec<&[T]> = views
            .iter()
            .map(|v| v.as_slice())
            .collect::<Result<_, _>>()?;
        let walk = |axes: &[Axis]| -> Vec<(usize, SmallVec<[usize; 4]>)> {
            let of = |axis| {
                strides
                    .iter()
                    .map(|s| s.get(axis).copied().unwrap_or(0))
                    .collect()
            };
            axes.iter().map(|axis| (size_of(axis), of(axis))).collect()
        };
        let (outer, inner) = (walk(&output), walk(&summed));
        // There may be more products than anything in memory has elements.
        let count = |axes: &[(usize, SmallVec<[usize; 4]>)]| {
            let mut sizes = axes.iter().map(|axis| axis.0 as u64);
            let is_empty = axes.iter().any(|axis| axis.0 == 0);
            let all = sizes.try_fold(1u64, |all, size| all.checked_mul(size));
            all.or(is_empty.then_some(0))
                .ok_or_else(|| OpError::TooLarge {
                    what: "more products than can be counted".into(),
                })
        };
        let places = |axes: &[(usize, SmallVec<[usize; 4]>)], index: u64, base: &[usize]| {
            let mut places: SmallVec<[usize; 4]> = base.into();
            let mut rest = index;
            for &(size, ref strides) in axes.iter().rev() {
                // What is left over is less than a size.
                let at = usize::try_from(rest % size as u64).unwrap_or(size);
                rest /= size as u64;
                places
                    .iter_mut()
                    .zip(strides)
                    .for_each(|(p, s)| *p += at * s);
            }
            places
        };
        let start: SmallVec<[usize; 4]> = SmallVec::from_elem(0, views.len());
        let one = T::default().through_double(|_| 1.0);
        let mut watch = Watch::begin();
        let (sums_count, terms_count) = (count(&outer)?, count(&inner)?);
        let mut sums: Vec<T> = limits::with_room(usize::try_from(sums_count).unwrap_or(usize::MAX));
        sums.extend((0..sums_count).map(|i| {
            let base = places(&outer, i, &start);
            (0..terms_count).fold(T::default(), |sum, j| {
                watch.count(1);
                let at = places(&inner, j, &base);
                let (last, others) = match slices.split_last() {
                    Some((last, others)) => (last[at[others.len()]], others),
                    None => (one, &[][..]),
                };
                let product = others.iter().zip(&at).fold(one, |product, (slice, &at)| {
                    T::default().plus_product(product, slice[at])
                });
                sum.plus_product(product, last)
            })
        }));
        let shape: Vec<usize> = output.iter().map(size_of).collect();
        let Some(mut output) = ctx.optional_output(0) else {
            return Ok(());
        };
        let view = TensorView::from_bytes(T::DATA_TYPE, &shape, bytemuck::cast_slice(&sums));
        convert(view, &mut output, SmallFloatRounding::default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use crate::error::OpError;
    use crate::tensor::Tensor;

    fn einsum(equation: &str, inputs: &[Tensor]) -> Option<Tensor> {
        Case::of("Einsum", 12)
            .text("equation", equation)
            .one(inputs)
            .ok()
    }

    #[test]
    fn einsum_sums_over_letters() {
        let a = tensor(&[2, 2], &[1i64, 2, 3, 4]);
        let b = tensor(&[2], &[5i64, 6]);
        assert_eq!(
            einsum("ij->ji", &[a.clone()]),
            Some(tensor(&[2, 2], &[1i64, 3, 2, 4]))
        );
        assert_eq!(
            einsum("ij->i", &[a.clone()]),
            Some(tensor(&[2], &[3i64, 7]))
        );
        assert_eq!(
            einsum("ii->i", &[a.clone()]),
            Some(tensor(&[2], &[1i64, 4]))
        );
        assert_eq!(einsum("ii", &[a.clone()]), Some(tensor(&[], &[5i64])));
        assert_eq!(
            einsum("ij, j -> i", &[a.clone(), b.clone()]),
            Some(tensor(&[2], &[17i64, 39]))
        );
        assert_eq!(
            einsum("...j,...j->...", &[a.clone(), b]),
            Some(tensor(&[2], &[17i64, 39]))
        );
        let floats = tensor(&[2], &[0.5f32, 2.]);
        assert_eq!(
            einsum("i,i", &[floats.clone(), floats]),
            Some(tensor(&[], &[4.25f32]))
        );
    }

    #[test]
    fn products_beyond_counting_are_an_error_and_those_of_nothing_are_none() {
        let long = tensor(&[1 << 14], &[0f32; 1 << 14]);
        let case = Case::of("Einsum", 12).text("equation", "a,b,c,d,e->");
        let mut inputs = vec![long; 5];
        let found = case.one(&inputs);
        assert!(matches!(found, Err(OpError::TooLarge { .. })), "{found:?}");
        inputs[4] = tensor(&[0], &[] as &[f32]);
        assert_eq!(case.one(&inputs), Ok(tensor(&[], &[0f32])));
    }

    #[test]
    fn wrong_equations_are_errors() {
        let a = tensor(&[2, 3], &[1f32; 6]);
        for equation in [
            "i->i",
            "ijk->i",
            "ij->ii",
            "ij->k",
            "i.j->i",
            "ij,jk->ik",
            "ii->i",
            "......->",
        ] {
            assert_eq!(einsum(equation, &[a.clone()]), None, "{equation}");
        }
    }
}
