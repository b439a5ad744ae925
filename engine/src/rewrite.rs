//! Rewrites of the graph before it is planned, one file each.
//!
//! A rewrite takes a [`Graph`] and leaves one that computes the same with less work. They run in
//! the order of [`PASSES`], again and again until none changes anything.

mod activation;
mod batch_norm;
mod common_subexpressions;
mod dead_code;
mod fold;
mod gelu;
mod identity;
mod normalization;
mod pattern;

use crate::graph::Graph;
use crate::graph::inference::infer_types;
use crate::kernels::env::Env;

/// One rewrite.
struct Pass {
    /// Its name in reports.
    name: &'static str,
    /// Applies it once over the graph and gives the number of places it changed. One whose result
    /// needs an operator that this build leaves out changes nothing.
    apply: fn(&mut Graph, &Env) -> usize,
}

/// All rewrites in their order.
#[rustfmt::skip]
const PASSES: &[Pass] = &[
    Pass { name: "identity removal", apply: identity::apply },
    Pass { name: "constant folding", apply: fold::apply },
    Pass { name: "common subexpressions", apply: common_subexpressions::apply },
    Pass { name: "batch normalization", apply: batch_norm::apply },
    Pass { name: "normalization", apply: normalization::apply },
    Pass { name: "gelu", apply: gelu::apply },
    Pass { name: "bias, residual and activation", apply: activation::apply },
    Pass { name: "dead code", apply: dead_code::apply },
];

/// Rounds after which rewriting stops even if something still changes.
const ROUNDS: usize = 10;

/// What the rewrites did to a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RewriteReport {
    /// Nodes before, those of subgraphs included.
    pub nodes_before: usize,
    /// Nodes after.
    pub nodes_after: usize,
    /// For each rewrite, the number of places it changed.
    pub changes: Vec<(&'static str, usize)>,
}

/// Rewrites a graph and all its subgraphs.
pub fn rewrite(graph: &mut Graph, env: &Env) -> RewriteReport {
    let mut report = RewriteReport {
        nodes_before: graph.node_count(),
        changes: PASSES.iter().map(|pass| (pass.name, 0)).collect(),
        ..RewriteReport::default()
    };
    for _ in 0..ROUNDS {
        infer_types(graph);
        if rewrite_once(graph, env, &mut report) == 0 {
            break;
        }
    }
    report.nodes_after = graph.node_count();
    report
}

fn rewrite_once(graph: &mut Graph, env: &Env, report: &mut RewriteReport) -> usize {
    let mut changed = 0;
    for subgraph in graph.nodes.iter_mut().flat_map(|n| &mut n.subgraphs) {
        changed += rewrite_once(subgraph, env, report);
    }
    for (i, pass) in PASSES.iter().enumerate() {
        let changes = (pass.apply)(graph, env);
        report.changes[i].1 += changes;
        changed += changes;
    }
    changed
}
