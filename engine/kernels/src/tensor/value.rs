//! Everything a model's input, output or intermediate value can be.

use super::{DataType, Tensor};
use crate::error::OpError;

/// A tensor, sequence, map or optional.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// A sequence of values of one kind.
    Sequence(Sequence),
    /// A map.
    Map(Map),
    /// Something or nothing.
    Optional(OptionalValue),
}

/// A sequence; the kind of its elements is known even where it is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// What the elements are.
    pub element: ValueKind,
    /// The elements, all of kind `element`.
    pub values: Vec<Value>,
}

/// A map from integers or strings to tensors' elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// The keys, in order.
    pub keys: MapKeys,
    /// The values, one a key: a tensor of shape `[keys]`.
    pub values: Tensor,
}

/// Keys of a [`Map`].
#[derive(Debug, Clone, PartialEq)]
pub enum MapKeys {
    /// Integer keys of the given element type.
    Integers(DataType, Vec<i64>),
    /// String keys.
    Strings(Vec<String>),
}

impl MapKeys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(_, keys) => keys.len(),
            Self::Strings(keys) => keys.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An optional value; the kind is known even where there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct OptionalValue {
    /// What the value is or would be.
    pub element: ValueKind,
    /// The value.
    pub value: Option<Box<Value>>,
}

/// The type of a value, without shapes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// A tensor of this element type.
    Tensor(DataType),
    /// A sequence of such values.
    Sequence(Box<ValueKind>),
    /// A map with this key type (an integer or string) to tensors of such elements.
    Map(DataType, DataType),
    /// An optional of such a value.
    Optional(Box<ValueKind>),
}

impl Value {
    /// The kind of this value.
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::Tensor(tensor) => ValueKind::Tensor(tensor.data_type()),
            Self::Sequence(sequence) => ValueKind::Sequence(Box::new(sequence.element.clone())),
            Self::Map(map) => ValueKind::Map(
                match &map.keys {
                    MapKeys::Integers(data_type, _) => *data_type,
                    MapKeys::Strings(_) => DataType::String,
                },
                map.values.data_type(),
            ),
            Self::Optional(optional) => ValueKind::Optional(Box::new(optional.element.clone())),
        }
    }

    /// The tensor.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn as_tensor(&self) -> Result<&Tensor, OpError> {
        match self {
            Self::Tensor(tensor) => Ok(tensor),
            other => Err(OpError::ValueKind {
                expected: "tensor".into(),
                found: other.kind().to_string(),
            }),
        }
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl std::fmt::Display for ValueKind {
    /// ONNX's spelling, such as `seq(tensor(float))`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tensor(data_type) => write!(f, "tensor({data_type})"),
            Self::Sequence(element) => write!(f, "seq({element})"),
            Self::Map(key, value) => write!(f, "map({key},{value})"),
            Self::Optional(element) => write!(f, "optional({element})"),
        }
    }
}

impl std::str::FromStr for ValueKind {
    type Err = String;

    /// Parses ONNX's spelling, such as `seq(map(int64,float))`.
    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("unknown kind of value {text:?}");
        let inside = |word: &str| {
            text.strip_prefix(word)?
                .strip_prefix('(')?
                .strip_suffix(')')
        };
        if let Some(element) = inside("tensor") {
            return Ok(Self::Tensor(element.parse()?));
        }
        if let Some(element) = inside("seq") {
            return Ok(Self::Sequence(Box::new(element.parse()?)));
        }
        if let Some(element) = inside("optional") {
            return Ok(Self::Optional(Box::new(element.parse()?)));
        }
        let (key, value) = inside("map")
            .and_then(|m| m.split_once(','))
            .ok_or_else(unknown)?;
        Ok(Self::Map(key.parse()?, value.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for text in [
            "tensor(float)",
            "seq(tensor(string))",
            "seq(map(int64,float))",
            "optional(seq(tensor(float16)))",
        ] {
            let kind: ValueKind = text.parse().expect("a known kind");
            assert_eq!(kind.to_string(), text);
        }
        for text in [
            "",
            "tensor",
            "tensor(float",
            "map(int64)",
            "seq()",
            "list(tensor(float))",
        ] {
            assert!(text.parse::<ValueKind>().is_err(), "{text:?}");
        }
    }
}
