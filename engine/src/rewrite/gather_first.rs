//! Rows are picked before they are computed.
//!
//! ```text
//! Gather(Cast(table), rows)          → Cast(Gather(table, rows))
//! Gather(Mul(table, scales), rows)   → Mul(Gather(table, rows), Gather(scales, rows))
//! ```
//!
//! So a quantised table of embeddings stays as small as the model's file has it, and only the rows
//! that a run asks for are widened. Must come before constant folding, which would widen them all.

use super::pattern::{Links, Pattern};
use crate::graph::{Graph, Node, ValueId, ValueType};
use crate::kernels::env::Env;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    let mut i = 0;
    let mut links = Links::new(graph);
    while i < graph.nodes.len() {
        match inner_gathers(&links.of(graph), i) {
            // The first of the new nodes may itself be a Gather of a computed table: look again.
            Some(plan) => {
                swap(graph, i, plan);
                links = Links::new(graph);
                changes += 1;
            }
            None => i += 1,
        }
    }
    graph
        .nodes
        .retain(|node| node.outputs.iter().any(Option::is_some));
    changes
}

/// The table's node that the Gather at a place changes places with.
struct Plan {
    /// Index of the node that makes the table.
    table: usize,
    /// Which of its inputs have a row for each of the table's; the others are single numbers.
    by_row: Vec<bool>,
}

fn inner_gathers(pattern: &Pattern<'_>, i: usize) -> Option<Plan> {
    let (graph, gather) = (pattern.graph, &pattern.graph.nodes[i]);
    if !gather.is("Gather") || gather.attributes.int_or("axis", 0).ok()? != 0 {
        return None;
    }
    let data = gather.input(0);
    let table = pattern
        .producer(data)
        .filter(|_| pattern.is_used_once(data))?;
    if !(table.is("Cast") || table.is("Mul")) || !is_of_constants(pattern, table, 3) {
        return None;
    }
    let rows = |id: ValueId| graph.proved(id).dims.as_deref()?.first()?.known();
    let (rank, count) = (pattern.rank(data)?, rows(data?)?);
    let by_row = table
        .inputs
        .iter()
        .map(|&id| {
            let is_full = pattern.rank(id) == Some(rank) && rows(id?) == Some(count) && count > 1;
            let is_number = pattern.rank(id) == Some(0);
            (is_full || is_number).then_some(is_full)
        })
        .collect::<Option<Vec<bool>>>()?;
    Some(Plan {
        table: pattern.producer_index(data)?,
        by_row,
    })
}

/// Whether a node depends on constants alone, looking back so many nodes.
fn is_of_constants(pattern: &Pattern<'_>, node: &Node, depth: usize) -> bool {
    node.inputs.iter().all(|&id| {
        let made = || pattern.producer(id).filter(|_| depth > 0);
        pattern.graph.constant(id).is_some()
            || made().is_some_and(|node| is_of_constants(pattern, node, depth - 1))
    })
}

/// Puts a Gather before each input that has rows, and the table's node in the Gather's place.
fn swap(graph: &mut Graph, i: usize, plan: Plan) {
    let gather = graph.nodes[i].clone();
    let mut table = graph.nodes[plan.table].clone();
    let mut nodes = Vec::new();
    for (input, by_row) in plan.by_row.into_iter().enumerate() {
        let Some(source) = table.input(input).filter(|_| by_row) else {
            continue;
        };
        let info = graph.value(source).clone();
        let kind = ValueType {
            kind: info.value_type.kind,
            dims: None,
        };
        let rows = graph.add_value(format!("{}/rows", info.name), kind);
        let mut inner = gather.clone();
        inner.inputs[0] = Some(source);
        inner.outputs[0] = Some(rows);
        nodes.push(inner);
        table.inputs[input] = Some(rows);
    }
    table.outputs.clone_from(&gather.outputs);
    nodes.push(table);
    let old = &mut graph.nodes[plan.table];
    // It goes with the others at the end; until then it uses nothing.
    old.inputs.clear();
    old.outputs.iter_mut().for_each(|o| *o = None);
    graph.nodes.splice(i..=i, nodes);
}

#[cfg(test)]
mod tests {
    use super::super::example::{add, plain};
    use super::*;
    use crate::graph::attributes::Attribute;
    use crate::graph::inference::infer_types;
    use crate::tensor::{DataType, Tensor};

    /// A table of bytes `[3, 2]` times `scales`, and rows of it along an axis.
    fn embedding(scales: Tensor, axis: i64) -> Graph {
        let mut graph = Graph::default();
        let table = Tensor::from_slice(&[3, 2], &[1i8, 2, 3, 4, 5, 6]).expect("fits");
        let table = graph.add_constant("table", table);
        let scales = graph.add_constant("scales", scales);
        let rows = graph.add_value("rows", ValueType::tensor(DataType::Int64, None));
        graph.inputs.push(rows);
        let to = plain().with("to", Attribute::Int(DataType::Float32 as i64));
        let wide = add(&mut graph, "Cast", to, &[table]);
        let scaled = add(&mut graph, "Mul", plain(), &[wide, scales]);
        let axis = plain().with("axis", Attribute::Int(axis));
        let picked = add(&mut graph, "Gather", axis, &[scaled, rows]);
        graph.outputs.push(picked);
        infer_types(&mut graph);
        graph
    }

    fn operators(graph: &Graph) -> Vec<&str> {
        graph.nodes.iter().map(|node| &*node.name.op_type).collect()
    }

    #[test]
    fn rows_are_picked_from_the_bytes() {
        let by_row = Tensor::from_slice(&[3, 1], &[0.5f32, 1., 2.]).expect("fits");
        for (scales, gathers) in [(by_row, 2), (Tensor::scalar(0.5f32), 1)] {
            let mut graph = embedding(scales, 0);
            assert_eq!(apply(&mut graph, &Env::default()), 2);
            let found = operators(&graph);
            assert_eq!(found.iter().filter(|o| **o == "Gather").count(), gathers);
            assert_eq!(found.last(), Some(&"Mul"));
            assert_eq!(
                graph.nodes.last().expect("nodes").output(0),
                Some(graph.outputs[0])
            );
            let of_bytes = graph
                .nodes
                .iter()
                .find(|n| n.is("Gather"))
                .expect("a Gather");
            assert_eq!(
                graph.constant(of_bytes.input(0)).map(Tensor::data_type),
                Some(DataType::Int8)
            );
        }
    }

    #[test]
    fn columns_and_scales_of_columns_stay() {
        let by_column = Tensor::from_slice(&[1, 2], &[0.5f32, 1.]).expect("fits");
        assert_eq!(apply(&mut embedding(by_column, 0), &Env::default()), 0);
        let by_row = Tensor::from_slice(&[3, 1], &[0.5f32, 1., 2.]).expect("fits");
        assert_eq!(apply(&mut embedding(by_row, 1), &Env::default()), 0);
    }
}
