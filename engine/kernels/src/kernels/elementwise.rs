//! Element-wise kernels: one input ([`map`]), two with broadcasting ([`zip`]).
//!
//! All of them work block by block, with blocks that stay in the first-level cache: an operand
//! that is broadcast, stored as a 16-bit float, or about to be overwritten is first laid out as a
//! plain block ([`Expansion::copy_range`]), so that a function is one tight loop over slices and
//! nothing else. Large tensors are split over the threads.

use crate::kernels::env::Env;

mod binary;
mod expansion;
#[cfg(test)]
mod tests;
mod unary;

pub use binary::{
    Arithmetic, BinaryFunction, BitPattern, Bits, Comparison, Logic, Number, Operand, arithmetic,
    bits, compare, logic, zip,
};
pub use expansion::{Expansion, broadcast_shape};
pub use unary::{Unary, map, map_doubles, map_plain};

/// Elements of a block.
const BLOCK: usize = 1024;

/// Splits `y` over the threads where it is long enough for work of `cost` (1: an addition, 8: an
/// exponential) to pay for waking them, and calls `work(start, piece)`.
fn for_each_piece<T: Send>(
    env: &Env,
    y: &mut [T],
    cost: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    if y.is_empty() {
        return;
    }
    let piece = env.threads.piece_len(y.len(), 65_536 / cost.max(1), BLOCK);
    env.threads
        .for_each_chunk_mut(y, piece, |i, chunk| work(i * piece, chunk));
}
