//! Products of one row with a matrix that is read where it is.
//!
//! Each element of B is used once, so memory decides: B is read in the order in which it lies.
//! - Rows contiguous (`[k, n]`): `c += a[p] · B[p]`, eight rows at a time, over stretches of
//!   columns that stay in the first-level cache. Each element is summed in the order of `p`.
//! - Columns contiguous (a transposed `[n, k]`): dot products in 16 lanes. The order differs, so
//!   reproducible numerics do without.

use super::MatrixRef;
use super::epilogue::Epilogue;
use super::microkernel::OutputBlock;
use crate::isa::{Isa, Kernel, Numerics};
use crate::kernels::env::Env;

/// Columns of a stretch: 8 KiB of sums.
const STRETCH: usize = 2048;
/// Rows of B added at a time.
const UNROLL: usize = 8;

/// Whether a product with this matrix is better done here.
pub(super) fn suits(env: &Env, b: MatrixRef<'_>) -> bool {
    b.col_stride == 1 || (b.row_stride == 1 && env.numerics == Numerics::Fast)
}

/// Computes `c = activation(alpha · a · B + bias + residual)` for `a: [1, k]`, `B: [k, n]`.
pub(super) fn multiply(
    env: &Env,
    a: &[f32],
    b: MatrixRef<'_>,
    epilogue: &Epilogue<'_>,
    output: OutputBlock<'_>,
) {
    let small = a.len() * b.cols < super::PARALLEL_THRESHOLD;
    let step = if small {
        b.cols
    } else {
        env.threads.piece_len(b.cols, 64, 16)
    };
    output.for_each_block(&env.threads, 1, step, |mut block| {
        let (col, len) = (block.col, block.cols);
        let mut done = 0;
        while done < len {
            let stretch = STRETCH.min(len - done);
            let c = block.row_mut(0, done, stretch);
            env.dispatch(Stretch {
                a,
                b,
                epilogue,
                col: col + done,
                c,
            });
            done += stretch;
        }
    });
}

struct Stretch<'s> {
    a: &'s [f32],
    b: MatrixRef<'s>,
    epilogue: &'s Epilogue<'s>,
    /// First column.
    col: usize,
    c: &'s mut [f32],
}

impl Kernel for Stretch<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Stretch {
            a,
            b,
            epilogue,
            col,
            c,
        } = self;
        if b.col_stride == 1 {
            add_rows(isa, a, b, col, c);
        } else {
            for (j, c) in c.iter_mut().enumerate() {
                let column = &b.data[(col + j) * b.col_stride..][..a.len()];
                *c = crate::isa::lanes16::dot(isa, a, column);
            }
        }
        epilogue.finish_row(isa, 0, col, c.len(), c);
    }
}

/// `c = Σ a[p] · B[p][col ..]`, in the order of `p`.
#[inline(always)]
fn add_rows<I: Isa>(isa: I, a: &[f32], b: MatrixRef<'_>, col: usize, c: &mut [f32]) {
    c.fill(0.0);
    let len = c.len();
    let row = |p: usize| &b.data[p * b.row_stride + col..][..len];
    let mut p = 0;
    while p + UNROLL <= a.len() {
        let rows: [&[f32]; UNROLL] = std::array::from_fn(|i| row(p + i));
        add_unrolled(isa, &a[p..p + UNROLL], rows, c);
        p += UNROLL;
    }
    while p < a.len() {
        add_unrolled(isa, &a[p..=p], [row(p)], c);
        p += 1;
    }
}

#[inline(always)]
fn add_unrolled<I: Isa, const N: usize>(isa: I, a: &[f32], rows: [&[f32]; N], c: &mut [f32]) {
    let len = c.len();
    let factors: [I::F32; N] = std::array::from_fn(|i| isa.splat(a[i]));
    let rows = rows.map(|row| &row[..len]);
    let mut j = 0;
    while j + I::LANES <= len {
        let sums = &mut c[j..j + I::LANES];
        let mut sum = isa.load(sums);
        for i in 0..N {
            sum = isa.mul_add(factors[i], isa.load(&rows[i][j..j + I::LANES]), sum);
        }
        isa.store(sum, sums);
        j += I::LANES;
    }
    if j < len {
        let mut sum = isa.load_partial(&c[j..]);
        for i in 0..N {
            sum = isa.mul_add(factors[i], isa.load_partial(&rows[i][j..]), sum);
        }
        isa.store_partial(sum, &mut c[j..]);
    }
}
