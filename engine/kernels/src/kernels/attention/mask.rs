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
    /// Hides keys after the query's position.
    pub causal: bool,
    /// The position of query 0 where `key_lengths` is absent.
    pub offset: i64,
    /// Hides keys that are this far or farther before the query's position: key `j` is visible
    /// where `position − j < window`.
    pub window: Option<usize>,
    /// For each batch, how many keys there are; those after are hidden.
    pub key_lengths: Option<&'a [usize]>,
}

impl Visible<'_> {
    /// The keys `first..end` that query `query` of `batch` may see.
    pub(super) fn range(&self, sizes: Sizes, batch: usize, query: usize) -> (usize, usize) {
        let length = self
            .key_lengths
            .map_or(sizes.keys, |lengths| lengths[batch].min(sizes.keys));
        let offset = match self.key_lengths {
            Some(_) => length as i64 - sizes.queries as i64,
            None => self.offset,
        };
        let position = query as i64 + offset;
        let end = if self.causal {
            (position + 1).clamp(0, length as i64) as usize
        } else {
            length
        };
        let first = self
            .window
            .map_or(0, |window| (position + 1 - window as i64).max(0) as usize);
        (first.min(end), end)
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
