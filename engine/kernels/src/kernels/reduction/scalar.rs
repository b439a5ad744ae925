//! Reductions of integers and doubles, one element at a time.

use super::Reduction;
use crate::tensor::Element;

/// Types that are reduced without vectors.
pub trait Scalar: Element + Default {
    /// The reduction of one row. Sums and products of integers wrap; means, roots and logarithms
    /// of them are computed in double precision and truncated.
    fn reduce(reduction: Reduction, x: &[Self]) -> Self;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Scalar for $t {
            fn reduce(reduction: Reduction, x: &[$t]) -> $t {
                let sum = |f: fn($t) -> $t| x.iter().fold(0 as $t, |sum, &x| sum.wrapping_add(f(x)));
                match reduction {
                    Reduction::Sum => sum(|x| x),
                    Reduction::SumSquare => sum(|x| x.wrapping_mul(x)),
                    Reduction::L1 => sum(|x| (x as i128).unsigned_abs() as $t),
                    Reduction::Prod => x.iter().fold(1, |product, &x| product.wrapping_mul(x)),
                    Reduction::Max => x.iter().copied().max().unwrap_or(<$t>::MIN),
                    Reduction::Min => x.iter().copied().min().unwrap_or(<$t>::MAX),
                    Reduction::Mean | Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp => {
                        f64::reduce(reduction, &x.iter().map(|&x| x as f64).collect::<Vec<_>>())
                            as $t
                    }
                }
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Scalar for f64 {
    fn reduce(reduction: Reduction, x: &[f64]) -> f64 {
        let sum = |f: fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>();
        let fold = |start: f64, is_better: fn(f64, f64) -> bool| {
            x.iter().fold(start, |best, &x| {
                if best.is_nan() || !(x.is_nan() || is_better(x, best)) {
                    best
                } else {
                    x
                }
            })
        };
        match reduction {
            Reduction::Sum => sum(|x| x),
            Reduction::Mean => sum(|x| x) / x.len() as f64,
            Reduction::Max => fold(f64::NEG_INFINITY, |x, best| x > best),
            Reduction::Min => fold(f64::INFINITY, |x, best| x < best),
            Reduction::Prod => x.iter().product(),
            Reduction::L1 => sum(f64::abs),
            Reduction::L2 => sum(|x| x * x).sqrt(),
            Reduction::SumSquare => sum(|x| x * x),
            Reduction::LogSum => libm::log(sum(|x| x)),
            Reduction::LogSumExp => {
                let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if max == f64::INFINITY {
                    return max;
                }
                let shift = if max.is_finite() { max } else { 0.0 };
                shift + libm::log(x.iter().map(|&x| libm::exp(x - shift)).sum::<f64>())
            }
        }
    }
}
