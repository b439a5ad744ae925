//! Finding shapes of nodes in a graph.

use crate::error::NodeName;
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::operators::LETHE_DOMAIN;
use crate::tensor::{DataType, Tensor};
use half::{bf16, f16};

/// The types that fused operators compute with in f32.
pub(super) const F32_LIKE: &[DataType] =
    &[DataType::Float32, DataType::Float16, DataType::Bfloat16];

/// Who makes and who uses each value of a graph. Stays true enough while nodes are replaced by others
/// that make the same values: what these do not read any more counts as used until the dead nodes
/// go.
pub(super) struct Links {
    producers: Vec<Option<usize>>,
    uses: Vec<usize>,
    /// The last node that reads the value.
    users: Vec<Option<usize>>,
}

impl Links {
    pub(super) fn new(graph: &Graph) -> Self {
        let mut users = vec![None; graph.values.len()];
        for (i, node) in graph.nodes.iter().enumerate() {
            for id in node.inputs.iter().flatten() {
                users[id.index()] = Some(i);
            }
        }
        Self {
            producers: graph.producers(),
            uses: graph.use_counts(),
            users,
        }
    }

    pub(super) fn of<'g>(&'g self, graph: &'g Graph) -> Pattern<'g> {
        Pattern { graph, links: self }
    }
}

/// A graph with who makes and who uses each value.
///
/// What is asked of types and sizes here is [proved](Graph::proved), if nothing else is said.
pub(super) struct Pattern<'g> {
    pub(super) graph: &'g Graph,
    links: &'g Links,
}

impl<'g> Pattern<'g> {
    /// The node that makes a value, if it is one of the standard's `op_type`.
    pub(super) fn made_by(&self, id: Option<ValueId>, op_type: &str) -> Option<&'g Node> {
        self.producer(id).filter(|node| is(node, op_type))
    }

    /// The node that makes a value.
    pub(super) fn producer(&self, id: Option<ValueId>) -> Option<&'g Node> {
        Some(&self.graph.nodes[self.producer_index(id)?])
    }

    /// The index of the node that makes a value.
    pub(super) fn producer_index(&self, id: Option<ValueId>) -> Option<usize> {
        *self.links.producers.get(id?.index())?
    }

    /// The same, where nobody else uses the value, so that the node can vanish.
    pub(super) fn only_for_this(&self, id: Option<ValueId>, op_type: &str) -> Option<&'g Node> {
        self.made_by(id, op_type).filter(|_| self.is_used_once(id))
    }

    /// Whether a value has one use.
    pub(super) fn is_used_once(&self, id: Option<ValueId>) -> bool {
        id.is_some_and(|id| self.links.uses.get(id.index()) == Some(&1))
    }

    /// The node that reads a value of one use, and its index; none where that is an output of the
    /// graph.
    pub(super) fn only_user(&self, id: ValueId) -> Option<(usize, &'g Node)> {
        let user = *self.links.users.get(id.index())?;
        let i = user.filter(|_| self.is_used_once(Some(id)))?;
        Some((i, &self.graph.nodes[i]))
    }

    /// The number that a value is, if it is a constant of one element.
    pub(super) fn number(&self, id: Option<ValueId>) -> Option<f64> {
        number(self.graph.constant(id)?)
    }

    /// The same where it is computed with the value `x`: of a result that is surely of the shape of
    /// `x`, which ones in front of the number's shape could lengthen.
    pub(super) fn number_for(&self, id: Option<ValueId>, x: Option<ValueId>) -> Option<f64> {
        let rank = self.graph.constant(id)?.shape().len();
        let fits = rank == 0 || self.rank(x).is_some_and(|of_x| rank <= of_x);
        self.number(id).filter(|_| fits)
    }

    /// Whether a value is the constant `expected`, as nearly as its type has it, and leaves the
    /// shape of `x` as it is.
    pub(super) fn is_number(&self, id: Option<ValueId>, expected: f64, x: Option<ValueId>) -> bool {
        let Some(data_type) = self.graph.constant(id).map(Tensor::data_type) else {
            return false;
        };
        // Numbers such as 2 and 0.5 are exact in every type; roots come rounded, some of them from
        // a few decimal digits.
        let is_exact = f64::from(f16::from_f64(expected)) == expected;
        let tolerance = match data_type {
            _ if is_exact => 0.0,
            DataType::Float16 => 1e-3,
            DataType::Bfloat16 => 8e-3,
            DataType::Float64 => 1e-9,
            _ => 5e-6,
        };
        self.number_for(id, x)
            .is_some_and(|n| (n - expected).abs() <= tolerance * expected.abs())
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
        Some(self.graph.proved(id?).dims.as_ref()?.len())
    }

    /// The size of a value's last axis, where it is a number.
    pub(super) fn last_size(&self, id: Option<ValueId>) -> Option<usize> {
        self.graph.proved(id?).dims.as_ref()?.last()?.known()
    }

    /// The element type of a value.
    pub(super) fn data_type(&self, id: Option<ValueId>) -> Option<DataType> {
        self.graph.proved(id?).data_type()
    }

    /// Whether a value is of a type of real numbers.
    pub(super) fn is_real(&self, id: Option<ValueId>) -> bool {
        self.is_f32_like(id) || self.data_type(id) == Some(DataType::Float64)
    }

    /// Whether a value is of a type that fused operators compute with in f32.
    pub(super) fn is_f32_like(&self, id: Option<ValueId>) -> bool {
        let data_type = self.data_type(id);
        data_type.is_some_and(|data_type| F32_LIKE.contains(&data_type))
    }

    /// Whether a value is a constant vector of `n` numbers.
    pub(super) fn is_vector(&self, id: Option<ValueId>, n: usize) -> bool {
        let constant = self.graph.constant(id);
        constant.is_some_and(|t| t.shape() == [n] && t.data_type() == DataType::Float32)
    }

    /// The sum of a value that is used once and a constant vector of `n` numbers: the index of the
    /// node, the vector and what is computed.
    pub(super) fn bias_added(&self, y: ValueId, n: usize) -> Option<(usize, ValueId, ValueId)> {
        let (i, node) = self.only_user(y)?;
        if !is(node, "Add") {
            return None;
        }
        let bias = self.other(node, |id| id == Some(y))?;
        let is_vector = self.is_vector(Some(bias), n);
        Some((i, bias, node.output(0)?)).filter(|_| is_vector)
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

/// Whether a node is of the standard's `op_type`, and broadcasts as numpy does if it broadcasts:
/// before opset 7 an attribute may lay an input along other axes.
pub(super) fn is(node: &Node, op_type: &str) -> bool {
    node.is(op_type) && (node.name.opset >= 7 || !lies_along_axis(node))
}

fn lies_along_axis(node: &Node) -> bool {
    let is_arithmetic = ["Add", "Sub", "Mul", "Div", "Pow"].contains(&&*node.name.op_type);
    is_arithmetic && !matches!(node.attributes.optional_int("axis"), Ok(None))
}

fn number(tensor: &Tensor) -> Option<f64> {
    if tensor.len() != 1 {
        return None;
    }
    let tensor = tensor.clone().aligned();
    match tensor.data_type() {
        DataType::Float32 => Some(f64::from(tensor.as_slice::<f32>().ok()?[0])),
        DataType::Float64 => Some(tensor.as_slice::<f64>().ok()?[0]),
        DataType::Float16 => Some(f64::from(tensor.as_slice::<f16>().ok()?[0])),
        DataType::Bfloat16 => Some(f64::from(tensor.as_slice::<bf16>().ok()?[0])),
        DataType::Int64 => Some(tensor.as_slice::<i64>().ok()?[0] as f64),
        DataType::Int32 => Some(f64::from(tensor.as_slice::<i32>().ok()?[0])),
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
