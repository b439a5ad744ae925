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
use crate::isa::Isa;

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
        let [depth, height, width] = geometry.reach();
        PlaneLayout {
            input: geometry.input,
            kernel: geometry.kernel,
            strides: geometry.strides,
            dilations: geometry.dilations,
            pads: geometry.pads_begin,
            padded: [depth, height],
            phase_len: width.div_ceil(geometry.strides[2]),
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
    pub(super) fn window_offset(&self, depth: usize, height: usize) -> usize {
        (depth * self.strides[0] * self.padded[1] + height * self.strides[1]) * self.pitch()
    }

    /// Where the last window starts: no output position has a larger offset.
    pub(super) fn last_window(&self, output: [usize; 3]) -> usize {
        let [depth, height, width] = output.map(|size| size.max(1) - 1);
        self.window_offset(depth, height) + width
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
    pub(crate) fn fill<I: Isa>(&self, isa: I, channel: &[f32], padding: f32, target: &mut [f32]) {
        let target = &mut target[..self.len()];
        splat(isa, padding, target);
        let [depth, height, width] = self.input;
        let [pad_depth, pad_height, pad_width] = self.pads;
        let (stride, pitch) = (self.strides[2], self.pitch());
        // Rows that no window reaches are left out.
        let depths = depth.min(self.padded[0].saturating_sub(pad_depth));
        let heights = height.min(self.padded[1].saturating_sub(pad_height));
        for d in 0..depths {
            for h in 0..heights {
                let source = &channel[(d * height + h) * width..][..width];
                let row = (d + pad_depth) * self.padded[1] + h + pad_height;
                let row = &mut target[row * pitch..][..pitch];
                match stride {
                    1 => copy(isa, source, row.get_mut(pad_width..).unwrap_or_default()),
                    2 => {
                        let (first, second) = row.split_at_mut(self.phase_len);
                        // An odd padding exchanges the phases.
                        let (even, odd) = if pad_width % 2 == 0 {
                            (first, second)
                        } else {
                            (second, first)
                        };
                        let even = even.get_mut(pad_width / 2..).unwrap_or_default();
                        let odd = odd.get_mut(pad_width.div_ceil(2)..).unwrap_or_default();
                        copy_halves(isa, source, even, odd);
                    }
                    _ => {
                        for (x, &value) in source.iter().enumerate() {
                            let x = x + pad_width;
                            if x < pitch {
                                row[x % stride * self.phase_len + x / stride] = value;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `target = x`.
#[inline(always)]
fn splat<I: Isa>(isa: I, x: f32, target: &mut [f32]) {
    let mut vectors = target.chunks_exact_mut(I::LANES);
    for vector in &mut vectors {
        isa.store(isa.splat(x), vector);
    }
    isa.store_partial(isa.splat(x), vectors.into_remainder());
}

/// Copies as much as fits. Rows are short: calls to a library function would dominate.
#[inline(always)]
fn copy<I: Isa>(isa: I, source: &[f32], target: &mut [f32]) {
    let len = source.len().min(target.len());
    let mut x = source[..len].chunks_exact(I::LANES);
    let mut y = target[..len].chunks_exact_mut(I::LANES);
    for (x, y) in (&mut x).zip(&mut y) {
        isa.store(isa.load(x), y);
    }
    isa.store_partial(isa.load_partial(x.remainder()), y.into_remainder());
}

/// Copies elements with even index to one slice, those with odd index to another, as many as fit.
#[inline(always)]
fn copy_halves<I: Isa>(isa: I, source: &[f32], even: &mut [f32], odd: &mut [f32]) {
    let mut start = 0;
    while 2 * start < source.len() {
        let part = &source[2 * start..];
        let a = isa.load_partial(part);
        let b = isa.load_partial(part.get(I::LANES..).unwrap_or_default());
        let (x, y) = isa.deinterleave(a, b);
        let end = start + I::LANES;
        let evens = source.len().div_ceil(2).min(end).min(even.len());
        let odds = (source.len() / 2).min(end).min(odd.len());
        isa.store_partial(x, even.get_mut(start..evens).unwrap_or_default());
        isa.store_partial(y, odd.get_mut(start..odds).unwrap_or_default());
        start = end;
    }
}

/// Vectors of output elements: pieces of output rows, none longer than `lanes`.
#[derive(Debug, Clone)]
pub(super) struct VectorPositions<'l> {
    layout: &'l PlaneLayout,
    output: [usize; 3],
    lanes: usize,
    depth: usize,
    height: usize,
    width: usize,
}

/// A piece of an output row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct VectorPosition {
    /// Where its windows start in the padded copy.
    pub(super) source: usize,
    /// Where it starts in the output channel.
    pub(super) target: usize,
    /// Its elements.
    pub(super) len: usize,
}

impl<'l> VectorPositions<'l> {
    #[inline(always)]
    pub(super) fn new(layout: &'l PlaneLayout, output: [usize; 3], lanes: usize) -> Self {
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
