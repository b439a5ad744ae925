//! AArch64 Advanced SIMD: 4 lanes, 32 registers.

use std::arch::aarch64::*;

use super::{Isa, Kernel, Level, TileKernel};

/// Proof of Advanced SIMD, which every AArch64 target has.
#[derive(Debug, Clone, Copy)]
pub struct Neon(());

macro_rules! operations {
    ($(fn $name:ident($self:ident $(, $arg:ident: $ty:ty)*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $ty)*) -> $out {
            // SAFETY: a value of this type exists only where the CPU has Advanced SIMD.
            unsafe { $body }
        }
    )*};
}

#[inline(never)]
fn outlined<K: Kernel>(isa: Neon, kernel: K) -> K::Output {
    kernel.run(isa)
}

impl Isa for Neon {
    type F32 = float32x4_t;
    type I32 = int32x4_t;
    type Mask = uint32x4_t;
    type F32x16 = [float32x4_t; 4];

    const LANES: usize = 4;
    const LEVEL: Level = Level::Neon;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 4;

    #[inline(always)]
    fn new() -> Option<Self> {
        cfg!(target_feature = "neon").then_some(Neon(()))
    }

    #[inline(always)]
    fn outline<K: Kernel>(self, kernel: K) -> K::Output {
        outlined(self, kernel)
    }

    #[inline(always)]
    fn with_tile<T: TileKernel>(self, kernel: T) -> T::Output {
        kernel.run::<Self, { Self::TILE_ROWS }, { Self::TILE_VECTORS }>(self)
    }

    operations! {
        fn splat(self, x: f32) -> float32x4_t = vdupq_n_f32(x);
        fn splat16(self, x: f32) -> [float32x4_t; 4] = [vdupq_n_f32(x); 4];
        fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        // `vminq` and `vmaxq` propagate NaN; the contract picks the second operand.
        fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t =
            vbslq_f32(vcltq_f32(a, b), a, b);
        fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t =
            vbslq_f32(vcgtq_f32(a, b), a, b);
        fn neg(self, a: float32x4_t) -> float32x4_t = vnegq_f32(a);
        fn abs(self, a: float32x4_t) -> float32x4_t = vabsq_f32(a);
        fn sqrt(self, a: float32x4_t) -> float32x4_t = vsqrtq_f32(a);
        fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t =
            vfmaq_f32(c, a, b);
        fn neg_mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t =
            vfmsq_f32(c, a, b);
        fn deinterleave(self, a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) =
            (vuzp1q_f32(a, b), vuzp2q_f32(a, b));
        fn floor(self, a: float32x4_t) -> float32x4_t = vrndmq_f32(a);
        fn ceil(self, a: float32x4_t) -> float32x4_t = vrndpq_f32(a);
        fn trunc(self, a: float32x4_t) -> float32x4_t = vrndq_f32(a);
        fn round_even(self, a: float32x4_t) -> float32x4_t = vrndnq_f32(a);
        fn lt(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcltq_f32(a, b);
        fn le(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcleq_f32(a, b);
        fn eq(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t = vceqq_f32(a, b);
        fn select(self, mask: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t =
            vbslq_f32(mask, a, b);
        fn mask_and(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t = vandq_u32(a, b);
        fn mask_or(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t = vorrq_u32(a, b);
        fn mask_not(self, a: uint32x4_t) -> uint32x4_t = vmvnq_u32(a);
        fn any(self, a: uint32x4_t) -> bool = vmaxvq_u32(a) != 0;
        fn splat_i32(self, x: i32) -> int32x4_t = vdupq_n_s32(x);
        fn add_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
        fn sub_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vsubq_s32(a, b);
        fn mul_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vmulq_s32(a, b);
        fn min_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vminq_s32(a, b);
        fn max_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vmaxq_s32(a, b);
        fn and(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vandq_s32(a, b);
        fn or(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vorrq_s32(a, b);
        fn xor(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = veorq_s32(a, b);
        fn shl(self, a: int32x4_t, count: u32) -> int32x4_t =
            vshlq_s32(a, vdupq_n_s32(count as i32));
        fn shr_logical(self, a: int32x4_t, count: u32) -> int32x4_t = vreinterpretq_s32_u32(
            vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(count as i32))),
        );
        fn shr_arithmetic(self, a: int32x4_t, count: u32) -> int32x4_t =
            vshlq_s32(a, vdupq_n_s32(-(count as i32)));
        fn eq_i32(self, a: int32x4_t, b: int32x4_t) -> uint32x4_t = vceqq_s32(a, b);
        fn gt_i32(self, a: int32x4_t, b: int32x4_t) -> uint32x4_t = vcgtq_s32(a, b);
        fn to_f32(self, a: int32x4_t) -> float32x4_t = vcvtq_f32_s32(a);
        fn trunc_to_i32(self, a: float32x4_t) -> int32x4_t = vcvtq_s32_f32(a);
        fn round_to_i32(self, a: float32x4_t) -> int32x4_t = vcvtnq_s32_f32(a);
        fn bits(self, a: float32x4_t) -> int32x4_t = vreinterpretq_s32_f32(a);
        fn from_bits(self, a: int32x4_t) -> float32x4_t = vreinterpretq_f32_s32(a);
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> float32x4_t {
        // SAFETY: the caller promises 4 readable elements.
        unsafe { vld1q_f32(source) }
    }

    #[inline(always)]
    unsafe fn load_partial_ptr(self, source: *const f32, lanes: usize) -> float32x4_t {
        let mut buffer = [0.0f32; 4];
        for (i, lane) in buffer.iter_mut().enumerate().take(lanes) {
            // SAFETY: the caller promises `lanes` readable elements.
            *lane = unsafe { source.add(i).read_unaligned() };
        }
        // SAFETY: the buffer has 4 elements.
        unsafe { vld1q_f32(buffer.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: float32x4_t, target: *mut f32) {
        // SAFETY: the caller promises 4 writable elements.
        unsafe { vst1q_f32(target, x) }
    }

    #[inline(always)]
    unsafe fn store_partial_ptr(self, x: float32x4_t, target: *mut f32, lanes: usize) {
        let mut buffer = [0.0f32; 4];
        // SAFETY: the buffer has 4 elements.
        unsafe { vst1q_f32(buffer.as_mut_ptr(), x) };
        for (i, lane) in buffer.into_iter().enumerate().take(lanes) {
            // SAFETY: the caller promises `lanes` writable elements.
            unsafe { target.add(i).write_unaligned(lane) };
        }
    }

    #[inline(always)]
    unsafe fn load_i32_ptr(self, source: *const i32) -> int32x4_t {
        // SAFETY: the caller promises 4 readable elements.
        unsafe { vld1q_s32(source) }
    }

    #[inline(always)]
    unsafe fn store_i32_ptr(self, x: int32x4_t, target: *mut i32) {
        // SAFETY: the caller promises 4 writable elements.
        unsafe { vst1q_s32(target, x) }
    }

    #[inline(always)]
    unsafe fn load_u8_ptr(self, source: *const u8) -> int32x4_t {
        // SAFETY: the caller promises 4 readable bytes.
        unsafe {
            let bytes = vcreate_u8(u64::from(source.cast::<u32>().read_unaligned()));
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
        }
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, source: *const i8) -> int32x4_t {
        // SAFETY: the caller promises 4 readable bytes.
        unsafe {
            let bytes = vcreate_s8(u64::from(source.cast::<u32>().read_unaligned()));
            vmovl_s16(vget_low_s16(vmovl_s8(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn load_u16_ptr(self, source: *const u16) -> int32x4_t {
        // SAFETY: the caller promises 4 readable elements.
        unsafe { vreinterpretq_s32_u32(vmovl_u16(vld1_u16(source))) }
    }
}
