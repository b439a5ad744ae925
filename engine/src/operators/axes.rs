//! Axes, and the lists of integers that older opsets take as attributes and newer ones as inputs.

use smallvec::SmallVec;

use crate::error::OpError;
use crate::graph::{Attributes, Int, Ints};
use crate::operator::{InferContext, RunContext};

/// An axis of a tensor with `rank` axes, counted from the end where it is negative.
///
/// # Errors
/// When it is outside of `-rank..rank`.
pub(super) fn normalize_axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    normalize_index(axis, rank).ok_or_else(|| {
        OpError::value(
            "axis",
            format!("a number from -{rank} to {}", rank as i64 - 1),
            axis,
        )
    })
}

/// An index below `len`, counted from the end where it is negative.
pub(super) fn normalize_index(index: i64, len: usize) -> Option<usize> {
    let signed_len = i64::try_from(len).ok()?;
    let index = if index < 0 { index + signed_len } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}

/// The number from 0 to `most` that is nearest.
pub(super) fn clamped(n: i64, most: usize) -> usize {
    at_most(n).min(most)
}

/// A size: a number of at least 0 that this machine can count to.
///
/// # Errors
/// Where it is none, with `name` in it.
pub(super) fn size(name: &'static str, n: i64) -> Result<usize, OpError> {
    if n < 0 {
        return Err(OpError::value(name, "at least 0", n));
    }
    usize::try_from(n).map_err(|_| OpError::TooLarge {
        what: format!("{name} of {n}"),
    })
}

/// At most so many: a limit beyond what this machine can count to is none, one below 0 is 0.
pub(super) fn at_most(limit: i64) -> usize {
    usize::try_from(limit.max(0)).unwrap_or(usize::MAX)
}

/// Which of `rank` axes are listed, each at most once.
///
/// # Errors
/// When one is out of range or listed twice.
pub(super) fn axis_set(axes: &[i64], rank: usize) -> Result<SmallVec<[bool; 8]>, OpError> {
    let mut listed = SmallVec::from_elem(false, rank);
    for &axis in axes {
        let at = normalize_axis(axis, rank)?;
        if std::mem::replace(&mut listed[at], true) {
            return Err(OpError::value(
                "axes",
                "different axes",
                format!("{axes:?}"),
            ));
        }
    }
    Ok(listed)
}

/// Where an operator finds a list of integers.
#[derive(Debug, Clone)]
pub(super) enum IntList {
    /// In an attribute, or nowhere.
    Attribute(Option<Vec<i64>>),
    /// In the input of this index.
    Input(usize),
}

/// What `infer` can know of an [`IntList`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum KnownList {
    /// There is none.
    Absent,
    /// There is one.
    Unknown,
    /// Its length and some of its elements are known.
    Ints(Ints),
}

impl KnownList {
    /// The elements, where all are known.
    pub(super) fn known(&self) -> Option<SmallVec<[i64; 8]>> {
        match self {
            Self::Ints(ints) => ints.iter().map(Int::known).collect(),
            _ => None,
        }
    }
}

impl IntList {
    /// The attribute `name`.
    ///
    /// # Errors
    /// When it is no list of integers.
    pub(super) fn attribute(node: &Attributes, name: &str) -> Result<Self, OpError> {
        Ok(Self::Attribute(
            node.optional_ints(name)?.map(<[i64]>::to_vec),
        ))
    }

    /// What is known of the list.
    pub(super) fn infer(&self, inputs: &InferContext<'_>) -> KnownList {
        match self {
            Self::Attribute(None) => KnownList::Absent,
            Self::Attribute(Some(list)) => {
                KnownList::Ints(list.iter().copied().map(Int::Known).collect())
            }
            Self::Input(i) => match inputs.optional(*i) {
                None => KnownList::Absent,
                Some(input) => input.ints().map_or(KnownList::Unknown, KnownList::Ints),
            },
        }
    }

    /// The list in a run; `None` where it is absent.
    ///
    /// # Errors
    /// When the input is no tensor of int64 or int32.
    pub(super) fn read(&self, ctx: &RunContext<'_>) -> Result<Option<SmallVec<[i64; 8]>>, OpError> {
        match self {
            Self::Attribute(list) => Ok(list.as_deref().map(SmallVec::from_slice)),
            Self::Input(i) => ctx.optional_input(*i)?.map(|v| v.to_i64s()).transpose(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_count_from_both_ends() {
        assert_eq!(normalize_axis(-1, 3), Ok(2));
        assert_eq!(normalize_axis(2, 3), Ok(2));
        for (axis, rank) in [(3, 3), (-4, 3), (0, 0), (i64::MIN, 2), (i64::MAX, 2)] {
            assert!(normalize_axis(axis, rank).is_err(), "{axis} of {rank}");
        }
    }

    #[test]
    fn axis_sets_reject_repetition() {
        assert_eq!(
            axis_set(&[-1, 0], 3).expect("fits")[..],
            [true, false, true]
        );
        assert!(axis_set(&[2, -1], 3).is_err());
    }
}
