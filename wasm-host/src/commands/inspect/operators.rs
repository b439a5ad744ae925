//! Which operators a model uses, how often, and which of them exist.

use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};

use lethe_engine::graph::opset_versions;
use lethe_engine::onnx::proto;
use lethe_engine::operators::{ONNX_DOMAIN, find};

/// An operator of a model.
pub(super) struct Usage {
    domain: String,
    op_type: String,
    /// The opset the model imports for the domain; `None` where it imports none.
    opset: Option<i64>,
    nodes: usize,
    support: Support,
}

enum Support {
    /// A row of the operator table, since this opset.
    Operator(i64),
    /// A function of the model itself.
    Function,
    No,
}

/// All operators of a model's graph, subgraphs and functions, by domain and type.
pub(super) fn of_model(model: &proto::Model) -> Vec<Usage> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut graphs: Vec<&proto::Graph> = model.graph.iter().collect();
    let count = |nodes: &[proto::Node], counts: &mut BTreeMap<_, usize>| {
        for node in nodes {
            let domain = long_domain(node.domain.as_deref());
            let op_type = node.op_type.clone().unwrap_or_default();
            *counts.entry((domain, op_type)).or_default() += 1;
        }
    };
    fn below(nodes: &[proto::Node]) -> impl Iterator<Item = &proto::Graph> {
        let attributes = nodes.iter().flat_map(|n| &n.attribute);
        attributes.flat_map(|a| a.g.iter().chain(&a.graphs))
    }
    for function in &model.functions {
        count(&function.node, &mut counts);
        graphs.extend(below(&function.node));
    }
    while let Some(graph) = graphs.pop() {
        count(&graph.node, &mut counts);
        graphs.extend(below(&graph.node));
    }
    let opsets = opset_versions(model);
    let usage = |((domain, op_type), nodes): ((String, String), usize)| {
        let opset = opsets
            .iter()
            .find(|(d, _)| long_domain(Some(d)) == domain)
            .map(|&(_, v)| v);
        let is_function = model.functions.iter().any(|f| {
            f.name.as_deref() == Some(&op_type) && long_domain(f.domain.as_deref()) == domain
        });
        let entry = opset.and_then(|opset| find(&domain, &op_type, opset));
        let support = match entry {
            _ if is_function => Support::Function,
            Some(entry) => Support::Operator(entry.since),
            None => Support::No,
        };
        Usage {
            domain,
            op_type,
            opset,
            nodes,
            support,
        }
    };
    counts.into_iter().map(usage).collect()
}

fn long_domain(domain: Option<&str>) -> String {
    match domain.unwrap_or_default() {
        "" => ONNX_DOMAIN.into(),
        other => other.into(),
    }
}

impl Usage {
    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut object = json!({
            "domain": self.domain,
            "operator": self.op_type,
            "opset": self.opset,
            "nodes": self.nodes,
            "supported": !matches!(self.support, Support::No),
        });
        if let Support::Operator(since) = self.support {
            object["since"] = json!(since);
        }
        object
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let name = match self.domain.as_str() {
            ONNX_DOMAIN => self.op_type.clone(),
            domain => format!("{domain}.{}", self.op_type),
        };
        let support = match self.support {
            Support::Operator(since) => format!("since opset {since}"),
            Support::Function => "a function of the model".into(),
            Support::No => match self.opset {
                Some(opset) => format!("UNKNOWN in opset {opset}"),
                None => "UNKNOWN: the model imports no opset of its domain".into(),
            },
        };
        writeln!(out, "  {:6}  {name:40} {support}", self.nodes)
    }
}
