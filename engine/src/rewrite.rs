//! Rewrites of the graph before it is planned, one file each.
//!
//! A rewrite takes a [`Graph`] and leaves one that computes the same with less work. They run in
//! the order of [`PASSES`], again and again until none changes anything.

mod dead_code;
mod fold;

use crate::error::Error;
use crate::graph::Graph;
use crate::kernels::env::Env;

/// One rewrite.
pub(crate) struct Pass {
    /// Its name in reports.
    name: &'static str,
    /// Applies it once over the graph and gives the number of places it changed.
    apply: fn(&mut Graph, &Env) -> Result<usize, Error>,
}

/// All rewrites in their order.
const PASSES: &[Pass] = &[
    Pass {
        name: "constant folding",
        apply: fold::apply,
    },
    Pass {
        name: "dead code",
        apply: dead_code::apply,
    },
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
///
/// # Errors
/// When a node fails on constants, which it would at run time as well.
pub fn rewrite(graph: &mut Graph, env: &Env) -> Result<RewriteReport, Error> {
    let mut report = RewriteReport {
        nodes_before: graph.node_count(),
        ..Default::default()
    };
    report.changes = PASSES.iter().map(|pass| (pass.name, 0)).collect();
    rewrite_graph(graph, env, &mut report)?;
    report.nodes_after = graph.node_count();
    Ok(report)
}

fn rewrite_graph(graph: &mut Graph, env: &Env, report: &mut RewriteReport) -> Result<(), Error> {
    for subgraph in graph.nodes.iter_mut().flat_map(|n| &mut n.subgraphs) {
        rewrite_graph(subgraph, env, report)?;
    }
    for _ in 0..ROUNDS {
        let mut changed = 0;
        for (pass, (_, count)) in PASSES.iter().zip(&mut report.changes) {
            let changes = (pass.apply)(graph, env)?;
            *count += changes;
            changed += changes;
        }
        if changed == 0 {
            break;
        }
    }
    Ok(())
}
