//! The typed graph: values, nodes, subgraphs and what is known of them before data comes.
//!
//! A [`Graph`] is in topological order and in static single assignment form: every value has one
//! producer, which is a graph input, a constant, or an output of one node. A subgraph (of `If`,
//! `Loop`, `Scan`) is a graph of its own: what it takes from the graph around it is among its
//! inputs, after the ones that the operator gives it, and among the inputs of its node, after the
//! ones of the operator. So nothing needs to look outwards, and lifetimes are plain to see.

pub mod attributes;
mod build;
pub mod dimension;
mod functions;
pub mod inference;
mod order;

pub use attributes::Attributes;
pub use build::{BuildOptions, build, inputs_with_defaults, opset_versions};
pub use dimension::{Dim, Dims, Int, Ints};

use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::NodeName;
use crate::operator::Operator;
use crate::tensor::{DataType, Tensor, ValueKind};

/// Constants that shapes follow from (shapes, axes, factors) are no larger.
const SMALL_BYTES: usize = 64 << 10;
/// Constants may be computed from others up to so many bytes in all, and this many times those that the
/// model has: weights that are kept as bytes are widened once, not in each run.
const FOLDED_BYTES: usize = 64 << 20;
pub(crate) const WIDENING: usize = 8;

/// Index of a value in [`Graph::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

impl ValueId {
    /// The index as `usize`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a value: its kind, and for tensors the axes.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueType {
    /// The kind of the value; `None` where not even that is known yet.
    pub kind: Option<ValueKind>,
    /// Sizes of the axes; `None` where not even their number is known, or for other kinds.
    pub dims: Option<Dims>,
}

impl ValueType {
    /// Nothing known.
    pub const UNKNOWN: Self = Self {
        kind: None,
        dims: None,
    };

    /// A tensor.
    pub fn tensor(data_type: DataType, dims: Option<Dims>) -> Self {
        Self {
            kind: Some(ValueKind::Tensor(data_type)),
            dims,
        }
    }

    /// The element type, where the value is a tensor.
    pub fn data_type(&self) -> Option<DataType> {
        match self.kind {
            Some(ValueKind::Tensor(data_type)) => Some(data_type),
            _ => None,
        }
    }
}

/// A named value.
#[derive(Debug, Clone)]
pub struct ValueInfo {
    /// Its name in the model; values made by rewrites have one too.
    pub name: Arc<str>,
    /// What is known of it.
    pub value_type: ValueType,
}

/// An occurrence of an operator.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name, operator, domain and opset, for messages and profiles.
    pub name: Arc<NodeName>,
    /// Inputs in the operator's order, `None` where an optional one is absent; after them what
    /// the subgraphs capture.
    pub inputs: SmallVec<[Option<ValueId>; 4]>,
    /// Outputs in the operator's order, `None` where nobody asks for one.
    pub outputs: SmallVec<[Option<ValueId>; 2]>,
    /// The attributes as the model gives them.
    pub attributes: Attributes,
    /// The operator, parsed.
    pub operator: Arc<dyn Operator>,
    /// Subgraphs, in the order of the attributes' names; [`Attributes::graph`] gives the index.
    pub subgraphs: Vec<Graph>,
    /// How many of `inputs`, at their end, are captures of the subgraphs.
    pub captures: usize,
}

impl Node {
    /// Whether the operator is `op_type` of the standard domain.
    pub fn is(&self, op_type: &str) -> bool {
        self.name.domain == crate::operators::ONNX_DOMAIN && self.name.op_type == op_type
    }

    /// The `i`-th input, where it is present.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// The `i`-th output, where it is wanted.
    pub fn output(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }
}

/// A graph in topological order.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// All values; [`ValueId`]s index them.
    pub values: Vec<ValueInfo>,
    /// All nodes, producers before consumers.
    pub nodes: Vec<Node>,
    /// Values given from outside. For a subgraph the captures come last.
    pub inputs: Vec<ValueId>,
    /// Values that are the result; one may be an input or a constant, and may occur twice.
    pub outputs: Vec<ValueId>,
    /// Values known at load.
    pub constants: BTreeMap<ValueId, Tensor>,
    /// Bytes of the constants that were added, whether they are there still.
    added_bytes: usize,
    /// Bytes of those that were computed from others.
    folded_bytes: usize,
    /// By value, what [`inference`] could prove.
    proved: Vec<ValueType>,
}

impl Graph {
    /// What is proved of the outputs.
    pub(crate) fn proved_outputs(&self) -> Vec<ValueType> {
        let outputs = self.outputs.iter();
        outputs.map(|&id| self.proved(id).clone()).collect()
    }

    /// Adds a value.
    pub fn add_value(&mut self, name: impl Into<Arc<str>>, value_type: ValueType) -> ValueId {
        self.values.push(ValueInfo {
            name: name.into(),
            value_type,
        });
        ValueId(self.values.len() as u32 - 1)
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: impl Into<Arc<str>>, tensor: Tensor) -> ValueId {
        let id = self.add_value(name, ValueType::UNKNOWN);
        self.make_constant(id, tensor);
        id
    }

    /// Makes a value a constant.
    fn make_constant(&mut self, id: ValueId, tensor: Tensor) {
        // Weights borrowed from a file may begin at any byte: what is known must not depend on that.
        let is_small = tensor.bytes().len() <= SMALL_BYTES;
        let tensor = if is_small { tensor.aligned() } else { tensor };
        self.added_bytes = self.added_bytes.saturating_add(tensor.bytes().len());
        self.set_constant(id, tensor);
    }

    fn set_constant(&mut self, id: ValueId, tensor: Tensor) {
        let dims = tensor.shape().iter().map(|&d| Dim::Known(d)).collect();
        self.values[id.index()].value_type = ValueType::tensor(tensor.data_type(), Some(dims));
        self.constants.insert(id, tensor);
    }

    /// Makes values constants that were computed from others, unless there were too many bytes of such:
    /// from little a model may make much, in every node anew.
    pub(crate) fn fold(&mut self, made: Vec<(ValueId, Tensor)>) -> bool {
        let bytes: usize = made.iter().map(|(_, tensor)| tensor.bytes().len()).sum();
        let folded = self.folded_bytes.saturating_add(bytes);
        let most = self.added_bytes.saturating_mul(WIDENING);
        if folded > most.saturating_add(FOLDED_BYTES) {
            return false;
        }
        self.folded_bytes = folded;
        made.into_iter()
            .for_each(|(id, tensor)| self.set_constant(id, tensor));
        true
    }

    /// The constant that a value is, if it is one.
    pub fn constant(&self, id: Option<ValueId>) -> Option<&Tensor> {
        self.constants.get(&id?)
    }

    /// What is known of a value, as far as the model's declarations are true.
    pub fn value(&self, id: ValueId) -> &ValueInfo {
        &self.values[id.index()]
    }

    /// What is true of a value in every run that takes the inputs: nothing here rests on what the
    /// model declares of inner values, and axes of two inputs have two names even where it gives
    /// them one. For values that were added since the last inference nothing is.
    pub fn proved(&self, id: ValueId) -> &ValueType {
        self.proved.get(id.index()).unwrap_or(&ValueType::UNKNOWN)
    }

    /// For each value, the index of the node that makes it.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut producers = vec![None; self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for output in node.outputs.iter().flatten() {
                producers[output.index()] = Some(i);
            }
        }
        producers
    }

    /// For each value, how often nodes and graph outputs use it.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        let used = self.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        for id in used.chain(&self.outputs) {
            counts[id.index()] += 1;
        }
        counts
    }

    /// A node of an operator from the table, with outputs that exist already; `None` where this
    /// build does not have the operator or it does not take the attributes.
    pub fn make_node(
        &self,
        name: NodeName,
        attributes: Attributes,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
    ) -> Option<Node> {
        let entry = crate::operators::find(&name.domain, &name.op_type, name.opset)?;
        let operator = (entry.parse)(&attributes).ok()?;
        Some(Node {
            name: Arc::new(name),
            inputs: inputs.into(),
            outputs: outputs.into(),
            attributes,
            operator: operator.into(),
            subgraphs: Vec::new(),
            captures: 0,
        })
    }

    /// Nodes of this graph and of all below it.
    pub fn node_count(&self) -> usize {
        let below = self
            .nodes
            .iter()
            .flat_map(|n| &n.subgraphs)
            .map(Self::node_count);
        self.nodes.len() + below.sum::<usize>()
    }
}
