//! Sine and cosine.
//!
//! ```text
//! k = round(x · 2/π)    r = x - k π/2, |r| <= π/4    sin x = ±sin r or ±cos r by k mod 4
//! ```
//! `π/2` is split in two parts of 14 bits, whose products with `k` are exact for `|k| < 1024`, and
//! the rest. Vectors with a larger argument go through `libm`, element by element.

use super::polynomial;
use crate::isa::Isa;

const HALF_PI: [f32; 3] = [
    f32::from_bits(0x3fc9_0c00),
    f32::from_bits(0x38f6_a800),
    f32::from_bits(0x3088_5a31),
];
/// Largest argument of the vector path.
const LIMIT: f32 = 1024.0;
/// `(sin r - r) / r³` in powers of `r²`.
const S: [f32; 3] = [
    f32::from_bits(0xbe2a_aaa2),
    f32::from_bits(0x3c08_836a),
    f32::from_bits(0xb94c_9061),
];
/// `(cos r - 1 + r²/2) / r⁴` in powers of `r²`.
const C: [f32; 3] = [
    f32::from_bits(0x3d2a_aaa5),
    f32::from_bits(0xbab6_05e2),
    f32::from_bits(0x37cc_e5c0),
];

/// `sin(x + quarter_turns · π/2)` for `|x| <= LIMIT`.
#[inline(always)]
fn sine_shifted<I: Isa>(isa: I, x: I::F32, quarter_turns: i32) -> I::F32 {
    let k = isa.round_even(isa.mul(x, isa.splat(std::f32::consts::FRAC_2_PI)));
    let mut r = x;
    for part in HALF_PI {
        r = isa.neg_mul_add(k, isa.splat(part), r);
    }
    let quadrant = isa.add_i32(isa.round_to_i32(k), isa.splat_i32(quarter_turns));
    let square = isa.mul(r, r);
    let sine = isa.mul_add(isa.mul(square, r), polynomial(isa, square, S), r);
    let cosine = isa.neg_mul_add(square, isa.splat(0.5), isa.splat(1.0));
    let cosine = isa.mul_add(isa.mul(square, square), polynomial(isa, square, C), cosine);
    let odd = isa.eq_i32(isa.and(quadrant, isa.splat_i32(1)), isa.splat_i32(1));
    let y = isa.select(odd, cosine, sine);
    let sign = isa.shl(isa.and(quadrant, isa.splat_i32(2)), 30);
    isa.from_bits(isa.xor(isa.bits(y), sign))
}

/// Calls `f` for each lane.
#[inline(always)]
pub(super) fn per_lane<I: Isa>(isa: I, x: I::F32, f: impl Fn(f32) -> f32) -> I::F32 {
    let mut lanes = [0.0; 16];
    isa.store(x, &mut lanes);
    for lane in &mut lanes[..I::LANES] {
        *lane = f(*lane);
    }
    isa.load(&lanes)
}

/// Sine. 2.5 ULP; NaN at infinity.
#[inline(always)]
pub fn sin<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let small = isa.le(isa.abs(x), isa.splat(LIMIT));
    let y = sine_shifted(isa, isa.select(small, x, isa.zero()), 0);
    if isa.all(small) {
        // Keeps the sign of zero, which the reduction loses.
        return isa.select(isa.eq(x, isa.zero()), x, y);
    }
    isa.select(small, y, per_lane(isa, x, libm::sinf))
}

/// Cosine. 2.5 ULP; NaN at infinity.
#[inline(always)]
pub fn cos<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let small = isa.le(isa.abs(x), isa.splat(LIMIT));
    let y = sine_shifted(isa, isa.select(small, x, isa.zero()), 1);
    if isa.all(small) {
        return y;
    }
    isa.select(small, y, per_lane(isa, x, libm::cosf))
}
