//! Which outputs of a model depend on random numbers: those reached from a random operator.

use std::collections::BTreeSet;

use lethe_engine::onnx::proto;

/// Operators whose outputs are random. `Dropout` is one when it is told to train.
const RANDOM: &[&str] = &[
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// For each output of the model's graph, whether it is random.
pub(super) fn random_outputs(model: &proto::Model) -> Vec<bool> {
    let Some(graph) = &model.graph else {
        return Vec::new();
    };
    let functions = random_functions(model);
    let mut random: BTreeSet<&str> = BTreeSet::new();
    for node in &graph.node {
        let reached = node.input.iter().any(|name| random.contains(name.as_str()));
        if reached || is_random(node, &functions) {
            random.extend(node.output.iter().map(String::as_str));
        }
    }
    let is_random = |output: &proto::ValueInfo| {
        let name = output.name.as_deref().unwrap_or_default();
        random.contains(name)
    };
    graph.output.iter().map(is_random).collect()
}

/// Domain and name of the model's functions that contain a random operator, at any depth.
fn random_functions(model: &proto::Model) -> BTreeSet<(&str, &str)> {
    let mut random = BTreeSet::new();
    loop {
        let before = random.len();
        for function in &model.functions {
            if function.node.iter().any(|node| is_random(node, &random)) {
                let domain = function.domain.as_deref().unwrap_or_default();
                random.insert((domain, function.name.as_deref().unwrap_or_default()));
            }
        }
        if random.len() == before {
            return random;
        }
    }
}

fn is_random(node: &proto::Node, functions: &BTreeSet<(&str, &str)>) -> bool {
    let op_type = node.op_type.as_deref().unwrap_or_default();
    let domain = node.domain.as_deref().unwrap_or_default();
    let trains = op_type == "Dropout" && node.input.get(2).is_some_and(|name| !name.is_empty());
    let mut subgraphs = node
        .attribute
        .iter()
        .flat_map(|a| a.g.iter().chain(&a.graphs));
    trains
        || RANDOM.contains(&op_type)
        || functions.contains(&(domain, op_type))
        || subgraphs.any(|g| g.node.iter().any(|node| is_random(node, functions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_spreads_along_edges_only() {
        let node = |op_type: &str, inputs: &[&str], output: &str| proto::Node {
            op_type: Some(op_type.into()),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            ..Default::default()
        };
        let output = |name: &str| proto::ValueInfo {
            name: Some(name.into()),
            ..Default::default()
        };
        let graph = proto::Graph {
            node: vec![
                node("RandomNormal", &[], "r"),
                node("Add", &["r", "x"], "a"),
                node("Relu", &["x"], "b"),
                node("Dropout", &["x", "ratio"], "c"),
                node("Dropout", &["x", "ratio", "training"], "d"),
            ],
            output: ["a", "b", "c", "d"].map(output).into(),
            ..Default::default()
        };
        let model = proto::Model {
            graph: Some(graph),
            ..Default::default()
        };
        assert_eq!(random_outputs(&model), [true, false, false, true]);
    }
}
