//! Every device gives what the CPU's arena gives: operators one by one, and chains of them in which
//! tensors stay on the device, cross to the CPU for what the device lacks, and come back.
//!
//! `PlacedCpu` always runs. WebGPU runs where the build has it and the machine an adapter (Mesa's
//! lavapipe will do); otherwise that is said.

use lethe_engine::graph::attributes::Attribute;
use lethe_engine::onnx::writer::ModelWriter;
use lethe_engine::{DataType, DeviceChoice, InputValue, Session, SessionOptions, Tensor, Value};

/// Numbers without a pattern, between -1 and 1.
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_slice(shape, &values).expect("as many as the shape says")
}

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

fn indices(values: &[i64]) -> Tensor {
    Tensor::from_slice(&[values.len()], values).expect("a vector")
}

type Attributes = Vec<(&'static str, Attribute)>;

/// A node whose first input is data and whose others are constants.
struct Case {
    op_type: &'static str,
    input: &'static [usize],
    constants: Vec<Tensor>,
    attributes: Attributes,
}

fn case(
    op_type: &'static str,
    input: &'static [usize],
    constants: Vec<Tensor>,
    attributes: Attributes,
) -> Case {
    Case {
        op_type,
        input,
        constants,
        attributes,
    }
}

fn cases() -> Vec<Case> {
    let conv = |strides: [i64; 2], pads: [i64; 4], group: i64| {
        vec![
            ("strides", ints(&strides)),
            ("pads", ints(&pads)),
            ("group", Attribute::Int(group)),
        ]
    };
    let axis = |axis| vec![("axis", Attribute::Int(axis))];
    vec![
        case("Relu", &[3, 5], vec![], vec![]),
        case("Erf", &[70], vec![], vec![]),
        case("Gelu", &[70], vec![], vec![]),
        case("Tanh", &[2, 70], vec![], vec![]),
        case("Sigmoid", &[70], vec![], vec![]),
        case("Exp", &[70], vec![], vec![]),
        case(
            "LeakyRelu",
            &[70],
            vec![],
            vec![("alpha", Attribute::Float(0.2))],
        ),
        case(
            "Clip",
            &[70],
            vec![Tensor::scalar(-0.5f32), Tensor::scalar(0.25f32)],
            vec![],
        ),
        case("Add", &[2, 3, 5], vec![noise(&[5], 2)], vec![]),
        case("Sub", &[2, 3, 5], vec![noise(&[3, 1], 2)], vec![]),
        case("Mul", &[3, 1], vec![noise(&[2, 1, 5], 2)], vec![]),
        case("Div", &[4, 5], vec![noise(&[4, 5], 2)], vec![]),
        case("Pow", &[4, 5], vec![Tensor::scalar(2f32)], vec![]),
        case("Pow", &[4, 5], vec![Tensor::scalar(3f32)], vec![]),
        case("Max", &[4, 5], vec![noise(&[5], 2)], vec![]),
        case("MatMul", &[3, 5], vec![noise(&[5, 7], 2)], vec![]),
        case(
            "MatMul",
            &[2, 3, 33, 20],
            vec![noise(&[3, 20, 18], 2)],
            vec![],
        ),
        case(
            "MatMul",
            &[1, 4, 3, 5],
            vec![noise(&[2, 1, 5, 3], 2)],
            vec![],
        ),
        case(
            "Gemm",
            &[3, 5],
            vec![noise(&[7, 5], 2), noise(&[7], 3)],
            vec![
                ("transB", Attribute::Int(1)),
                ("alpha", Attribute::Float(0.5)),
            ],
        ),
        case("Softmax", &[3, 70], vec![], axis(-1)),
        case("Softmax", &[3, 4, 5], vec![], axis(1)),
        case("LogSoftmax", &[3, 7], vec![], axis(-1)),
        case(
            "LayerNormalization",
            &[2, 3, 70],
            vec![noise(&[70], 2), noise(&[70], 3)],
            axis(-1),
        ),
        case("ReduceMean", &[2, 3, 7], vec![indices(&[1])], vec![]),
        case("ReduceSum", &[2, 3, 7], vec![indices(&[1, 2])], vec![]),
        case(
            "ReduceMax",
            &[2, 3, 7],
            vec![indices(&[-1])],
            vec![("keepdims", Attribute::Int(0))],
        ),
        case(
            "Transpose",
            &[2, 3, 4, 5],
            vec![],
            vec![("perm", ints(&[0, 2, 1, 3]))],
        ),
        case(
            "Slice",
            &[4, 9],
            vec![
                indices(&[1, 8]),
                indices(&[9, -20]),
                indices(&[0, 1]),
                indices(&[1, -2]),
            ],
            vec![],
        ),
        case(
            "Concat",
            &[2, 3],
            vec![noise(&[2, 4], 2), noise(&[2, 1], 3)],
            axis(1),
        ),
        case("Expand", &[3, 1], vec![indices(&[2, 3, 4])], vec![]),
        case("Gather", &[5, 4], vec![indices(&[4, 0, -2])], axis(0)),
        case("Gather", &[2, 5, 3], vec![indices(&[1, 1])], axis(1)),
        case("Reshape", &[2, 6], vec![indices(&[3, -1])], vec![]),
        case(
            "Conv",
            &[1, 3, 9, 8],
            vec![noise(&[4, 3, 3, 3], 2), noise(&[4], 3)],
            conv([2, 1], [1, 1, 1, 0], 1),
        ),
        case(
            "Conv",
            &[2, 4, 7, 7],
            vec![noise(&[8, 2, 3, 3], 2)],
            conv([1, 1], [1, 1, 1, 1], 2),
        ),
        case(
            "Conv",
            &[1, 4, 7, 7],
            vec![noise(&[4, 1, 3, 3], 2)],
            conv([1, 1], [0, 0, 0, 0], 4),
        ),
        case(
            "MaxPool",
            &[1, 2, 7, 8],
            vec![],
            vec![
                ("kernel_shape", ints(&[3, 2])),
                ("strides", ints(&[2, 2])),
                ("pads", ints(&[1, 0, 1, 0])),
            ],
        ),
        case(
            "AveragePool",
            &[1, 2, 7, 8],
            vec![],
            vec![
                ("kernel_shape", ints(&[3, 3])),
                ("pads", ints(&[1, 1, 1, 1])),
                ("count_include_pad", Attribute::Int(1)),
            ],
        ),
        case(
            "AveragePool",
            &[1, 2, 7, 8],
            vec![],
            vec![
                ("kernel_shape", ints(&[3, 3])),
                ("pads", ints(&[1, 1, 1, 1])),
            ],
        ),
        case("GlobalAveragePool", &[1, 3, 5, 6], vec![], vec![]),
    ]
}

/// `Neg`, the case's node, `Neg`: what a device computes before and after stays there.
fn model(case: &Case) -> ModelWriter {
    let dims: Vec<String> = case.input.iter().map(ToString::to_string).collect();
    let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
    let names: Vec<String> = (0..case.constants.len()).map(|i| format!("c{i}")).collect();
    let mut inputs = vec!["negative"];
    inputs.extend(names.iter().map(String::as_str));
    let mut model = ModelWriter::new(20).input("x", DataType::Float32, &dims);
    for (name, tensor) in names.iter().zip(&case.constants) {
        model = model.constant(name, tensor);
    }
    model
        .node("Neg", &["x"], &["negative"], vec![])
        .node(case.op_type, &inputs, &["made"], case.attributes.clone())
        .node("Neg", &["made"], &["y"], vec![])
        .output("y")
}

fn devices() -> Vec<DeviceChoice> {
    [Some(DeviceChoice::PlacedCpu), gpu()]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(feature = "webgpu")]
fn gpu() -> Option<DeviceChoice> {
    match pollster::block_on(lethe_engine::device::webgpu::WebGpu::request()) {
        Ok(gpu) => {
            eprintln!("webgpu: {}", gpu.adapter());
            Some(DeviceChoice::WebGpu(std::sync::Arc::new(gpu)))
        }
        Err(error) => {
            eprintln!("skipped: webgpu: {error}");
            None
        }
    }
}

#[cfg(not(feature = "webgpu"))]
fn gpu() -> Option<DeviceChoice> {
    eprintln!("skipped: webgpu: not in this build");
    None
}

fn run(model: &ModelWriter, device: DeviceChoice, inputs: &[(&str, Value)]) -> Vec<Tensor> {
    let options = SessionOptions {
        device,
        ..SessionOptions::default()
    };
    let session = Session::load(model.to_bytes(), &options).expect("a valid model");
    let outputs = session.run(inputs).expect("inputs that fit");
    outputs
        .into_iter()
        .map(|(_, v)| v.as_tensor().expect("a tensor").clone())
        .collect()
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let (found, expected) = (found.as_slice::<f32>(), expected.as_slice::<f32>());
    for (i, (f, e)) in found
        .expect("floats")
        .iter()
        .zip(expected.expect("floats"))
        .enumerate()
    {
        assert!(
            (f - e).abs() <= 2e-5 + 2e-5 * e.abs(),
            "{what}[{i}]: found {f}, expected {e}"
        );
    }
}

#[test]
fn devices_agree_with_the_cpu_on_each_operator() {
    for device in devices() {
        for case in &cases() {
            let model = model(case);
            let x = [("x", Value::Tensor(noise(case.input, 1)))];
            let expected = run(&model, DeviceChoice::Cpu, &x);
            let found = run(&model, device.clone(), &x);
            assert_close(
                &format!("{} on {device:?}", case.op_type),
                &found[0],
                &expected[0],
            );
        }
    }
}

#[test]
fn what_a_device_lacks_runs_on_the_cpu_and_says_so() {
    let model = ModelWriter::new(20)
        .input("x", DataType::Float32, &["n", "4"])
        .node("Relu", &["x"], &["r"], vec![])
        .node("CumSum", &["r", "axis"], &["c"], vec![])
        .constant("axis", &Tensor::scalar(1i64))
        .node("Relu", &["c"], &["y"], vec![])
        .output("y");
    let x = [("x", Value::Tensor(noise(&[3, 4], 1)))];
    let expected = run(&model, DeviceChoice::Cpu, &x);
    for device in devices() {
        let found = run(&model, device.clone(), &x);
        assert_close(&format!("{device:?}"), &found[0], &expected[0]);
        let options = SessionOptions {
            device,
            ..SessionOptions::default()
        };
        let session = Session::load(model.to_bytes(), &options).expect("a valid model");
        let steps = session
            .devices(
                &x.each_ref()
                    .map(|(name, value)| (*name, InputValue::from_value(value))),
            )
            .expect("inputs that fit");
        assert_eq!(steps.len(), 3);
        if steps[0].device == "webgpu" {
            assert_eq!((steps[1].device, steps[2].device), ("cpu", "webgpu"));
            assert_eq!(
                steps[1].reason.as_deref(),
                Some("no kernel for this operator")
            );
        }
    }
}

#[test]
fn an_index_out_of_range_is_an_error_on_every_device() {
    let model = ModelWriter::new(20)
        .input("i", DataType::Int64, &["n"])
        .constant("table", &noise(&[5, 4], 1))
        .node("Gather", &["table", "i"], &["g"], vec![])
        .node("Relu", &["g"], &["y"], vec![])
        .output("y");
    for device in devices() {
        let options = SessionOptions {
            device: device.clone(),
            ..SessionOptions::default()
        };
        let session = Session::load(model.to_bytes(), &options).expect("a valid model");
        for (index, good) in [
            (4, true),
            (-5, true),
            (5, false),
            (-6, false),
            (1 << 33, false),
        ] {
            let i = [("i", Value::Tensor(indices(&[0, index])))];
            assert_eq!(session.run(&i).is_ok(), good, "index {index} on {device:?}");
        }
    }
}

#[test]
fn the_digits_model_agrees_on_every_device() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/digits/model.onnx");
    let bytes = std::fs::read(path).expect("the embedded model");
    let x = [("input", Value::Tensor(noise(&[1, 1, 28, 28], 1)))];
    let run = |device| {
        let options = SessionOptions {
            device,
            ..SessionOptions::default()
        };
        let session = Session::load(bytes.clone(), &options).expect("a valid model");
        let outputs = session.run(&x).expect("inputs that fit");
        outputs[0].1.as_tensor().expect("a tensor").clone()
    };
    let expected = run(DeviceChoice::Cpu);
    for device in devices() {
        assert_close(&format!("digits on {device:?}"), &run(device), &expected);
    }
}

#[cfg(feature = "webgpu")]
#[test]
fn tensors_on_a_gpu_keep_within_its_limit() {
    let Some(DeviceChoice::WebGpu(gpu)) = gpu() else {
        return;
    };
    let rows = Tensor::from_slice(&[256, 256], &[0.5f32; 256 * 256]).unwrap();
    let model = ModelWriter::new(13)
        .input("x", DataType::Float32, &["256", "256"])
        .constant("w", &rows)
        .node("MatMul", &["x", "w"], &["y"], vec![])
        .output("y");
    let answer = || {
        let options = SessionOptions {
            device: DeviceChoice::WebGpu(gpu.clone()),
            ..SessionOptions::default()
        };
        let session = Session::load(model.to_bytes(), &options)?;
        session.run(&[("x", Value::Tensor(rows.clone()))])
    };
    // Three tensors of 256 KiB. What a session held is given back when it goes.
    gpu.limit_memory(1 << 20);
    for _ in 0..5 {
        answer().unwrap();
    }
    gpu.limit_memory(600 << 10);
    let error = answer().unwrap_err().to_string();
    assert!(error.contains("limit of 614400 bytes"), "{error}");
}
