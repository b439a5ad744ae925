//! Computes equal things once: nodes of one operator with equal attributes and equal inputs.

use std::collections::HashMap;

use crate::error::NodeName;
use crate::graph::{Graph, ValueId};
use crate::kernels::env::Env;
use crate::tensor::DataType;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = merge_constants(graph);
    let mut seen: HashMap<String, usize> = HashMap::new();
    // What each value is to be read as: producers come before consumers.
    let mut read_as: Vec<ValueId> = (0..graph.values.len() as u32).map(ValueId).collect();
    for i in 0..graph.nodes.len() {
        for input in graph.nodes[i].inputs.iter_mut().flatten() {
            *input = read_as[input.index()];
        }
        let node = &graph.nodes[i];
        let large = node.attributes.iter().any(|(_, a)| is_large(a));
        if !node.operator.is_deterministic() || !node.subgraphs.is_empty() || large {
            continue;
        }
        let NodeName {
            domain, op_type, ..
        } = &*node.name;
        let key = format!(
            "{domain} {op_type} {:?} {:?} {:?}",
            node.operator, node.attributes, node.inputs
        );
        let Some(&first) = seen.get(&key) else {
            seen.insert(key, i);
            continue;
        };
        let (earlier, later) = (graph.nodes[first].outputs.clone(), node.outputs.clone());
        let covered = later
            .iter()
            .zip(&earlier)
            .all(|(l, e)| l.is_none() || e.is_some());
        if !covered || later.len() > earlier.len() || later.iter().all(Option::is_none) {
            continue;
        }
        for (later, earlier) in later.into_iter().zip(earlier) {
            if let (Some(later), Some(earlier)) = (later, earlier) {
                read_as[later.index()] = earlier;
            }
        }
        graph.nodes[i].outputs.iter_mut().for_each(|o| *o = None);
        changes += 1;
    }
    for output in &mut graph.outputs {
        *output = read_as[output.index()];
    }
    graph
        .nodes
        .retain(|node| node.outputs.iter().any(Option::is_some));
    changes
}

/// Whether an attribute is too large to be compared by its text, which abbreviates tensors.
fn is_large(attribute: &crate::graph::attributes::Attribute) -> bool {
    use crate::graph::attributes::Attribute;
    matches!(
        attribute,
        Attribute::Tensor(_) | Attribute::Tensors(_) | Attribute::Graph(_)
    )
}

/// Small constants of equal content become one, so that their users can be compared.
fn merge_constants(graph: &mut Graph) -> usize {
    const SMALL: usize = 64;
    let mut seen: HashMap<(DataType, &[usize], &[u8]), ValueId> = HashMap::new();
    let mut equal: HashMap<ValueId, ValueId> = HashMap::new();
    for (&id, tensor) in &graph.constants {
        if tensor.bytes().len() > SMALL || tensor.as_strings().is_ok() {
            continue;
        }
        let content = (tensor.data_type(), tensor.shape(), tensor.bytes());
        match seen.get(&content) {
            Some(&first) => drop(equal.insert(id, first)),
            None => drop(seen.insert(content, id)),
        }
    }
    let inputs = graph.nodes.iter_mut().flat_map(|node| &mut node.inputs);
    for id in inputs.flatten().chain(&mut graph.outputs) {
        if let Some(&first) = equal.get(id) {
            *id = first;
        }
    }
    for id in equal.keys() {
        graph.constants.remove(id);
    }
    equal.len()
}
