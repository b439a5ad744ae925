//! The forms in which the operands of an integer product are read.

use bytemuck::{Pod, Zeroable};

use super::{Bytes, PANEL};
use crate::limits;

/// Four steps of K for the 16 columns of a panel: one cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct KStep([[i8; 4]; PANEL]);

/// The right operand of an integer product in panels of 16 columns, with the sums of its columns.
/// Made once of a weight; see the [module documentation](super) for the layout.
#[derive(Clone)]
pub struct PackedRhs {
    k: usize,
    n: usize,
    /// Panel after panel, each of `ceil(K / 4)` steps, zeros beyond K and N.
    steps: Vec<KStep>,
    /// `Σ_k B[k, n]` of the shifted values, padded to whole panels.
    sums: Vec<i32>,
    /// Of the shifted values, padded to whole panels; empty where all are zero.
    zero_points: Vec<i32>,
}

impl std::fmt::Debug for PackedRhs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedRhs[{}, {}]", self.k, self.n)
    }
}

impl PackedRhs {
    /// Packs `b`: `[K, N]`, row-major. `zero_points` are values of `b`: none (zero), one, or one a
    /// column.
    ///
    /// # Panics
    /// If a slice does not have the length that the sizes ask for.
    pub fn new(b: Bytes<'_>, k: usize, n: usize, zero_points: &[i32]) -> PackedRhs {
        let mut packed = PackedRhs::empty();
        packed.repack(b, k, n, zero_points);
        packed
    }

    /// Packs `b` given as `[N, K]`, row-major (a transposed weight).
    ///
    /// # Panics
    /// If a slice does not have the length that the sizes ask for.
    pub fn transposed(b: Bytes<'_>, k: usize, n: usize, zero_points: &[i32]) -> PackedRhs {
        let mut packed = PackedRhs::empty();
        packed.prepare(b, k, n, zero_points);
        let flip = flip_to_signed(b);
        let bits = b.bits();
        let step_count = k.div_ceil(4);
        for column in 0..n {
            let (panel, lane) = (column / PANEL, column % PANEL);
            let steps = &mut packed.steps[panel * step_count..][..step_count];
            let mut sum = 0i32;
            for (step, quad) in steps.iter_mut().zip(bits[column * k..][..k].chunks(4)) {
                for (to, from) in step.0[lane].iter_mut().zip(quad) {
                    *to = (from ^ flip) as i8;
                    sum = sum.wrapping_add(i32::from(*to));
                }
            }
            packed.sums[column] = sum;
        }
        packed
    }

    /// Nothing; to be filled by [`Self::repack`].
    pub fn empty() -> PackedRhs {
        PackedRhs {
            k: 0,
            n: 0,
            steps: Vec::new(),
            sums: Vec::new(),
            zero_points: Vec::new(),
        }
    }

    /// [`Self::new`] into memory that is kept where it is large enough.
    ///
    /// # Panics
    /// If a slice does not have the length that the sizes ask for.
    pub fn repack(&mut self, b: Bytes<'_>, k: usize, n: usize, zero_points: &[i32]) {
        self.prepare(b, k, n, zero_points);
        if k == 0 {
            return;
        }
        let flip = flip_to_signed(b);
        let bits = b.bits();
        let step_count = k.div_ceil(4);
        for (panel, steps) in self.steps.chunks_exact_mut(step_count).enumerate() {
            let first = panel * PANEL;
            let width = (n - first).min(PANEL);
            let mut sums = [0i32; PANEL];
            for (s, step) in steps.iter_mut().enumerate() {
                for i in 0..(k - 4 * s).min(4) {
                    let row = &bits[(4 * s + i) * n + first..][..width];
                    for ((quad, sum), from) in step.0.iter_mut().zip(&mut sums).zip(row) {
                        quad[i] = (from ^ flip) as i8;
                        *sum = sum.wrapping_add(i32::from(quad[i]));
                    }
                }
            }
            self.sums[first..][..PANEL].copy_from_slice(&sums);
        }
    }

    /// Sets the sizes, the zero points, and zeros everywhere else.
    fn prepare(&mut self, b: Bytes<'_>, k: usize, n: usize, zero_points: &[i32]) {
        assert_eq!(b.len(), k * n, "B is not [K, N]");
        assert!(
            [0, 1, n].contains(&zero_points.len()),
            "zero points of B: none, one or N"
        );
        let panels = n.div_ceil(PANEL);
        (self.k, self.n) = (k, n);
        limits::refill(&mut self.steps, KStep::zeroed(), panels * k.div_ceil(4));
        limits::refill(&mut self.sums, 0, panels * PANEL);
        self.zero_points.clear();
        let shift = b.shift_to_signed();
        let zero = |n: usize| match zero_points {
            [] => shift,
            [zero] => zero + shift,
            zeros => zeros.get(n).map_or(0, |zero| zero + shift),
        };
        if (0..n).any(|n| zero(n) != 0) {
            self.zero_points.extend((0..panels * PANEL).map(zero));
        }
    }

    /// The packed matrix as gemm takes it.
    pub(crate) fn view(&self) -> PackedRhsRef<'_> {
        PackedRhsRef {
            k: self.k,
            n: self.n,
            steps: &self.steps,
            sums: &self.sums,
            zero_points: &self.zero_points,
        }
    }

    /// Rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        size_of_val(&self.steps[..])
            + size_of_val(&self.sums[..])
            + size_of_val(&self.zero_points[..])
    }
}

/// A packed right operand that lies somewhere else, such as in a guest's memory.
#[derive(Clone, Copy)]
pub(crate) struct PackedRhsRef<'a> {
    k: usize,
    n: usize,
    steps: &'a [KStep],
    sums: &'a [i32],
    zero_points: &'a [i32],
}

impl<'a> PackedRhsRef<'a> {
    /// The parts of a [`PackedRhs`], or `None` if their lengths are not those it would have.
    pub(crate) fn new(
        k: usize,
        n: usize,
        steps: &'a [KStep],
        sums: &'a [i32],
        zero_points: &'a [i32],
    ) -> Option<Self> {
        let panels = n.div_ceil(PANEL);
        let good = panels.checked_mul(k.div_ceil(4))? == steps.len()
            && sums.len() == panels * PANEL
            && [0, panels * PANEL].contains(&zero_points.len());
        good.then_some(Self {
            k,
            n,
            steps,
            sums,
            zero_points,
        })
    }

    /// Steps, sums and zero points, as [`Self::new`] takes them.
    pub(crate) fn parts(&self) -> (&'a [KStep], &'a [i32], &'a [i32]) {
        (self.steps, self.sums, self.zero_points)
    }

    /// Rows.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Columns.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// The steps of the panels from `panel` on.
    pub(super) fn steps_from(&self, panel: usize) -> &'a [KStep] {
        &self.steps[panel * self.k.div_ceil(4)..]
    }

    pub(super) fn sums(&self) -> &'a [i32] {
        self.sums
    }

    pub(super) fn zero_points(&self) -> &'a [i32] {
        self.zero_points
    }
}

fn flip_to_signed(b: Bytes<'_>) -> u8 {
    match b {
        Bytes::Unsigned(_) => 0x80,
        Bytes::Signed(_) => 0,
    }
}

/// Copies rows of `k` bytes to rows of `stride` bytes as `u8`, zeros at the end of each.
pub(super) fn widen_rows(a: Bytes<'_>, k: usize, stride: usize, target: &mut [u8]) {
    let flip = match a {
        Bytes::Unsigned(_) => 0,
        Bytes::Signed(_) => 0x80,
    };
    if k == 0 {
        return;
    }
    let rows = a.bits().chunks_exact(k);
    for (to, from) in target.chunks_exact_mut(stride).zip(rows) {
        let (body, padding) = to.split_at_mut(k);
        for (to, from) in body.iter_mut().zip(from) {
            *to = from ^ flip;
        }
        padding.fill(0);
    }
}

/// `Σ row`, wrapping.
pub(super) fn row_sum(row: &[u8]) -> i32 {
    // Sums of 4096 bytes fit in 32 bits with room; the compiler turns this into `psadbw`.
    row.chunks(4096)
        .map(|part| part.iter().map(|&x| u32::from(x)).sum::<u32>() as i32)
        .fold(0, i32::wrapping_add)
}
