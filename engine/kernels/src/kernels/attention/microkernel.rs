//! Groups of query rows against blocks of keys.
#![expect(
    unsafe_code,
    reason = "reads operands through pointers checked once per attention; threads write disjoint rows of one output"
)]

use std::marker::PhantomData;

use super::{Attention, Group, HeadStrides, KEY_BLOCK, MAX_ROWS, MaskValues, Sizes};
use crate::isa::{Isa, Level};
use crate::kernels::vector_math;

/// The operands, and an output whose rows are written by several threads.
pub(super) struct Rows<'a> {
    pub(super) job: &'a Attention<'a>,
    output: *mut f32,
    strides: HeadStrides,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer stands for an exclusive borrow of plain data; each row is written by one
// task only.
unsafe impl Sync for Rows<'_> {}

/// One query row.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) head: usize,
    pub(super) query: usize,
}

impl<'a> Rows<'a> {
    /// Takes an output that was checked against the sizes.
    pub(super) fn new(job: &'a Attention<'a>, output: &'a mut [f32], strides: HeadStrides) -> Self {
        Self {
            job,
            output: output.as_mut_ptr(),
            strides,
            borrow: PhantomData,
        }
    }

    /// The row of a key head by its number.
    pub(super) fn row(&self, kv_head: usize, row: usize) -> Row {
        let s = self.job.sizes;
        Row {
            head: kv_head * (s.heads / s.kv_heads) + row / s.queries,
            query: row % s.queries,
        }
    }

    /// A query vector.
    pub(super) fn query(&self, batch: usize, row: Row) -> &'a [f32] {
        let (data, strides) = self.job.q;
        &data[strides.at(batch, row.head, row.query)..][..self.job.sizes.width]
    }

    /// Where the mask's elements for a row begin, and the distance of two keys.
    pub(super) fn mask_row(&self, batch: usize, row: Row) -> (usize, usize) {
        match self.job.mask.values {
            Some(MaskValues::Keep(_, s) | MaskValues::Add(_, s)) => {
                (batch * s[0] + row.head * s[1] + row.query * s[2], s[3])
            }
            None => (0, 0),
        }
    }

    /// The output of a row.
    ///
    /// # Safety
    /// The row must exist, and be borrowed once at a time.
    #[expect(clippy::mut_from_ref, reason = "rows are disjoint, see the contract")]
    pub(super) unsafe fn output(&self, batch: usize, row: Row) -> &mut [f32] {
        let at = self.strides.at(batch, row.head, row.query);
        // SAFETY: the output was checked to hold all rows; the caller has this one for itself.
        unsafe { std::slice::from_raw_parts_mut(self.output.add(at), self.job.sizes.value_width) }
    }
}

/// Whether a mask changes nothing for `keys` keys from `block` on, in the rows whose elements begin
/// and step as listed. Most masks of real batches are such for most rows.
#[inline(always)]
fn is_neutral(values: MaskValues<'_>, rows: &[(usize, usize)], block: usize, keys: usize) -> bool {
    let mut before = None;
    for &(start, stride) in rows {
        if before == Some(start) {
            continue;
        }
        before = Some(start);
        if stride != 1 {
            return false;
        }
        let row = start + block..start + block + keys;
        // Without an early exit these are vector operations.
        let neutral = match values {
            MaskValues::Add(data, _) => data[row].iter().fold(0, |bits, x| bits | x.to_bits()) == 0,
            MaskValues::Keep(data, _) => data[row].iter().fold(true, |all, x| all & x.get()),
        };
        if !neutral {
            return false;
        }
    }
    true
}

/// What a mask element means for a score.
#[inline(always)]
pub(super) fn mask_value(values: MaskValues<'_>, at: usize) -> f32 {
    match values {
        MaskValues::Add(data, _) => data[at],
        MaskValues::Keep(data, _) if data[at].get() => 0.0,
        MaskValues::Keep(..) => f32::NEG_INFINITY,
    }
}

/// Floats of working memory that a group of at most `rows` rows takes.
pub(super) fn memory_len(rows: usize, sizes: Sizes) -> usize {
    rows * (sizes.width + KEY_BLOCK + sizes.value_width)
}

/// Computes a group of up to `VECTORS · LANES` rows, with [`memory_len`] floats to work in.
#[inline(always)]
pub(super) fn group<I: Isa, const VECTORS: usize>(
    isa: I,
    rows: &Rows<'_>,
    part: &Group,
    memory: &mut [f32],
) {
    let job = rows.job;
    let s = job.sizes;
    let lanes = VECTORS * I::LANES;
    let count = part.rows.len();
    // The rows of the group; lanes beyond repeat the last one, and are not written.
    let mut members = [Row { head: 0, query: 0 }; MAX_ROWS];
    let (mut first, mut end) = ([0i32; MAX_ROWS], [0i32; MAX_ROWS]);
    let mut masks = [(0usize, 0usize); MAX_ROWS];
    let (mut all_first, mut all_end) = (usize::MAX, 0);
    for lane in 0..lanes {
        let row = rows.row(part.kv_head, part.rows.start + lane.min(count - 1));
        members[lane] = row;
        masks[lane] = rows.mask_row(part.batch, row);
        let (from, to) = job.mask.visible.range(s, part.batch, row.query);
        (first[lane], end[lane]) = (from as i32, to as i32);
        all_first = all_first.min(from);
        all_end = all_end.max(to);
    }
    // All rows read the same mask elements: padding masks.
    let shared_mask = masks[..lanes].iter().all(|mask| *mask == masks[0]);

    let (width, value_width) = (s.width, s.value_width);
    let memory = &mut memory[..memory_len(lanes, s)];
    let (q, memory) = memory.split_at_mut(lanes * width);
    let (scores, out) = memory.split_at_mut(lanes * KEY_BLOCK);
    for (lane, row) in members[..lanes].iter().enumerate() {
        for (d, x) in rows.query(part.batch, *row).iter().enumerate() {
            q[d * lanes + lane] = x * job.scale;
        }
    }
    out.fill(0.0);
    let mut max = [isa.splat(f32::NEG_INFINITY); VECTORS];
    let mut sum = [isa.zero(); VECTORS];
    if let Some(sinks) = job.sinks {
        let mut of_rows = [0f32; MAX_ROWS];
        for (sink, row) in of_rows.iter_mut().zip(&members[..lanes]) {
            *sink = sinks[row.head];
        }
        for v in 0..VECTORS {
            max[v] = isa.load(&of_rows[v * I::LANES..]);
            sum[v] = isa.splat(1.0);
        }
    }
    // Blocks begin at multiples of their size whatever is hidden, for the sake of the order.
    let mut block = all_first / KEY_BLOCK * KEY_BLOCK;
    while block < all_end {
        let keys = (all_end - block).min(KEY_BLOCK);
        let k = &job.k.0[job.k.1.at(part.batch, part.kv_head, block)..];
        let key_tile = Panel {
            x: k,
            tile_stride: job.k.1.position,
            step_stride: 1,
            steps: width,
            y: q,
        };
        key_tile.multiply::<I, VECTORS>(isa, keys, scores, false);

        // Scores to their final form, and the new maxima.
        let before = max;
        let hides = (0..lanes).any(|l| first[l] > block as i32 || end[l] < (block + keys) as i32);
        let mask = job
            .mask
            .values
            .filter(|values| !is_neutral(*values, &masks[..lanes], block, keys));
        for key in 0..keys {
            let position = isa.splat_i32((block + key) as i32);
            let mut added = [0f32; MAX_ROWS];
            if let (Some(values), false) = (mask, shared_mask) {
                for (added, (start, stride)) in added.iter_mut().zip(&masks[..lanes]) {
                    *added = mask_value(values, start + (block + key) * stride);
                }
            }
            for v in 0..VECTORS {
                let at = key * lanes + v * I::LANES;
                let mut score = isa.load(&scores[at..]);
                if let Some(cap) = job.softcap {
                    let bent = vector_math::tanh(isa, isa.div(score, isa.splat(cap)));
                    score = isa.mul(bent, isa.splat(cap));
                }
                if let Some(values) = mask {
                    let added = if shared_mask {
                        let (start, stride) = masks[0];
                        isa.splat(mask_value(values, start + (block + key) * stride))
                    } else {
                        isa.load(&added[v * I::LANES..])
                    };
                    score = isa.add(score, added);
                }
                if hides {
                    let hidden = isa.splat(f32::NEG_INFINITY);
                    let from = isa.load_i32(&first[v * I::LANES..]);
                    let to = isa.load_i32(&end[v * I::LANES..]);
                    score = isa.select(isa.gt_i32(from, position), hidden, score);
                    score = isa.select(isa.gt_i32(to, position), score, hidden);
                }
                isa.store(score, &mut scores[at..]);
                max[v] = isa.max(score, max[v]);
            }
        }

        // Weights, their sums, and the outputs so far on the new scale.
        let mut shift = max;
        for v in 0..VECTORS {
            // Nothing visible yet: any finite shift gives weights of zero.
            let none = isa.eq(max[v], isa.splat(f32::NEG_INFINITY));
            shift[v] = isa.select(none, isa.zero(), max[v]);
            let rescale = vector_math::exp_nonpositive(isa, isa.sub(before[v], shift[v]));
            sum[v] = isa.mul(sum[v], rescale);
            if block > 0 {
                for d in 0..value_width {
                    let at = d * lanes + v * I::LANES;
                    let scaled = isa.mul(isa.load(&out[at..]), rescale);
                    isa.store(scaled, &mut out[at..]);
                }
            }
        }
        for key in 0..keys {
            for v in 0..VECTORS {
                let at = key * lanes + v * I::LANES;
                let score = isa.sub(isa.load(&scores[at..]), shift[v]);
                let weight = vector_math::exp_nonpositive(isa, score);
                sum[v] = isa.add(sum[v], weight);
                isa.store(weight, &mut scores[at..]);
            }
        }
        let v = &job.v.0[job.v.1.at(part.batch, part.kv_head, block)..];
        let value_tile = Panel {
            x: v,
            tile_stride: 1,
            step_stride: job.v.1.position,
            steps: keys,
            y: scores,
        };
        value_tile.multiply::<I, VECTORS>(isa, value_width, out, true);
        block += KEY_BLOCK;
    }
    for v in 0..VECTORS {
        let none = isa.eq(sum[v], isa.zero());
        let factor = isa.div(isa.splat(1.0), isa.select(none, isa.splat(1.0), sum[v]));
        for d in 0..value_width {
            let at = d * lanes + v * I::LANES;
            isa.store(isa.mul(isa.load(&out[at..]), factor), &mut out[at..]);
        }
    }
    for (lane, row) in members[..count].iter().enumerate() {
        // SAFETY: the rows of this group are this task's alone.
        let to = unsafe { rows.output(part.batch, *row) };
        for (d, to) in to.iter_mut().enumerate() {
            *to = out[d * lanes + lane];
        }
    }
}

/// A product of a matrix in memory with vectors of rows: `C[t, row] (+)= Σ_i x[t, i] · y[i, row]`,
/// where `x[t, i]` is `x[t · tile_stride + i · step_stride]`.
struct Panel<'a> {
    x: &'a [f32],
    tile_stride: usize,
    step_stride: usize,
    steps: usize,
    y: &'a [f32],
}

impl Panel<'_> {
    /// Computes `count` values of `t` for `VECTORS` vectors of rows.
    #[inline(always)]
    fn multiply<I: Isa, const VECTORS: usize>(
        &self,
        isa: I,
        count: usize,
        c: &mut [f32],
        accumulate: bool,
    ) {
        let lanes = VECTORS * I::LANES;
        if count == 0 || self.steps == 0 {
            if !accumulate {
                c[..count * lanes].fill(0.0);
            }
            return;
        }
        let last = (count - 1) * self.tile_stride + (self.steps - 1) * self.step_stride;
        assert!(last < self.x.len() && self.steps * lanes <= self.y.len());
        assert!(count * lanes <= c.len());
        let mut t = 0;
        // SAFETY: all of `t < count`, `i < steps` was checked to lie in the slices.
        unsafe {
            if matches!(I::LEVEL, Level::Avx512 | Level::Neon) {
                while t + 8 <= count {
                    self.tile::<I, VECTORS, 8>(isa, t, c, accumulate);
                    t += 8;
                }
            }
            while t + 4 <= count {
                self.tile::<I, VECTORS, 4>(isa, t, c, accumulate);
                t += 4;
            }
            while t < count {
                self.tile::<I, VECTORS, 1>(isa, t, c, accumulate);
                t += 1;
            }
        }
    }

    /// Computes `TILE` values of `t` from `t` on.
    ///
    /// # Safety
    /// They and all steps must lie in the slices.
    #[inline(always)]
    unsafe fn tile<I: Isa, const VECTORS: usize, const TILE: usize>(
        &self,
        isa: I,
        t: usize,
        c: &mut [f32],
        accumulate: bool,
    ) {
        let lanes = VECTORS * I::LANES;
        let mut sums = [[isa.zero(); VECTORS]; TILE];
        // SAFETY: the caller's promise.
        unsafe {
            let c = c.as_mut_ptr().add(t * lanes);
            if accumulate {
                for (j, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = isa.load_ptr(c.add(j * lanes + v * I::LANES));
                    }
                }
            }
            let mut x = self.x.as_ptr().add(t * self.tile_stride);
            let mut y = self.y.as_ptr();
            for i in 0..self.steps {
                let mut right = [isa.zero(); VECTORS];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = isa.load_ptr(y.add(v * I::LANES));
                }
                for (j, sums) in sums.iter_mut().enumerate() {
                    let left = isa.splat(*x.add(j * self.tile_stride));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = isa.mul_add(left, right, *sum);
                    }
                }
                if i + 1 < self.steps {
                    x = x.add(self.step_stride);
                    y = y.add(lanes);
                }
            }
            for (j, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    isa.store_ptr(*sum, c.add(j * lanes + v * I::LANES));
                }
            }
        }
    }
}
