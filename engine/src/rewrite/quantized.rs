//! Quantised products as exporters spell them out ("QDQ"), to products of bytes.
//!
//! ```text
//! MatMul(DequantizeLinear(a), DequantizeLinear(weights)) [+ bias]
//!     → MatMulIntegerToFloat(a, weights, scales, zero points, bias)
//! ```
//!
//! The weights are constant matrices with one scale or one a column, `a` has one scale. Must come
//! before constant folding, which would widen the weights.

use super::pattern::{Pattern, renamed};
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::kernels::env::Env;
use crate::tensor::DataType;

const MICROSOFT: &str = "com.microsoft";

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    for i in 0..graph.nodes.len() {
        let pattern = Pattern::new(graph);
        let Some((at, node)) = found(&pattern, i) else {
            continue;
        };
        graph.nodes[at] = node;
        changes += 1;
    }
    changes
}

/// The product of bytes for the product at node `i`, and which node it takes the place of.
fn found(pattern: &Pattern<'_>, i: usize) -> Option<(usize, Node)> {
    let graph = pattern.graph;
    let product = &graph.nodes[i];
    if !product.is("MatMul") {
        return None;
    }
    let a = pattern.made_by(product.input(0), "DequantizeLinear")?;
    let b = pattern.made_by(product.input(1), "DequantizeLinear")?;
    let weights = graph.constant(b.input(0))?;
    let &[_, n] = weights.shape() else {
        return None;
    };
    let is_byte = |id: Option<ValueId>| {
        let data_type = id.and_then(|id| graph.value(id).value_type.data_type());
        matches!(data_type, Some(DataType::Uint8 | DataType::Int8))
    };
    let is_one = |id: Option<ValueId>| graph.constant(id).is_some_and(|t| t.len() == 1);
    let is_f32 = |id: Option<ValueId>| {
        graph
            .constant(id)
            .is_some_and(|t| t.data_type() == DataType::Float32)
    };
    let axis = b.attributes.int_or("axis", 1).ok()?;
    let per_column = graph.constant(b.input(1))?.shape() == [n] && (axis == 1 || axis == -1);
    let fits = is_byte(a.input(0))
        && is_byte(b.input(0))
        && is_f32(a.input(1))
        && is_f32(b.input(1))
        && is_one(a.input(1))
        && (a.input(2).is_none() || is_one(a.input(2)))
        && (b.input(2).is_none() || graph.constant(b.input(2)).is_some())
        && (is_one(b.input(1)) || per_column)
        && pattern.rank(a.input(0)).is_some_and(|rank| rank >= 2);
    if !fits {
        return None;
    }
    // A bias that is added next.
    let y = product.output(0)?;
    let (at, output, bias) = match pattern.bias_added(y, n) {
        Some((at, bias, output)) => (at, output, Some(bias)),
        None => (i, y, None),
    };
    let inputs = [
        a.input(0),
        b.input(0),
        a.input(1),
        b.input(1),
        a.input(2),
        b.input(2),
        bias,
    ];
    let name = renamed(product, MICROSOFT, "MatMulIntegerToFloat", 1);
    let node = graph.make_node(name, Attributes::new(1, 1), &inputs, &[Some(output)])?;
    Some((at, node))
}

#[cfg(test)]
mod tests {
    use super::super::example::{add, plain};
    use super::*;
    use crate::graph::attributes::Attribute;
    use crate::graph::dimension::known_dims;
    use crate::graph::{Dim, ValueType};
    use crate::tensor::Tensor;

    fn quantised_product(scales: usize, axis: i64, with_bias: bool) -> Graph {
        let mut graph = Graph::default();
        let mut dims = known_dims(&[1, 4]);
        dims[0] = Dim::Symbol("rows".into());
        let a = graph.add_value("a", ValueType::tensor(DataType::Uint8, Some(dims)));
        graph.inputs.push(a);
        let tensor = |shape: &[usize], value| {
            let count = shape.iter().product();
            Tensor::from_slice(shape, &vec![value; count]).expect("fits")
        };
        let one = graph.add_constant("a_scale", Tensor::scalar(0.5f32));
        let zero = graph.add_constant("a_zero", Tensor::scalar(128u8));
        let weights = Tensor::from_slice(&[4, 4], &[1i8; 16]).expect("fits");
        let weights = graph.add_constant("b", weights);
        let scale = graph.add_constant("b_scale", tensor(&[scales], 0.25f32));
        let a = add(&mut graph, "DequantizeLinear", plain(), &[a, one, zero]);
        let b = plain().with("axis", Attribute::Int(axis));
        let b = add(&mut graph, "DequantizeLinear", b, &[weights, scale]);
        let mut y = add(&mut graph, "MatMul", plain(), &[a, b]);
        if with_bias {
            let bias = graph.add_constant("bias", tensor(&[4], 1f32));
            y = add(&mut graph, "Add", plain(), &[bias, y]);
        }
        graph.outputs.push(y);
        crate::graph::inference::infer_types(&mut graph);
        graph
    }

    #[test]
    fn dequantised_products_become_products_of_bytes() {
        for (scales, axis, with_bias) in [(1, 1, false), (4, 1, true), (4, -1, true)] {
            let mut graph = quantised_product(scales, axis, with_bias);
            assert_eq!(apply(&mut graph, &Env::default()), 1);
            let node = graph.nodes.last().expect("nodes");
            assert_eq!(node.name.op_type, "MatMulIntegerToFloat");
            assert_eq!(node.output(0), Some(graph.outputs[0]));
            assert_eq!(node.input(6).is_some(), with_bias);
        }
    }

    #[test]
    fn scales_of_rows_stay() {
        assert_eq!(
            apply(&mut quantised_product(4, 0, true), &Env::default()),
            0
        );
    }
}
