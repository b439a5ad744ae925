//! Numbers to small integers and back: `q = clamp(round(x / scale) + zero)`, `x = (q − zero) · scale`.
//!
//! A tensor is seen as `[outer, axis, inner]` around the axis along which scales change
//! ([`Granularity`]); it falls into *spans* of neighbouring elements that either share one scale or
//! have one each, and a span is one vector loop. Rounding is to the nearest, ties to even, after a
//! true division, on every instruction set.

use crate::isa::{Isa, Kernel};
use crate::kernels::env::Env;
use crate::kernels::integer_gemm::Bytes;

/// How a tensor's elements share scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// One scale for all.
    Tensor,
    /// One for each index of an axis, or of each block along it: scales are
    /// `[outer, ceil(axis / block), inner]`, or just `[axis]` where `block` is 0.
    Axis {
        /// Elements after the axis.
        inner: usize,
        /// Size of the axis.
        axis: usize,
        /// Length of a block; 0 for scales of the axis alone.
        block: usize,
    },
}

/// Neighbouring elements and where their scales are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The elements.
    pub elements: std::ops::Range<usize>,
    /// Index of the first one's scale.
    pub scale: usize,
    /// Whether each element has a scale of its own, one after another, instead of one for all.
    pub each: bool,
}

impl Granularity {
    /// How many scales a tensor of `len` elements has.
    pub fn scale_count(&self, len: usize) -> usize {
        match *self {
            Granularity::Tensor => 1,
            Granularity::Axis { axis, block: 0, .. } => axis,
            Granularity::Axis { inner, axis, block } => {
                len / (axis * inner).max(1) * axis.div_ceil(block) * inner
            }
        }
    }

    /// The spans of a tensor of `len` elements, in order.
    pub fn spans(self, len: usize) -> impl Iterator<Item = Span> {
        let (inner, axis, block) = match self {
            Granularity::Tensor => (len.max(1), 1, 0),
            Granularity::Axis { inner, axis, block } => (inner.max(1), axis.max(1), block),
        };
        // Elements of a span, and how many spans go along the axis.
        let (width, along) = match (inner, block) {
            (1, 0) => (axis, 1),
            (1, block) => (block.min(axis), axis.div_ceil(block)),
            (inner, _) => (inner, axis),
        };
        let rows = len / (inner * axis);
        (0..rows * along).map(move |i| {
            let (row, step) = (i / along, i % along);
            let start = row * inner * axis + step * width;
            let end = (start + width).min((row + 1) * inner * axis);
            let (scale, each) = match (inner, block) {
                (1, 0) => (0, axis > 1),
                (1, _) => (row * along + step, false),
                (_, 0) => (step, false),
                (inner, block) => ((row * axis.div_ceil(block) + step / block) * inner, true),
            };
            Span {
                elements: start..end,
                scale,
                each,
            }
        })
    }
}

/// Scales of a tensor with what stands for zero.
#[derive(Debug, Clone, Copy)]
pub struct Scales<'a> {
    /// The scales.
    pub scales: &'a [f32],
    /// As many zero points, or none.
    pub zero_points: &'a [f32],
    /// How they are shared.
    pub granularity: Granularity,
}

/// Elements that a thread takes at a time, where there is one scale.
const PIECE: usize = 1 << 14;

/// `x = (q − zero) · scale`, for `q` as numbers.
///
/// # Panics
/// If the slices do not fit each other.
pub fn dequantize(env: &Env, q: &[f32], scales: Scales<'_>, x: &mut [f32]) {
    assert_eq!(q.len(), x.len());
    for span in scales.granularity.spans(q.len()) {
        env.dispatch(DequantizeSpan {
            q: Source::Numbers(&q[span.elements.clone()]),
            scales: scales.of(&span),
            x: &mut x[span.elements],
        });
    }
}

/// [`dequantize`] of bytes.
///
/// # Panics
/// If the slices do not fit each other.
pub fn dequantize_bytes(env: &Env, q: Bytes<'_>, scales: Scales<'_>, x: &mut [f32]) {
    assert_eq!(q.len(), x.len());
    for span in scales.granularity.spans(q.len()) {
        env.dispatch(DequantizeSpan {
            q: Source::Bytes(q.slice(span.elements.clone())),
            scales: scales.of(&span),
            x: &mut x[span.elements],
        });
    }
}

/// Where quantised bytes go.
#[derive(Debug)]
pub enum BytesMut<'a> {
    /// `0..=255`.
    Unsigned(&'a mut [u8]),
    /// `-128..=127`.
    Signed(&'a mut [i8]),
}

/// `q = clamp(round(x / scale) + zero)` to bytes.
///
/// # Panics
/// If the slices do not fit each other.
pub fn quantize_bytes(env: &Env, x: &[f32], scales: Scales<'_>, q: BytesMut<'_>) {
    let (bits, signed): (&mut [u8], bool) = match q {
        BytesMut::Unsigned(q) => (q, false),
        BytesMut::Signed(q) => (bytemuck::cast_slice_mut(q), true),
    };
    assert_eq!(bits.len(), x.len());
    if scales.granularity == Granularity::Tensor {
        let span = Span {
            elements: 0..x.len(),
            scale: 0,
            each: false,
        };
        env.threads.for_each_chunk_mut(bits, PIECE, |i, q| {
            env.dispatch(QuantizeSpan {
                x: &x[i * PIECE..][..q.len()],
                scales: scales.of(&span),
                q,
                signed,
            });
        });
        return;
    }
    for span in scales.granularity.spans(x.len()) {
        env.dispatch(QuantizeSpan {
            x: &x[span.elements.clone()],
            scales: scales.of(&span),
            q: &mut bits[span.elements],
            signed,
        });
    }
}

/// Calls `place(i, x / scale, zero)` for each element, for types other than bytes.
pub fn for_each_quotient(x: &[f32], scales: Scales<'_>, mut place: impl FnMut(usize, f32, f32)) {
    for span in scales.granularity.spans(x.len()) {
        for (j, i) in span.elements.clone().enumerate() {
            let at = span.scale + if span.each { j } else { 0 };
            let zero = scales.zero_points.get(at).copied().unwrap_or(0.0);
            place(i, x[i] / scales.scales[at], zero);
        }
    }
}

/// The scale and zero point with which `x` is quantised to `u8` by its own range, which is widened
/// to hold zero. Source: the operator `DynamicQuantizeLinear`.
pub fn range_of(env: &Env, x: &[f32]) -> (f32, u8) {
    let (low, high) = env.dispatch(Range { x });
    let (low, high) = (low.min(0.0), high.max(0.0));
    let scale = (high - low) / 255.0;
    if scale == 0.0 {
        return (1.0, 0);
    }
    let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0);
    (scale, zero as u8)
}

impl<'a> Scales<'a> {
    /// The scales of a span.
    fn of(&self, span: &Span) -> SpanScales<'a> {
        let count = if span.each { span.elements.len() } else { 1 };
        let part = |numbers: &'a [f32]| match numbers {
            [] => numbers,
            _ => &numbers[span.scale..][..count],
        };
        SpanScales {
            scales: part(self.scales),
            zero_points: part(self.zero_points),
        }
    }
}

/// One scale or one an element, and zero points likewise or none.
#[derive(Clone, Copy)]
struct SpanScales<'a> {
    scales: &'a [f32],
    zero_points: &'a [f32],
}

impl SpanScales<'_> {
    /// Scales and zero points of `lanes` elements from `at` on.
    #[inline(always)]
    fn vectors<I: Isa>(&self, isa: I, at: usize, lanes: usize) -> (I::F32, I::F32) {
        (
            numbers_at(isa, self.scales, at, lanes),
            numbers_at(isa, self.zero_points, at, lanes),
        )
    }
}

/// None (zero), one for all, or those of `lanes` elements from `at` on.
#[inline(always)]
fn numbers_at<I: Isa>(isa: I, numbers: &[f32], at: usize, lanes: usize) -> I::F32 {
    match numbers {
        [] => isa.zero(),
        [one] => isa.splat(*one),
        many => isa.load_partial(&many[at..][..lanes]),
    }
}

enum Source<'a> {
    Numbers(&'a [f32]),
    Bytes(Bytes<'a>),
}

struct DequantizeSpan<'a> {
    q: Source<'a>,
    scales: SpanScales<'a>,
    x: &'a mut [f32],
}

impl Kernel for DequantizeSpan<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (i, x) in self.x.chunks_mut(I::LANES).enumerate() {
            let at = i * I::LANES;
            let (scale, zero) = self.scales.vectors(isa, at, x.len());
            let q = match self.q {
                Source::Numbers(q) => isa.load_partial(&q[at..][..x.len()]),
                Source::Bytes(Bytes::Unsigned(q)) if x.len() == I::LANES => {
                    isa.to_f32(isa.load_u8(&q[at..]))
                }
                Source::Bytes(Bytes::Signed(q)) if x.len() == I::LANES => {
                    isa.to_f32(isa.load_i8(&q[at..]))
                }
                Source::Bytes(q) => {
                    let mut tail = [0f32; 16];
                    for (j, tail) in tail[..x.len()].iter_mut().enumerate() {
                        *tail = q.get(at + j) as f32;
                    }
                    isa.load(&tail)
                }
            };
            isa.store_partial(isa.mul(isa.sub(q, zero), scale), x);
        }
    }
}

struct QuantizeSpan<'a> {
    x: &'a [f32],
    scales: SpanScales<'a>,
    q: &'a mut [u8],
    signed: bool,
}

impl Kernel for QuantizeSpan<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (low, high) = if self.signed {
            (-128.0, 127.0)
        } else {
            (0.0, 255.0)
        };
        for (i, q) in self.q.chunks_mut(I::LANES).enumerate() {
            let at = i * I::LANES;
            let (scale, zero) = self.scales.vectors(isa, at, q.len());
            let x = isa.load_partial(&self.x[at..][..q.len()]);
            let value = isa.add(isa.round_even(isa.div(x, scale)), zero);
            // Clamped before the conversion, which is then defined; NaN becomes the lower bound.
            let value = isa.min(isa.max(value, isa.splat(low)), isa.splat(high));
            let value = isa.round_to_i32(value);
            let mut bytes = [0u8; 16];
            if self.signed {
                isa.store_i8(value, bytemuck::cast_slice_mut(&mut bytes));
            } else {
                isa.store_u8(value, &mut bytes);
            }
            q.copy_from_slice(&bytes[..q.len()]);
        }
    }
}

struct Range<'a> {
    x: &'a [f32],
}

impl Kernel for Range<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (f32, f32) {
        let mut low = isa.splat(f32::INFINITY);
        let mut high = isa.splat(f32::NEG_INFINITY);
        let chunks = self.x.chunks_exact(I::LANES);
        let tail = chunks.remainder();
        for x in chunks {
            let x = isa.load(x);
            low = isa.min(x, low);
            high = isa.max(x, high);
        }
        let (low, high) = (isa.reduce_min(low), isa.reduce_max(high));
        tail.iter()
            .fold((low, high), |(low, high), &x| (low.min(x), high.max(x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Level, Numerics};

    fn environments() -> impl Iterator<Item = Env> {
        Level::available().map(|level| Env {
            level,
            numerics: Numerics::Fast,
            ..Env::new()
        })
    }

    /// The index of an element's scale, by the definition.
    fn scale_index(granularity: Granularity, i: usize) -> usize {
        match granularity {
            Granularity::Tensor => 0,
            Granularity::Axis { inner, axis, block } => {
                let (outer, a, j) = (i / (inner * axis), i / inner % axis, i % inner);
                match block {
                    0 => a,
                    block => (outer * axis.div_ceil(block) + a / block) * inner + j,
                }
            }
        }
    }

    #[test]
    fn bytes_go_forth_and_back_at_every_granularity() {
        let axis = |axis, inner, block| Granularity::Axis { inner, axis, block };
        let cases = [
            (1, Granularity::Tensor),
            (0, Granularity::Tensor),
            (53, Granularity::Tensor),
            (2 * 5 * 7, axis(5, 7, 0)),
            (3 * 37, axis(37, 1, 0)),
            (2 * 33 * 3, axis(33, 3, 8)),
            (4 * 70, axis(70, 1, 32)),
            (6, axis(1, 6, 0)),
        ];
        for (len, granularity) in cases {
            let x: Vec<f32> = (0..len).map(|i| (i as f32 - 20.0) * 0.37).collect();
            let count = granularity.scale_count(len);
            let scales: Vec<f32> = (0..count).map(|i| 0.02 + 0.01 * i as f32).collect();
            let zeros: Vec<f32> = (0..count).map(|i| (i % 9) as f32).collect();
            for zero_points in [&[][..], &zeros[..]] {
                let all = Scales {
                    scales: &scales,
                    zero_points,
                    granularity,
                };
                let zero = |i| zero_points.get(i).copied().unwrap_or(0.0);
                for env in environments() {
                    let mut q = vec![0u8; len];
                    quantize_bytes(&env, &x, all, BytesMut::Unsigned(&mut q));
                    let mut s = vec![0i8; len];
                    quantize_bytes(&env, &x, all, BytesMut::Signed(&mut s));
                    let mut back = vec![0f32; len];
                    dequantize_bytes(&env, Bytes::Unsigned(&q), all, &mut back);
                    for i in 0..len {
                        let at = scale_index(granularity, i);
                        let value = (x[i] / scales[at]).round_ties_even() + zero(at);
                        let what = format!("element {i} of {len}, {granularity:?}, {}", env.level);
                        assert_eq!(q[i], value.clamp(0.0, 255.0) as u8, "{what}");
                        assert_eq!(s[i], value.clamp(-128.0, 127.0) as i8, "{what}");
                        assert_eq!(back[i], (q[i] as f32 - zero(at)) * scales[at], "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_even_and_nan_is_bounded() {
        let x = [0.5, 1.5, 2.5, -0.5, 300.0, -300.0, f32::NAN, f32::INFINITY];
        let scales = Scales {
            scales: &[1.0],
            zero_points: &[],
            granularity: Granularity::Tensor,
        };
        for env in environments() {
            let mut q = [0u8; 8];
            quantize_bytes(&env, &x, scales, BytesMut::Unsigned(&mut q));
            assert_eq!(q, [0, 2, 2, 0, 255, 0, 0, 255], "{}", env.level);
        }
    }

    #[test]
    fn ranges_hold_zero() {
        for env in environments() {
            assert_eq!(range_of(&env, &[]), (1.0, 0));
            assert_eq!(range_of(&env, &[0.0; 3]), (1.0, 0));
            assert_eq!(range_of(&env, &[255.0; 40]), (1.0, 0));
            assert_eq!(range_of(&env, &[-51.0, 204.0]), (1.0, 51));
        }
    }
}
