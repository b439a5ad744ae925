//! `Squeeze` and `Unsqueeze`: axes of size 1 taken away or put in.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Squeeze.html>,
//! <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html>; opsets 1 to 25, `axes` an attribute
//! before 13. Types: any.

use super::axes::{IntList, KnownList, axis_set};
use super::reshape::reshape_input;
use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Attributes, Dim, Dims};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// `Squeeze`: without axes, all of size 1 go.
#[derive(Debug)]
pub(super) struct Squeeze {
    axes: IntList,
}

/// `Squeeze` before opset 13.
pub(super) struct SqueezeAttributeAxes;

/// `Unsqueeze`: the axes count in the output.
#[derive(Debug)]
pub(super) struct Unsqueeze {
    axes: IntList,
}

/// `Unsqueeze` before opset 13.
pub(super) struct UnsqueezeAttributeAxes;

impl Squeeze {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        let axes = IntList::Input(1);
        Ok(Self { axes })
    }
}

impl SqueezeAttributeAxes {
    pub(super) fn parse(node: &Attributes) -> Result<Squeeze, OpError> {
        let axes = IntList::attribute(node, "axes")?;
        Ok(Squeeze { axes })
    }
}

impl Unsqueeze {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        let axes = IntList::Input(1);
        Ok(Self { axes })
    }
}

impl UnsqueezeAttributeAxes {
    pub(super) fn parse(node: &Attributes) -> Result<Unsqueeze, OpError> {
        let axes = IntList::Attribute(Some(node.ints("axes")?.to_vec()));
        Ok(Unsqueeze { axes })
    }
}

fn squeezed(from: &[Dim], axes: Option<&[i64]>) -> Result<Option<Dims>, OpError> {
    let Some(axes) = axes else {
        // Whether an axis of unknown size goes is unknown.
        let decided = from.iter().all(|d| d.known().is_some());
        let stays = |d: &&Dim| **d != Dim::Known(1);
        return Ok(decided.then(|| from.iter().filter(stays).cloned().collect()));
    };
    let listed = axis_set(axes, from.len())?;
    if let Some((_, Dim::Known(size))) = listed
        .iter()
        .zip(from)
        .find(|(listed, dim)| **listed && dim.known().is_some_and(|n| n != 1))
    {
        return Err(OpError::shape(
            "data",
            format!("size 1 at axes {axes:?}"),
            format!("{size} in {}", display_dims(Some(from))),
        ));
    }
    let stays = listed.iter().zip(from).filter(|(listed, _)| !**listed);
    Ok(Some(stays.map(|(_, dim)| dim.clone()).collect()))
}

fn unsqueezed(from: &[Dim], axes: &[i64]) -> Result<Dims, OpError> {
    let listed = axis_set(axes, from.len() + axes.len())?;
    let mut from = from.iter().cloned();
    let dim = |listed: &bool| match listed {
        true => Some(Dim::Known(1)),
        false => from.next(),
    };
    Ok(listed.iter().filter_map(dim).collect())
}

impl Operator for Squeeze {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let axes = self.axes.infer(inputs);
        let dims = match (data.dims, axes.known(), &axes) {
            (Some(from), Some(axes), _) => squeezed(from, Some(&axes))?,
            (Some(from), None, KnownList::Absent) => squeezed(from, None)?,
            _ => None,
        };
        Ok(OutputInfo::maybe(data.data_type()?, dims)
            .with_ints(data.ints.map(Into::into))
            .into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        reshape_input(ctx, "data", |ctx, from| {
            let axes = self.axes.read(ctx)?;
            Ok(squeezed(from, axes.as_deref())?.unwrap_or_default())
        })
    }

    fn is_alias(&self) -> bool {
        true
    }
}

impl Operator for Unsqueeze {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let axes = self.axes.infer(inputs);
        let dims = match (data.dims, axes.known(), &axes) {
            (_, None, KnownList::Absent) => return Err(OpError::MissingInput { input: "axes" }),
            (Some(from), Some(axes), _) => Some(unsqueezed(from, &axes)?),
            (Some(from), None, KnownList::Ints(axes)) => {
                Some(Dims::from_elem(Dim::Unknown, from.len() + axes.len()))
            }
            _ => None,
        };
        let ints = data
            .ints
            .filter(|_| dims.as_ref().is_some_and(|d| d.len() <= 1));
        Ok(OutputInfo::maybe(data.data_type()?, dims)
            .with_ints(ints.map(Into::into))
            .into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        reshape_input(ctx, "data", |ctx, from| {
            let axes = self.axes.read(ctx)?;
            unsqueezed(from, &axes.unwrap_or_default())
        })
    }

    fn is_alias(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};
    use super::*;

    fn shape_after(
        op_type: &'static str,
        from: &[usize],
        axes: Option<&[i64]>,
    ) -> Option<Vec<usize>> {
        let data = tensor(from, &vec![1i32; from.iter().product()]);
        let mut old = Case::of(op_type, 11);
        let mut inputs = vec![data.clone()];
        if let Some(axes) = axes {
            old = old.ints("axes", axes);
            inputs.push(ints(axes));
        }
        let found = Case::of(op_type, 13).one(&inputs);
        assert_eq!(
            old.one(&[data]).ok(),
            found.clone().ok(),
            "opsets differ for {axes:?}"
        );
        found.ok().map(|t| t.shape().to_vec())
    }

    #[test]
    fn squeeze_drops_axes_of_size_one() {
        let from = [1, 3, 1, 5];
        assert_eq!(shape_after("Squeeze", &from, None), Some(vec![3, 5]));
        assert_eq!(
            shape_after("Squeeze", &from, Some(&[-2])),
            Some(vec![1, 3, 5])
        );
        assert_eq!(shape_after("Squeeze", &from, Some(&[1])), None);
        assert_eq!(shape_after("Squeeze", &from, Some(&[4])), None);
        assert_eq!(shape_after("Squeeze", &[], None), Some(vec![]));
    }

    #[test]
    fn unsqueeze_counts_axes_in_its_output() {
        assert_eq!(
            shape_after("Unsqueeze", &[3], Some(&[0, -1])),
            Some(vec![1, 3, 1])
        );
        assert_eq!(shape_after("Unsqueeze", &[], Some(&[0])), Some(vec![1]));
        assert_eq!(shape_after("Unsqueeze", &[3], Some(&[0, 0])), None);
        assert_eq!(shape_after("Unsqueeze", &[3], Some(&[2])), None);
    }

    #[test]
    fn axes_of_unknown_size_stay_undecided() {
        assert_eq!(squeezed(&[Dim::Unknown, Dim::Known(1)], None), Ok(None));
        let kept = squeezed(&[Dim::Unknown, Dim::Known(1)], Some(&[1]));
        assert_eq!(kept.expect("fits").expect("known")[..], [Dim::Unknown]);
    }
}
