//! Types and shapes of all values of a graph, as far as they follow from its inputs and constants.
//!
//! Each operator's own shape rule is asked, producers first, with symbols where sizes are not
//! known. What is inferred goes before what the file declares: annotations may be wrong. A node
//! whose inputs do not fit leaves its outputs unknown; running it will say why.
//!
//! This is done twice. Once the file is believed where nothing is inferred, and axes of one name
//! are taken for one size: that is what a model says of itself, and what is likely. The second
//! time only what a run checks is taken for true ([`Graph::proved`]): that is what rewrites may
//! rely on.

use super::{Dim, Dims, Graph, Ints, Node, ValueId, ValueType};
use crate::graph::dimension::known_dims;
use crate::operator::{InferContext, InputInfo, OutputInfos};
use crate::tensor::{DataType, Tensor, ValueKind};

/// Infers the types of a graph's values and of its subgraphs' values.
pub fn infer_types(graph: &mut Graph) {
    infer_declared(graph);
    let inputs = graph.inputs.iter().enumerate();
    let given = inputs.map(|(i, &id)| names_apart(i, &graph.value(id).value_type));
    let given = given.collect();
    prove(graph, given);
}

/// The type of the so-manyth input with a name of its own for each axis: a run may give axes of one
/// name several sizes.
fn names_apart(input: usize, declared: &ValueType) -> ValueType {
    let own = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Known(size) => Dim::Known(*size),
        Dim::Symbol(_) | Dim::Unknown => Dim::Symbol(format!("{input}.{axis}").into()),
    };
    let own = |dims: &Dims| dims.iter().enumerate().map(own).collect();
    ValueType {
        kind: declared.kind.clone(),
        // The number of axes is checked in tensors only.
        dims: declared.data_type().and(declared.dims.as_ref()).map(own),
    }
}

fn infer_declared(graph: &mut Graph) {
    let mut ints: Vec<Option<Ints>> = vec![None; graph.values.len()];
    for i in 0..graph.nodes.len() {
        infer_subgraphs(graph, i);
        let node = &graph.nodes[i];
        let below: Vec<Vec<ValueType>> = node.subgraphs.iter().map(output_types).collect();
        let value_type = |id: ValueId| &graph.values[id.index()].value_type;
        let Some(outputs) = inferred(graph, node, value_type, &ints, &below) else {
            continue;
        };
        let ids = node.outputs.clone();
        for (id, output) in ids.iter().zip(outputs) {
            let Some(id) = id else { continue };
            let known = &mut graph.values[id.index()].value_type;
            if output.value_type.kind.is_some() {
                known.kind = output.value_type.kind;
            }
            if output.value_type.dims.is_some() {
                known.dims = output.value_type.dims;
            }
            ints[id.index()] = output.ints;
        }
    }
}

/// What a node's operator says of its outputs; `None` where the inputs do not fit it.
fn inferred<'g>(
    graph: &'g Graph,
    node: &Node,
    value_type: impl Fn(ValueId) -> &'g ValueType,
    ints: &[Option<Ints>],
    below: &[Vec<ValueType>],
) -> Option<OutputInfos> {
    let own = node.inputs.len() - node.captures;
    let info = |id: ValueId| {
        let value_type = value_type(id);
        InputInfo {
            kind: value_type.kind.as_ref(),
            dims: value_type.dims.as_deref(),
            value: graph
                .constants
                .get(&id)
                .filter(|t| is_aligned(t))
                .map(Tensor::view),
            ints: ints[id.index()].as_deref(),
        }
    };
    let infos: Vec<_> = node.inputs[..own].iter().map(|id| id.map(info)).collect();
    let ctx = InferContext::new(&infos, node.outputs.len(), below);
    node.operator.infer(&ctx).ok()
}

fn is_aligned(tensor: &Tensor) -> bool {
    tensor
        .bytes()
        .as_ptr()
        .addr()
        .is_multiple_of(tensor.data_type().alignment())
}

fn output_types(graph: &Graph) -> Vec<ValueType> {
    graph
        .outputs
        .iter()
        .map(|&id| graph.value(id).value_type.clone())
        .collect()
}

/// Tells the subgraphs of a node what is known of their captures, and infers them.
fn infer_subgraphs(graph: &mut Graph, index: usize) {
    let node = &graph.nodes[index];
    let own = node.inputs.len() - node.captures;
    let captured: Vec<ValueType> = node.inputs[own..]
        .iter()
        .map(|id| id.map_or(ValueType::UNKNOWN, |id| graph.value(id).value_type.clone()))
        .collect();
    for subgraph in &mut graph.nodes[index].subgraphs {
        let first = subgraph.inputs.len() - captured.len();
        for (i, value_type) in captured.iter().enumerate() {
            let id = subgraph.inputs[first + i];
            subgraph.values[id.index()].value_type = value_type.clone();
        }
        infer_declared(subgraph);
    }
}

/// Proves what follows of a graph's values from what is `given` of its inputs.
fn prove(graph: &mut Graph, given: Vec<ValueType>) {
    let mut known = vec![ValueType::UNKNOWN; graph.values.len()];
    for (id, tensor) in &graph.constants {
        let dims = known_dims(tensor.shape());
        known[id.index()] = ValueType::tensor(tensor.data_type(), Some(dims));
    }
    for (id, value_type) in graph.inputs.iter().zip(given) {
        known[id.index()] = value_type;
    }
    let mut ints: Vec<Option<Ints>> = vec![None; graph.values.len()];
    for i in 0..graph.nodes.len() {
        prove_subgraphs(graph, i, &known);
        let node = &graph.nodes[i];
        let below: Vec<Vec<ValueType>> = node.subgraphs.iter().map(Graph::proved_outputs).collect();
        let outputs = inferred(graph, node, |id| &known[id.index()], &ints, &below);
        for (id, output) in node.outputs.iter().zip(outputs.into_iter().flatten()) {
            let Some(id) = id else { continue };
            known[id.index()] = output.value_type;
            ints[id.index()] = output.ints;
        }
    }
    graph.proved = known;
}

fn prove_subgraphs(graph: &mut Graph, index: usize, known: &[ValueType]) {
    let node = &graph.nodes[index];
    let own = node.inputs.len() - node.captures;
    let of = |id: &Option<ValueId>| id.map_or(ValueType::UNKNOWN, |id| known[id.index()].clone());
    let captured: Vec<ValueType> = node.inputs[own..].iter().map(of).collect();
    let outside: Vec<ValueType> = node.inputs[..own].iter().map(of).collect();
    let given = |subgraph: &Graph| {
        let count = subgraph.inputs.len() - captured.len();
        let mut given = given_below(node, count, &outside);
        given.extend_from_slice(&captured);
        given
    };
    let given: Vec<Vec<ValueType>> = node.subgraphs.iter().map(given).collect();
    for (subgraph, given) in graph.nodes[index].subgraphs.iter_mut().zip(given) {
        prove(subgraph, given);
    }
}

/// What is true of the `count` values that a node gives its subgraphs in every round: kinds stay,
/// sizes may change.
fn given_below(node: &Node, count: usize, outside: &[ValueType]) -> Vec<ValueType> {
    let scalar = |data_type| ValueType::tensor(data_type, Some(Dims::new()));
    let mut given = vec![ValueType::UNKNOWN; count];
    if !node.is("Loop") && !node.is("Scan") {
        return given;
    }
    // The first version of Scan has lengths before what the body takes.
    let before = outside.len().saturating_sub(count);
    for (to, from) in given.iter_mut().zip(&outside[before..]) {
        let is_tensor = matches!(from.kind, Some(ValueKind::Tensor(_)));
        to.kind = from.kind.clone().filter(|_| is_tensor);
    }
    if node.is("Loop") {
        let counted = [scalar(DataType::Int64), scalar(DataType::Bool)];
        given.iter_mut().zip(counted).for_each(|(to, t)| *to = t);
    }
    given
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use crate::graph::Dim;
    use crate::onnx::proto;
    use crate::tensor::DataType;
    use crate::{Session, SessionOptions};

    /// `y = ConstantOfShape([3, 4])`.
    fn model() -> Vec<u8> {
        let name = |name: &str| Some(name.to_owned());
        let shape = proto::Tensor {
            name: name("shape"),
            dims: vec![2],
            data_type: Some(DataType::Int64 as i32),
            raw_data: Some(
                [3i64, 4]
                    .map(i64::to_le_bytes)
                    .as_flattened()
                    .to_vec()
                    .into(),
            ),
            ..Default::default()
        };
        let y = proto::ValueInfo {
            name: name("y"),
            ..Default::default()
        };
        let node = proto::Node {
            op_type: name("ConstantOfShape"),
            input: vec!["shape".into()],
            output: vec!["y".into()],
            ..Default::default()
        };
        let graph = proto::Graph {
            node: vec![node],
            initializer: vec![shape],
            output: vec![y],
            ..Default::default()
        };
        let opset = proto::OperatorSetId {
            version: Some(17),
            ..Default::default()
        };
        let model = proto::Model {
            ir_version: Some(8),
            graph: Some(graph),
            opset_import: vec![opset],
            ..Default::default()
        };
        model.encode_to_vec()
    }

    #[test]
    fn what_is_known_does_not_depend_on_where_a_constant_begins() {
        let model = model();
        let options = SessionOptions {
            rewrite: false,
            ..SessionOptions::default()
        };
        for offset in 0..8 {
            let mut file = vec![0; offset];
            file.extend_from_slice(&model);
            let file = Bytes::from(file).slice(offset..);
            let session = Session::load(file, &options).unwrap();
            let dims = &session.outputs()[0].value_type.dims;
            let expected = [3, 4].map(Dim::Known);
            assert_eq!(dims.as_deref(), Some(&expected[..]), "at byte {offset}");
        }
    }
}
