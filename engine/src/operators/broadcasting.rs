//! ONNX broadcasting: shapes are aligned at their last axes, and an axis of size 1 is repeated.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md>.

use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Dim, Dims};
use crate::operator::InferContext;
use crate::tensor::{Shape, row_major_strides};

/// The shape that all of `shapes` broadcast to.
///
/// # Errors
/// When two sizes differ and neither is 1.
pub(super) fn broadcast_dims(shapes: &[&[Dim]]) -> Result<Dims, OpError> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut result = Dims::from_elem(Dim::Known(1), rank);
    for shape in shapes {
        let offset = rank - shape.len();
        for (to, from) in result[offset..].iter_mut().zip(*shape) {
            *to = broadcast_dim(to, from).ok_or_else(|| {
                let all: Vec<String> = shapes.iter().map(|s| display_dims(Some(s))).collect();
                OpError::shape("inputs", "shapes that broadcast", all.join(" and "))
            })?;
        }
    }
    Ok(result)
}

/// [`broadcast_dims`] of all inputs that are present, `None` where a rank is not known.
///
/// # Errors
/// When they do not fit each other.
pub(super) fn broadcast_inputs(inputs: &InferContext<'_>) -> Result<Option<Dims>, OpError> {
    let dims: Option<Vec<&[Dim]>> = inputs.present().map(|input| input.dims).collect();
    dims.map(|dims| broadcast_dims(&dims)).transpose()
}

/// The size of an axis that two sizes broadcast to, `None` where they do not.
fn broadcast_dim(a: &Dim, b: &Dim) -> Option<Dim> {
    Some(match (a, b) {
        (Dim::Known(1), other) | (other, Dim::Known(1)) => other.clone(),
        (Dim::Known(n), Dim::Known(m)) if n != m => return None,
        (Dim::Known(n), _) | (_, Dim::Known(n)) => Dim::Known(*n),
        (a, b) if a.surely_equals(b) => a.clone(),
        (Dim::Symbol(a), Dim::Symbol(b)) => Dim::either(a, b),
        _ => Dim::Unknown,
    })
}

/// Strides in elements with which a contiguous tensor of `shape` is read under the broadcast shape
/// `to`: 0 along repeated axes.
pub(super) fn broadcast_strides(shape: &[usize], to: &[usize]) -> Shape {
    let mut strides = Shape::from_elem(0, to.len());
    let offset = to.len() - shape.len();
    let own = row_major_strides(shape);
    for (axis, (&size, stride)) in shape.iter().zip(own).enumerate() {
        if size != 1 {
            strides[offset + axis] = stride;
        }
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(shape: &[usize]) -> Dims {
        crate::graph::dimension::known_dims(shape)
    }

    #[test]
    fn shapes_broadcast_from_their_ends() {
        let cases: &[(&[usize], &[usize], Option<&[usize]>)] = &[
            (&[2, 3], &[3], Some(&[2, 3])),
            (&[], &[4, 1], Some(&[4, 1])),
            (&[1, 5], &[4, 1], Some(&[4, 5])),
            (&[0], &[1], Some(&[0])),
            (&[2], &[3], None),
        ];
        for (a, b, expected) in cases {
            let found = broadcast_dims(&[&known(a), &known(b)]).ok();
            assert_eq!(found, expected.map(known), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn symbols_broadcast_as_far_as_they_are_known() {
        let n = Dim::Symbol("n".into());
        let found = broadcast_dims(&[&[n.clone(), n.clone()], &[Dim::Known(1), Dim::Known(4)]]);
        assert_eq!(found.expect("fits")[..], [n.clone(), Dim::Known(4)]);
        let m = Dim::Symbol("m".into());
        let symbol = |name: &str| Dim::Symbol(name.into());
        let broadcast = |a: &Dim, b: &Dim| {
            let dims = broadcast_dims(&[std::slice::from_ref(a), std::slice::from_ref(b)]);
            dims.expect("fits").remove(0)
        };
        assert_eq!(broadcast(&n, &m), symbol("m|n"));
        assert_eq!(broadcast(&m, &n), symbol("m|n"));
        // In whichever order, and each name once.
        let (a, b) = (symbol("a|n"), symbol("m|n"));
        assert_eq!(broadcast(&a, &b), symbol("a|m|n"));
        assert_eq!(broadcast(&a, &Dim::Unknown), Dim::Unknown);
        let many: Vec<String> = (0..8).map(|i| i.to_string()).collect();
        assert_eq!(broadcast(&symbol(&many.join("|")), &n), Dim::Unknown);
    }

    #[test]
    fn repeated_axes_have_stride_zero() {
        assert_eq!(broadcast_strides(&[3, 1], &[2, 3, 4])[..], [0, 1, 0]);
        assert_eq!(broadcast_strides(&[], &[2]).as_slice(), &[0]);
    }
}
