//! Convolutions of `f32` in one, two and three dimensions, `[N, C, spatial…]`.
//!
//! Which path a convolution takes:
//! - window of one element, stride 1: a matrix product on the image as it lies in memory;
//! - one input channel for each group ([`depthwise`]): directly;
//! - otherwise ([`columns`]): a matrix product with the windows, which are written straight into
//!   the panels of the product.
//!
//! The weights `[M, C / groups, kernel…]` are read where they are on every path. Each output
//! element is the sum over `(channel, depth, height, width)` of the window in this order, padding
//! included as zeros, then bias, residual and activation.

mod columns;
mod depthwise;
pub mod geometry;
pub(crate) mod microkernel;
pub mod planes;
#[cfg(test)]
mod tests;
mod transposed;

use self::columns::ImageColumns;
pub use self::geometry::{Geometry, GeometryError, Window};
use self::planes::{PlaneLayout, SLACK};
pub use self::transposed::{TransposedConvolution, convolve_transposed};
use super::env::Env;
use super::gemm::blocking::{Lhs, Product};
use super::gemm::microkernel::OutputBlock;
use super::gemm::{self, Activation, Bias, Epilogue, Gemm, Left, MatrixRef, Right, narrow};
use super::offload;
use super::scratch;
use crate::isa::{Isa, Kernel};

/// A convolution; see [`convolve`].
#[derive(Debug)]
pub struct Convolution<'a> {
    /// From [`Geometry::convolution`].
    pub geometry: &'a Geometry,
    /// `[N, C, input…]`
    pub input: &'a [f32],
    /// `[M, C / groups, kernel…]`
    pub weights: &'a [f32],
    /// `[M]`
    pub bias: Option<&'a [f32]>,
    /// Added before the activation: the shape of the output.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
    /// `[N, M, output…]`
    pub output: &'a mut [f32],
}

/// Computes a convolution (ONNX `Conv`: cross-correlation).
///
/// # Panics
/// If a slice has another length than the geometry says.
pub fn convolve(env: &Env, convolution: Convolution<'_>) {
    if let Some(host) = offload::host() {
        return offload::Call::convolve(&convolution).send(host);
    }
    let Convolution {
        geometry,
        input,
        weights,
        bias,
        residual,
        activation,
        output,
    } = convolution;
    let (input_len, output_len) = (geometry.input_len(), geometry.output_len());
    let depth = geometry.group_in() * geometry.taps();
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
    assert_eq!(weights.len(), geometry.out_channels * depth, "weights");
    if let Some(bias) = bias {
        assert_eq!(bias.len(), geometry.out_channels, "bias");
    }
    if let Some(residual) = residual {
        assert_eq!(residual.len(), output.len(), "residual");
    }
    if output.is_empty() {
        return;
    }
    let epilogue = Epilogue {
        bias: bias.map_or(Bias::None, Bias::PerRow),
        residual,
        activation,
        ..Epilogue::default()
    };
    if geometry.is_depthwise() {
        let convolution = Convolution {
            geometry,
            input,
            weights,
            bias,
            residual,
            activation,
            output,
        };
        return depthwise::convolve(env, convolution, &epilogue);
    }
    let image_in = geometry.in_channels * input_len;
    let image_out = geometry.out_channels * output_len;
    for (image, output) in output.chunks_exact_mut(image_out).enumerate() {
        let input = &input[image * image_in..][..image_in];
        let residual = residual.map(|x| &x[image * image_out..][..image_out]);
        let epilogue = Epilogue {
            residual,
            ..epilogue
        };
        if geometry.is_pointwise() {
            pointwise(env, geometry, input, weights, &epilogue, output);
        } else {
            windowed(env, geometry, input, weights, &epilogue, output);
        }
    }
}

/// The part of an epilogue that belongs to the output channels of a group.
fn of_group<'a>(epilogue: &Epilogue<'a>, geometry: &Geometry, group: usize) -> Epilogue<'a> {
    let (channels, len) = (geometry.group_out(), geometry.output_len());
    Epilogue {
        bias: match epilogue.bias {
            Bias::PerRow(bias) => Bias::PerRow(&bias[group * channels..][..channels]),
            other => other,
        },
        residual: epilogue
            .residual
            .map(|x| &x[group * channels * len..][..channels * len]),
        ..*epilogue
    }
}

/// One image: a matrix product for each group.
fn pointwise(
    env: &Env,
    geometry: &Geometry,
    input: &[f32],
    weights: &[f32],
    epilogue: &Epilogue<'_>,
    output: &mut [f32],
) {
    let (m, k, n) = (
        geometry.group_out(),
        geometry.group_in(),
        geometry.output_len(),
    );
    for (group, c) in output.chunks_exact_mut(m * n).enumerate() {
        gemm::gemm(
            env,
            Gemm {
                a: Left::Plain(MatrixRef::new(&weights[group * m * k..][..m * k], m, k)),
                b: Right::Plain(MatrixRef::new(&input[group * k * n..][..k * n], k, n)),
                c,
                c_row_stride: n,
                accumulate: false,
                epilogue: of_group(epilogue, geometry, group),
            },
        );
    }
}

/// One image: its channels padded and sorted by phase, then a product with its windows for each
/// group.
fn windowed(
    env: &Env,
    geometry: &Geometry,
    input: &[f32],
    weights: &[f32],
    epilogue: &Epilogue<'_>,
    output: &mut [f32],
) {
    let layout = PlaneLayout::new(geometry);
    let (taps, plane_len, input_len) = (geometry.taps(), layout.len(), geometry.input_len());
    let (m, k, n) = (
        geometry.group_out(),
        geometry.group_in() * taps,
        geometry.output_len(),
    );
    let planes_len = geometry.in_channels * plane_len;
    scratch::with(taps, |offsets: &mut [usize]| {
        offsets
            .iter_mut()
            .zip(layout.tap_offsets())
            .for_each(|(x, offset)| *x = offset);
        scratch::with(planes_len + SLACK, |planes: &mut [f32]| {
            let step = env.threads.piece_len(geometry.in_channels, 4, 1);
            let padded = &mut planes[..planes_len];
            env.threads
                .for_each_chunk_mut(padded, step * plane_len, |piece, planes| {
                    let channels = &input[piece * step * input_len..];
                    env.dispatch(FillPlanes {
                        layout: &layout,
                        channels,
                        planes,
                    });
                });
            for (group, c) in output.chunks_exact_mut(m * n).enumerate() {
                let first = group * geometry.group_in() * plane_len;
                let filters = MatrixRef::new(&weights[group * m * k..][..m * k], m, k);
                let columns = ImageColumns {
                    planes: &planes[first..],
                    layout: &layout,
                    taps: offsets,
                    output: geometry.output,
                };
                let epilogue = of_group(epilogue, geometry, group);
                let output = OutputBlock::new(c, m, n, n);
                if narrow::suits(env, filters, n) {
                    scratch::with(k * n, |windows: &mut [f32]| {
                        columns.write_windows(k, windows);
                        narrow::with_columns(env, filters, windows, &epilogue, output);
                    });
                    continue;
                }
                let product = Product {
                    depth: k,
                    a: Lhs::InPlace(filters),
                    b: columns,
                    accumulate: false,
                    epilogue,
                };
                gemm::run(env, output, &product);
            }
        });
    });
}

/// Copies channels into their padded planes.
struct FillPlanes<'f> {
    layout: &'f PlaneLayout,
    channels: &'f [f32],
    planes: &'f mut [f32],
}

impl Kernel for FillPlanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let FillPlanes {
            layout,
            channels,
            planes,
        } = self;
        let len = layout.input_len();
        for (i, plane) in planes.chunks_exact_mut(layout.len()).enumerate() {
            layout.fill(isa, &channels[i * len..][..len], 0.0, plane);
        }
    }
}
