//! Convolutions whose output channels depend on one input channel each.
//!
//! The input channel is padded and sorted by phase, then each window is reduced; see
//! [`planes`](super::planes).

use super::Convolution;
use super::planes::{PlaneLayout, SLACK, reduce_windows};
use crate::isa::{Isa, Kernel};
use crate::kernels::env::Env;
use crate::kernels::gemm::Epilogue;
use crate::kernels::scratch;

pub(super) fn convolve(env: &Env, convolution: Convolution<'_>, epilogue: &Epilogue<'_>) {
    let Convolution {
        geometry,
        input,
        weights,
        output,
        ..
    } = convolution;
    let layout = PlaneLayout::new(geometry);
    let (taps, plane_len) = (geometry.taps(), layout.len() + SLACK);
    let (input_len, output_len) = (geometry.input_len(), geometry.output_len());
    let multiplier = geometry.group_out();
    scratch::with(taps, |offsets: &mut [usize]| {
        offsets
            .iter_mut()
            .zip(layout.tap_offsets())
            .for_each(|(x, offset)| *x = offset);
        let offsets = &*offsets;
        let small = geometry.out_channels * output_len * taps < 1 << 15;
        let channels = geometry.batch * geometry.out_channels;
        let step = if small {
            channels
        } else {
            env.threads.piece_len(channels, 1, 1).div_ceil(2)
        };
        env.threads
            .for_each_chunk_mut(output, step * output_len, |piece, output| {
                scratch::with(plane_len, |plane| {
                    for (i, output) in output.chunks_exact_mut(output_len).enumerate() {
                        let channel = piece * step + i;
                        let (image, out) = (
                            channel / geometry.out_channels,
                            channel % geometry.out_channels,
                        );
                        let source = image * geometry.in_channels + out / multiplier;
                        env.dispatch(Channel {
                            layout: &layout,
                            input: &input[source * input_len..][..input_len],
                            weights: &weights[out * taps..][..taps],
                            offsets,
                            plane,
                            output_size: geometry.output,
                            epilogue: &Epilogue {
                                residual: epilogue
                                    .residual
                                    .map(|x| &x[image * geometry.out_channels * output_len..]),
                                ..*epilogue
                            },
                            out,
                            output,
                        });
                    }
                });
            });
    });
}

/// One output channel.
struct Channel<'c> {
    layout: &'c PlaneLayout,
    input: &'c [f32],
    weights: &'c [f32],
    offsets: &'c [usize],
    /// Room for the padded copy.
    plane: &'c mut [f32],
    output_size: [usize; 3],
    epilogue: &'c Epilogue<'c>,
    out: usize,
    output: &'c mut [f32],
}

impl Kernel for Channel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.layout.fill(isa, self.input, 0.0, self.plane);
        let weights = self.weights;
        reduce_windows(
            isa,
            self.layout,
            self.plane,
            self.offsets,
            self.output_size,
            self.output,
            isa.zero(),
            |sum, x, tap| isa.mul_add(isa.splat(weights[tap]), x, sum),
        );
        let row_stride = self.output.len();
        self.epilogue
            .finish_row(isa, self.out, 0, row_stride, self.output);
    }
}
