//! Broadcasting of one operand: which of its elements stands at each place of the output.

use std::ops::Range;

use smallvec::SmallVec;

use crate::tensor::{Shape, row_major_strides};

/// The shape of the multidirectional broadcast of `shapes` (numpy's rule), or `None` where they do
/// not fit each other.
pub fn broadcast_shape(shapes: &[&[usize]]) -> Option<Shape> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut output = Shape::from_elem(1, rank);
    for shape in shapes {
        for (size, &n) in output[rank - shape.len()..].iter_mut().zip(*shape) {
            match (*size, n) {
                (_, 1) => {}
                (1, n) => *size = n,
                (m, n) if m == n => {}
                _ => return None,
            }
        }
    }
    Some(output)
}

/// An axis of the output, and how far a step along it moves in the operand.
#[derive(Debug, Clone, Copy)]
struct Axis {
    size: usize,
    stride: usize,
}

/// How an operand is spread over the output: its axes, neighbours merged as far as possible. The
/// innermost one has stride 1 (elements in a row) or 0 (one element repeated).
#[derive(Debug, Clone)]
pub struct Expansion {
    axes: SmallVec<[Axis; 6]>,
}

impl Expansion {
    /// The expansion of `shape` to `output`, which [`broadcast_shape`] has made from it and others.
    ///
    /// # Panics
    /// When `shape` has more axes than `output`.
    pub fn new(shape: &[usize], output: &[usize]) -> Expansion {
        let missing = output.len() - shape.len();
        let strides = row_major_strides(shape);
        let mut axes: SmallVec<[Axis; 6]> = SmallVec::new();
        for (axis, &size) in output.iter().enumerate().filter(|(_, size)| **size != 1) {
            let own = axis.checked_sub(missing).filter(|&i| shape[i] != 1);
            let stride = own.map_or(0, |i| strides[i]);
            match axes.last_mut() {
                Some(outer) if outer.stride == stride * size => {
                    *outer = Axis {
                        size: outer.size * size,
                        stride,
                    };
                }
                _ => axes.push(Axis { size, stride }),
            }
        }
        if axes.is_empty() {
            axes.push(Axis { size: 1, stride: 0 });
        }
        Expansion { axes }
    }

    /// Whether the operand has the output's elements in the output's order.
    pub fn is_identity(&self) -> bool {
        matches!(
            self.axes[..],
            [Axis { stride: 1, .. }] | [Axis { size: 1, .. }]
        )
    }

    /// Whether the operand is one element.
    pub fn is_constant(&self) -> bool {
        matches!(self.axes[..], [Axis { stride: 0, .. }])
    }

    /// Writes what stands at the places `range` of the output (row-major) to `target`, which is as
    /// long as the range.
    #[inline]
    pub fn copy_range<T: Copy>(&self, source: &[T], range: Range<usize>, target: &mut [T]) {
        debug_assert_eq!(range.len(), target.len());
        if range.is_empty() {
            return;
        }
        let (inner, outer) = self.axes.split_last().expect("there is at least one axis");
        let mut position = range.start % inner.size;
        let mut row = range.start / inner.size;
        // The coordinates of the row, and where it begins in the operand.
        let mut coordinates: SmallVec<[usize; 6]> = SmallVec::from_elem(0, outer.len());
        let mut offset = 0;
        for (coordinate, axis) in coordinates.iter_mut().zip(outer).rev() {
            *coordinate = row % axis.size;
            row /= axis.size;
            offset += *coordinate * axis.stride;
        }
        let mut rest = target;
        loop {
            let run = (inner.size - position).min(rest.len());
            let (part, tail) = rest.split_at_mut(run);
            if inner.stride == 1 {
                part.copy_from_slice(&source[offset + position..][..run]);
            } else {
                part.fill(source[offset]);
            }
            rest = tail;
            if rest.is_empty() {
                return;
            }
            position = 0;
            for (coordinate, axis) in coordinates.iter_mut().zip(outer).rev() {
                *coordinate += 1;
                offset += axis.stride;
                if *coordinate < axis.size {
                    break;
                }
                offset -= axis.size * axis.stride;
                *coordinate = 0;
            }
        }
    }
}
