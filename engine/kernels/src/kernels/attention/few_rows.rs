//! One query row against all keys, the head's dimension in the lanes: decoding.
#![expect(
    unsafe_code,
    reason = "takes a row of the output that this task has for itself"
)]

use super::microkernel::{Rows, mask_value};
use super::{Group, KEY_BLOCK};
use crate::isa::{Isa, Kernel, lanes16};
use crate::kernels::vector_math;

/// Computes the row of a group of one.
pub(super) struct OneRow<'a> {
    pub(super) rows: &'a Rows<'a>,
    pub(super) part: Group,
}

/// `e^x` of one number, as the vectors compute it.
#[inline(always)]
fn exp_of<I: Isa>(isa: I, x: f32) -> f32 {
    let mut lanes = [0f32; 16];
    isa.store(vector_math::exp_nonpositive(isa, isa.splat(x)), &mut lanes);
    lanes[0]
}

impl Kernel for OneRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { rows, part: group } = self;
        let job = rows.job;
        let s = job.sizes;
        let row = rows.row(group.kv_head, group.rows.start);
        let q = rows.query(group.batch, row);
        // SAFETY: this row is this task's alone.
        let out = unsafe { rows.output(group.batch, row) };
        out.fill(0.0);
        let (first, end) = job.mask.visible.range(s, group.batch, row.query);
        let (mask_start, mask_stride) = rows.mask_row(group.batch, row);
        let (mut max, mut sum) = match job.sinks {
            Some(sinks) => (sinks[row.head], 1.0),
            None => (f32::NEG_INFINITY, 0.0),
        };
        let mut block = first / KEY_BLOCK * KEY_BLOCK;
        while block < end {
            let begin = block.max(first);
            let keys = begin..(block + KEY_BLOCK).min(end);
            let count = keys.len();
            let mut scores = [f32::NEG_INFINITY; KEY_BLOCK];
            for (score, key) in scores.iter_mut().zip(keys.clone()) {
                let k = &job.k.0[job.k.1.at(group.batch, group.kv_head, key)..][..s.width];
                *score = lanes16::dot(isa, q, k) * job.scale;
            }
            let scores = &mut scores[..count.next_multiple_of(16)];
            if let Some(cap) = job.softcap {
                for part in scores.chunks_exact_mut(I::LANES) {
                    let bent = vector_math::tanh(isa, isa.div(isa.load(part), isa.splat(cap)));
                    isa.store(isa.mul(bent, isa.splat(cap)), part);
                }
                scores[count..].fill(f32::NEG_INFINITY);
            }
            if let Some(values) = job.mask.values {
                for (score, key) in scores.iter_mut().zip(keys.clone()) {
                    *score += mask_value(values, mask_start + key * mask_stride);
                }
            }
            let new_max = max.max(lanes16::max(isa, scores));
            let shift = if new_max == f32::NEG_INFINITY {
                0.0
            } else {
                new_max
            };
            let rescale = exp_of(isa, max - shift);
            sum *= rescale;
            max = new_max;
            for part in scores.chunks_exact_mut(I::LANES) {
                let score = isa.sub(isa.load(part), isa.splat(shift));
                isa.store(vector_math::exp_nonpositive(isa, score), part);
            }
            sum += lanes16::sum(isa, scores);
            if rescale != 1.0 {
                for part in out.chunks_mut(I::LANES) {
                    let scaled = isa.mul(isa.load_partial(part), isa.splat(rescale));
                    isa.store_partial(scaled, part);
                }
            }
            for (d, part) in out.chunks_mut(I::LANES).enumerate() {
                let mut value = isa.load_partial(part);
                let from = d * I::LANES;
                for (weight, key) in scores.iter().zip(keys.clone()) {
                    let at = job.v.1.at(group.batch, group.kv_head, key) + from;
                    let v = isa.load_partial(&job.v.0[at..][..part.len()]);
                    value = isa.mul_add(isa.splat(*weight), v, value);
                }
                isa.store_partial(value, part);
            }
            block += KEY_BLOCK;
        }
        if sum != 0.0 {
            for x in out {
                *x /= sum;
            }
        }
    }
}
