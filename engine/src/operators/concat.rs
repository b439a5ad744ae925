//! `Concat`: tensors one behind another along an axis.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Concat.html>, opsets 1 (axis 1 by default), 4, 11,
//! 13. Shapes: equal but for `axis`, along which they add up. Types: any.

use smallvec::SmallVec;

use super::axes::normalize_axis;
use super::rearrange::{Interleave, rearrange};
use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Attributes, Dim, Int, Ints};
use crate::operator::{InferContext, InputInfo, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Shape, TensorView};

/// The operator.
#[derive(Debug)]
pub(super) struct Concat {
    axis: i64,
}

/// `Concat` of opset 1, whose axis has a default.
pub(super) struct ConcatDefaultAxis;

impl Concat {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: *node.int("axis")?,
        })
    }
}

impl ConcatDefaultAxis {
    pub(super) fn parse(node: &Attributes) -> Result<Concat, OpError> {
        Ok(Concat {
            axis: node.int_or("axis", 1)?,
        })
    }
}

impl Operator for Concat {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let first = inputs.required(0, "inputs")?;
        let data_type = first.data_type()?;
        if let Some(other) = inputs.present().find(|i| i.data_type() != Ok(data_type)) {
            return Err(OpError::InputType {
                input: "inputs",
                expected: data_type.to_string(),
                found: other.data_type()?,
            });
        }
        let Some(ranked) = inputs.present().find_map(|i| i.dims) else {
            return Ok(OutputInfo::maybe(data_type, None).into());
        };
        let axis = normalize_axis(self.axis, ranked.len())?;
        let mut dims: smallvec::SmallVec<[Dim; 8]> = ranked.into();
        let mut total = Some(0usize);
        for input in inputs.present() {
            let Some(found) = input.dims else {
                total = None;
                continue;
            };
            let mismatch = || {
                OpError::shape(
                    "inputs",
                    format!("shapes equal but for axis {axis}"),
                    format!(
                        "{} and {}",
                        display_dims(Some(ranked)),
                        display_dims(Some(found))
                    ),
                )
            };
            if found.len() != dims.len() {
                return Err(mismatch());
            }
            for (i, (dim, found)) in dims.iter_mut().zip(found).enumerate() {
                match (&*dim, found) {
                    _ if i == axis => {}
                    (Dim::Known(a), Dim::Known(b)) if a != b => return Err(mismatch()),
                    (Dim::Known(_), _) => {}
                    (_, Dim::Known(n)) => *dim = Dim::Known(*n),
                    _ => {}
                }
            }
            total = total.and_then(|t| t.checked_add(found[axis].known()?));
        }
        dims[axis] = match total {
            Some(n) => Dim::Known(n),
            None if inputs.len() == 1 => dims[axis].clone(),
            None => Dim::Unknown,
        };
        let ints = (ranked.len() == 1 && data_type.is_integer())
            .then(|| all_ints(inputs.present()))
            .flatten();
        Ok(OutputInfo::tensor(data_type, dims).with_ints(ints).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let views: SmallVec<[TensorView<'_>; 16]> = (0..ctx.input_count())
            .map(|i| ctx.input(i, "inputs"))
            .collect::<Result<_, _>>()?;
        let first = views
            .first()
            .ok_or(OpError::MissingInput { input: "inputs" })?;
        let axis = normalize_axis(self.axis, first.rank())?;
        let inner = |view: &TensorView<'_>| view.shape()[axis..].iter().product();
        let chunks: SmallVec<[usize; 16]> = views.iter().map(inner).collect();
        let mut shape = Shape::from_slice(first.shape());
        shape[axis] = views.iter().map(|v| v.shape()[axis]).sum();
        rearrange(ctx, &views, 0, &shape, Interleave { chunks: &chunks })
    }
}

/// The inputs' elements one behind another, if there are few.
fn all_ints<'a>(inputs: impl Iterator<Item = InputInfo<'a>>) -> Option<Ints> {
    let mut all = Ints::new();
    for input in inputs {
        all.extend(input.ints()?);
    }
    let known = all.iter().any(|i| *i != Int::Unknown);
    (known && all.len() <= 64).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, strings, tensor};
    use crate::tensor::{DataType, Tensor};

    #[test]
    fn concat_joins_along_any_axis() {
        let a = tensor(&[2, 2], &[1f32, 2., 3., 4.]);
        let b = tensor(&[2, 1], &[5f32, 6.]);
        let case = |axis| Case::of("Concat", 13).int("axis", axis);
        let expected = tensor(&[2, 3], &[1f32, 2., 5., 3., 4., 6.]);
        assert_eq!(case(1).one(&[a.clone(), b.clone()]), Ok(expected.clone()));
        assert_eq!(case(-1).one(&[a.clone(), b.clone()]), Ok(expected));
        assert!(case(0).one(&[a.clone(), b.clone()]).is_err());
        assert!(case(2).one(&[a.clone(), a.clone()]).is_err());
        assert!(case(0).one(&[a, tensor(&[1], &[1f32])]).is_err());
    }

    #[test]
    fn concat_joins_nibbles_and_strings() {
        let a = Tensor::from_bytes(DataType::Int4, &[3], vec![0x21, 0x03]).expect("fits");
        let joined = Case::of("Concat", 13).int("axis", 0).one(&[a.clone(), a]);
        assert_eq!(joined.expect("fits").bytes(), [0x21, 0x13, 0x32]);
        let text = strings(&[1], &["x"]);
        let joined = Case::of("Concat", 13)
            .int("axis", 0)
            .one(&[text.clone(), text]);
        assert_eq!(joined, Ok(strings(&[2], &["x", "x"])));
    }

    #[test]
    fn concat_rejects_mixed_types() {
        let case = Case::of("Concat", 13).int("axis", 0);
        assert!(
            case.one(&[tensor(&[1], &[1f32]), tensor(&[1], &[1i32])])
                .is_err()
        );
    }
}
