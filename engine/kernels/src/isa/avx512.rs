//! AVX-512: 16 lanes, 32 registers, masks of their own.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use super::{Isa, Kernel, Level, TileKernel};

/// Proof of AVX-512 F, BW, DQ and VL, and of what [`Avx2`](super::avx2::Avx2) proves.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

macro_rules! operations {
    ($(fn $name:ident($self:ident $(, $arg:ident: $ty:ty)*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $ty)*) -> $out {
            // SAFETY: a value of this type exists only where `new` found the CPU's support.
            unsafe { $body }
        }
    )*};
}

/// The mask of the first `lanes` lanes.
#[inline(always)]
fn first(lanes: usize) -> __mmask16 {
    debug_assert!(lanes <= 16);
    ((1u32 << lanes) - 1) as __mmask16
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn with_features<K: Kernel>(isa: Avx512, kernel: K) -> K::Output {
    kernel.run(isa)
}

/// Apart from [`with_features`], because the compiler heeds `inline(never)` only on functions
/// without target features.
#[inline(never)]
fn outlined<K: Kernel>(isa: Avx512, kernel: K) -> K::Output {
    // SAFETY: the value proves that the CPU has the features.
    unsafe { with_features(isa, kernel) }
}

impl Isa for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Mask = __mmask16;
    type F32x16 = [__m512; 1];

    const LANES: usize = 16;
    const LEVEL: Level = Level::Avx512;
    const TILE_ROWS: usize = 12;
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && super::avx2::Avx2::new().is_some())
        .then_some(Avx512(()))
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
        fn splat(self, x: f32) -> __m512 = _mm512_set1_ps(x);
        fn splat16(self, x: f32) -> [__m512; 1] = [_mm512_set1_ps(x)];
        fn add(self, a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(self, a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(self, a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(self, a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn min(self, a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        fn max(self, a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn neg(self, a: __m512) -> __m512 = _mm512_xor_ps(a, _mm512_set1_ps(-0.0));
        fn abs(self, a: __m512) -> __m512 = _mm512_andnot_ps(_mm512_set1_ps(-0.0), a);
        fn sqrt(self, a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fnmadd_ps(a, b, c);
        fn deinterleave(self, a: __m512, b: __m512) -> (__m512, __m512) = {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            (_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b))
        };
        fn floor(self, a: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a);
        fn ceil(self, a: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC }>(a);
        fn trunc(self, a: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(a);
        fn round_even(self, a: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        fn lt(self, a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        fn le(self, a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b);
        fn eq(self, a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
        fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 =
            _mm512_mask_blend_ps(mask, b, a);
        fn splat_i32(self, x: i32) -> __m512i = _mm512_set1_epi32(x);
        fn add_i32(self, a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        fn sub_i32(self, a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        fn mul_i32(self, a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        fn min_i32(self, a: __m512i, b: __m512i) -> __m512i = _mm512_min_epi32(a, b);
        fn max_i32(self, a: __m512i, b: __m512i) -> __m512i = _mm512_max_epi32(a, b);
        fn and(self, a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn or(self, a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn xor(self, a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        fn shl(self, a: __m512i, count: u32) -> __m512i =
            _mm512_sll_epi32(a, _mm_cvtsi32_si128(count as i32));
        fn shr_logical(self, a: __m512i, count: u32) -> __m512i =
            _mm512_srl_epi32(a, _mm_cvtsi32_si128(count as i32));
        fn shr_arithmetic(self, a: __m512i, count: u32) -> __m512i =
            _mm512_sra_epi32(a, _mm_cvtsi32_si128(count as i32));
        fn eq_i32(self, a: __m512i, b: __m512i) -> __mmask16 = _mm512_cmpeq_epi32_mask(a, b);
        fn gt_i32(self, a: __m512i, b: __m512i) -> __mmask16 = _mm512_cmpgt_epi32_mask(a, b);
        fn to_f32(self, a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        fn trunc_to_i32(self, a: __m512) -> __m512i = _mm512_cvttps_epi32(a);
        fn round_to_i32(self, a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
        fn bits(self, a: __m512) -> __m512i = _mm512_castps_si512(a);
        fn from_bits(self, a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        fn widen_f16(self, half: __m512i) -> __m512 = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(half));
        fn reduce_add(self, a: __m512) -> f32 = _mm512_reduce_add_ps(a);
    }

    #[inline(always)]
    fn mask_and(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }

    #[inline(always)]
    fn mask_or(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }

    #[inline(always)]
    fn mask_not(self, a: __mmask16) -> __mmask16 {
        !a
    }

    #[inline(always)]
    fn any(self, a: __mmask16) -> bool {
        a != 0
    }

    #[inline(always)]
    fn store_u8(self, x: __m512i, target: &mut [u8]) {
        let target = &mut target[..16];
        // SAFETY: the CPU has the features (see `new`); the slice has room for 16 bytes.
        unsafe {
            let bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(x, _mm512_setzero_si512()));
            _mm_storeu_si128(target.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn store_i8(self, x: __m512i, target: &mut [i8]) {
        let target = &mut target[..16];
        // SAFETY: the CPU has the features (see `new`); the slice has room for 16 bytes.
        unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(x)) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, source: *const f32) -> __m512 {
        // SAFETY: the caller promises 16 readable elements.
        unsafe { _mm512_loadu_ps(source) }
    }

    #[inline(always)]
    unsafe fn load_partial_ptr(self, source: *const f32, lanes: usize) -> __m512 {
        // SAFETY: masked-out elements are not accessed; the caller promises the others.
        unsafe { _mm512_maskz_loadu_ps(first(lanes), source) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: __m512, target: *mut f32) {
        // SAFETY: the caller promises 16 writable elements.
        unsafe { _mm512_storeu_ps(target, x) }
    }

    #[inline(always)]
    unsafe fn store_partial_ptr(self, x: __m512, target: *mut f32, lanes: usize) {
        // SAFETY: masked-out elements are not accessed; the caller promises the others.
        unsafe { _mm512_mask_storeu_ps(target, first(lanes), x) }
    }

    #[inline(always)]
    unsafe fn load_i32_ptr(self, source: *const i32) -> __m512i {
        // SAFETY: the caller promises 16 readable elements.
        unsafe { _mm512_loadu_si512(source.cast()) }
    }

    #[inline(always)]
    unsafe fn store_i32_ptr(self, x: __m512i, target: *mut i32) {
        // SAFETY: the caller promises 16 writable elements.
        unsafe { _mm512_storeu_si512(target.cast(), x) }
    }

    #[inline(always)]
    unsafe fn load_u8_ptr(self, source: *const u8) -> __m512i {
        // SAFETY: the caller promises 16 readable bytes.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(source.cast())) }
    }

    #[inline(always)]
    unsafe fn load_i8_ptr(self, source: *const i8) -> __m512i {
        // SAFETY: the caller promises 16 readable bytes.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(source.cast())) }
    }

    #[inline(always)]
    unsafe fn load_u16_ptr(self, source: *const u16) -> __m512i {
        // SAFETY: the caller promises 16 readable elements.
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(source.cast())) }
    }
}
