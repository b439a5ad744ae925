//! WebAssembly SIMD128: 4 lanes; with relaxed SIMD also multiply-add.

use std::arch::wasm32::*;

use super::{Isa, Kernel, Level, TileKernel};

/// The vectors of a module compiled with `simd128`: nothing to detect, such a module does not
/// load elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Simd128;

macro_rules! operations {
    ($(fn $name:ident($self:ident $(, $arg:ident: $ty:ty)*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $ty)*) -> $out {
            $body
        }
    )*};
}

#[inline(never)]
fn outlined<K: Kernel>(isa: Simd128, kernel: K) -> K::Output {
    kernel.run(isa)
}

impl Isa for Simd128 {
    type F32 = v128;
    type I32 = v128;
    type Mask = v128;
    type F32x16 = [v128; 4];

    const LANES: usize = 4;
    const LEVEL: Level = Level::Simd128;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    fn new() -> Option<Self> {
        Some(Simd128)
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
        fn splat(self, x: f32) -> v128 = f32x4_splat(x);
        fn splat16(self, x: f32) -> [v128; 4] = [f32x4_splat(x); 4];
        fn add(self, a: v128, b: v128) -> v128 = f32x4_add(a, b);
        fn sub(self, a: v128, b: v128) -> v128 = f32x4_sub(a, b);
        fn mul(self, a: v128, b: v128) -> v128 = f32x4_mul(a, b);
        fn div(self, a: v128, b: v128) -> v128 = f32x4_div(a, b);
        fn neg(self, a: v128) -> v128 = f32x4_neg(a);
        fn abs(self, a: v128) -> v128 = f32x4_abs(a);
        fn sqrt(self, a: v128) -> v128 = f32x4_sqrt(a);
        fn deinterleave(self, a: v128, b: v128) -> (v128, v128) =
            (i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b));
        fn floor(self, a: v128) -> v128 = f32x4_floor(a);
        fn ceil(self, a: v128) -> v128 = f32x4_ceil(a);
        fn trunc(self, a: v128) -> v128 = f32x4_trunc(a);
        fn round_even(self, a: v128) -> v128 = f32x4_nearest(a);
        fn lt(self, a: v128, b: v128) -> v128 = f32x4_lt(a, b);
        fn le(self, a: v128, b: v128) -> v128 = f32x4_le(a, b);
        fn eq(self, a: v128, b: v128) -> v128 = f32x4_eq(a, b);
        fn ne(self, a: v128, b: v128) -> v128 = f32x4_ne(a, b);
        fn select(self, mask: v128, a: v128, b: v128) -> v128 = v128_bitselect(a, b, mask);
        fn mask_and(self, a: v128, b: v128) -> v128 = v128_and(a, b);
        fn mask_or(self, a: v128, b: v128) -> v128 = v128_or(a, b);
        fn mask_not(self, a: v128) -> v128 = v128_not(a);
        fn any(self, a: v128) -> bool = v128_any_true(a);
        fn all(self, a: v128) -> bool = i32x4_all_true(a);
        fn splat_i32(self, x: i32) -> v128 = i32x4_splat(x);
        fn add_i32(self, a: v128, b: v128) -> v128 = i32x4_add(a, b);
        fn sub_i32(self, a: v128, b: v128) -> v128 = i32x4_sub(a, b);
        fn mul_i32(self, a: v128, b: v128) -> v128 = i32x4_mul(a, b);
        fn min_i32(self, a: v128, b: v128) -> v128 = i32x4_min(a, b);
        fn max_i32(self, a: v128, b: v128) -> v128 = i32x4_max(a, b);
        fn and(self, a: v128, b: v128) -> v128 = v128_and(a, b);
        fn or(self, a: v128, b: v128) -> v128 = v128_or(a, b);
        fn xor(self, a: v128, b: v128) -> v128 = v128_xor(a, b);
        fn shl(self, a: v128, count: u32) -> v128 = i32x4_shl(a, count);
        fn shr_logical(self, a: v128, count: u32) -> v128 = u32x4_shr(a, count);
        fn shr_arithmetic(self, a: v128, count: u32) -> v128 = i32x4_shr(a, count);
        fn eq_i32(self, a: v128, b: v128) -> v128 = i32x4_eq(a, b);
        fn gt_i32(self, a: v128, b: v128) -> v128 = i32x4_gt(a, b);
        fn to_f32(self, a: v128) -> v128 = f32x4_convert_i32x4(a);
        fn trunc_to_i32(self, a: v128) -> v128 = i32x4_trunc_sat_f32x4(a);
        fn round_to_i32(self, a: v128) -> v128 = i32x4_trunc_sat_f32x4(f32x4_nearest(a));
        fn bits(self, a: v128) -> v128 = a;
        fn from_bits(self, a: v128) -> v128 = a;
    }

    #[cfg(target_feature = "relaxed-simd")]
    operations! {
        // Not `pmin` and `pmax`: where relaxed SIMD is allowed LLVM 22 makes their relaxed kin of
        // them, which may answer either zero for 0 and -0.
        fn min(self, a: v128, b: v128) -> v128 = v128_bitselect(a, b, f32x4_lt(a, b));
        fn max(self, a: v128, b: v128) -> v128 = v128_bitselect(a, b, f32x4_gt(a, b));
        fn mul_add(self, a: v128, b: v128, c: v128) -> v128 = f32x4_relaxed_madd(a, b, c);
        fn neg_mul_add(self, a: v128, b: v128, c: v128) -> v128 = f32x4_relaxed_nmadd(a, b, c);
    }

    #[cfg(not(target_feature = "relaxed-simd"))]
    operations! {
        // `pmin(x, y)` is `y < x ? y : x`, and `pmax(x, y)` is `x < y ? y : x`.
        fn min(self, a: v128, b: v128) -> v128 = f32x4_pmin(b, a);
        fn max(self, a: v128, b: v128) -> v128 = f32x4_pmax(b, a);
        fn mul_add(self, a: v128, b: v128, c: v128) -> v128 = f32x4_add(f32x4_mul(a, b), c);
        fn neg_mul_add(self, a: v128, b: v128, c: v128) -> v128 = f32x4_sub(c, f32x4_mul(a, b));
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> v128 {
        // SAFETY: the caller promises 4 readable elements.
        unsafe { v128_load(source.cast()) }
    }

    #[inline(always)]
    unsafe fn load_partial_ptr(self, source: *const f32, lanes: usize) -> v128 {
        let mut buffer = [0.0f32; 4];
        for (i, lane) in buffer.iter_mut().enumerate().take(lanes) {
            // SAFETY: the caller promises `lanes` readable elements.
            *lane = unsafe { source.add(i).read_unaligned() };
        }
        f32x4(buffer[0], buffer[1], buffer[2], buffer[3])
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: v128, target: *mut f32) {
        // SAFETY: the caller promises 4 writable elements.
        unsafe { v128_store(target.cast(), x) }
    }

    #[inline(always)]
    unsafe fn store_partial_ptr(self, x: v128, target: *mut f32, lanes: usize) {
        let buffer = [
            f32x4_extract_lane::<0>(x),
            f32x4_extract_lane::<1>(x),
            f32x4_extract_lane::<2>(x),
            f32x4_extract_lane::<3>(x),
        ];
        for (i, lane) in buffer.into_iter().enumerate().take(lanes) {
            // SAFETY: the caller promises `lanes` writable elements.
            unsafe { target.add(i).write_unaligned(lane) };
        }
    }

    #[inline(always)]
    unsafe fn load_i32_ptr(self, source: *const i32) -> v128 {
        // SAFETY: the caller promises 4 readable elements.
        unsafe { v128_load(source.cast()) }
    }

    #[inline(always)]
    unsafe fn store_i32_ptr(self, x: v128, target: *mut i32) {
        // SAFETY: the caller promises 4 writable elements.
        unsafe { v128_store(target.cast(), x) }
    }

    #[inline(always)]
    unsafe fn load_u8_ptr(self, source: *const u8) -> v128 {
        // SAFETY: the caller promises 4 readable bytes.
        let bytes = unsafe { v128_load32_zero(source.cast()) };
        u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(bytes))
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, source: *const i8) -> v128 {
        // SAFETY: the caller promises 4 readable bytes.
        let bytes = unsafe { v128_load32_zero(source.cast()) };
        i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes))
    }

    #[inline(always)]
    unsafe fn load_u16_ptr(self, source: *const u16) -> v128 {
        // SAFETY: the caller promises 4 readable elements.
        unsafe { u32x4_load_extend_u16x4(source.cast()) }
    }
}
