//! Products with few columns: the last layers of recurrent and one-dimensional models.
//!
//! A register tile is as wide as several vectors, most of which would be padding here. Instead
//! each column is made contiguous once and every element of C is a dot product in 16 lanes, each
//! part of a row of A serving all columns. The order of the sums differs from that of the other
//! paths, so reproducible numerics do without.

use super::MatrixRef;
use super::epilogue::Epilogue;
use super::microkernel::OutputBlock;
use crate::isa::{Isa, Kernel, Numerics, lanes16};
use crate::kernels::env::Env;
use crate::kernels::scratch;

/// Columns up to which this is the better way.
pub(crate) const MOST_COLUMNS: usize = 4;

/// Whether a product `[m, k] x [k, n]` is better done here.
pub fn suits(env: &Env, a: MatrixRef<'_>, n: usize) -> bool {
    env.numerics == Numerics::Fast && (1..=MOST_COLUMNS).contains(&n) && a.col_stride == 1
}

/// Computes `c = activation(alpha · A · B + bias + residual)`.
pub(super) fn multiply(
    env: &Env,
    a: MatrixRef<'_>,
    b: MatrixRef<'_>,
    epilogue: &Epilogue<'_>,
    output: OutputBlock<'_>,
) {
    let (k, n) = (b.rows, b.cols);
    if b.row_stride == 1 && n == 1 {
        return with_columns(env, a, &b.data[..k], epilogue, output);
    }
    scratch::with(k * n, |columns: &mut [f32]| {
        for (j, column) in columns.chunks_exact_mut(k.max(1)).enumerate() {
            for (p, x) in column.iter_mut().enumerate() {
                *x = b.data[p * b.row_stride + j * b.col_stride];
            }
        }
        with_columns(env, a, columns, epilogue, output);
    });
}

/// The same for columns that lie one after the other, `a.cols` elements each.
pub(crate) fn with_columns(
    env: &Env,
    a: MatrixRef<'_>,
    columns: &[f32],
    epilogue: &Epilogue<'_>,
    output: OutputBlock<'_>,
) {
    let step = if columns.len() * a.rows < super::PARALLEL_THRESHOLD {
        a.rows
    } else {
        env.threads.piece_len(a.rows, 16, 1)
    };
    let cols = output.cols;
    output.for_each_block(&env.threads, step, cols, |block| {
        env.dispatch(Rows {
            a,
            columns,
            epilogue,
            block,
        });
    });
}

struct Rows<'r> {
    a: MatrixRef<'r>,
    columns: &'r [f32],
    epilogue: &'r Epilogue<'r>,
    block: OutputBlock<'r>,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.block.cols {
            1 => self.rows::<I, 1>(isa),
            2 => self.rows::<I, 2>(isa),
            3 => self.rows::<I, 3>(isa),
            _ => self.rows::<I, MOST_COLUMNS>(isa),
        }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn rows<I: Isa, const N: usize>(mut self, isa: I) {
        let k = self.a.cols;
        let columns: [&[f32]; N] = std::array::from_fn(|j| &self.columns[j * k..][..k]);
        let whole = k / 16 * 16;
        let (first_row, col) = (self.block.row, self.block.col);
        let row_stride = self.block.row_stride();
        for row in 0..self.block.rows {
            let a = &self.a.data[(first_row + row) * self.a.row_stride..][..k];
            let mut lanes = [isa.splat16(0.0); N];
            let mut p = 0;
            while p < whole {
                for part in 0..16 / I::LANES {
                    let at = p + part * I::LANES;
                    let x = isa.load(&a[at..at + I::LANES]);
                    for j in 0..N {
                        let lane = &mut lanes[j].as_mut()[part];
                        *lane = isa.mul_add(x, isa.load(&columns[j][at..at + I::LANES]), *lane);
                    }
                }
                p += 16;
            }
            let c = self.block.row_mut(row, 0, N);
            for j in 0..N {
                let mut sum = lanes16::join(isa, lanes[j], |x, y| x + y);
                for p in whole..k {
                    sum += a[p] * columns[j][p];
                }
                c[j] = sum;
            }
            self.epilogue
                .finish_row(isa, first_row + row, col, row_stride, c);
        }
    }
}
