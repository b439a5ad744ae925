//! Small models, made of the format's messages.
#![allow(dead_code, reason = "no binary of tests uses all of them")]

use lethe_engine::DataType;
use lethe_engine::onnx::proto;
use prost::Message;

fn tensor_type(element: DataType, dimensions: &[&str]) -> proto::Type {
    let dim = dimensions.iter().map(|name| proto::Dimension {
        value: Some(proto::DimensionValue::Param((*name).into())),
    });
    proto::Type {
        value: Some(proto::TypeValue::Tensor(proto::TensorType {
            elem_type: Some(element as i32),
            shape: Some(proto::TensorShape { dim: dim.collect() }),
        })),
    }
}

pub(crate) fn value(name: &str, element: DataType, dimensions: &[&str]) -> proto::ValueInfo {
    proto::ValueInfo {
        name: Some(name.into()),
        r#type: Some(tensor_type(element, dimensions)),
    }
}

pub(crate) fn node(op_type: &str, input: &[&str], output: &[&str]) -> proto::Node {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    proto::Node {
        name: Some(output.join(",")),
        op_type: Some(op_type.into()),
        input: names(input),
        output: names(output),
        ..Default::default()
    }
}

pub(crate) fn attribute(name: &str, r#type: proto::AttributeType) -> proto::Attribute {
    proto::Attribute {
        name: Some(name.into()),
        r#type: Some(r#type as i32),
        ..Default::default()
    }
}

pub(crate) fn model(graph: proto::Graph) -> Vec<u8> {
    let opset = proto::OperatorSetId {
        domain: None,
        version: Some(21),
    };
    let model = proto::Model {
        ir_version: Some(10),
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    };
    model.encode_to_vec()
}

/// `y = x`, for bytes.
pub(crate) fn echo() -> Vec<u8> {
    let x = value("x", DataType::Uint8, &["n"]);
    model(proto::Graph {
        name: Some("echo".into()),
        input: vec![x.clone()],
        output: vec![x],
        ..Default::default()
    })
}

/// An image under a window, both given.
pub(crate) fn window() -> Vec<u8> {
    let dims = |size| ["one", "one", size, size];
    model(proto::Graph {
        name: Some("window".into()),
        node: vec![node("Conv", &["x", "w"], &["y"])],
        input: vec![
            value("x", DataType::Float32, &dims("image")),
            value("w", DataType::Float32, &dims("window")),
        ],
        output: vec![value(
            "y",
            DataType::Float32,
            &["one", "one", "rows", "columns"],
        )],
        ..Default::default()
    })
}

/// `a` twice, one after the other.
fn twice(a: &str, both: &str) -> proto::Node {
    let mut node = node("Concat", &[a, a], &[both]);
    node.attribute = vec![proto::Attribute {
        i: Some(0),
        ..attribute("axis", proto::AttributeType::Int)
    }];
    node
}

/// `x` four times, for bytes; twice on the way, which is a value of the run's own.
pub(crate) fn fourfold() -> Vec<u8> {
    model(proto::Graph {
        name: Some("fourfold".into()),
        node: vec![twice("x", "both"), twice("both", "y")],
        input: vec![value("x", DataType::Uint8, &["n"])],
        output: vec![value("y", DataType::Uint8, &["m"])],
        ..Default::default()
    })
}

/// `y = x · x`, for square matrices.
pub(crate) fn square() -> Vec<u8> {
    model(proto::Graph {
        name: Some("square".into()),
        node: vec![node("MatMul", &["x", "x"], &["y"])],
        input: vec![value("x", DataType::Float32, &["n", "n"])],
        output: vec![value("y", DataType::Float32, &["n", "n"])],
        ..Default::default()
    })
}

/// `y = x + constant`: which version of a model answered can be told by each of its numbers.
pub(crate) fn plus(constant: f32) -> Vec<u8> {
    let added = proto::Tensor {
        data_type: Some(DataType::Float32 as i32),
        float_data: vec![constant],
        dims: vec![1],
        name: Some("c".into()),
        ..Default::default()
    };
    model(proto::Graph {
        name: Some("plus".into()),
        node: vec![node("Add", &["x", "c"], &["y"])],
        initializer: vec![added],
        input: vec![value("x", DataType::Float32, &["n"])],
        output: vec![value("y", DataType::Float32, &["n"])],
        ..Default::default()
    })
}

/// `y = a + b`, whose sizes have one name.
pub(crate) fn sum() -> Vec<u8> {
    let operand = |name| value(name, DataType::Float32, &["n"]);
    model(proto::Graph {
        name: Some("sum".into()),
        node: vec![node("Add", &["a", "b"], &["y"])],
        input: vec![operand("a"), operand("b")],
        output: vec![operand("y")],
        ..Default::default()
    })
}

/// When a model never ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endless {
    Always,
    /// Where an input is larger than 0: not where it is loaded, with zeros.
    WithMore,
}

/// A loop without a limit which carries `y`, from `x` on, through `step`.
fn endless(when: Endless, step: proto::Node, dimension: &str) -> Vec<u8> {
    let body = proto::Graph {
        name: Some("body".into()),
        node: vec![node("Identity", &["going"], &["goes_on"]), step],
        input: vec![
            value("turn", DataType::Int64, &[]),
            value("going", DataType::Bool, &[]),
            value("v", DataType::Float32, &["m"]),
        ],
        output: vec![
            value("goes_on", DataType::Bool, &[]),
            value("w", DataType::Float32, &[dimension]),
        ],
        ..Default::default()
    };
    let (mut nodes, mut initializer) = (Vec::new(), Vec::new());
    let condition = match when {
        Endless::Always => "",
        Endless::WithMore => {
            let mut largest = node("ReduceMax", &["x"], &["largest"]);
            largest.attribute = vec![proto::Attribute {
                i: Some(0),
                ..attribute("keepdims", proto::AttributeType::Int)
            }];
            nodes.extend([largest, node("Greater", &["largest", "zero"], &["begins"])]);
            initializer.push(proto::Tensor {
                data_type: Some(DataType::Float32 as i32),
                float_data: vec![0.0],
                name: Some("zero".into()),
                ..Default::default()
            });
            "begins"
        }
    };
    let mut repeat = node("Loop", &["", condition, "x"], &["y"]);
    repeat.attribute = vec![proto::Attribute {
        g: Some(body),
        ..attribute("body", proto::AttributeType::Graph)
    }];
    nodes.push(repeat);
    model(proto::Graph {
        name: Some("endless".into()),
        node: nodes,
        initializer,
        input: vec![value("x", DataType::Float32, &["n"])],
        output: vec![value("y", DataType::Float32, &[dimension])],
        ..Default::default()
    })
}

/// Never ends, and takes no more memory.
pub(crate) fn looping(when: Endless) -> Vec<u8> {
    endless(when, node("Neg", &["v"], &["w"]), "m")
}

/// Takes twice the memory each turn.
pub(crate) fn growing() -> Vec<u8> {
    endless(Endless::WithMore, twice("v", "w"), "k")
}

/// A request to a model whose input is `x`, a list of numbers.
pub(crate) fn numbers(model: &str, x: &[f32]) -> String {
    numbers_of(model, "x", &[x.len()], x)
}

pub(crate) fn numbers_of(model: &str, name: &str, shape: &[usize], x: &[f32]) -> String {
    serde_json::json!({
        "model": model,
        "inputs": [{"name": name, "shape": shape, "datatype": "FP32", "data": x}],
    })
    .to_string()
}
