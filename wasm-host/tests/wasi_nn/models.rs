//! Models for guests to bring.

use bytes::Bytes;
use lethe_engine::DataType;
use lethe_engine::onnx::proto;

use crate::small::{attribute, model, node, value};

/// `y0 = x0`, `y1 = x1`, … for the types of `wasi:nn`, in their order.
pub(crate) fn all_types() -> Vec<u8> {
    use DataType::{Bfloat16, Float16, Float32, Float64, Int32, Int64, Uint8};
    let types = [Float16, Float32, Float64, Bfloat16, Uint8, Int32, Int64];
    let values = |letter: &str| {
        let named = types.iter().enumerate();
        named
            .map(|(i, &element)| value(&format!("{letter}{i}"), element, &["n", "m"]))
            .collect()
    };
    let nodes =
        (0..types.len()).map(|i| node("Identity", &[&format!("x{i}")], &[&format!("y{i}")]));
    model(proto::Graph {
        name: Some("all types".into()),
        node: nodes.collect(),
        input: values("x"),
        output: values("y"),
        ..Default::default()
    })
}

/// One node that makes `y`, of this type, whatever the input `x` is.
fn making(made: proto::Node, element: DataType, initializer: Vec<proto::Tensor>) -> Vec<u8> {
    model(proto::Graph {
        name: Some("making".into()),
        node: vec![made],
        initializer,
        input: vec![value("x", DataType::Float32, &["n"])],
        output: vec![value("y", element, &["m"])],
        ..Default::default()
    })
}

/// An output that `wasi:nn` has no type for.
pub(crate) fn text() -> Vec<u8> {
    let mut made = node("Constant", &[], &["y"]);
    made.attribute = vec![proto::Attribute {
        strings: vec![Bytes::from_static(b"text")],
        ..attribute("value_strings", proto::AttributeType::Strings)
    }];
    making(made, DataType::String, Vec::new())
}

/// An operator that is not there.
pub(crate) fn unknown_operator() -> Vec<u8> {
    making(
        node("Frobnicate", &["x"], &["y"]),
        DataType::Float32,
        Vec::new(),
    )
}

/// A tensor of four terabytes.
pub(crate) fn huge() -> Vec<u8> {
    let size = proto::Tensor {
        data_type: Some(DataType::Int64 as i32),
        int64_data: vec![1 << 40],
        dims: vec![1],
        name: Some("size".into()),
        ..Default::default()
    };
    making(
        node("ConstantOfShape", &["size"], &["y"]),
        DataType::Float32,
        vec![size],
    )
}
