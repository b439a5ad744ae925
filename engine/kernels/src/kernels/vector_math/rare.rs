//! Functions that models use on few elements: computed one at a time by `libm`.
//!
//! `libm` is the same Rust code on every target, so these, too, give the same bits everywhere.

use super::trigonometric::per_lane;
use crate::isa::Isa;

macro_rules! per_lane_functions {
    ($($(#[$doc:meta])* $name:ident = $function:path;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<I: Isa>(isa: I, x: I::F32) -> I::F32 {
            per_lane(isa, x, $function)
        }
    )*};
}

per_lane_functions! {
    /// Tangent.
    tan = libm::tanf;
    /// Inverse sine.
    asin = libm::asinf;
    /// Inverse cosine.
    acos = libm::acosf;
    /// Inverse tangent.
    atan = libm::atanf;
    /// Hyperbolic sine.
    sinh = libm::sinhf;
    /// Hyperbolic cosine.
    cosh = libm::coshf;
    /// Inverse hyperbolic sine.
    asinh = libm::asinhf;
    /// Inverse hyperbolic cosine.
    acosh = libm::acoshf;
    /// Inverse hyperbolic tangent.
    atanh = libm::atanhf;
}

/// `x^y`, with the exponents that models use most computed directly: -1, 0, 0.5,
/// 0.75, 1, 2, 3.
#[inline(always)]
pub fn pow<I: Isa>(isa: I, x: I::F32, y: f32) -> I::F32 {
    if y == 2.0 {
        isa.mul(x, x)
    } else if y == 3.0 {
        isa.mul(isa.mul(x, x), x)
    } else if y == 1.0 {
        x
    } else if y == 0.0 {
        isa.splat(1.0)
    } else if y == -1.0 {
        isa.div(isa.splat(1.0), x)
    } else if y == 0.5 {
        // The power of negative infinity is positive, and of negative zero as well.
        let root = isa.add(isa.sqrt(x), isa.zero());
        let infinity = isa.splat(f32::INFINITY);
        isa.select(isa.eq(x, isa.neg(infinity)), infinity, root)
    } else if y == 0.75 {
        let root = isa.sqrt(x);
        let infinity = isa.splat(f32::INFINITY);
        let power = isa.mul(root, isa.sqrt(root));
        isa.select(isa.eq(x, isa.neg(infinity)), infinity, power)
    } else {
        per_lane(isa, x, |x| libm::powf(x, y))
    }
}
