//! What runs along one axis: the place of the extremum, running sums and products.
//!
//! The tensor is `[outer, len, inner]`, the axis in the middle.

use crate::limits;
use crate::tensor::Element;

/// Which element of an axis is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extremum {
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// The index of the extremum along the axis, for each of `outer · inner`; the last one of equals
/// where `takes_last`. A NaN counts as the extremum, as in numpy.
///
/// # Panics
/// When the lengths do not fit, or the axis is empty and the output is not.
#[expect(clippy::eq_op, reason = "only a NaN differs from itself")]
pub fn arg_extremum<T: Element + PartialOrd>(
    extremum: Extremum,
    takes_last: bool,
    len: usize,
    inner: usize,
    x: &[T],
    y: &mut [i64],
) {
    if y.is_empty() {
        return;
    }
    assert!(len > 0, "an empty axis has no extremum");
    let is_better = |new: T, best: T| {
        let beyond = match extremum {
            Extremum::Max => new > best,
            Extremum::Min => new < best,
        };
        if best != best {
            takes_last && new != new
        } else {
            beyond || new != new || takes_last && new == best
        }
    };
    let mut best = vec![x[0]; inner];
    for (x, y) in x.chunks_exact(len * inner).zip(y.chunks_exact_mut(inner)) {
        best.copy_from_slice(&x[..inner]);
        y.fill(0);
        for (i, row) in x.chunks_exact(inner).enumerate().skip(1) {
            for ((best, y), &new) in best.iter_mut().zip(&mut *y).zip(row) {
                if is_better(new, *best) {
                    *best = new;
                    *y = i as i64;
                }
            }
        }
    }
}

/// `y` along the axis: `y[i] = x[0] ∘ … ∘ x[i]` for an operation `∘`; without the last term where
/// `is_exclusive`; from the end where `is_reverse`.
///
/// # Panics
/// When the lengths do not fit.
#[expect(clippy::too_many_arguments, reason = "the operator's parameters")]
pub fn running<T: Element>(
    neutral: T,
    combine: impl Fn(T, T) -> T,
    is_exclusive: bool,
    is_reverse: bool,
    len: usize,
    inner: usize,
    x: &[T],
    y: &mut [T],
) {
    if y.is_empty() {
        return;
    }
    let mut sums = limits::filled(neutral, inner);
    let rows = x
        .chunks_exact(len * inner)
        .zip(y.chunks_exact_mut(len * inner));
    for (x, y) in rows {
        sums.fill(neutral);
        for i in 0..len {
            let at = if is_reverse { len - 1 - i } else { i } * inner;
            for ((sum, y), &x) in sums.iter_mut().zip(&mut y[at..]).zip(&x[at..]) {
                let next = combine(*sum, x);
                *y = if is_exclusive { *sum } else { next };
                *sum = next;
            }
        }
    }
}
