//! Models and tensors from an adversary: each gives an error with a code, none a panic, and none
//! takes memory or time that its size does not justify.

use bytes::Bytes;
use prost::Message;

use lethe_engine::graph::attributes::Attribute;
use lethe_engine::onnx::proto;
use lethe_engine::onnx::writer::ModelWriter;
use lethe_engine::{DataType, Error, Session, SessionOptions, Tensor, Value};
use lethe_tests::root;

fn load(model: impl Into<Bytes>) -> Result<Session, Error> {
    Session::load(model, &SessionOptions::default())
}

fn digits() -> Vec<u8> {
    std::fs::read(root().join("models/digits/model.onnx")).expect("it is in the repository")
}

/// Loads a damaged model and, where that succeeds (a changed weight is a model still), runs it.
fn load_and_run(bytes: Vec<u8>) -> Result<(), Error> {
    let session = load(bytes)?;
    let inputs = lethe_engine::session::zero_inputs(session.inputs(), &|_, _, _| None);
    let Some(inputs) = inputs else { return Ok(()) };
    let inputs: Vec<(&str, Value)> = inputs
        .iter()
        .map(|(n, v)| (n.as_str(), v.clone()))
        .collect();
    session.run(&inputs).map(drop)
}

fn assert_coded(error: &Error, what: &str) {
    assert!(error.code().starts_with("LETHE-"), "{what}: {error}");
    assert_ne!(error.code(), "LETHE-INTERNAL", "{what}: {error}");
    assert!(!error.to_string().is_empty(), "{what}");
}

#[test]
fn truncated_models_are_refused() {
    let model = digits();
    load(model.clone()).expect("the whole model loads");
    for part in 0..64 {
        let cut = model[..model.len() * part / 64].to_vec();
        match load_and_run(cut) {
            Err(error) => assert_coded(&error, &format!("{part}/64 of the model")),
            Ok(()) => panic!("{part}/64 of the model passed for a model"),
        }
    }
}

#[test]
fn flipped_bits_do_not_panic() {
    let model = digits();
    // Marsaglia's xorshift: the same damage every time.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    // Nearly all of the file is weights; the graph is at its ends, so half of the flips go there.
    let mut refused = 0;
    for round in 0..400 {
        let mut damaged = model.clone();
        for _ in 0..1 + round % 4 {
            let near_an_end = 1200.min(model.len() / 2);
            let at = match random() % 4 {
                0 => random() % near_an_end,
                1 => model.len() - 1 - random() % near_an_end,
                _ => random() % model.len(),
            };
            damaged[at] ^= 1 << (random() % 8);
        }
        if let Err(error) = load_and_run(damaged) {
            assert_coded(&error, &format!("round {round}"));
            refused += 1;
        }
    }
    assert!(
        refused > 50,
        "only {refused} of 400 damaged models were noticed"
    );
}

#[test]
fn bytes_that_are_no_model_are_malformed() {
    let cases: [(&str, &[u8]); 5] = [
        ("empty", b""),
        ("text", b"not a model"),
        ("an archive", b"PK\x03\x04"),
        ("zeros", &[0; 100]),
        ("an endless varint", &[0xff; 100]),
    ];
    for (name, bytes) in cases {
        let error = load(bytes).expect_err(name);
        assert_eq!(error.code(), "LETHE-MODEL-MALFORMED", "{name}: {error}");
    }
}

#[test]
fn an_unknown_operator_is_named() {
    let model = ModelWriter::new(13)
        .import("com.example", 7)
        .input("x", DataType::Float32, &["n"])
        .node_of("com.example", "Transmogrify", &["x"], &["y"], vec![])
        .output("y")
        .to_bytes();
    let error = load(model).expect_err("no such operator exists");
    assert_eq!(error.code(), "LETHE-OPERATOR-UNKNOWN");
    let text = error.to_string();
    for part in ["Transmogrify", "com.example", "opset 7", "node "] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn graphs_that_break_the_rules_are_refused() {
    let base = || ModelWriter::new(13).input("x", DataType::Float32, &["n"]);
    let cases = [
        (
            "a cycle",
            base()
                .node("Add", &["x", "b"], &["a"], vec![])
                .node("Relu", &["a"], &["b"], vec![])
                .output("b"),
        ),
        (
            "a node that reads itself",
            base().node("Add", &["x", "a"], &["a"], vec![]).output("a"),
        ),
        (
            "an input from nowhere",
            base()
                .node("Relu", &["nowhere"], &["y"], vec![])
                .output("y"),
        ),
        (
            "an output from nowhere",
            base().node("Relu", &["x"], &["y"], vec![]).output("z"),
        ),
        (
            "two producers",
            base()
                .node("Relu", &["x"], &["y"], vec![])
                .node("Relu", &["x"], &["y"], vec![])
                .output("y"),
        ),
        (
            "too few inputs",
            base().node("Add", &["x"], &["y"], vec![]).output("y"),
        ),
    ];
    for (name, writer) in cases {
        match load_and_run(writer.to_bytes().to_vec()) {
            Err(error) => assert_coded(&error, name),
            Ok(()) => panic!("{name} was taken for a graph"),
        }
    }
}

#[test]
fn attributes_of_the_wrong_type_are_refused() {
    let model = ModelWriter::new(13)
        .input("x", DataType::Float32, &["n"])
        .node(
            "Softmax",
            &["x"],
            &["y"],
            vec![("axis", Attribute::Float(1.0))],
        )
        .output("y")
        .to_bytes();
    let error = load(model).expect_err("an axis is an integer");
    assert_eq!(error.code(), "LETHE-NODE-ATTRIBUTE", "{error}");
}

#[test]
fn huge_dimensions_are_refused_before_memory_is_taken() {
    // A weight that claims more than its bytes.
    for dims in [
        vec![i64::MAX, i64::MAX],
        vec![1 << 40],
        vec![-1],
        vec![i64::MIN],
    ] {
        let weight = proto::Tensor {
            name: Some("w".into()),
            data_type: Some(1),
            dims: dims.clone(),
            raw_data: Some(Bytes::from_static(&[0; 4])),
            ..Default::default()
        };
        let mut model = ModelWriter::new(13)
            .input("x", DataType::Float32, &["n"])
            .into_model();
        let graph = model.graph.as_mut().expect("the writer makes one");
        graph.initializer.push(weight);
        let error = load(model.encode_to_vec()).expect_err("it does not fit");
        assert_coded(&error, &format!("{dims:?}"));
    }
    // A shape computed from an input: known only when the run begins.
    let model = ModelWriter::new(13)
        .input("shape", DataType::Int64, &["n"])
        .node("ConstantOfShape", &["shape"], &["y"], vec![])
        .output("y")
        .to_bytes();
    let session = load(model).expect("the model is fine");
    for shape in [
        [1 << 40, 1 << 20],
        [i64::MAX, i64::MAX],
        [-1, 3],
        [1 << 50, 1],
    ] {
        let shape = Tensor::from_slice(&[2], &shape).expect("two elements");
        let error = session
            .run(&[("shape", shape.clone().into())])
            .expect_err("it is too large");
        assert_coded(&error, &format!("{shape:?}"));
    }
}

#[test]
fn deep_nesting_is_refused() {
    let mut graph = proto::Graph {
        name: Some("innermost".into()),
        ..Default::default()
    };
    for _ in 0..2000 {
        let attribute = proto::Attribute {
            name: Some("then_branch".into()),
            r#type: Some(proto::AttributeType::Graph as i32),
            g: Some(graph),
            ..Default::default()
        };
        let node = proto::Node {
            op_type: Some("If".into()),
            input: vec!["c".into()],
            output: vec!["y".into()],
            attribute: vec![attribute],
            ..Default::default()
        };
        graph = proto::Graph {
            node: vec![node],
            ..Default::default()
        };
    }
    let mut model = ModelWriter::new(13).into_model();
    model.graph = Some(graph);
    // Encoding and dropping so deep a message takes more stack than a test thread has.
    let nested = std::thread::Builder::new()
        .stack_size(256 << 20)
        .spawn(move || model.encode_to_vec())
        .expect("a thread can be started")
        .join()
        .expect("encoding is only deep");
    let error = load(nested).expect_err("nobody nests so deeply");
    assert_coded(&error, "2000 graphs in each other");
}

#[test]
fn functions_that_call_themselves_are_refused() {
    let call = |name: &str| proto::Node {
        op_type: Some(name.into()),
        domain: Some("local".into()),
        input: vec!["x".into()],
        output: vec!["y".into()],
        ..Default::default()
    };
    let function = |name: &str, calls: &str| proto::Function {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: vec!["x".into()],
        output: vec!["y".into()],
        node: vec![call(calls)],
        ..Default::default()
    };
    for functions in [
        vec![function("f", "f")],
        vec![function("f", "g"), function("g", "f")],
    ] {
        let mut model = ModelWriter::new(13)
            .import("local", 1)
            .input("x", DataType::Float32, &["n"])
            .node_of("local", "f", &["x"], &["y"], vec![])
            .output("y")
            .into_model();
        model.functions = functions;
        let error = load(model.encode_to_vec()).expect_err("it never ends");
        assert_coded(&error, "recursion");
    }
}

#[test]
fn external_data_cannot_leave_the_folder() {
    for location in ["../secret", "/etc/passwd", "a/../../b", ""] {
        let entry = |key: &str, value: &str| proto::StringStringEntry {
            key: Some(key.into()),
            value: Some(value.into()),
        };
        let weight = proto::Tensor {
            name: Some("w".into()),
            data_type: Some(1),
            dims: vec![1],
            data_location: Some(1),
            external_data: vec![entry("location", location)],
            ..Default::default()
        };
        let mut model = ModelWriter::new(13)
            .input("x", DataType::Float32, &["n"])
            .node("Add", &["x", "w"], &["y"], vec![])
            .output("y")
            .into_model();
        model
            .graph
            .as_mut()
            .expect("the writer makes one")
            .initializer
            .push(weight);
        let error = load(model.encode_to_vec()).expect_err(location);
        assert_eq!(
            error.code(),
            "LETHE-MODEL-EXTERNAL-DATA",
            "{location:?}: {error}"
        );
    }
}

#[test]
fn wrong_inputs_are_told_apart() {
    let session = load(digits()).expect("the model is fine");
    let image = |shape: &[usize]| -> Value {
        let len = shape.iter().product();
        Tensor::from_slice(shape, &vec![0.0f32; len])
            .expect("it fits")
            .into()
    };
    let integers: Value = Tensor::from_slice(&[1, 1, 28, 28], &[0i64; 784])
        .expect("it fits")
        .into();
    let good = image(&[1, 1, 28, 28]);
    let cases: [(&str, Vec<(&str, Value)>, &str); 7] = [
        ("nothing", vec![], "LETHE-INPUT-MISSING"),
        (
            "another name",
            vec![("picture", good.clone())],
            "LETHE-INPUT-UNKNOWN",
        ),
        (
            "one too many",
            vec![("input", good.clone()), ("y", good.clone())],
            "LETHE-INPUT-UNKNOWN",
        ),
        (
            "twice",
            vec![("input", good.clone()), ("input", good.clone())],
            "LETHE-INPUT-UNKNOWN",
        ),
        (
            "another type",
            vec![("input", integers)],
            "LETHE-INPUT-TYPE",
        ),
        (
            "another rank",
            vec![("input", image(&[28, 28]))],
            "LETHE-INPUT-SHAPE",
        ),
        (
            "another size",
            vec![("input", image(&[1, 1, 28, 27]))],
            "LETHE-INPUT-SHAPE",
        ),
    ];
    for (name, inputs, code) in cases {
        let error = session.run(&inputs).expect_err(name);
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(
            error.to_string().contains("input"),
            "{name}: {error} does not name the input"
        );
    }
    session
        .run(&[("input", good)])
        .expect("the session goes on");
    session
        .run(&[("input", image(&[0, 1, 28, 28]))])
        .expect("an empty batch is a batch");
}
