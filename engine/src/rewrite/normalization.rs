//! Layer and root-mean-square normalisation as exporters spell them out.
//!
//! ```text
//! d = x - mean(x);  y = d / √(mean(d²) + ε) · scale + bias
//! y = x / √(mean(x²) + ε) · scale
//! ```
//! over the last axis, the division also as a product with the reciprocal. Scale and bias are
//! vectors as long as that axis, or of one number: longer ones would broadcast an axis of size 1,
//! which the fused operators do not.

use super::pattern::{F32_LIKE, Links, Pattern, is, renamed};
use crate::graph::attributes::Attribute;
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::kernels::env::Env;
use crate::operators::ONNX_DOMAIN;
use crate::tensor::Tensor;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    let links = Links::new(graph);
    for i in 0..graph.nodes.len() {
        let pattern = links.of(graph);
        let node = &graph.nodes[i];
        let found = layer_norm(&pattern, node).or_else(|| rms_norm(&pattern, node));
        let Some(found) = found else { continue };
        let (op_type, opset) = match found.bias {
            Some(_) => ("LayerNormalization", 17),
            None => ("RMSNormalization", 23),
        };
        let attributes = Attributes::new(opset, 1)
            .with("axis", Attribute::Int(-1))
            .with("epsilon", Attribute::Float(found.epsilon));
        let name = renamed(node, ONNX_DOMAIN, op_type, opset);
        let outputs = node.outputs.clone();
        let mut inputs = vec![Some(found.x), Some(found.scale)];
        inputs.extend(found.bias.map(Some));
        if let Some(node) = graph.make_node(name, attributes, &inputs, &outputs) {
            graph.nodes[i] = node;
            changes += 1;
        }
    }
    changes
}

struct Normalization {
    x: ValueId,
    scale: ValueId,
    bias: Option<ValueId>,
    epsilon: f32,
}

/// The sum at the end of a layer normalisation.
fn layer_norm(pattern: &Pattern<'_>, node: &Node) -> Option<Normalization> {
    if !is(node, "Add") {
        return None;
    }
    let (product, bias) = pattern.with_made_by(node, "Mul")?;
    if !pattern.is_used_once(product.output(0)) {
        return None;
    }
    let scale = |id| vector(pattern, id).is_some();
    let normal = pattern.other(product, scale)?;
    let bias = vector(pattern, bias)?;
    let scale = pattern.other(product, |id| id == Some(normal))?;
    let (deviation, epsilon) = over_root_mean_square(pattern, Some(normal))?;
    let difference = pattern.made_by(Some(deviation), "Sub")?;
    let x = difference.input(0)?;
    let mean = pattern.made_by(difference.input(1), "ReduceMean")?;
    let fits = mean.input(0) == Some(x)
        && pattern.is_last_axis(&pattern.axes(mean)?, Some(x))
        && keeps_axes(mean);
    let fits = fits && fits_last_axis(pattern, scale, x) && fits_last_axis(pattern, bias, x);
    fits.then_some(Normalization {
        x,
        scale,
        bias: Some(bias),
        epsilon,
    })
}

/// The product at the end of a root-mean-square normalisation.
fn rms_norm(pattern: &Pattern<'_>, node: &Node) -> Option<Normalization> {
    if !is(node, "Mul") {
        return None;
    }
    let normal = pattern.other(node, |id| vector(pattern, id).is_some())?;
    let scale = pattern.other(node, |id| id == Some(normal))?;
    let (x, epsilon) = over_root_mean_square(pattern, Some(normal))?;
    // The deviation from a mean belongs to a layer normalisation, whose bias follows.
    if pattern.made_by(Some(x), "Sub").is_some() || !fits_last_axis(pattern, scale, x) {
        return None;
    }
    Some(Normalization {
        x,
        scale,
        bias: None,
        epsilon,
    })
}

/// `v` and `ε` where `id` is `v / √(mean(v²) + ε)`.
fn over_root_mean_square(pattern: &Pattern<'_>, id: Option<ValueId>) -> Option<(ValueId, f32)> {
    let (v, root) = if let Some(quotient) = pattern.only_for_this(id, "Div") {
        (quotient.input(0)?, quotient.input(1))
    } else {
        let product = pattern.only_for_this(id, "Mul")?;
        let (inverse, v) = pattern.with_made_by(product, "Reciprocal")?;
        (v?, inverse.input(0))
    };
    let root = pattern.made_by(root, "Sqrt")?;
    let sum = pattern.made_by(root.input(0), "Add")?;
    let mean_of_squares = pattern.other(sum, |id| pattern.number(id).is_some())?;
    let epsilon = pattern.other(sum, |id| id == Some(mean_of_squares));
    let epsilon = pattern.number_for(epsilon, Some(v))? as f32;
    let mean = pattern.made_by(Some(mean_of_squares), "ReduceMean")?;
    let squares = mean.input(0);
    let of_v = if let Some(power) = pattern.made_by(squares, "Pow") {
        power.input(0) == Some(v) && pattern.is_number(power.input(1), 2.0, Some(v))
    } else {
        let product = pattern.made_by(squares, "Mul")?;
        product.input(0) == Some(v) && product.input(1) == Some(v)
    };
    let fits = of_v && pattern.is_last_axis(&pattern.axes(mean)?, Some(v)) && keeps_axes(mean);
    fits.then_some((v, epsilon))
}

fn keeps_axes(node: &Node) -> bool {
    node.attributes.flag_or("keepdims", true).unwrap_or(false)
}

/// A constant vector of a type that the fused operators take: what scale and bias are.
fn vector(pattern: &Pattern<'_>, id: Option<ValueId>) -> Option<ValueId> {
    let tensor = pattern.graph.constant(id)?;
    (tensor.shape().len() == 1 && F32_LIKE.contains(&tensor.data_type())).then_some(id?)
}

/// Whether what a vector is combined with keeps the shape of `x`.
fn fits_last_axis(pattern: &Pattern<'_>, vector: ValueId, x: ValueId) -> bool {
    let len = pattern.graph.constant(Some(vector)).map(Tensor::len);
    len.is_some() && (len == Some(1) || len == pattern.last_size(Some(x)))
}
