//! Computes equal things once: nodes of one operator with equal attributes and equal inputs.

use std::collections::HashMap;

use crate::graph::{Graph, ValueId};
use crate::kernels::env::Env;
use crate::tensor::Tensor;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = merge_constants(graph);
    let mut seen: HashMap<String, usize> = HashMap::new();
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        let large = node.attributes.iter().any(|(_, a)| is_large(a));
        if !node.operator.is_deterministic() || !node.subgraphs.is_empty() || large {
            continue;
        }
        let key = format!(
            "{:?} {:?} {:?}",
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
                graph.replace_uses(later, earlier);
            }
        }
        graph.nodes[i].outputs.iter_mut().for_each(|o| *o = None);
        changes += 1;
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
    let mut seen: Vec<(ValueId, Tensor)> = Vec::new();
    let mut equal: Vec<(ValueId, ValueId)> = Vec::new();
    for (&id, tensor) in &graph.constants {
        if tensor.bytes().len() > SMALL || tensor.as_strings().is_ok() {
            continue;
        }
        match seen.iter().find(|(_, other)| other == tensor) {
            Some(&(first, _)) => equal.push((id, first)),
            None => seen.push((id, tensor.clone())),
        }
    }
    for &(id, first) in &equal {
        graph.replace_uses(id, first);
        graph.constants.remove(&id);
    }
    equal.len()
}
