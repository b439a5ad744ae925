//! Functions of two elements, with broadcasting.
//!
//! A function is a plain `fn` over three blocks; [`zip`] lays out the operands. So there is one
//! small loop per function and type, whatever the shapes.

use std::cmp::PartialOrd;

use bytemuck::Pod;
use half::{bf16, f16};

use super::{BLOCK, Expansion, for_each_piece};
use crate::isa::{Isa, Kernel};
use crate::kernels::env::Env;
use crate::kernels::half_precision::Real;
use crate::kernels::scratch;
use crate::tensor::Bool;

/// `y[i] = f(a[i], b[i])` for slices of one length.
pub type BinaryFunction<T, U> = fn(&Env, &[T], &[T], &mut [U]);

/// Where an operand of [`zip`] is.
#[derive(Debug, Clone)]
pub enum Operand<'a, T> {
    /// In memory of its own, to be spread over the output.
    Elements(&'a [T], Expansion),
    /// In the output, whose elements it has one by one; the output overwrites it.
    InOutput,
}

impl<'a, T: Copy> Operand<'a, T> {
    fn expansion(&self) -> Option<&Expansion> {
        match self {
            Operand::Elements(_, expansion) => Some(expansion),
            Operand::InOutput => None,
        }
    }

    /// Whether blocks of the operand must be laid out before use.
    fn needs_layout(&self) -> bool {
        self.expansion()
            .is_none_or(|expansion| !expansion.is_identity())
    }

    /// The block at `start`, as long as `y`, which still holds the output's old content.
    /// `laid_out` has the room, and keeps its content from block to block.
    #[inline]
    fn block<'b, U>(&self, start: usize, is_first: bool, y: &[U], laid_out: &'b mut [T]) -> &'b [T]
    where
        'a: 'b,
        T: Pod,
        U: Pod,
    {
        match self {
            Operand::Elements(elements, expansion) => {
                if expansion.is_identity() {
                    return &elements[start..start + y.len()];
                }
                let target = &mut laid_out[..y.len()];
                if is_first || !expansion.is_constant() {
                    expansion.copy_range(elements, start..start + y.len(), target);
                }
                target
            }
            Operand::InOutput => {
                let target = &mut laid_out[..y.len()];
                target.copy_from_slice(bytemuck::cast_slice(y));
                target
            }
        }
    }
}

/// `y = f(a, b)` over all elements of `y`.
///
/// # Panics
/// When an operand has fewer elements than its expansion reads, or one lies in an output of
/// another size of elements.
pub fn zip<T, U>(
    env: &Env,
    f: BinaryFunction<T, U>,
    a: &Operand<'_, T>,
    b: &Operand<'_, T>,
    y: &mut [U],
) where
    T: Pod + Send + Sync,
    U: Pod + Send + Sync,
{
    for_each_piece(env, y, 2, |piece_start, y| {
        let room = |operand: &Operand<'_, T>| {
            if operand.needs_layout() {
                BLOCK.min(y.len())
            } else {
                0
            }
        };
        let (a_room, b_room) = (room(a), room(b));
        scratch::with::<T, _>(a_room + b_room, |laid_out| {
            let (a_laid_out, b_laid_out) = laid_out.split_at_mut(a_room);
            for (i, y) in y.chunks_mut(BLOCK).enumerate() {
                let start = piece_start + i * BLOCK;
                let a = a.block(start, i == 0, y, a_laid_out);
                let b = b.block(start, i == 0, y, b_laid_out);
                f(env, a, b, y);
            }
        });
    });
}

struct Zip<'a, T, U, F> {
    a: &'a [T],
    b: &'a [T],
    y: &'a mut [U],
    f: F,
}

impl<T: Copy, U, F: Fn(T, T) -> U> Zip<'_, T, U, F> {
    /// A loop the compiler turns into vector code of the instruction set it is compiled for; as
    /// each element is one exact operation, the bits are the same on all of them.
    #[inline(always)]
    fn each(self) {
        let n = self.y.len();
        let (a, b) = (&self.a[..n], &self.b[..n]);
        for i in 0..n {
            self.y[i] = (self.f)(a[i], b[i]);
        }
    }
}

impl<T: Copy, U, F: Fn(T, T) -> U> Kernel for Zip<'_, T, U, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        self.each();
    }
}

/// Arithmetic functions of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `a + b`, integers wrapping.
    Add,
    /// `a - b`, integers wrapping.
    Sub,
    /// `a · b`, integers wrapping.
    Mul,
    /// `a / b`, integers towards zero; an integer divided by zero gives zero.
    Div,
    /// The smaller one; NaN if one of them is.
    Min,
    /// The larger one; NaN if one of them is.
    Max,
    /// Remainder with the sign of `b`; zero for an integer modulo zero.
    Mod,
    /// Remainder with the sign of `a`; zero for an integer modulo zero.
    Fmod,
    /// `a^b`; integers wrap, and a negative power of an integer is truncated.
    Pow,
}

macro_rules! integer_function {
    ($function:expr; $t:ty) => {
        match $function {
            Arithmetic::Add => |_, a, b, y| {
                Zip {
                    a,
                    b,
                    y,
                    f: <$t>::wrapping_add,
                }
                .each()
            },
            Arithmetic::Sub => |_, a, b, y| {
                Zip {
                    a,
                    b,
                    y,
                    f: <$t>::wrapping_sub,
                }
                .each()
            },
            Arithmetic::Mul => |_, a, b, y| {
                Zip {
                    a,
                    b,
                    y,
                    f: <$t>::wrapping_mul,
                }
                .each()
            },
            Arithmetic::Div => |_, a, b, y| {
                let f = |a: $t, b: $t| if b == 0 { 0 } else { a.wrapping_div(b) };
                Zip { a, b, y, f }.each();
            },
            Arithmetic::Min => |_, a, b, y| {
                Zip {
                    a,
                    b,
                    y,
                    f: Ord::min,
                }
                .each()
            },
            Arithmetic::Max => |_, a, b, y| {
                Zip {
                    a,
                    b,
                    y,
                    f: Ord::max,
                }
                .each()
            },
            Arithmetic::Mod => |_, a, b, y| {
                #[allow(unused_comparisons, reason = "the macro serves unsigned types, too")]
                let f = |a: $t, b: $t| {
                    let r = if b == 0 { 0 } else { a.wrapping_rem(b) };
                    if r != 0 && (r < 0) != (b < 0) {
                        r + b
                    } else {
                        r
                    }
                };
                Zip { a, b, y, f }.each();
            },
            Arithmetic::Fmod => |_, a, b, y| {
                let f = |a: $t, b: $t| if b == 0 { 0 } else { a.wrapping_rem(b) };
                Zip { a, b, y, f }.each();
            },
            Arithmetic::Pow => |_, a, b, y| {
                Zip {
                    a,
                    b,
                    y,
                    f: <$t as Number>::power,
                }
                .each()
            },
        }
    };
}

/// Numbers that [`arithmetic`] knows.
pub trait Number: Pod + Send + Sync {
    /// The loop of a function.
    fn function(function: Arithmetic) -> BinaryFunction<Self, Self>;
    /// `self^exponent`.
    fn power(self, exponent: Self) -> Self;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn function(function: Arithmetic) -> BinaryFunction<$t, $t> {
                integer_function!(function; $t)
            }

            fn power(self, exponent: $t) -> $t {
                match u64::try_from(exponent) {
                    // By squaring, as the exponent may not fit the parameter of `wrapping_pow`.
                    Ok(mut exponent) => {
                        let (mut power, mut square) = (1 as $t, self);
                        while exponent > 0 {
                            if exponent & 1 == 1 {
                                power = power.wrapping_mul(square);
                            }
                            square = square.wrapping_mul(square);
                            exponent >>= 1;
                        }
                        power
                    }
                    // 1/x, 1/x² … truncated: nothing is left but for 1 and -1.
                    Err(_) if self == 1 => 1,
                    Err(_) if self.wrapping_add(1) == 0 => {
                        if exponent & 1 == 1 { self } else { 1 }
                    }
                    Err(_) => 0,
                }
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

/// The smaller float, NaN if one is.
#[inline(always)]
fn minimum<T: PartialOrd + Copy>(a: T, b: T) -> T {
    #[expect(clippy::eq_op, reason = "only a NaN differs from itself")]
    let a_is_nan = a != a;
    if a < b || a_is_nan { a } else { b }
}

/// The larger float, NaN if one is.
#[inline(always)]
fn maximum<T: PartialOrd + Copy>(a: T, b: T) -> T {
    #[expect(clippy::eq_op, reason = "only a NaN differs from itself")]
    let a_is_nan = a != a;
    if a > b || a_is_nan { a } else { b }
}

macro_rules! float_function {
    ($function:expr; $t:ty, |$env:ident, $a:ident, $b:ident, $y:ident, $f:ident| $run:expr) => {
        match $function {
            Arithmetic::Add => |$env, $a, $b, $y| {
                let $f = |a: $t, b: $t| a + b;
                $run
            },
            Arithmetic::Sub => |$env, $a, $b, $y| {
                let $f = |a: $t, b: $t| a - b;
                $run
            },
            Arithmetic::Mul => |$env, $a, $b, $y| {
                let $f = |a: $t, b: $t| a * b;
                $run
            },
            Arithmetic::Div => |$env, $a, $b, $y| {
                let $f = |a: $t, b: $t| a / b;
                $run
            },
            Arithmetic::Min => |$env, $a, $b, $y| {
                let $f = minimum::<$t>;
                $run
            },
            Arithmetic::Max => |$env, $a, $b, $y| {
                let $f = maximum::<$t>;
                $run
            },
            Arithmetic::Mod => |$env, $a, $b, $y| {
                let $f = |a: $t, b: $t| {
                    let r = a % b;
                    if r != 0.0 && (r < 0.0) != (b < 0.0) {
                        r + b
                    } else {
                        r
                    }
                };
                $run
            },
            Arithmetic::Fmod => |$env, $a, $b, $y| {
                let $f = |a: $t, b: $t| a % b;
                $run
            },
            Arithmetic::Pow => |$env, $a, $b, $y| {
                let $f = <$t as Number>::power;
                $run
            },
        }
    };
}

impl Number for f32 {
    fn function(function: Arithmetic) -> BinaryFunction<f32, f32> {
        float_function!(function; f32, |env, a, b, y, f| env.dispatch(Zip { a, b, y, f }))
    }
    fn power(self, exponent: f32) -> f32 {
        libm::powf(self, exponent)
    }
}

impl Number for f64 {
    fn function(function: Arithmetic) -> BinaryFunction<f64, f64> {
        float_function!(function; f64, |_env, a, b, y, f| Zip { a, b, y, f }.each())
    }
    fn power(self, exponent: f64) -> f64 {
        libm::pow(self, exponent)
    }
}

macro_rules! half_numbers {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn function(function: Arithmetic) -> BinaryFunction<$t, $t> {
                float_function!(function; f32, |env, a, b, y, f| widened(a, b, y, |a, b, y| {
                    env.dispatch(Zip { a, b, y, f });
                }))
            }
            fn power(self, exponent: $t) -> $t {
                <$t>::from_f32(self.to_f32().power(exponent.to_f32()))
            }
        }
    )*};
}

half_numbers!(f16, bf16);

/// Computes on blocks of 16-bit floats in f32.
fn widened<T: Real>(a: &[T], b: &[T], y: &mut [T], f: impl Fn(&[f32], &[f32], &mut [f32])) {
    let n = y.len();
    scratch::with::<f32, _>(3 * n, |wide| {
        let (wide_a, rest) = wide.split_at_mut(n);
        let (wide_b, wide_y) = rest.split_at_mut(n);
        T::widen(a, wide_a);
        T::widen(b, wide_b);
        f(wide_a, wide_b, wide_y);
        T::narrow(wide_y, y);
    });
}

/// The loop of an arithmetic function.
pub fn arithmetic<T: Number>(function: Arithmetic) -> BinaryFunction<T, T> {
    T::function(function)
}

/// Comparisons of two numbers. All are false where an operand is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `a == b`.
    Equal,
    /// `a > b`.
    Greater,
    /// `a >= b`.
    GreaterOrEqual,
    /// `a < b`.
    Less,
    /// `a <= b`.
    LessOrEqual,
}

/// The loop of a comparison.
pub fn compare<T: Pod + PartialOrd>(comparison: Comparison) -> BinaryFunction<T, Bool> {
    match comparison {
        Comparison::Equal => |_, a, b, y| {
            Zip {
                a,
                b,
                y,
                f: |a, b| Bool::from(a == b),
            }
            .each()
        },
        Comparison::Greater => |_, a, b, y| {
            Zip {
                a,
                b,
                y,
                f: |a, b| Bool::from(a > b),
            }
            .each()
        },
        Comparison::GreaterOrEqual => |_, a, b, y| {
            Zip {
                a,
                b,
                y,
                f: |a, b| Bool::from(a >= b),
            }
            .each()
        },
        Comparison::Less => |_, a, b, y| {
            Zip {
                a,
                b,
                y,
                f: |a, b| Bool::from(a < b),
            }
            .each()
        },
        Comparison::LessOrEqual => |_, a, b, y| {
            Zip {
                a,
                b,
                y,
                f: |a, b| Bool::from(a <= b),
            }
            .each()
        },
    }
}

/// Functions of two truth values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logic {
    /// Both.
    And,
    /// One of them.
    Or,
    /// Exactly one of them.
    Xor,
    /// Both or none.
    Equal,
}

/// The loop of a function of truth values.
pub fn logic(function: Logic) -> BinaryFunction<Bool, Bool> {
    fn each(a: &[Bool], b: &[Bool], y: &mut [Bool], f: impl Fn(bool, bool) -> bool) {
        let f = |a: Bool, b: Bool| Bool::from(f(a.get(), b.get()));
        Zip { a, b, y, f }.each();
    }
    match function {
        Logic::And => |_, a, b, y| each(a, b, y, |a, b| a & b),
        Logic::Or => |_, a, b, y| each(a, b, y, |a, b| a | b),
        Logic::Xor => |_, a, b, y| each(a, b, y, |a, b| a ^ b),
        Logic::Equal => |_, a, b, y| each(a, b, y, |a, b| a == b),
    }
}

/// Functions of two integers' bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// `a & b`.
    And,
    /// `a | b`.
    Or,
    /// `a ^ b`.
    Xor,
    /// `a << b`; zero where `b` is as large as the width.
    ShiftLeft,
    /// `a >> b`, filled with the sign; nothing but the sign where `b` is as large as the width.
    ShiftRight,
}

/// Integers that [`bits`] knows.
pub trait BitPattern: Pod + Send + Sync {
    /// The loop of a function.
    fn function(function: Bits) -> BinaryFunction<Self, Self>;
}

macro_rules! bit_patterns {
    ($($t:ty),*) => {$(
        impl BitPattern for $t {
            fn function(function: Bits) -> BinaryFunction<$t, $t> {
                fn left(a: $t, count: $t) -> $t {
                    let count = u32::try_from(count).ok();
                    count.and_then(|count| a.checked_shl(count)).unwrap_or(0)
                }
                fn right(a: $t, count: $t) -> $t {
                    let count = u32::try_from(count).ok();
                    // In 128 bits all that is left of the highest bit is the sign.
                    let sign = (a as i128 >> 127) as $t;
                    count.and_then(|count| a.checked_shr(count)).unwrap_or(sign)
                }
                match function {
                    Bits::And => |_, a, b, y| Zip { a, b, y, f: |a, b| a & b }.each(),
                    Bits::Or => |_, a, b, y| Zip { a, b, y, f: |a, b| a | b }.each(),
                    Bits::Xor => |_, a, b, y| Zip { a, b, y, f: |a, b| a ^ b }.each(),
                    Bits::ShiftLeft => |_, a, b, y| Zip { a, b, y, f: left }.each(),
                    Bits::ShiftRight => |_, a, b, y| Zip { a, b, y, f: right }.each(),
                }
            }
        }
    )*};
}

bit_patterns!(i8, i16, i32, i64, u8, u16, u32, u64);

/// The loop of a function of bits.
pub fn bits<T: BitPattern>(function: Bits) -> BinaryFunction<T, T> {
    T::function(function)
}
