//! Takes an activation, and a residual sum before it, into the product or convolution that makes
//! its input, so that the result is written once.
//!
//! ```text
//! Conv → BatchNormalization (taken in before) → Add(residual) → Relu
//! MatMul → Add(bias) → Gelu
//! ```
//!
//! A residual is taken in where it is likely to have the shape of what it is added to; where a run
//! shows that it has another one, the fused operators add as `Add` does.

use super::pattern::{Links, Pattern, fused, is};
use crate::graph::attributes::Attribute;
use crate::graph::{Graph, Node, ValueId};
use crate::kernels::env::Env;
use crate::operators::LETHE_DOMAIN;

/// What is fused into, as a standard operator or as Lethe's own.
const HOSTS: &[(&str, &str)] = &[
    ("Conv", "FusedConv"),
    ("MatMul", "FusedMatMul"),
    ("Gemm", "FusedGemm"),
];

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    let links = Links::new(graph);
    for i in 0..graph.nodes.len() {
        let pattern = links.of(graph);
        let found = bias_or_residual(&pattern, i);
        if let Some(node) = found.or_else(|| activation(&pattern, &graph.nodes[i])) {
            graph.nodes[i] = node;
            changes += 1;
        }
    }
    changes
}

/// The host that makes a value for one use only, with the name of its fused form.
fn host<'g>(pattern: &Pattern<'g>, id: Option<ValueId>) -> Option<(&'g Node, &'static str)> {
    let node = pattern.producer(id).filter(|_| pattern.is_used_once(id))?;
    let (_, fused) = HOSTS.iter().find(|(plain, fused)| {
        node.is(plain) || (node.name.domain == LETHE_DOMAIN && node.name.op_type == *fused)
    })?;
    // Nothing can come after an activation.
    node.attributes
        .get("activation")
        .is_none()
        .then_some((node, *fused))
}

fn activation(pattern: &Pattern<'_>, node: &Node) -> Option<Node> {
    // Kernels have its numbers, and integers, in f32.
    if !pattern.is_f32_like(node.input(0)) {
        return None;
    }
    let (name, params) = activation_of(pattern, node)?;
    let (host, fused_type) = host(pattern, node.input(0))?;
    let attributes = host
        .attributes
        .clone()
        .with("activation", Attribute::String(name.into()))
        .with("activation_params", Attribute::Floats(params));
    let inputs = host.inputs.to_vec();
    fused(
        pattern.graph,
        host,
        fused_type,
        attributes,
        &inputs,
        node.output(0),
    )
}

/// Name and parameters of an activation that kernels can apply while they write.
fn activation_of(pattern: &Pattern<'_>, node: &Node) -> Option<(&'static str, Vec<f32>)> {
    let float = |name, default| node.attributes.float_or(name, default).ok();
    if node.is("Relu") {
        return Some(("Relu", vec![]));
    }
    if node.is("Clip") {
        // Bounds are attributes until opset 6 and inputs since 11.
        let bound = |i: usize, name, default| match node.input(i) {
            Some(id) => pattern.number(Some(id)).map(|bound| bound as f32),
            None if node.name.opset < 11 => float(name, default),
            None => Some(default),
        };
        let min = bound(1, "min", f32::NEG_INFINITY)?;
        return Some(("Clip", vec![min, bound(2, "max", f32::INFINITY)?]));
    }
    if node.is("LeakyRelu") {
        return Some(("LeakyRelu", vec![float("alpha", 0.01)?]));
    }
    if node.is("HardSigmoid") {
        return Some((
            "HardSigmoid",
            vec![float("alpha", 0.2)?, float("beta", 0.5)?],
        ));
    }
    if node.is("Gelu") {
        let approximate = node.attributes.string_or("approximate", "none").ok()?;
        return Some((
            if approximate == "tanh" {
                "GeluTanh"
            } else {
                "Gelu"
            },
            vec![],
        ));
    }
    let plain = ["Sigmoid", "Tanh", "HardSwish"];
    plain
        .into_iter()
        .find(|name| node.is(name))
        .map(|name| (name, vec![]))
}

/// The host at one side of a sum, with the other side as its bias or residual.
fn bias_or_residual(pattern: &Pattern<'_>, i: usize) -> Option<Node> {
    let node = &pattern.graph.nodes[i];
    if !is(node, "Add") {
        return None;
    }
    for (product, other) in [(0, 1), (1, 0)] {
        let (product, Some(other)) = (node.input(product), node.input(other)) else {
            continue;
        };
        let Some((host, fused_type)) = host(pattern, product) else {
            continue;
        };
        let Some(slot) = slot_for(pattern, host, product, other) else {
            continue;
        };
        let mut inputs = host.inputs.to_vec();
        inputs.resize(inputs.len().max(slot + 1), None);
        inputs[slot] = Some(other);
        let attributes = host.attributes.clone();
        let output = node.output(0);
        return fused(pattern.graph, host, fused_type, attributes, &inputs, output);
    }
    None
}

/// Which input of the host `other` becomes: 2 for a bias, 3 for a residual that is likely to have the
/// output's shape.
fn slot_for(
    pattern: &Pattern<'_>,
    host: &Node,
    product: Option<ValueId>,
    other: ValueId,
) -> Option<usize> {
    let is_matmul = host.is("MatMul") || host.name.op_type == "FusedMatMul";
    if is_matmul && host.input(2).is_none() && host.input(3).is_none() {
        let bias = pattern.graph.constant(Some(other));
        let weights = pattern.graph.constant(host.input(1));
        if let (Some(bias), Some(weights)) = (bias, weights)
            && weights.shape().len() == 2
            && bias.shape() == &weights.shape()[1..]
        {
            return Some(2);
        }
    }
    let is_conv = host.is("Conv") || host.name.op_type == "FusedConv";
    let dims = |id: ValueId| pattern.graph.value(id).value_type.dims.as_deref();
    let same_shape = || {
        let (a, b) = (dims(product?)?, dims(other)?);
        Some(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.likely_equals(b)))
    };
    let has_weights = pattern.graph.constant(host.input(1)).is_some();
    let free = host.input(3).is_none()
        && (is_conv || is_matmul)
        && has_weights
        && pattern.is_real(Some(other));
    // The sum takes the place of the host's output, so what it adds must be there before: it is,
    // since the sum's own node stays where it was.
    (free && same_shape() == Some(true)).then_some(3)
}
