//! Convolutions whose output channels depend on one input channel each.
//!
//! The input channel is padded and sorted by phase (see [`planes`](super::planes)), then each
//! window is reduced. Small channels take these steps several at a time, so that what one step
//! writes has reached the cache when the next one reads it.

use super::Convolution;
use super::geometry::Geometry;
use super::microkernel::Windows;
use super::planes::{PlaneLayout, SLACK};
use crate::isa::{Isa, Kernel};
use crate::kernels::env::Env;
use crate::kernels::gemm::Epilogue;
use crate::kernels::scratch;

/// Elements of padded channels that are worked on at a time: half of a first-level cache.
const BATCH_ELEMENTS: usize = 4096;

/// Multiplications under which threads are not worth waking.
const PARALLEL_THRESHOLD: usize = 1 << 15;

pub(super) fn convolve(env: &Env, convolution: Convolution<'_>, epilogue: &Epilogue<'_>) {
    let Convolution {
        geometry,
        input,
        weights,
        output,
        ..
    } = convolution;
    let layout = PlaneLayout::new(geometry);
    let (taps, output_len) = (geometry.taps(), geometry.output_len());
    let batch = (BATCH_ELEMENTS / layout.len()).clamp(1, 16);
    scratch::with(taps, |offsets: &mut [usize]| {
        offsets
            .iter_mut()
            .zip(layout.tap_offsets())
            .for_each(|(x, offset)| *x = offset);
        let channels = geometry.batch * geometry.out_channels;
        let small = output.len() * taps < PARALLEL_THRESHOLD;
        let step = if small {
            channels
        } else {
            env.threads.piece_len(channels, 1, 1)
        };
        let offsets = &*offsets;
        env.threads
            .for_each_chunk_mut(output, step * output_len, |piece, output| {
                scratch::with(batch * layout.len() + SLACK, |planes| {
                    let (layout, first) = (&layout, piece * step);
                    env.dispatch(Channels {
                        geometry,
                        layout,
                        input,
                        weights,
                        offsets,
                        planes,
                        batch,
                        epilogue,
                        first,
                        output,
                    });
                });
            });
    });
}

/// Some consecutive output channels.
struct Channels<'c> {
    geometry: &'c Geometry,
    layout: &'c PlaneLayout,
    /// All images.
    input: &'c [f32],
    /// Of all channels.
    weights: &'c [f32],
    offsets: &'c [usize],
    /// Room for the padded copies of `batch` channels.
    planes: &'c mut [f32],
    batch: usize,
    epilogue: &'c Epilogue<'c>,
    /// Index of the first channel, counted over all images.
    first: usize,
    output: &'c mut [f32],
}

impl Kernel for Channels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Channels {
            geometry,
            layout,
            input,
            weights,
            offsets,
            planes,
            epilogue,
            ..
        } = self;
        let (taps, out_channels) = (geometry.taps(), geometry.out_channels);
        let (input_len, output_len) = (geometry.input_len(), geometry.output_len());
        for (i, output) in self.output.chunks_mut(self.batch * output_len).enumerate() {
            let first = self.first + i * self.batch;
            let count = output.len() / output_len;
            for (channel, plane) in
                (first..first + count).zip(planes.chunks_exact_mut(layout.len()))
            {
                let (image, out) = (channel / out_channels, channel % out_channels);
                let source = image * geometry.in_channels + out / geometry.group_out();
                layout.fill(isa, &input[source * input_len..][..input_len], 0.0, plane);
            }
            let windows = Windows {
                layout,
                planes,
                taps: offsets,
                output_size: geometry.output,
            };
            let of_channel = |channel| &weights[(first + channel) % out_channels * taps..][..taps];
            windows.reduce(
                isa,
                output,
                isa.zero(),
                of_channel,
                |sum, x, weights, tap| isa.mul_add(isa.splat(weights[tap]), x, sum),
            );
            for (channel, output) in (first..).zip(output.chunks_exact_mut(output_len)) {
                let (image, out) = (channel / out_channels, channel % out_channels);
                let residual = epilogue
                    .residual
                    .map(|x| &x[image * out_channels * output_len..]);
                let epilogue = Epilogue {
                    residual,
                    ..*epilogue
                };
                epilogue.finish_row(isa, out, 0, output_len, output);
            }
        }
    }
}
