//! Dot products of bytes: the instruction that integer GEMM is built from.
//!
//! [`ByteDot::dot_u8_i8`] multiplies four unsigned by four signed bytes in each 32-bit lane and
//! adds the four products to the lane. The result is exact (wrapping only past `i32`) on every
//! machine: `vpdpbusd` where the CPU has AVX-512 VNNI or AVX-VNNI, elsewhere 16-bit products.

use super::{Isa, Level, scalar};

/// Dot products of bytes on top of an instruction set. Like an [`Isa`], a value is the proof that
/// the CPU has the instruction.
pub trait ByteDot: Copy + Send + Sync + 'static {
    /// The vectors it works on.
    type Isa: Isa;

    /// The other operations.
    fn isa(self) -> Self::Isa;

    /// `acc[lane] + Σ_{i<4} a[4·lane + i] · b[4·lane + i]`, where `a` are unsigned and `b` signed
    /// bytes, the lowest byte of a lane first.
    fn dot_u8_i8(
        self,
        acc: <Self::Isa as Isa>::I32,
        a: <Self::Isa as Isa>::I32,
        b: <Self::Isa as Isa>::I32,
    ) -> <Self::Isa as Isa>::I32;
}

/// A computation on bytes written once for all instruction sets; see [`Kernel`](super::Kernel).
pub trait ByteDotKernel {
    /// What the computation returns.
    type Output;

    /// Computes with the given instructions.
    fn run<D: ByteDot>(self, dot: D) -> Self::Output;
}

/// Products in 16-bit halves, or element by element: exact without a special instruction.
///
/// Even and odd bytes are separated by shifts, so that a lane's four products come from the
/// sign-extended fields of the 32-bit lanes.
#[derive(Debug, Clone, Copy)]
pub struct Emulated<I>(pub I);

impl<I: Isa> ByteDot for Emulated<I> {
    type Isa = I;

    #[inline(always)]
    fn isa(self) -> I {
        self.0
    }

    #[inline(always)]
    fn dot_u8_i8(self, acc: I::I32, a: I::I32, b: I::I32) -> I::I32 {
        let isa = self.0;
        let mut acc = acc;
        for byte in 0..4u32 {
            let a = isa.and(isa.shr_logical(a, 8 * byte), isa.splat_i32(0xff));
            let b = isa.shr_arithmetic(isa.shl(b, 24 - 8 * byte), 24);
            acc = isa.add_i32(acc, isa.mul_i32(a, b));
        }
        acc
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2Madd, Avx2Vnni, Avx512Madd, Avx512Vnni};

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wasm::Simd128Dot;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use std::arch::wasm32::*;

    use super::ByteDot;
    use crate::isa::simd128::Simd128;

    /// Two `i32x4.dot_i16x8_s` on the even and odd bytes, exact for all of them. Both halves of an operand
    /// are made once for all sums that a tile takes it into. (Relaxed SIMD's own product of bytes is exact
    /// where one side has 7 bits; unsigned bytes need two of it and a shift, which is no less.)
    #[derive(Debug, Clone, Copy)]
    pub struct Simd128Dot(pub Simd128);

    impl ByteDot for Simd128Dot {
        type Isa = Simd128;

        #[inline(always)]
        fn isa(self) -> Simd128 {
            self.0
        }

        #[inline(always)]
        fn dot_u8_i8(self, acc: v128, a: v128, b: v128) -> v128 {
            let even = i32x4_dot_i16x8(
                v128_and(a, i16x8_splat(0xff)),
                i16x8_shr(i16x8_shl(b, 8), 8),
            );
            let odd = i32x4_dot_i16x8(u16x8_shr(a, 8), i16x8_shr(b, 8));
            i32x4_add(acc, i32x4_add(even, odd))
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::is_x86_feature_detected;
    use std::arch::x86_64::*;

    use super::ByteDot;
    use crate::isa::Isa;
    use crate::isa::avx2::Avx2;
    use crate::isa::avx512::Avx512;

    /// AVX2 alone: two `vpmaddwd` on the even and odd bytes.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx2Madd(pub Avx2);

    impl ByteDot for Avx2Madd {
        type Isa = Avx2;

        #[inline(always)]
        fn isa(self) -> Avx2 {
            self.0
        }

        #[inline(always)]
        fn dot_u8_i8(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the AVX2 proof.
            unsafe {
                let even = _mm256_madd_epi16(
                    _mm256_and_si256(a, _mm256_set1_epi16(0xff)),
                    _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)),
                );
                let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
                _mm256_add_epi32(acc, _mm256_add_epi32(even, odd))
            }
        }
    }

    /// AVX2 with AVX-VNNI.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx2Vnni(Avx2);

    impl Avx2Vnni {
        /// The proof that the CPU has AVX-VNNI, or `None`.
        pub fn new() -> Option<Self> {
            is_x86_feature_detected!("avxvnni")
                .then(Avx2::new)
                .flatten()
                .map(Avx2Vnni)
        }
    }

    impl ByteDot for Avx2Vnni {
        type Isa = Avx2;

        #[inline(always)]
        fn isa(self) -> Avx2 {
            self.0
        }

        #[inline(always)]
        fn dot_u8_i8(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: the AVX-VNNI proof.
            unsafe { _mm256_dpbusd_avx_epi32(acc, a, b) }
        }
    }

    /// AVX-512 BW alone: two `vpmaddwd` on the even and odd bytes.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx512Madd(pub Avx512);

    impl ByteDot for Avx512Madd {
        type Isa = Avx512;

        #[inline(always)]
        fn isa(self) -> Avx512 {
            self.0
        }

        #[inline(always)]
        fn dot_u8_i8(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the AVX-512 proof.
            unsafe {
                let even = _mm512_madd_epi16(
                    _mm512_and_si512(a, _mm512_set1_epi16(0xff)),
                    _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)),
                );
                let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
                _mm512_add_epi32(acc, _mm512_add_epi32(even, odd))
            }
        }
    }

    /// AVX-512 with VNNI.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx512Vnni(Avx512);

    impl Avx512Vnni {
        /// The proof that the CPU has AVX-512 VNNI, or `None`.
        pub fn new() -> Option<Self> {
            is_x86_feature_detected!("avx512vnni")
                .then(Avx512::new)
                .flatten()
                .map(Avx512Vnni)
        }
    }

    impl ByteDot for Avx512Vnni {
        type Isa = Avx512;

        #[inline(always)]
        fn isa(self) -> Avx512 {
            self.0
        }

        #[inline(always)]
        fn dot_u8_i8(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the AVX-512 VNNI proof.
            unsafe { _mm512_dpbusd_epi32(acc, a, b) }
        }
    }
}

/// Runs a kernel of byte dot products with the best instructions within `level`.
///
/// A level this machine lacks runs as scalar code. Integer sums have one result, so there is no
/// choice of numerics.
#[inline]
pub fn dispatch_byte_dot<K: ByteDotKernel>(level: Level, kernel: K) -> K::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            if let Some(dot) = Avx512Vnni::new() {
                // SAFETY: the value proves that the CPU has the features.
                return unsafe { enter_avx512_vnni(dot, kernel) };
            }
            if let Some(isa) = crate::isa::avx512::Avx512::new() {
                // SAFETY: the value proves that the CPU has the features.
                return unsafe { enter_avx512(Avx512Madd(isa), kernel) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            if let Some(dot) = Avx2Vnni::new() {
                // SAFETY: the value proves that the CPU has the features.
                return unsafe { enter_avx2_vnni(dot, kernel) };
            }
            if let Some(isa) = crate::isa::avx2::Avx2::new() {
                // SAFETY: the value proves that the CPU has the features.
                return unsafe { enter_avx2(Avx2Madd(isa), kernel) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            if let Some(isa) = crate::isa::neon::Neon::new() {
                return kernel.run(Emulated(isa));
            }
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Level::Simd128 => return kernel.run(Simd128Dot(crate::isa::simd128::Simd128)),
        _ => {}
    }
    kernel.run(Emulated(scalar::Scalar))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn enter_avx512_vnni<K: ByteDotKernel>(dot: Avx512Vnni, kernel: K) -> K::Output {
    kernel.run(dot)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn enter_avx512<K: ByteDotKernel>(dot: Avx512Madd, kernel: K) -> K::Output {
    kernel.run(dot)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
fn enter_avx2_vnni<K: ByteDotKernel>(dot: Avx2Vnni, kernel: K) -> K::Output {
    kernel.run(dot)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn enter_avx2<K: ByteDotKernel>(dot: Avx2Madd, kernel: K) -> K::Output {
    kernel.run(dot)
}
