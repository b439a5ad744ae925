//! Elementary functions of vectors: exp, log, tanh, erf, sin and what is built from them.
//!
//! Each function takes and returns one vector of an [`Isa`], so that it can stand in any kernel.
//! The polynomials are Lethe's own (minimax fits by iteratively reweighted least squares); they
//! are evaluated with `mul_add` and exact operations only, so that under
//! [`Strict`](crate::isa::Strict) every instruction set gives the same bits.
//!
//! Accuracy is stated per function in units in the last place of the exact result (ULP), as the
//! tests measure it, fused or not. NaN in gives NaN out; infinities, zeros with their signs and
//! subnormal arguments give what the formula gives in the limit.
//!
//! Functions that are seldom large ([`rare`]) run one element at a time through the crate `libm`,
//! which is the same code on every target.

use crate::isa::Isa;

mod error_function;
mod exponential;
mod logarithm;
pub mod rare;
#[cfg(test)]
mod tests;
mod trigonometric;

pub use error_function::{erf, gelu};
pub use exponential::{
    elu, exp, exp_m1, exp_nonpositive, gelu_tanh, mish, sigmoid, silu, swish, tanh,
};
pub use logarithm::{log, log_1p_unit, softplus};
pub use trigonometric::{cos, sin};

/// `c[0] + c[1]·x + c[2]·x² + …` by Horner's rule.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(isa: I, x: I::F32, coefficients: [f32; N]) -> I::F32 {
    let mut sum = isa.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        sum = isa.mul_add(sum, x, isa.splat(coefficients[i]));
    }
    sum
}

/// The magnitude of `x` with the sign of `sign`.
#[inline(always)]
fn with_sign_of<I: Isa>(isa: I, x: I::F32, sign: I::F32) -> I::F32 {
    let sign_bit = isa.and(isa.bits(sign), isa.splat_i32(i32::MIN));
    let magnitude = isa.and(isa.bits(x), isa.splat_i32(i32::MAX));
    isa.from_bits(isa.or(magnitude, sign_bit))
}
