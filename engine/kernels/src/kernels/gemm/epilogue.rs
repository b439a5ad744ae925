//! What happens to a sum before it is stored: scale, bias, residual, activation, in this order.
//!
//! Done while the tile is still in registers or in the first-level cache, it saves whole passes
//! over the output.

use crate::isa::Isa;
use crate::kernels::vector_math;

/// A function of one element, applied last.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Activation {
    /// `x`
    #[default]
    None,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `min(max(x, min), max)`; NaN stays NaN.
    Clip {
        /// Lower bound.
        min: f32,
        /// Upper bound.
        max: f32,
    },
    /// `x` for `x >= 0`, otherwise `alpha * x`.
    LeakyRelu {
        /// Slope of the negative half.
        alpha: f32,
    },
    /// `min(max(alpha * x + beta, 0), 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// `x * min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
    /// The approximation of [`Activation::Gelu`] by a hyperbolic tangent.
    GeluTanh,
    /// `x` for `x >= 0`, otherwise `alpha * (exp(x) - 1)`.
    Elu {
        /// Scale of the negative half.
        alpha: f32,
    },
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `x * tanh(softplus(x))`.
    Mish,
}

impl Activation {
    /// Applies the function to a vector.
    #[inline(always)]
    pub fn apply<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        match self {
            Activation::None => x,
            Activation::Relu => isa.max(isa.zero(), x),
            Activation::Clip { min, max } => isa.min(isa.splat(max), isa.max(isa.splat(min), x)),
            Activation::LeakyRelu { alpha } => {
                let negative = isa.lt(x, isa.zero());
                isa.select(negative, isa.mul(isa.splat(alpha), x), x)
            }
            Activation::HardSigmoid { alpha, beta } => hard_sigmoid(isa, x, alpha, beta),
            Activation::Sigmoid => vector_math::sigmoid(isa, x),
            Activation::Silu => vector_math::silu(isa, x),
            Activation::Tanh => vector_math::tanh(isa, x),
            Activation::Gelu => vector_math::gelu(isa, x),
            Activation::GeluTanh => vector_math::gelu_tanh(isa, x),
            Activation::Elu { alpha } => vector_math::elu(isa, x, alpha, 1.0),
            Activation::Softplus => vector_math::softplus(isa, x),
            Activation::Mish => vector_math::mish(isa, x),
            Activation::HardSwish => isa.mul(x, hard_sigmoid(isa, x, 1.0 / 6.0, 0.5)),
        }
    }

    /// Applies the function to every element of a slice.
    #[inline(always)]
    pub fn apply_slice<I: Isa>(self, isa: I, x: &mut [f32]) {
        if self == Activation::None {
            return;
        }
        let mut vectors = x.chunks_exact_mut(I::LANES);
        for chunk in &mut vectors {
            isa.store(self.apply(isa, isa.load(chunk)), chunk);
        }
        let tail = vectors.into_remainder();
        isa.store_partial(self.apply(isa, isa.load_partial(tail)), tail);
    }
}

#[inline(always)]
fn hard_sigmoid<I: Isa>(isa: I, x: I::F32, alpha: f32, beta: f32) -> I::F32 {
    let line = isa.mul_add(x, isa.splat(alpha), isa.splat(beta));
    isa.min(isa.splat(1.0), isa.max(isa.zero(), line))
}

/// A number added to each element.
#[derive(Debug, Clone, Copy, Default)]
pub enum Bias<'a> {
    /// Nothing.
    #[default]
    None,
    /// One number for each column: `[n]`.
    PerColumn(&'a [f32]),
    /// One number for each row: `[m]`.
    PerRow(&'a [f32]),
}

/// `activation(alpha * sum + bias + residual)`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Scales the sum.
    pub alpha: f32,
    /// Added next.
    pub bias: Bias<'a>,
    /// Added next: a matrix with the shape and row stride of the output.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Epilogue {
            alpha: 1.0,
            bias: Bias::None,
            residual: None,
            activation: Activation::None,
        }
    }
}

impl Epilogue<'_> {
    /// Finishes sums in memory: `c` is part of row `row`, from column `col` on. `row_stride` is
    /// that of the output, by which a residual is addressed.
    #[inline(always)]
    pub(crate) fn finish_row<I: Isa>(
        &self,
        isa: I,
        row: usize,
        col: usize,
        row_stride: usize,
        c: &mut [f32],
    ) {
        let len = c.len();
        if self.alpha != 1.0 {
            let alpha = isa.splat(self.alpha);
            zip(isa, c, None, |sum, _| isa.mul(sum, alpha));
        }
        match self.bias {
            Bias::None => {}
            Bias::PerColumn(bias) => {
                zip(isa, c, Some(&bias[col..][..len]), |sum, bias| {
                    isa.add(sum, bias)
                });
            }
            Bias::PerRow(bias) => {
                let bias = isa.splat(bias[row]);
                zip(isa, c, None, |sum, _| isa.add(sum, bias));
            }
        }
        if let Some(residual) = self.residual {
            let residual = &residual[row * row_stride + col..][..len];
            zip(isa, c, Some(residual), |sum, x| isa.add(sum, x));
        }
        self.activation.apply_slice(isa, c);
    }

    /// Panics unless bias and residual fit an output of `[m, n]` with this row stride.
    pub(super) fn check(&self, m: usize, n: usize, row_stride: usize) {
        match self.bias {
            Bias::None => {}
            Bias::PerColumn(bias) => assert_eq!(bias.len(), n, "bias per column of {n}"),
            Bias::PerRow(bias) => assert_eq!(bias.len(), m, "bias per row of {m}"),
        }
        if let Some(residual) = self.residual {
            let needed = if m == 0 { 0 } else { (m - 1) * row_stride + n };
            assert!(residual.len() >= needed, "residual of {m} x {n}");
        }
    }
}

/// `c = f(c, other)`, vector by vector; without `other`, zeros are passed.
#[inline(always)]
fn zip<I: Isa>(isa: I, c: &mut [f32], other: Option<&[f32]>, f: impl Fn(I::F32, I::F32) -> I::F32) {
    let mut start = 0;
    while start + I::LANES <= c.len() {
        let part = start..start + I::LANES;
        let x = other.map_or(isa.zero(), |other| isa.load(&other[part.clone()]));
        let sum = isa.load(&c[part.clone()]);
        isa.store(f(sum, x), &mut c[part]);
        start += I::LANES;
    }
    let x = other.map_or(isa.zero(), |other| isa.load_partial(&other[start..]));
    let sum = isa.load_partial(&c[start..]);
    isa.store_partial(f(sum, x), &mut c[start..]);
}
