//! `y = condition ? a : b`.

use bytemuck::Pod;

use super::{BLOCK, Expansion, for_each_piece};
use crate::kernels::env::Env;
use crate::kernels::scratch;
use crate::tensor::Bool;

/// Elements and how they are spread over the output.
pub type Spread<'a, T> = (&'a [T], &'a Expansion);

/// `y[i] = a[i]` where the condition is true, otherwise `b[i]`, each spread over the output.
///
/// # Panics
/// When an operand has fewer elements than its expansion reads.
pub fn select<T: Pod + Send + Sync>(
    env: &Env,
    condition: Spread<'_, Bool>,
    a: Spread<'_, T>,
    b: Spread<'_, T>,
    y: &mut [T],
) {
    for_each_piece(env, y, 2, |piece_start, y| {
        let n = BLOCK.min(y.len());
        scratch::with::<Bool, _>(n, |condition_block| {
            scratch::with::<T, _>(n, |a_block| {
                for (i, y) in y.chunks_mut(BLOCK).enumerate() {
                    let start = piece_start + i * BLOCK;
                    let range = start..start + y.len();
                    let condition_block = &mut condition_block[..y.len()];
                    let a_block = &mut a_block[..y.len()];
                    condition
                        .1
                        .copy_range(condition.0, range.clone(), condition_block);
                    a.1.copy_range(a.0, range.clone(), a_block);
                    b.1.copy_range(b.0, range, y);
                    for ((y, a), condition) in y.iter_mut().zip(a_block).zip(condition_block) {
                        *y = if condition.get() { *a } else { *y };
                    }
                }
            });
        });
    });
}
