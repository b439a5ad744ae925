//! Which operators a model can come to need: its own, and those that rewrites make of them.

use crate::onnx::proto;
use crate::operators::TABLE;

/// Operators that rewrites make, each with those of which one is in every model where that happens.
const MADE: &[(&str, &[&str])] = &[
    ("FusedAttention", &["Softmax"]),
    ("FusedConv", &["Conv"]),
    ("FusedGemm", &["Gemm"]),
    ("FusedMatMul", &["MatMul"]),
    ("Gelu", &["Erf", "Tanh"]),
    ("Identity", &["If"]),
    ("LayerNormalization", &["ReduceMean"]),
    ("MatMulIntegerToFloat", &["DequantizeLinear"]),
    ("QuantizeRowsMatMul", &["Gemm", "MatMul"]),
    ("RMSNormalization", &["ReduceMean"]),
];

/// For each row of [`TABLE`], whether a session of this model may look for it. What else is there
/// can be left out of a program for this model.
pub fn needed(model: &proto::Model) -> Vec<bool> {
    let mut own: Vec<&str> = Vec::new();
    let mut pending: Vec<&[proto::Node]> = model.graph.iter().map(|g| &g.node[..]).collect();
    pending.extend(model.functions.iter().map(|function| &function.node[..]));
    while let Some(nodes) = pending.pop() {
        for node in nodes {
            own.extend(node.op_type.as_deref());
            let graphs = node.attribute.iter();
            let graphs = graphs.flat_map(|a| a.g.iter().chain(&a.graphs));
            pending.extend(graphs.map(|graph| &graph.node[..]));
        }
    }
    own.sort_unstable();
    own.dedup();
    let is_own = |op_type: &str| own.binary_search(&op_type).is_ok();
    TABLE
        .iter()
        .map(|row| is_own(row.op_type) || is_made(row.op_type, is_own))
        .collect()
}

/// Whether a rewrite may make this operator in a model that has these.
pub(super) fn is_made(op_type: &str, has: impl Fn(&str) -> bool) -> bool {
    let mut made = MADE.iter().filter(|(made, _)| *made == op_type);
    made.any(|(_, of)| of.iter().any(|op_type| has(op_type)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::writer::ModelWriter;
    use crate::tensor::DataType;

    /// The operators that a model of these is found to need.
    fn needed_with(own: &[&str]) -> Vec<&'static str> {
        let model = own.iter().fold(
            ModelWriter::new(17).input("x", DataType::Float32, &["5", "5"]),
            |model, op_type| model.node(op_type, &["x"], &[op_type], vec![]),
        );
        let model = crate::onnx::read_model(model.to_bytes()).expect("a model");
        let needed = needed(&model);
        let rows = TABLE.iter().zip(&needed);
        let mut found: Vec<&str> = rows
            .filter(|(_, needed)| **needed)
            .map(|(row, _)| row.op_type)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn a_model_needs_its_own_operators_and_what_is_made_of_them() {
        assert_eq!(
            needed_with(&["MatMul", "Relu"]),
            ["FusedMatMul", "MatMul", "QuantizeRowsMatMul", "Relu"]
        );
        assert_eq!(
            needed_with(&["DequantizeLinear", "If"]),
            ["DequantizeLinear", "Identity", "If", "MatMulIntegerToFloat"]
        );
        assert!(needed_with(&["NobodyKnowsThis"]).is_empty());
    }
}
