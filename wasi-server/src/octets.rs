//! Tensors as bytes, as the binary extension of the Open Inference Protocol has them.
//!
//! ```text
//! body := json tensor*          `Inference-Header-Content-Length` is the length of the JSON
//! tensor := element*            little-endian, row-major, without padding
//!         | (u32 bytes)*        BYTES: every element with its length
//! ```
//!
//! Elements of fewer than eight bits are packed as ONNX packs them. Nothing is allocated before
//! the bytes that it stands for are known to be there. Source:
//! <https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html>.

use bytes::Bytes;
use lethe_engine::tensor::{Buffer, SharedBytes, Storage, element_count};
use lethe_engine::{DataType, Tensor};

/// Highest rank that is read: no operator needs nearly as many, and each costs at every step.
pub const MAX_RANK: usize = 64;

/// The sizes that a request gives as a shape.
///
/// # Errors
/// What was expected and what was found.
pub fn sizes(shape: &[i64]) -> Result<Vec<usize>, (&'static str, String)> {
    if shape.len() > MAX_RANK {
        return Err(("at most 64 sizes", shape.len().to_string()));
    }
    let sizes: Result<_, _> = shape.iter().map(|&size| size.try_into()).collect();
    sizes.map_err(|_| ("sizes of 0 or more", format!("{shape:?}")))
}

/// A piece of a body, which tensors share where they can.
#[derive(Debug, Clone, Copy)]
pub struct Octets<'a> {
    bytes: &'a [u8],
    /// The memory that `bytes` is a piece of, where it can be shared.
    body: Option<&'a Bytes>,
}

impl<'a> Octets<'a> {
    /// A piece of `body`, where there is one to share.
    pub fn new(bytes: &'a [u8], body: Option<&'a Bytes>) -> Self {
        Self { bytes, body }
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the first `len` bytes; `None` where there are fewer.
    pub(crate) fn take(&mut self, len: u64) -> Option<Self> {
        let (taken, left) = self.bytes.split_at_checked(usize::try_from(len).ok()?)?;
        self.bytes = left;
        Some(Self {
            bytes: taken,
            body: self.body,
        })
    }

    /// The tensor of this type and shape that the bytes are.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn into_tensor(
        self,
        data_type: DataType,
        shape: &[usize],
    ) -> Result<Tensor, (String, String)> {
        let count = element_count(shape).ok_or_else(|| {
            let expected = format!("a shape that fits memory instead of {shape:?}");
            (expected, format!("{} bytes", self.len()))
        })?;
        if data_type == DataType::String {
            let strings = self.into_strings(count)?;
            return Tensor::from_strings(shape, strings).map_err(not_a_tensor);
        }
        let expected = data_type.size_bytes(count);
        if expected != Some(self.len()) {
            let expected = match expected {
                Some(bytes) => format!("{bytes} bytes for shape {shape:?}"),
                None => format!("a shape that fits memory instead of {shape:?}"),
            };
            return Err((expected, self.len().to_string()));
        }
        if data_type == DataType::Bool
            && let Some(index) = self.bytes.iter().position(|&byte| byte > 1)
        {
            let found = format!("{} at index {index}", self.bytes[index]);
            return Err(("bytes of 0 or 1".into(), found));
        }
        let bytes: SharedBytes = match self.body {
            Some(body) => body.slice_ref(self.bytes).into(),
            None => Buffer::copy_of(self.bytes).into(),
        };
        let tensor = Tensor::from_bytes(data_type, shape, bytes).map_err(not_a_tensor)?;
        Ok(tensor.aligned())
    }

    /// `count` texts, each with its length before it, and nothing behind them.
    fn into_strings(self, count: usize) -> Result<Vec<String>, (String, String)> {
        let mut rest = self.bytes;
        let wrong = |found: String| (format!("{count} elements with their lengths"), found);
        if count > rest.len() / 4 {
            return Err(wrong(format!("{} bytes", rest.len())));
        }
        let mut strings = Vec::with_capacity(count);
        for index in 0..count {
            let taken = rest.split_first_chunk().and_then(|(len, after)| {
                let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
                after.split_at_checked(len)
            });
            let Some((text, after)) = taken else {
                let left = rest.len();
                return Err(wrong(format!(
                    "{left} bytes left for the one at index {index}"
                )));
            };
            let text = std::str::from_utf8(text)
                .map_err(|error| ("UTF-8".into(), format!("{error} at index {index}")))?;
            strings.push(text.to_owned());
            rest = after;
        }
        match rest.len() {
            0 => Ok(strings),
            left => Err(wrong(format!("{left} more bytes"))),
        }
    }

    /// The tensor that the bytes are when nothing but they and the model say so: at most one size
    /// of `dims` is `None`, and follows from the number of bytes. A single text has no length before
    /// it.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(crate) fn into_raw_tensor(
        self,
        data_type: DataType,
        dims: &[Option<usize>],
    ) -> Result<Tensor, (String, String)> {
        if data_type == DataType::String {
            let shape: Vec<usize> = dims.iter().map(|dim| dim.unwrap_or(1)).collect();
            if element_count(&shape) != Some(1) {
                return Err(("one element of BYTES".into(), format!("shape {shape:?}")));
            }
            let text = std::str::from_utf8(self.bytes)
                .map_err(|error| ("UTF-8".into(), error.to_string()))?;
            return Tensor::from_strings(&shape, vec![text.to_owned()]).map_err(not_a_tensor);
        }
        if dims.iter().filter(|dim| dim.is_none()).count() > 1 {
            let expected = "a shape, as in ?shape=1,3,224,224".to_owned();
            return Err((
                expected,
                "more than one size that the model leaves open".into(),
            ));
        }
        let known: Vec<usize> = dims.iter().copied().flatten().collect();
        let elements = self.len().saturating_mul(8) / data_type.bits();
        // Where the other sizes leave no element, the open one is nothing too.
        let open = match element_count(&known) {
            None | Some(0) => 0,
            Some(known) => elements / known,
        };
        let shape: Vec<usize> = dims.iter().map(|dim| dim.unwrap_or(open)).collect();
        self.into_tensor(data_type, &shape)
    }
}

fn not_a_tensor(error: lethe_engine::OpError) -> (String, String) {
    ("a tensor".into(), error.to_string())
}

/// Bytes that [`write_tensor`] appends for a tensor.
pub fn size_bytes(tensor: &Tensor) -> usize {
    match tensor.storage() {
        Storage::Bytes(bytes) => bytes.len(),
        Storage::Strings(strings) => strings.iter().map(|text| 4 + text.len()).sum(),
    }
}

/// Appends a tensor's elements.
///
/// # Panics
/// When a text takes 4 GiB: a model that makes one has run out of memory before.
pub fn write_tensor(out: &mut Vec<u8>, tensor: &Tensor) {
    match tensor.storage() {
        Storage::Bytes(bytes) => out.extend_from_slice(bytes),
        Storage::Strings(strings) => {
            for text in strings.iter() {
                let len = u32::try_from(text.len()).expect("a text is smaller than 4 GiB");
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::{Bfloat16, Bool, Float16, Float32, Int4, Int64, String as Text};

    fn read(
        data_type: DataType,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<Tensor, (String, String)> {
        Octets::new(bytes, None).into_tensor(data_type, shape)
    }

    #[test]
    fn tensors_round_trip() {
        let cases = [
            (Float32, vec![2], vec![0, 0, 128, 63, 0, 0, 192, 127]),
            (Float16, vec![1, 2], vec![0, 60, 0, 192]),
            (Bfloat16, vec![1], vec![128, 63]),
            (Int64, vec![], vec![1, 0, 0, 0, 0, 0, 0, 0x80]),
            (Bool, vec![3], vec![0, 1, 1]),
            (Int4, vec![3], vec![0x21, 0x03]),
            (Float32, vec![0, 9], vec![]),
            (Text, vec![2], b"\x02\0\0\0ok\0\0\0\0".to_vec()),
            (Text, vec![0], vec![]),
        ];
        for (data_type, shape, bytes) in cases {
            let tensor = read(data_type, &shape, &bytes).unwrap();
            assert_eq!(
                (tensor.data_type(), tensor.shape()),
                (data_type, &shape[..])
            );
            let mut out = Vec::new();
            write_tensor(&mut out, &tensor);
            assert_eq!(out, bytes, "{data_type} {shape:?}");
            assert_eq!(size_bytes(&tensor), bytes.len(), "{data_type} {shape:?}");
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let huge = 0xffff_ffffu32.to_le_bytes();
        let cases: [(DataType, &[usize], &[u8]); 12] = [
            (Float32, &[1], &[0; 3]),
            (Float32, &[1], &[0; 5]),
            (Float32, &[usize::MAX, 2], &[]),
            (Float32, &[usize::MAX / 4], &[]),
            (Int4, &[3], &[0; 3]),
            (Bool, &[2], &[1, 2]),
            (Text, &[1], &[]),
            (Text, &[1], &huge),
            (Text, &[1 << 40], &[0; 64]),
            (Text, &[1], b"\x01\0\0\0\xff"),
            (Text, &[1], b"\x01\0\0\0ab"),
            (Text, &[2], b"\x04\0\0\0\0\0\0\0"),
        ];
        for (data_type, shape, bytes) in cases {
            assert!(
                read(data_type, shape, bytes).is_err(),
                "{data_type} {shape:?} {bytes:?}"
            );
        }
    }

    #[test]
    fn aligned_pieces_share_the_body_and_others_are_copied() {
        let buffer = Bytes::from(vec![0u8; 64]);
        let aligned = buffer.as_ptr().align_offset(4);
        for (from, shared) in [(aligned, true), (aligned + 1, false)] {
            let mut octets = Octets::new(&buffer[from..], Some(&buffer));
            let tensor = octets.take(8).unwrap().into_tensor(Float32, &[2]).unwrap();
            let is_shared = tensor.bytes().as_ptr() == buffer[from..].as_ptr();
            assert_eq!(is_shared, shared, "from {from}");
            assert_eq!(octets.len(), 64 - from - 8);
            assert!(octets.take(64).is_none() && octets.take(u64::MAX).is_none());
        }
    }

    #[test]
    fn one_open_size_follows_from_the_bytes() {
        let raw = |data_type, dims: &[Option<usize>], len: usize| {
            let bytes = vec![b'a'; len];
            let tensor = Octets::new(&bytes, None).into_raw_tensor(data_type, dims);
            tensor.map(|tensor| tensor.shape().to_vec()).ok()
        };
        let cases: [(DataType, &[Option<usize>], usize, Option<&[usize]>); 12] = [
            (Float32, &[None, Some(3)], 24, Some(&[2, 3])),
            (Float32, &[Some(2), Some(3)], 24, Some(&[2, 3])),
            (Float32, &[], 4, Some(&[])),
            (Float32, &[None, Some(3)], 0, Some(&[0, 3])),
            (Float32, &[None, Some(0)], 0, Some(&[0, 0])),
            (Int4, &[None], 2, Some(&[4])),
            (Text, &[None, Some(1)], 5, Some(&[1, 1])),
            (Float32, &[None, Some(3)], 16, None),
            (Float32, &[None, None], 16, None),
            (Float32, &[None, Some(usize::MAX), Some(8)], 16, None),
            (Float32, &[None, Some(0)], 4, None),
            (Text, &[Some(2)], 5, None),
        ];
        for (data_type, dims, len, expected) in cases {
            assert_eq!(
                raw(data_type, dims, len).as_deref(),
                expected,
                "{data_type} {dims:?} {len}"
            );
        }
    }
}
