//! Matrix products of `f32`: `C = activation(alpha · A · B + bias + residual)`.
//!
//! The path of a product:
//! - [`packing`]: operands in the order in which they are read; weights once, at load time.
//! - [`blocking`]: loops that keep what is reused in the caches.
//! - [`microkernel`]: one tile of C in registers.
//! - [`epilogue`]: what happens to the sums before they are stored.
//! - [`narrow`]: products with few columns, as dot products.
//! - [`vector`]: products of one row, which read B only once and are bound by memory.
//!
//! Under [`Numerics::Reproducible`](crate::isa::Numerics) each element is
//! `((a₀b₀ + a₁b₁) + a₂b₂) + …` with every product and sum rounded, whatever path is taken.

pub mod epilogue;
pub mod packing;

pub(crate) mod blocking;
pub(crate) mod microkernel;
pub mod narrow;
#[cfg(test)]
pub(crate) mod tests;
mod vector;

use self::blocking::{BlockKernel, InPlace, Lhs, PackedNow, Product, Rhs};
pub use self::epilogue::{Activation, Bias, Epilogue};
use self::microkernel::OutputBlock;
pub use self::packing::{PackedA, PackedARef, PackedB, PackedBRef, packed_len, tile_shape};
use super::env::Env;
use super::offload;
use super::scratch;
use super::threads::Threads;

/// A matrix somewhere in a slice: element `[i, j]` is `data[i * row_stride + j * col_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct MatrixRef<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a> MatrixRef<'a> {
    /// A row-major matrix without gaps.
    ///
    /// # Panics
    /// If `data` has not exactly `rows * cols` elements.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} x {cols}");
        MatrixRef {
            data,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// A matrix with any strides, in elements.
    ///
    /// # Panics
    /// If the last element is not in `data`.
    pub fn strided(
        data: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        if rows > 0 && cols > 0 {
            let last = (rows - 1) * row_stride + (cols - 1) * col_stride;
            assert!(
                last < data.len(),
                "matrix of {rows} x {cols} in {} elements",
                data.len()
            );
        }
        MatrixRef {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    /// The matrix of the same shape that starts `offset` elements later.
    ///
    /// # Panics
    /// If its last element is not in the data.
    fn moved(self, offset: usize) -> Self {
        Self::strided(
            &self.data[offset..],
            self.rows,
            self.cols,
            self.row_stride,
            self.col_stride,
        )
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        MatrixRef {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// The left-hand side of a product, `[m, k]`.
#[derive(Debug, Clone, Copy)]
pub enum Left<'a> {
    /// As it is.
    Plain(MatrixRef<'a>),
    /// Packed for the level of the environment.
    Packed(PackedARef<'a>),
}

/// The right-hand side of a product, `[k, n]`.
#[derive(Debug, Clone, Copy)]
pub enum Right<'a> {
    /// As it is.
    Plain(MatrixRef<'a>),
    /// Packed for the level of the environment.
    Packed(PackedBRef<'a>),
}

/// A matrix product.
#[derive(Debug)]
pub struct Gemm<'a> {
    /// `[m, k]`
    pub a: Left<'a>,
    /// `[k, n]`
    pub b: Right<'a>,
    /// `[m, n]`, row-major.
    pub c: &'a mut [f32],
    /// Distance of two rows of `c` in elements.
    pub c_row_stride: usize,
    /// Whether the sums start from what `c` holds (`alpha` then scales that, too).
    pub accumulate: bool,
    /// What happens to the sums.
    pub epilogue: Epilogue<'a>,
}

/// Below this many multiplications a product stays on one thread: waking another costs more.
const PARALLEL_THRESHOLD: usize = 1 << 17;

/// Computes a matrix product.
///
/// # Panics
/// If shapes do not fit each other or the slices, or if a packed operand was packed for a level
/// with another register tile.
pub fn gemm(env: &Env, product: Gemm<'_>) {
    if let Some(host) = offload::host() {
        return offload::Call::gemm(&product).send(host);
    }
    let Gemm {
        a,
        b,
        c,
        c_row_stride,
        accumulate,
        epilogue,
    } = product;
    let (m, k) = match a {
        Left::Plain(a) => (a.rows, a.cols),
        Left::Packed(a) => (a.m, a.k),
    };
    let (b_rows, n) = match b {
        Right::Plain(b) => (b.rows, b.cols),
        Right::Packed(b) => (b.k, b.n),
    };
    assert_eq!(k, b_rows, "[{m}, {k}] x [{b_rows}, {n}]");
    epilogue.check(m, n, c_row_stride);
    let output = OutputBlock::new(c, m, n, c_row_stride);
    let (height, width) = tile_shape(env.level);
    let a = match a {
        Left::Packed(a) => {
            assert_eq!(
                a.height, height,
                "left-hand side packed for another instruction set"
            );
            Lhs::Packed(a)
        }
        Left::Plain(a) => choose_lhs(a, height),
    };
    match b {
        Right::Packed(b) => {
            assert_eq!(
                b.width, width,
                "right-hand side packed for another instruction set"
            );
            run(
                env,
                output,
                &Product {
                    depth: k,
                    a,
                    b,
                    accumulate,
                    epilogue,
                },
            );
        }
        Right::Plain(b) => {
            if let (Lhs::InPlace(a), false) = (a, accumulate)
                && narrow::suits(env, a, n)
            {
                narrow::multiply(env, a, b, &epilogue, output);
            } else if let (1, Lhs::InPlace(a), false) = (m, a, accumulate)
                && vector::suits(env, b)
            {
                vector::multiply(env, &a.data[..k], b, &epilogue, output);
            } else if b.col_stride == 1 && m <= IN_PLACE_ROWS * height {
                run(
                    env,
                    output,
                    &Product {
                        depth: k,
                        a,
                        b: InPlace(b),
                        accumulate,
                        epilogue,
                    },
                );
            } else {
                run(
                    env,
                    output,
                    &Product {
                        depth: k,
                        a,
                        b: PackedNow(b),
                        accumulate,
                        epilogue,
                    },
                );
            }
        }
    }
}

/// Up to so many tiles of rows, packing B costs more than reading it where it is.
const IN_PLACE_ROWS: usize = 4;

/// Contiguous rows are read where they are: as fast as packed ones, measured for 128 x 768 x 768.
fn choose_lhs(a: MatrixRef<'_>, height: usize) -> Lhs<'_> {
    if a.col_stride == 1 || (a.row_stride == 1 && a.rows >= height) {
        Lhs::InPlace(a)
    } else {
        Lhs::Strided(a)
    }
}

/// Many products of matrices in the same buffers, such as the heads of an attention.
///
/// Product `i` multiplies the matrices that `a` and `b` describe, moved by `a_offsets[i]` and
/// `b_offsets[i]` elements, into `c[i * m * n ..]`, row-major without gaps. Offsets may repeat
/// (broadcasting).
#[derive(Debug)]
pub struct BatchedGemm<'a> {
    /// Data and strides of a left-hand side `[m, k]`.
    pub a: MatrixRef<'a>,
    /// Where each left-hand side starts.
    pub a_offsets: &'a [usize],
    /// Data and strides of a right-hand side `[k, n]`.
    pub b: MatrixRef<'a>,
    /// Where each right-hand side starts.
    pub b_offsets: &'a [usize],
    /// `[batch, m, n]`
    pub c: &'a mut [f32],
    /// Scales the sums.
    pub alpha: f32,
    /// Applied last.
    pub activation: Activation,
}

/// Computes many matrix products: side by side where there are enough of them, else each on all
/// threads.
///
/// # Panics
/// If shapes do not fit each other or the slices.
pub fn gemm_batched(env: &Env, products: BatchedGemm<'_>) {
    if let Some(host) = offload::host() {
        return offload::Call::gemm_batched(&products).send(host);
    }
    let BatchedGemm {
        a,
        a_offsets,
        b,
        b_offsets,
        c,
        alpha,
        activation,
    } = products;
    let batch = a_offsets.len();
    let n = b.cols;
    let len = a.rows * n;
    assert_eq!(b_offsets.len(), batch, "offsets of right-hand sides");
    assert_eq!(c.len(), batch * len, "output of {batch} products");
    if c.is_empty() {
        return;
    }
    let epilogue = Epilogue {
        alpha,
        activation,
        ..Epilogue::default()
    };
    let one = |env: &Env, i: usize, c: &mut [f32]| {
        let a = Left::Plain(a.moved(a_offsets[i]));
        let b = Right::Plain(b.moved(b_offsets[i]));
        gemm(
            env,
            Gemm {
                a,
                b,
                c,
                c_row_stride: n,
                accumulate: false,
                epilogue,
            },
        );
    };
    let small = len * a.cols < PARALLEL_THRESHOLD;
    if batch > 1 && (small || batch >= env.threads.count()) {
        // Enough multiplications to be worth another thread.
        let least = (PARALLEL_THRESHOLD / (len * a.cols).max(1)).max(1);
        let group = env.threads.piece_len(batch, least, 1);
        let alone = Env {
            threads: Threads::single(),
            ..env.clone()
        };
        env.threads.for_each_chunk_mut(c, group * len, |g, c| {
            for (i, c) in c.chunks_exact_mut(len).enumerate() {
                one(&alone, g * group + i, c);
            }
        });
    } else {
        for (i, c) in c.chunks_exact_mut(len).enumerate() {
            one(env, i, c);
        }
    }
}

/// Computes a product on the threads of the environment.
pub(crate) fn run<R: Rhs>(env: &Env, output: OutputBlock<'_>, product: &Product<'_, R>) {
    let shape = tile_shape(env.level);
    let (row_step, col_step) = steps(
        env.threads.count(),
        shape,
        output.rows,
        output.cols,
        product.depth,
    );
    output.for_each_block(&env.threads, row_step, col_step, |block| {
        let (a_len, b_len) = product.scratch_len(shape, block.rows, block.cols);
        scratch::with(a_len, |a_scratch| {
            scratch::with(b_len, |b_scratch| {
                env.dispatch(BlockKernel {
                    product,
                    block,
                    a_scratch,
                    b_scratch,
                });
            });
        });
    });
}

/// Into which rectangles an output is split for `threads`: multiples of the register tile, about
/// two for each thread, along the longer side.
fn steps(
    threads: usize,
    (height, width): (usize, usize),
    m: usize,
    n: usize,
    k: usize,
) -> (usize, usize) {
    let work = m.saturating_mul(n).saturating_mul(k);
    if threads == 1 || work < PARALLEL_THRESHOLD {
        return (m.max(1), n.max(1));
    }
    let pieces = (2 * threads).min(work / (PARALLEL_THRESHOLD / 2));
    let (down, across) = (m.div_ceil(height), n.div_ceil(width));
    if across >= pieces || across >= down {
        (m, across.div_ceil(pieces) * width)
    } else {
        (down.div_ceil(pieces) * height, n)
    }
}
