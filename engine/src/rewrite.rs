//! Rewrites of the graph before it is planned, one file each.
//!
//! A rewrite takes a [`Graph`] and leaves one that computes the same with less work, or, where that
//! was asked for, nearly the same. They run in the order of [`PASSES`], again and again until none
//! changes anything.

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
mod made;
mod normalization;
mod pattern;
mod quantized;
mod weights_as_bytes;

use std::collections::BTreeSet;

pub use made::needed;

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
    /// Whether its result is approximate, so that it has to be asked for.
    approximate: bool,
}

const fn pass(name: &'static str, apply: fn(&mut Graph, &Env) -> usize) -> Pass {
    Pass {
        name,
        apply,
        cpu_only: false,
        approximate: false,
    }
}

const fn cpu_pass(name: &'static str, apply: fn(&mut Graph, &Env) -> usize) -> Pass {
    Pass {
        cpu_only: true,
        ..pass(name, apply)
    }
}

/// All rewrites in their order.
#[rustfmt::skip]
const PASSES: &[Pass] = &[
    pass("identity removal", identity::apply),
    cpu_pass("quantized products", quantized::apply),
    pass("rows picked first", gather_first::apply),
    pass("constant folding", fold::apply),
    pass("branches", inline_if::apply),
    pass("common subexpressions", common_subexpressions::apply),
    Pass { approximate: true, ..cpu_pass(WEIGHTS_AS_BYTES, weights_as_bytes::apply) },
    pass("batch normalization", batch_norm::apply),
    pass("normalization", normalization::apply),
    pass("gelu", gelu::apply),
    cpu_pass("attention", attention::apply),
    pass("bias, residual and activation", activation::apply),
    pass("dead code", dead_code::apply),
];

/// The name of the rewrite that keeps weights as bytes.
pub(crate) const WEIGHTS_AS_BYTES: &str = "weights as bytes";

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

impl RewriteReport {
    /// Number of places that the rewrite of this name changed.
    pub fn count(&self, name: &str) -> usize {
        let own = self.changes.iter().filter(|(other, _)| *other == name);
        own.map(|(_, count)| count).sum()
    }
}

/// Which rewrites are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Those that suit the CPU only.
    pub for_cpu: bool,
    /// Those that keep weights as bytes, whose results are approximate.
    pub quantize: bool,
}

impl Wanted {
    fn wants(self, pass: &Pass) -> bool {
        (self.for_cpu || !pass.cpu_only) && (self.quantize || !pass.approximate)
    }
}

/// Rewrites a graph and all its subgraphs.
pub fn rewrite(graph: &mut Graph, env: &Env, wanted: Wanted) -> RewriteReport {
    let mut report = RewriteReport {
        nodes_before: graph.node_count(),
        changes: PASSES.iter().map(|pass| (pass.name, 0)).collect(),
        ..RewriteReport::default()
    };
    let before = cfg!(debug_assertions).then(|| operators_of(graph));
    for _ in 0..ROUNDS {
        infer_types(graph);
        if rewrite_once(graph, env, wanted, &mut report) == 0 {
            break;
        }
    }
    if let Some(before) = before {
        let is_known = |op_type: &String| {
            before.contains(op_type) || made::is_made(op_type, |other| before.contains(other))
        };
        let unknown = operators_of(graph).into_iter().find(|o| !is_known(o));
        debug_assert_eq!(unknown, None, "rewrites make what `made` does not list");
    }
    // The last round may have added values of which nothing is known yet.
    infer_types(graph);
    report.nodes_after = graph.node_count();
    report
}

fn operators_of(graph: &Graph) -> BTreeSet<String> {
    let own = graph.nodes.iter().map(|node| node.name.op_type.clone());
    let subgraphs = graph.nodes.iter().flat_map(|node| &node.subgraphs);
    own.chain(subgraphs.flat_map(operators_of)).collect()
}

fn rewrite_once(graph: &mut Graph, env: &Env, wanted: Wanted, report: &mut RewriteReport) -> usize {
    let mut changed = 0;
    for subgraph in graph.nodes.iter_mut().flat_map(|n| &mut n.subgraphs) {
        changed += rewrite_once(subgraph, env, wanted, report);
    }
    for (i, pass) in PASSES.iter().enumerate() {
        if !wanted.wants(pass) {
            continue;
        }
        let changes = (pass.apply)(graph, env);
        report.changes[i].1 += changes;
        changed += changes;
    }
    changed
}

#[cfg(test)]
mod tests;
