//! Layer and root-mean-square normalisation as exporters spell them out.
//!
//! ```text
//! d = x - mean(x);  y = d / √(mean(d²) + ε) · scale + bias
//! y = x / √(mean(x²) + ε) · scale
//! ```
//! over the last axis, the division also as a product with the reciprocal.

use super::pattern::{Pattern, renamed};
use crate::graph::attributes::Attribute;
use crate::graph::{Attributes, Graph, Node, ValueId};
use crate::kernels::env::Env;
use crate::operators::ONNX_DOMAIN;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    for i in 0..graph.nodes.len() {
        let pattern = Pattern::new(graph);
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
    if !node.is("Add") {
        return None;
    }
    let (product, bias) = pattern.with_made_by(node, "Mul")?;
    let bias = vector(pattern, bias)?;
    if !pattern.is_used_once(product.output(0)) {
        return None;
    }
    let scale = |id| vector(pattern, id).is_some();
    let normal = pattern.other(product, scale)?;
    let scale = pattern.other(product, |id| id == Some(normal))?;
    let (deviation, epsilon) = over_root_mean_square(pattern, Some(normal))?;
    let difference = pattern.made_by(Some(deviation), "Sub")?;
    let x = difference.input(0)?;
    let mean = pattern.made_by(difference.input(1), "ReduceMean")?;
    let fits = mean.input(0) == Some(x)
        && pattern.is_last_axis(&pattern.axes(mean)?, Some(x))
        && keeps_axes(mean);
    fits.then_some(Normalization {
        x,
        scale,
        bias: Some(bias),
        epsilon,
    })
}

/// The product at the end of a root-mean-square normalisation.
fn rms_norm(pattern: &Pattern<'_>, node: &Node) -> Option<Normalization> {
    if !node.is("Mul") {
        return None;
    }
    let normal = pattern.other(node, |id| vector(pattern, id).is_some())?;
    let scale = pattern.other(node, |id| id == Some(normal))?;
    let (x, epsilon) = over_root_mean_square(pattern, Some(normal))?;
    // The deviation from a mean belongs to a layer normalisation, whose bias follows.
    if pattern.made_by(Some(x), "Sub").is_some() {
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
    let epsilon = pattern.number(pattern.other(sum, |id| id == Some(mean_of_squares)))?;
    let mean = pattern.made_by(Some(mean_of_squares), "ReduceMean")?;
    let squares = mean.input(0);
    let of_v = if let Some(power) = pattern.made_by(squares, "Pow") {
        power.input(0) == Some(v) && pattern.is_number(power.input(1), 2.0)
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

/// A constant vector: what scale and bias are.
fn vector(pattern: &Pattern<'_>, id: Option<ValueId>) -> Option<ValueId> {
    let tensor = pattern.graph.constant(id)?;
    (tensor.shape().len() == 1 && tensor.data_type().is_float()).then_some(id?)
}
