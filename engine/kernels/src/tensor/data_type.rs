//! ONNX element types, with the numbers that `TensorProto.DataType` gives them.

use std::fmt;
use std::str::FromStr;

macro_rules! data_types {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $bits:literal;)*) => {
        /// The type of a tensor's elements. Discriminants are those of `TensorProto.DataType`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DataType { $($(#[$doc])* $variant = $code,)* }

        impl DataType {
            /// Every element type, in the order of their codes.
            pub const ALL: &[DataType] = &[$(DataType::$variant),*];

            /// The type with this `TensorProto.DataType` code.
            pub fn from_code(code: i32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The name ONNX uses in type strings, such as `float` in `tensor(float)`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Bits an element takes; 0 for strings.
            pub fn bits(self) -> usize {
                match self { $(Self::$variant => $bits,)* }
            }
        }
    };
}

data_types! {
    /// IEEE binary32.
    Float32 = 1, "float", 32;
    /// Unsigned 8 bits.
    Uint8 = 2, "uint8", 8;
    /// Signed 8 bits.
    Int8 = 3, "int8", 8;
    /// Unsigned 16 bits.
    Uint16 = 4, "uint16", 16;
    /// Signed 16 bits.
    Int16 = 5, "int16", 16;
    /// Signed 32 bits.
    Int32 = 6, "int32", 32;
    /// Signed 64 bits.
    Int64 = 7, "int64", 64;
    /// UTF-8 text.
    String = 8, "string", 0;
    /// A truth value, one byte.
    Bool = 9, "bool", 8;
    /// IEEE binary16.
    Float16 = 10, "float16", 16;
    /// IEEE binary64.
    Float64 = 11, "double", 64;
    /// Unsigned 32 bits.
    Uint32 = 12, "uint32", 32;
    /// Unsigned 64 bits.
    Uint64 = 13, "uint64", 64;
    /// Two binary32.
    Complex64 = 14, "complex64", 64;
    /// Two binary64.
    Complex128 = 15, "complex128", 128;
    /// The upper half of a binary32.
    Bfloat16 = 16, "bfloat16", 16;
    /// 4 exponent bits, 3 of mantissa, no infinity.
    Float8E4M3FN = 17, "float8e4m3fn", 8;
    /// The same with no negative zero.
    Float8E4M3FNUZ = 18, "float8e4m3fnuz", 8;
    /// 5 exponent bits, 2 of mantissa.
    Float8E5M2 = 19, "float8e5m2", 8;
    /// The same with neither infinity nor negative zero.
    Float8E5M2FNUZ = 20, "float8e5m2fnuz", 8;
    /// Unsigned 4 bits, two to a byte.
    Uint4 = 21, "uint4", 4;
    /// Signed 4 bits, two to a byte.
    Int4 = 22, "int4", 4;
    /// 2 exponent bits, 1 of mantissa, two to a byte.
    Float4E2M1 = 23, "float4e2m1", 4;
    /// A power of two: 8 exponent bits, nothing else.
    Float8E8M0 = 24, "float8e8m0", 8;
    /// Unsigned 2 bits, four to a byte.
    Uint2 = 25, "uint2", 2;
    /// Signed 2 bits, four to a byte.
    Int2 = 26, "int2", 2;
}

impl DataType {
    /// Bytes that `len` elements take, sub-byte types packed; `None` on overflow.
    pub fn size_bytes(self, len: usize) -> Option<usize> {
        Some(len.checked_mul(self.bits())?.div_ceil(8))
    }

    /// Alignment in bytes of an element in memory.
    pub fn alignment(self) -> usize {
        match self {
            Self::Complex64 => 4,
            Self::Complex128 => 8,
            Self::String => 1,
            other => other.bits().div_ceil(8),
        }
    }

    /// Whether elements share bytes.
    pub fn is_sub_byte(self) -> bool {
        self.bits() < 8 && self != Self::String
    }

    /// Whether the type is an integer of any width (not bool).
    pub fn is_integer(self) -> bool {
        use DataType::*;
        matches!(
            self,
            Uint2
                | Int2
                | Uint4
                | Int4
                | Uint8
                | Int8
                | Uint16
                | Int16
                | Uint32
                | Int32
                | Uint64
                | Int64
        )
    }

    /// Whether the type is a real floating-point number of any width.
    pub fn is_float(self) -> bool {
        use DataType::*;
        matches!(self, Float64 | Float32 | Float16 | Bfloat16) || self.is_small_float()
    }

    /// Whether the type is one of the 8-bit or 4-bit floats.
    pub fn is_small_float(self) -> bool {
        use DataType::*;
        matches!(
            self,
            Float8E4M3FN | Float8E4M3FNUZ | Float8E5M2 | Float8E5M2FNUZ | Float8E8M0 | Float4E2M1
        )
    }

    /// The name the Open Inference Protocol uses (`FP32`, `INT64`, `BYTES` …); types that it does
    /// not know are named in its manner.
    pub fn protocol_name(self) -> &'static str {
        use DataType::*;
        match self {
            Float32 => "FP32",
            Float64 => "FP64",
            Float16 => "FP16",
            Bfloat16 => "BF16",
            Uint8 => "UINT8",
            Uint16 => "UINT16",
            Uint32 => "UINT32",
            Uint64 => "UINT64",
            Int8 => "INT8",
            Int16 => "INT16",
            Int32 => "INT32",
            Int64 => "INT64",
            Bool => "BOOL",
            String => "BYTES",
            Complex64 => "COMPLEX64",
            Complex128 => "COMPLEX128",
            Float8E4M3FN => "FP8_E4M3FN",
            Float8E4M3FNUZ => "FP8_E4M3FNUZ",
            Float8E5M2 => "FP8_E5M2",
            Float8E5M2FNUZ => "FP8_E5M2FNUZ",
            Float8E8M0 => "FP8_E8M0",
            Float4E2M1 => "FP4_E2M1",
            Uint4 => "UINT4",
            Int4 => "INT4",
            Uint2 => "UINT2",
            Int2 => "INT2",
        }
    }

    /// The type with this Open Inference Protocol name.
    pub fn from_protocol_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|t| t.protocol_name() == name)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DataType {
    type Err = String;

    /// Parses ONNX's name, such as `float` or `int64`.
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|t| t.name() == name)
            .ok_or_else(|| format!("unknown element type {name:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_round_trip() {
        for &t in DataType::ALL {
            assert_eq!(DataType::from_code(t as i32), Some(t));
            assert_eq!(t.name().parse(), Ok(t));
            assert_eq!(DataType::from_protocol_name(t.protocol_name()), Some(t));
        }
        assert_eq!(DataType::from_code(0), None);
        assert_eq!(DataType::from_code(27), None);
    }

    #[test]
    fn packed_sizes_round_up() {
        assert_eq!(DataType::Int4.size_bytes(3), Some(2));
        assert_eq!(DataType::Uint2.size_bytes(5), Some(2));
        assert_eq!(DataType::Complex128.size_bytes(2), Some(32));
        assert_eq!(DataType::Float64.size_bytes(usize::MAX), None);
    }
}
