//! Takes `BatchNormalization` after `Conv` into the convolution's weights and bias.
//!
//! ```text
//! s = scale / √(variance + ε);   W' = W · s per output channel;   B' = (B - mean) · s + bias
//! ```

use super::pattern::Links;
use crate::graph::{Graph, Node};
use crate::kernels::env::Env;
use crate::limits;
use crate::tensor::Tensor;

pub(super) fn apply(graph: &mut Graph, _: &Env) -> usize {
    let mut changes = 0;
    let links = Links::new(graph);
    for i in 0..graph.nodes.len() {
        let pattern = links.of(graph);
        let norm = &graph.nodes[i];
        if !norm.is("BatchNormalization") || !is_inference(norm) {
            continue;
        }
        let Some(conv) = pattern.only_for_this(norm.input(0), "Conv") else {
            continue;
        };
        let Some((weights, bias)) = folded(graph, conv, norm) else {
            continue;
        };
        let mut node = conv.clone();
        node.outputs = norm.outputs[..1].into();
        let name = format!("{}/batch_norm", conv.name.name);
        node.inputs.truncate(1);
        node.inputs
            .push(Some(graph.add_constant(format!("{name}/W"), weights)));
        node.inputs
            .push(Some(graph.add_constant(format!("{name}/B"), bias)));
        graph.nodes[i] = node;
        changes += 1;
    }
    changes
}

/// Whether the statistics are the given ones, not those of the batch.
fn is_inference(norm: &Node) -> bool {
    let in_training = norm.attributes.flag_or("training_mode", false);
    in_training == Ok(false) && norm.outputs[1..].iter().all(Option::is_none)
}

/// The new weights and bias, where all is constant and of type float32, and finite: what overflows
/// before it is multiplied does so elsewhere than afterwards.
fn folded(graph: &Graph, conv: &Node, norm: &Node) -> Option<(Tensor, Tensor)> {
    let floats = |id| {
        let tensor = graph.constant(id)?.clone().aligned();
        Some(limits::copied(tensor.as_slice::<f32>().ok()?))
    };
    let weights = graph.constant(conv.input(1))?;
    let shape = weights.shape().to_vec();
    let mut w = floats(conv.input(1))?;
    let channels = *shape.first()?;
    let mut b = match conv.input(2) {
        Some(id) => floats(Some(id))?,
        None => vec![0.0; channels],
    };
    let [scale, bias, mean, variance] =
        [1, 2, 3, 4].map(|i| floats(norm.input(i)).filter(|v| v.len() == channels));
    let (scale, bias, mean, variance) = (scale?, bias?, mean?, variance?);
    let epsilon = norm.attributes.float_or("epsilon", 1e-5).ok()?;
    if b.len() != channels || channels == 0 {
        return None;
    }
    let per_channel = w.len() / channels;
    for c in 0..channels {
        let s = scale[c] / (variance[c] + epsilon).sqrt();
        w[c * per_channel..(c + 1) * per_channel]
            .iter_mut()
            .for_each(|w| *w *= s);
        b[c] = (b[c] - mean[c]) * s + bias[c];
    }
    if !w.iter().chain(&b).all(|x| x.is_finite()) {
        return None;
    }
    Some((
        Tensor::from_slice(&shape, &w).ok()?,
        Tensor::from_slice(&[channels], &b).ok()?,
    ))
}
