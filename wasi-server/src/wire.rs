//! Values as bytes: a compact binary form in which every ONNX value has a place.
//!
//! ```text
//! value    := 0 tensor | 1 kind u32 value*        sequence: element kind, count, elements
//!           | 2 keys tensor                       map: keys, then values [count]
//!           | 3 kind u8 value?                    optional: element kind, present?, element
//! tensor   := type:u8 rank:u8 dim:u64* elements
//! elements := padding to 64, bytes                fixed-size types: as many as shape and type say
//!           | (u32 utf-8)*                        strings
//! keys     := type:u8 u32 (i64* | (u32 utf-8)*)
//! kind     := 0 type:u8 | 1 kind | 2 key:u8 value:u8 | 3 kind
//! named    := u32 (name:(u32 utf-8) value)*
//! ```
//!
//! Numbers are little-endian. Elements begin at a multiple of 64 from the start of the message, so
//! that a reader whose buffer is aligned can use them where they lie: tensors of a decoded message
//! are slices of it. A reader trusts nothing: lengths are checked before anything is allocated,
//! and nesting is limited.

use bytes::Bytes;
use lethe_engine::tensor::{Map, MapKeys, OptionalValue, Sequence, Storage, element_count};
use lethe_engine::{DataType, Tensor, Value, ValueKind};

use crate::octets::MAX_RANK;

/// Deepest nesting of sequences and optionals that is read.
const MAX_DEPTH: usize = 16;
/// Alignment of fixed-size elements from the start of a message.
const ALIGNMENT: usize = 64;

/// A message that does not follow the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message at byte {offset}: expected {expected}, found {found}")]
pub struct WireError {
    /// Where reading stopped.
    pub offset: usize,
    /// What the format has there.
    pub expected: &'static str,
    /// What was there.
    pub found: String,
}

/// Writes a message.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty message with room for so many bytes: one that fits them never moves, so that
    /// wiping it once is enough.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// The finished message.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A length as four bytes.
    ///
    /// # Panics
    /// When it takes more: messages live in 32-bit memories.
    pub fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).expect("a message is smaller than 4 GiB"));
    }

    /// Text with its length.
    pub fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Bytes with their length, aligned to 64.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.aligned(bytes);
    }

    /// A message of its own, which is read as [`Reader::blob`].
    pub fn nested(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.length(0);
        self.aligned(&[]);
        let start = self.bytes.len();
        write(self);
        let len = u32::try_from(self.bytes.len() - start);
        let len = len.expect("a message is smaller than 4 GiB");
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Values with their names.
    pub fn named_values<'a>(
        &mut self,
        values: impl ExactSizeIterator<Item = (&'a str, &'a Value)>,
    ) {
        self.length(values.len());
        for (name, value) in values {
            self.text(name);
            self.value(value);
        }
    }

    /// A value.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Tensor(tensor) => {
                self.u8(0);
                self.tensor(tensor);
            }
            Value::Sequence(sequence) => {
                self.u8(1);
                self.kind(&sequence.element);
                self.length(sequence.values.len());
                for value in &sequence.values {
                    self.value(value);
                }
            }
            Value::Map(map) => {
                self.u8(2);
                match &map.keys {
                    MapKeys::Integers(data_type, keys) => {
                        self.u8(*data_type as u8);
                        self.length(keys.len());
                        for key in keys {
                            self.u64(key.cast_unsigned());
                        }
                    }
                    MapKeys::Strings(keys) => {
                        self.u8(DataType::String as u8);
                        self.length(keys.len());
                        for key in keys {
                            self.text(key);
                        }
                    }
                }
                self.tensor(&map.values);
            }
            Value::Optional(optional) => {
                self.u8(3);
                self.kind(&optional.element);
                self.u8(optional.value.is_some() as u8);
                if let Some(value) = &optional.value {
                    self.value(value);
                }
            }
        }
    }

    fn kind(&mut self, kind: &ValueKind) {
        match kind {
            ValueKind::Tensor(data_type) => self.bytes.extend([0, *data_type as u8]),
            ValueKind::Sequence(element) => {
                self.u8(1);
                self.kind(element);
            }
            ValueKind::Map(key, value) => self.bytes.extend([2, *key as u8, *value as u8]),
            ValueKind::Optional(element) => {
                self.u8(3);
                self.kind(element);
            }
        }
    }

    fn tensor(&mut self, tensor: &Tensor) {
        self.u8(tensor.data_type() as u8);
        self.u8(u8::try_from(tensor.shape().len()).expect("no tensor has more than 255 axes"));
        for &dim in tensor.shape() {
            self.u64(dim as u64);
        }
        match tensor.storage() {
            Storage::Bytes(bytes) => self.aligned(bytes),
            Storage::Strings(strings) => strings.iter().for_each(|text| self.text(text)),
        }
    }

    fn aligned(&mut self, bytes: &[u8]) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads a message; what it gives are slices of it.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    offset: usize,
}

impl Reader {
    /// A reader at the start of a message.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// When something is.
    pub fn end(&self) -> Result<(), WireError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error("the end", format!("{left} more bytes"))),
        }
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// What is wrong where the reader is.
    pub fn error(&self, expected: &'static str, found: impl Into<String>) -> WireError {
        WireError {
            offset: self.offset,
            expected,
            found: found.into(),
        }
    }

    fn take(&mut self, len: usize, expected: &'static str) -> Result<Bytes, WireError> {
        if len > self.remaining() {
            let found = format!("{} bytes where {len} are needed", self.remaining());
            return Err(self.error(expected, found));
        }
        let taken = self.bytes.slice(self.offset..self.offset + len);
        self.offset += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], WireError> {
        match self
            .bytes
            .get(self.offset..)
            .and_then(|rest| rest.first_chunk::<N>())
        {
            Some(chunk) => {
                let chunk = *chunk;
                self.offset += N;
                Ok(chunk)
            }
            None => Err(self.error(expected, format!("{} bytes", self.remaining()))),
        }
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end of the message.
    pub fn u8(&mut self, expected: &'static str) -> Result<u8, WireError> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// At the end of the message.
    pub fn u32(&mut self, expected: &'static str) -> Result<u32, WireError> {
        self.array(expected).map(u32::from_le_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// At the end of the message.
    pub fn u64(&mut self, expected: &'static str) -> Result<u64, WireError> {
        self.array(expected).map(u64::from_le_bytes)
    }

    /// How many things follow, each of at least `min_bytes`: never more than can be there.
    ///
    /// # Errors
    /// When the message is too short for them.
    pub fn count(&mut self, min_bytes: usize, expected: &'static str) -> Result<usize, WireError> {
        let count = self.u32(expected)? as usize;
        if count > self.remaining() / min_bytes {
            return Err(self.error(expected, format!("{count} in {} bytes", self.remaining())));
        }
        Ok(count)
    }

    /// Text with its length.
    ///
    /// # Errors
    /// When it does not fit or is not UTF-8.
    pub fn text(&mut self, expected: &'static str) -> Result<String, WireError> {
        let len = self.count(1, expected)?;
        let bytes = self.take(len, expected)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.error(expected, error.to_string())),
        }
    }

    /// Bytes with their length, aligned to 64.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn blob(&mut self, expected: &'static str) -> Result<Bytes, WireError> {
        let len = self.u32(expected)? as usize;
        self.align(expected)?;
        self.take(len, expected)
    }

    fn align(&mut self, expected: &'static str) -> Result<(), WireError> {
        self.take(
            self.offset.next_multiple_of(ALIGNMENT) - self.offset,
            expected,
        )
        .map(drop)
    }

    /// Values with their names.
    ///
    /// # Errors
    /// When they do not follow the format.
    pub fn named_values(&mut self) -> Result<Vec<(String, Value)>, WireError> {
        let count = self.count(5, "a number of values")?;
        (0..count)
            .map(|_| Ok((self.text("a value's name")?, self.value()?)))
            .collect()
    }

    /// A value.
    ///
    /// # Errors
    /// When it does not follow the format.
    pub fn value(&mut self) -> Result<Value, WireError> {
        self.nested_value(MAX_DEPTH)
    }

    fn nested_value(&mut self, depth: usize) -> Result<Value, WireError> {
        if depth == 0 {
            return Err(self.error("a value", format!("nesting deeper than {MAX_DEPTH}")));
        }
        match self.u8("a value")? {
            0 => Ok(Value::Tensor(self.tensor()?)),
            1 => {
                let element = self.kind(MAX_DEPTH)?;
                let count = self.count(1, "a sequence's length")?;
                let values = (0..count).map(|_| {
                    let value = self.nested_value(depth - 1)?;
                    self.expect_kind(&element, &value)?;
                    Ok(value)
                });
                let values = values.collect::<Result<_, WireError>>()?;
                Ok(Value::Sequence(Sequence { element, values }))
            }
            2 => {
                let keys = self.map_keys()?;
                let values = self.tensor()?;
                if values.shape() != [keys.len()] {
                    let found = format!("shape {:?} for {} keys", values.shape(), keys.len());
                    return Err(self.error("one value a key", found));
                }
                Ok(Value::Map(Map { keys, values }))
            }
            3 => {
                let element = self.kind(MAX_DEPTH)?;
                let value = match self.u8("whether an optional has a value")? {
                    0 => None,
                    1 => {
                        let value = self.nested_value(depth - 1)?;
                        self.expect_kind(&element, &value)?;
                        Some(Box::new(value))
                    }
                    other => return Err(self.error("0 or 1", other.to_string())),
                };
                Ok(Value::Optional(OptionalValue { element, value }))
            }
            other => Err(self.error("a kind of value", other.to_string())),
        }
    }

    fn expect_kind(&self, expected: &ValueKind, value: &Value) -> Result<(), WireError> {
        match value.kind() {
            kind if kind == *expected => Ok(()),
            kind => Err(self.error("an element of the declared kind", kind.to_string())),
        }
    }

    fn map_keys(&mut self) -> Result<MapKeys, WireError> {
        use DataType::{Int8, Int16, Int32, Int64, String, Uint8, Uint16, Uint32, Uint64};
        match self.data_type()? {
            String => {
                let count = self.count(4, "a map's length")?;
                let keys = (0..count).map(|_| self.text("a key"));
                Ok(MapKeys::Strings(keys.collect::<Result<_, _>>()?))
            }
            integer @ (Int8 | Int16 | Int32 | Int64 | Uint8 | Uint16 | Uint32 | Uint64) => {
                let count = self.count(8, "a map's length")?;
                let keys = (0..count).map(|_| self.u64("a key").map(u64::cast_signed));
                Ok(MapKeys::Integers(integer, keys.collect::<Result<_, _>>()?))
            }
            other => Err(self.error("an integer or string key type", other.to_string())),
        }
    }

    fn data_type(&mut self) -> Result<DataType, WireError> {
        let code = self.u8("an element type")?;
        DataType::from_code(code.into())
            .ok_or_else(|| self.error("an element type", code.to_string()))
    }

    fn kind(&mut self, depth: usize) -> Result<ValueKind, WireError> {
        if depth == 0 {
            return Err(self.error("a kind", format!("nesting deeper than {MAX_DEPTH}")));
        }
        match self.u8("a kind")? {
            0 => Ok(ValueKind::Tensor(self.data_type()?)),
            1 => Ok(ValueKind::Sequence(Box::new(self.kind(depth - 1)?))),
            2 => Ok(ValueKind::Map(self.data_type()?, self.data_type()?)),
            3 => Ok(ValueKind::Optional(Box::new(self.kind(depth - 1)?))),
            other => Err(self.error("a kind", other.to_string())),
        }
    }

    fn tensor(&mut self) -> Result<Tensor, WireError> {
        let data_type = self.data_type()?;
        let rank = usize::from(self.u8("a rank")?);
        if rank > MAX_RANK {
            return Err(self.error("a rank of at most 64", rank.to_string()));
        }
        let mut shape = Vec::with_capacity(rank);
        for _ in 0..rank {
            let dim = self.u64("a size")?;
            let dim = usize::try_from(dim).map_err(|_| self.error("a size", dim.to_string()))?;
            shape.push(dim);
        }
        let elements = element_count(&shape)
            .ok_or_else(|| self.error("a shape that fits memory", format!("{shape:?}")))?;
        let tensor = if data_type == DataType::String {
            if elements > self.remaining() / 4 {
                let found = format!("{elements} in {} bytes", self.remaining());
                return Err(self.error("strings", found));
            }
            let strings = (0..elements).map(|_| self.text("a string"));
            Tensor::from_strings(&shape, strings.collect::<Result<_, _>>()?)
        } else {
            let len = data_type
                .size_bytes(elements)
                .ok_or_else(|| self.error("a shape that fits memory", format!("{shape:?}")))?;
            self.align("elements")?;
            Tensor::from_bytes(data_type, &shape, self.take(len, "elements")?)
        };
        let tensor = tensor.map_err(|error| self.error("a tensor", error.to_string()))?;
        Ok(tensor.aligned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind_of_value() -> Vec<Value> {
        let float = Tensor::from_slice(&[2, 3], &[1.0f32, -0.0, f32::NAN, 4.0, 5.0, 6.0]).unwrap();
        let text = Tensor::from_strings(&[2], vec!["λήθη".into(), String::new()]).unwrap();
        let packed = Tensor::from_bytes(DataType::Int4, &[3], vec![0x21, 0x03]).unwrap();
        let scalar = Tensor::scalar(7i64);
        let empty = Tensor::from_slice::<f64>(&[0, 4], &[]).unwrap();
        vec![
            Value::Tensor(float.clone()),
            Value::Tensor(text.clone()),
            Value::Tensor(packed),
            Value::Tensor(scalar),
            Value::Tensor(empty),
            Value::Sequence(Sequence {
                element: ValueKind::Tensor(DataType::Float32),
                values: vec![Value::Tensor(float.clone()), Value::Tensor(float)],
            }),
            Value::Sequence(Sequence {
                element: ValueKind::Sequence(Box::new(ValueKind::Map(
                    DataType::Int64,
                    DataType::Float32,
                ))),
                values: vec![],
            }),
            Value::Map(Map {
                keys: MapKeys::Integers(DataType::Int64, vec![-1, 5]),
                values: text.clone(),
            }),
            Value::Map(Map {
                keys: MapKeys::Strings(vec!["a".into()]),
                values: Tensor::from_slice(&[1], &[0.5f32]).unwrap(),
            }),
            Value::Optional(OptionalValue {
                element: ValueKind::Tensor(DataType::String),
                value: Some(Box::new(Value::Tensor(text))),
            }),
            Value::Optional(OptionalValue {
                element: ValueKind::Tensor(DataType::Bool),
                value: None,
            }),
        ]
    }

    fn encode(values: &[Value]) -> Vec<u8> {
        let mut writer = Writer::new();
        let names: Vec<String> = (0..values.len()).map(|i| format!("value {i}")).collect();
        writer.named_values(names.iter().map(String::as_str).zip(values));
        writer.finish()
    }

    fn decode(bytes: Vec<u8>) -> Result<Vec<(String, Value)>, WireError> {
        let mut reader = Reader::new(bytes.into());
        let values = reader.named_values()?;
        reader.end()?;
        Ok(values)
    }

    #[test]
    fn every_kind_of_value_round_trips() {
        let values = every_kind_of_value();
        let decoded = decode(encode(&values)).unwrap();
        assert_eq!(decoded.len(), values.len());
        for (i, ((name, found), expected)) in decoded.iter().zip(&values).enumerate() {
            assert_eq!(name, &format!("value {i}"));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn elements_lie_at_multiples_of_64() {
        let marker = [0x5au8; 32];
        let value = Value::Tensor(Tensor::from_slice(&[32], &marker).unwrap());
        let bytes = encode(&[value]);
        let at = bytes.windows(32).position(|window| window == marker);
        assert_eq!(at.map(|at| at % ALIGNMENT), Some(0));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encode(&every_kind_of_value());
        for len in 0..bytes.len() {
            assert!(
                decode(bytes[..len].to_vec()).is_err(),
                "{len} of {} bytes",
                bytes.len()
            );
        }
    }

    #[test]
    fn hostile_bytes_give_errors_without_panic_or_large_allocation() {
        let original = encode(&every_kind_of_value());
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut errors = 0;
        for _ in 0..20_000 {
            let mut bytes = original.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            errors += decode(bytes).is_err() as usize;
        }
        assert!(
            errors > 1_000,
            "only {errors} of 20000 mutations were noticed"
        );
        // A shape whose bytes cannot be there.
        let mut writer = Writer::new();
        for byte in [0, DataType::Float32 as u8, 2] {
            writer.u8(byte);
        }
        writer.u64(1 << 20);
        writer.u64(1 << 20);
        assert!(Reader::new(writer.finish().into()).value().is_err());
        // Sequences in sequences in sequences.
        let nested: Vec<u8> = [1, 0, 1, 1, 0, 0, 0].repeat(1000);
        assert!(Reader::new(nested.into()).value().is_err());
    }
}
