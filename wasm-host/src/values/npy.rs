//! numpy's file format (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
//!
//! ```text
//! "\x93NUMPY" major minor header_len:u16 (version 1) or u32 header elements
//! header := {'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), } spaces newline
//! ```

use lethe_engine::tensor::{element_count, row_major_strides};
use lethe_engine::{DataType, Tensor};

use super::elements::{Elements, Number, tensor_of_numbers};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads a tensor.
///
/// # Errors
/// When the bytes are not in the format, or the element type has no counterpart in ONNX.
pub fn decode(bytes: &[u8]) -> Result<Tensor, String> {
    let cut = || "the file is cut short".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is no .npy file")?;
    let (header_at, header_len) = match rest {
        [1, _, a, b, ..] => (4, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, ..] => (6, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        _ => return Err("its version is unknown".into()),
    };
    let header_end = header_at + header_len;
    let header = rest.get(header_at..header_end).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|e| e.to_string())?;
    let header =
        Header::parse(header).ok_or_else(|| format!("its header is malformed: {header}"))?;
    let data = &rest[header_end..];
    let len = element_count(&header.shape).ok_or("its shape is too large")?;
    let (order, code) = header.descr.split_at(1);
    if let Some(width) = code.strip_prefix('U') {
        let width: usize = width.parse().map_err(|_| "its type is malformed")?;
        let strings = strings(data, len, width, order == ">")?;
        return ordered(
            &header,
            Tensor::from_strings(&header.shape, strings).map_err(|e| e.to_string())?,
        );
    }
    let data_type = data_type(code)
        .ok_or_else(|| format!("its element type {:?} is not one of ONNX", header.descr))?;
    let size = data_type
        .size_bytes(len)
        .filter(|&n| n <= data.len())
        .ok_or_else(cut)?;
    let mut elements = data[..size].to_vec();
    if order == ">" {
        // A complex number is two numbers in their own order.
        let complex = matches!(data_type, DataType::Complex64 | DataType::Complex128);
        let width = data_type.bits() / 8 / if complex { 2 } else { 1 };
        elements.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    let tensor =
        Tensor::from_bytes(data_type, &header.shape, elements).map_err(|e| e.to_string())?;
    ordered(&header, tensor)
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Option<Self> {
        let after = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
        let descr = after("descr")?.strip_prefix('\'')?.split_once('\'')?.0;
        let shape = after("shape")?.strip_prefix('(')?.split_once(')')?.0;
        let sizes = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
        Some(Self {
            descr: Some(descr).filter(|d| d.is_ascii() && d.len() > 1)?.into(),
            fortran_order: after("fortran_order")?.starts_with("True"),
            shape: sizes.map(str::parse).collect::<Result<_, _>>().ok()?,
        })
    }
}

fn data_type(code: &str) -> Option<DataType> {
    use DataType::*;
    let known = [
        ("f4", Float32),
        ("f8", Float64),
        ("f2", Float16),
        ("b1", Bool),
        ("i1", Int8),
        ("i2", Int16),
        ("i4", Int32),
        ("i8", Int64),
        ("u1", Uint8),
        ("u2", Uint16),
        ("u4", Uint32),
        ("u8", Uint64),
        ("c8", Complex64),
        ("c16", Complex128),
    ];
    known.iter().find(|(c, _)| *c == code).map(|&(_, t)| t)
}

/// Strings of `width` characters of four bytes, padded with zeros.
fn strings(data: &[u8], len: usize, width: usize, big_endian: bool) -> Result<Vec<String>, String> {
    let total = len.checked_mul(width).and_then(|n| n.checked_mul(4));
    if width == 0 {
        return Ok(vec![String::new(); len]);
    }
    let data = total
        .and_then(|n| data.get(..n))
        .ok_or("the file is cut short")?;
    let character = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let code = if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        };
        char::from_u32(code).ok_or_else(|| format!("{code:#x} is no character"))
    };
    data.chunks_exact(width * 4)
        .map(|string| {
            let text: String = string
                .chunks_exact(4)
                .map(character)
                .collect::<Result<_, _>>()?;
            Ok(text.trim_end_matches('\0').to_owned())
        })
        .collect()
}

/// The tensor in row-major order, whatever order the file has.
fn ordered(header: &Header, tensor: Tensor) -> Result<Tensor, String> {
    if !header.fortran_order || header.shape.len() < 2 {
        return Ok(tensor);
    }
    let shape = &header.shape;
    let strides = row_major_strides(shape);
    // Walks the elements in the file's order, the first axis fastest.
    let places = (0..tensor.len()).map(|mut i| {
        let mut at = 0;
        for (&size, stride) in shape.iter().zip(&strides) {
            at += i % size * stride;
            i /= size;
        }
        at
    });
    match tensor.as_strings() {
        Ok(strings) => {
            let mut moved = vec![String::new(); strings.len()];
            places
                .zip(strings)
                .for_each(|(at, s)| moved[at].clone_from(s));
            Tensor::from_strings(shape, moved)
        }
        Err(_) => {
            let width = tensor.data_type().bits() / 8;
            let mut moved = vec![0; tensor.bytes().len()];
            for (at, element) in places.zip(tensor.bytes().chunks_exact(width)) {
                moved[at * width..][..width].copy_from_slice(element);
            }
            Tensor::from_bytes(tensor.data_type(), shape, moved)
        }
    }
    .map_err(|e| e.to_string())
}

/// Writes a tensor. Types that numpy lacks are widened: small floats and bfloat16 to float32,
/// packed integers to int8 and uint8.
pub fn encode(tensor: &Tensor) -> Vec<u8> {
    use DataType::*;
    let widened = match tensor.data_type() {
        Bfloat16 => Some(Float32),
        small if small.is_small_float() => Some(Float32),
        Int4 | Int2 => Some(Int8),
        Uint4 | Uint2 => Some(Uint8),
        _ => None,
    };
    if let Some(wider) = widened {
        let reals = Elements::of(tensor).to_reals().unwrap_or_default();
        let numbers: Vec<Number> = reals.into_iter().map(Number::Real).collect();
        if let Ok(wide) = tensor_of_numbers(wider, tensor.shape(), &numbers) {
            return encode(&wide);
        }
    }
    let (descr, elements) = match tensor.as_strings() {
        Ok(strings) => {
            let longest = strings
                .iter()
                .map(|s| s.chars().count())
                .max()
                .unwrap_or(0)
                .max(1);
            let padded = strings.iter().flat_map(|s| {
                let zeros = std::iter::repeat('\0');
                s.chars().chain(zeros).take(longest)
            });
            let bytes = padded.flat_map(|c| (c as u32).to_le_bytes()).collect();
            (format!("<U{longest}"), bytes)
        }
        Err(_) => (descr(tensor.data_type()), tensor.bytes().to_vec()),
    };
    let sizes: Vec<_> = tensor.shape().iter().map(|n| format!("{n},")).collect();
    let mut header = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}",
        sizes.join(" ")
    );
    // Elements begin at a multiple of 64; 10 bytes lie before the header, a newline ends it.
    let padding = (header.len() + 11).next_multiple_of(64) - header.len() - 11;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let header_len = u16::try_from(header.len()).expect("a shape of a few axes is short");
    let mut file = [MAGIC, &[1, 0], &header_len.to_le_bytes(), header.as_bytes()].concat();
    file.extend(elements);
    file
}

/// numpy's name of an element type that it has.
fn descr(data_type: DataType) -> String {
    use DataType::*;
    let kind = match data_type {
        Bool => 'b',
        Uint8 | Uint16 | Uint32 | Uint64 => 'u',
        Int8 | Int16 | Int32 | Int64 => 'i',
        Complex64 | Complex128 => 'c',
        _ => 'f',
    };
    let width = data_type.bits() / 8;
    format!("{}{kind}{width}", if width == 1 { '|' } else { '<' })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &len, header.as_bytes(), data].concat()
    }

    #[test]
    fn every_numpy_type_round_trips() {
        let numbers = [0, 1, 0, 1, 1, 0].map(Number::Integer);
        for &data_type in DataType::ALL {
            let Ok(tensor) = tensor_of_numbers(data_type, &[2, 3], &numbers) else {
                continue;
            };
            let encoded = encode(&tensor);
            let again = decode(&encoded).unwrap();
            assert_eq!(again.shape(), tensor.shape(), "{data_type}");
            assert_eq!(
                Elements::of(&again).to_reals(),
                Elements::of(&tensor).to_reals(),
                "{data_type}"
            );
        }
        let words = Tensor::from_strings(&[2], vec!["λήθη".into(), "a".into()]).unwrap();
        assert_eq!(decode(&encode(&words)), Ok(words));
        let scalar = Tensor::scalar(7i64);
        assert_eq!(decode(&encode(&scalar)), Ok(scalar));
    }

    #[test]
    fn other_byte_and_axis_orders_are_turned() {
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        // Columns one after another: (1, 4), (2, 5), (3, 6).
        let data: Vec<u8> = [1u8, 4, 2, 5, 3, 6].iter().flat_map(|&n| [0, n]).collect();
        let expected = Tensor::from_slice(&[2, 3], &[1i16, 2, 3, 4, 5, 6]);
        assert_eq!(decode(&file(header, &data)).ok(), expected.ok());
    }

    #[test]
    fn malformed_files_are_refused() {
        let good = encode(&Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap());
        for len in 0..good.len() {
            assert!(
                decode(&good[..len]).is_err(),
                "{len} of {} bytes",
                good.len()
            );
        }
        for header in [
            "{'descr': 'O', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '|O8', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
            "{'descr': 'é4', 'fortran_order': False, 'shape': (1,), }",
            "{}",
        ] {
            assert!(decode(&file(header, &[0; 8])).is_err(), "{header}");
        }
    }
}
