//! Runs that end before they are through: told to, or for want of memory. Wherever a run is, it ends soon,
//! with an error, and the next one on the same session gives its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lethe_engine::graph::attributes::Attribute;
use lethe_engine::limits::{self, Limits, Stop};
use lethe_engine::onnx::proto;
use lethe_engine::onnx::writer::ModelWriter;
use lethe_engine::tensor::Buffer;
use lethe_engine::{
    Budget, DataType, Error, Level, Session, SessionOptions, Tensor, Threads, Value,
};
use prost::Message;

fn zeros(data_type: DataType, shape: &[usize]) -> Value {
    let len = data_type.size_bytes(shape.iter().product()).unwrap();
    let tensor = Tensor::from_bytes(data_type, shape, Buffer::zeroed(len));
    Value::Tensor(tensor.unwrap())
}

/// Boxes of which none overlaps another.
fn apart(count: usize) -> Value {
    let corners: Vec<f32> = (0..count)
        .flat_map(|i| [i as f32, 0.0, i as f32 + 0.5, 0.5])
        .collect();
    Value::Tensor(Tensor::from_slice(&[1, count, 4], &corners).unwrap())
}

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// A loop without end whose body does nothing.
fn idle_loop() -> Bytes {
    let scalar = |name: &str, data_type: DataType| proto::ValueInfo {
        name: Some(name.into()),
        r#type: Some(proto::Type {
            value: Some(proto::TypeValue::Tensor(proto::TensorType {
                elem_type: Some(data_type as i32),
                shape: Some(proto::TensorShape::default()),
            })),
        }),
    };
    let body = proto::Graph {
        name: Some("body".into()),
        input: vec![
            scalar("i", DataType::Int64),
            scalar("go", DataType::Bool),
            scalar("v", DataType::Int64),
        ],
        output: vec![scalar("go", DataType::Bool), scalar("v", DataType::Int64)],
        ..Default::default()
    };
    let mut model = ModelWriter::new(17)
        .input("trips", DataType::Int64, &[])
        .node("Loop", &["trips", "", "trips"], &["y"], vec![])
        .output("y")
        .into_model();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].attribute = vec![proto::Attribute {
        name: Some("body".into()),
        r#type: Some(proto::AttributeType::Graph as i32),
        g: Some(body),
        ..Default::default()
    }];
    model.encode_to_vec().into()
}

type Inputs = Vec<(&'static str, Value)>;

/// A model of one operator.
fn single(op_type: &str, inputs: &Inputs, attributes: Vec<(&str, Attribute)>) -> Bytes {
    let mut writer = ModelWriter::new(17);
    for (name, value) in inputs {
        let tensor = value.as_tensor().unwrap();
        let dims: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        writer = writer.input(name, tensor.data_type(), &dims);
    }
    let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    let writer = writer.node(op_type, &names, &["y"], attributes);
    writer.output("y").to_bytes()
}

/// Models that take minutes or years without a vector unit, with inputs of some megabytes.
fn long_ones() -> Vec<(&'static str, Bytes, Inputs)> {
    use DataType::{Float32, Float64, Int8, Uint8};
    let image = |data_type, size| zeros(data_type, &[1, 1, size, size]);
    let pair = |a, b, size: usize| {
        vec![
            ("a", zeros(a, &[size, size])),
            ("b", zeros(b, &[size, size])),
        ]
    };
    let windows = |x, size| vec![("x", image(x, size)), ("w", image(x, size / 2 - 1))];
    let window = || vec![("kernel_shape", ints(&[1023, 1023]))];
    let boxes: Inputs = vec![
        ("boxes", apart(1 << 19)),
        ("scores", zeros(Float32, &[1, 1, 1 << 19])),
        ("most", Value::Tensor(Tensor::scalar(i64::MAX))),
    ];
    let letters: Inputs = ["a", "b", "c"]
        .map(|name| (name, zeros(Float32, &[1 << 14])))
        .into();
    let equation = vec![("equation", Attribute::String("a,b,c->".into()))];
    let channels = zeros(Float32, &[1, 60_000, 64, 1]);
    let cases: Vec<(&'static str, &str, Inputs, Vec<(&str, Attribute)>)> = vec![
        (
            "a packed product",
            "MatMul",
            pair(Float32, Float32, 6144),
            vec![],
        ),
        (
            "a plain product",
            "MatMul",
            pair(Float64, Float64, 6144),
            vec![],
        ),
        (
            "a product of bytes",
            "MatMulInteger",
            pair(Uint8, Int8, 8192),
            vec![],
        ),
        ("sums over letters", "Einsum", letters, equation),
        (
            "largest of windows",
            "MaxPool",
            vec![("x", image(Float32, 2048))],
            window(),
        ),
        (
            "means of windows",
            "AveragePool",
            vec![("x", image(Float64, 2048))],
            window(),
        ),
        ("one channel", "Conv", windows(Float32, 2048), vec![]),
        ("windows of doubles", "Conv", windows(Float64, 2048), vec![]),
        (
            "windows of bytes",
            "ConvInteger",
            windows(Uint8, 2048),
            vec![],
        ),
        (
            "spread windows",
            "ConvTranspose",
            windows(Float64, 1024),
            vec![],
        ),
        ("boxes", "NonMaxSuppression", boxes, vec![]),
        (
            "neighbours",
            "LRN",
            vec![("x", channels)],
            vec![("size", Attribute::Int(60_000))],
        ),
    ];
    let mut all: Vec<_> = cases
        .into_iter()
        .map(|(name, op_type, inputs, attributes)| {
            (name, single(op_type, &inputs, attributes), inputs)
        })
        .collect();
    let trips = Value::Tensor(Tensor::scalar(i64::MAX));
    all.push(("an idle loop", idle_loop(), vec![("trips", trips)]));
    all
}

#[test]
fn a_run_ends_when_it_is_told_to_wherever_it_is() {
    for threads in [1, 2] {
        let options = SessionOptions {
            level: Level::Scalar,
            threads: Threads::new(threads).unwrap(),
            ..SessionOptions::default()
        };
        for (name, model, inputs) in long_ones() {
            let session = Session::load(model, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
            let stop = Arc::new(AtomicBool::new(false));
            let limits = Limits {
                memory_bytes: u64::MAX,
                stop: Stop::when(stop.clone()),
            };
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                stop.store(true, Ordering::Relaxed);
            });
            let begun = Instant::now();
            let result = limits::within(limits, || session.run(&inputs));
            let took = begun.elapsed();
            assert_eq!(result, Err(Error::Cancelled), "{name}");
            // Without an end it would take minutes at least.
            assert!(
                took < Duration::from_secs(15),
                "{name} on {threads} threads: {took:?}"
            );
        }
    }
}

/// A model that makes a tensor of as many elements as it is told to, by way of `op_type`.
fn growing(op_type: &str) -> Bytes {
    let one = Tensor::from_slice(&[1], &[1.0f32]).unwrap();
    let model = ModelWriter::new(17)
        .input("n", DataType::Int64, &["1"])
        .constant("one", &one);
    let inputs: &[&str] = match op_type {
        "ConstantOfShape" => &["n"],
        _ => &["one", "n"],
    };
    model
        .node(op_type, inputs, &["y"], vec![])
        .output("y")
        .to_bytes()
}

#[test]
fn a_run_without_memory_is_an_error_and_the_next_one_has_its_memory() {
    let budget = Budget {
        memory_bytes: 1 << 20,
        ..Budget::default()
    };
    let options = SessionOptions {
        budget,
        ..SessionOptions::default()
    };
    let n = |n: i64| [("n", Value::Tensor(Tensor::from_slice(&[1], &[n]).unwrap()))];
    for op_type in ["ConstantOfShape", "Expand", "Tile"] {
        let session = Session::load(growing(op_type), &options).unwrap();
        for _ in 0..3 {
            for too_many in [1 << 18 | 1, 1 << 31, 1 << 40, 1 << 61, i64::MAX] {
                let error = session.run(&n(too_many)).expect_err(op_type);
                assert_eq!(
                    error.code(),
                    "LETHE-BUDGET",
                    "{op_type} of {too_many}: {error}"
                );
            }
            session
                .run(&n(1 << 16))
                .unwrap_or_else(|e| panic!("{op_type}: {e}"));
        }
        // A caller's limit below the session's.
        let limits = Limits {
            memory_bytes: 1 << 10,
            stop: Stop::default(),
        };
        let error = limits::within(limits, || session.run(&n(1 << 16))).expect_err(op_type);
        assert_eq!(error.code(), "LETHE-BUDGET", "{op_type}: {error}");
    }
}

/// Everything at one time: many tensors of which each is small enough.
#[test]
fn all_tensors_of_a_run_share_its_memory() {
    let mut model = ModelWriter::new(17).input("n", DataType::Int64, &["1"]);
    let names: Vec<String> = (0..32).map(|i| format!("t{i}")).collect();
    for name in &names {
        model = model.node("ConstantOfShape", &["n"], &[name], vec![]);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let model = model
        .node("Sum", &all, &["y"], vec![])
        .output("y")
        .to_bytes();
    let options = |memory_bytes| SessionOptions {
        budget: Budget {
            memory_bytes,
            ..Budget::default()
        },
        // Or they were one.
        rewrite: false,
        ..SessionOptions::default()
    };
    let n = [(
        "n",
        Value::Tensor(Tensor::from_slice(&[1], &[1i64 << 16]).unwrap()),
    )];
    let run = |memory_bytes| Session::load(model.clone(), &options(memory_bytes))?.run(&n);
    let error = run(16 << 18).expect_err("there is room for half of them");
    assert_eq!(error.code(), "LETHE-BUDGET", "{error}");
    run(40 << 18).expect("there is room for all");
}

/// Constants that grow while the model is loaded stay what they are, or the load is refused.
#[test]
fn constants_do_not_grow_beyond_the_budget() {
    let one = Tensor::from_slice(&[1], &[1.0f32]).unwrap();
    let size = Tensor::from_slice(&[1], &[250_000i64]).unwrap();
    let mut model = ModelWriter::new(17)
        .constant("size", &size)
        .constant("one", &one);
    let names: Vec<String> = (0..200).map(|i| format!("t{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        let value = Tensor::from_slice(&[1], &[i as f32]).unwrap();
        let attributes = vec![("value", Attribute::Tensor(value))];
        model = model.node("ConstantOfShape", &["size"], &[name], attributes);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let model = model
        .input("x", DataType::Float32, &["1"])
        .node("Sum", &[&all[..], &["x"]].concat(), &["y"], vec![])
        .output("y")
        .to_bytes();
    let options = SessionOptions {
        budget: Budget {
            memory_bytes: 100 << 20,
            ..Budget::default()
        },
        ..SessionOptions::default()
    };
    let x = [("x", zeros(DataType::Float32, &[1]))];
    let result = Session::load(model, &options).and_then(|session| session.run(&x));
    let error = result.expect_err("200 MB do not fit into 100");
    assert_eq!(error.code(), "LETHE-BUDGET", "{error}");
}
