//! Instruction sets: one trait of vector operations, and the one place that chooses.
//!
//! A kernel is written once, generic over [`Isa`], and handed to [`dispatch`], which enters the
//! right `#[target_feature]` function:
//!
//! ```
//! use lethe_kernels::isa::{Isa, Kernel, Level, Numerics, dispatch};
//!
//! struct Double<'a>(&'a mut [f32]);
//!
//! impl Kernel for Double<'_> {
//!     type Output = ();
//!     #[inline(always)]
//!     fn run<I: Isa>(self, isa: I) {
//!         let mut chunks = self.0.chunks_exact_mut(I::LANES);
//!         for chunk in &mut chunks {
//!             let x = isa.load(chunk);
//!             isa.store(isa.add(x, x), chunk);
//!         }
//!         let tail = chunks.into_remainder();
//!         let x = isa.load_partial(tail);
//!         isa.store_partial(isa.add(x, x), tail);
//!     }
//! }
//!
//! let mut data = vec![1.5; 37];
//! dispatch(Level::best(), Numerics::Fast, Double(&mut data));
//! assert_eq!(data, vec![3.0; 37]);
//! ```
//!
//! # How the pieces fit
//! - A value of an [`Isa`] type is the proof that the CPU has the instructions: `new` is the only
//!   way to get one and it asks the CPU. That is why its methods are safe.
//! - Everything between [`dispatch`] and an instruction must be `#[inline(always)]`: a function
//!   that stays out of line is compiled without the instruction set and turns every vector
//!   operation into a call. This includes `Kernel::run` and the helpers it calls.
//! - [`Strict`] wraps an instruction set and rounds after every multiplication. [`dispatch`] uses
//!   it for [`Numerics::Reproducible`], so a kernel that calls `mul_add` needs no second version.
//! - Lane counts differ between instruction sets. A reduction that must give the same bits
//!   everywhere goes through [`lanes16`], which always works in 16 lanes.
//!
//! # Same bits everywhere
//! All operations below are IEEE 754 exact or bit operations, hence equal on every instruction
//! set, with three exceptions, marked where they are declared: `mul_add`/`neg_mul_add` (fused or
//! not; [`Strict`] settles it), conversions to integers outside the range of `i32`, and
//! `reduce_add`, whose order follows the lane count. The sign and payload of a NaN that an
//! operation creates are not part of the promise.
#![expect(
    unsafe_code,
    reason = "enters functions compiled for instruction sets that were detected"
)]

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod byte_dot;
pub mod lanes16;
mod level;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;
mod strict;
#[cfg(test)]
mod tests;
mod transpose;

pub use byte_dot::{ByteDot, ByteDotKernel, dispatch_byte_dot};
pub use level::{Level, LevelError, Numerics};
pub use strict::Strict;
pub use transpose::transpose;

/// Vector operations of one instruction set. See the [module documentation](self).
///
/// Comparisons are ordered: they are false where an operand is NaN, except `ne`.
#[expect(
    clippy::wrong_self_convention,
    reason = "`self` is the instruction set, not the value that is converted"
)]
pub trait Isa: Copy + Send + Sync + 'static {
    /// [`Self::LANES`] values of `f32`.
    type F32: Copy;
    /// [`Self::LANES`] values of `i32` (wrapping arithmetic).
    type I32: Copy;
    /// [`Self::LANES`] truth values.
    type Mask: Copy;
    /// Sixteen values of `f32`: an array of `16 / LANES` vectors. See [`lanes16`].
    type F32x16: Copy + AsRef<[Self::F32]> + AsMut<[Self::F32]>;

    /// Elements of a vector: 1, 4, 8 or 16.
    const LANES: usize;
    /// The level this instruction set belongs to.
    const LEVEL: Level;
    /// Rows of the register tile of [`Self::with_tile`].
    const TILE_ROWS: usize;
    /// Vectors in a row of the register tile of [`Self::with_tile`].
    const TILE_VECTORS: usize;

    /// The proof that the CPU has the instructions, or `None`.
    fn new() -> Option<Self>;

    /// Every lane `x`.
    fn splat(self, x: f32) -> Self::F32;

    /// Every lane `0.0`.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }

    /// Sixteen times `x`.
    fn splat16(self, x: f32) -> Self::F32x16;

    /// The first [`Self::LANES`] elements.
    ///
    /// # Panics
    /// If `source` is shorter than a vector.
    #[inline(always)]
    fn load(self, source: &[f32]) -> Self::F32 {
        assert!(source.len() >= Self::LANES);
        // SAFETY: the slice holds a whole vector.
        unsafe { self.load_ptr(source.as_ptr()) }
    }

    /// All elements of a slice shorter than a vector (or its first vector), then zeros.
    #[inline(always)]
    fn load_partial(self, source: &[f32]) -> Self::F32 {
        // SAFETY: not more lanes than the slice has elements.
        unsafe { self.load_partial_ptr(source.as_ptr(), source.len().min(Self::LANES)) }
    }

    /// Writes all lanes to the first [`Self::LANES`] elements.
    ///
    /// # Panics
    /// If `target` is shorter than a vector.
    #[inline(always)]
    fn store(self, x: Self::F32, target: &mut [f32]) {
        assert!(target.len() >= Self::LANES);
        // SAFETY: the slice has room for a whole vector.
        unsafe { self.store_ptr(x, target.as_mut_ptr()) }
    }

    /// Fills a slice shorter than a vector (or its first vector) with the first lanes.
    #[inline(always)]
    fn store_partial(self, x: Self::F32, target: &mut [f32]) {
        let lanes = target.len().min(Self::LANES);
        // SAFETY: not more lanes than the slice has elements.
        unsafe { self.store_partial_ptr(x, target.as_mut_ptr(), lanes) }
    }

    /// Reads a vector; no alignment needed.
    ///
    /// # Safety
    /// `source` must be valid for reading [`Self::LANES`] elements.
    unsafe fn load_ptr(self, source: *const f32) -> Self::F32;

    /// Reads `lanes` elements and zeros the other lanes.
    ///
    /// # Safety
    /// `lanes <= LANES`, and `source` must be valid for reading that many elements.
    unsafe fn load_partial_ptr(self, source: *const f32, lanes: usize) -> Self::F32;

    /// Writes a vector; no alignment needed.
    ///
    /// # Safety
    /// `target` must be valid for writing [`Self::LANES`] elements.
    unsafe fn store_ptr(self, x: Self::F32, target: *mut f32);

    /// Writes the first `lanes` lanes.
    ///
    /// # Safety
    /// `lanes <= LANES`, and `target` must be valid for writing that many elements.
    unsafe fn store_partial_ptr(self, x: Self::F32, target: *mut f32, lanes: usize);

    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`: the second operand where one of them is NaN or both are
    /// zeros. To keep a NaN of `x`, write `min(limit, x)`; to drop it, `min(x, limit)`.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a > b { a } else { b }`: the second operand where one of them is NaN or both are zeros.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Flips the sign bit.
    fn neg(self, a: Self::F32) -> Self::F32;
    /// Clears the sign bit.
    fn abs(self, a: Self::F32) -> Self::F32;
    /// Correctly rounded square root.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once or twice, whichever is faster; twice under [`Strict`].
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c - a * b`, rounded once or twice, whichever is faster; twice under [`Strict`].
    fn neg_mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Towards negative infinity.
    fn floor(self, a: Self::F32) -> Self::F32;
    /// Towards positive infinity.
    fn ceil(self, a: Self::F32) -> Self::F32;
    /// Towards zero.
    fn trunc(self, a: Self::F32) -> Self::F32;
    /// To the nearest integer, ties to even.
    fn round_even(self, a: Self::F32) -> Self::F32;

    /// The elements with even and with odd index of `a` followed by `b`.
    fn deinterleave(self, a: Self::F32, b: Self::F32) -> (Self::F32, Self::F32);

    /// `a < b`.
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a <= b`.
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`.
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a > b`.
    #[inline(always)]
    fn gt(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        self.lt(b, a)
    }
    /// `a >= b`.
    #[inline(always)]
    fn ge(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        self.le(b, a)
    }
    /// `a != b`, true where an operand is NaN.
    #[inline(always)]
    fn ne(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        self.mask_not(self.eq(a, b))
    }
    /// `a` where the mask is true, otherwise `b`.
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;

    /// Both true.
    fn mask_and(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// One of them true.
    fn mask_or(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// The opposite.
    fn mask_not(self, a: Self::Mask) -> Self::Mask;
    /// Whether a lane is true.
    fn any(self, a: Self::Mask) -> bool;
    /// Whether all lanes are true.
    #[inline(always)]
    fn all(self, a: Self::Mask) -> bool {
        !self.any(self.mask_not(a))
    }

    /// Every lane `x`.
    fn splat_i32(self, x: i32) -> Self::I32;

    /// The first [`Self::LANES`] elements.
    ///
    /// # Panics
    /// If `source` is shorter than a vector.
    #[inline(always)]
    fn load_i32(self, source: &[i32]) -> Self::I32 {
        assert!(source.len() >= Self::LANES);
        // SAFETY: the slice holds a whole vector.
        unsafe { self.load_i32_ptr(source.as_ptr()) }
    }

    /// All elements of a slice shorter than a vector (or its first vector), then zeros.
    #[inline(always)]
    fn load_i32_partial(self, source: &[i32]) -> Self::I32 {
        // SAFETY: not more lanes than elements; `f32` and `i32` have one size, and the lanes are
        // only moved, not computed with.
        self.bits(unsafe {
            self.load_partial_ptr(source.as_ptr().cast(), source.len().min(Self::LANES))
        })
    }

    /// Writes all lanes to the first [`Self::LANES`] elements.
    ///
    /// # Panics
    /// If `target` is shorter than a vector.
    #[inline(always)]
    fn store_i32(self, x: Self::I32, target: &mut [i32]) {
        assert!(target.len() >= Self::LANES);
        // SAFETY: the slice has room for a whole vector.
        unsafe { self.store_i32_ptr(x, target.as_mut_ptr()) }
    }

    /// Fills a slice shorter than a vector (or its first vector) with the first lanes.
    #[inline(always)]
    fn store_i32_partial(self, x: Self::I32, target: &mut [i32]) {
        let lanes = target.len().min(Self::LANES);
        // SAFETY: not more lanes than elements; `f32` and `i32` have one size.
        unsafe { self.store_partial_ptr(self.from_bits(x), target.as_mut_ptr().cast(), lanes) }
    }

    /// Reads a vector; no alignment needed.
    ///
    /// # Safety
    /// `source` must be valid for reading [`Self::LANES`] elements.
    unsafe fn load_i32_ptr(self, source: *const i32) -> Self::I32;

    /// Writes a vector; no alignment needed.
    ///
    /// # Safety
    /// `target` must be valid for writing [`Self::LANES`] elements.
    unsafe fn store_i32_ptr(self, x: Self::I32, target: *mut i32);

    /// Reads [`Self::LANES`] bytes, each widened without sign.
    ///
    /// # Safety
    /// `source` must be valid for reading [`Self::LANES`] bytes.
    unsafe fn load_u8_ptr(self, source: *const u8) -> Self::I32;

    /// Reads [`Self::LANES`] bytes, each widened with its sign.
    ///
    /// # Safety
    /// `source` must be valid for reading [`Self::LANES`] bytes.
    unsafe fn load_i8_ptr(self, source: *const i8) -> Self::I32;

    /// Reads [`Self::LANES`] half words, each widened without sign.
    ///
    /// # Safety
    /// `source` must be valid for reading [`Self::LANES`] elements.
    unsafe fn load_u16_ptr(self, source: *const u16) -> Self::I32;

    /// The first [`Self::LANES`] bytes, each widened without sign.
    ///
    /// # Panics
    /// If `source` is shorter than a vector.
    #[inline(always)]
    fn load_u8(self, source: &[u8]) -> Self::I32 {
        assert!(source.len() >= Self::LANES);
        // SAFETY: the slice holds a whole vector.
        unsafe { self.load_u8_ptr(source.as_ptr()) }
    }

    /// The first [`Self::LANES`] bytes, each widened with its sign.
    ///
    /// # Panics
    /// If `source` is shorter than a vector.
    #[inline(always)]
    fn load_i8(self, source: &[i8]) -> Self::I32 {
        assert!(source.len() >= Self::LANES);
        // SAFETY: the slice holds a whole vector.
        unsafe { self.load_i8_ptr(source.as_ptr()) }
    }

    /// The first [`Self::LANES`] bit patterns of IEEE 754 half precision, converted exactly.
    ///
    /// # Panics
    /// If `source` is shorter than a vector.
    #[inline(always)]
    fn load_f16(self, source: &[u16]) -> Self::F32 {
        assert!(source.len() >= Self::LANES);
        // SAFETY: the slice holds a whole vector.
        self.widen_f16(unsafe { self.load_u16_ptr(source.as_ptr()) })
    }

    /// Converts half-precision bit patterns (upper half of each lane zero) exactly.
    ///
    /// The exponent and mantissa are moved to their place in an `f32` and scaled by 2^112, which
    /// corrects the exponent bias and normalises subnormals; an exponent of all ones becomes all
    /// ones again.
    #[inline(always)]
    fn widen_f16(self, half: Self::I32) -> Self::F32 {
        let magnitude = self.and(half, self.splat_i32(0x7fff));
        let sign = self.shl(self.and(half, self.splat_i32(0x8000)), 16);
        let moved = self.shl(magnitude, 13);
        let scaled = self.mul(
            self.from_bits(moved),
            self.splat(f32::from_bits(0x7780_0000)),
        );
        let special = self.or(moved, self.splat_i32(0x7f80_0000));
        let is_special = self.gt_i32(magnitude, self.splat_i32(0x7bff));
        let value = self.select_i32(is_special, special, self.bits(scaled));
        self.from_bits(self.or(value, sign))
    }

    /// Writes the lanes, each clamped to `0..=255`, to the first [`Self::LANES`] bytes.
    ///
    /// # Panics
    /// If `target` is shorter than a vector.
    #[inline(always)]
    fn store_u8(self, x: Self::I32, target: &mut [u8]) {
        let mut lanes = [0i32; 16];
        self.store_i32(x, &mut lanes);
        for (byte, lane) in target[..Self::LANES].iter_mut().zip(lanes) {
            *byte = lane.clamp(0, 255) as u8;
        }
    }

    /// Writes the lanes, each clamped to `-128..=127`, to the first [`Self::LANES`] bytes.
    ///
    /// # Panics
    /// If `target` is shorter than a vector.
    #[inline(always)]
    fn store_i8(self, x: Self::I32, target: &mut [i8]) {
        let mut lanes = [0i32; 16];
        self.store_i32(x, &mut lanes);
        for (byte, lane) in target[..Self::LANES].iter_mut().zip(lanes) {
            *byte = lane.clamp(-128, 127) as i8;
        }
    }

    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b`, wrapping.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The low 32 bits of `a * b`.
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The smaller one.
    fn min_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The larger one.
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Bitwise and.
    fn and(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Bitwise or.
    fn or(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Shifts left; `count` in `0..32`, the same for all lanes (a constant becomes an immediate).
    fn shl(self, a: Self::I32, count: u32) -> Self::I32;
    /// Shifts right and fills with zeros; `count` in `0..32`.
    fn shr_logical(self, a: Self::I32, count: u32) -> Self::I32;
    /// Shifts right and fills with the sign; `count` in `0..32`.
    fn shr_arithmetic(self, a: Self::I32, count: u32) -> Self::I32;
    /// `a == b`.
    fn eq_i32(self, a: Self::I32, b: Self::I32) -> Self::Mask;
    /// `a > b`, signed.
    fn gt_i32(self, a: Self::I32, b: Self::I32) -> Self::Mask;

    /// `a` where the mask is true, otherwise `b`.
    #[inline(always)]
    fn select_i32(self, mask: Self::Mask, a: Self::I32, b: Self::I32) -> Self::I32 {
        self.bits(self.select(mask, self.from_bits(a), self.from_bits(b)))
    }

    /// The nearest `f32`, ties to even.
    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// Towards zero. Unspecified for NaN and outside the range of `i32`: clamp before.
    fn trunc_to_i32(self, a: Self::F32) -> Self::I32;
    /// To the nearest integer, ties to even. Unspecified for NaN and outside the range of `i32`:
    /// clamp before.
    fn round_to_i32(self, a: Self::F32) -> Self::I32;
    /// The bit patterns.
    fn bits(self, a: Self::F32) -> Self::I32;
    /// The values with these bit patterns.
    fn from_bits(self, a: Self::I32) -> Self::F32;

    /// Runs a kernel as a function of its own, compiled for this instruction set.
    ///
    /// Everything else here is inlined into one function per [`dispatch`]; a loop nest whose
    /// registers should be allocated apart from its surroundings goes through this call.
    fn outline<K: Kernel>(self, kernel: K) -> K::Output;

    /// Runs a computation with the register tile of a matrix product that fits this instruction
    /// set: [`Self::TILE_ROWS`] times [`Self::TILE_VECTORS`] accumulators.
    fn with_tile<T: TileKernel>(self, kernel: T) -> T::Output;

    /// The sum of the lanes in an order that depends on [`Self::LANES`]: only where
    /// [`Numerics::Fast`] is certain. Elsewhere use [`lanes16`].
    #[inline(always)]
    fn reduce_add(self, a: Self::F32) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(a, &mut lanes);
        let mut width = Self::LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The largest lane; NaN lanes are skipped (all NaN: negative infinity).
    #[inline(always)]
    fn reduce_max(self, a: Self::F32) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 16];
        self.store(a, &mut lanes);
        lanes
            .into_iter()
            .fold(f32::NEG_INFINITY, |best, x| if x > best { x } else { best })
    }

    /// The smallest lane; NaN lanes are skipped (all NaN: infinity).
    #[inline(always)]
    fn reduce_min(self, a: Self::F32) -> f32 {
        let mut lanes = [f32::INFINITY; 16];
        self.store(a, &mut lanes);
        lanes
            .into_iter()
            .fold(f32::INFINITY, |best, x| if x < best { x } else { best })
    }
}

/// A computation written once for all instruction sets.
///
/// Mark `run`, and every function it calls with vectors, `#[inline(always)]`.
pub trait Kernel {
    /// What the computation returns.
    type Output;

    /// Computes with the given instruction set.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// A computation over register tiles of `ROWS` × `VECTORS` accumulators.
///
/// The shape is chosen by the instruction set, see [`Isa::with_tile`]: it is large enough to hide
/// the latency of multiply-add and leaves registers for the operands.
pub trait TileKernel {
    /// What the computation returns.
    type Output;

    /// Computes with the given instruction set and tile.
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) -> Self::Output;
}

/// Runs a kernel with the instructions of `level`.
///
/// Under [`Numerics::Reproducible`] the kernel sees [`Strict`]. A level this machine lacks runs as
/// scalar code (as does, on WebAssembly, every level but the one that was compiled in).
#[inline]
pub fn dispatch<K: Kernel>(level: Level, numerics: Numerics, kernel: K) -> K::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            if let Some(isa) = avx512::Avx512::new() {
                // SAFETY: the value proves that the CPU has the features.
                return unsafe { enter_avx512(isa, numerics, kernel) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            if let Some(isa) = avx2::Avx2::new() {
                // SAFETY: the value proves that the CPU has the features.
                return unsafe { enter_avx2(isa, numerics, kernel) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            if let Some(isa) = neon::Neon::new() {
                return match numerics {
                    Numerics::Fast => kernel.run(isa),
                    Numerics::Reproducible => kernel.run(Strict(isa)),
                };
            }
        }
        _ => {}
    }
    run_portable(numerics, kernel)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn enter_avx512<K: Kernel>(isa: avx512::Avx512, numerics: Numerics, kernel: K) -> K::Output {
    match numerics {
        Numerics::Fast => kernel.run(isa),
        Numerics::Reproducible => kernel.run(Strict(isa)),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn enter_avx2<K: Kernel>(isa: avx2::Avx2, numerics: Numerics, kernel: K) -> K::Output {
    match numerics {
        Numerics::Fast => kernel.run(isa),
        Numerics::Reproducible => kernel.run(Strict(isa)),
    }
}

/// What the target always has: scalar code, never fused, so both numerics are one kernel.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
fn run_portable<K: Kernel>(_numerics: Numerics, kernel: K) -> K::Output {
    kernel.run(scalar::Scalar)
}

/// What the target always has: the vectors the module was compiled with. Without relaxed SIMD
/// nothing is fused, so both numerics are one kernel.
#[cfg(all(
    target_arch = "wasm32",
    target_feature = "simd128",
    not(target_feature = "relaxed-simd")
))]
fn run_portable<K: Kernel>(_numerics: Numerics, kernel: K) -> K::Output {
    kernel.run(simd128::Simd128)
}

/// What the target always has: the vectors the module was compiled with.
#[cfg(all(
    target_arch = "wasm32",
    target_feature = "simd128",
    target_feature = "relaxed-simd"
))]
fn run_portable<K: Kernel>(numerics: Numerics, kernel: K) -> K::Output {
    match numerics {
        Numerics::Fast => kernel.run(simd128::Simd128),
        Numerics::Reproducible => kernel.run(Strict(simd128::Simd128)),
    }
}
