//! Matrix products of the element types that have no packed kernel: one loop in the order of K.

use crate::limits::Watch;
use crate::tensor::Element;

/// A number that products are made of; integers wrap.
pub trait Factor: Element + Default {
    /// `self + a * b`.
    fn plus_product(self, a: Self, b: Self) -> Self;
    /// `self + other`.
    fn plus(self, other: Self) -> Self;
    /// `function(self)`, computed in double precision.
    fn through_double(self, function: impl Fn(f64) -> f64) -> Self;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Factor for $t {
            #[inline(always)]
            fn plus_product(self, a: Self, b: Self) -> Self {
                self.wrapping_add(a.wrapping_mul(b))
            }
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn through_double(self, function: impl Fn(f64) -> f64) -> Self {
                function(self as f64) as Self
            }
        }
    )*};
}

integers!(i32, i64, u32, u64);

impl Factor for f64 {
    #[inline(always)]
    fn plus_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn through_double(self, function: impl Fn(f64) -> f64) -> Self {
        function(self)
    }
}

/// A matrix in a slice: element `[i, j]` is `data[i * strides.0 + j * strides.1]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Distance of rows and of columns in elements.
    pub strides: (usize, usize),
}

/// `c = a · b` for `a: [m, k]`, `b: [k, n]` and `c: [m, n]` without gaps. Each sum goes through
/// `k` in order.
pub fn multiply<T: Factor>(a: Matrix<'_, T>, b: Matrix<'_, T>, k: usize, n: usize, c: &mut [T]) {
    c.fill(T::default());
    if n == 0 {
        return;
    }
    let mut watch = Watch::begin();
    for (i, row) in c.chunks_exact_mut(n).enumerate() {
        watch.count(k.saturating_mul(n));
        for p in 0..k {
            let factor = a.data[i * a.strides.0 + p * a.strides.1];
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = sum.plus_product(factor, b.data[p * b.strides.0 + j * b.strides.1]);
            }
        }
    }
}
