//! exp and the functions built from it.
//!
//! ```text
//! n = round(x / ln 2)      r = x - n ln 2, |r| <= ln 2 / 2      e^x = 2^n e^r
//! ```
//! `ln 2` is split in a part of 15 bits, whose product with `n` is exact, and the rest.
//! `e^r = 1 + r + r² Q(r)`, and `e^r - 1 = r + r² Q(r)` keeps its precision near zero.

use super::{log_1p_unit, polynomial, with_sign_of};
use crate::isa::Isa;

const LN_2_HIGH: f32 = f32::from_bits(0x3f31_7200);
const LN_2_LOW: f32 = f32::from_bits(0x35bf_be8e);
/// Adding and subtracting `1.5 · 2^23` rounds to the nearest integer, which then stands in the low
/// bits of the sum.
const ROUND: f32 = 12_582_912.0;
/// `(e^r - 1 - r) / r²`, relative error of `e^r` below 2^-28.
const Q: [f32; 5] = [
    f32::from_bits(0x3eff_fffe),
    f32::from_bits(0x3e2a_aa45),
    f32::from_bits(0x3d2a_ac8b),
    f32::from_bits(0x3c09_1fe3),
    f32::from_bits(0x3ab5_0d37),
];

/// `(n, e^r - 1)` with `n` in the low bits of an integer vector whose high bits are to be shifted
/// out, for `x + correction` with a small correction.
#[inline(always)]
fn reduce<I: Isa>(isa: I, x: I::F32, correction: I::F32) -> (I::I32, I::F32) {
    let shifted = isa.mul_add(x, isa.splat(std::f32::consts::LOG2_E), isa.splat(ROUND));
    let n = isa.sub(shifted, isa.splat(ROUND));
    let r = isa.neg_mul_add(n, isa.splat(LN_2_HIGH), x);
    let r = isa.neg_mul_add(n, isa.splat(LN_2_LOW), r);
    let r = isa.add(r, correction);
    let square = isa.mul(r, r);
    let n = isa.sub_i32(isa.bits(shifted), isa.splat_i32(ROUND.to_bits() as i32));
    (n, isa.mul_add(square, polynomial(isa, r, Q), r))
}

/// `2^n` for `-126 <= n <= 127`.
#[inline(always)]
fn power_of_two<I: Isa>(isa: I, n: I::I32) -> I::F32 {
    isa.from_bits(isa.shl(isa.add_i32(n, isa.splat_i32(127)), 23))
}

/// `x` limited to a range; NaN stays.
#[inline(always)]
fn limited<I: Isa>(isa: I, x: I::F32, low: f32, high: f32) -> I::F32 {
    isa.min(isa.splat(high), isa.max(isa.splat(low), x))
}

/// `e^x`, subnormal results included. 1.0 ULP.
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    exp_sum(isa, x, isa.zero())
}

/// `e^(x + correction)`, the correction being far smaller than 1.
#[inline(always)]
pub(super) fn exp_sum<I: Isa>(isa: I, x: I::F32, correction: I::F32) -> I::F32 {
    let (n, fraction) = reduce(isa, limited(isa, x, -105.0, 89.0), correction);
    // 2^n alone may be out of range where the result is not: multiply in two steps.
    let half = isa.shr_arithmetic(n, 1);
    let rest = isa.sub_i32(n, half);
    let y = isa.add(fraction, isa.splat(1.0));
    isa.mul(isa.mul(y, power_of_two(isa, half)), power_of_two(isa, rest))
}

/// `e^x` for `x <= 0`, zero where the result would be subnormal. 1.0 ULP. Quicker than [`exp`].
#[inline(always)]
pub fn exp_nonpositive<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let smallest = isa.splat(-87.33654);
    let (n, fraction) = reduce(isa, isa.max(smallest, x), isa.zero());
    let scale = power_of_two(isa, n);
    let y = isa.mul_add(fraction, scale, scale);
    isa.select(isa.lt(x, smallest), isa.zero(), y)
}

/// `e^x - 1`, accurate near zero. 1.5 ULP.
#[inline(always)]
pub fn exp_m1<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (n, fraction) = reduce(isa, limited(isa, x, -20.0, 89.0), isa.zero());
    // 2^n (fraction + 1) - 1, with half of 2^n, which is finite for n = 128.
    let half = power_of_two(isa, isa.sub_i32(n, isa.splat_i32(1)));
    let y = isa.mul_add(fraction, half, isa.sub(half, isa.splat(0.5)));
    let y = isa.add(y, y);
    // Keeps the sign of zero.
    isa.select(isa.eq(x, isa.zero()), x, y)
}

/// Hyperbolic tangent. 2.5 ULP.
///
/// `tanh |x| = -t / (2 + t)` with `t = e^(-2|x|) - 1`.
#[inline(always)]
pub fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let t = exp_m1(isa, isa.mul(isa.abs(x), isa.splat(-2.0)));
    let y = isa.div(t, isa.add(t, isa.splat(2.0)));
    with_sign_of(isa, y, x)
}

/// `1 / (1 + e^-x)`. 2.5 ULP, subnormal results included.
#[inline(always)]
pub fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // With e = e^-|x| <= 1 nothing overflows: 1 / (1 + e) or e / (1 + e).
    let e = exp(isa, isa.neg(isa.abs(x)));
    let one = isa.splat(1.0);
    let numerator = isa.select(isa.lt(x, isa.zero()), e, one);
    isa.div(numerator, isa.add(one, e))
}

/// `x / (1 + e^-x)`. 3.0 ULP.
#[inline(always)]
pub fn silu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.mul(x, sigmoid(isa, x))
}

/// `x / (1 + e^(-alpha x))`.
#[inline(always)]
pub fn swish<I: Isa>(isa: I, x: I::F32, alpha: f32) -> I::F32 {
    isa.mul(x, sigmoid(isa, isa.mul(x, isa.splat(alpha))))
}

/// GELU by its tanh approximation: `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
///
/// As `(1 + tanh z) / 2 = 1 / (1 + e^-2z)`, nothing cancels.
#[inline(always)]
pub fn gelu_tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769_2;
    let square = isa.mul(x, x);
    let inner = isa.mul_add(square, isa.splat(0.044_715), isa.splat(1.0));
    let z = isa.mul(isa.mul(x, isa.splat(TWICE_SQRT_2_OVER_PI)), inner);
    isa.mul(x, sigmoid(isa, z))
}

/// `alpha (e^x - 1)` for `x <= 0`, otherwise `x`; `x` divided by `scale` within the exponential.
#[inline(always)]
pub fn elu<I: Isa>(isa: I, x: I::F32, alpha: f32, scale: f32) -> I::F32 {
    let inner = if scale == 1.0 {
        x
    } else {
        isa.div(x, isa.splat(scale))
    };
    let negative = isa.mul(exp_m1(isa, inner), isa.splat(alpha));
    isa.select(isa.gt(x, isa.zero()), x, negative)
}

/// `x tanh(ln(1 + e^x))`. 4.0 ULP.
///
/// With `e = e^x` the tangent is `e (e + 2) / (e (e + 2) + 2)`.
#[inline(always)]
pub fn mish<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let two = isa.splat(2.0);
    // Beyond 20 the tangent is 1, and the square of e^20 is finite.
    let e = exp(isa, isa.min(isa.splat(20.0), x));
    let n = isa.mul(e, isa.add(e, two));
    isa.mul(x, isa.div(n, isa.add(n, two)))
}

/// `ln(1 + e^-|x|)`.
#[inline(always)]
pub(super) fn log_1p_exp_negative_abs<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    log_1p_unit(isa, exp(isa, isa.neg(isa.abs(x))))
}
