//! A model file without its large weights: what there is to decide by before any weight is read.
//!
//! The file is walked once as Protocol Buffers are written, a field after the other. Where a tensor has
//! long `raw_data`, they are passed over, and in their place stands a name of the piece of the file where
//! they are, in the form of ONNX's external data ([`ITSELF`]). So each weight is read when it is wanted, into
//! memory of its own, and the file is in memory at no time.
//!
//! Source of the format: <https://protobuf.dev/programming-guides/encoding/>.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use lethe_engine::onnx::external_data::ITSELF;

/// Shorter data stay where they are.
const LONG_BYTES: u64 = 4096;
/// Messages in messages.
const DEEPEST: usize = 100;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The messages that lead to tensors; all others are copied as they are.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Message {
    /// What is in a field of this number, if tensors may be in there.
    fn of_field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            _ => return None,
        })
    }
}

const RAW_DATA: u64 = 9;
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;
const EXTERNAL: u64 = 1;

/// The outline of the model in the first `len` bytes of a file.
///
/// # Errors
/// [`ErrorKind::InvalidData`] where it is not written as Protocol Buffers are, and what the operating
/// system says.
pub(super) fn read(file: &File, len: u64) -> io::Result<Vec<u8>> {
    let mut walk = Walk {
        file,
        at: 0,
        chunk: Vec::new(),
        next: 0,
    };
    let mut outline = Vec::new();
    walk.message(Message::Model, len, 0, &mut outline)?;
    Ok(outline)
}

fn malformed() -> io::Error {
    let reason = "its bytes do not follow the rules of Protocol Buffers";
    io::Error::new(ErrorKind::InvalidData, reason)
}

struct Walk<'f> {
    file: &'f File,
    /// Where the next byte is.
    at: u64,
    chunk: Vec<u8>,
    /// Where in the chunk it is.
    next: usize,
}

impl Walk<'_> {
    /// Copies a message that ends at `end`.
    fn message(
        &mut self,
        message: Message,
        end: u64,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(malformed());
        }
        // Where long data of this tensor are, and whether it says that they are elsewhere.
        let (mut piece, mut is_external) = (None, false);
        while self.at < end {
            let key = self.varint(end)?;
            let number = key >> 3;
            match key & 7 {
                0 => {
                    let value = self.varint(end)?;
                    if (message, number) == (Message::Tensor, DATA_LOCATION) {
                        is_external = value == EXTERNAL;
                    }
                    put_varint(out, key);
                    put_varint(out, value);
                }
                1 => self.copy(key, 8, end, out)?,
                5 => self.copy(key, 4, end, out)?,
                2 => {
                    let len = self.varint(end)?;
                    let field_end = self.at.checked_add(len).filter(|&field| field <= end);
                    let field_end = field_end.ok_or_else(malformed)?;
                    if let Some(inner) = message.of_field(number) {
                        let mut copy = Vec::new();
                        self.message(inner, field_end, depth + 1, &mut copy)?;
                        put_field(out, number, &copy);
                    } else if (message, number) == (Message::Tensor, RAW_DATA) && len >= LONG_BYTES
                    {
                        piece = Some((self.at, len));
                        self.pass(len);
                    } else {
                        put_varint(out, key);
                        self.copy(len, len, end, out)?;
                    }
                }
                _ => return Err(malformed()),
            }
        }
        if let (Some((offset, len)), false) = (piece, is_external) {
            let (offset, len) = (offset.to_string(), len.to_string());
            for (name, value) in [("location", ITSELF), ("offset", &offset), ("length", &len)] {
                let mut entry = Vec::new();
                put_field(&mut entry, 1, name.as_bytes());
                put_field(&mut entry, 2, value.as_bytes());
                put_field(out, EXTERNAL_DATA, &entry);
            }
            // The last one counts.
            put_varint(out, DATA_LOCATION << 3);
            put_varint(out, EXTERNAL);
        }
        match self.at == end {
            true => Ok(()),
            false => Err(malformed()),
        }
    }

    /// Copies a varint that was read, and `len` bytes behind it.
    fn copy(&mut self, before: u64, len: u64, end: u64, out: &mut Vec<u8>) -> io::Result<()> {
        if len > end - self.at {
            return Err(malformed());
        }
        put_varint(out, before);
        let mut left = usize::try_from(len).map_err(|_| malformed())?;
        out.try_reserve(left).map_err(|_| ErrorKind::OutOfMemory)?;
        while left > 0 {
            self.fill()?;
            let some = left.min(self.chunk.len() - self.next);
            out.extend_from_slice(&self.chunk[self.next..][..some]);
            self.pass(some as u64);
            left -= some;
        }
        Ok(())
    }

    fn varint(&mut self, end: u64) -> io::Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.at >= end {
                return Err(malformed());
            }
            self.fill()?;
            let byte = self.chunk[self.next];
            self.pass(1);
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed())
    }

    /// Makes sure that the chunk has the next byte.
    fn fill(&mut self) -> io::Result<()> {
        if self.next < self.chunk.len() {
            return Ok(());
        }
        self.chunk.resize(CHUNK_BYTES, 0);
        let read = self.file.read_at(&mut self.chunk, self.at);
        self.chunk.truncate(*read.as_ref().unwrap_or(&0));
        self.next = 0;
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn pass(&mut self, len: u64) {
        self.at += len;
        let next = usize::try_from(len)
            .ok()
            .and_then(|len| self.next.checked_add(len));
        self.next = next.map_or(self.chunk.len(), |next| next.min(self.chunk.len()));
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_field(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use lethe_engine::onnx::{self, proto};
    use prost::Message;

    use super::*;

    fn outline_of(bytes: &[u8]) -> io::Result<Vec<u8>> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "lethe-outline-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        let outline = read(&File::open(&path).unwrap(), bytes.len() as u64);
        std::fs::remove_file(path).unwrap();
        outline
    }

    fn tensor(raw: Option<Vec<u8>>, floats: usize) -> proto::Tensor {
        proto::Tensor {
            name: Some("w".into()),
            dims: vec![-1, i64::MAX],
            data_type: Some(1),
            raw_data: raw.map(Into::into),
            float_data: vec![1.5; floats],
            ..Default::default()
        }
    }

    fn model(tensor: &proto::Tensor) -> proto::Model {
        let sparse = proto::SparseTensor {
            values: Some(tensor.clone()),
            indices: Some(tensor.clone()),
            dims: vec![3],
        };
        let inner = proto::Graph {
            initializer: vec![tensor.clone()],
            sparse_initializer: vec![sparse.clone()],
            ..Default::default()
        };
        let attribute = proto::Attribute {
            name: Some("a".into()),
            f: Some(0.5),
            t: Some(tensor.clone()),
            tensors: vec![tensor.clone(); 2],
            g: Some(inner.clone()),
            graphs: vec![inner.clone()],
            sparse_tensor: Some(sparse.clone()),
            sparse_tensors: vec![sparse],
            ..Default::default()
        };
        let node = proto::Node {
            op_type: Some("N".repeat(100_000)),
            attribute: vec![attribute.clone()],
            ..Default::default()
        };
        proto::Model {
            ir_version: Some(i64::MAX),
            opset_import: vec![proto::OperatorSetId::default()],
            graph: Some(proto::Graph {
                node: vec![node.clone()],
                ..inner
            }),
            functions: vec![proto::Function {
                node: vec![node],
                attribute_proto: vec![attribute],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn what_is_short_is_copied_and_what_is_long_is_named_wherever_it_is() {
        let short = LONG_BYTES as usize - 1;
        for tensor in [
            tensor(None, 5000),
            tensor(Some(vec![7; short]), 0),
            tensor(None, 0),
        ] {
            let model = model(&tensor);
            let outline = outline_of(&model.encode_to_vec()).unwrap();
            assert!(proto::Model::decode(&outline[..]).unwrap() == model);
        }
        let long: Vec<u8> = (0..short + 1).map(|i| i as u8).collect();
        let whole = model(&tensor(Some(long.clone()), 0)).encode_to_vec();
        let outline = outline_of(&whole).unwrap();
        // What the model is without them, and a name for each.
        let rest = model(&tensor(None, 0)).encode_to_vec().len();
        let places = (whole.len() - rest) / long.len();
        assert!(places > 20 && outline.len() < rest + places * 100);
        struct Itself(Vec<u8>);
        impl onnx::external_data::ExternalData for Itself {
            fn open(&self, location: &str) -> Result<bytes::Bytes, String> {
                assert_eq!(location, ITSELF);
                Ok(self.0.clone().into())
            }
        }
        let mut found = proto::Model::decode(&outline[..]).unwrap();
        onnx::external_data::take_in(&mut found, &Itself(whole.clone())).unwrap();
        assert!(found == proto::Model::decode(&whole[..]).unwrap());
    }

    #[test]
    fn data_that_a_tensor_says_are_elsewhere_stay_there() {
        let mut tensor = tensor(Some(vec![7; 5000]), 0);
        tensor.data_location = Some(1);
        let entry = |key: &str, value: &str| proto::StringStringEntry {
            key: Some(key.into()),
            value: Some(value.into()),
        };
        tensor.external_data = vec![entry("location", "w"), entry("length", "8")];
        let outline = outline_of(&model(&tensor).encode_to_vec()).unwrap();
        let found = proto::Model::decode(&outline[..]).unwrap();
        let found = &found.graph.unwrap().initializer[0];
        assert_eq!(found.external_data, tensor.external_data);
    }

    #[test]
    fn what_is_not_written_as_messages_are_is_malformed() {
        let whole = model(&tensor(Some(vec![7; 5000]), 3)).encode_to_vec();
        // The end of a field is no error: that is a shorter message.
        let cut = (1..200).filter(|cut| outline_of(&whole[..whole.len() - cut]).is_err());
        assert!(cut.count() > 150);
        let deep = (0..200).fold(Vec::new(), |inner, _| {
            let mut attribute = Vec::new();
            put_field(&mut attribute, 6, &inner);
            let mut node = Vec::new();
            put_field(&mut node, 5, &attribute);
            let mut graph = Vec::new();
            put_field(&mut graph, 1, &node);
            graph
        });
        let mut all = Vec::new();
        put_field(&mut all, 7, &deep);
        for bytes in [&b"not a model"[..], &[0xff; 100], &[0x3a, 0x7f], &all] {
            let error = outline_of(bytes).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::InvalidData,
                "{:?}",
                &bytes[..bytes.len().min(20)]
            );
        }
    }
}
