//! Each function against `f64`, on every instruction set and in both numerics.

use super::*;
use crate::isa::{Kernel, Level, Numerics, dispatch};

/// A function by name, so that one kernel serves the whole table.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    ExpNonpositive,
    ExpM1,
    Tanh,
    Sigmoid,
    Silu,
    GeluTanh,
    Mish,
    Log,
    Log1pUnit,
    Softplus,
    Erf,
    Gelu,
    Sin,
    Cos,
}

struct Apply<'a>(Function, &'a mut [f32]);

impl Kernel for Apply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for block in self.1.chunks_mut(I::LANES) {
            let x = isa.load_partial(block);
            let y = match self.0 {
                Function::Exp => exp(isa, x),
                Function::ExpNonpositive => exp_nonpositive(isa, x),
                Function::ExpM1 => exp_m1(isa, x),
                Function::Tanh => tanh(isa, x),
                Function::Sigmoid => sigmoid(isa, x),
                Function::Silu => silu(isa, x),
                Function::GeluTanh => gelu_tanh(isa, x),
                Function::Mish => mish(isa, x),
                Function::Log => log(isa, x),
                Function::Log1pUnit => log_1p_unit(isa, x),
                Function::Softplus => softplus(isa, x),
                Function::Erf => erf(isa, x),
                Function::Gelu => gelu(isa, x),
                Function::Sin => sin(isa, x),
                Function::Cos => cos(isa, x),
            };
            isa.store_partial(y, block);
        }
    }
}

fn reference(function: Function, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    match function {
        Function::Exp => libm::exp(x),
        Function::ExpNonpositive => {
            let y = libm::exp(x);
            if y < f32::MIN_POSITIVE as f64 { 0.0 } else { y }
        }
        Function::ExpM1 => libm::expm1(x),
        Function::Tanh => libm::tanh(x),
        Function::Sigmoid => sigmoid(x),
        Function::Silu if x == f64::NEG_INFINITY => f64::NAN,
        Function::Silu => x * sigmoid(x),
        Function::GeluTanh => {
            let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x * sigmoid(2.0 * z)
        }
        Function::Mish => x * libm::tanh(libm::log1p(libm::exp(x))),
        Function::Log => libm::log(x),
        Function::Log1pUnit => libm::log1p(x),
        Function::Softplus => x.max(0.0) + libm::log1p(libm::exp(-x.abs())),
        Function::Erf => libm::erf(x),
        Function::Gelu => 0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2),
        Function::Sin => libm::sin(x),
        Function::Cos => libm::cos(x),
    }
}

/// Distance in units in the last place of the exact value; equal specials count as zero.
fn ulp_error(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() && want.is_nan() || got == rounded {
        return 0.0;
    }
    if !got.is_finite() || !rounded.is_finite() {
        return f64::INFINITY;
    }
    let exponent = libm::ilogb(want).max(-126) - 23;
    (got as f64 - want).abs() / libm::exp2(exponent as f64)
}

/// Numbers of every magnitude in `low..high`: evenly spaced ones, and all binades.
fn inputs(low: f32, high: f32) -> Vec<f32> {
    let mut inputs: Vec<f32> = (0..20_000)
        .map(|i| low + (high - low) * (i as f32 / 19_999.0))
        .collect();
    let step = 40_503;
    let magnitudes = (0..0x7f80_0000u32).step_by(step).map(f32::from_bits);
    inputs.extend(
        magnitudes
            .flat_map(|x| [x, -x])
            .filter(|x| (low..=high).contains(x)),
    );
    inputs
}

const SPECIAL: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-45,
    -1e-45,
    f32::MAX,
    f32::MIN,
    88.722_84,
];

/// Function, range, bound in ULP, and an absolute error that is good enough where the result is
/// that small.
const CASES: [(Function, f32, f32, f64, f64); 15] = [
    (Function::Exp, -110.0, 95.0, 1.1, 0.0),
    (Function::ExpNonpositive, -110.0, 0.0, 1.1, 1.2e-38),
    (Function::ExpM1, -30.0, 95.0, 1.6, 0.0),
    (Function::Tanh, -12.0, 12.0, 2.6, 0.0),
    (Function::Sigmoid, -110.0, 110.0, 2.6, 0.0),
    (Function::Silu, -110.0, 1e30, 3.1, 1e-36),
    (Function::GeluTanh, -9.0, 1e10, 4.0, 1e-7),
    (Function::Mish, -80.0, 1e30, 4.0, 1e-36),
    (Function::Log, 0.0, f32::MAX, 1.1, 0.0),
    (Function::Log1pUnit, 0.0, 1.0, 1.6, 0.0),
    (Function::Softplus, -110.0, 1e30, 2.1, 0.0),
    (Function::Erf, -6.0, 6.0, 1.1, 0.0),
    (Function::Gelu, -20.0, 1e30, 4.0, 5e-8),
    (Function::Sin, -1024.0, 1024.0, 2.5, 0.0),
    (Function::Cos, -1024.0, 1024.0, 2.5, 0.0),
];

#[test]
fn functions_are_as_accurate_as_stated() {
    for (function, low, high, bound, absolute) in CASES {
        let x = inputs(low, high);
        for level in Level::available() {
            for numerics in [Numerics::Fast, Numerics::Reproducible] {
                let mut y = x.clone();
                dispatch(level, numerics, Apply(function, &mut y));
                let mut worst = (0.0, 0.0, 0.0);
                for (&x, &y) in x.iter().zip(&y) {
                    let want = reference(function, x as f64);
                    let error = ulp_error(y, want);
                    if error > worst.0 && (y as f64 - want).abs() > absolute {
                        worst = (error, x, y);
                    }
                }
                let (error, x, y) = worst;
                println!("{function:?} {level} {numerics:?}: {error:.2} ULP at {x:e} ({y:e})");
                assert!(
                    error <= bound,
                    "{function:?} {level} {numerics:?}: {error} ULP at {x:e} ({y:e})"
                );
            }
        }
    }
}

#[test]
fn specials_follow_the_formula() {
    for (function, low, high, ..) in CASES {
        for level in Level::available() {
            let x: Vec<f32> = SPECIAL
                .into_iter()
                .filter(|x| match function {
                    Function::ExpNonpositive | Function::Log1pUnit => {
                        x.is_nan() || *x != 0.0 && (low..=high).contains(x)
                    }
                    // Infinity times zero in the formula, zero in the limit; see below.
                    Function::Gelu | Function::GeluTanh | Function::Mish => {
                        *x > f32::MIN || x.is_nan()
                    }
                    _ => true,
                })
                .collect();
            let mut y = x.clone();
            dispatch(level, Numerics::Fast, Apply(function, &mut y));
            for (&x, &y) in x.iter().zip(&y) {
                let want = reference(function, x as f64) as f32;
                let same = y == want && y.is_sign_negative() == want.is_sign_negative()
                    || y.is_nan() && want.is_nan()
                    || ulp_error(y, want as f64) <= 2.0 && (want != 0.0 || y.abs() <= 1e-45);
                assert!(same, "{function:?} {level} of {x:e}: {y:e}, not {want:e}");
            }
        }
    }
}

#[test]
fn reproducible_bits_are_equal_on_every_level() {
    for (function, low, high, ..) in CASES {
        let x = inputs(low.max(-2000.0), high.min(2000.0));
        let mut want = x.clone();
        dispatch(
            Level::Scalar,
            Numerics::Reproducible,
            Apply(function, &mut want),
        );
        for level in Level::available() {
            let mut y = x.clone();
            dispatch(level, Numerics::Reproducible, Apply(function, &mut y));
            for i in 0..x.len() {
                assert!(
                    y[i].to_bits() == want[i].to_bits(),
                    "{function:?} {level} of {:e}",
                    x[i]
                );
            }
        }
    }
}

#[test]
fn large_angles_are_reduced_exactly() {
    for x in [1e4f32, 1e10, 3e38, -123_456.79] {
        for level in Level::available() {
            for function in [Function::Sin, Function::Cos] {
                // The lanes beside the large one take the vector path all the same.
                let mut y = [x, 0.5, -0.0];
                dispatch(level, Numerics::Fast, Apply(function, &mut y));
                assert!(ulp_error(y[0], reference(function, x as f64)) <= 1.0);
                assert!(ulp_error(y[1], reference(function, 0.5)) <= 1.6);
            }
        }
    }
}
