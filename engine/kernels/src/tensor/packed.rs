//! Types of less than a byte: two or four elements share one, the first in the low bits.

use super::DataType;

/// The codes of `len` elements of a type of at most a byte, one to a byte, high bits zero.
pub fn unpack_codes(data_type: DataType, bytes: &[u8], len: usize) -> Vec<u8> {
    let bits = data_type.bits();
    let (per_byte, mask) = (8 / bits, ((1u16 << bits) - 1) as u8);
    (0..len)
        .map(|i| bytes[i / per_byte] >> (i % per_byte * bits) & mask)
        .collect()
}

/// The opposite of [`unpack_codes`]; high bits of the codes are ignored.
pub fn pack_codes(data_type: DataType, codes: &[u8], bytes: &mut [u8]) {
    let bits = data_type.bits();
    let (per_byte, mask) = (8 / bits, ((1u16 << bits) - 1) as u8);
    for (byte, codes) in bytes.iter_mut().zip(codes.chunks(per_byte)) {
        *byte = codes
            .iter()
            .enumerate()
            .fold(0, |byte, (i, code)| byte | (code & mask) << (i * bits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for (data_type, codes) in [
            (DataType::Uint4, vec![1, 15, 7]),
            (DataType::Int2, vec![3, 0, 2, 1, 1]),
        ] {
            let mut bytes = vec![0; codes.len().div_ceil(8 / data_type.bits())];
            pack_codes(data_type, &codes, &mut bytes);
            assert_eq!(unpack_codes(data_type, &bytes, codes.len()), codes);
        }
    }
}
