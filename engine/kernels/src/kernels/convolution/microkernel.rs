//! The innermost loop of depthwise convolution and pooling: several vectors of windows at a time.
#![expect(
    unsafe_code,
    reason = "windows are read through pointers whose reach is checked once per call"
)]

use super::planes::{PlaneLayout, VectorPosition, VectorPositions};
use crate::isa::Isa;
use crate::limits::Watch;

/// Vectors of output positions that are computed at a time, to hide latency.
const GROUP: usize = 8;

/// Padded channels and what is under their windows.
pub(crate) struct Windows<'w> {
    pub(crate) layout: &'w PlaneLayout,
    /// Padded channels one after the other; then [`SLACK`](super::planes::SLACK) elements.
    pub(crate) planes: &'w [f32],
    /// See [`PlaneLayout::tap_offsets`].
    pub(crate) taps: &'w [usize],
    /// Spatial size of the output.
    pub(crate) output_size: [usize; 3],
}

impl Windows<'_> {
    /// Reduces the window of each output position of each channel in `output`:
    /// `step(… step(start, x₀, w, 0) …, xₙ, w, n)` over the taps in order, where `step` sees the
    /// reduction so far, the elements under a tap, what `weights` returned for the channel, and
    /// the tap.
    ///
    /// A group of vectors may span output rows, so that small images are as quick as large ones.
    ///
    /// # Panics
    /// If the planes are too short.
    #[inline(always)]
    pub(crate) fn reduce<I: Isa, W: Copy>(
        &self,
        isa: I,
        output: &mut [f32],
        start: I::F32,
        weights: impl Fn(usize) -> W,
        step: impl Fn(I::F32, I::F32, W, usize) -> I::F32,
    ) {
        let (plane_len, output_len) = (
            self.layout.len(),
            self.output_size.iter().product::<usize>(),
        );
        let channels = output.len() / output_len.max(1);
        let reach = self.layout.last_window(self.output_size)
            + self.taps.iter().max().unwrap_or(&0)
            + I::LANES;
        assert!(channels == 0 || self.planes.len() >= (channels - 1) * plane_len + reach);
        let mut watch = Watch::begin();
        let of_group = (channels * GROUP * I::LANES).saturating_mul(self.taps.len());
        let mut positions = VectorPositions::new(self.layout, self.output_size, I::LANES);
        loop {
            let mut group = [VectorPosition::default(); GROUP];
            let mut count = 0;
            while count < GROUP
                && let Some(position) = positions.next()
            {
                group[count] = position;
                count += 1;
            }
            if count == 0 {
                break;
            }
            // Windows may be as large as the image.
            watch.count(of_group);
            for (channel, output) in output.chunks_exact_mut(output_len).enumerate() {
                let plane = self.planes[channel * plane_len..].as_ptr();
                let sources = group.map(|position| plane.wrapping_add(position.source));
                let weights = weights(channel);
                let mut acc = [start; GROUP];
                for (tap, &offset) in self.taps.iter().enumerate() {
                    for u in 0..GROUP {
                        // SAFETY: source + offset + LANES <= reach, which the planes have from
                        // this channel on.
                        let x = unsafe { isa.load_ptr(sources[u].add(offset)) };
                        acc[u] = step(acc[u], x, weights, tap);
                    }
                }
                // A copy, which the loop below may index at run time.
                let reduced = acc;
                for (position, reduced) in group[..count].iter().zip(reduced) {
                    let target = &mut output[position.target..][..position.len];
                    if position.len == I::LANES {
                        isa.store(reduced, target);
                    } else {
                        isa.store_partial(reduced, target);
                    }
                }
            }
        }
    }
}
