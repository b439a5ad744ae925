//! Normalisation to mean 0 and variance 1, or to a root mean square of 1.
//!
//! ```text
//! mean = Σ x / n      variance = Σ (x - mean)² / n      y = (x - mean) / √(variance + ε) · scale + bias
//! ```
//! Two passes over a row that stays in the first-level cache: subtracting the mean first loses no
//! digits where it is large. Sums go through [`lanes16`], hence the same bits everywhere.
//!
//! [`normalize_rows`] has a scale for each element of a row (layer and RMS norm);
//! [`row_moments`] and [`affine_segments`] together have one for each channel (batch, instance and
//! group norm).

use crate::isa::{Isa, Kernel, lanes16};
use crate::kernels::env::Env;
use crate::limits;

/// Elements that a thread should have at least.
const LEAST: usize = 16_384;

/// How rows are normalised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowNorm {
    /// Whether the mean is subtracted; without it, this is RMS norm.
    pub centres: bool,
    /// What is added to the variance.
    pub epsilon: f32,
}

/// Mean and `1 / √(variance + ε)` of a row. Without centring the mean is 0.
pub type RowStatistics = [f32; 2];

/// Scale and bias of the elements of a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowAffine<'a> {
    /// Factors, one for each element of a row.
    pub scale: Option<&'a [f32]>,
    /// Summands, one for each element of a row.
    pub bias: Option<&'a [f32]>,
}

/// Normalises each row of `n` elements of `x`, or of `y` itself where there is no `x`, to `y`, and
/// writes what it was normalised with to `statistics` where that is wanted.
///
/// # Panics
/// When the lengths do not fit.
pub fn normalize_rows(
    env: &Env,
    norm: RowNorm,
    n: usize,
    affine: RowAffine<'_>,
    x: Option<&[f32]>,
    y: &mut [f32],
    statistics: Option<&mut [RowStatistics]>,
) {
    if y.is_empty() {
        return;
    }
    assert!(x.is_none_or(|x| x.len() == y.len()) && y.len().is_multiple_of(n));
    if let Some(statistics) = statistics {
        let statistics = Some(statistics);
        return env.dispatch(Rows {
            norm,
            n,
            affine,
            x,
            y,
            statistics,
        });
    }
    let rows = env.threads.piece_len(y.len() / n, LEAST.div_ceil(n), 1);
    env.threads.for_each_chunk_mut(y, rows * n, |i, y| {
        let x = x.map(|x| &x[i * rows * n..][..y.len()]);
        env.dispatch(Rows {
            norm,
            n,
            affine,
            x,
            y,
            statistics: None,
        });
    });
}

struct Rows<'a> {
    norm: RowNorm,
    n: usize,
    affine: RowAffine<'a>,
    x: Option<&'a [f32]>,
    y: &'a mut [f32],
    statistics: Option<&'a mut [RowStatistics]>,
}

impl Kernel for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            norm,
            n,
            affine,
            x,
            y,
            mut statistics,
        } = self;
        for (i, y) in y.chunks_exact_mut(n).enumerate() {
            if let Some(x) = x {
                y.copy_from_slice(&x[i * n..(i + 1) * n]);
            }
            let [mean, variance] = moments(isa, norm.centres, y);
            let inverse = 1.0 / (variance + norm.epsilon).sqrt();
            if let Some(statistics) = &mut statistics {
                statistics[i] = [mean, inverse];
            }
            let (mean, inverse) = (isa.splat(mean), isa.splat(inverse));
            match (affine.scale, affine.bias) {
                (Some(scale), Some(bias)) => {
                    with_two(
                        isa,
                        y,
                        scale,
                        bias,
                        #[inline(always)]
                        |x, s, b| isa.mul_add(normal(isa, x, mean, inverse), s, b),
                    );
                }
                (Some(scale), None) => {
                    with_two(
                        isa,
                        y,
                        scale,
                        scale,
                        #[inline(always)]
                        |x, s, _| isa.mul(normal(isa, x, mean, inverse), s),
                    );
                }
                (None, Some(bias)) => {
                    with_two(
                        isa,
                        y,
                        bias,
                        bias,
                        #[inline(always)]
                        |x, b, _| isa.add(normal(isa, x, mean, inverse), b),
                    );
                }
                (None, None) => each(
                    isa,
                    y,
                    #[inline(always)]
                    |x| normal(isa, x, mean, inverse),
                ),
            }
        }
    }
}

#[inline(always)]
fn normal<I: Isa>(isa: I, x: I::F32, mean: I::F32, inverse: I::F32) -> I::F32 {
    isa.mul(isa.sub(x, mean), inverse)
}

/// Adds the squares of what 16 elements differ from the mean by to the lanes.
#[inline(always)]
fn add_squares<I: Isa>(isa: I, lanes: &mut I::F32x16, block: &[f32], mean: I::F32) {
    for (lane, part) in lanes.as_mut().iter_mut().zip(block.chunks_exact(I::LANES)) {
        let difference = isa.sub(isa.load(part), mean);
        *lane = isa.mul_add(difference, difference, *lane);
    }
}

/// Mean (0 without centring) and mean square of what differs from it.
#[inline(always)]
fn moments<I: Isa>(isa: I, centres: bool, x: &[f32]) -> [f32; 2] {
    let n = x.len() as f32;
    let mean = if centres {
        lanes16::sum(isa, x) / n
    } else {
        0.0
    };
    let mean_vector = isa.splat(mean);
    let mut lanes = isa.splat16(0.0);
    let mut blocks = x.chunks_exact(16);
    for block in &mut blocks {
        add_squares(isa, &mut lanes, block, mean_vector);
    }
    let tail = blocks.remainder();
    if !tail.is_empty() {
        // Missing elements are filled up with the mean, so that they add nothing.
        let mut block = [mean; 16];
        block[..tail.len()].copy_from_slice(tail);
        add_squares(isa, &mut lanes, &block, mean_vector);
    }
    [mean, lanes16::join(isa, lanes, |a, b| a + b) / n]
}

#[inline(always)]
fn each<I: Isa>(isa: I, y: &mut [f32], f: impl Fn(I::F32) -> I::F32) {
    let mut vectors = y.chunks_exact_mut(I::LANES);
    for vector in &mut vectors {
        isa.store(f(isa.load(vector)), vector);
    }
    let tail = vectors.into_remainder();
    if !tail.is_empty() {
        isa.store_partial(f(isa.load_partial(tail)), tail);
    }
}

/// `y[i] = f(y[i], a[i], b[i])`.
#[inline(always)]
fn with_two<I: Isa>(
    isa: I,
    y: &mut [f32],
    a: &[f32],
    b: &[f32],
    f: impl Fn(I::F32, I::F32, I::F32) -> I::F32,
) {
    let (a, b) = (&a[..y.len()], &b[..y.len()]);
    let mut i = 0;
    while i + I::LANES <= y.len() {
        let value = f(isa.load(&y[i..]), isa.load(&a[i..]), isa.load(&b[i..]));
        isa.store(value, &mut y[i..]);
        i += I::LANES;
    }
    if i < y.len() {
        let (a, b) = (isa.load_partial(&a[i..]), isa.load_partial(&b[i..]));
        let value = f(isa.load_partial(&y[i..]), a, b);
        isa.store_partial(value, &mut y[i..]);
    }
}

/// Mean and variance of each row of `x`, of which there are as many as `moments` has places.
///
/// # Panics
/// When the length of `x` is not a multiple of that.
pub fn row_moments(env: &Env, x: &[f32], row_moments: &mut [[f32; 2]]) {
    if row_moments.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(row_moments.len()));
    let n = x.len() / row_moments.len();
    let rows = env
        .threads
        .piece_len(row_moments.len(), LEAST.div_ceil(n.max(1)), 1);
    env.threads
        .for_each_chunk_mut(row_moments, rows, |i, moments| {
            let x = &x[i * rows * n..][..moments.len() * n];
            env.dispatch(Moments { x, n, moments });
        });
}

struct Moments<'a> {
    x: &'a [f32],
    n: usize,
    moments: &'a mut [[f32; 2]],
}

impl Kernel for Moments<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (i, target) in self.moments.iter_mut().enumerate() {
            *target = moments(isa, true, &self.x[i * self.n..(i + 1) * self.n]);
        }
    }
}

/// What happens to a segment: `(x - shift) · scale + bias`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SegmentAffine {
    /// Subtracted first.
    pub shift: f32,
    /// The factor.
    pub scale: f32,
    /// Added last.
    pub bias: f32,
}

/// Applies the entries of `affine` in turn, again and again, to segments of `len` elements of `x`,
/// or of `y` itself where there is no `x`.
///
/// # Panics
/// When the lengths do not fit.
pub fn affine_segments(
    env: &Env,
    len: usize,
    affine: &[SegmentAffine],
    x: Option<&[f32]>,
    y: &mut [f32],
) {
    if y.is_empty() {
        return;
    }
    assert!(x.is_none_or(|x| x.len() == y.len()) && y.len().is_multiple_of(len));
    let segments = env.threads.piece_len(y.len() / len, LEAST.div_ceil(len), 1);
    env.threads.for_each_chunk_mut(y, segments * len, |i, y| {
        let x = x.map(|x| &x[i * segments * len..][..y.len()]);
        env.dispatch(Segments {
            first: i * segments,
            len,
            affine,
            x,
            y,
        });
    });
}

struct Segments<'a> {
    first: usize,
    len: usize,
    affine: &'a [SegmentAffine],
    x: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl Kernel for Segments<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            first,
            len,
            affine,
            x,
            y,
        } = self;
        for (i, y) in y.chunks_exact_mut(len).enumerate() {
            if let Some(x) = x {
                y.copy_from_slice(&x[i * len..(i + 1) * len]);
            }
            let SegmentAffine { shift, scale, bias } = affine[(first + i) % affine.len()];
            let (shift, scale, bias) = (isa.splat(shift), isa.splat(scale), isa.splat(bias));
            each(
                isa,
                y,
                #[inline(always)]
                |x| isa.mul_add(isa.sub(x, shift), scale, bias),
            );
        }
    }
}

/// What local response normalisation divides by, before it is raised to a power:
/// `y = bias + alpha/size Σ x²`, the sum running over `size` channels around each one.
/// `[batch, channels, len]`.
///
/// # Panics
/// When the lengths do not fit.
pub fn local_response_base(
    window: LocalWindow,
    channels: usize,
    len: usize,
    x: &[f32],
    y: &mut [f32],
) {
    // A window that reaches beyond all channels reaches all of them.
    let reach = |channels_away: u64| {
        usize::try_from(channels_away)
            .unwrap_or(channels)
            .min(channels)
    };
    let (before, after) = (reach((window.size - 1) / 2), reach(window.size / 2));
    let factor = window.alpha / window.size as f32;
    let block = channels * len;
    if block == 0 {
        return;
    }
    for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
        for (channel, y) in y.chunks_exact_mut(len).enumerate() {
            limits::end_if_stopped();
            y.fill(0.0);
            for other in channel.saturating_sub(before)..(channel + after + 1).min(channels) {
                for (y, x) in y.iter_mut().zip(&x[other * len..]) {
                    *y += x * x;
                }
            }
            for y in y {
                *y = window.bias + factor * *y;
            }
        }
    }
}

/// The parameters of local response normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalWindow {
    /// Channels of a window; it may be wider than all that there are.
    pub size: u64,
    /// Factor of the sum, before it is divided by `size`.
    pub alpha: f32,
    /// What is added to it.
    pub bias: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Level, Numerics};
    use crate::kernels::threads::Threads;

    fn input(len: usize) -> Vec<f32> {
        (0..len)
            .map(|i| (i * 7919 % 1013) as f32 / 100.0 + 100.0)
            .collect()
    }

    fn reference_moments(centres: bool, x: &[f32]) -> [f64; 2] {
        let n = x.len() as f64;
        let mean = if centres {
            x.iter().map(|&x| x as f64).sum::<f64>() / n
        } else {
            0.0
        };
        [
            mean,
            x.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / n,
        ]
    }

    #[test]
    fn rows_are_normalised_as_in_double_precision() {
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
            for (rows, n) in [(1, 1), (3, 5), (4, 384), (200, 131)] {
                let x = input(rows * n);
                let scale: Vec<f32> = (0..n).map(|i| 1.0 + i as f32 / 50.0).collect();
                let bias: Vec<f32> = (0..n).map(|i| i as f32 / 30.0 - 1.0).collect();
                for centres in [true, false] {
                    for (with_scale, with_bias) in
                        [(true, true), (true, false), (false, true), (false, false)]
                    {
                        let norm = RowNorm {
                            centres,
                            epsilon: 1e-5,
                        };
                        let affine = RowAffine {
                            scale: with_scale.then_some(&scale),
                            bias: with_bias.then_some(&bias),
                        };
                        let mut y = vec![0.0; x.len()];
                        normalize_rows(&env, norm, n, affine, Some(&x), &mut y, None);
                        let mut in_place = x.clone();
                        let mut statistics = vec![[0.0; 2]; rows];
                        let wanted = Some(&mut statistics[..]);
                        normalize_rows(&env, norm, n, affine, None, &mut in_place, wanted);
                        assert!(y == in_place);
                        for (i, &y) in y.iter().enumerate() {
                            let row = &x[i / n * n..][..n];
                            let [mean, variance] = reference_moments(centres, row);
                            let mut want = (x[i] as f64 - mean) / (variance + 1e-5).sqrt();
                            want *= if with_scale { scale[i % n] as f64 } else { 1.0 };
                            want += if with_bias { bias[i % n] as f64 } else { 0.0 };
                            assert!(
                                (y as f64 - want).abs() < 2e-4 * want.abs().max(1.0),
                                "{rows} {n} {centres} {:?}: {y}, not {want}",
                                env.level
                            );
                            let mean_error = statistics[i / n][0] as f64 - mean;
                            assert!(mean_error.abs() < 1e-3);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn reproducible_bits_are_equal_on_every_level() {
        let x = input(3 * 77);
        let mut results = Level::available().map(|level| {
            let env = Env {
                level,
                numerics: Numerics::Reproducible,
                threads: Threads::single(),
            };
            let norm = RowNorm {
                centres: true,
                epsilon: 1e-5,
            };
            let affine = RowAffine {
                scale: Some(&x[..77]),
                bias: Some(&x[77..154]),
            };
            let mut y = vec![0.0; x.len()];
            normalize_rows(&env, norm, 77, affine, Some(&x), &mut y, None);
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        let first = results.next().expect("there is a level");
        assert!(results.all(|bits| bits == first));
    }

    #[test]
    fn segments_take_their_entries_in_turn() {
        let entry = |shift| SegmentAffine {
            shift,
            scale: 2.0,
            bias: 1.0,
        };
        let x: Vec<f32> = (0..60).map(|i| i as f32).collect();
        for threads in [Threads::single(), Threads::new(3).unwrap_or_default()] {
            let env = Env {
                threads,
                ..Env::new()
            };
            let mut y = vec![0.0; 60];
            affine_segments(&env, 10, &[entry(0.0), entry(5.0)], Some(&x), &mut y);
            for i in 0..60 {
                let shift = if i / 10 % 2 == 0 { 0.0 } else { 5.0 };
                assert_eq!(y[i], (i as f32 - shift) * 2.0 + 1.0);
            }
        }
        let mut moments = [[0.0; 2]; 6];
        row_moments(&Env::new(), &x, &mut moments);
        assert_eq!(moments[1], [14.5, 8.25]);
    }

    #[test]
    fn local_response_sums_the_neighbours() {
        let window = LocalWindow {
            size: 4,
            alpha: 4.0,
            bias: 0.5,
        };
        let x = [1.0, 2.0, 3.0, 4.0, 5.0];
        let mut y = [0.0; 5];
        local_response_base(window, 5, 1, &x, &mut y);
        // One channel before and two after.
        assert_eq!(y, [14.5, 30.5, 54.5, 50.5, 41.5]);
    }
}
