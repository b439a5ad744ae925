//! Types and shapes of all values of a graph, as far as they follow from its inputs and constants.
//!
//! Each operator's own shape rule is asked, producers first, with symbols where sizes are not
//! known. What is inferred goes before what the file declares: annotations may be wrong. A node
//! whose inputs do not fit leaves its outputs unknown; running it will say why.

use super::{Graph, Ints, ValueId, ValueType};
use crate::operator::{InferContext, InputInfo};
use crate::tensor::Tensor;

/// Infers the types of a graph's values and of its subgraphs' values.
pub fn infer_types(graph: &mut Graph) {
    let mut ints: Vec<Option<Ints>> = vec![None; graph.values.len()];
    for i in 0..graph.nodes.len() {
        infer_subgraphs(graph, i);
        let node = &graph.nodes[i];
        let own = node.inputs.len() - node.captures;
        let info = |id: ValueId| {
            let value_type = &graph.values[id.index()].value_type;
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
        let below: Vec<Vec<ValueType>> = node.subgraphs.iter().map(output_types).collect();
        let ctx = InferContext::new(&infos, node.outputs.len(), &below);
        let Ok(outputs) = node.operator.infer(&ctx) else {
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
        infer_types(subgraph);
    }
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
