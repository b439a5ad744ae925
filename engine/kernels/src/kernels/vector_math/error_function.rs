//! The error function and GELU.
//!
//! ```text
//! |x| <= 1:  erf x = x + x P(x²)
//! |x| >  1:  erf x = ±(1 - erfc |x|)
//! erfc t = e^(-t²) w R(u),  w = 1 / (t + 3),  u = (t - 3) w
//! ```
//! `w R(u)` is `e^(t²) erfc t`, which falls like `1/t`; the substitution `u` maps `0..∞` to
//! `-1..1`, an idea of Shepherd and Laframboise (Math. Comp. 36, 1981).

use super::exponential::exp_sum;
use super::{polynomial, with_sign_of};
use crate::isa::Isa;

/// `erf x / x - 1` in powers of `x²`, for `|x| <= 1`.
const P: [f32; 7] = [
    f32::from_bits(0x3e03_75d4),
    f32::from_bits(0xbec0_939f),
    f32::from_bits(0x3de7_167c),
    f32::from_bits(0xbcdb_fc88),
    f32::from_bits(0x3baa_02e6),
    f32::from_bits(0xba51_fbd3),
    f32::from_bits(0x38a4_b5e3),
];
/// `(t + 3) e^(t²) erfc t` in powers of `u`, for `t <= 10.2`; relative error below 2^-28.
const R: [f32; 10] = [
    f32::from_bits(0x3f89_790f),
    f32::from_bits(0xbf62_2624),
    f32::from_bits(0x3f17_1934),
    f32::from_bits(0xbe9e_f567),
    f32::from_bits(0x3df4_cba8),
    f32::from_bits(0xbcdb_df32),
    f32::from_bits(0xbaa0_c02d),
    f32::from_bits(0x3b49_df57),
    f32::from_bits(0xb9fd_52f5),
    f32::from_bits(0xb9aa_9191),
];

/// `erfc t` for `t >= 0`.
#[inline(always)]
fn erfc_nonnegative<I: Isa>(isa: I, t: I::F32) -> I::F32 {
    let t = isa.min(isa.splat(10.2), t);
    let w = isa.div(isa.splat(1.0), isa.add(t, isa.splat(3.0)));
    let u = isa.mul(isa.sub(t, isa.splat(3.0)), w);
    // t² in two parts: the high 12 bits of t squared are exact, the rest is a small correction.
    let high = isa.from_bits(isa.and(isa.bits(t), isa.splat_i32(!0xfff)));
    let correction = isa.mul(isa.sub(t, high), isa.add(t, high));
    let gauss = exp_sum(isa, isa.neg(isa.mul(high, high)), isa.neg(correction));
    isa.mul(isa.mul(gauss, w), polynomial(isa, u, R))
}

/// The error function. 1.0 ULP.
#[inline(always)]
pub fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let t = isa.abs(x);
    let small = isa.mul_add(x, polynomial(isa, isa.mul(x, x), P), x);
    let large = isa.sub(isa.splat(1.0), erfc_nonnegative(isa, t));
    isa.select(
        isa.gt(t, isa.splat(1.0)),
        with_sign_of(isa, large, x),
        small,
    )
}

/// GELU, `x/2 (1 + erf(x/√2))`. 4 ULP where `x > -1`, relative error below 1e-5 to the left of it:
/// `max(x, 0) - |x|/2 erfc(|x|/√2)` does not cancel.
#[inline(always)]
pub fn gelu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let t = isa.mul(isa.abs(x), isa.splat(std::f32::consts::FRAC_1_SQRT_2));
    let half = isa.mul(isa.abs(x), isa.splat(0.5));
    let tail = isa.mul(half, erfc_nonnegative(isa, t));
    // Beyond 14.4 the tail is zero: infinity has no gap to its Gelu. The Gelu of its negative is that
    // times zero, hence NaN.
    let zero = isa.mul(isa.min(x, isa.zero()), isa.zero());
    let tail = isa.select(isa.gt(t, isa.splat(10.2)), zero, tail);
    isa.sub(isa.max(isa.zero(), x), tail)
}
