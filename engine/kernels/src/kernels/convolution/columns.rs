//! Windows of an image as the right-hand side of a matrix product, packed panel by panel.
//!
//! Row `p` of the matrix is a tap `(channel, kd, kh, kw)`, column `j` an output position. The whole
//! matrix ("im2col") never exists: a block of it is written straight into the panels that the
//! micro-kernel reads, from the padded copy of [`planes`](super::planes), where the columns of an
//! output row are contiguous for every tap.

use std::ops::Range;

use super::planes::{PlaneLayout, SLACK};
use crate::isa::Isa;
use crate::kernels::gemm::blocking::{Panels, Rhs};

/// Output positions a panel can have: the widest register tile.
const WIDEST: usize = 64;

/// The columns of one group of one image.
pub(super) struct ImageColumns<'a> {
    /// Padded copies of the group's channels, and [`SLACK`] more elements.
    pub(super) planes: &'a [f32],
    pub(super) layout: &'a PlaneLayout,
    /// For each tap of a window, see [`PlaneLayout::tap_offsets`].
    pub(super) taps: &'a [usize],
    pub(super) output: [usize; 3],
}

/// A run of output positions in one output row.
#[derive(Clone, Copy, Default)]
struct Run {
    /// Where their windows start in the padded copy.
    source: usize,
    /// Column in the panel.
    column: usize,
    len: usize,
}

impl ImageColumns<'_> {
    /// The runs that make up the columns from `start` on; returns how many there are.
    #[inline(always)]
    fn runs(&self, cols: Range<usize>, runs: &mut [Run; WIDEST]) -> usize {
        let [_, height, width] = self.output;
        let (mut col, mut count) = (cols.start, 0);
        while col < cols.end {
            let (row, x) = (col / width, col % width);
            let len = (width - x).min(cols.end - col);
            runs[count] = Run {
                source: self.layout.window_offset(row / height, row % height) + x,
                column: col - cols.start,
                len,
            };
            count += 1;
            col += len;
        }
        count
    }
}

impl ImageColumns<'_> {
    /// Writes the columns one after the other: for each output position its window, `depth` taps.
    pub(super) fn write_windows(&self, depth: usize, windows: &mut [f32]) {
        let [_, height, width] = self.output;
        let (plane_len, taps) = (self.layout.len(), self.taps.len());
        for (col, window) in windows.chunks_exact_mut(depth).enumerate() {
            let (row, x) = (col / width, col % width);
            let start = self.layout.window_offset(row / height, row % height) + x;
            for (channel, window) in window.chunks_exact_mut(taps).enumerate() {
                let plane = &self.planes[channel * plane_len + start..];
                for (x, &tap) in window.iter_mut().zip(self.taps) {
                    *x = plane[tap];
                }
            }
        }
    }
}

impl Rhs for ImageColumns<'_> {
    fn scratch_len(&self, width: usize, depth: usize, cols: usize) -> usize {
        // The slack takes what the last run writes past its end.
        depth * cols.next_multiple_of(width) + SLACK
    }

    #[inline(always)]
    fn panels<'s, I: Isa>(
        &'s self,
        isa: I,
        width: usize,
        depth: Range<usize>,
        cols: Range<usize>,
        scratch: &'s mut [f32],
    ) -> Panels<'s> {
        let panel_len = width * depth.len();
        let plane_len = self.layout.len();
        let taps = self.taps.len();
        let mut runs = [Run::default(); WIDEST];
        for (panel, start) in cols.clone().step_by(width).enumerate() {
            let used = start..cols.end.min(start + width);
            let count = self.runs(used, &mut runs);
            let runs = &runs[..count];
            let (mut channel, mut tap) = (depth.start / taps, depth.start % taps);
            for row in 0..depth.len() {
                let source = &self.planes[channel * plane_len + self.taps[tap]..];
                let target = &mut scratch[panel * panel_len + row * width..];
                for run in runs {
                    copy_run(
                        isa,
                        &source[run.source..],
                        &mut target[run.column..],
                        run.len,
                    );
                }
                tap += 1;
                if tap == taps {
                    tap = 0;
                    channel += 1;
                }
            }
        }
        Panels {
            data: scratch,
            panel_stride: panel_len,
            row_stride: width,
            last: None,
        }
    }
}

/// Copies `len` elements in whole vectors: what is written too much is overwritten by the next
/// run, row or panel, or lies in the slack.
#[inline(always)]
fn copy_run<I: Isa>(isa: I, source: &[f32], target: &mut [f32], len: usize) {
    let vectors = len.next_multiple_of(I::LANES);
    let (source, target) = (&source[..vectors], &mut target[..vectors]);
    for (x, y) in source
        .chunks_exact(I::LANES)
        .zip(target.chunks_exact_mut(I::LANES))
    {
        isa.store(isa.load(x), y);
    }
}
