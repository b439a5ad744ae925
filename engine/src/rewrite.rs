//! Rewrites of the graph before it is planned, one file each.
//!
//! A rewrite takes a [`Graph`] and leaves one that computes the same with less work. They run in
//! the order of [`PASSES`], again and again until none changes anything.

mod activation;
mod attention;
mod batch_norm;
mod common_subexpressions;
mod dead_code;
#[cfg(test)]
mod example;
mod fold;
mod gather_first;
mod gelu;
mod identity;
mod inline_if;
mod normalization;
mod pattern;
mod quantized;

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
    /// Whether its result suits only the CPU; other devices have kernels for the parts.
    cpu_only: bool,
}

const fn pass(name: &'static str, apply: fn(&mut Graph, &Env) -> usize) -> Pass {
    Pass {
        name,
        apply,
        cpu_only: false,
    }
}

/// All rewrites in their order.
#[rustfmt::skip]
const PASSES: &[Pass] = &[
    pass("identity removal", identity::apply),
    Pass { name: "quantized products", apply: quantized::apply, cpu_only: true },
    pass("rows picked first", gather_first::apply),
    pass("constant folding", fold::apply),
    pass("branches", inline_if::apply),
    pass("common subexpressions", common_subexpressions::apply),
    pass("batch normalization", batch_norm::apply),
    pass("normalization", normalization::apply),
    pass("gelu", gelu::apply),
    Pass { name: "attention", apply: attention::apply, cpu_only: true },
    pass("bias, residual and activation", activation::apply),
    pass("dead code", dead_code::apply),
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

/// Rewrites a graph and all its subgraphs, for the CPU or for any device.
pub fn rewrite(graph: &mut Graph, env: &Env, for_cpu: bool) -> RewriteReport {
    let mut report = RewriteReport {
        nodes_before: graph.node_count(),
        changes: PASSES.iter().map(|pass| (pass.name, 0)).collect(),
        ..RewriteReport::default()
    };
    for _ in 0..ROUNDS {
        infer_types(graph);
        if rewrite_once(graph, env, for_cpu, &mut report) == 0 {
            break;
        }
    }
    report.nodes_after = graph.node_count();
    report
}

fn rewrite_once(graph: &mut Graph, env: &Env, for_cpu: bool, report: &mut RewriteReport) -> usize {
    let mut changed = 0;
    for subgraph in graph.nodes.iter_mut().flat_map(|n| &mut n.subgraphs) {
        changed += rewrite_once(subgraph, env, for_cpu, report);
    }
    for (i, pass) in PASSES.iter().enumerate() {
        if pass.cpu_only && !for_cpu {
            continue;
        }
        let changes = (pass.apply)(graph, env);
        report.changes[i].1 += changes;
        changed += changes;
    }
    changed
}
