//! Puts the branch of an `If` whose condition is constant in its place, and gives subgraphs the
//! captured values that have become constants as constants of their own.

use std::collections::HashMap;

use crate::error::NodeName;
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::kernels::env::Env;
use crate::operators::ONNX_DOMAIN;
use crate::tensor::Bool;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    let nodes = std::mem::take(&mut graph.nodes);
    for mut node in nodes {
        changes += hand_down_constants(graph, &mut node);
        match branch(graph, &node) {
            Some(index) => {
                inline(graph, node, index);
                changes += 1;
            }
            None => graph.nodes.push(node),
        }
    }
    changes
}

/// Makes constants of the captures that are constant outside.
fn hand_down_constants(graph: &Graph, node: &mut Node) -> usize {
    let mut changes = 0;
    let own = node.inputs.len() - node.captures;
    for i in (0..node.captures).rev() {
        let Some(tensor) = graph.constant(node.inputs[own + i]).cloned() else {
            continue;
        };
        for subgraph in &mut node.subgraphs {
            let at = subgraph.inputs.len() - node.captures + i;
            let id = subgraph.inputs.remove(at);
            subgraph.constants.insert(id, tensor.clone());
        }
        node.inputs.remove(own + i);
        node.captures -= 1;
        changes += 1;
    }
    changes
}

/// Which subgraph of an `If` runs, where that is known.
fn branch(graph: &Graph, node: &Node) -> Option<usize> {
    if !node.is("If") {
        return None;
    }
    let condition = graph
        .constant(node.input(0))?
        .view()
        .single::<Bool>()
        .ok()?;
    let name = if condition.get() {
        "then_branch"
    } else {
        "else_branch"
    };
    let index = *node.attributes.graph(name).ok()?;
    let outputs = node.subgraphs.get(index)?.outputs.len();
    (outputs >= node.outputs.len()).then_some(index)
}

/// Adds the nodes of a subgraph to the graph, and replaces the outputs of the node by its outputs.
fn inline(graph: &mut Graph, mut node: Node, index: usize) {
    let captured = node.inputs.len() - node.captures;
    let subgraph = node.subgraphs.swap_remove(index);
    let mut ids: HashMap<ValueId, ValueId> = subgraph
        .inputs
        .iter()
        .zip(&node.inputs[captured..])
        .filter_map(|(inner, outer)| Some((*inner, (*outer)?)))
        .collect();
    for (i, value) in subgraph.values.into_iter().enumerate() {
        let inner = ValueId(i as u32);
        ids.entry(inner).or_insert_with(|| {
            let name = format!("{}/{}", node.name.name, value.name);
            graph.add_value(name, value.value_type)
        });
    }
    for (inner, tensor) in subgraph.constants {
        graph.constants.insert(ids[&inner], tensor);
    }
    for mut inner in subgraph.nodes {
        for id in inner.inputs.iter_mut().chain(&mut inner.outputs).flatten() {
            *id = ids[id];
        }
        graph.nodes.push(inner);
    }
    // Uses of the outputs come later, in nodes that are not in the graph yet; the removal of
    // identities finds them all.
    for (outer, inner) in node.outputs.iter().zip(&subgraph.outputs) {
        let Some(outer) = *outer else { continue };
        let name = NodeName {
            name: format!("{}/{}", node.name.name, graph.value(outer).name),
            op_type: "Identity".into(),
            domain: ONNX_DOMAIN.into(),
            opset: 1,
        };
        let attributes = Attributes::new(1, 1);
        let inputs = [Some(ids[inner])];
        graph
            .nodes
            .extend(graph.make_node(name, attributes, &inputs, &[Some(outer)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ValueType;
    use crate::graph::attributes::Attribute;
    use crate::tensor::Tensor;

    /// `If(condition)` of two constants, `1` and `2`.
    fn two_branches(condition: bool) -> Graph {
        let mut graph = Graph::default();
        let condition = graph.add_constant("condition", Tensor::scalar(Bool::from(condition)));
        let output = graph.add_value("y", ValueType::UNKNOWN);
        let branch = |value: f32| {
            let mut branch = Graph::default();
            let id = branch.add_constant("value", Tensor::scalar(value));
            branch.outputs.push(id);
            branch
        };
        let attributes = Attributes::new(16, 1)
            .with("else_branch", Attribute::Graph(0))
            .with("then_branch", Attribute::Graph(1));
        let name = NodeName {
            name: "if".into(),
            op_type: "If".into(),
            domain: ONNX_DOMAIN.into(),
            opset: 16,
        };
        let mut node = graph
            .make_node(name, attributes, &[Some(condition)], &[Some(output)])
            .expect("If is in the table");
        node.subgraphs = vec![branch(2.0), branch(1.0)];
        graph.nodes.push(node);
        graph.outputs.push(output);
        graph
    }

    #[test]
    fn the_branch_that_runs_takes_the_place_of_the_if() {
        for (condition, expected) in [(true, 1.0f32), (false, 2.0)] {
            let mut graph = two_branches(condition);
            assert_eq!(apply(&mut graph, &Env::default()), 1);
            super::super::identity::apply(&mut graph, &Env::default());
            assert!(graph.nodes.is_empty(), "{:?}", graph.nodes);
            let output = graph.constant(Some(graph.outputs[0]));
            assert_eq!(output, Some(&Tensor::scalar(expected)));
        }
    }
}
