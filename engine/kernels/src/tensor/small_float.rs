//! The 8-bit and 4-bit floating-point formats.
//!
//! Source: the ONNX notes on float8 and float4 (<https://onnx.ai/onnx/technical/float8.html>) and
//! the OCP microscaling specification for E8M0 and E2M1.

use super::DataType;

/// What tells one small format from another.
struct Format {
    mantissa_bits: i32,
    bias: i32,
    /// Code of the largest finite value, without sign.
    largest: u8,
    /// Code of infinity, where there is one.
    infinity: Option<u8>,
    /// Code of NaN, where there is one.
    nan: Option<u8>,
    sign_bit: u8,
    negative_zero: bool,
}

fn format_of(data_type: DataType) -> Option<Format> {
    let format = |mantissa_bits, bias, largest, infinity, nan, sign_bit, negative_zero| Format {
        mantissa_bits,
        bias,
        largest,
        infinity,
        nan,
        sign_bit,
        negative_zero,
    };
    Some(match data_type {
        DataType::Float8E4M3FN => format(3, 7, 0x7e, None, Some(0x7f), 0x80, true),
        DataType::Float8E4M3FNUZ => format(3, 8, 0x7f, None, Some(0x80), 0x80, false),
        DataType::Float8E5M2 => format(2, 15, 0x7b, Some(0x7c), Some(0x7f), 0x80, true),
        DataType::Float8E5M2FNUZ => format(2, 16, 0x7f, None, Some(0x80), 0x80, false),
        DataType::Float4E2M1 => format(1, 1, 0x07, None, None, 0x08, true),
        _ => return None,
    })
}

/// `2^exponent`, exactly, for the exponents of these formats.
fn power_of_two(exponent: i32) -> f32 {
    if exponent < -126 {
        f32::from_bits(1 << (exponent + 149).max(0))
    } else {
        f32::from_bits(((exponent + 127) as u32) << 23)
    }
}

/// The value of a small float's code (low bits of `code`), or NaN for a type that is not one.
pub fn decode_small_float(data_type: DataType, code: u8) -> f32 {
    if data_type == DataType::Float8E8M0 {
        return if code == 0xff {
            f32::NAN
        } else {
            power_of_two(code as i32 - 127)
        };
    }
    let Some(format) = format_of(data_type) else {
        return f32::NAN;
    };
    let magnitude = code & (format.sign_bit - 1);
    let negative = code & format.sign_bit != 0;
    if format.nan == Some(code)
        || (magnitude > format.largest && format.infinity != Some(magnitude))
    {
        return f32::NAN;
    }
    let value = if format.infinity == Some(magnitude) {
        f32::INFINITY
    } else {
        let exponent = (magnitude >> format.mantissa_bits) as i32;
        let one = 1 << format.mantissa_bits;
        let fraction = magnitude as i32 & (one - 1);
        let significand = if exponent == 0 {
            fraction
        } else {
            fraction + one
        };
        significand as f32 * power_of_two(exponent.max(1) - format.bias - format.mantissa_bits)
    };
    if negative { -value } else { value }
}

/// The code nearest to `value`, ties to even. Beyond the largest finite value: that value where
/// `saturate`, else infinity or, where the format has none, NaN. E8M0 rounds up.
pub fn encode_small_float(data_type: DataType, value: f32, saturate: bool) -> u8 {
    if data_type == DataType::Float8E8M0 {
        return encode_power_of_two(value, saturate);
    }
    let Some(format) = format_of(data_type) else {
        return 0;
    };
    let sign = if value.is_sign_negative() {
        format.sign_bit
    } else {
        0
    };
    if value.is_nan() {
        return format.nan.map_or(
            format.sign_bit,
            |nan| if nan == 0x80 { nan } else { nan | sign },
        );
    }
    let overflow = || match (saturate, format.infinity, format.nan) {
        (false, Some(infinity), _) => infinity | sign,
        (false, None, Some(0x80)) => 0x80,
        (false, None, Some(nan)) => nan | sign,
        _ => format.largest | sign,
    };
    let magnitude = value.abs();
    if magnitude.is_infinite() {
        return overflow();
    }
    let smallest_exponent = 1 - format.bias;
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(smallest_exponent);
    let quantum = power_of_two(exponent - format.mantissa_bits);
    // Exact: dividing by a power of two within range; the quotient is below 2^(mantissa + 1).
    let steps = (magnitude / quantum).round_ties_even() as i32;
    let code = ((exponent - smallest_exponent) << format.mantissa_bits) + steps;
    if code > format.largest as i32 {
        return overflow();
    }
    if code == 0 && !format.negative_zero {
        0
    } else {
        code as u8 | sign
    }
}

fn encode_power_of_two(value: f32, saturate: bool) -> u8 {
    if value.is_nan() || (value.is_infinite() && !saturate) {
        return 0xff;
    }
    if value.is_infinite() {
        return 0xfe;
    }
    let bits = value.abs().to_bits();
    let exponent = (bits >> 23) as i32;
    let rounded_up = exponent + i32::from(bits & 0x7f_ffff != 0 && exponent > 0);
    rounded_up.min(0xfe) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_round_trip() {
        for &t in DataType::ALL.iter().filter(|t| t.is_small_float()) {
            for code in 0..1u16 << t.bits() {
                let value = decode_small_float(t, code as u8);
                if value.is_nan() || value.is_infinite() || value == 0.0 {
                    continue;
                }
                assert_eq!(
                    encode_small_float(t, value, true),
                    code as u8,
                    "{t} {code:#x} {value}"
                );
            }
        }
    }

    #[test]
    fn known_values() {
        let cases: &[(DataType, f32, bool, u8)] = &[
            (DataType::Float8E4M3FN, 448.0, true, 0x7e),
            (DataType::Float8E4M3FN, 1e6, true, 0x7e),
            (DataType::Float8E4M3FN, 1e6, false, 0x7f),
            (DataType::Float8E4M3FN, 1.0, true, 0x38),
            (DataType::Float8E4M3FNUZ, 1.0, true, 0x40),
            (DataType::Float8E4M3FNUZ, -0.0, true, 0x00),
            (DataType::Float8E5M2, f32::INFINITY, false, 0x7c),
            (DataType::Float8E5M2, f32::INFINITY, true, 0x7b),
            (DataType::Float4E2M1, 100.0, true, 0x07),
            (DataType::Float4E2M1, 2.5, true, 0x04),
            (DataType::Float8E8M0, 3.0, true, 0x81),
        ];
        for &(t, value, saturate, code) in cases {
            assert_eq!(
                encode_small_float(t, value, saturate),
                code,
                "{t} {value} {saturate}"
            );
        }
    }
}
