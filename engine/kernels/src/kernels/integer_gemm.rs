//! Products of matrices of bytes: `[M, K] × [K, N] → [M, N]`, exact in `i32`.
//!
//! ```text
//! C[m, n] = Σ_k (A[m, k] − za[m]) · (B[k, n] − zb[n])
//!         = Σ_k A·B  −  za[m] · Σ_k B[k, n]  −  zb[n] · Σ_k A[m, k]  +  K · za[m] · zb[n]
//! ```
//!
//! The first sum is the work; the others need only the sums of columns (kept with the packed B)
//! and of rows (taken only where `zb` is not zero). Both operands may be signed or unsigned: A is
//! shifted to `u8` and B to `i8` by flipping the top bit, the zero points with them, which leaves
//! every difference as it was and is what the byte dot products
//! ([`ByteDot`](crate::isa::ByteDot)) want.
//!
//! B is packed ([`PackedRhs`]) in panels of 16 columns on every instruction set, so that a packed
//! weight can be shared between them:
//!
//! ```text
//! for each panel of 16 columns, for each step of 4 along K:   64 bytes, one cache line
//!     B[4s..4s+4, 0]  B[4s..4s+4, 1]  …  B[4s..4s+4, 15]
//! ```
//!
//! A is read where it lies if it is unsigned and K is a multiple of 4, else from a padded copy.
//! A tile of sums never leaves the cache: the [`Output`] turns it into integers, floats or bytes at
//! once. Sums are exact, hence equal on every instruction set and for every number of threads, and
//! the steps that follow are single IEEE operations.

mod microkernel;
mod output;
mod packing;
#[cfg(test)]
mod tests;

pub use output::{Bias, Output, Scale};
pub use packing::PackedRhs;
pub(crate) use packing::PackedRhsRef;

use crate::isa::dispatch_byte_dot;
use crate::kernels::env::Env;
use crate::kernels::offload;
use crate::kernels::scratch;

use microkernel::{PartKernel, Target};
use packing::{row_sum, widen_rows};

/// Bytes of either sign.
#[derive(Debug, Clone, Copy)]
pub enum Bytes<'a> {
    /// `0..=255`.
    Unsigned(&'a [u8]),
    /// `-128..=127`.
    Signed(&'a [i8]),
}

impl<'a> Bytes<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Bytes::Unsigned(bytes) => bytes.len(),
            Bytes::Signed(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `i`-th one.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, i: usize) -> i32 {
        match self {
            Bytes::Unsigned(bytes) => bytes[i].into(),
            Bytes::Signed(bytes) => bytes[i].into(),
        }
    }

    /// A part of them.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Bytes<'a> {
        match self {
            Bytes::Unsigned(bytes) => Bytes::Unsigned(&bytes[range]),
            Bytes::Signed(bytes) => Bytes::Signed(&bytes[range]),
        }
    }

    /// The bit patterns.
    fn bits(&self) -> &'a [u8] {
        match self {
            Bytes::Unsigned(bytes) => bytes,
            Bytes::Signed(bytes) => bytemuck::cast_slice(bytes),
        }
    }

    /// What must be added to a value so that it becomes what the pattern means as `u8`.
    fn shift_to_unsigned(&self) -> i32 {
        match self {
            Bytes::Unsigned(_) => 0,
            Bytes::Signed(_) => 128,
        }
    }

    /// The same for `i8`.
    fn shift_to_signed(&self) -> i32 {
        match self {
            Bytes::Unsigned(_) => -128,
            Bytes::Signed(_) => 0,
        }
    }
}

/// The left operand: `[M, K]`, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Lhs<'a> {
    /// Rows.
    pub m: usize,
    /// The elements, `M · K` of them.
    pub data: Bytes<'a>,
    /// What stands for zero, as values of `data`: none (zero), one, or one a row.
    pub zero_points: &'a [i32],
}

/// Columns of a panel of the packed right operand.
pub const PANEL: usize = 16;

/// Below this many multiplications the threads are left alone.
const LEAST_PARALLEL_WORK: usize = 1 << 17;

/// Computes `A × B` into `output`.
///
/// # Panics
/// If a slice does not have the length that the sizes ask for.
pub fn gemm(env: &Env, lhs: Lhs<'_>, rhs: &PackedRhs, output: Output<'_>) {
    match offload::host() {
        Some(host) => offload::Call::integer_gemm(&lhs, rhs.view(), &output).send(host),
        None => gemm_packed(env, lhs, rhs.view(), output),
    }
}

/// [`gemm`] with a right operand that lies somewhere else.
pub(crate) fn gemm_packed(env: &Env, lhs: Lhs<'_>, rhs: PackedRhsRef<'_>, output: Output<'_>) {
    let (m, n, k) = (lhs.m, rhs.n(), rhs.k());
    assert_eq!(lhs.data.len(), m * k, "A is not [M, K]");
    assert!(
        [0, 1, m].contains(&lhs.zero_points.len()),
        "zero points of A: none, one or M"
    );
    output.check(m, n);
    if m == 0 || n == 0 {
        return;
    }
    let stride = k.next_multiple_of(4);
    let in_place = matches!(lhs.data, Bytes::Unsigned(_)) && stride == k;
    // Rows in the form the dot products read, then the two factors of each row's corrections.
    scratch::with::<u8, _>(if in_place { 0 } else { m * stride }, |copy| {
        let rows: &[u8] = if in_place {
            lhs.data.bits()
        } else {
            widen_rows(lhs.data, k, stride, copy);
            copy
        };
        scratch::with::<i32, _>(2 * m, |corrections| {
            let (of_sums, of_zeros) = corrections.split_at_mut(m);
            let shift = lhs.data.shift_to_unsigned();
            for row in 0..m {
                let zero = match lhs.zero_points {
                    [] => shift,
                    [zero] => zero + shift,
                    zeros => zeros[row] + shift,
                };
                of_sums[row] = zero.wrapping_neg();
                of_zeros[row] = if rhs.zero_points().is_empty() {
                    0
                } else {
                    // Padding adds zeros, so the sum over the stride is the sum over K.
                    let sum = row_sum(&rows[row * stride..][..stride]);
                    (k as i32).wrapping_mul(zero).wrapping_sub(sum)
                };
            }
            let target = Target::new(output, n);
            let job = Job {
                rows,
                stride,
                rhs,
                of_sums,
                of_zeros,
                target: &target,
            };
            job.run(env, m);
        });
    });
}

/// One product, ready to be split over threads.
struct Job<'a> {
    rows: &'a [u8],
    stride: usize,
    rhs: PackedRhsRef<'a>,
    /// Factor of a column's sum, one a row.
    of_sums: &'a [i32],
    /// Factor of a column's zero point, one a row.
    of_zeros: &'a [i32],
    target: &'a Target<'a>,
}

/// Rows and panels of one task.
#[derive(Clone, Copy)]
struct Part {
    rows: (usize, usize),
    panels: (usize, usize),
}

impl Job<'_> {
    fn run(&self, env: &Env, m: usize) {
        let panels = self.rhs.n().div_ceil(PANEL);
        let threads = env.threads.count();
        let work = m * self.rhs.n() * self.rhs.k();
        let (row_parts, panel_parts) = if threads == 1 || work < LEAST_PARALLEL_WORK {
            (1, 1)
        } else {
            // Pairs of panels first: every part then reads its own piece of B.
            let panel_parts = panels.div_ceil(2).min(4 * threads);
            let row_parts = (4 * threads / panel_parts).clamp(1, m.div_ceil(12));
            (row_parts, panel_parts)
        };
        let rows_each = m.div_ceil(row_parts).next_multiple_of(12);
        let panels_each = panels.div_ceil(panel_parts).next_multiple_of(2);
        let (row_parts, panel_parts) = (m.div_ceil(rows_each), panels.div_ceil(panels_each));
        env.threads.for_each(row_parts * panel_parts, |i| {
            let (row_part, panel_part) = (i / panel_parts, i % panel_parts);
            let part = Part {
                rows: (row_part * rows_each, ((row_part + 1) * rows_each).min(m)),
                panels: (
                    panel_part * panels_each,
                    ((panel_part + 1) * panels_each).min(panels),
                ),
            };
            dispatch_byte_dot(env.level, PartKernel { job: self, part });
        });
    }
}
