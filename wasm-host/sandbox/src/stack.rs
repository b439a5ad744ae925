//! Wipes the stack below the caller: what guest code and native kernels spilled there.

use std::hint::black_box;

/// Bytes below the caller that are overwritten. Guests are compiled code with frames of a few
/// hundred bytes that nest as deep as a model's subgraphs; this is far below what they reach.
const WIPED_BYTES: usize = 64 << 10;

/// Overwrites the stack below the caller's frame.
#[inline(never)]
pub fn wipe() {
    let mut frame = [0u8; WIPED_BYTES];
    // The array counts as used, so that the stores stay.
    black_box(&mut frame);
}
