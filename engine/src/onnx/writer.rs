//! Writing small models: for tests, examples and tools.
//!
//! ```
//! use lethe_engine::onnx::writer::ModelWriter;
//! use lethe_engine::{DataType, Session, SessionOptions, Tensor, Value};
//!
//! let model = ModelWriter::new(13)
//!     .input("x", DataType::Int64, &["n"])
//!     .node("ConstantOfShape", &["x"], &["y"], vec![])
//!     .output("y")
//!     .to_bytes();
//! let session = Session::load(model, &SessionOptions::default())?;
//! let shape = Tensor::from_slice(&[2], &[1i64, 3])?;
//! let outputs = session.run(&[("x", Value::Tensor(shape))])?;
//! assert_eq!(outputs[0].1.as_tensor()?.shape(), [1, 3]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use bytes::Bytes;
use prost::Message;

use super::proto::{self, AttributeType};
use super::values::tensor_to_proto;
use crate::graph::attributes::Attribute;
use crate::tensor::{DataType, Tensor};

/// A model that is being written.
#[derive(Debug, Clone)]
pub struct ModelWriter {
    model: proto::Model,
}

impl ModelWriter {
    /// An empty model that imports a version of the standard's operators.
    pub fn new(opset: i64) -> Self {
        let model = proto::Model {
            ir_version: Some(10),
            graph: Some(proto::Graph {
                name: Some("graph".into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        Self { model }.import("", opset)
    }

    fn graph(&mut self) -> &mut proto::Graph {
        self.model.graph.get_or_insert_default()
    }

    /// Imports a version of a domain's operators.
    #[must_use]
    pub fn import(mut self, domain: &str, version: i64) -> Self {
        self.model.opset_import.push(proto::OperatorSetId {
            domain: Some(domain.into()),
            version: Some(version),
        });
        self
    }

    /// Adds an input; dimensions are numbers or names.
    #[must_use]
    pub fn input(mut self, name: &str, data_type: DataType, dims: &[&str]) -> Self {
        use proto::DimensionValue;
        let dim = |text: &&str| proto::Dimension {
            value: Some(match text.parse() {
                Ok(number) => DimensionValue::Value(number),
                Err(_) => DimensionValue::Param((*text).into()),
            }),
        };
        let shape = proto::TensorShape {
            dim: dims.iter().map(dim).collect(),
        };
        let tensor = proto::TensorType {
            elem_type: Some(data_type as i32),
            shape: Some(shape),
        };
        self.graph().input.push(proto::ValueInfo {
            name: Some(name.into()),
            r#type: Some(proto::Type {
                value: Some(proto::TypeValue::Tensor(tensor)),
            }),
        });
        self
    }

    /// Adds a constant.
    #[must_use]
    pub fn constant(mut self, name: &str, tensor: &Tensor) -> Self {
        self.graph().initializer.push(tensor_to_proto(name, tensor));
        self
    }

    /// Adds a node of the standard's operators; an empty name is an absent input or output.
    #[must_use]
    pub fn node(
        self,
        op_type: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<(&str, Attribute)>,
    ) -> Self {
        self.node_of("", op_type, inputs, outputs, attributes)
    }

    /// Adds a node of another domain.
    #[must_use]
    pub fn node_of(
        mut self,
        domain: &str,
        op_type: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<(&str, Attribute)>,
    ) -> Self {
        let own = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let node = proto::Node {
            input: own(inputs),
            output: own(outputs),
            op_type: Some(op_type.into()),
            domain: Some(domain.into()),
            attribute: attributes
                .iter()
                .map(|(name, value)| attribute(name, value))
                .collect(),
            ..Default::default()
        };
        self.graph().node.push(node);
        self
    }

    /// Makes a value an output.
    #[must_use]
    pub fn output(mut self, name: &str) -> Self {
        self.graph().output.push(proto::ValueInfo {
            name: Some(name.into()),
            r#type: None,
        });
        self
    }

    /// The message, to be changed by hand.
    pub fn into_model(self) -> proto::Model {
        self.model
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.model.encode_to_vec().into()
    }
}

/// The message of an attribute; subgraphs and types are not written.
fn attribute(name: &str, value: &Attribute) -> proto::Attribute {
    let mut message = proto::Attribute {
        name: Some(name.into()),
        ..Default::default()
    };
    let text = |s: &String| Bytes::from(s.clone());
    let kind = match value {
        Attribute::Float(v) => {
            message.f = Some(*v);
            AttributeType::Float
        }
        Attribute::Int(v) => {
            message.i = Some(*v);
            AttributeType::Int
        }
        Attribute::String(v) => {
            message.s = Some(text(v));
            AttributeType::String
        }
        Attribute::Tensor(v) => {
            message.t = Some(tensor_to_proto("", v));
            AttributeType::Tensor
        }
        Attribute::Floats(v) => {
            message.floats.clone_from(v);
            AttributeType::Floats
        }
        Attribute::Ints(v) => {
            message.ints.clone_from(v);
            AttributeType::Ints
        }
        Attribute::Strings(v) => {
            message.strings = v.iter().map(text).collect();
            AttributeType::Strings
        }
        Attribute::Tensors(v) => {
            message.tensors = v.iter().map(|t| tensor_to_proto("", t)).collect();
            AttributeType::Tensors
        }
        Attribute::Graph(_) | Attribute::Type(_) => AttributeType::Undefined,
    };
    message.r#type = Some(kind as i32);
    message
}
