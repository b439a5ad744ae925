//! Multi-head attention without the matrix of scores: `softmax(scale · Q Kᵀ + mask) · V`.
//!
//! ```text
//! for each group of query rows (one to a vector lane), for each block of 128 keys:
//!     S[key, row]  = Σ_d K[key, d] · (scale · Q[row, d])          then soft cap, mask
//!     m' = max(m, max_key S)      α = e^(m − m')
//!     P = e^(S − m')              l = α l + Σ_key P
//!     O[d, row]    = α O[d, row] + Σ_key V[key, d] · P[key, row]
//!     m = m'
//! output[row, d] = O[d, row] / l
//! ```
//!
//! This is the online softmax of FlashAttention (Dao et al., 2022). What is special here is the
//! transposed layout: a query row is a lane, so that maxima and sums are plain vector operations
//! over keys in their order, K and V are read where they lie (one element at a time, broadcast),
//! and only Q is rearranged, once for all keys. It also makes every row's arithmetic independent
//! of lane count, threads and of the other rows: the same bits everywhere.
//!
//! Query heads that share a key head (grouped queries) are rows of one group, so K and V are read
//! once for all of them. Few rows (decoding) would leave most lanes idle; up to
//! [`FEW_ROWS`] of them go row by row, with the head's dimension in the lanes.
//!
//! A row that may see no key at all gives zeros.

mod few_rows;
mod mask;
mod microkernel;
pub mod rotary;
#[cfg(test)]
mod tests;

pub use mask::{Mask, MaskValues, Visible};

use crate::isa::{Isa, Kernel, Level};
use crate::kernels::env::Env;
use crate::kernels::offload;
use crate::kernels::scratch;

use microkernel::Rows;

/// Keys of a block; fixed, because the order of additions depends on it.
const KEY_BLOCK: usize = 128;

/// Rows of a key head up to which each is computed alone.
pub const FEW_ROWS: usize = 4;

/// The most query rows of a group: two vectors of 16.
const MAX_ROWS: usize = 32;

/// Where the vectors of all heads are: element `d` of position `s` of head `h` of batch `b` is
/// `data[b · batch + h · head + s · position + d]`. `[B, H, S, D]` and `[B, S, H, D]` are both such
/// layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadStrides {
    /// Distance of two batches in elements.
    pub batch: usize,
    /// Distance of two heads in elements.
    pub head: usize,
    /// Distance of two positions in elements.
    pub position: usize,
}

impl HeadStrides {
    /// `[batch, heads, positions, width]` without gaps.
    pub fn heads_first(heads: usize, positions: usize, width: usize) -> Self {
        Self {
            batch: heads * positions * width,
            head: positions * width,
            position: width,
        }
    }

    /// `[batch, positions, heads, width]` without gaps.
    pub fn positions_first(heads: usize, positions: usize, width: usize) -> Self {
        Self {
            batch: heads * positions * width,
            head: width,
            position: heads * width,
        }
    }

    fn at(&self, batch: usize, head: usize, position: usize) -> usize {
        batch * self.batch + head * self.head + position * self.position
    }

    /// Elements that a tensor of these sizes reaches to.
    fn extent(&self, batch: usize, heads: usize, positions: usize, width: usize) -> usize {
        if batch == 0 || heads == 0 || positions == 0 || width == 0 {
            return 0;
        }
        self.at(batch - 1, heads - 1, positions - 1) + width
    }
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Independent attentions.
    pub batch: usize,
    /// Heads of the queries: a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Query positions.
    pub queries: usize,
    /// Key positions.
    pub keys: usize,
    /// Elements of a query and of a key.
    pub width: usize,
    /// Elements of a value and of an output.
    pub value_width: usize,
}

/// The operands of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Sizes.
    pub sizes: Sizes,
    /// Queries, keys and values with their layouts.
    pub q: (&'a [f32], HeadStrides),
    /// Keys.
    pub k: (&'a [f32], HeadStrides),
    /// Values.
    pub v: (&'a [f32], HeadStrides),
    /// What the products of queries and keys are multiplied with.
    pub scale: f32,
    /// Scores become `cap · tanh(score / cap)`, before the mask.
    pub softcap: Option<f32>,
    /// Which keys a query sees, and what is added to the scores.
    pub mask: Mask<'a>,
    /// For each head a score that takes part in the softmax without a value ("attention sink").
    pub sinks: Option<&'a [f32]>,
}

/// Computes attention into `output`, laid out as `output_strides` say.
///
/// # Panics
/// If the sizes do not fit the slices or each other.
pub fn attention(env: &Env, job: &Attention<'_>, output: &mut [f32], output_strides: HeadStrides) {
    if let Some(host) = offload::host() {
        return offload::Call::attention(job, output, output_strides).send(host);
    }
    let s = job.sizes;
    assert!(
        s.kv_heads > 0 && s.heads.is_multiple_of(s.kv_heads),
        "{} heads share {} key heads",
        s.heads,
        s.kv_heads
    );
    let fits = |data: &[f32], strides: HeadStrides, heads, positions, width| {
        assert!(data.len() >= strides.extent(s.batch, heads, positions, width));
    };
    fits(job.q.0, job.q.1, s.heads, s.queries, s.width);
    fits(job.k.0, job.k.1, s.kv_heads, s.keys, s.width);
    fits(job.v.0, job.v.1, s.kv_heads, s.keys, s.value_width);
    fits(output, output_strides, s.heads, s.queries, s.value_width);
    if let Some(sinks) = job.sinks {
        assert_eq!(sinks.len(), s.heads, "a sink for each head");
    }
    job.mask.check(s);
    let rows_per_head = s.heads / s.kv_heads * s.queries;
    let rows_per_group = if rows_per_head <= FEW_ROWS {
        1
    } else {
        2 * lanes_of(env.level)
    };
    let groups = rows_per_head.div_ceil(rows_per_group);
    let rows = Rows::new(job, output, output_strides);
    env.threads.for_each(s.batch * s.kv_heads * groups, |task| {
        let (head, group) = (task / groups, task % groups);
        let (batch, kv_head) = (head / s.kv_heads, head % s.kv_heads);
        let first = group * rows_per_group;
        let part = Group {
            batch,
            kv_head,
            rows: first..(first + rows_per_group).min(rows_per_head),
        };
        if rows_per_head <= FEW_ROWS {
            env.dispatch(few_rows::OneRow { rows: &rows, part });
        } else {
            let len = microkernel::memory_len(rows_per_group, s);
            scratch::with(len, |memory| {
                env.dispatch(GroupKernel {
                    rows: &rows,
                    part,
                    memory,
                });
            });
        }
    });
}

fn lanes_of(level: Level) -> usize {
    match level {
        Level::Avx512 => 16,
        Level::Avx2 => 8,
        Level::Neon | Level::Simd128 => 4,
        Level::Scalar => 1,
    }
}

/// Query rows that share a key head: row `r` is query `r % queries` of the key head's
/// `r / queries`-th query head.
struct Group {
    batch: usize,
    kv_head: usize,
    rows: std::ops::Range<usize>,
}

struct GroupKernel<'a> {
    rows: &'a Rows<'a>,
    part: Group,
    memory: &'a mut [f32],
}

impl Kernel for GroupKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // One vector of rows where one is enough.
        if self.part.rows.len() <= I::LANES {
            microkernel::group::<I, 1>(isa, self.rows, &self.part, self.memory);
        } else {
            microkernel::group::<I, 2>(isa, self.rows, &self.part, self.memory);
        }
    }
}
