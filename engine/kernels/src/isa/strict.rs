//! Multiply then add, rounded twice, on any instruction set.

use super::{Isa, Kernel, Level, TileKernel};

/// An instruction set without fused multiply-add, so that the same kernel gives the same bits on
/// all of them.
#[derive(Debug, Clone, Copy)]
pub struct Strict<I>(pub I);

/// Wraps the instruction set that a kernel is given.
struct StrictKernel<K>(K);

impl<K: Kernel> Kernel for StrictKernel<K> {
    type Output = K::Output;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> K::Output {
        self.0.run(Strict(isa))
    }
}

impl<T: TileKernel> TileKernel for StrictKernel<T> {
    type Output = T::Output;

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) -> T::Output {
        self.0.run::<Strict<I>, ROWS, VECTORS>(Strict(isa))
    }
}

macro_rules! forward {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) $(-> $out)? {
            self.0.$name($($arg),*)
        }
    )*};
}

macro_rules! forward_unsafe {
    ($(unsafe fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $ty),*) $(-> $out)? {
            // SAFETY: the caller upholds the same contract.
            unsafe { self.0.$name($($arg),*) }
        }
    )*};
}

impl<I: Isa> Isa for Strict<I> {
    type F32 = I::F32;
    type I32 = I::I32;
    type Mask = I::Mask;
    type F32x16 = I::F32x16;

    const LANES: usize = I::LANES;
    const LEVEL: Level = I::LEVEL;
    const TILE_ROWS: usize = I::TILE_ROWS;
    const TILE_VECTORS: usize = I::TILE_VECTORS;

    #[inline(always)]
    fn new() -> Option<Self> {
        I::new().map(Strict)
    }

    #[inline(always)]
    fn mul_add(self, a: I::F32, b: I::F32, c: I::F32) -> I::F32 {
        self.0.add(self.0.mul(a, b), c)
    }

    #[inline(always)]
    fn neg_mul_add(self, a: I::F32, b: I::F32, c: I::F32) -> I::F32 {
        self.0.sub(c, self.0.mul(a, b))
    }

    #[inline(always)]
    fn outline<K: Kernel>(self, kernel: K) -> K::Output {
        self.0.outline(StrictKernel(kernel))
    }

    #[inline(always)]
    fn with_tile<T: TileKernel>(self, kernel: T) -> T::Output {
        self.0.with_tile(StrictKernel(kernel))
    }

    forward! {
        fn splat(x: f32) -> I::F32;
        fn splat16(x: f32) -> I::F32x16;
        fn add(a: I::F32, b: I::F32) -> I::F32;
        fn sub(a: I::F32, b: I::F32) -> I::F32;
        fn mul(a: I::F32, b: I::F32) -> I::F32;
        fn div(a: I::F32, b: I::F32) -> I::F32;
        fn min(a: I::F32, b: I::F32) -> I::F32;
        fn max(a: I::F32, b: I::F32) -> I::F32;
        fn neg(a: I::F32) -> I::F32;
        fn abs(a: I::F32) -> I::F32;
        fn sqrt(a: I::F32) -> I::F32;
        fn floor(a: I::F32) -> I::F32;
        fn ceil(a: I::F32) -> I::F32;
        fn trunc(a: I::F32) -> I::F32;
        fn round_even(a: I::F32) -> I::F32;
        fn deinterleave(a: I::F32, b: I::F32) -> (I::F32, I::F32);
        fn lt(a: I::F32, b: I::F32) -> I::Mask;
        fn le(a: I::F32, b: I::F32) -> I::Mask;
        fn eq(a: I::F32, b: I::F32) -> I::Mask;
        fn gt(a: I::F32, b: I::F32) -> I::Mask;
        fn ge(a: I::F32, b: I::F32) -> I::Mask;
        fn ne(a: I::F32, b: I::F32) -> I::Mask;
        fn select(mask: I::Mask, a: I::F32, b: I::F32) -> I::F32;
        fn mask_and(a: I::Mask, b: I::Mask) -> I::Mask;
        fn mask_or(a: I::Mask, b: I::Mask) -> I::Mask;
        fn mask_not(a: I::Mask) -> I::Mask;
        fn any(a: I::Mask) -> bool;
        fn all(a: I::Mask) -> bool;
        fn splat_i32(x: i32) -> I::I32;
        fn widen_f16(half: I::I32) -> I::F32;
        fn store_u8(x: I::I32, target: &mut [u8]);
        fn store_i8(x: I::I32, target: &mut [i8]);
        fn add_i32(a: I::I32, b: I::I32) -> I::I32;
        fn sub_i32(a: I::I32, b: I::I32) -> I::I32;
        fn mul_i32(a: I::I32, b: I::I32) -> I::I32;
        fn min_i32(a: I::I32, b: I::I32) -> I::I32;
        fn max_i32(a: I::I32, b: I::I32) -> I::I32;
        fn and(a: I::I32, b: I::I32) -> I::I32;
        fn or(a: I::I32, b: I::I32) -> I::I32;
        fn xor(a: I::I32, b: I::I32) -> I::I32;
        fn shl(a: I::I32, count: u32) -> I::I32;
        fn shr_logical(a: I::I32, count: u32) -> I::I32;
        fn shr_arithmetic(a: I::I32, count: u32) -> I::I32;
        fn eq_i32(a: I::I32, b: I::I32) -> I::Mask;
        fn gt_i32(a: I::I32, b: I::I32) -> I::Mask;
        fn to_f32(a: I::I32) -> I::F32;
        fn trunc_to_i32(a: I::F32) -> I::I32;
        fn round_to_i32(a: I::F32) -> I::I32;
        fn bits(a: I::F32) -> I::I32;
        fn from_bits(a: I::I32) -> I::F32;
    }

    forward_unsafe! {
        unsafe fn load_ptr(source: *const f32) -> I::F32;
        unsafe fn load_partial_ptr(source: *const f32, lanes: usize) -> I::F32;
        unsafe fn store_ptr(x: I::F32, target: *mut f32);
        unsafe fn store_partial_ptr(x: I::F32, target: *mut f32, lanes: usize);
        unsafe fn load_i32_ptr(source: *const i32) -> I::I32;
        unsafe fn store_i32_ptr(x: I::I32, target: *mut i32);
        unsafe fn load_u8_ptr(source: *const u8) -> I::I32;
        unsafe fn load_i8_ptr(source: *const i8) -> I::I32;
        unsafe fn load_u16_ptr(source: *const u16) -> I::I32;
    }
}
