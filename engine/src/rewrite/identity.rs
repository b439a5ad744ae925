//! Removes nodes that hand their input on unchanged: `Identity`, `Dropout` without a mask, `Cast`
//! to the type a value has already.

use crate::graph::{Graph, Node};
use crate::kernels::env::Env;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
            continue;
        };
        if !hands_on(graph, node) {
            continue;
        }
        graph.replace_uses(output, input);
        graph.nodes[i].outputs.iter_mut().for_each(|o| *o = None);
        changes += 1;
    }
    graph
        .nodes
        .retain(|node| node.outputs.iter().any(Option::is_some));
    changes
}

fn hands_on(graph: &Graph, node: &Node) -> bool {
    let data_type = |id| graph.value(id).value_type.data_type();
    if node.is("Identity") {
        return true;
    }
    if node.is("Cast") {
        let to = node.attributes.optional_data_type("to").ok().flatten();
        return to.is_some() && node.input(0).and_then(data_type) == to;
    }
    // Inference unless the node says otherwise, which it can since opset 12.
    node.is("Dropout") && node.outputs[1..].iter().all(Option::is_none) && node.input(2).is_none()
}
