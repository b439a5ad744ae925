//! Reductions over any axes.
//!
//! ```text
//! drop axes of size 1, merge neighbours that are both reduced or both kept; what remains is
//!   [K, R]     rows: 16 lanes and one tree (`isa::lanes16`)
//!   [K, R, I]  columns: R rows of I elements are added up in their order
//!   any other  is transposed to [K, R] first
//! ```
//! The order in which the elements of one result are combined depends on the shape alone, so that
//! the bits are the same on every instruction set and number of threads.

use smallvec::SmallVec;

use crate::isa::{Isa, Kernel, lanes16};
use crate::kernels::env::Env;
use crate::kernels::half_precision::Real;
use crate::kernels::transpose::transpose;
use crate::limits;
use crate::tensor::Element;

mod scalar;
pub mod scan;
#[cfg(test)]
mod tests;

pub use scalar::Scalar;

/// What becomes of the elements `x` that are reduced to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// `Σ x`.
    Sum,
    /// `Σ x / n`.
    Mean,
    /// The largest one; NaN where there is one.
    Max,
    /// The smallest one; NaN where there is one.
    Min,
    /// `Π x`.
    Prod,
    /// `Σ |x|`.
    L1,
    /// `√(Σ x²)`.
    L2,
    /// `Σ x²`.
    SumSquare,
    /// `ln(Σ x)`.
    LogSum,
    /// `ln(Σ e^x)`, without overflow.
    LogSumExp,
}

impl Reduction {
    /// What the result of no elements is before [`Self::finish`].
    fn neutral(self) -> f32 {
        match self {
            Reduction::Prod => 1.0,
            Reduction::Max => f32::NEG_INFINITY,
            Reduction::Min => f32::INFINITY,
            _ => 0.0,
        }
    }

    /// From the combined elements, `count` of them, to the result.
    fn finish(self, combined: f32, count: usize) -> f32 {
        match self {
            Reduction::Mean => combined / count as f32,
            Reduction::L2 => combined.sqrt(),
            Reduction::LogSum => libm::logf(combined),
            _ => combined,
        }
    }

    /// Combines a vector of elements with what has been combined before.
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, lane: I::F32, x: I::F32) -> I::F32 {
        match self {
            Reduction::Sum | Reduction::Mean | Reduction::LogSum => isa.add(lane, x),
            Reduction::Max => keep_nan(isa, lane, isa.max(lane, x)),
            Reduction::Min => keep_nan(isa, lane, isa.min(lane, x)),
            Reduction::Prod => isa.mul(lane, x),
            Reduction::L1 => isa.add(lane, isa.abs(x)),
            Reduction::L2 | Reduction::SumSquare => isa.mul_add(x, x, lane),
            Reduction::LogSumExp => lane,
        }
    }

    /// Joins what two lanes have combined.
    fn join(self, a: f32, b: f32) -> f32 {
        match self {
            Reduction::Max if b > a || b.is_nan() => b,
            Reduction::Min if b < a || b.is_nan() => b,
            Reduction::Max | Reduction::Min => a,
            Reduction::Prod => a * b,
            _ => a + b,
        }
    }
}

/// `lane` where it is NaN, otherwise `x`; a NaN in the newer operand has been kept by `min` and
/// `max` themselves.
#[inline(always)]
fn keep_nan<I: Isa>(isa: I, lane: I::F32, x: I::F32) -> I::F32 {
    isa.select(isa.ne(lane, lane), lane, x)
}

/// The reduction of one row.
#[inline(always)]
fn reduce_row<I: Isa>(isa: I, reduction: Reduction, x: &[f32]) -> f32 {
    if reduction == Reduction::LogSumExp {
        return log_sum_exp(isa, x);
    }
    let lanes = lanes16::fold(
        isa,
        x,
        reduction.neutral(),
        #[inline(always)]
        |lane, x| reduction.step(isa, lane, x),
    );
    let combined = lanes16::join(isa, lanes, |a, b| reduction.join(a, b));
    reduction.finish(combined, x.len())
}

/// `max + ln(Σ e^(x - max))`.
#[inline(always)]
fn log_sum_exp<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let max = lanes16::max(isa, x);
    let shift = if max.is_finite() { max } else { 0.0 };
    let shift_vector = isa.splat(shift);
    // Missing elements add nothing: e^-∞ = 0.
    let lanes = lanes16::fold(
        isa,
        x,
        f32::NEG_INFINITY,
        #[inline(always)]
        |lane, x| {
            // The fold starts its lanes with the element that is neutral for the sum's terms.
            let lane = isa.select(isa.eq(lane, isa.splat(f32::NEG_INFINITY)), isa.zero(), lane);
            isa.add(
                lane,
                crate::kernels::vector_math::exp(isa, isa.sub(x, shift_vector)),
            )
        },
    );
    let sum = lanes16::join(isa, lanes, |a, b| {
        let term = |x: f32| if x == f32::NEG_INFINITY { 0.0 } else { x };
        term(a) + term(b)
    });
    if max == f32::INFINITY {
        max
    } else {
        shift + libm::logf(sum)
    }
}

/// Reduces each row.
struct Rows<'a> {
    reduction: Reduction,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = self.x.len() / self.y.len();
        for (i, y) in self.y.iter_mut().enumerate() {
            *y = reduce_row(isa, self.reduction, &self.x[i * row..(i + 1) * row]);
        }
    }
}

/// Reduces `[R, I]` to `[I]` for each of the outer indices, in the order of R.
struct Columns<'a> {
    reduction: Reduction,
    rows: usize,
    inner: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

/// Columns that are added up together, so that the sums stay in the first-level cache.
const COLUMNS: usize = 2048;

impl Kernel for Columns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            reduction,
            rows,
            inner,
            x,
            y,
        } = self;
        for (k, y) in y.chunks_exact_mut(inner).enumerate() {
            let x = &x[k * rows * inner..][..rows * inner];
            for (start, y) in (0..inner).step_by(COLUMNS).zip(y.chunks_mut(COLUMNS)) {
                y.fill(reduction.neutral());
                for r in 0..rows {
                    let x = &x[r * inner + start..][..y.len()];
                    add_row(isa, reduction, x, y);
                }
                for y in y {
                    *y = reduction.finish(*y, rows);
                }
            }
        }
    }
}

#[inline(always)]
fn add_row<I: Isa>(isa: I, reduction: Reduction, x: &[f32], y: &mut [f32]) {
    let mut targets = y.chunks_exact_mut(I::LANES);
    let mut sources = x.chunks_exact(I::LANES);
    for (y, x) in (&mut targets).zip(&mut sources) {
        isa.store(reduction.step(isa, isa.load(y), isa.load(x)), y);
    }
    let (y, x) = (targets.into_remainder(), sources.remainder());
    if !y.is_empty() {
        let sum = reduction.step(isa, isa.load_partial(y), isa.load_partial(x));
        isa.store_partial(sum, y);
    }
}

/// An axis after merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    size: usize,
    is_reduced: bool,
}

/// Axes with those of size 1 dropped and neighbours of one kind merged.
fn merged_axes(shape: &[usize], reduced: &[bool]) -> SmallVec<[Axis; 6]> {
    let mut axes: SmallVec<[Axis; 6]> = SmallVec::new();
    for (&size, &is_reduced) in shape.iter().zip(reduced).filter(|(size, _)| **size != 1) {
        match axes.last_mut() {
            Some(outer) if outer.is_reduced == is_reduced => outer.size *= size,
            _ => axes.push(Axis { size, is_reduced }),
        }
    }
    axes
}

/// How the elements to be combined lie.
enum Layout {
    /// `[K, R]`.
    Rows,
    /// `[K, R, I]`.
    Columns { rows: usize, inner: usize },
    /// Otherwise: sizes, and the permutation that makes them rows.
    Mixed {
        shape: SmallVec<[usize; 6]>,
        permutation: SmallVec<[usize; 6]>,
    },
}

impl Layout {
    fn of(shape: &[usize], reduced: &[bool]) -> Layout {
        let axes = merged_axes(shape, reduced);
        match axes[..] {
            [] | [_] => Layout::Rows,
            [
                Axis {
                    is_reduced: false, ..
                },
                Axis {
                    is_reduced: true, ..
                },
            ] => Layout::Rows,
            [
                Axis {
                    size: rows,
                    is_reduced: true,
                },
                Axis { size: inner, .. },
            ]
            | [
                _,
                Axis {
                    size: rows,
                    is_reduced: true,
                },
                Axis { size: inner, .. },
            ] => Layout::Columns { rows, inner },
            _ => {
                let axes = &axes;
                let of_kind = |kind| (0..axes.len()).filter(move |&i| axes[i].is_reduced == kind);
                Layout::Mixed {
                    shape: axes.iter().map(|axis| axis.size).collect(),
                    permutation: of_kind(false).chain(of_kind(true)).collect(),
                }
            }
        }
    }
}

/// Elements that a thread should have at least.
const LEAST: usize = 32_768;

/// Reduces `x` of `shape` over the axes marked in `reduced` to `y`, which has an element for each
/// combination of the others, in f32.
///
/// # Panics
/// When the lengths do not fit.
pub fn reduce<T: Real>(
    env: &Env,
    reduction: Reduction,
    shape: &[usize],
    reduced: &[bool],
    x: &[T],
    y: &mut [T],
) {
    if let (Some(x), Some(y)) = (T::as_f32(x), T::as_f32_mut(y)) {
        return reduce_f32(env, reduction, shape, reduced, x, y);
    }
    let (mut wide_x, mut wide_y) = (limits::zeroed(x.len()), limits::zeroed(y.len()));
    T::widen(x, &mut wide_x);
    reduce_f32(env, reduction, shape, reduced, &wide_x, &mut wide_y);
    T::narrow(&wide_y, y);
}

fn reduce_f32(
    env: &Env,
    reduction: Reduction,
    shape: &[usize],
    reduced: &[bool],
    x: &[f32],
    y: &mut [f32],
) {
    if y.is_empty() {
        return;
    }
    let row = x.len() / y.len();
    match Layout::of(shape, reduced) {
        Layout::Columns { rows, inner } if reduction != Reduction::LogSumExp => {
            let outer =
                env.threads
                    .piece_len(y.len() / inner, LEAST.div_ceil((row * inner).max(1)), 1);
            env.threads.for_each_chunk_mut(y, outer * inner, |i, y| {
                let x = &x[i * outer * inner * row..][..y.len() * row];
                env.dispatch(Columns {
                    reduction,
                    rows,
                    inner,
                    x,
                    y,
                });
            });
        }
        layout => as_rows(env, layout, x, |x| {
            let piece = env
                .threads
                .piece_len(y.len(), LEAST.div_ceil(row.max(1)), 1);
            env.threads.for_each_chunk_mut(y, piece, |i, y| {
                let x = &x[i * piece * row..][..y.len() * row];
                env.dispatch(Rows { reduction, x, y });
            });
        }),
    }
}

/// Calls `work` with the elements in rows that are to be combined.
fn as_rows<T: Element + Default>(env: &Env, layout: Layout, x: &[T], work: impl FnOnce(&[T])) {
    let (shape, permutation) = match layout {
        Layout::Rows => return work(x),
        Layout::Columns { rows, inner } => {
            let outer = x.len() / (rows * inner).max(1);
            (
                SmallVec::from_slice(&[outer, rows, inner]),
                SmallVec::from_slice(&[0, 2, 1]),
            )
        }
        Layout::Mixed { shape, permutation } => (shape, permutation),
    };
    let mut rows = limits::filled(T::default(), x.len());
    transpose(env, &shape, &permutation, x, &mut rows);
    work(&rows);
}

/// Reduces integers and doubles: as [`reduce`], one element at a time, in order.
///
/// # Panics
/// When the lengths do not fit.
pub fn reduce_scalars<T: Scalar>(
    env: &Env,
    reduction: Reduction,
    shape: &[usize],
    reduced: &[bool],
    x: &[T],
    y: &mut [T],
) {
    if y.is_empty() {
        return;
    }
    let row = x.len() / y.len();
    as_rows(env, Layout::of(shape, reduced), x, |x| {
        for (i, y) in y.iter_mut().enumerate() {
            *y = T::reduce(reduction, &x[i * row..(i + 1) * row]);
        }
    });
}
