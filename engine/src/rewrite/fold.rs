//! Computes at load what depends on constants alone.

use crate::graph::dimension::known_dims;
use crate::graph::{Graph, WIDENING};
use crate::kernels::env::Env;
use crate::limits::{self, Ended, Limits, Stop};
use crate::operator::run_alone;
use crate::tensor::{DataType, Tensor, Value};

/// Results larger than this and larger than what they were made from stay unfolded: a model may
/// expand a number to gigabytes.
const LIMIT_BYTES: usize = 1 << 20;

pub(super) fn apply(graph: &mut Graph, env: &Env) -> usize {
    let mut changes = 0;
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        let constant = |id| graph.constants.contains_key(id);
        if !node.operator.is_deterministic()
            || !node.subgraphs.is_empty()
            || node.outputs.iter().all(Option::is_none)
            || !node.inputs.iter().flatten().all(constant)
            || node.outputs.iter().flatten().any(constant)
        {
            continue;
        }
        let inputs: Vec<Option<Value>> = node
            .inputs
            .iter()
            .map(|id| Some(Value::Tensor(graph.constants[&(*id)?].clone().aligned())))
            .collect();
        let input_bytes: usize = inputs
            .iter()
            .flatten()
            .filter_map(|v| Some(v.as_tensor().ok()?.bytes().len()))
            .sum();
        let widens = node.is("Cast") || node.is("DequantizeLinear");
        let growth = if widens { WIDENING } else { 1 };
        let limit = LIMIT_BYTES.max(growth * input_bytes);
        let Some(with_strings) = fits(node, &inputs, limit) else {
            continue;
        };
        // What fails on constants may be in a branch that never runs: leave it to the run.
        let count = node.outputs.len();
        let run = || limits::until_ended(|| run_alone(&*node.operator, env, &inputs, count));
        let made = match with_strings {
            // How long texts are that are not there yet, no shape tells.
            true => limits::within(strings_limits(), run),
            false => run(),
        };
        let outputs = match made {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(_)) | Err(Ended::Shortage(_)) => continue,
            Err(stopped) => stopped.raise(),
        };
        let outputs: Vec<Option<Tensor>> = outputs
            .into_iter()
            .map(|v| match v {
                Some(Value::Tensor(tensor)) => Some(tensor),
                _ => None,
            })
            .collect();
        let ids = graph.nodes[i].outputs.clone();
        if ids
            .iter()
            .zip(&outputs)
            .any(|(id, t)| id.is_some() && t.is_none())
        {
            continue;
        }
        let made = ids.iter().zip(outputs);
        if !graph.fold(
            made.filter_map(|(id, tensor)| Some(((*id)?, tensor?)))
                .collect(),
        ) {
            continue;
        }
        graph.nodes[i].outputs.iter_mut().for_each(|o| *o = None);
        changes += 1;
    }
    graph
        .nodes
        .retain(|node| node.outputs.iter().any(Option::is_some));
    changes
}

/// What work on texts may take here.
fn strings_limits() -> Limits {
    Limits {
        memory_bytes: 16 * LIMIT_BYTES as u64,
        stop: Stop::default(),
    }
}

/// Whether there are strings among the outputs; `None` where these do not stay within a limit, as far
/// as shapes tell.
fn fits(node: &crate::graph::Node, inputs: &[Option<Value>], limit: usize) -> Option<bool> {
    use crate::graph::dimension::known_shape;
    use crate::operator::{InferContext, InputInfo, OutputInfo};
    use crate::tensor::element_count;

    let kinds: Vec<_> = inputs.iter().map(|v| v.as_ref().map(Value::kind)).collect();
    let tensor = |v: &Option<Value>| v.as_ref().and_then(|v| v.as_tensor().ok().cloned());
    let tensors: Vec<Option<Tensor>> = inputs.iter().map(tensor).collect();
    let dims: Vec<_> = tensors
        .iter()
        .map(|t| t.as_ref().map(|t| known_dims(t.shape())))
        .collect();
    let infos: Vec<Option<InputInfo<'_>>> = (0..inputs.len())
        .map(|i| {
            Some(InputInfo {
                kind: Some(kinds[i].as_ref()?),
                dims: dims[i].as_deref(),
                value: tensors[i].as_ref().map(Tensor::view),
                ints: None,
            })
        })
        .collect();
    let ctx = InferContext::new(&infos, node.outputs.len(), &[]);
    let outputs = node.operator.infer(&ctx).ok()?;
    let fit = outputs.iter().all(|o| {
        let shape = o.value_type.dims.as_deref().and_then(known_shape);
        let bytes = shape
            .and_then(|s| element_count(&s))
            .and_then(|n| o.value_type.data_type().and_then(|t| t.size_bytes(n)));
        bytes.is_none_or(|b| b <= limit)
    });
    let is_string = |o: &OutputInfo| o.value_type.data_type() == Some(DataType::String);
    fit.then(|| outputs.iter().any(is_string))
}
