//! Weights of products as bytes, where that was asked for: a quarter of the memory and of what has
//! to be read for a product, for answers that are approximate.
//!
//! ```text
//! MatMul(a, weights) [+ bias]      → ai.lethe.QuantizeRowsMatMul(a, bytes, scales, bias)
//! Gemm(a, weights, bias)           → the same, where it scales nothing and `a` is not transposed
//! ```
//!
//! Each column `w` of the weights becomes `round(w / s)` with `s = max |w| / 127`; rows of `a` are
//! quantised when they come, each by its own range, so that no row's result depends on the others.
//! Source of the scheme: LLM.int8() (Dettmers et al., 2022), without its outliers.

use super::pattern::{Links, Pattern, renamed};
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::kernels::env::Env;
use crate::limits;
use crate::operators::LETHE_DOMAIN;
use crate::tensor::{DataType, Tensor};

/// Smaller weights stay as they are: they cost little, and first and last layers are often small and
/// need to be exact.
const SMALL_ELEMENTS: usize = 4096;

/// A product with constant weights.
struct Product {
    a: ValueId,
    weights: ValueId,
    /// The bytes `[k, n]` and the scales `[n]`.
    quantised: (Tensor, Tensor),
    bias: Option<ValueId>,
    /// The node whose place is taken, and its output.
    at: usize,
    output: ValueId,
}

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    let links = Links::new(graph);
    for i in 0..graph.nodes.len() {
        let Some(product) = found(&links.of(graph), i) else {
            continue;
        };
        let at = product.at;
        if let Some(node) = product_of_bytes(graph, &graph.nodes[i].clone(), product) {
            graph.nodes[at] = node;
            changes += 1;
        }
    }
    changes
}

fn found(pattern: &Pattern<'_>, i: usize) -> Option<Product> {
    let graph = pattern.graph;
    let node = &graph.nodes[i];
    let (a, weights) = (node.input(0)?, node.input(1)?);
    let constant = graph.constant(Some(weights))?;
    let is_f32 = pattern.data_type(Some(a)) == Some(DataType::Float32);
    if !is_plain_product(pattern, node, a)? || !is_f32 || graph.constant(Some(a)).is_some() {
        return None;
    }
    let is_transposed = node.is("Gemm") && node.attributes.flag_or("transB", false).ok()?;
    let n = match (constant.shape(), is_transposed) {
        (&[n, _], true) | (&[_, n], false) => n,
        _ => return None,
    };
    let output = node.output(0)?;
    let (at, output, bias) = match (node.input(2), pattern.bias_added(output, n)) {
        (Some(bias), _) if pattern.is_vector(Some(bias), n) => (i, output, Some(bias)),
        (Some(_), _) => return None,
        (None, Some((at, bias, output))) => (at, output, Some(bias)),
        (None, None) => (i, output, None),
    };
    // Last, since it reads all weights.
    let quantised = quantised(constant, is_transposed)?;
    Some(Product {
        a,
        weights,
        quantised,
        bias,
        at,
        output,
    })
}

/// Whether the node multiplies `a` as it is with its second input, and scales nothing.
fn is_plain_product(pattern: &Pattern<'_>, node: &Node, a: ValueId) -> Option<bool> {
    if node.is("MatMul") {
        return Some(pattern.rank(Some(a)).is_some_and(|rank| rank >= 2));
    }
    let attributes = &node.attributes;
    let is_one = |name| {
        let factor = attributes.float_or(name, 1.0);
        factor.is_ok_and(|factor| factor == 1.0)
    };
    let scales = !is_one("alpha") || !is_one("beta");
    Some(node.is("Gemm") && !scales && !attributes.flag_or("transA", false).ok()?)
}

/// A matrix `[k, n]`, or `[n, k]` where it is transposed, as bytes `[k, n]` with a scale for each
/// column.
fn quantised(weights: &Tensor, is_transposed: bool) -> Option<(Tensor, Tensor)> {
    let &[rows, columns] = weights.shape() else {
        return None;
    };
    let (k, n) = match is_transposed {
        true => (columns, rows),
        false => (rows, columns),
    };
    // Weights borrowed from a file may begin at any byte.
    let weights = weights.clone().aligned();
    let elements = weights.as_slice::<f32>().ok()?;
    if elements.len() < SMALL_ELEMENTS || !elements.iter().all(|w| w.is_finite()) {
        return None;
    }
    let at = |i: usize, j: usize| match is_transposed {
        true => elements[j * k + i],
        false => elements[i * n + j],
    };
    let mut scales = limits::zeroed::<f32>(n);
    for i in 0..k {
        for (j, scale) in scales.iter_mut().enumerate() {
            *scale = scale.max(at(i, j).abs());
        }
    }
    for scale in &mut scales {
        // A column of zeros has any scale.
        *scale = if *scale == 0.0 { 1.0 } else { *scale / 127.0 };
    }
    let mut bytes = limits::zeroed(k * n);
    for (i, row) in bytes.chunks_exact_mut(n).enumerate() {
        for (j, byte) in row.iter_mut().enumerate() {
            *byte = (at(i, j) / scales[j]).round_ties_even() as i8;
        }
    }
    let bytes = Tensor::from_slice(&[k, n], &bytes).ok()?;
    Some((bytes, Tensor::from_slice(&[n], &scales).ok()?))
}

fn product_of_bytes(graph: &mut Graph, node: &Node, product: Product) -> Option<Node> {
    let (bytes, scales) = product.quantised;
    let name = graph.value(product.weights).name.clone();
    let bytes = graph.add_constant(name.clone(), bytes);
    let scales = graph.add_constant(name, scales);
    let inputs = [
        Some(product.a),
        Some(bytes),
        Some(scales),
        None,
        product.bias,
    ];
    let name = renamed(node, LETHE_DOMAIN, "QuantizeRowsMatMul", 1);
    graph.make_node(
        name,
        Attributes::new(1, 1),
        &inputs,
        &[Some(product.output)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::attributes::Attribute;
    use crate::onnx::writer::ModelWriter;
    use crate::session::{Session, SessionOptions};
    use crate::tensor::Value;

    const ROWS: usize = 5;
    const K: usize = 96;
    const N: usize = 64;

    /// The largest difference by which two steps of rounding excuse a result of `K` products of
    /// numbers up to 1 in size, four standard deviations: each factor is off by up to half a step
    /// (1/127 and 2/255), evenly spread, and each is multiplied by a wave, whose mean square is 1/2.
    fn expected_error() -> f32 {
        let step = 1.0f32 / 127.0;
        let variance = 2.0 * step.powi(2) / 12.0 / 2.0;
        4.0 * (K as f32 * variance).sqrt()
    }

    fn wave(shape: &[usize], step: f32) -> Tensor {
        let elements: Vec<f32> = (0..shape.iter().product())
            .map(|i| (i as f32 * step).sin())
            .collect();
        Tensor::from_slice(shape, &elements).expect("fits")
    }

    /// What a model of one input `x: [ROWS, K]` gives, and the operators that ran.
    fn answer(model: &ModelWriter, quantize: bool) -> (Vec<f32>, Vec<String>) {
        let options = SessionOptions {
            quantize,
            ..SessionOptions::default()
        };
        let session = Session::load(model.to_bytes(), &options).expect("a model");
        let x = Value::Tensor(wave(&[ROWS, K], 0.37));
        let outputs = session.run(&[("x", x)]).expect("a run");
        let y = outputs[0].1.as_tensor().expect("a tensor");
        let changed = session.rewrites().changes.iter();
        let changed = changed.filter(|(_, count)| *count > 0);
        let names = changed.map(|(name, _)| (*name).to_owned()).collect();
        (y.as_slice::<f32>().expect("floats").to_vec(), names)
    }

    #[test]
    fn products_with_large_weights_are_of_bytes_and_nearly_the_same() {
        let x = || ModelWriter::new(17).input("x", DataType::Float32, &["5", "96"]);
        let weights = |shape: &[usize]| x().constant("w", &wave(shape, 0.11));
        let transposed = vec![("transB", Attribute::Int(1))];
        let scaled = vec![("alpha", Attribute::Float(2.0))];
        let bias = wave(&[N], 0.7);
        let product = |model: ModelWriter| model.node("MatMul", &["x", "w"], &["p"], vec![]);
        let sum = |model: ModelWriter| model.node("Add", &["b", "p"], &["y"], vec![]);
        for (case, model, is_quantised) in [
            ("product", product(weights(&[K, N])).output("p"), true),
            (
                "product and bias",
                sum(product(weights(&[K, N])).constant("b", &bias)).output("y"),
                true,
            ),
            (
                "sum with what is no bias",
                sum(product(weights(&[K, N])).constant("b", &wave(&[ROWS, N], 0.7))).output("y"),
                true,
            ),
            (
                "transposed, with a bias",
                weights(&[N, K])
                    .constant("b", &bias)
                    .node("Gemm", &["x", "w", "b"], &["y"], transposed.clone())
                    .output("y"),
                true,
            ),
            (
                "scaled",
                weights(&[K, N])
                    .node("Gemm", &["x", "w"], &["y"], scaled)
                    .output("y"),
                false,
            ),
            ("small", product(weights(&[K, 2])).output("p"), false),
        ] {
            let (expected, rewrites) = answer(&model, false);
            let is_by_bytes =
                |rewrites: &[String]| rewrites.iter().any(|r| r == "weights as bytes");
            assert!(!is_by_bytes(&rewrites), "{case}: not asked for");
            let (found, rewrites) = answer(&model, true);
            assert_eq!(is_by_bytes(&rewrites), is_quantised, "{case}");
            let pairs = expected.iter().zip(&found);
            let difference = pairs.fold(0f32, |most, (y, z)| most.max((y - z).abs()));
            assert!(difference < expected_error(), "{case}: {difference}");
            assert_eq!(difference > 0.0, is_quantised, "{case}");
        }
    }

    #[test]
    fn each_column_has_a_scale_of_its_own() {
        let mut elements = vec![0f32; SMALL_ELEMENTS];
        let n = SMALL_ELEMENTS / 2;
        (elements[0], elements[n], elements[1]) = (-2.54, 1.27, 1e-6);
        let weights = Tensor::from_slice(&[2, n], &elements).expect("fits");
        let (bytes, scales) = quantised(&weights, false).expect("a matrix");
        let (bytes, scales) = (
            bytes.as_slice::<i8>().expect("i8"),
            scales.as_slice::<f32>(),
        );
        assert_eq!((bytes[0], bytes[n], bytes[1], bytes[2]), (-127, 64, 127, 0));
        assert_eq!(scales.expect("f32")[..3], [2.54 / 127.0, 1e-6 / 127.0, 1.0]);
        elements[7] = f32::NAN;
        let weights = Tensor::from_slice(&[2, n], &elements).expect("fits");
        assert!(quantised(&weights, false).is_none());
    }
}
