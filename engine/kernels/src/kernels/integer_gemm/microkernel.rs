//! The innermost loop, and the way of its sums to memory.
#![expect(
    unsafe_code,
    reason = "reads operands through pointers checked once per product; threads write disjoint tiles of one output"
)]

use std::marker::PhantomData;

use super::packing::KStep;
use super::{Bias, Job, Output, PANEL, Part, Scale};
use crate::isa::{ByteDot, ByteDotKernel, Isa, Level};
use crate::limits::Watch;

/// The most sums of a tile: 12 rows of two panels.
const TILE: usize = 12 * 2 * PANEL;

/// An [`Output`] that several threads write to, each in rows and columns of its own.
pub(super) struct Target<'a> {
    to: Pointer,
    scale: Option<Scale<'a>>,
    n: usize,
    borrow: PhantomData<&'a mut ()>,
}

#[derive(Clone, Copy)]
enum Pointer {
    Integers(*mut i32),
    Floats(*mut f32),
    Unsigned(*mut u8, u8),
    Signed(*mut i8, i8),
}

// SAFETY: the pointer stands for an exclusive borrow of plain data; users of `tile` write disjoint
// parts.
unsafe impl Sync for Target<'_> {}

impl<'a> Target<'a> {
    /// Takes an output of `n` columns that was checked against the sizes of the product.
    pub(super) fn new(output: Output<'a>, n: usize) -> Target<'a> {
        let (to, scale) = match output {
            Output::Integers(data) => (Pointer::Integers(data.as_mut_ptr()), None),
            Output::Floats { data, scale } => (Pointer::Floats(data.as_mut_ptr()), Some(scale)),
            Output::Unsigned {
                data,
                scale,
                zero_point,
            } => (
                Pointer::Unsigned(data.as_mut_ptr(), zero_point),
                Some(scale),
            ),
            Output::Signed {
                data,
                scale,
                zero_point,
            } => (Pointer::Signed(data.as_mut_ptr(), zero_point), Some(scale)),
        };
        Target {
            to,
            scale,
            n,
            borrow: PhantomData,
        }
    }
}

/// Computes a part of a job. The parts that run at the same time must not overlap.
pub(super) struct PartKernel<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) part: Part,
}

impl ByteDotKernel for PartKernel<'_> {
    type Output = ();

    /// Walks the panels (which stay in the nearest cache) and, under each, the rows. Tile sizes
    /// are those that fill the registers: AVX-512 24 sums of 32, AVX2 12 of 16 and so on.
    #[inline(always)]
    fn run<D: ByteDot>(self, dot: D) {
        let Self { job, part } = self;
        let mut watch = Watch::begin();
        let mut panel = part.panels.0;
        while panel < part.panels.1 {
            let wide = <D::Isa as Isa>::LEVEL == Level::Avx512 && panel + 2 <= part.panels.1;
            let mut row = part.rows.0;
            while row < part.rows.1 {
                watch.count(PANEL * job.rhs.k());
                let left = part.rows.1 - row;
                // SAFETY: parts cover rows and panels of the job's operands, and no two overlap.
                row += unsafe {
                    match <D::Isa as Isa>::LEVEL {
                        Level::Avx512 if wide => match left {
                            12.. => tile::<D, 12, 2, 1>(dot, job, row, panel),
                            8.. => tile::<D, 8, 2, 1>(dot, job, row, panel),
                            4.. => tile::<D, 4, 2, 1>(dot, job, row, panel),
                            _ => tile::<D, 1, 2, 4>(dot, job, row, panel),
                        },
                        Level::Avx512 => match left {
                            12.. => tile::<D, 12, 1, 1>(dot, job, row, panel),
                            4.. => tile::<D, 4, 1, 1>(dot, job, row, panel),
                            _ => tile::<D, 1, 1, 4>(dot, job, row, panel),
                        },
                        Level::Avx2 => match left {
                            4.. => tile::<D, 4, 2, 1>(dot, job, row, panel),
                            _ => tile::<D, 1, 2, 2>(dot, job, row, panel),
                        },
                        Level::Neon => match left {
                            4.. => tile::<D, 4, 4, 1>(dot, job, row, panel),
                            _ => tile::<D, 1, 4, 1>(dot, job, row, panel),
                        },
                        Level::Simd128 => match left {
                            2.. => tile::<D, 2, 4, 1>(dot, job, row, panel),
                            _ => tile::<D, 1, 4, 1>(dot, job, row, panel),
                        },
                        Level::Scalar => tile::<D, 1, 16, 1>(dot, job, row, panel),
                    }
                };
            }
            panel += if wide { 2 } else { 1 };
        }
    }
}

/// Computes `ROWS` rows by `VECTORS` vectors of columns from `row` and `panel` on, in `UNROLL`
/// independent sums each, and writes them. Returns `ROWS`.
///
/// # Safety
/// The rows and the panels that `VECTORS` vectors span must exist in the job's operands, and no
/// other thread may write the same elements of the target.
#[inline(always)]
unsafe fn tile<D: ByteDot, const ROWS: usize, const VECTORS: usize, const UNROLL: usize>(
    dot: D,
    job: &Job<'_>,
    row: usize,
    panel: usize,
) -> usize {
    let isa = dot.isa();
    let lanes = <D::Isa as Isa>::LANES;
    let step_count = job.rhs.k().div_ceil(4);
    let a = job.rows[row * job.stride..].as_ptr();
    let b: *const KStep = job.rhs.steps_from(panel).as_ptr();
    let mut sums = [[[isa.splat_i32(0); VECTORS]; ROWS]; UNROLL];
    let mut s = 0;
    while s + UNROLL <= step_count {
        for (u, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promises; the step lies below their number.
            unsafe {
                accumulate(
                    dot,
                    sums,
                    a.add(4 * (s + u)),
                    job.stride,
                    b.add(s + u),
                    step_count,
                )
            };
        }
        s += UNROLL;
    }
    while s < step_count {
        // SAFETY: as above.
        unsafe {
            accumulate(
                dot,
                &mut sums[0],
                a.add(4 * s),
                job.stride,
                b.add(s),
                step_count,
            )
        };
        s += 1;
    }
    let mut out = [0i32; TILE];
    let width = VECTORS * lanes;
    for r in 0..ROWS {
        for v in 0..VECTORS {
            let mut sum = sums[0][r][v];
            for more in &sums[1..] {
                sum = isa.add_i32(sum, more[r][v]);
            }
            isa.store_i32(sum, &mut out[r * width + v * lanes..]);
        }
    }
    for (r, sums) in out.chunks_exact(width).take(ROWS).enumerate() {
        for (p, sums) in sums.chunks_exact(PANEL).enumerate() {
            // SAFETY: this row and panel, which the caller promises.
            unsafe { write(isa, job, row + r, panel + p, sums) };
        }
    }
    ROWS
}

/// Adds the products of one step to the sums.
///
/// # Safety
/// `a` must be readable for 4 bytes at each of `ROWS` multiples of `stride`, and `b` for one step
/// at each multiple of `panel_stride` that `VECTORS` vectors span.
#[inline(always)]
unsafe fn accumulate<D: ByteDot, const ROWS: usize, const VECTORS: usize>(
    dot: D,
    sums: &mut [[<D::Isa as Isa>::I32; VECTORS]; ROWS],
    a: *const u8,
    stride: usize,
    b: *const KStep,
    panel_stride: usize,
) {
    let isa = dot.isa();
    let lanes = <D::Isa as Isa>::LANES;
    let mut columns = [isa.splat_i32(0); VECTORS];
    for (v, column) in columns.iter_mut().enumerate() {
        let (panel, offset) = (v * lanes / PANEL, v * lanes % PANEL);
        // SAFETY: the caller promises the step of each panel; a step has 16 lanes.
        *column =
            unsafe { isa.load_i32_ptr(b.add(panel * panel_stride).cast::<i32>().add(offset)) };
    }
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller promises 4 bytes of each row.
        let quad = unsafe { a.add(r * stride).cast::<i32>().read_unaligned() };
        let quad = isa.splat_i32(i32::from_le(quad));
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = dot.dot_u8_i8(*sum, quad, column);
        }
    }
}

/// Corrects 16 sums for the zero points and writes them to where the target wants them.
///
/// # Safety
/// The row and the panel must exist, and no other thread may write them.
#[inline(always)]
unsafe fn write<I: Isa>(isa: I, job: &Job<'_>, row: usize, panel: usize, sums: &[i32]) {
    let target = job.target;
    let first = panel * PANEL;
    let width = (target.n - first).min(PANEL);
    let at = row * target.n + first;
    let (of_sums, of_zeros) = (
        isa.splat_i32(job.of_sums[row]),
        isa.splat_i32(job.of_zeros[row]),
    );
    let vectors = PANEL / I::LANES;
    let mut exact = [isa.splat_i32(0); PANEL];
    for (v, exact) in exact[..vectors].iter_mut().enumerate() {
        let lane = v * I::LANES;
        let mut sum = isa.load_i32(&sums[lane..]);
        let column_sums = isa.load_i32(&job.rhs.sums()[first + lane..]);
        sum = isa.add_i32(sum, isa.mul_i32(of_sums, column_sums));
        if !job.rhs.zero_points().is_empty() {
            let zeros = isa.load_i32(&job.rhs.zero_points()[first + lane..]);
            sum = isa.add_i32(sum, isa.mul_i32(of_zeros, zeros));
        }
        *exact = sum;
    }
    let exact = &exact[..vectors];
    let Some(scale) = &target.scale else {
        let Pointer::Integers(to) = target.to else {
            return;
        };
        // SAFETY: the target is [M, N]; `width` columns of this row lie in it.
        let to = unsafe { std::slice::from_raw_parts_mut(to.add(at), width) };
        for (&sum, to) in exact.iter().zip(to.chunks_mut(I::LANES)) {
            isa.store_i32_partial(sum, to);
        }
        return;
    };
    let mut values = [isa.zero(); PANEL];
    for (v, (value, &sum)) in values.iter_mut().zip(exact).enumerate() {
        let lane = first + v * I::LANES;
        if lane >= target.n {
            break;
        }
        let lanes = lane..(lane + I::LANES).min(target.n);
        let factor = match scale.columns {
            [one] => isa.splat(*one),
            columns => isa.load_partial(&columns[lanes.clone()]),
        };
        let mut scaled = isa.mul(isa.to_f32(sum), factor);
        if let Some(&factor) = scale.rows.get(row) {
            scaled = isa.mul(scaled, isa.splat(factor));
        }
        *value = match scale.bias {
            Bias::None => scaled,
            Bias::Columns(bias) => isa.add(scaled, isa.load_partial(&bias[lanes])),
            Bias::Rows(bias) => isa.add(scaled, isa.splat(bias[row])),
        };
    }
    let values = &values[..vectors];
    match target.to {
        Pointer::Integers(_) => {}
        Pointer::Floats(to) => {
            // SAFETY: the target is [M, N]; `width` columns of this row lie in it.
            let to = unsafe { std::slice::from_raw_parts_mut(to.add(at), width) };
            for (&value, to) in values.iter().zip(to.chunks_mut(I::LANES)) {
                isa.store_partial(value, to);
            }
        }
        Pointer::Unsigned(to, zero) => {
            let mut bytes = [0u8; PANEL];
            for (&value, bytes) in values.iter().zip(bytes.chunks_exact_mut(I::LANES)) {
                isa.store_u8(round(isa, value, zero.into(), 0, 255), bytes);
            }
            // SAFETY: the target is [M, N]; `width` columns of this row lie in it.
            unsafe { to.add(at).copy_from_nonoverlapping(bytes.as_ptr(), width) };
        }
        Pointer::Signed(to, zero) => {
            let mut bytes = [0i8; PANEL];
            for (&value, bytes) in values.iter().zip(bytes.chunks_exact_mut(I::LANES)) {
                isa.store_i8(round(isa, value, zero.into(), -128, 127), bytes);
            }
            // SAFETY: the target is [M, N]; `width` columns of this row lie in it.
            unsafe { to.add(at).copy_from_nonoverlapping(bytes.as_ptr(), width) };
        }
    }
}

/// `clamp(round(value) + zero, low, high)`; the clamp comes first, so that the conversion is
/// defined for every value.
#[inline(always)]
fn round<I: Isa>(isa: I, value: I::F32, zero: i32, low: i32, high: i32) -> I::I32 {
    let value = isa.max(value, isa.splat((low - zero) as f32));
    let value = isa.min(value, isa.splat((high - zero) as f32));
    isa.add_i32(isa.round_to_i32(value), isa.splat_i32(zero))
}
