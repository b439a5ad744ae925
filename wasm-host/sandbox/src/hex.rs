//! Bytes as hexadecimal digits.

/// Lower-case digits.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    use std::fmt::Write;
    let bytes = bytes.as_ref();
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes what is written");
    }
    text
}

/// Exactly `N` bytes, from digits of either case.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_bytes_are_each_others_inverse() {
        assert_eq!(encode([0, 0x1f, 0xff]), "001fff");
        assert_eq!(decode("001FfF"), Some([0, 0x1f, 0xff]));
        for wrong in ["", "00", "0g1fff", "001fff00", "+01fff", "é01ff"] {
            assert_eq!(decode::<3>(wrong), None, "{wrong}");
        }
    }
}
