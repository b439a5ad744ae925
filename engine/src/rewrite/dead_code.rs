//! Removes nodes whose outputs nobody reads, and constants that nobody reads.

use crate::graph::Graph;
use crate::kernels::env::Env;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut used = vec![false; graph.values.len()];
    for id in &graph.outputs {
        used[id.index()] = true;
    }
    let mut keep = vec![false; graph.nodes.len()];
    let mut changes = 0;
    for (i, node) in graph.nodes.iter_mut().enumerate().rev() {
        keep[i] = node.outputs.iter().flatten().any(|id| used[id.index()]);
        if !keep[i] {
            changes += 1;
            continue;
        }
        for output in &mut node.outputs {
            if output.is_some_and(|id| !used[id.index()]) {
                *output = None;
            }
        }
        for id in node.inputs.iter().flatten() {
            used[id.index()] = true;
        }
    }
    let mut kept = keep.iter();
    graph.nodes.retain(|_| kept.next().copied().unwrap_or(true));
    graph.constants.retain(|id, _| used[id.index()]);
    changes
}
