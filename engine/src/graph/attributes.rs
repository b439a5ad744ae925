//! A node's attributes, read by name and type.

use std::collections::BTreeMap;

use crate::error::OpError;
use crate::tensor::{DataType, Tensor, ValueKind};

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A number.
    Float(f32),
    /// An integer.
    Int(i64),
    /// Text (bytes that are not UTF-8 are refused at load).
    String(String),
    /// A tensor.
    Tensor(Tensor),
    /// Numbers.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Texts.
    Strings(Vec<String>),
    /// Tensors.
    Tensors(Vec<Tensor>),
    /// A subgraph: the index into the node's subgraphs.
    Graph(usize),
    /// A type.
    Type(ValueKind),
}

impl Attribute {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Float(_) => "a float",
            Self::Int(_) => "an int",
            Self::String(_) => "a string",
            Self::Tensor(_) => "a tensor",
            Self::Floats(_) => "floats",
            Self::Ints(_) => "ints",
            Self::Strings(_) => "strings",
            Self::Tensors(_) => "tensors",
            Self::Graph(_) => "a graph",
            Self::Type(_) => "a type",
        }
    }
}

/// A node's attributes by name, with the counts of its inputs and outputs and the opset, which
/// some operators' meaning depends on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes {
    map: BTreeMap<String, Attribute>,
    /// Opset version that the model imports for the node's domain.
    pub opset: i64,
    /// Number of outputs that the node lists.
    pub output_count: usize,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident, $optional:ident: $variant:ident => $get:ty, $type_name:literal;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// When it is absent or of another type.
            pub fn $name(&self, name: &str) -> Result<&$get, OpError> {
                self.$optional(name)?.ok_or_else(|| OpError::MissingAttribute { name: name.into() })
            }

            /// The same, `None` where it is absent.
            ///
            /// # Errors
            /// When it is of another type.
            pub fn $optional(&self, name: &str) -> Result<Option<&$get>, OpError> {
                match self.map.get(name) {
                    None => Ok(None),
                    Some(Attribute::$variant(value)) => Ok(Some(value)),
                    Some(other) => Err(OpError::Attribute {
                        name: name.into(),
                        expected: $type_name.into(),
                        found: other.type_name().into(),
                    }),
                }
            }
        )*
    };
}

impl Attributes {
    getters! {
        /// A number.
        float, optional_float: Float => f32, "a float";
        /// An integer.
        int, optional_int: Int => i64, "an int";
        /// Text.
        string, optional_string: String => str, "a string";
        /// A tensor.
        tensor, optional_tensor: Tensor => Tensor, "a tensor";
        /// Numbers.
        floats, optional_floats: Floats => [f32], "floats";
        /// Integers.
        ints, optional_ints: Ints => [i64], "ints";
        /// Texts.
        strings, optional_strings: Strings => [String], "strings";
        /// Tensors.
        tensors, optional_tensors: Tensors => [Tensor], "tensors";
        /// A subgraph's index in the node's subgraphs.
        graph, optional_graph: Graph => usize, "a graph";
        /// A type.
        value_kind, optional_value_kind: Type => ValueKind, "a type";
    }

    /// No attributes, for an opset and a number of outputs.
    pub fn new(opset: i64, output_count: usize) -> Self {
        Self {
            map: BTreeMap::new(),
            opset,
            output_count,
        }
    }

    /// Adds or replaces an attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: Attribute) -> Self {
        self.insert(name, value);
        self
    }

    /// Adds or replaces an attribute.
    pub fn insert(&mut self, name: &str, value: Attribute) {
        self.map.insert(name.into(), value);
    }

    /// The attribute of any type.
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.map.get(name)
    }

    /// All attributes in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.map.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// A number, or `default`.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn float_or(&self, name: &str, default: f32) -> Result<f32, OpError> {
        Ok(self.optional_float(name)?.copied().unwrap_or(default))
    }

    /// An integer, or `default`.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64, OpError> {
        Ok(self.optional_int(name)?.copied().unwrap_or(default))
    }

    /// Whether an integer is not zero, or `default`.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, OpError> {
        Ok(self.int_or(name, default.into())? != 0)
    }

    /// Text, or `default`.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn string_or<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, OpError> {
        Ok(self.optional_string(name)?.unwrap_or(default))
    }

    /// An element type given by its code, as in `to` and `dtype`.
    ///
    /// # Errors
    /// When it is of another type or no known code.
    pub fn optional_data_type(&self, name: &str) -> Result<Option<DataType>, OpError> {
        let Some(&code) = self.optional_int(name)? else {
            return Ok(None);
        };
        let known = i32::try_from(code).ok().and_then(DataType::from_code);
        known.map(Some).ok_or_else(|| OpError::Attribute {
            name: name.into(),
            expected: "an element type".into(),
            found: code.to_string(),
        })
    }
}
