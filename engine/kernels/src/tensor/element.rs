//! Rust types that tensors of fixed-size elements are read and written as.

use super::DataType;
use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

/// A truth value in a byte: any non-zero byte is true, so that hostile bytes stay harmless.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bool(pub u8);

impl Bool {
    /// Whether the byte is not zero.
    #[inline]
    pub fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool {
    #[inline]
    fn from(value: bool) -> Self {
        Self(value as u8)
    }
}

impl PartialEq for Bool {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

/// A complex number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub struct Complex<T> {
    /// Real part.
    pub re: T,
    /// Imaginary part.
    pub im: T,
}

// `Pod` cannot be derived for a generic struct, and the two instances have no padding.
#[expect(unsafe_code, reason = "two floats side by side are plain old data")]
mod complex_pod {
    use super::{Complex, Pod, Zeroable};
    // SAFETY: two `f32` in `repr(C)` have no padding and accept every bit pattern.
    unsafe impl Zeroable for Complex<f32> {}
    // SAFETY: as above.
    unsafe impl Pod for Complex<f32> {}
    // SAFETY: two `f64` in `repr(C)` have no padding and accept every bit pattern.
    unsafe impl Zeroable for Complex<f64> {}
    // SAFETY: as above.
    unsafe impl Pod for Complex<f64> {}
}

/// An element type that has a Rust type of its own (all but strings, small floats and packed
/// integers).
pub trait Element: Pod + PartialEq + Send + Sync + std::fmt::Debug {
    /// The ONNX element type.
    const DATA_TYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $onnx:ident),* $(,)?) => {
        $(impl Element for $rust { const DATA_TYPE: DataType = DataType::$onnx; })*
    };
}

elements! {
    f32 => Float32, f64 => Float64, f16 => Float16, bf16 => Bfloat16,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    Bool => Bool, Complex<f32> => Complex64, Complex<f64> => Complex128,
}
