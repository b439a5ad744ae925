//! Finding shapes of nodes in a graph.

use crate::error::NodeName;
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::operators::LETHE_DOMAIN;
use crate::tensor::{DataType, Tensor};
use half::f16;

/// A graph with who makes and who uses each value.
pub(super) struct Pattern<'g> {
    pub(super) graph: &'g Graph,
    producers: Vec<Option<usize>>,
    uses: Vec<usize>,
}

impl<'g> Pattern<'g> {
    pub(super) fn new(graph: &'g Graph) -> Self {
        Self {
            graph,
            producers: graph.producers(),
            uses: graph.use_counts(),
        }
    }

    /// The node that makes a value, if it is one of the standard's `op_type`.
    pub(super) fn made_by(&self, id: Option<ValueId>, op_type: &str) -> Option<&'g Node> {
        self.producer(id).filter(|node| node.is(op_type))
    }

    /// The node that makes a value.
    pub(super) fn producer(&self, id: Option<ValueId>) -> Option<&'g Node> {
        Some(&self.graph.nodes[self.producer_index(id)?])
    }

    /// The index of the node that makes a value.
    pub(super) fn producer_index(&self, id: Option<ValueId>) -> Option<usize> {
        self.producers[id?.index()]
    }

    /// The same, where nobody else uses the value, so that the node can vanish.
    pub(super) fn only_for_this(&self, id: Option<ValueId>, op_type: &str) -> Option<&'g Node> {
        self.made_by(id, op_type).filter(|_| self.is_used_once(id))
    }

    /// Whether a value has one use.
    pub(super) fn is_used_once(&self, id: Option<ValueId>) -> bool {
        id.is_some_and(|id| self.uses[id.index()] == 1)
    }

    /// The number that a value is, if it is a constant of one element.
    pub(super) fn number(&self, id: Option<ValueId>) -> Option<f32> {
        number(self.graph.constant(id)?)
    }

    /// Whether a value is the constant `expected`, give or take rounding to half precision.
    pub(super) fn is_number(&self, id: Option<ValueId>, expected: f32) -> bool {
        self.number(id)
            .is_some_and(|n| (n - expected).abs() <= 1e-3 * expected.abs())
    }

    /// The other input of a commutative node of two, where one of them is as wanted.
    pub(super) fn other(
        &self,
        node: &Node,
        is_wanted: impl Fn(Option<ValueId>) -> bool,
    ) -> Option<ValueId> {
        match (node.input(0), node.input(1)) {
            (a, b) if is_wanted(b) => a,
            (a, b) if is_wanted(a) => b,
            _ => None,
        }
    }

    /// The operands of a commutative node with the one made by `op_type` first.
    pub(super) fn with_made_by(
        &self,
        node: &Node,
        op_type: &str,
    ) -> Option<(&'g Node, Option<ValueId>)> {
        let (a, b) = (node.input(0), node.input(1));
        let first = self.made_by(a, op_type).map(|made| (made, b));
        first.or_else(|| self.made_by(b, op_type).map(|made| (made, a)))
    }

    /// Axes of a reduction or the like, from the attribute or the constant input.
    pub(super) fn axes(&self, node: &Node) -> Option<Vec<i64>> {
        match node.attributes.optional_ints("axes").ok()? {
            Some(axes) => Some(axes.to_vec()),
            None => {
                let axes = self.graph.constant(node.input(1))?.clone().aligned();
                Some(axes.view().to_i64s().ok()?.to_vec())
            }
        }
    }

    /// Number of axes of a value.
    pub(super) fn rank(&self, id: Option<ValueId>) -> Option<usize> {
        Some(self.graph.value(id?).value_type.dims.as_ref()?.len())
    }

    /// Whether a value is a constant vector of `n` numbers.
    pub(super) fn is_vector(&self, id: Option<ValueId>, n: usize) -> bool {
        let constant = self.graph.constant(id);
        constant.is_some_and(|t| t.shape() == [n] && t.data_type() == DataType::Float32)
    }

    /// The sum of a value that is used once and a constant vector of `n` numbers: the index of the
    /// node, the vector and what is computed.
    pub(super) fn bias_added(&self, y: ValueId, n: usize) -> Option<(usize, ValueId, ValueId)> {
        if !self.is_used_once(Some(y)) {
            return None;
        }
        let nodes = self.graph.nodes.iter().enumerate();
        let mut sums = nodes.filter(|(_, node)| node.is("Add"));
        sums.find_map(|(i, node)| {
            let bias = self.other(node, |id| id == Some(y))?;
            let is_vector = self.is_vector(Some(bias), n);
            Some((i, bias, node.output(0)?)).filter(|_| is_vector)
        })
    }

    /// Whether `axes` of a value are only its last one.
    pub(super) fn is_last_axis(&self, axes: &[i64], id: Option<ValueId>) -> bool {
        match (axes, self.rank(id)) {
            ([-1], _) => true,
            (&[axis], Some(rank)) => axis + 1 == rank as i64,
            _ => false,
        }
    }
}

fn number(tensor: &Tensor) -> Option<f32> {
    if tensor.len() != 1 {
        return None;
    }
    let tensor = tensor.clone().aligned();
    match tensor.data_type() {
        DataType::Float32 => Some(tensor.as_slice::<f32>().ok()?[0]),
        DataType::Float64 => Some(tensor.as_slice::<f64>().ok()?[0] as f32),
        DataType::Float16 => Some(tensor.as_slice::<f16>().ok()?[0].to_f32()),
        DataType::Int64 => Some(tensor.as_slice::<i64>().ok()?[0] as f32),
        DataType::Int32 => Some(tensor.as_slice::<i32>().ok()?[0] as f32),
        _ => None,
    }
}

/// The name of a node that stands for `node` and more, as an operator of another type.
pub(super) fn renamed(node: &Node, domain: &str, op_type: &str, opset: i64) -> NodeName {
    NodeName {
        name: node.name.name.clone(),
        op_type: op_type.into(),
        domain: domain.into(),
        opset,
    }
}

/// A node of one of Lethe's own operators in the place of `node`, making `output`; `None` where
/// this build does not have it.
pub(super) fn fused(
    graph: &Graph,
    node: &Node,
    op_type: &str,
    attributes: Attributes,
    inputs: &[Option<ValueId>],
    output: Option<ValueId>,
) -> Option<Node> {
    let name = renamed(node, LETHE_DOMAIN, op_type, 1);
    graph.make_node(name, attributes, inputs, &[output])
}
