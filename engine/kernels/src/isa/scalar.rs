//! Plain Rust: an instruction set like any other, with one lane.

use super::{Isa, Kernel, Level, TileKernel};

/// One lane, no intrinsics; multiply-add is never fused, since without the instruction that would
/// be a slow library call.
#[derive(Debug, Clone, Copy)]
pub struct Scalar;

macro_rules! operations {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            $body
        }
    )*};
}

#[inline(never)]
fn outlined<K: Kernel>(isa: Scalar, kernel: K) -> K::Output {
    kernel.run(isa)
}

impl Isa for Scalar {
    type F32 = f32;
    type I32 = i32;
    type Mask = bool;
    type F32x16 = [f32; 16];

    const LANES: usize = 1;
    const LEVEL: Level = Level::Scalar;
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 4;

    #[inline(always)]
    fn new() -> Option<Self> {
        Some(Scalar)
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
        fn splat(x: f32) -> f32 = x;
        fn splat16(x: f32) -> [f32; 16] = [x; 16];
        fn add(a: f32, b: f32) -> f32 = a + b;
        fn sub(a: f32, b: f32) -> f32 = a - b;
        fn mul(a: f32, b: f32) -> f32 = a * b;
        fn div(a: f32, b: f32) -> f32 = a / b;
        fn min(a: f32, b: f32) -> f32 = if a < b { a } else { b };
        fn max(a: f32, b: f32) -> f32 = if a > b { a } else { b };
        fn neg(a: f32) -> f32 = -a;
        fn abs(a: f32) -> f32 = a.abs();
        fn sqrt(a: f32) -> f32 = a.sqrt();
        fn mul_add(a: f32, b: f32, c: f32) -> f32 = a * b + c;
        fn neg_mul_add(a: f32, b: f32, c: f32) -> f32 = c - a * b;
        fn deinterleave(a: f32, b: f32) -> (f32, f32) = (a, b);
        fn floor(a: f32) -> f32 = a.floor();
        fn ceil(a: f32) -> f32 = a.ceil();
        fn trunc(a: f32) -> f32 = a.trunc();
        fn round_even(a: f32) -> f32 = a.round_ties_even();
        fn lt(a: f32, b: f32) -> bool = a < b;
        fn le(a: f32, b: f32) -> bool = a <= b;
        fn eq(a: f32, b: f32) -> bool = a == b;
        fn select(mask: bool, a: f32, b: f32) -> f32 = if mask { a } else { b };
        fn mask_and(a: bool, b: bool) -> bool = a & b;
        fn mask_or(a: bool, b: bool) -> bool = a | b;
        fn mask_not(a: bool) -> bool = !a;
        fn any(a: bool) -> bool = a;
        fn splat_i32(x: i32) -> i32 = x;
        fn add_i32(a: i32, b: i32) -> i32 = a.wrapping_add(b);
        fn sub_i32(a: i32, b: i32) -> i32 = a.wrapping_sub(b);
        fn mul_i32(a: i32, b: i32) -> i32 = a.wrapping_mul(b);
        fn min_i32(a: i32, b: i32) -> i32 = a.min(b);
        fn max_i32(a: i32, b: i32) -> i32 = a.max(b);
        fn and(a: i32, b: i32) -> i32 = a & b;
        fn or(a: i32, b: i32) -> i32 = a | b;
        fn xor(a: i32, b: i32) -> i32 = a ^ b;
        fn shl(a: i32, count: u32) -> i32 = a << count;
        fn shr_logical(a: i32, count: u32) -> i32 = (a as u32 >> count) as i32;
        fn shr_arithmetic(a: i32, count: u32) -> i32 = a >> count;
        fn eq_i32(a: i32, b: i32) -> bool = a == b;
        fn gt_i32(a: i32, b: i32) -> bool = a > b;
        fn to_f32(a: i32) -> f32 = a as f32;
        fn trunc_to_i32(a: f32) -> i32 = a as i32;
        fn round_to_i32(a: f32) -> i32 = a.round_ties_even() as i32;
        fn bits(a: f32) -> i32 = a.to_bits() as i32;
        fn from_bits(a: i32) -> f32 = f32::from_bits(a as u32);
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> f32 {
        // SAFETY: the caller promises one readable element; it may be unaligned.
        unsafe { source.read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_partial_ptr(self, source: *const f32, lanes: usize) -> f32 {
        if lanes == 0 {
            0.0
        } else {
            // SAFETY: the caller promises `lanes` readable elements.
            unsafe { source.read_unaligned() }
        }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: f32, target: *mut f32) {
        // SAFETY: the caller promises one writable element; it may be unaligned.
        unsafe { target.write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn store_partial_ptr(self, x: f32, target: *mut f32, lanes: usize) {
        if lanes != 0 {
            // SAFETY: the caller promises `lanes` writable elements.
            unsafe { target.write_unaligned(x) }
        }
    }

    #[inline(always)]
    unsafe fn load_i32_ptr(self, source: *const i32) -> i32 {
        // SAFETY: the caller promises one readable element.
        unsafe { source.read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_i32_ptr(self, x: i32, target: *mut i32) {
        // SAFETY: the caller promises one writable element.
        unsafe { target.write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn load_u8_ptr(self, source: *const u8) -> i32 {
        // SAFETY: the caller promises one readable byte.
        i32::from(unsafe { source.read() })
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, source: *const i8) -> i32 {
        // SAFETY: the caller promises one readable byte.
        i32::from(unsafe { source.read() })
    }

    #[inline(always)]
    unsafe fn load_u16_ptr(self, source: *const u16) -> i32 {
        // SAFETY: the caller promises one readable element.
        i32::from(unsafe { source.read_unaligned() })
    }
}
