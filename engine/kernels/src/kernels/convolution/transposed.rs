//! Transposed convolution: each input element adds a scaled window of weights to the output.
//!
//! ```text
//! for each image and group:
//!     columns[out_channel · tap][position] = Σ_c W[c][out_channel · tap] · X[c][position]
//!     for each out_channel, each tap in order: add the columns where their tap falls
//! ```
//!
//! The sums over channels are a matrix product; those over taps have one order, too.

use super::geometry::Geometry;
use crate::isa::{Isa, Kernel};
use crate::kernels::env::Env;
use crate::kernels::gemm::{Activation, Bias, Epilogue, Gemm, Left, MatrixRef, Right, gemm};
use crate::kernels::scratch;
use crate::limits;

/// A transposed convolution; see [`convolve_transposed`].
#[derive(Debug)]
pub struct TransposedConvolution<'a> {
    /// From [`Geometry::transposed`].
    pub geometry: &'a Geometry,
    /// `[N, C, input…]`
    pub input: &'a [f32],
    /// `[C, M / groups, kernel…]`
    pub weights: &'a [f32],
    /// `[M]`
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
    /// `[N, M, output…]`
    pub output: &'a mut [f32],
}

/// Computes a transposed convolution (ONNX `ConvTranspose`).
///
/// # Panics
/// If a slice has another length than the geometry says.
pub fn convolve_transposed(env: &Env, convolution: TransposedConvolution<'_>) {
    let TransposedConvolution {
        geometry,
        input,
        weights,
        bias,
        activation,
        output,
    } = convolution;
    let (input_len, output_len, taps) =
        (geometry.input_len(), geometry.output_len(), geometry.taps());
    let (group_in, group_out) = (geometry.group_in(), geometry.group_out());
    assert_eq!(
        input.len(),
        geometry.batch * geometry.in_channels * input_len,
        "input"
    );
    assert_eq!(
        output.len(),
        geometry.batch * geometry.out_channels * output_len,
        "output"
    );
    assert_eq!(
        weights.len(),
        geometry.in_channels * group_out * taps,
        "weights"
    );
    if let Some(bias) = bias {
        assert_eq!(bias.len(), geometry.out_channels, "bias");
    }
    if output.is_empty() {
        return;
    }
    let epilogue = Epilogue {
        bias: bias.map_or(Bias::None, Bias::PerRow),
        activation,
        ..Epilogue::default()
    };
    let rows = group_out * taps;
    scratch::with(rows * input_len, |columns| {
        for (i, output) in output.chunks_exact_mut(group_out * output_len).enumerate() {
            let (image, group) = (i / geometry.groups, i % geometry.groups);
            let first = image * geometry.in_channels + group * group_in;
            let x = &input[first * input_len..][..group_in * input_len];
            let w = &weights[group * group_in * rows..][..group_in * rows];
            gemm(
                env,
                Gemm {
                    a: Left::Plain(MatrixRef::new(w, group_in, rows).transposed()),
                    b: Right::Plain(MatrixRef::new(x, group_in, input_len)),
                    c: columns,
                    c_row_stride: input_len,
                    accumulate: false,
                    epilogue: Epilogue::default(),
                },
            );
            let columns = &*columns;
            env.threads
                .for_each_chunk_mut(output, output_len, |channel, output| {
                    let columns = &columns[channel * taps * input_len..][..taps * input_len];
                    let row = group * group_out + channel;
                    env.dispatch(Scatter {
                        geometry,
                        columns,
                        epilogue: &epilogue,
                        row,
                        output,
                    });
                });
        }
    });
}

/// Adds the columns of one output channel.
struct Scatter<'s> {
    geometry: &'s Geometry,
    columns: &'s [f32],
    epilogue: &'s Epilogue<'s>,
    row: usize,
    output: &'s mut [f32],
}

impl Kernel for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Scatter {
            geometry,
            columns,
            epilogue,
            row,
            output,
        } = self;
        let [_, kernel_height, kernel_width] = geometry.kernel;
        let [in_depth, in_height, in_width] = geometry.input;
        let [out_depth, out_height, out_width] = geometry.output;
        output.fill(0.0);
        for (tap, columns) in columns
            .chunks_exact(geometry.input_len().max(1))
            .enumerate()
        {
            limits::end_if_stopped();
            let tap = [
                tap / (kernel_height * kernel_width),
                tap / kernel_width % kernel_height,
                tap % kernel_width,
            ];
            // Where input position `x` of dimension `i` falls.
            let place = |i: usize, x: usize| {
                (x * geometry.strides[i] + tap[i] * geometry.dilations[i])
                    .checked_sub(geometry.pads_begin[i])
            };
            for d in 0..in_depth {
                let Some(out_d) = place(0, d).filter(|&x| x < out_depth) else {
                    continue;
                };
                for h in 0..in_height {
                    let Some(out_h) = place(1, h).filter(|&x| x < out_height) else {
                        continue;
                    };
                    let source = &columns[(d * in_height + h) * in_width..][..in_width];
                    let target = &mut output[(out_d * out_height + out_h) * out_width..];
                    let stride = geometry.strides[2];
                    // The first position that falls into the row.
                    let shift = tap[2] * geometry.dilations[2];
                    let skipped = geometry.pads_begin[2]
                        .saturating_sub(shift)
                        .div_ceil(stride);
                    let (Some(source), Some(start)) = (source.get(skipped..), place(2, skipped))
                    else {
                        continue;
                    };
                    let Some(target) = target[..out_width].get_mut(start..) else {
                        continue;
                    };
                    if stride == 1 {
                        let len = source.len().min(target.len());
                        add(isa, &source[..len], &mut target[..len]);
                    } else {
                        for (x, y) in target.iter_mut().step_by(stride).zip(source) {
                            *x += y;
                        }
                    }
                }
            }
        }
        epilogue.finish_row(isa, row, 0, 0, output);
    }
}

/// `target += source`.
#[inline(always)]
fn add<I: Isa>(isa: I, source: &[f32], target: &mut [f32]) {
    let mut x = source.chunks_exact(I::LANES);
    let mut y = target.chunks_exact_mut(I::LANES);
    for (x, y) in (&mut x).zip(&mut y) {
        isa.store(isa.add(isa.load(y), isa.load(x)), y);
    }
    for (x, y) in x.remainder().iter().zip(y.into_remainder()) {
        *y += x;
    }
}
