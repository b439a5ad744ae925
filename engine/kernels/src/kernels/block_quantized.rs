//! Products with weights of 4 bits in blocks: `y[n] = Σ_blocks scale · Σ_k x[k] · (q[n, k] − zero)`.
//!
//! Decoding a token reads every weight once, so the weights are read as they are stored, two to a
//! byte, and never widened in memory:
//!
//! ```text
//! x is split once into its even and odd elements, and summed over each block
//! for each row n, for each block b, for each 16 bytes of it:
//!     part[16 lanes] += low nibbles · x_even + high nibbles · x_odd
//! total[16 lanes] += scale · part;      shift += scale · zero · (Σ of x over b)
//! y[n] = Σ lanes of total − shift
//! ```
//!
//! The 16 lanes are virtual ([`lanes16`]), so the result has the same bits on every instruction
//! set under [`Numerics::Reproducible`](crate::isa::Numerics). With many rows of x (a prompt)
//! columns are widened a strip at a time for the `f32` GEMM.
//!
//! The layout is that of the operator `MatMulNBits`.

use crate::isa::{Isa, Kernel, lanes16};
use crate::kernels::env::Env;
use crate::kernels::gemm::{Bias, Epilogue, Gemm, Left, MatrixRef, Right, gemm};
use crate::kernels::scratch;

/// A matrix `[N, K]` of 4-bit numbers in blocks along K.
#[derive(Debug, Clone, Copy)]
pub struct Nibbles<'a> {
    /// Rows: outputs.
    pub n: usize,
    /// Columns.
    pub k: usize,
    /// Elements of a block: a multiple of 32.
    pub block: usize,
    /// `[N, ceil(K / block), block / 2]`, the first element of a byte in its low bits.
    pub bytes: &'a [u8],
    /// `[N, ceil(K / block)]`.
    pub scales: &'a [f32],
    /// As many zero points.
    pub zero_points: &'a [f32],
}

/// Bytes that a step of the 16 lanes reads.
const STEP: usize = 16;

/// Rows of x up to which each is multiplied with the nibbles directly.
const FEW_ROWS: usize = 6;

/// Columns that are widened at a time.
const STRIP: usize = 128;

/// Rows of the weights that a thread takes at a time.
const PIECE: usize = 64;

impl Nibbles<'_> {
    fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// # Panics
    /// If the slices do not have the lengths that the sizes ask for.
    fn check(&self) {
        let blocks = self.n * self.blocks();
        assert!(self.block > 0 && self.block.is_multiple_of(2 * STEP));
        assert_eq!(self.bytes.len(), blocks * self.block / 2, "nibbles");
        assert_eq!(self.scales.len(), blocks, "scales");
        assert_eq!(self.zero_points.len(), blocks, "zero points");
    }

    /// Row `n` as numbers.
    fn widen_row(&self, n: usize, row: &mut [f32]) {
        let blocks = self.blocks();
        for (b, part) in row.chunks_mut(self.block).enumerate() {
            let at = n * blocks + b;
            let (scale, zero) = (self.scales[at], self.zero_points[at]);
            let bytes = &self.bytes[at * self.block / 2..];
            for (pair, byte) in part.chunks_mut(2).zip(bytes) {
                pair[0] = (f32::from(byte & 15) - zero) * scale;
                if let Some(odd) = pair.get_mut(1) {
                    *odd = (f32::from(byte >> 4) - zero) * scale;
                }
            }
        }
    }
}

/// `x · Wᵀ + bias`: `[M, K] × [N, K]ᵀ → [M, N]`, row-major; `bias` has N elements or none.
///
/// # Panics
/// If the slices do not have the lengths that the sizes ask for.
pub fn multiply(env: &Env, x: &[f32], weights: Nibbles<'_>, bias: &[f32], y: &mut [f32]) {
    weights.check();
    let (n, k) = (weights.n, weights.k);
    assert!(bias.is_empty() || bias.len() == n, "bias of N or none");
    if n == 0 || y.is_empty() {
        return;
    }
    let m = y.len() / n;
    assert!(
        y.len() == m * n && x.len() == m * k,
        "x is [M, K], y is [M, N]"
    );
    if m > FEW_ROWS && k > 0 {
        multiply_widened(env, x, weights, bias, y);
        return;
    }
    let padded = weights.blocks() * weights.block;
    let half = padded / 2;
    scratch::with(padded + weights.blocks(), |memory: &mut [f32]| {
        for (x, y) in x.chunks_exact(k.max(1)).zip(y.chunks_exact_mut(n)) {
            let (pairs, sums) = memory.split_at_mut(padded);
            pairs.fill(0.0);
            let (even, odd) = pairs.split_at_mut(half);
            for (i, pair) in x.chunks(2).enumerate() {
                even[i] = pair[0];
                odd[i] = pair.get(1).copied().unwrap_or(0.0);
            }
            for (sum, part) in sums.iter_mut().zip(x.chunks(weights.block)) {
                *sum = part.iter().sum();
            }
            let (even, odd, sums) = (&*even, &*odd, &*sums);
            env.threads.for_each_chunk_mut(y, PIECE, |i, y| {
                env.dispatch(RowKernel {
                    weights,
                    first: i * PIECE,
                    even,
                    odd,
                    sums,
                    bias,
                    y,
                });
            });
        }
    });
}

/// Widens strips of columns and multiplies them as `f32`.
fn multiply_widened(env: &Env, x: &[f32], weights: Nibbles<'_>, bias: &[f32], y: &mut [f32]) {
    let (n, k) = (weights.n, weights.k);
    let m = y.len() / n;
    scratch::with(STRIP.min(n) * k, |strip: &mut [f32]| {
        for first in (0..n).step_by(STRIP) {
            let width = STRIP.min(n - first);
            let strip = &mut strip[..width * k];
            let rows_each = env.threads.piece_len(width, 8, 1);
            env.threads
                .for_each_chunk_mut(strip, rows_each * k, |i, rows| {
                    for (j, row) in rows.chunks_exact_mut(k).enumerate() {
                        weights.widen_row(first + i * rows_each + j, row);
                    }
                });
            gemm(
                env,
                Gemm {
                    a: Left::Plain(MatrixRef::new(x, m, k)),
                    b: Right::Plain(MatrixRef::strided(strip, k, width, 1, k)),
                    c: &mut y[first..],
                    c_row_stride: n,
                    accumulate: false,
                    epilogue: Epilogue {
                        bias: match bias {
                            [] => Bias::None,
                            bias => Bias::PerColumn(&bias[first..][..width]),
                        },
                        ..Epilogue::default()
                    },
                },
            );
        }
    });
}

/// One row of x against some rows of the weights.
struct RowKernel<'a> {
    weights: Nibbles<'a>,
    first: usize,
    even: &'a [f32],
    odd: &'a [f32],
    sums: &'a [f32],
    bias: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for RowKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let blocks = self.weights.blocks();
        let block_bytes = self.weights.block / 2;
        let mask = isa.splat_i32(15);
        for (i, y) in self.y.iter_mut().enumerate() {
            let n = self.first + i;
            let bytes = &self.weights.bytes[n * blocks * block_bytes..][..blocks * block_bytes];
            let scales = &self.weights.scales[n * blocks..][..blocks];
            let zeros = &self.weights.zero_points[n * blocks..][..blocks];
            let mut total = isa.splat16(0.0);
            let mut shift = 0.0;
            for (b, bytes) in bytes.chunks_exact(block_bytes).enumerate() {
                let mut part = isa.splat16(0.0);
                for (s, bytes) in bytes.chunks_exact(STEP).enumerate() {
                    let at = b * block_bytes + s * STEP;
                    let (even, odd) = (&self.even[at..][..STEP], &self.odd[at..][..STEP]);
                    for (v, part) in part.as_mut().iter_mut().enumerate() {
                        let lane = v * I::LANES;
                        let pair = isa.load_u8(&bytes[lane..]);
                        let low = isa.to_f32(isa.and(pair, mask));
                        let high = isa.to_f32(isa.shr_logical(pair, 4));
                        *part = isa.mul_add(low, isa.load(&even[lane..]), *part);
                        *part = isa.mul_add(high, isa.load(&odd[lane..]), *part);
                    }
                }
                let scale = isa.splat(scales[b]);
                for (total, part) in total.as_mut().iter_mut().zip(part.as_ref()) {
                    *total = isa.mul_add(scale, *part, *total);
                }
                shift += scales[b] * zeros[b] * self.sums[b];
            }
            let sum = lanes16::join(isa, total, |a, b| a + b) - shift;
            *y = match self.bias {
                [] => sum,
                bias => sum + bias[n],
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Level, Numerics};
    use crate::kernels::threads::Threads;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0)
            .collect()
    }

    #[test]
    fn products_are_the_formula_on_every_level() {
        let cases = [
            (1, 1, 32, 32),
            (1, 70, 100, 32),
            (3, 129, 256, 64),
            (9, 140, 96, 32),
            (1, 5, 7, 128),
        ];
        for (m, n, k, block) in cases {
            let blocks = usize::div_ceil(k, block);
            let bytes: Vec<u8> = (0..n * blocks * block / 2)
                .map(|i| (i * 71 % 256) as u8)
                .collect();
            let scales = numbers(n * blocks, 1);
            let zero_points: Vec<f32> = (0..n * blocks).map(|i| (i % 16) as f32).collect();
            let (x, bias) = (numbers(m * k, 2), numbers(n, 3));
            let weights = Nibbles {
                n,
                k,
                block,
                bytes: &bytes,
                scales: &scales,
                zero_points: &zero_points,
            };
            let mut want = vec![0f64; m * n];
            for (at, want) in want.iter_mut().enumerate() {
                let (i, j) = (at / n, at % n);
                *want = bias[j] as f64;
                for l in 0..k {
                    let b = j * blocks + l / block;
                    let byte = bytes[b * block / 2 + l % block / 2];
                    let q = if l % 2 == 0 { byte & 15 } else { byte >> 4 };
                    *want +=
                        x[i * k + l] as f64 * (q as f64 - zero_points[b] as f64) * scales[b] as f64;
                }
            }
            let mut bits: Option<Vec<f32>> = None;
            for level in Level::available() {
                for numerics in [Numerics::Fast, Numerics::Reproducible] {
                    for threads in [1, 2] {
                        let threads = Threads::new(threads).unwrap_or_default();
                        let env = Env {
                            level,
                            numerics,
                            threads,
                        };
                        let mut y = vec![f32::NAN; m * n];
                        multiply(&env, &x, weights, &bias, &mut y);
                        for (y, want) in y.iter().zip(&want) {
                            assert!(
                                (*y as f64 - want).abs() < 2e-3,
                                "{m}x{k}x{n} on {level}: {y} {want}"
                            );
                        }
                        if numerics == Numerics::Reproducible {
                            assert_eq!(
                                bits.get_or_insert_with(|| y.clone()),
                                &y,
                                "{m}x{k}x{n} on {level}"
                            );
                        }
                    }
                }
            }
        }
    }
}
