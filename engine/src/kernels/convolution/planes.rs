//! Padded copies of image channels in which every tap of every window row is contiguous.
//!
//! A window with stride `s` along the width reads every `s`-th element. The copy sorts each row by
//! phase, so that those elements lie side by side:
//!
//! ```text
//! row, s = 2:   x0 x1 x2 x3 x4 x5 x6      (padding included)
//! copy:         x0 x2 x4 x6 | x1 x3 x5 ·  phase 0, phase 1
//! ```
//!
//! The value under tap `(kd, kh, kw)` for the window `(od, oh, ow)` is then at
//! `window_offset(od, oh) + ow + tap_offset(kd, kh, kw)`: any stride, dilation and padding becomes
//! vectors of consecutive elements without conditions. Each element is copied once and read as
//! often as there are taps.

use super::geometry::Geometry;

/// Elements after a plane that may be read, never used: whole vectors can be loaded at its end.
pub(crate) const SLACK: usize = 16;

/// Where things are in the padded copy of a channel.
#[derive(Debug, Clone)]
pub(crate) struct PlaneLayout {
    input: [usize; 3],
    kernel: [usize; 3],
    strides: [usize; 3],
    dilations: [usize; 3],
    pads: [usize; 3],
    /// Rows of the copy in depth and height.
    padded: [usize; 2],
    /// Elements of one phase of a row.
    phase_len: usize,
}

impl PlaneLayout {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let reach = |i: usize| {
            (geometry.output[i].max(1) - 1) * geometry.strides[i]
                + (geometry.kernel[i] - 1) * geometry.dilations[i]
                + 1
        };
        PlaneLayout {
            input: geometry.input,
            kernel: geometry.kernel,
            strides: geometry.strides,
            dilations: geometry.dilations,
            pads: geometry.pads_begin,
            padded: [reach(0), reach(1)],
            phase_len: reach(2).div_ceil(geometry.strides[2]),
        }
    }

    /// Elements of a channel.
    pub(crate) fn input_len(&self) -> usize {
        self.input.iter().product()
    }

    /// Elements of a row: all its phases.
    fn pitch(&self) -> usize {
        self.phase_len * self.strides[2]
    }

    /// Elements of the copy, without [`SLACK`].
    pub(crate) fn len(&self) -> usize {
        self.padded[0] * self.padded[1] * self.pitch()
    }

    /// Where the first window of an output row starts.
    #[inline(always)]
    pub(crate) fn window_offset(&self, depth: usize, height: usize) -> usize {
        (depth * self.strides[0] * self.padded[1] + height * self.strides[1]) * self.pitch()
    }

    /// What to add for a tap, for all taps in the order depth, height, width.
    pub(crate) fn tap_offsets(&self) -> impl Iterator<Item = usize> + '_ {
        let [depth, height, width] = self.kernel;
        (0..depth * height * width).map(move |tap| {
            let (kd, kh, kw) = (tap / (height * width), tap / width % height, tap % width);
            let row = kd * self.dilations[0] * self.padded[1] + kh * self.dilations[1];
            let x = kw * self.dilations[2];
            row * self.pitch() + x % self.strides[2] * self.phase_len + x / self.strides[2]
        })
    }

    /// Copies a channel, with `padding` around it.
    #[inline(always)]
    pub(crate) fn fill(&self, channel: &[f32], padding: f32, target: &mut [f32]) {
        let target = &mut target[..self.len()];
        let [_, height, width] = self.input;
        let (stride, pitch) = (self.strides[2], self.pitch());
        for (i, row) in target.chunks_exact_mut(pitch).enumerate() {
            let (d, h) = (i / self.padded[1], i % self.padded[1]);
            let source = match (d.checked_sub(self.pads[0]), h.checked_sub(self.pads[1])) {
                (Some(d), Some(h)) if d < self.input[0] && h < height => {
                    &channel[(d * height + h) * width..][..width]
                }
                _ => {
                    row.fill(padding);
                    continue;
                }
            };
            if stride == 1 {
                let start = self.pads[2].min(pitch);
                let len = width.min(pitch - start);
                row[..start].fill(padding);
                row[start..start + len].copy_from_slice(&source[..len]);
                row[start + len..].fill(padding);
                continue;
            }
            for (phase, target) in row.chunks_exact_mut(self.phase_len).enumerate() {
                // Element q of the phase is x = q·stride + phase - pad of the source.
                let before = self.pads[2].saturating_sub(phase).div_ceil(stride);
                let before = before.min(target.len());
                target[..before].fill(padding);
                let first = (before * stride + phase).saturating_sub(self.pads[2]);
                let mut done = before;
                if first < width {
                    let source = &source[first..];
                    let count = source.len().div_ceil(stride).min(target.len() - before);
                    done += count;
                    take_every(source, stride, &mut target[before..done]);
                }
                target[done..].fill(padding);
            }
        }
    }
}

/// `target[q] = source[q · stride]`.
#[inline(always)]
fn take_every(source: &[f32], stride: usize, target: &mut [f32]) {
    if stride == 2 {
        // The common case as a loop that compilers turn into shuffles.
        let (pairs, _) = source.as_chunks::<2>();
        let whole = pairs.len().min(target.len());
        for (x, pair) in target.iter_mut().zip(pairs) {
            *x = pair[0];
        }
        if let Some(x) = target.get_mut(whole) {
            *x = source[2 * whole];
        }
        return;
    }
    for (x, &value) in target.iter_mut().zip(source.iter().step_by(stride)) {
        *x = value;
    }
}

/// Vectors of output elements: pieces of output rows, none longer than `lanes`.
#[derive(Debug, Clone)]
pub(crate) struct VectorPositions<'l> {
    layout: &'l PlaneLayout,
    output: [usize; 3],
    lanes: usize,
    depth: usize,
    height: usize,
    width: usize,
}

/// A piece of an output row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct VectorPosition {
    /// Where its windows start in the padded copy.
    pub(crate) source: usize,
    /// Where it starts in the output channel.
    pub(crate) target: usize,
    /// Its elements.
    pub(crate) len: usize,
}

impl<'l> VectorPositions<'l> {
    #[inline(always)]
    pub(crate) fn new(layout: &'l PlaneLayout, output: [usize; 3], lanes: usize) -> Self {
        VectorPositions {
            layout,
            output,
            lanes,
            depth: 0,
            height: 0,
            width: 0,
        }
    }
}

impl Iterator for VectorPositions<'_> {
    type Item = VectorPosition;

    #[inline(always)]
    fn next(&mut self) -> Option<VectorPosition> {
        let [depth, height, width] = self.output;
        if self.width >= width {
            self.width = 0;
            self.height += 1;
            if self.height >= height {
                self.height = 0;
                self.depth += 1;
            }
        }
        if self.depth >= depth || height == 0 || width == 0 {
            return None;
        }
        let position = VectorPosition {
            source: self.layout.window_offset(self.depth, self.height) + self.width,
            target: (self.depth * height + self.height) * width + self.width,
            len: self.lanes.min(width - self.width),
        };
        self.width += self.lanes;
        Some(position)
    }
}
