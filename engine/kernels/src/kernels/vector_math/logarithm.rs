//! log and soft plus.
//!
//! ```text
//! x = 2^e (1 + f), √½ <= 1 + f < √2      ln x = e ln 2 + f - f²/2 + f³ P(f)
//! ```

use super::exponential::log_1p_exp_negative_abs;
use super::polynomial;
use crate::isa::Isa;

/// `ln 2` in 10 bits, and the rest.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// `(ln(1 + f) - f + f²/2) / f³`, relative error of the logarithm below 2^-30.
const P: [f32; 9] = [
    f32::from_bits(0x3eaa_aaa4),
    f32::from_bits(0xbe80_0003),
    f32::from_bits(0x3e4c_d25b),
    f32::from_bits(0xbe2a_ae27),
    f32::from_bits(0x3e11_9bb4),
    f32::from_bits(0xbdfe_1104),
    f32::from_bits(0x3df3_7836),
    f32::from_bits(0xbdef_1e0a),
    f32::from_bits(0x3d8a_2bd1),
];

/// `e ln 2 + ln(1 + f)`.
#[inline(always)]
fn log_of_parts<I: Isa>(isa: I, e: I::F32, f: I::F32) -> I::F32 {
    let square = isa.mul(f, f);
    let mut y = isa.mul(isa.mul(square, f), polynomial(isa, f, P));
    y = isa.mul_add(e, isa.splat(LN_2_LOW), y);
    y = isa.neg_mul_add(square, isa.splat(0.5), y);
    isa.mul_add(e, isa.splat(LN_2_HIGH), isa.add(f, y))
}

/// Natural logarithm: negative infinity at zero, NaN below. 1.0 ULP.
#[inline(always)]
pub fn log<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Subnormal arguments are made normal first.
    let tiny = isa.lt(x, isa.splat(f32::MIN_POSITIVE));
    let normal = isa.select(tiny, isa.mul(x, isa.splat(8_388_608.0)), x);
    let bias = isa.select(tiny, isa.splat(-23.0), isa.zero());
    // Counting from √½ rounds the exponent so that 1 + f lies around 1.
    let sqrt_half = isa.splat_i32(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
    let offset = isa.sub_i32(isa.bits(normal), sqrt_half);
    let exponent = isa.shr_arithmetic(offset, 23);
    let significand = isa.sub_i32(isa.bits(normal), isa.shl(exponent, 23));
    let f = isa.sub(isa.from_bits(significand), isa.splat(1.0));
    let y = log_of_parts(isa, isa.add(isa.to_f32(exponent), bias), f);

    let infinity = isa.splat(f32::INFINITY);
    let y = isa.select(isa.lt(x, infinity), y, x);
    let y = isa.select(isa.lt(x, isa.zero()), isa.splat(f32::NAN), y);
    isa.select(isa.eq(x, isa.zero()), isa.neg(infinity), y)
}

/// `ln(1 + u)` for `0 <= u <= 1`, accurate near zero. 1.5 ULP.
#[inline(always)]
pub fn log_1p_unit<I: Isa>(isa: I, u: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    let large = isa.gt(u, isa.splat(std::f32::consts::SQRT_2 - 1.0));
    // Either 1 + f = 1 + u, or 2 (1 + f) = 1 + u.
    let f = isa.select(large, isa.mul(isa.sub(u, one), isa.splat(0.5)), u);
    log_of_parts(isa, isa.select(large, one, isa.zero()), f)
}

/// `ln(1 + e^x)`. 2.0 ULP.
#[inline(always)]
pub fn softplus<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let y = isa.add(isa.max(isa.zero(), x), log_1p_exp_negative_abs(isa, x));
    // The maximum has dropped or kept a NaN by the order of its operands; make it certain.
    isa.select(isa.ne(x, x), x, y)
}
