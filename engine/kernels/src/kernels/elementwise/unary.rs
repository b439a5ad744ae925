//! Functions of one element.

use super::{BLOCK, for_each_piece};
use crate::isa::{Isa, Kernel};
use crate::kernels::env::Env;
use crate::kernels::half_precision::Real;
use crate::kernels::scratch;
use crate::kernels::vector_math::{self as vm, rare};

/// Declares the functions: the variant, its vector form in `isa` and `x`, its form for `f64`.
macro_rules! functions {
    ($isa:ident, $x:ident; $($(#[$doc:meta])* $variant:ident $({$($(#[$field_doc:meta])* $field:ident),*})?
        [$cost:literal] => $vector:expr, $double:expr;)*) => {
        /// A function of one real number. Parameters are those of the ONNX operators.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Unary {
            $($(#[$doc])* $variant $({$($(#[$field_doc])* $field: f32),*})?,)*
        }

        impl Unary {
            /// Applies the function to each element. To be called from within a
            /// [`Kernel`], for example on a finished tile.
            #[inline(always)]
            pub fn apply<I: Isa>(self, $isa: I, data: &mut [f32]) {
                match self {
                    $(Unary::$variant $({$($field),*})? => each($isa, data, #[inline(always)] |$x| $vector),)*
                }
            }

            /// The function in double precision.
            pub fn double(self, $x: f64) -> f64 {
                match self {
                    $(Unary::$variant $({$($field),*})? => {
                        $($(let $field = f64::from($field);)*)?
                        $double
                    })*
                }
            }

            /// How dear an element is; an addition is 1.
            fn cost(self) -> usize {
                match self { $(Unary::$variant $({$($field: _),*})? => $cost,)* }
            }
        }
    };
}

functions! { isa, x;
    /// `|x|`.
    Abs [1] => isa.abs(x), x.abs();
    /// `-x`.
    Neg [1] => isa.neg(x), -x;
    /// -1, 0 or 1; NaN stays.
    Sign [1] => {
        let negative = isa.select(isa.lt(x, isa.zero()), isa.splat(-1.0), x);
        isa.select(isa.gt(x, isa.zero()), isa.splat(1.0), negative)
    }, if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x };
    /// Towards negative infinity.
    Floor [1] => isa.floor(x), x.floor();
    /// Towards positive infinity.
    Ceil [1] => isa.ceil(x), x.ceil();
    /// To the nearest integer, ties to even.
    Round [1] => isa.round_even(x), x.round_ties_even();
    /// `√x`.
    Sqrt [2] => isa.sqrt(x), x.sqrt();
    /// `1 / x`.
    Reciprocal [2] => isa.div(isa.splat(1.0), x), 1.0 / x;
    /// `e^x`.
    Exp [4] => vm::exp(isa, x), libm::exp(x);
    /// Natural logarithm.
    Log [4] => vm::log(isa, x), libm::log(x);
    /// The error function.
    Erf [8] => vm::erf(isa, x), libm::erf(x);
    /// Sine.
    Sin [8] => vm::sin(isa, x), libm::sin(x);
    /// Cosine.
    Cos [8] => vm::cos(isa, x), libm::cos(x);
    /// Tangent.
    Tan [32] => rare::tan(isa, x), libm::tan(x);
    /// Inverse sine.
    Asin [32] => rare::asin(isa, x), libm::asin(x);
    /// Inverse cosine.
    Acos [32] => rare::acos(isa, x), libm::acos(x);
    /// Inverse tangent.
    Atan [32] => rare::atan(isa, x), libm::atan(x);
    /// Hyperbolic sine.
    Sinh [32] => rare::sinh(isa, x), libm::sinh(x);
    /// Hyperbolic cosine.
    Cosh [32] => rare::cosh(isa, x), libm::cosh(x);
    /// Hyperbolic tangent.
    Tanh [4] => vm::tanh(isa, x), libm::tanh(x);
    /// Inverse hyperbolic sine.
    Asinh [32] => rare::asinh(isa, x), libm::asinh(x);
    /// Inverse hyperbolic cosine.
    Acosh [32] => rare::acosh(isa, x), libm::acosh(x);
    /// Inverse hyperbolic tangent.
    Atanh [32] => rare::atanh(isa, x), libm::atanh(x);
    /// `max(x, 0)`.
    Relu [1] => isa.max(isa.zero(), x), if x < 0.0 { 0.0 } else { x };
    /// `x` limited to a range.
    Clip {
        /// The smallest result.
        min,
        /// The largest result; it wins where the two contradict each other.
        max
    } [1] => isa.min(isa.splat(max), isa.max(isa.splat(min), x)), {
        let x = if x < min { min } else { x };
        if x > max { max } else { x }
    };
    /// `alpha x` for `x < 0`, otherwise `x`.
    LeakyRelu {
        /// Slope to the left.
        alpha
    } [1] => isa.select(isa.lt(x, isa.zero()), isa.mul(x, isa.splat(alpha)), x),
        if x < 0.0 { alpha * x } else { x };
    /// `x` for `x > alpha`, otherwise 0.
    ThresholdedRelu {
        /// The threshold.
        alpha
    } [1] => isa.select(isa.gt(x, isa.splat(alpha)), x, isa.zero()),
        if x > alpha { x } else { 0.0 };
    /// `alpha (e^x - 1)` for `x < 0`, otherwise `x`.
    Elu {
        /// Negative limit of the result.
        alpha
    } [4] => vm::elu(isa, x, alpha, 1.0), if x > 0.0 { x } else { alpha * libm::expm1(x) };
    /// `alpha (e^(x/alpha) - 1)` for `x < 0`, otherwise `x`.
    Celu {
        /// Negative limit of the result, and the scale of the exponent.
        alpha
    } [4] => vm::elu(isa, x, alpha, alpha), if x > 0.0 { x } else { alpha * libm::expm1(x / alpha) };
    /// `gamma` times ELU.
    Selu {
        /// Negative limit before scaling.
        alpha,
        /// The scale.
        gamma
    } [4] => isa.mul(isa.splat(gamma), vm::elu(isa, x, alpha, 1.0)),
        gamma * if x > 0.0 { x } else { alpha * libm::expm1(x) };
    /// `1 / (1 + e^-x)`.
    Sigmoid [4] => vm::sigmoid(isa, x), 1.0 / (1.0 + libm::exp(-x));
    /// `alpha x + beta`, limited to 0..1.
    HardSigmoid {
        /// The slope.
        alpha,
        /// The value at 0.
        beta
    } [1] => hard_sigmoid(isa, x, alpha, beta), hard_sigmoid_double(x, alpha, beta);
    /// `x HardSigmoid(x)` with slope 1/6 and value 1/2 at 0.
    HardSwish [1] => isa.mul(x, hard_sigmoid(isa, x, 1.0 / 6.0, 0.5)),
        x * hard_sigmoid_double(x, 1.0 / 6.0, 0.5);
    /// `x Sigmoid(x)`.
    Silu [4] => vm::silu(isa, x), x / (1.0 + libm::exp(-x));
    /// `x Sigmoid(alpha x)`.
    Swish {
        /// Factor within the sigmoid.
        alpha
    } [4] => vm::swish(isa, x, alpha), x / (1.0 + libm::exp(-alpha * x));
    /// `ln(1 + e^x)`.
    Softplus [8] => vm::softplus(isa, x), x.max(0.0) + libm::log1p(libm::exp(-x.abs()));
    /// `x / (1 + |x|)`.
    Softsign [2] => isa.div(x, isa.add(isa.splat(1.0), isa.abs(x))), x / (1.0 + x.abs());
    /// `x tanh(ln(1 + e^x))`.
    Mish [4] => vm::mish(isa, x), x * libm::tanh(libm::log1p(libm::exp(x)));
    /// `x/2 (1 + erf(x/√2))`.
    Gelu [8] => vm::gelu(isa, x), 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh [4] => vm::gelu_tanh(isa, x), {
        let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        x / (1.0 + libm::exp(-2.0 * z))
    };
    /// `x + bias` below `-lambd`, `x - bias` above `lambd`, otherwise 0.
    Shrink {
        /// What is taken from the magnitude.
        bias,
        /// Half the width of the gap.
        lambd
    } [1] => {
        let right = isa.select(isa.gt(x, isa.splat(lambd)), isa.sub(x, isa.splat(bias)), isa.zero());
        isa.select(isa.lt(x, isa.splat(-lambd)), isa.add(x, isa.splat(bias)), right)
    }, if x < -lambd { x + bias } else if x > lambd { x - bias } else { 0.0 };
    /// `x^exponent`.
    Pow {
        /// The exponent.
        exponent
    } [8] => rare::pow(isa, x, exponent), libm::pow(x, exponent);
}

#[inline(always)]
fn hard_sigmoid<I: Isa>(isa: I, x: I::F32, alpha: f32, beta: f32) -> I::F32 {
    let y = isa.mul_add(x, isa.splat(alpha), isa.splat(beta));
    isa.min(isa.splat(1.0), isa.max(isa.zero(), y))
}

fn hard_sigmoid_double(x: f64, alpha: f64, beta: f64) -> f64 {
    (alpha * x + beta).clamp(0.0, 1.0)
}

#[inline(always)]
fn each<I: Isa>(isa: I, data: &mut [f32], f: impl Fn(I::F32) -> I::F32) {
    let mut vectors = data.chunks_exact_mut(I::LANES);
    for vector in &mut vectors {
        let y = f(isa.load(vector));
        isa.store(y, vector);
    }
    let tail = vectors.into_remainder();
    if !tail.is_empty() {
        let y = f(isa.load_partial(tail));
        isa.store_partial(y, tail);
    }
}

/// Applies a function in place, or to `x` block by block.
struct Map<'a> {
    function: Unary,
    x: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl Kernel for Map<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // One call of `apply`, in which all functions are compiled in.
        let block = if self.x.is_some() {
            BLOCK
        } else {
            self.y.len().max(1)
        };
        for (i, y) in self.y.chunks_mut(block).enumerate() {
            if let Some(x) = self.x {
                y.copy_from_slice(&x[i * BLOCK..][..y.len()]);
            }
            self.function.apply(isa, y);
        }
    }
}

/// `y[i] = function(x[i])`, computed in f32; without `x`, `y` holds the argument.
///
/// # Panics
/// When `x` and `y` differ in length.
pub fn map<T: Real>(env: &Env, function: Unary, x: Option<&[T]>, y: &mut [T]) {
    assert!(x.is_none_or(|x| x.len() == y.len()));
    for_each_piece(env, y, function.cost(), |start, y| {
        let x = x.map(|x| &x[start..start + y.len()]);
        if let Some(y) = T::as_f32_mut(y) {
            let x = x.and_then(T::as_f32);
            return env.dispatch(Map { function, x, y });
        }
        scratch::with::<f32, _>(BLOCK.min(y.len()), |wide| {
            for (i, y) in y.chunks_mut(BLOCK).enumerate() {
                let wide = &mut wide[..y.len()];
                T::widen(x.map_or(&*y, |x| &x[i * BLOCK..][..y.len()]), wide);
                env.dispatch(Map {
                    function,
                    x: None,
                    y: wide,
                });
                T::narrow(wide, y);
            }
        });
    });
}

/// `y[i] = function(x[i])` in double precision; without `x`, `y` holds the argument.
///
/// # Panics
/// When `x` and `y` differ in length.
pub fn map_doubles(env: &Env, function: Unary, x: Option<&[f64]>, y: &mut [f64]) {
    map_plain(env, x, y, |x| function.double(x));
}

/// `y[i] = f(x[i])` for functions on other types than floats; without `x`, `y` holds the argument.
///
/// # Panics
/// When `x` and `y` differ in length.
pub fn map_plain<T: Copy + Send + Sync>(
    env: &Env,
    x: Option<&[T]>,
    y: &mut [T],
    f: impl Fn(T) -> T + Sync,
) {
    assert!(x.is_none_or(|x| x.len() == y.len()));
    for_each_piece(env, y, 2, |start, y| match x {
        Some(x) => y.iter_mut().zip(&x[start..]).for_each(|(y, &x)| *y = f(x)),
        None => y.iter_mut().for_each(|y| *y = f(*y)),
    });
}
