//! Errors of loading and running a model.
//!
//! An operator says *what* is wrong ([`OpError`]); the graph adds *where* ([`NodeName`]) and makes
//! it an [`Error`], whose [`code`](Error::code) is stable and the same at every door.

use std::fmt;

use crate::limits::{Ended, Shortage};
use crate::tensor::{DataType, Shape};

/// Which node of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName {
    /// The node's name, or `#i` for the i-th node of its graph where it has none.
    pub name: String,
    /// The operator's type, such as `Conv`.
    pub op_type: String,
    /// The operator's domain, `ai.onnx` for the default one.
    pub domain: String,
    /// The opset version the model imports for that domain.
    pub opset: i64,
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "node {:?} ({}.{}, opset {})",
            self.name, self.domain, self.op_type, self.opset
        )
    }
}

/// Anything that can go wrong between a model's bytes and its outputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not an ONNX model.
    #[error("not an ONNX model: {reason}")]
    Malformed {
        /// What was wrong with them.
        reason: String,
    },
    /// The graph breaks a rule of ONNX.
    #[error("invalid graph: {reason}")]
    InvalidGraph {
        /// Which rule and where.
        reason: String,
    },
    /// A version newer than any that is known: what it means is not known either.
    #[error("{what} {found} is newer than the newest known, {newest}")]
    Version {
        /// The version of what: `opset` with its domain, `IR version`.
        what: String,
        /// The version that the model has.
        found: i64,
        /// The newest known.
        newest: i64,
    },
    /// No implementation of a node's operator.
    #[error("{node}: unknown operator")]
    UnknownOperator {
        /// The node.
        node: Box<NodeName>,
    },
    /// External data that cannot be had.
    #[error("external data of {tensor:?}: {reason}")]
    ExternalData {
        /// The initializer's name.
        tensor: String,
        /// What was wrong.
        reason: String,
    },
    /// A node was rejected at load or failed in a run.
    #[error("{node}: {source}")]
    Node {
        /// The node.
        node: Box<NodeName>,
        /// What was wrong.
        source: OpError,
    },
    /// An input that the model needs was not given.
    #[error("missing input {name:?}: the model needs {expected}")]
    MissingInput {
        /// The input's name.
        name: String,
        /// All the inputs the model needs.
        expected: String,
    },
    /// An input that the model does not have was given.
    #[error("unknown input {name:?}: the model has {expected}")]
    UnknownInput {
        /// The name that was given.
        name: String,
        /// All the inputs the model has.
        expected: String,
    },
    /// An output that the model does not have was asked for.
    #[error("unknown output {name:?}: the model has {expected}")]
    UnknownOutput {
        /// The name that was given.
        name: String,
        /// All the outputs the model has.
        expected: String,
    },
    /// An input of the wrong type.
    #[error("input {name:?}: expected {expected}, found {found}")]
    InputType {
        /// The input's name.
        name: String,
        /// The type the model declares.
        expected: String,
        /// The type that was given.
        found: String,
    },
    /// An input of the wrong shape.
    #[error("input {name:?}: expected shape {expected}, found {found}")]
    InputShape {
        /// The input's name.
        name: String,
        /// The shape the model declares.
        expected: String,
        /// The shape that was given.
        found: String,
    },
    /// A limit of the session's `Budget` would be exceeded.
    #[error("budget exceeded: {what} needs {needed}, the limit is {limit}")]
    Budget {
        /// Which limit.
        what: &'static str,
        /// What was asked for.
        needed: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Memory that is not to be had: the run may not have more, or there is no more.
    #[error("too large: {0}")]
    Memory(#[from] Shortage),
    /// The device cannot do what was asked.
    #[error("device {device}: {reason}")]
    Device {
        /// The device's name.
        device: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<Shortage> for OpError {
    fn from(shortage: Shortage) -> Self {
        Self::TooLarge {
            what: shortage.to_string(),
        }
    }
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Stopped => Self::Cancelled,
            Ended::Shortage(shortage) => shortage.into(),
        }
    }
}

impl From<Ended> for OpError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Stopped => Self::Subgraph(Box::new(Error::Cancelled)),
            Ended::Shortage(shortage) => shortage.into(),
        }
    }
}

impl Error {
    /// A stable code that every door shows and `docs/errors.md` explains.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "LETHE-MODEL-MALFORMED",
            Self::InvalidGraph { .. } => "LETHE-MODEL-INVALID",
            Self::Version { .. } => "LETHE-MODEL-VERSION",
            Self::UnknownOperator { .. } => "LETHE-OPERATOR-UNKNOWN",
            Self::ExternalData { .. } => "LETHE-MODEL-EXTERNAL-DATA",
            Self::Node { source, .. } => source.code(),
            Self::MissingInput { .. } => "LETHE-INPUT-MISSING",
            Self::UnknownInput { .. } => "LETHE-INPUT-UNKNOWN",
            Self::UnknownOutput { .. } => "LETHE-OUTPUT-UNKNOWN",
            Self::InputType { .. } => "LETHE-INPUT-TYPE",
            Self::InputShape { .. } => "LETHE-INPUT-SHAPE",
            Self::Budget { .. } | Self::Memory(_) => "LETHE-BUDGET",
            Self::Device { .. } => "LETHE-DEVICE",
            Self::Cancelled => "LETHE-CANCELLED",
        }
    }

    /// Bytes that are not an ONNX model.
    pub fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed {
            reason: reason.into(),
        }
    }

    /// A graph that breaks a rule of ONNX.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::InvalidGraph {
            reason: reason.into(),
        }
    }
}

/// What an operator can complain of. Inputs are named as in the operator's specification (`X`,
/// `scales`).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// A required input is absent.
    #[error("input {input} is missing")]
    MissingInput {
        /// Its name.
        input: &'static str,
    },
    /// An element type the operator does not take.
    #[error("input {input}: expected {expected}, found {found}")]
    InputType {
        /// Its name.
        input: &'static str,
        /// The types that are taken.
        expected: String,
        /// The type found.
        found: DataType,
    },
    /// A tensor was read as another element type than it has.
    #[error("expected a tensor of {expected}, found one of {found}")]
    ElementType {
        /// The type asked for.
        expected: DataType,
        /// The type found.
        found: DataType,
    },
    /// A tensor where a sequence should be, or the like.
    #[error("expected a {expected}, found a {found}")]
    ValueKind {
        /// The kind asked for.
        expected: String,
        /// The kind found.
        found: String,
    },
    /// Shapes that do not fit the operator or each other.
    #[error("{input}: expected {expected}, found {found}")]
    Shape {
        /// The input's name.
        input: String,
        /// What would fit.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A value out of its range: an axis, an index, a repeat count.
    #[error("{what}: expected {expected}, found {found}")]
    Value {
        /// What it is.
        what: String,
        /// The range.
        expected: String,
        /// The value.
        found: String,
    },
    /// A required attribute is absent.
    #[error("attribute {name} is missing")]
    MissingAttribute {
        /// Its name.
        name: String,
    },
    /// An attribute of the wrong type or value.
    #[error("attribute {name}: expected {expected}, found {found}")]
    Attribute {
        /// Its name.
        name: String,
        /// What would fit.
        expected: String,
        /// What was found.
        found: String,
    },
    /// An attribute that the operator does not have, or not in the node's opset.
    #[error("attribute {name} is unknown: {known}")]
    UnknownAttribute {
        /// Its name.
        name: String,
        /// What the operator has instead, or in which opsets it has it.
        known: String,
    },
    /// More inputs or outputs than the operator has.
    #[error(
        "{found} {what}{}, the operator has {}",
        if *found == 1 { "" } else { "s" },
        if *most == 0 { "none".into() } else { format!("at most {most}: {known}") },
    )]
    Surplus {
        /// `input` or `output`.
        what: &'static str,
        /// How many the node has.
        found: usize,
        /// How many the operator has at most.
        most: usize,
        /// Their names.
        known: String,
    },
    /// Something the specification allows and this implementation does not have.
    #[error("unsupported: {what}")]
    Unsupported {
        /// What.
        what: String,
    },
    /// Bytes that do not match the shape.
    #[error("{data_type} tensor of shape {shape:?} takes {expected} bytes, found {found}")]
    ByteLength {
        /// The element type.
        data_type: DataType,
        /// The shape.
        shape: Shape,
        /// Bytes (or strings) it takes.
        expected: usize,
        /// Bytes (or strings) there were.
        found: usize,
    },
    /// A size beyond what can be addressed or was allowed.
    #[error("too large: {what}")]
    TooLarge {
        /// What.
        what: String,
    },
    /// A subgraph of the node failed.
    #[error("in its subgraph: {0}")]
    Subgraph(Box<Error>),
    /// The device that the node runs on failed.
    #[error("device {device}: {reason}")]
    Device {
        /// The device's name.
        device: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// A fact the engine relies on does not hold: a defect in Lethe.
    #[error("internal error: {what}")]
    Internal {
        /// Which fact.
        what: String,
    },
}

impl OpError {
    /// A stable code, as [`Error::code`].
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingInput { .. } => "LETHE-NODE-INPUT-MISSING",
            Self::InputType { .. } | Self::ElementType { .. } | Self::ValueKind { .. } => {
                "LETHE-NODE-TYPE"
            }
            Self::Shape { .. } | Self::ByteLength { .. } => "LETHE-NODE-SHAPE",
            Self::Value { .. } => "LETHE-NODE-VALUE",
            Self::MissingAttribute { .. }
            | Self::Attribute { .. }
            | Self::UnknownAttribute { .. } => "LETHE-NODE-ATTRIBUTE",
            Self::Surplus { .. } => "LETHE-NODE-SURPLUS",
            Self::Unsupported { .. } => "LETHE-UNSUPPORTED",
            Self::TooLarge { .. } => "LETHE-BUDGET",
            Self::Subgraph(error) => error.code(),
            Self::Device { .. } => "LETHE-DEVICE",
            Self::Internal { .. } => "LETHE-INTERNAL",
        }
    }

    /// A [`OpError::Shape`].
    pub fn shape(
        input: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Shape {
            input: input.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A [`OpError::Value`].
    pub fn value(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl fmt::Display,
    ) -> Self {
        Self::Value {
            what: what.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    /// A [`OpError::Unsupported`].
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}
