//! Topological order of a graph's nodes, and the proof that there is one.

use std::collections::HashMap;

use crate::error::Error;
use crate::onnx::proto;

/// Indices of `nodes`, producers first; nodes that do not depend on each other keep their order.
/// What subgraphs use from around them counts as an input of their node.
///
/// # Errors
/// [`Error::InvalidGraph`] where nodes depend on each other in a circle, naming one of them.
pub(super) fn sorted(nodes: &[proto::Node]) -> Result<Vec<usize>, Error> {
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            if producer.insert(output, i).is_some() {
                return Err(Error::invalid(format!(
                    "value {output:?} is produced twice"
                )));
            }
        }
    }
    let mut waiting_for = vec![0usize; nodes.len()];
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        let mut needed: Vec<usize> = Vec::new();
        visit_names(node, &mut |name| needed.extend(producer.get(name)));
        needed.sort_unstable();
        needed.dedup();
        waiting_for[i] = needed.len();
        for p in needed {
            consumers[p].push(i);
        }
    }
    // A heap of ready nodes keeps the file's order wherever that is one of the valid ones.
    let mut ready: std::collections::BinaryHeap<std::cmp::Reverse<usize>> = (0..nodes.len())
        .filter(|&i| waiting_for[i] == 0)
        .map(std::cmp::Reverse)
        .collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(std::cmp::Reverse(i)) = ready.pop() {
        order.push(i);
        for &consumer in &consumers[i] {
            waiting_for[consumer] -= 1;
            if waiting_for[consumer] == 0 {
                ready.push(std::cmp::Reverse(consumer));
            }
        }
    }
    match waiting_for.iter().position(|&n| n > 0) {
        None => Ok(order),
        Some(i) => Err(Error::invalid(format!(
            "the graph is cyclic: node {:?} ({}) depends on its own output",
            nodes[i].name.as_deref().unwrap_or_default(),
            nodes[i].op_type.as_deref().unwrap_or_default(),
        ))),
    }
}

/// Calls `visit` with every name that a node reads, those in its subgraphs included (also the ones
/// that are defined there, which no producer around them has).
fn visit_names<'a>(node: &'a proto::Node, visit: &mut dyn FnMut(&'a str)) {
    for name in &node.input {
        visit(name);
    }
    for graph in node
        .attribute
        .iter()
        .flat_map(|a| a.g.iter().chain(&a.graphs))
    {
        for inner in &graph.node {
            visit_names(inner, visit);
        }
        for output in &graph.output {
            visit(output.name.as_deref().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(inputs: &[&str], outputs: &[&str]) -> proto::Node {
        proto::Node {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: outputs.iter().map(ToString::to_string).collect(),
            op_type: Some("Add".into()),
            ..Default::default()
        }
    }

    #[test]
    fn nodes_are_sorted_and_circles_found() {
        let nodes = [
            node(&["b"], &["c"]),
            node(&["a"], &["b"]),
            node(&["x"], &["d"]),
        ];
        assert_eq!(sorted(&nodes), Ok(vec![1, 0, 2]));
        let circle = [node(&["b"], &["a"]), node(&["a"], &["b"])];
        assert!(matches!(sorted(&circle), Err(Error::InvalidGraph { .. })));
        let twice = [node(&[], &["a"]), node(&[], &["a"])];
        assert!(matches!(sorted(&twice), Err(Error::InvalidGraph { .. })));
    }
}
