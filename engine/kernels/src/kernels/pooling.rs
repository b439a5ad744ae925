//! Pooling of `f32`: the maximum, mean or norm of each window of each channel.
//!
//! Channels are padded and sorted by phase as for convolutions
//! ([`planes`](super::convolution::planes)), so that every size, stride and dilation is one loop
//! over vectors. A window is reduced in the order of its taps, a whole channel in 16 lanes
//! ([`lanes16`]).

use super::convolution::Geometry;
use super::convolution::microkernel::Windows;
use super::convolution::planes::{PlaneLayout, SLACK};
use super::env::Env;
use super::scratch;
use super::vector_math::rare::pow;
use crate::isa::{Isa, Kernel, lanes16};

#[cfg(test)]
mod tests;

/// What is taken of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pooling {
    /// The largest element, NaN skipped; negative infinity where a window is all padding.
    Max,
    /// The mean.
    Average {
        /// Whether padding counts as elements (zeros). Positions beyond the padded input, which
        /// rounding up the output size can reach, never count.
        count_include_pad: bool,
    },
    /// `(Σ |x|^p)^(1/p)`.
    Lp {
        /// The norm.
        p: f32,
    },
}

/// Elements under which threads are not worth waking.
const PARALLEL_THRESHOLD: usize = 1 << 15;

/// Pools `input: [N, C, input…]` into `output: [N, C, output…]`.
///
/// # Panics
/// If a slice has another length than the geometry says.
pub fn pool(env: &Env, geometry: &Geometry, pooling: Pooling, input: &[f32], output: &mut [f32]) {
    let (input_len, output_len) = (geometry.input_len(), geometry.output_len());
    let channels = geometry.batch * geometry.in_channels;
    assert_eq!(input.len(), channels * input_len, "input");
    assert_eq!(output.len(), channels * output_len, "output");
    if output.is_empty() {
        return;
    }
    let layout = PlaneLayout::new(geometry);
    scratch::with(geometry.taps(), |taps: &mut [usize]| {
        taps.iter_mut()
            .zip(layout.tap_offsets())
            .for_each(|(x, offset)| *x = offset);
        let taps = &*taps;
        let small = output.len() * taps.len() < PARALLEL_THRESHOLD;
        let step = if small {
            channels
        } else {
            env.threads.piece_len(channels, 1, 1)
        };
        env.threads
            .for_each_chunk_mut(output, step * output_len, |piece, output| {
                scratch::with(layout.len() + SLACK, |plane| {
                    scratch::with(geometry.output[2], |widths| {
                        let input = &input[piece * step * input_len..];
                        let layout = &layout;
                        let job = Channels {
                            geometry,
                            pooling,
                            layout,
                            taps,
                            input,
                            plane,
                            widths,
                            output,
                        };
                        env.dispatch(job);
                    });
                });
            });
    });
}

/// Some consecutive channels.
struct Channels<'c> {
    geometry: &'c Geometry,
    pooling: Pooling,
    layout: &'c PlaneLayout,
    taps: &'c [usize],
    input: &'c [f32],
    /// Room for a padded channel.
    plane: &'c mut [f32],
    /// Room for the elements that count along the width.
    widths: &'c mut [f32],
    output: &'c mut [f32],
}

impl Kernel for Channels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Channels {
            geometry,
            pooling,
            layout,
            taps,
            input,
            plane,
            widths,
            output,
        } = self;
        let input_len = geometry.input_len();
        if let Pooling::Average { count_include_pad } = pooling {
            for (x, width) in widths.iter_mut().enumerate() {
                *width = counted(geometry, 2, x, count_include_pad) as f32;
            }
        }
        for (i, output) in output.chunks_exact_mut(geometry.output_len()).enumerate() {
            let channel = &input[i * input_len..][..input_len];
            let padding = match pooling {
                Pooling::Max => f32::NEG_INFINITY,
                Pooling::Average { .. } | Pooling::Lp { .. } => 0.0,
            };
            layout.fill(isa, channel, padding, plane);
            if let Pooling::Lp { p } = pooling {
                map(isa, &mut plane[..layout.len()], |x| power(isa, x, p));
            }
            let windows = Windows {
                layout,
                planes: plane,
                taps,
                output_size: geometry.output,
            };
            match pooling {
                Pooling::Max => {
                    let start = isa.splat(f32::NEG_INFINITY);
                    windows.reduce(isa, output, start, |_| (), |best, x, _, _| isa.max(x, best));
                }
                Pooling::Average { .. } | Pooling::Lp { .. } => {
                    windows.reduce(
                        isa,
                        output,
                        isa.zero(),
                        |_| (),
                        |sum, x, _, _| isa.add(sum, x),
                    );
                }
            }
            match pooling {
                Pooling::Max => {}
                Pooling::Average { count_include_pad } => {
                    divide(isa, geometry, count_include_pad, widths, output);
                }
                Pooling::Lp { p } => map(isa, output, |x| root(isa, x, p)),
            }
        }
    }
}

/// How many taps of the windows at output position `x` of a dimension count for a mean.
fn counted(geometry: &Geometry, dimension: usize, x: usize, include_pad: bool) -> usize {
    let i = dimension;
    let (input, before, after) = (
        geometry.input[i],
        geometry.pads_begin[i],
        geometry.pads_end[i],
    );
    let range = if include_pad {
        0..before + input + after
    } else {
        before..before + input
    };
    (0..geometry.kernel[i])
        .filter(|tap| range.contains(&(x * geometry.strides[i] + tap * geometry.dilations[i])))
        .count()
}

/// Divides the sums of a channel by the number of elements that count.
#[inline(always)]
fn divide<I: Isa>(
    isa: I,
    geometry: &Geometry,
    include_pad: bool,
    widths: &[f32],
    output: &mut [f32],
) {
    let [_, height, width] = geometry.output;
    for (row, output) in output.chunks_exact_mut(width).enumerate() {
        let depths = counted(geometry, 0, row / height, include_pad);
        let heights = counted(geometry, 1, row % height, include_pad);
        let rows = isa.splat((depths * heights) as f32);
        let sums = output.chunks_mut(I::LANES);
        for (sums, widths) in sums.zip(widths.chunks(I::LANES)) {
            // A window that is all padding has the mean 0.
            let count = isa.max(isa.splat(1.0), isa.mul(rows, isa.load_partial(widths)));
            isa.store_partial(isa.div(isa.load_partial(sums), count), sums);
        }
    }
}

/// `x = f(x)`, vector by vector.
#[inline(always)]
fn map<I: Isa>(isa: I, x: &mut [f32], f: impl Fn(I::F32) -> I::F32) {
    for vector in x.chunks_mut(I::LANES) {
        isa.store_partial(f(isa.load_partial(vector)), vector);
    }
}

/// `|x|^p`.
#[inline(always)]
fn power<I: Isa>(isa: I, x: I::F32, p: f32) -> I::F32 {
    if p == 1.0 {
        isa.abs(x)
    } else if p == 2.0 {
        isa.mul(x, x)
    } else {
        pow(isa, isa.abs(x), p)
    }
}

/// `x^(1/p)` for `x >= 0`.
#[inline(always)]
fn root<I: Isa>(isa: I, x: I::F32, p: f32) -> I::F32 {
    if p == 1.0 {
        x
    } else if p == 2.0 {
        isa.sqrt(x)
    } else {
        pow(isa, x, 1.0 / p)
    }
}

/// Pools each whole channel of `channel_len` elements into one element of `output`.
///
/// # Panics
/// If the lengths do not fit.
pub fn pool_global(
    env: &Env,
    pooling: Pooling,
    channel_len: usize,
    input: &[f32],
    output: &mut [f32],
) {
    struct Whole<'w>(Pooling, usize, &'w [f32], &'w mut [f32]);
    impl Kernel for Whole<'_> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            let Whole(pooling, len, input, output) = self;
            for (i, y) in output.iter_mut().enumerate() {
                let x = &input[i * len..][..len];
                *y = match pooling {
                    Pooling::Max => lanes16::max(isa, x),
                    Pooling::Average { .. } => lanes16::sum(isa, x) / len as f32,
                    Pooling::Lp { p } => {
                        let step = |sum, x| isa.add(sum, power(isa, x, p));
                        let lanes = lanes16::fold(isa, x, 0.0, step);
                        let mut y = [lanes16::join(isa, lanes, |a, b| a + b)];
                        map(isa, &mut y, |x| root(isa, x, p));
                        y[0]
                    }
                };
            }
        }
    }
    assert_eq!(input.len(), output.len() * channel_len, "input");
    let small = input.len() < PARALLEL_THRESHOLD;
    let step = if small {
        output.len()
    } else {
        env.threads.piece_len(output.len(), 1, 1)
    };
    env.threads
        .for_each_chunk_mut(output, step.max(1), |piece, output| {
            let input = &input[piece * step * channel_len..];
            env.dispatch(Whole(pooling, channel_len, input, output));
        });
}
