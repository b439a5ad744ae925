//! The scores of an attention on their own: the output `qk_matmul_output`.

use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::attention::{Attention as Job, MaskValues};
use crate::kernels::elementwise::{Unary, map};
use crate::kernels::env::Env;
use crate::kernels::gemm::{Epilogue, Gemm, Left, MatrixRef, Right, gemm};
use crate::kernels::softmax::{Softmax, softmax};

/// Which scores (`qk_matmul_output_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scores {
    /// The scaled products of queries and keys.
    Products,
    /// With the soft cap.
    Capped,
    /// With mask and all else that hides keys: those are `-inf`.
    Masked,
    /// What values are weighted with. Rows that see no key are zero.
    Weights,
}

impl Scores {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        match node.int_or("qk_matmul_output_mode", 0)? {
            0 => Ok(Self::Products),
            1 => Ok(Self::Capped),
            2 => Ok(Self::Masked),
            3 => Ok(Self::Weights),
            other => Err(OpError::Attribute {
                name: "qk_matmul_output_mode".into(),
                expected: "0, 1, 2 or 3".into(),
                found: other.to_string(),
            }),
        }
    }
}

/// Writes `[B, H, Sq, keys]`; of the keys a mask may cover fewer, those of the job's sizes.
pub(super) fn write_scores(env: &Env, job: &Job<'_>, scores: Scores, keys: usize, to: &mut [f32]) {
    let s = job.sizes;
    if to.is_empty() {
        return;
    }
    let matrices = to.chunks_exact_mut(s.queries * keys);
    for (i, c) in matrices.enumerate() {
        let (batch, head) = (i / s.heads, i % s.heads);
        let kv_head = head / (s.heads / s.kv_heads);
        let ((q, of_q), (k, of_k)) = (job.q, job.k);
        let q = &q[batch * of_q.batch + head * of_q.head..];
        let k = &k[batch * of_k.batch + kv_head * of_k.head..];
        let a = MatrixRef::strided(q, s.queries, s.width, of_q.position, 1);
        let b = MatrixRef::strided(k, keys, s.width, of_k.position, 1).transposed();
        let product = Gemm {
            a: Left::Plain(a),
            b: Right::Plain(b),
            c,
            c_row_stride: keys,
            accumulate: false,
            epilogue: Epilogue {
                alpha: job.scale,
                ..Epilogue::default()
            },
        };
        gemm(env, product);
    }
    if let Some(cap) = job.softcap.filter(|_| scores >= Scores::Capped) {
        to.iter_mut().for_each(|x| *x /= cap);
        map(env, Unary::Tanh, None, to);
        to.iter_mut().for_each(|x| *x *= cap);
    }
    if scores < Scores::Masked {
        return;
    }
    let rows = places(s.heads, s.queries).zip(to.chunks_exact_mut(keys));
    for (place, row) in rows {
        let sees = mask_row(job, place, row);
        match scores {
            Scores::Weights if sees => softmax(env, Softmax::Plain, keys, 1, row),
            Scores::Weights => row.fill(0.0),
            _ => {}
        }
    }
}

/// Batch, head and query of each row.
fn places(heads: usize, queries: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..).map(move |i| (i / queries / heads, i / queries % heads, i % queries))
}

/// Adds the mask to a row of scores, and tells whether its query sees any key.
fn mask_row(job: &Job<'_>, (batch, head, query): (usize, usize, usize), row: &mut [f32]) -> bool {
    let (first, end) = job.mask.visible.range(job.sizes, batch, query);
    let mut sees = false;
    for (key, score) in row.iter_mut().enumerate() {
        let at = |[b, h, q, k]: [usize; 4]| batch * b + head * h + query * q + key * k;
        let added = match job.mask.values {
            _ if !(first..end).contains(&key) => f32::NEG_INFINITY,
            None => 0.0,
            Some(MaskValues::Add(add, strides)) => add[at(strides)],
            Some(MaskValues::Keep(keep, strides)) => match keep[at(strides)].get() {
                true => 0.0,
                false => f32::NEG_INFINITY,
            },
        };
        sees |= added != f32::NEG_INFINITY;
        // What is hidden is so whatever the product was, infinities included.
        *score = match added == f32::NEG_INFINITY {
            true => added,
            false => *score + added,
        };
    }
    sees
}
