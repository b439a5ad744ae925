//! AVX2 with FMA and F16C: 8 lanes, 16 registers.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use super::{Isa, Kernel, Level, TileKernel};

/// Proof of AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

macro_rules! operations {
    ($(fn $name:ident($self:ident $(, $arg:ident: $ty:ty)*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $ty)*) -> $out {
            // SAFETY: a value of this type exists only where `new` found the CPU's support.
            unsafe { $body }
        }
    )*};
}

/// Eight ones then eight zeros: a window that starts at `8 - n` selects the first `n` lanes.
static LANE_WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Avx2 {
    /// All bits set in the first `lanes` lanes.
    #[inline(always)]
    fn first(self, lanes: usize) -> __m256i {
        let window = &LANE_WINDOW[8 - lanes..][..8];
        // SAFETY: the window has eight elements; the CPU has the features (see `new`).
        unsafe { _mm256_loadu_si256(window.as_ptr().cast()) }
    }

    /// The lanes clamped to `i16`, four from each half, in order.
    #[inline(always)]
    fn narrow_to_i16(self, x: __m256i) -> __m128i {
        // SAFETY: the CPU has the features (see `new`).
        unsafe { _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x)) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn with_features<K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
    kernel.run(isa)
}

/// Apart from [`with_features`], because the compiler heeds `inline(never)` only on functions
/// without target features.
#[inline(never)]
fn outlined<K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
    // SAFETY: the value proves that the CPU has the features.
    unsafe { with_features(isa, kernel) }
}

impl Isa for Avx2 {
    type F32 = __m256;
    type I32 = __m256i;
    type Mask = __m256;
    type F32x16 = [__m256; 2];

    const LANES: usize = 8;
    const LEVEL: Level = Level::Avx2;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Avx2(()))
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
        fn splat(self, x: f32) -> __m256 = _mm256_set1_ps(x);
        fn splat16(self, x: f32) -> [__m256; 2] = [_mm256_set1_ps(x); 2];
        fn add(self, a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        fn sub(self, a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        fn mul(self, a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fn div(self, a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fn min(self, a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        fn max(self, a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        fn neg(self, a: __m256) -> __m256 = _mm256_xor_ps(a, _mm256_set1_ps(-0.0));
        fn abs(self, a: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
        fn sqrt(self, a: __m256) -> __m256 = _mm256_sqrt_ps(a);
        fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn neg_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fnmadd_ps(a, b, c);
        fn deinterleave(self, a: __m256, b: __m256) -> (__m256, __m256) = {
            // Within 128-bit halves, then the 64-bit quarters into order.
            let even = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
            let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
            (
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(even)),
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(odd)),
            )
        };
        fn floor(self, a: __m256) -> __m256 = _mm256_floor_ps(a);
        fn ceil(self, a: __m256) -> __m256 = _mm256_ceil_ps(a);
        fn trunc(self, a: __m256) -> __m256 =
            _mm256_round_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(a);
        fn round_even(self, a: __m256) -> __m256 =
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        fn lt(self, a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>(a, b);
        fn le(self, a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LE_OQ>(a, b);
        fn eq(self, a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b);
        fn ne(self, a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_NEQ_UQ>(a, b);
        fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 =
            _mm256_blendv_ps(b, a, mask);
        fn mask_and(self, a: __m256, b: __m256) -> __m256 = _mm256_and_ps(a, b);
        fn mask_or(self, a: __m256, b: __m256) -> __m256 = _mm256_or_ps(a, b);
        fn mask_not(self, a: __m256) -> __m256 =
            _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1)));
        fn any(self, a: __m256) -> bool = _mm256_movemask_ps(a) != 0;
        fn all(self, a: __m256) -> bool = _mm256_movemask_ps(a) == 0xff;
        fn splat_i32(self, x: i32) -> __m256i = _mm256_set1_epi32(x);
        fn add_i32(self, a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        fn sub_i32(self, a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        fn mul_i32(self, a: __m256i, b: __m256i) -> __m256i = _mm256_mullo_epi32(a, b);
        fn min_i32(self, a: __m256i, b: __m256i) -> __m256i = _mm256_min_epi32(a, b);
        fn max_i32(self, a: __m256i, b: __m256i) -> __m256i = _mm256_max_epi32(a, b);
        fn and(self, a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        fn or(self, a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        fn xor(self, a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        fn shl(self, a: __m256i, count: u32) -> __m256i =
            _mm256_sll_epi32(a, _mm_cvtsi32_si128(count as i32));
        fn shr_logical(self, a: __m256i, count: u32) -> __m256i =
            _mm256_srl_epi32(a, _mm_cvtsi32_si128(count as i32));
        fn shr_arithmetic(self, a: __m256i, count: u32) -> __m256i =
            _mm256_sra_epi32(a, _mm_cvtsi32_si128(count as i32));
        fn eq_i32(self, a: __m256i, b: __m256i) -> __m256 =
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b));
        fn gt_i32(self, a: __m256i, b: __m256i) -> __m256 =
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b));
        fn to_f32(self, a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        fn trunc_to_i32(self, a: __m256) -> __m256i = _mm256_cvttps_epi32(a);
        fn round_to_i32(self, a: __m256) -> __m256i = _mm256_cvtps_epi32(a);
        fn bits(self, a: __m256) -> __m256i = _mm256_castps_si256(a);
        fn from_bits(self, a: __m256i) -> __m256 = _mm256_castsi256_ps(a);
        fn widen_f16(self, half: __m256i) -> __m256 = _mm256_cvtph_ps(_mm_packus_epi32(
            _mm256_castsi256_si128(half),
            _mm256_extracti128_si256::<1>(half),
        ));
    }

    #[inline(always)]
    fn store_u8(self, x: __m256i, target: &mut [u8]) {
        let target = &mut target[..8];
        let words = self.narrow_to_i16(x);
        // SAFETY: the CPU has the features (see `new`); the slice has room for 8 bytes.
        unsafe { _mm_storel_epi64(target.as_mut_ptr().cast(), _mm_packus_epi16(words, words)) }
    }

    #[inline(always)]
    fn store_i8(self, x: __m256i, target: &mut [i8]) {
        let target = &mut target[..8];
        let words = self.narrow_to_i16(x);
        // SAFETY: the CPU has the features (see `new`); the slice has room for 8 bytes.
        unsafe { _mm_storel_epi64(target.as_mut_ptr().cast(), _mm_packs_epi16(words, words)) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> __m256 {
        // SAFETY: the caller promises 8 readable elements.
        unsafe { _mm256_loadu_ps(source) }
    }

    #[inline(always)]
    unsafe fn load_partial_ptr(self, source: *const f32, lanes: usize) -> __m256 {
        // SAFETY: masked-out elements are not accessed; the caller promises the others.
        unsafe { _mm256_maskload_ps(source, self.first(lanes)) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: __m256, target: *mut f32) {
        // SAFETY: the caller promises 8 writable elements.
        unsafe { _mm256_storeu_ps(target, x) }
    }

    #[inline(always)]
    unsafe fn store_partial_ptr(self, x: __m256, target: *mut f32, lanes: usize) {
        // SAFETY: masked-out elements are not accessed; the caller promises the others.
        unsafe { _mm256_maskstore_ps(target, self.first(lanes), x) }
    }

    #[inline(always)]
    unsafe fn load_i32_ptr(self, source: *const i32) -> __m256i {
        // SAFETY: the caller promises 8 readable elements.
        unsafe { _mm256_loadu_si256(source.cast()) }
    }

    #[inline(always)]
    unsafe fn store_i32_ptr(self, x: __m256i, target: *mut i32) {
        // SAFETY: the caller promises 8 writable elements.
        unsafe { _mm256_storeu_si256(target.cast(), x) }
    }

    #[inline(always)]
    unsafe fn load_u8_ptr(self, source: *const u8) -> __m256i {
        // SAFETY: the caller promises 8 readable bytes.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(source.cast())) }
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, source: *const i8) -> __m256i {
        // SAFETY: the caller promises 8 readable bytes.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(source.cast())) }
    }

    #[inline(always)]
    unsafe fn load_u16_ptr(self, source: *const u16) -> __m256i {
        // SAFETY: the caller promises 8 readable elements.
        unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(source.cast())) }
    }
}
