//! Which keys a query sees.

use super::Sizes;
use crate::tensor::Bool;

/// All that hides keys or shifts scores.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mask<'a> {
    /// A tensor of truth values or numbers.
    pub values: Option<MaskValues<'a>>,
    /// Which keys are visible by their position.
    pub visible: Visible<'a>,
}

/// A mask tensor, broadcast by strides of zero: the element for a query and key is at
/// `batch · strides[0] + head · strides[1] + query · strides[2] + key · strides[3]`.
#[derive(Debug, Clone, Copy)]
pub enum MaskValues<'a> {
    /// True where the query sees the key.
    Keep(&'a [Bool], [usize; 4]),
    /// Added to the scores.
    Add(&'a [f32], [usize; 4]),
}

/// Visibility by position. Query `i` stands at position `i + key_length − queries` when keys have
/// lengths (the queries are the newest positions), otherwise at `i + offset`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Visible<'a> {
    /// Hides keys that are more than this many positions before the query's.
    pub behind: Option<usize>,
    /// Hides keys that are more than this many positions after the query's: with 0 attention is causal.
    pub ahead: Option<usize>,
    /// The position of query 0 where `key_lengths` is absent.
    pub offset: i64,
    /// For each batch, how many keys there are; those after are hidden.
    pub key_lengths: Option<&'a [usize]>,
}

impl Visible<'_> {
    /// The keys `first..end` that query `query` of `batch` may see.
    pub fn range(&self, sizes: Sizes, batch: usize, query: usize) -> (usize, usize) {
        // Positions saturate: a window may be as large as a number can be.
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let length = self.key_lengths.map(|lengths| lengths[batch]);
        let offset = match length {
            Some(length) => signed(length).saturating_sub(signed(sizes.queries)),
            None => self.offset,
        };
        let position = signed(query).saturating_add(offset);
        let end = length.map_or(sizes.keys, |length| length.min(sizes.keys));
        let up_to = |n: i64, most: usize| usize::try_from(n.max(0)).unwrap_or(most).min(most);
        let end = self.ahead.map_or(end, |ahead| {
            let last = position.saturating_add(signed(ahead));
            up_to(last.saturating_add(1), end)
        });
        let first = self.behind.map_or(0, |behind| {
            up_to(position.saturating_sub(signed(behind)), end)
        });
        (first, end)
    }
}

impl Mask<'_> {
    /// # Panics
    /// If the mask does not cover the sizes.
    pub(super) fn check(&self, sizes: Sizes) {
        if let Some(lengths) = self.visible.key_lengths {
            assert_eq!(lengths.len(), sizes.batch, "a key length for each batch");
        }
        let (len, strides) = match self.values {
            None => return,
            Some(MaskValues::Keep(data, strides)) => (data.len(), strides),
            Some(MaskValues::Add(data, strides)) => (data.len(), strides),
        };
        let counts = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
        if counts.contains(&0) {
            return;
        }
        let last: usize = counts.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum();
        assert!(last < len, "a mask for every score");
    }
}
