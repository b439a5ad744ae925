//! Removes nodes that hand their input on unchanged: `Identity`, `Dropout` without a mask, `Cast`
//! to the type a value has already.

use crate::graph::{Graph, Node, ValueId};
use crate::kernels::env::Env;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    // What each value is to be read as: producers come before consumers.
    let mut read_as: Vec<ValueId> = (0..graph.values.len() as u32).map(ValueId).collect();
    let mut nodes = std::mem::take(&mut graph.nodes);
    for node in &mut nodes {
        for input in node.inputs.iter_mut().flatten() {
            *input = read_as[input.index()];
        }
        if let (Some(input), Some(output)) = (node.input(0), node.output(0))
            && hands_on(graph, node)
        {
            read_as[output.index()] = input;
            node.outputs.iter_mut().for_each(|o| *o = None);
            changes += 1;
        }
    }
    nodes.retain(|node| node.outputs.iter().any(Option::is_some));
    graph.nodes = nodes;
    for output in &mut graph.outputs {
        *output = read_as[output.index()];
    }
    changes
}

fn hands_on(graph: &Graph, node: &Node) -> bool {
    let data_type = |id| graph.proved(id).data_type();
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
