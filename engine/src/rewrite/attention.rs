//! Attention as exporters spell it out, to one `ai.lethe.FusedAttention`.
//!
//! ```text
//! Q, V:    [B, S, H, D] → Transpose(0, 2, 1, 3), or [B, H, S, D] as it is
//! Kᵀ:      the same → Transpose(0, 1, 3, 2), or both at once, or through a shape of three axes
//! scores:  MatMul(Q, Kᵀ), scaled by Mul or Div after or on each side before, plus a mask
//! weights: Softmax(scores), perhaps Where(IsNaN(w), 0, w)
//! output:  MatMul(weights, V), perhaps → Transpose(0, 2, 1, 3)
//! ```
//!
//! The transposes vanish into the layouts that the fused operator reads and writes. It broadcasts
//! batches, heads and the mask as the products and the sum do, so of sizes nothing need be known;
//! but all operands have four axes, the mask at most as many, and there are no more.

use super::pattern::{Links, Pattern, fused};
use crate::graph::attributes::Attribute;
use crate::graph::{Attributes, Dim, Graph, Node, ValueId};
use crate::kernels::env::Env;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    let links = Links::new(graph);
    for i in 0..graph.nodes.len() {
        let pattern = links.of(graph);
        let Some((at, node)) = found(&pattern, i) else {
            continue;
        };
        graph.nodes[at] = node;
        changes += 1;
    }
    changes
}

/// An operand in the layout it was found in.
struct Heads {
    value: ValueId,
    positions_first: bool,
}

/// The node that takes the place of the last one of an attention whose second product is node `i`,
/// and where it stands.
fn found(pattern: &Pattern<'_>, i: usize) -> Option<(usize, Node)> {
    let graph = pattern.graph;
    let product = &graph.nodes[i];
    if !product.is("MatMul") {
        return None;
    }
    let (softmax, nan_as_zero) = softmax(pattern, product.input(0))?;
    let (scores, mask) = without_mask(pattern, softmax.input(0)?)?;
    let (scores, mut scale) = without_scale(pattern, Some(scores), true)?;
    let scores = pattern.only_for_this(Some(scores), "MatMul")?;
    let (q, q_scale) = without_scale(pattern, scores.input(0), false)?;
    let (k, k_scale) = without_scale(pattern, scores.input(1), false)?;
    scale *= q_scale * k_scale;
    let q = heads(pattern, q)?;
    let k = transposed_heads(pattern, k)?;
    let v = heads(pattern, product.input(1)?)?;
    if !pattern.is_f32_like(Some(v.value)) {
        return None;
    }
    let y = product.output(0)?;
    let after = pattern.only_user(y).filter(|(_, node)| swaps_heads(node));
    let (at, output, y_first) = match after {
        Some((at, node)) => (at, node.output(0)?, true),
        None => (i, y, false),
    };
    let layouts = [
        q.positions_first,
        k.positions_first,
        v.positions_first,
        y_first,
    ];
    let attributes = Attributes::new(1, 1)
        .with("scale", Attribute::Float(scale as f32))
        .with("nan_as_zero", Attribute::Int(nan_as_zero.into()))
        .with(
            "positions_first",
            Attribute::Ints(layouts.map(i64::from).to_vec()),
        );
    let mut inputs = vec![Some(q.value), Some(k.value), Some(v.value)];
    inputs.extend(mask.map(Some));
    let node = fused(
        graph,
        product,
        "FusedAttention",
        attributes,
        &inputs,
        Some(output),
    )?;
    Some((at, node))
}

/// The softmax over keys that makes a value, and whether what it has as NaN is zero there.
fn softmax<'g>(pattern: &Pattern<'g>, weights: Option<ValueId>) -> Option<(&'g Node, bool)> {
    let (softmax, nan_as_zero) = match pattern.only_for_this(weights, "Where") {
        None => (pattern.only_for_this(weights, "Softmax")?, false),
        Some(choice) => {
            let is_nan = pattern.only_for_this(choice.input(0), "IsNaN")?;
            let same = is_nan.input(0) == choice.input(2);
            let zero = pattern.number_for(choice.input(1), choice.input(2));
            if !same || zero != Some(0.0) {
                return None;
            }
            (pattern.made_by(choice.input(2), "Softmax")?, true)
        }
    };
    let default = if softmax.name.opset >= 13 { -1 } else { 1 };
    let axis = softmax.attributes.int_or("axis", default).ok()?;
    let last = axis == -1 || axis == 3;
    // Then the mask has no more axes either.
    let fits = last && pattern.rank(softmax.input(0)) == Some(4);
    fits.then_some((softmax, nan_as_zero))
}

/// The scores before the mask, and the mask.
fn without_mask(pattern: &Pattern<'_>, scores: ValueId) -> Option<(ValueId, Option<ValueId>)> {
    let Some(sum) = pattern.made_by(Some(scores), "Add") else {
        return Some((scores, None));
    };
    if !pattern.is_used_once(Some(scores)) {
        return None;
    }
    let (a, b) = (sum.input(0)?, sum.input(1)?);
    let is_product = |id: ValueId| {
        without_scale(pattern, Some(id), true)
            .is_some_and(|(id, _)| pattern.only_for_this(Some(id), "MatMul").is_some())
    };
    match (is_product(a), is_product(b)) {
        (true, false) => Some((a, Some(b))),
        (false, true) => Some((b, Some(a))),
        _ => None,
    }
}

/// A value before it was multiplied with or divided by a number, and the factor. Where the value
/// is `for_this` only, so must be the scaled one.
fn without_scale(
    pattern: &Pattern<'_>,
    id: Option<ValueId>,
    for_this: bool,
) -> Option<(ValueId, f64)> {
    let id = id?;
    let plain = Some((id, 1.0));
    if for_this && !pattern.is_used_once(Some(id)) {
        return plain;
    }
    if let Some(quotient) = pattern.made_by(Some(id), "Div")
        && let Some(number) = pattern.number_for(quotient.input(1), quotient.input(0))
    {
        return Some((quotient.input(0)?, 1.0 / number));
    }
    if let Some(product) = pattern.made_by(Some(id), "Mul") {
        for (x, factor) in [(0, 1), (1, 0)] {
            if let Some(number) = pattern.number_for(product.input(factor), product.input(x)) {
                return Some((product.input(x)?, number));
            }
        }
    }
    plain
}

fn permutation(node: &Node) -> Option<&[i64]> {
    node.attributes.optional_ints("perm").ok()?
}

fn swaps_heads(node: &Node) -> bool {
    node.is("Transpose") && permutation(node) == Some(&[0, 2, 1, 3])
}

/// Q or V, through the transpose that brought its heads to the front.
fn heads(pattern: &Pattern<'_>, id: ValueId) -> Option<Heads> {
    if pattern.rank(Some(id)) != Some(4) {
        return None;
    }
    let transpose = pattern.made_by(Some(id), "Transpose");
    Some(match transpose.filter(|node| swaps_heads(node)) {
        Some(node) => Heads {
            value: node.input(0)?,
            positions_first: true,
        },
        None => Heads {
            value: id,
            positions_first: false,
        },
    })
}

/// K, from its transposed form.
fn transposed_heads(pattern: &Pattern<'_>, id: ValueId) -> Option<Heads> {
    if let Some(transpose) = pattern.made_by(Some(id), "Transpose") {
        let value = transpose.input(0)?;
        return match permutation(transpose)? {
            [0, 2, 3, 1] => Some(Heads {
                value,
                positions_first: true,
            }),
            [0, 1, 3, 2] => heads(pattern, value),
            _ => None,
        };
    }
    // [B, H, S, D] → [B · H, S, D] → [B · H, D, S] → [B, H, D, S]
    let apart = pattern.made_by(Some(id), "Reshape")?;
    let transpose = pattern.made_by(apart.input(0), "Transpose")?;
    if permutation(transpose) != Some(&[0, 2, 1]) {
        return None;
    }
    let together = pattern.made_by(transpose.input(0), "Reshape")?;
    let value = together.input(0)?;
    let size = |id: Option<ValueId>, axis| -> Option<&Dim> {
        let dims = pattern.graph.proved(id?).dims.as_deref()?;
        dims.get(axis)
    };
    let equal =
        |a: Option<&Dim>, b: Option<&Dim>| a.zip(b).is_some_and(|(a, b)| a.surely_equals(b));
    let (of_value, of_joined, of_k) = (together.input(0), together.output(0), Some(id));
    // Only the axes of batches and heads are joined and taken apart again.
    let same = equal(size(of_joined, 1), size(of_value, 2))
        && equal(size(of_joined, 2), size(of_value, 3))
        && equal(size(of_k, 1), size(of_value, 1))
        && equal(size(of_k, 2), size(of_value, 3))
        && equal(size(of_k, 3), size(of_value, 2));
    same.then(|| heads(pattern, value)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ValueType;
    use crate::graph::dimension::known_dims;
    use crate::tensor::{DataType, Tensor};

    /// Adds a node to a graph under construction.
    fn node(
        graph: &mut Graph,
        op_type: &str,
        inputs: &[ValueId],
        attributes: &[(&str, Attribute)],
    ) -> ValueId {
        let mut all = super::super::example::plain();
        for (name, value) in attributes {
            all.insert(name, value.clone());
        }
        super::super::example::add(graph, op_type, all, inputs)
    }

    fn spelled_out(divide: bool, key_perm: &[i64]) -> Graph {
        let mut graph = Graph::default();
        let shaped = |graph: &mut Graph| {
            let dims = known_dims(&[2, 5, 3, 4]);
            let id = graph.add_value("x", ValueType::tensor(DataType::Float32, Some(dims)));
            graph.inputs.push(id);
            id
        };
        let [q, k, v] = [(); 3].map(|()| shaped(&mut graph));
        let perm = |p: &[i64]| [("perm", Attribute::Ints(p.to_vec()))];
        let q = node(&mut graph, "Transpose", &[q], &perm(&[0, 2, 1, 3]));
        let k = node(&mut graph, "Transpose", &[k], &perm(key_perm));
        let v = node(&mut graph, "Transpose", &[v], &perm(&[0, 2, 1, 3]));
        let scores = node(&mut graph, "MatMul", &[q, k], &[]);
        let two = graph.add_constant("two", Tensor::scalar(2f32));
        let scores = node(
            &mut graph,
            if divide { "Div" } else { "Mul" },
            &[scores, two],
            &[],
        );
        let mask = Tensor::from_slice(&[2, 1, 1, 5], &[0f32; 10]).expect("fits");
        let mask = graph.add_constant("mask", mask);
        let scores = node(&mut graph, "Add", &[scores, mask], &[]);
        let weights = node(
            &mut graph,
            "Softmax",
            &[scores],
            &[("axis", Attribute::Int(-1))],
        );
        let y = node(&mut graph, "MatMul", &[weights, v], &[]);
        let y = node(&mut graph, "Transpose", &[y], &perm(&[0, 2, 1, 3]));
        graph.outputs.push(y);
        crate::graph::inference::infer_types(&mut graph);
        graph
    }

    #[test]
    fn what_exporters_write_becomes_one_node() {
        for (divide, scale) in [(true, 0.5), (false, 2.0)] {
            let mut graph = spelled_out(divide, &[0, 2, 3, 1]);
            assert_eq!(apply(&mut graph, &Env::default()), 1);
            let last = graph.nodes.last().expect("nodes");
            assert_eq!(last.name.op_type, "FusedAttention");
            assert_eq!(last.attributes.float_or("scale", 0.0), Ok(scale));
            assert_eq!(last.output(0), Some(graph.outputs[0]));
            let inputs: Vec<_> = graph.inputs.iter().map(|&id| Some(id)).collect();
            assert_eq!(&last.inputs[..3], &inputs[..]);
        }
    }

    #[test]
    fn other_products_stay() {
        let mut graph = spelled_out(true, &[0, 3, 2, 1]);
        let before = graph.nodes.len();
        assert_eq!(apply(&mut graph, &Env::default()), 0);
        assert_eq!(graph.nodes.len(), before);
    }
}
