//! Quantised products as exporters spell them out ("QDQ"), to products of bytes.
//!
//! ```text
//! MatMul(DequantizeLinear(a), DequantizeLinear(weights)) [+ bias]
//!     → MatMulIntegerToFloat(a, weights, scales, zero points, bias)
//! ```
//!
//! The weights are constant matrices with one scale or one a column, `a` has one scale. Must come
//! before constant folding, which would widen the weights.

use super::pattern::{Links, Pattern, renamed};
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::kernels::env::Env;
use crate::tensor::{DataType, Tensor};

const MICROSOFT: &str = "com.microsoft";

/// Products of bytes of which the sum surely fits 32 bits.
const LONGEST_SUM: usize = (i32::MAX / (255 * 255)) as usize;

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
    let &[k, n] = weights.shape() else {
        return None;
    };
    let is_byte = |id| {
        matches!(
            pattern.data_type(id),
            Some(DataType::Uint8 | DataType::Int8)
        )
    };
    let is_one = |id: Option<ValueId>| graph.constant(id).is_some_and(|t| t.len() == 1);
    let is_f32 = |id: Option<ValueId>| {
        graph
            .constant(id)
            .is_some_and(|t| t.data_type() == DataType::Float32)
    };
    let axis = b.attributes.int_or("axis", 1).ok()?;
    let per_column = graph.constant(b.input(1))?.shape() == [n] && (axis == 1 || axis == -1);
    let to_f32 = |node: &Node| {
        let output = node.attributes.optional_data_type("output_dtype");
        matches!(output, Ok(None | Some(DataType::Float32)))
    };
    let fits = k <= LONGEST_SUM
        && is_byte(a.input(0))
        && is_byte(b.input(0))
        && is_f32(a.input(1))
        && is_f32(b.input(1))
        && to_f32(a)
        && to_f32(b)
        && is_one(a.input(1))
        && (a.input(2).is_none() || is_one(a.input(2)))
        && (b.input(2).is_none() || graph.constant(b.input(2)).is_some())
        && (is_one(b.input(1)) || per_column)
        && pattern.rank(a.input(0)).is_some_and(|rank| rank >= 2);
    if !fits || !multiply(graph.constant(a.input(1))?, graph.constant(b.input(1))?)? {
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

/// Whether the scale of one side times each of the other's is a number of full precision: sums are
/// multiplied with these products, not each factor with its scale.
fn multiply(scale: &Tensor, others: &Tensor) -> Option<bool> {
    let (scale, others) = (scale.clone().aligned(), others.clone().aligned());
    let &[scale] = scale.as_slice::<f32>().ok()? else {
        return None;
    };
    let mut others = others.as_slice::<f32>().ok()?.iter();
    Some(others.all(|other| *other == 0.0 || (scale * other).is_normal()))
}

#[cfg(test)]
mod tests {
    use super::super::example::{add, plain};
    use super::*;
    use crate::graph::attributes::Attribute;
    use crate::graph::dimension::known_dims;
    use crate::graph::{Dim, ValueType};

    fn quantised_product(scales: usize, axis: i64, with_bias: bool) -> Graph {
        let dequantize = plain().with("axis", Attribute::Int(axis));
        product_of(4, (0.5, &vec![0.25; scales]), dequantize, with_bias)
    }

    /// The product of bytes `[rows, k]` and `[k, 4]`, with the scales of both, and the attributes of
    /// what dequantises the second.
    fn product_of(
        k: usize,
        (a_scale, b_scale): (f32, &[f32]),
        dequantize: Attributes,
        with_bias: bool,
    ) -> Graph {
        let mut graph = Graph::default();
        let mut dims = known_dims(&[1, k]);
        dims[0] = Dim::Symbol("rows".into());
        let a = graph.add_value("a", ValueType::tensor(DataType::Uint8, Some(dims)));
        graph.inputs.push(a);
        let tensor = |shape: &[usize], value| {
            let count = shape.iter().product();
            Tensor::from_slice(shape, &vec![value; count]).expect("fits")
        };
        let one = graph.add_constant("a_scale", Tensor::scalar(a_scale));
        let zero = graph.add_constant("a_zero", Tensor::scalar(128u8));
        let weights = Tensor::from_slice(&[k, 4], &vec![1i8; 4 * k]).expect("fits");
        let weights = graph.add_constant("b", weights);
        let b_scale = Tensor::from_slice(&[b_scale.len()], b_scale).expect("fits");
        let scale = graph.add_constant("b_scale", b_scale);
        let a = add(&mut graph, "DequantizeLinear", plain(), &[a, one, zero]);
        let b = add(
            &mut graph,
            "DequantizeLinear",
            dequantize,
            &[weights, scale],
        );
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

    /// Sums that do not fit 32 bits, scales that are lost in the product of two, another type.
    #[test]
    fn what_would_not_mean_the_same_stays() {
        let longest = LONGEST_SUM;
        let half = plain().with("output_dtype", Attribute::Int(DataType::Float16 as i64));
        for (case, k, scales, attributes, changes) in [
            ("the longest sum", longest, (0.5, &[0.25f32; 4]), plain(), 1),
            ("a longer sum", longest + 1, (0.5, &[0.25; 4]), plain(), 0),
            (
                "one scale is 0",
                4,
                (0.5, &[0.25, 0.0, 0.5, 0.5]),
                plain(),
                1,
            ),
            ("small", 4, (1e-30, &[1e-30; 4]), plain(), 0),
            ("large", 4, (1e30, &[0.5, 0.5, 0.5, 1e30]), plain(), 0),
            ("16 bits", 4, (0.5, &[0.25; 4]), half, 0),
        ] {
            let mut graph = product_of(k, (scales.0, scales.1), attributes, false);
            assert_eq!(apply(&mut graph, &Env::default()), changes, "{case}");
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
