//! Reductions with the same bits on every instruction set.
//!
//! A sum of floats depends on its order. Here element `i` always belongs to lane `i % 16`, each
//! lane is reduced in the order of its elements, and the 16 lanes are joined by one tree:
//!
//! ```text
//! lane[l] = ((x[l] + x[l+16]) + x[l+32]) + …          l = 0..16, missing elements are neutral
//! for width in [8, 4, 2, 1]: lane[l] += lane[l + width]   l = 0..width
//! ```
//!
//! AVX-512 holds the 16 lanes in one register, AVX2 in two, NEON and SIMD128 in four; the scalar
//! instruction set in sixteen. It is also the quick way, so both numerics use it.

use super::Isa;

/// Folds a slice in 16 lanes: `step` sees, for each block of 16 elements, the lanes so far and the
/// elements, vector by vector. The last block is filled up with `neutral`.
#[inline(always)]
pub fn fold<I: Isa>(
    isa: I,
    x: &[f32],
    neutral: f32,
    mut step: impl FnMut(I::F32, I::F32) -> I::F32,
) -> I::F32x16 {
    let mut lanes = isa.splat16(neutral);
    let mut blocks = x.chunks_exact(16);
    for block in &mut blocks {
        for (lane, part) in lanes.as_mut().iter_mut().zip(block.chunks_exact(I::LANES)) {
            *lane = step(*lane, isa.load(part));
        }
    }
    let tail = blocks.remainder();
    if !tail.is_empty() {
        let mut block = [neutral; 16];
        block[..tail.len()].copy_from_slice(tail);
        for (lane, part) in lanes.as_mut().iter_mut().zip(block.chunks_exact(I::LANES)) {
            *lane = step(*lane, isa.load(part));
        }
    }
    lanes
}

/// Joins 16 lanes by the fixed tree.
#[inline(always)]
pub fn join<I: Isa>(isa: I, lanes: I::F32x16, mut step: impl FnMut(f32, f32) -> f32) -> f32 {
    let mut values = [0.0; 16];
    for (lane, part) in lanes.as_ref().iter().zip(values.chunks_exact_mut(I::LANES)) {
        isa.store(*lane, part);
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            values[i] = step(values[i], values[i + width]);
        }
    }
    values[0]
}

/// `Σ x[i]`; zero for an empty slice.
#[inline(always)]
pub fn sum<I: Isa>(isa: I, x: &[f32]) -> f32 {
    join(
        isa,
        fold(isa, x, 0.0, |lane, x| isa.add(lane, x)),
        |a, b| a + b,
    )
}

/// `Σ x[i]²`; zero for an empty slice.
#[inline(always)]
pub fn sum_of_squares<I: Isa>(isa: I, x: &[f32]) -> f32 {
    join(
        isa,
        fold(isa, x, 0.0, |lane, x| isa.mul_add(x, x, lane)),
        |a, b| a + b,
    )
}

/// The largest element, NaN skipped; negative infinity for an empty slice.
#[inline(always)]
pub fn max<I: Isa>(isa: I, x: &[f32]) -> f32 {
    join(
        isa,
        fold(isa, x, f32::NEG_INFINITY, |lane, x| isa.max(x, lane)),
        |a, b| if b > a { b } else { a },
    )
}

/// The smallest element, NaN skipped; infinity for an empty slice.
#[inline(always)]
pub fn min<I: Isa>(isa: I, x: &[f32]) -> f32 {
    join(
        isa,
        fold(isa, x, f32::INFINITY, |lane, x| isa.min(x, lane)),
        |a, b| if b < a { b } else { a },
    )
}

/// `Σ a[i] · b[i]` over the shorter length.
#[inline(always)]
pub fn dot<I: Isa>(isa: I, a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let mut lanes = isa.splat16(0.0);
    let (mut a_blocks, mut b_blocks) = (a.chunks_exact(16), b.chunks_exact(16));
    let mut step = |a: &[f32], b: &[f32]| {
        let parts = a.chunks_exact(I::LANES).zip(b.chunks_exact(I::LANES));
        for (lane, (a, b)) in lanes.as_mut().iter_mut().zip(parts) {
            *lane = isa.mul_add(isa.load(a), isa.load(b), *lane);
        }
    };
    for (a, b) in (&mut a_blocks).zip(&mut b_blocks) {
        step(a, b);
    }
    let (a_tail, b_tail) = (a_blocks.remainder(), b_blocks.remainder());
    if !a_tail.is_empty() {
        let (mut a, mut b) = ([0.0; 16], [0.0; 16]);
        a[..a_tail.len()].copy_from_slice(a_tail);
        b[..b_tail.len()].copy_from_slice(b_tail);
        step(&a, &b);
    }
    join(isa, lanes, |a, b| a + b)
}
