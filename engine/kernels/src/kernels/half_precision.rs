//! The storage types of real numbers: f32, f16 and bf16. Kernels compute in f32; 16-bit tensors
//! are widened before and narrowed after, a block at a time.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::tensor::Element;

/// A type whose elements are computed with as f32.
pub trait Real: Element {
    /// Converts exactly. The slices are of one length.
    fn widen(source: &[Self], target: &mut [f32]);
    /// Rounds to the nearest, ties to even. The slices are of one length.
    fn narrow(source: &[f32], target: &mut [Self]);
    /// The slice itself where elements need no conversion.
    fn as_f32(elements: &[Self]) -> Option<&[f32]>;
    /// The slice itself where elements need no conversion.
    fn as_f32_mut(elements: &mut [Self]) -> Option<&mut [f32]>;
}

impl Real for f32 {
    fn widen(source: &[f32], target: &mut [f32]) {
        target.copy_from_slice(source);
    }
    fn narrow(source: &[f32], target: &mut [f32]) {
        target.copy_from_slice(source);
    }
    fn as_f32(elements: &[f32]) -> Option<&[f32]> {
        Some(elements)
    }
    fn as_f32_mut(elements: &mut [f32]) -> Option<&mut [f32]> {
        Some(elements)
    }
}

macro_rules! half_types {
    ($($half:ty),*) => {$(
        impl Real for $half {
            fn widen(source: &[Self], target: &mut [f32]) {
                source.convert_to_f32_slice(target);
            }
            fn narrow(source: &[f32], target: &mut [Self]) {
                target.convert_from_f32_slice(source);
            }
            fn as_f32(_: &[Self]) -> Option<&[f32]> {
                None
            }
            fn as_f32_mut(_: &mut [Self]) -> Option<&mut [f32]> {
                None
            }
        }
    )*};
}

half_types!(f16, bf16);
