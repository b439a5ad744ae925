//! One block of memory for all intermediate tensors of a run.
//!
//! Several pieces are lent at once, some to be read and some to be written. That they do not
//! overlap is decided by the layout, but checked here, each time: a mistake in the layout is an
//! error, never two names for one byte.
#![expect(
    unsafe_code,
    reason = "disjoint parts of one buffer are lent at the same time"
)]

use smallvec::SmallVec;
use std::ops::Range;

use crate::error::OpError;
use crate::limits::Shortage;
use crate::tensor::Buffer;

/// The block.
#[derive(Debug, Default)]
pub(super) struct Arena {
    buffer: Buffer,
}

/// Pieces of an arena, in the order of the ranges.
pub(super) struct Pieces<'a> {
    pub(super) reads: SmallVec<[&'a [u8]; 16]>,
    pub(super) writes: SmallVec<[&'a mut [u8]; 8]>,
}

impl Arena {
    /// Makes the arena at least `len` bytes long. From now on it counts as memory of this run.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn reserve(&mut self, len: usize) -> Result<(), Shortage> {
        let len = len.max(self.buffer.len());
        self.buffer.resize_for_overwrite(len)
    }

    /// Overwrites all of it with zeros and gives their number.
    pub(super) fn wipe(&mut self) -> usize {
        self.buffer.fill(0);
        self.buffer.len()
    }

    /// One piece, to be read.
    pub(super) fn read(&self, range: Range<usize>) -> Option<&[u8]> {
        self.buffer.get(range)
    }

    /// Lends all the pieces at once.
    ///
    /// # Errors
    /// When a written piece overlaps another one, or a piece lies outside of the arena.
    pub(super) fn lend(
        &mut self,
        reads: &[Range<usize>],
        writes: &[Range<usize>],
    ) -> Result<Pieces<'_>, OpError> {
        let overlaps = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        let inside = |r: &Range<usize>| r.start <= r.end && r.end <= self.buffer.len();
        let sound = reads.iter().chain(writes).all(inside)
            && writes.iter().enumerate().all(|(i, w)| {
                !reads.iter().any(|r| overlaps(w, r))
                    && !writes[i + 1..].iter().any(|other| overlaps(w, other))
            });
        if !sound {
            return Err(OpError::Internal {
                what: "pieces of the arena overlap".into(),
            });
        }
        let base = self.buffer.as_mut_ptr();
        Ok(Pieces {
            reads: reads
                .iter()
                // SAFETY: the range is inside the buffer and no written range overlaps it (both
                // checked above); the borrow of `self` keeps everybody else out.
                .map(|r| unsafe { std::slice::from_raw_parts(base.add(r.start), r.len()) })
                .collect(),
            writes: writes
                .iter()
                // SAFETY: as above, and no two written ranges overlap.
                .map(|w| unsafe { std::slice::from_raw_parts_mut(base.add(w.start), w.len()) })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disjoint_pieces_are_lent_and_others_refused() {
        let mut arena = Arena::default();
        arena.reserve(64).expect("memory");
        {
            let pieces = arena
                .lend(&[0..8, 4..12], &[12..20, 20..24])
                .expect("disjoint");
            pieces.writes.into_iter().for_each(|w| w.fill(7));
            assert_eq!(pieces.reads[1].len(), 8);
        }
        assert_eq!(arena.read(12..24), Some(&[7u8; 12][..]));
        let bad: [(&[Range<usize>], &[Range<usize>]); 4] = [
            (&[0..8], &[4..12]),
            (&[], &[0..8, 7..9]),
            (&[], &[60..65]),
            (&[Range { start: 8, end: 4 }], &[]),
        ];
        for (reads, writes) in bad {
            assert!(arena.lend(reads, writes).is_err(), "{reads:?} {writes:?}");
        }
    }
}
