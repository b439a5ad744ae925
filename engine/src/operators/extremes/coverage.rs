//! That every operator meets large integers: cases for those whose own tests give them none, and a test that
//! names the operators that neither have such a case nor are known to have no integers.

use std::collections::BTreeSet;

use super::super::TABLE;
use super::super::case::{Case, ints, tensor};
use super::{check, places};
use crate::graph::attributes::Attribute;
use crate::onnx;
use crate::onnx::proto;
use crate::onnx::writer::ModelWriter;
use crate::session::{Session, SessionOptions};
use crate::tensor::{Bool, DataType, Tensor, Value};

/// Operators that neither have an integer among their inputs and attributes, nor take one as anything but a
/// number to compute with or a flag.
#[rustfmt::skip]
const WITHOUT_INTEGERS: &[&str] = &[
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BiasGelu", "Binarizer", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Dropout",
    "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "Einsum", "Elu", "Erf", "Exp", "FastGelu", "Floor",
    "FusedAttention", "FusedGemm", "FusedMatMul", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "If", "Imputer", "InstanceNormalization", "IsInf", "IsNaN", "LeakyRelu",
    "LessOrEqual", "Log", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "Max", "Mean", "Min", "Mish", "Mod",
    "Neg", "NonZero", "Normalizer", "Not", "OptionalGetElement", "OptionalHasElement", "PRelu",
    "QLinearMatMul", "QuantizeRowsMatMul", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "SequenceEmpty",
    "SequenceLength", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization", "Softplus", "Softsign", "Sqrt", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Upsample", "Where",
];

/// Their integers stand beside sequences or subgraphs, which the check does not write: tests below.
const ON_THEIR_OWN: &[&str] = &[
    "ConcatFromSequence",
    "Loop",
    "Scan",
    "SequenceErase",
    "SequenceInsert",
];

fn numbers(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let elements: Vec<f32> = (0..count).map(|i| i as f32 / 4.0 - 1.0).collect();
    tensor(shape, &elements)
}

/// Cases with an integer each for operators that have none in their own tests.
fn cases() -> Vec<(Case, Vec<Tensor>)> {
    let x = || numbers(&[2, 3, 4]);
    let row = || numbers(&[4]);
    let image = || numbers(&[1, 2, 4, 4]);
    let bytes = |shape: &[usize]| tensor(shape, &vec![3u8; shape.iter().product()]);
    let one = |value: f32| tensor(&[], &[value]);
    let zero = || tensor(&[], &[0u8]);
    let mut all = vec![
        (Case::of("ConstantOfShape", 9), vec![ints(&[2, 3])]),
        (Case::of("GlobalLpPool", 2).int("p", 2), vec![image()]),
        (Case::of("LogSoftmax", 13).int("axis", 1), vec![x()]),
        (
            Case::of("LayerNormalization", 17).int("axis", 2),
            vec![x(), row()],
        ),
        (
            Case::of("RMSNormalization", 23).int("axis", 2),
            vec![x(), row()],
        ),
        (
            Case::of("SimplifiedLayerNormalization", 1).int("axis", 2),
            vec![x(), row()],
        ),
        (
            Case::in_domain("com.microsoft", "SimplifiedLayerNormalization", 1).int("axis", 2),
            vec![x(), row()],
        ),
        (
            Case::of("MeanVarianceNormalization", 13).ints("axes", &[0, 2]),
            vec![x()],
        ),
        (
            Case::of("GRU", 14).int("hidden_size", 1),
            vec![
                numbers(&[2, 1, 3]),
                numbers(&[1, 3, 3]),
                numbers(&[1, 3, 1]),
            ],
        ),
        (
            Case::of("RNN", 14).int("hidden_size", 1),
            vec![
                numbers(&[2, 1, 3]),
                numbers(&[1, 1, 3]),
                numbers(&[1, 1, 1]),
            ],
        ),
        (
            Case::in_domain("ai.lethe", "FusedConv", 1)
                .ints("pads", &[1, 1, 1, 1])
                .ints("strides", &[2, 2])
                .ints("dilations", &[1, 1])
                .int("group", 1),
            vec![image(), numbers(&[3, 2, 2, 2])],
        ),
        (
            Case::of("QLinearConv", 10)
                .ints("pads", &[1, 1, 1, 1])
                .ints("strides", &[2, 2])
                .ints("dilations", &[1, 1])
                .int("group", 1),
            vec![
                bytes(&[1, 2, 4, 4]),
                one(0.5),
                zero(),
                bytes(&[3, 2, 2, 2]),
                one(0.5),
                zero(),
                one(0.5),
                zero(),
            ],
        ),
        (
            Case::in_domain("com.microsoft", "QuantizeLinear", 1).int("axis", 1),
            vec![numbers(&[2, 3]), numbers(&[3]), bytes(&[3])],
        ),
        (
            Case::in_domain("com.microsoft", "DequantizeLinear", 1).int("axis", 1),
            vec![bytes(&[2, 3]), numbers(&[3]), bytes(&[3])],
        ),
        (
            Case::in_domain("ai.onnx.ml", "TreeEnsemble", 5)
                .int("n_targets", 1)
                .int("aggregate_function", 1)
                .int("post_transform", 0)
                .ints("tree_roots", &[0])
                .ints("nodes_featureids", &[1])
                .ints("nodes_truenodeids", &[0])
                .ints("nodes_falsenodeids", &[1])
                .ints("nodes_trueleafs", &[1])
                .ints("nodes_falseleafs", &[1])
                .ints("leaf_targetids", &[0, 0])
                .with("nodes_modes", Attribute::Tensor(bytes(&[1])))
                .with("nodes_splits", Attribute::Tensor(numbers(&[1])))
                .with("leaf_weights", Attribute::Tensor(numbers(&[2]))),
            vec![numbers(&[2, 3])],
        ),
    ];
    for op_type in [
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
    ] {
        all.push((
            Case::of(op_type, 11).ints("axes", &[1]).int("keepdims", 0),
            vec![x()],
        ));
        all.push((Case::of(op_type, 18), vec![x(), ints(&[1])]));
    }
    // Before opset 7 the axes of the second operand began at an attribute.
    for op_type in [
        "Add", "Sub", "Mul", "Div", "Pow", "Equal", "Greater", "Less", "And", "Or", "Xor",
    ] {
        let (mut a, mut b) = (x(), numbers(&[3]));
        if ["And", "Or", "Xor"].contains(&op_type) {
            let truths = |n: usize| vec![Bool::from(true); n];
            (a, b) = (tensor(&[2, 3, 4], &truths(24)), tensor(&[3], &truths(3)));
        } else if op_type == "Equal" {
            (a, b) = (tensor(&[2, 3, 4], &[7i32; 24]), tensor(&[3], &[7i32; 3]));
        }
        let opset = if op_type == "Equal" { 1 } else { 6 };
        let case = Case::of(op_type, opset).int("broadcast", 1).int("axis", 1);
        all.push((case, vec![a, b]));
    }
    all
}

#[test]
fn operators_without_a_case_of_their_own_meet_large_integers() {
    for (case, inputs) in cases() {
        let inputs: Vec<_> = inputs.into_iter().map(|t| Some(Value::from(t))).collect();
        let found = case.run_as_it_is(&inputs);
        assert!(found.is_ok(), "{}: {found:?}", case.op_type);
        assert!(
            !places(&case, &inputs).is_empty(),
            "{} has none",
            case.op_type
        );
        check(&case, &inputs);
    }
}

/// The operators' own tests are text to this one: what they are called with is not known beforehand.
#[cfg(not(target_family = "wasm"))]
#[test]
fn every_operator_with_integers_meets_large_ones() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/operators");
    let mut tests = String::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("the sources are there").path();
            let is_own = path.ends_with("extremes/coverage.rs");
            if path.is_dir() {
                folders.push(path);
            } else if !is_own && path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("the sources are text");
                let is_tests = path.file_stem().is_some_and(|name| name == "tests");
                let begin = if is_tests {
                    Some(0)
                } else {
                    text.find("\nmod tests {")
                };
                tests.push_str(begin.map_or("", |begin| &text[begin..]));
            }
        }
    }
    let cases = cases();
    let here: BTreeSet<&str> = cases.iter().map(|(case, _)| case.op_type).collect();
    for row in &TABLE {
        let lists = [WITHOUT_INTEGERS, ON_THEIR_OWN];
        let is_listed = lists.iter().any(|list| list.contains(&row.op_type));
        let is_tried =
            here.contains(row.op_type) || tests.contains(&format!("\"{}\"", row.op_type));
        assert!(
            is_listed || is_tried,
            "{} {} meets no large integer in any test",
            row.domain,
            row.op_type
        );
    }
    for listed in WITHOUT_INTEGERS.iter().chain(ON_THEIR_OWN) {
        assert!(
            TABLE.iter().any(|row| row.op_type == *listed),
            "no row for {listed}"
        );
    }
}

/// A graph of these nodes as an attribute, with its inputs and outputs.
fn body(
    inputs: &[(&str, DataType)],
    nodes: &[(&str, &[&str], &str)],
    outputs: &[&str],
) -> proto::Graph {
    let mut model = ModelWriter::new(17);
    for (name, data_type) in inputs {
        model = model.input(name, *data_type, &[]);
    }
    for (op_type, inputs, output) in nodes {
        model = model.node(op_type, inputs, &[output], vec![]);
    }
    for output in outputs {
        model = model.output(output);
    }
    let bytes = model.to_bytes();
    onnx::read_model(bytes)
        .expect("a model")
        .graph
        .expect("a graph")
}

/// The outputs of a model whose last node has this body.
fn with_body(
    model: ModelWriter,
    body: proto::Graph,
    given: &[(&str, Value)],
) -> Result<Vec<Value>, String> {
    let mut model = model.into_model();
    let node = model.graph.as_mut().and_then(|graph| graph.node.last_mut());
    node.expect("a node").attribute.push(proto::Attribute {
        name: Some("body".into()),
        r#type: Some(proto::AttributeType::Graph as i32),
        g: Some(body),
        ..Default::default()
    });
    let text = |error: crate::Error| error.to_string();
    let session = Session::from_model(&model, &SessionOptions::default()).map_err(text)?;
    let outputs = session.run(given).map_err(text)?;
    Ok(outputs.into_iter().map(|(_, value)| value).collect())
}

const BEYOND: [i64; 6] = [
    1 << 31,
    1 << 32,
    (1 << 32) + 2,
    1 << 62,
    i64::MAX - 1,
    i64::MAX,
];

/// A loop that its condition ends after three rounds, whatever more its limit allows.
#[test]
fn loops_end_by_their_condition_before_a_large_limit() {
    let rounds = |limit: i64| {
        let step = body(
            &[
                ("i", DataType::Int64),
                ("go", DataType::Bool),
                ("sum", DataType::Int64),
            ],
            &[
                ("Add", &["sum", "one"], "more"),
                ("Less", &["more", "three"], "on"),
            ],
            &["on", "more"],
        );
        let model = ModelWriter::new(17)
            .input("limit", DataType::Int64, &[])
            .constant("one", &Tensor::scalar(1i64))
            .constant("three", &Tensor::scalar(3i64))
            .constant("zero", &Tensor::scalar(0i64))
            .node("Loop", &["limit", "", "zero"], &["n"], vec![])
            .output("n");
        let limit = ("limit", Tensor::scalar(limit).into());
        let outputs = with_body(model, step, &[limit])?;
        let tensor = outputs[0].as_tensor().map_err(|error| error.to_string())?;
        tensor
            .view()
            .single::<i64>()
            .map_err(|error| error.to_string())
    };
    assert_eq!(rounds(2), Ok(2));
    for limit in BEYOND {
        assert_eq!(rounds(limit), Ok(3), "{limit}");
    }
    for limit in [0, -1, -(1 << 32), i64::MIN] {
        assert_eq!(rounds(limit), Ok(0), "{limit}");
    }
}

/// The lengths of a scan of opset 8 end it early; no length is longer than the sequence.
#[test]
fn scans_stop_at_lengths_and_refuse_those_that_cannot_be() {
    let sums = |length: i64| {
        let step = body(
            &[("s", DataType::Float32), ("v", DataType::Float32)],
            &[("Add", &["s", "v"], "t"), ("Identity", &["t"], "o")],
            &["t", "o"],
        );
        let count = vec![("num_scan_inputs", Attribute::Int(1))];
        let model = ModelWriter::new(8)
            .input("n", DataType::Int64, &["1"])
            .input("x", DataType::Float32, &["1", "3"])
            .constant("zero", &tensor(&[1], &[0f32]))
            .node("Scan", &["n", "zero", "x"], &["s_out", "all"], count)
            .output("s_out");
        let given = [
            ("n", ints(&[length]).into()),
            ("x", tensor(&[1, 3], &[1f32, 2., 4.]).into()),
        ];
        let outputs = with_body(model, step, &given)?;
        let tensor = outputs[0].as_tensor().map_err(|error| error.to_string())?;
        Ok::<_, String>(tensor.as_slice::<f32>().expect("f32").to_vec())
    };
    for (length, sum) in [(0, 0.0), (1, 1.0), (2, 3.0), (3, 7.0)] {
        assert_eq!(sums(length), Ok(vec![sum]), "{length}");
    }
    for length in BEYOND {
        assert_eq!(sums(length), Ok(vec![7.0]), "{length}");
    }
    for length in [-1, -(1 << 32), i64::MIN] {
        let error = sums(length).expect_err("no length");
        assert!(error.contains("sequence_lens"), "{error}");
    }
}

/// Places in sequences and axes of new ones: beyond 32 bits none is there.
#[test]
fn places_in_sequences_are_not_cut() {
    let sequence = || {
        let pair = [numbers(&[2]), numbers(&[2])].map(|t| Some(t.into()));
        Case::of("SequenceConstruct", 11)
            .run(&pair)
            .expect("constructs")
            .swap_remove(0)
    };
    let at = |op_type: &'static str, place: i64| {
        let place = Some(Tensor::scalar(place).into());
        let inputs = match op_type {
            "SequenceInsert" => vec![Some(sequence()), Some(numbers(&[2]).into()), place],
            _ => vec![Some(sequence()), place],
        };
        Case::of(op_type, 11).run(&inputs).is_ok()
    };
    let joined = |axis: i64| {
        let case = Case::of("ConcatFromSequence", 11).int("axis", axis);
        case.run(&[Some(sequence())]).is_ok()
    };
    assert!(at("SequenceInsert", 2) && at("SequenceErase", 1) && joined(0));
    for base in BEYOND.into_iter().chain([-(1 << 32), i64::MIN]) {
        for place in (0..3).map(|k| base.saturating_add(k)) {
            assert!(
                !at("SequenceInsert", place) && !at("SequenceErase", place),
                "{place}"
            );
            assert!(!joined(place), "{place}");
        }
    }
}
