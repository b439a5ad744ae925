//! Small graphs for the tests of rewrites.

use crate::error::NodeName;
use crate::graph::{Attributes, Graph, ValueId, ValueType};
use crate::operators::ONNX_DOMAIN;

/// Attributes of a node of opset 17, still empty.
pub(super) fn plain() -> Attributes {
    Attributes::new(17, 1)
}

/// Adds a node of the standard's opset 17 with one output, which it returns.
pub(super) fn add(
    graph: &mut Graph,
    op_type: &str,
    attributes: Attributes,
    inputs: &[ValueId],
) -> ValueId {
    let name = NodeName {
        name: op_type.into(),
        op_type: op_type.into(),
        domain: ONNX_DOMAIN.into(),
        opset: 17,
    };
    let output = graph.add_value(op_type, ValueType::UNKNOWN);
    let inputs: Vec<_> = inputs.iter().map(|&id| Some(id)).collect();
    let node = graph.make_node(name, attributes, &inputs, &[Some(output)]);
    graph.nodes.push(node.expect("an operator of the table"));
    output
}
