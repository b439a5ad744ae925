//! Softmax, its logarithm, and hardmax along one axis.
//!
//! ```text
//! m = max x      y = e^(x - m) / Σ e^(x - m)      or  x - m - ln Σ e^(x - m)
//! ```
//! The tensor is `[outer, len, inner]`. For `inner = 1` a row is read three times within the
//! first-level cache; otherwise rows of `inner` elements are combined, so that vectors run along
//! `inner`. Sums have one order ([`lanes16`], or that of the axis), hence the same bits everywhere.

use crate::isa::{Isa, Kernel, lanes16};
use crate::kernels::env::Env;
use crate::kernels::scratch;
use crate::kernels::vector_math::{exp_nonpositive, log};

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Softmax {
    /// `e^(x - m) / Σ e^(x - m)`.
    Plain,
    /// Its logarithm.
    Log,
    /// 1 at the first of the largest elements, 0 elsewhere.
    Hard,
}

/// Elements that a thread should have at least.
const LEAST: usize = 8192;
/// Columns that are worked on together where `inner > 1`.
const COLUMNS: usize = 256;

/// Computes in place along the axis `len` of `[outer, len, inner]`.
///
/// # Panics
/// When `y` is not a multiple of `len · inner` long.
pub fn softmax(env: &Env, function: Softmax, len: usize, inner: usize, y: &mut [f32]) {
    let block = len * inner;
    if y.is_empty() {
        return;
    }
    assert!(y.len().is_multiple_of(block));
    let blocks = env
        .threads
        .piece_len(y.len() / block, LEAST.div_ceil(block), 1);
    env.threads.for_each_chunk_mut(y, blocks * block, |_, y| {
        if inner == 1 {
            env.dispatch(Rows { function, len, y });
        } else {
            scratch::with::<f32, _>(2 * COLUMNS, |room| {
                env.dispatch(Columns {
                    function,
                    len,
                    inner,
                    y,
                    room,
                });
            });
        }
    });
}

struct Rows<'a> {
    function: Softmax,
    len: usize,
    y: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for row in self.y.chunks_exact_mut(self.len) {
            let max = lanes16::max(isa, row);
            match self.function {
                Softmax::Plain => {
                    let sum = exp_and_sum(isa, row, max);
                    let scale = isa.splat(1.0 / sum);
                    map_row(
                        isa,
                        row,
                        #[inline(always)]
                        |x| isa.mul(x, scale),
                    );
                }
                Softmax::Log => {
                    let sum = sum_of_exp(isa, row, max);
                    let (max, log_sum) = (isa.splat(max), log(isa, isa.splat(sum)));
                    map_row(
                        isa,
                        row,
                        #[inline(always)]
                        |x| isa.sub(isa.sub(x, max), log_sum),
                    );
                }
                Softmax::Hard => {
                    let place = row.iter().position(|&x| x == max).unwrap_or(0);
                    row.fill(0.0);
                    row[place] = 1.0;
                }
            }
        }
    }
}

#[inline(always)]
fn map_row<I: Isa>(isa: I, row: &mut [f32], f: impl Fn(I::F32) -> I::F32) {
    let mut vectors = row.chunks_exact_mut(I::LANES);
    for vector in &mut vectors {
        isa.store(f(isa.load(vector)), vector);
    }
    let tail = vectors.into_remainder();
    if !tail.is_empty() {
        isa.store_partial(f(isa.load_partial(tail)), tail);
    }
}

/// Replaces `x` by `e^(x - max)` and sums in 16 lanes.
#[inline(always)]
fn exp_and_sum<I: Isa>(isa: I, row: &mut [f32], max: f32) -> f32 {
    let max = isa.splat(max);
    let mut lanes = isa.splat16(0.0);
    let mut blocks = row.chunks_exact_mut(16);
    for block in &mut blocks {
        for (lane, part) in lanes
            .as_mut()
            .iter_mut()
            .zip(block.chunks_exact_mut(I::LANES))
        {
            let e = exp_nonpositive(isa, isa.sub(isa.load(part), max));
            isa.store(e, part);
            *lane = isa.add(*lane, e);
        }
    }
    let tail = blocks.into_remainder();
    if !tail.is_empty() {
        let mut block = [f32::NEG_INFINITY; 16];
        block[..tail.len()].copy_from_slice(tail);
        for (lane, part) in lanes
            .as_mut()
            .iter_mut()
            .zip(block.chunks_exact_mut(I::LANES))
        {
            let e = exp_nonpositive(isa, isa.sub(isa.load(part), max));
            isa.store(e, part);
            // A row of nothing but infinities would make the filling NaN as well, which is right.
            *lane = isa.add(*lane, e);
        }
        tail.copy_from_slice(&block[..tail.len()]);
    }
    lanes16::join(isa, lanes, |a, b| a + b)
}

/// `Σ e^(x - max)`, leaving the row as it is, a block at a time.
#[inline(always)]
fn sum_of_exp<I: Isa>(isa: I, row: &[f32], max: f32) -> f32 {
    let mut sum = 0.0;
    let mut block = [0.0; COLUMNS];
    for x in row.chunks(COLUMNS) {
        let block = &mut block[..x.len()];
        block.copy_from_slice(x);
        sum += exp_and_sum(isa, block, max);
    }
    sum
}

struct Columns<'a> {
    function: Softmax,
    len: usize,
    inner: usize,
    y: &'a mut [f32],
    room: &'a mut [f32],
}

impl Kernel for Columns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            function,
            len,
            inner,
            y,
            room,
        } = self;
        let (maxima, sums) = room.split_at_mut(COLUMNS);
        for y in y.chunks_exact_mut(len * inner) {
            for start in (0..inner).step_by(COLUMNS) {
                let width = COLUMNS.min(inner - start);
                let (maxima, sums) = (&mut maxima[..width], &mut sums[..width]);
                maxima.fill(f32::NEG_INFINITY);
                for row in y.chunks_exact(inner) {
                    pair(
                        isa,
                        maxima,
                        &row[start..],
                        #[inline(always)]
                        |m, x| isa.max(x, m),
                    );
                }
                if function == Softmax::Hard {
                    hard_columns(y, inner, start, maxima, sums);
                    continue;
                }
                sums.fill(0.0);
                for row in y.chunks_exact_mut(inner) {
                    let row = &mut row[start..start + width];
                    pair(
                        isa,
                        row,
                        maxima,
                        #[inline(always)]
                        |x, m| isa.sub(x, m),
                    );
                    if function == Softmax::Plain {
                        map_row(
                            isa,
                            row,
                            #[inline(always)]
                            |x| exp_nonpositive(isa, x),
                        );
                        pair(
                            isa,
                            sums,
                            row,
                            #[inline(always)]
                            |sum, e| isa.add(sum, e),
                        );
                    } else {
                        pair(
                            isa,
                            sums,
                            row,
                            #[inline(always)]
                            |sum, x| isa.add(sum, exp_nonpositive(isa, x)),
                        );
                    }
                }
                let one = isa.splat(1.0);
                match function {
                    Softmax::Plain => map_row(
                        isa,
                        sums,
                        #[inline(always)]
                        |s| isa.div(one, s),
                    ),
                    _ => map_row(
                        isa,
                        sums,
                        #[inline(always)]
                        |s| log(isa, s),
                    ),
                }
                for row in y.chunks_exact_mut(inner) {
                    let row = &mut row[start..start + width];
                    match function {
                        Softmax::Plain => {
                            pair(
                                isa,
                                row,
                                sums,
                                #[inline(always)]
                                |x, s| isa.mul(x, s),
                            );
                        }
                        _ => pair(
                            isa,
                            row,
                            sums,
                            #[inline(always)]
                            |x, s| isa.sub(x, s),
                        ),
                    }
                }
            }
        }
    }
}

/// `a[i] = f(a[i], b[i])` over the length of `a`.
#[inline(always)]
fn pair<I: Isa>(isa: I, a: &mut [f32], b: &[f32], f: impl Fn(I::F32, I::F32) -> I::F32) {
    let b = &b[..a.len()];
    let mut targets = a.chunks_exact_mut(I::LANES);
    let mut sources = b.chunks_exact(I::LANES);
    for (a, b) in (&mut targets).zip(&mut sources) {
        isa.store(f(isa.load(a), isa.load(b)), a);
    }
    let (a, b) = (targets.into_remainder(), sources.remainder());
    if !a.is_empty() {
        isa.store_partial(f(isa.load_partial(a), isa.load_partial(b)), a);
    }
}

/// 1 at the first row that reaches a column's maximum; `taken` marks the columns that have theirs.
fn hard_columns(y: &mut [f32], inner: usize, start: usize, maxima: &[f32], taken: &mut [f32]) {
    taken.fill(0.0);
    for row in y.chunks_exact_mut(inner) {
        let row = &mut row[start..start + maxima.len()];
        for ((x, &max), taken) in row.iter_mut().zip(maxima).zip(&mut *taken) {
            let is_first = *x == max && *taken == 0.0;
            *x = if is_first { 1.0 } else { 0.0 };
            *taken += *x;
        }
    }
}

/// Softmax in double precision, one element at a time.
///
/// # Panics
/// When `y` is not a multiple of `len · inner` long.
pub fn softmax_doubles(function: Softmax, len: usize, inner: usize, y: &mut [f64]) {
    if y.is_empty() {
        return;
    }
    for y in y.chunks_exact_mut(len * inner) {
        for column in 0..inner {
            let places = || (column..len * inner).step_by(inner);
            let max = places().map(|i| y[i]).fold(f64::NEG_INFINITY, f64::max);
            if function == Softmax::Hard {
                let first = places().find(|&i| y[i] == max).unwrap_or(column);
                places().for_each(|i| y[i] = if i == first { 1.0 } else { 0.0 });
                continue;
            }
            let sum: f64 = places().map(|i| libm::exp(y[i] - max)).sum();
            for i in places() {
                y[i] = match function {
                    Softmax::Plain => libm::exp(y[i] - max) / sum,
                    _ => y[i] - max - libm::log(sum),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Level, Numerics};
    use crate::kernels::threads::Threads;

    const SHAPES: [(usize, usize, usize); 8] = [
        (3, 5, 1),
        (2, 16, 1),
        (2, 1000, 1),
        (1, 1, 1),
        (2, 7, 3),
        (2, 10, 300),
        (300, 64, 1),
        (2, 3, 4000),
    ];

    #[test]
    fn softmax_agrees_with_double_precision() {
        let mut environments: Vec<Env> = Level::available()
            .map(|level| Env {
                level,
                numerics: Numerics::Fast,
                threads: Threads::single(),
            })
            .collect();
        environments.extend(Threads::new(3).map(|threads| Env {
            threads,
            ..Env::new()
        }));
        for env in environments {
            for (outer, len, inner) in SHAPES {
                let x: Vec<f32> = (0..outer * len * inner)
                    .map(|i| ((i * 7919 % 1013) as f32 / 50.0) - 10.0)
                    .collect();
                for function in [Softmax::Plain, Softmax::Log, Softmax::Hard] {
                    let mut want: Vec<f64> = x.iter().map(|&x| x.into()).collect();
                    softmax_doubles(function, len, inner, &mut want);
                    let mut y = x.clone();
                    softmax(&env, function, len, inner, &mut y);
                    for (y, want) in y.iter().zip(&want) {
                        assert!(
                            (*y as f64 - want).abs() <= 2e-6 * want.abs() + 1e-7,
                            "{function:?} {len} {inner} {:?}: {y}, not {want}",
                            env.level
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn reproducible_bits_are_equal_on_every_level() {
        for (len, inner) in [(333, 1), (9, 37)] {
            let x: Vec<f32> = (0..len * inner)
                .map(|i| (i as f32 * 0.7).sin() * 9.0)
                .collect();
            for function in [Softmax::Plain, Softmax::Log] {
                let mut results = Level::available().map(|level| {
                    let threads = Threads::single();
                    let env = Env {
                        level,
                        numerics: Numerics::Reproducible,
                        threads,
                    };
                    let mut y = x.clone();
                    softmax(&env, function, len, inner, &mut y);
                    y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                });
                let first = results.next().expect("there is a level");
                assert!(
                    results.all(|bits| bits == first),
                    "{function:?} {len} {inner}"
                );
            }
        }
    }

    #[test]
    fn masked_elements_are_exactly_zero() {
        let env = Env::new();
        let mut y = vec![f32::NEG_INFINITY; 40];
        y[3] = 2.0;
        y[17] = 2.0;
        softmax(&env, Softmax::Plain, 40, 1, &mut y);
        assert_eq!((y[3], y[17], y[0], y[39]), (0.5, 0.5, 0.0, 0.0));
        let mut y = [f32::MIN, 0.0, f32::MIN, f32::NAN];
        softmax(&env, Softmax::Plain, 2, 1, &mut y);
        assert_eq!(y[..2], [0.0, 1.0]);
        assert!(y[2].is_nan() && y[3].is_nan());
    }
}
