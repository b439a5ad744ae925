//! Reproducible numerics: the same bits at every kernel level of the machine, in the sandbox with
//! and without native kernels, and from a bundle under stock wasmtime. The browser's bits are
//! compared with these by the tests of the browser.

use std::collections::BTreeMap;
use std::path::Path;

use lethe_engine::Tensor;
use lethe_engine::isa::Level;
use lethe_engine::onnx::external_data::NoExternalData;
use lethe_engine::onnx::{proto, values};
use lethe_engine::tensor::DataType;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::server::{bundle, lethe, root, wasmtime_serve};

/// The sha256 of each output, by name.
type Digests = BTreeMap<String, String>;

/// The inputs of a model's first data set: name, file, content.
fn inputs(folder: &Path) -> Vec<(String, String, Tensor)> {
    let model = std::fs::read(folder.join("model.onnx")).unwrap();
    let model = lethe_engine::onnx::read_model(model.into()).unwrap();
    let names = model.graph.unwrap().input;
    let mut inputs = Vec::new();
    for (i, input) in names.iter().enumerate() {
        let file = folder.join(format!("test_data_set_0/input_{i}.pb"));
        let Ok(bytes) = std::fs::read(&file) else {
            break;
        };
        let message = proto::Tensor::decode(bytes::Bytes::from(bytes)).unwrap();
        let name = message.name.clone().filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| input.name.clone().unwrap());
        let tensor = values::tensor_from_proto(&message, &NoExternalData).unwrap();
        let tensor = tensor.aligned();
        inputs.push((name, file.to_str().unwrap().to_owned(), tensor));
    }
    inputs
}

/// `lethe run` with these arguments.
fn run(folder: &Path, inputs: &[(String, String, Tensor)], arguments: &[&str]) -> Digests {
    let mut command = lethe();
    command
        .args(["run", "--json", "--numerics", "reproducible"])
        .args(arguments);
    for (name, file, _) in inputs {
        command.args(["--input", &format!("{name}={file}")]);
    }
    let done = command.arg(folder.join("model.onnx")).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {said}");
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    let outputs = answer["outputs"].as_array().unwrap().iter();
    outputs
        .map(|output| {
            let [name, digest] = ["name", "sha256"].map(|key| output[key].as_str().unwrap());
            (name.to_owned(), digest.to_owned())
        })
        .collect()
}

/// The answer of a bundle under stock wasmtime, where there is one.
fn served(folder: &Path, inputs: &[(String, String, Tensor)]) -> Option<Digests> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let bundle = bundle(
        &folder.join("model.onnx"),
        &format!("reproducible-{name}.wasm"),
    );
    let server = wasmtime_serve(&bundle)?;
    let inputs: Vec<Value> = inputs
        .iter()
        .map(|(name, _, tensor)| {
            let (datatype, data) = match tensor.data_type() {
                DataType::Float32 => ("FP32", json!(tensor.as_slice::<f32>().unwrap())),
                DataType::Int64 => ("INT64", json!(tensor.as_slice::<i64>().unwrap())),
                other => panic!("{other}"),
            };
            json!({ "name": name, "shape": tensor.shape(), "datatype": datatype, "data": data })
        })
        .collect();
    let (status, answer) = server.infer(&json!({ "model": name, "inputs": inputs }).to_string());
    assert_eq!(status, 200, "{answer}");
    let digest = |output: &Value| {
        assert_eq!(output["datatype"], "FP32");
        let data: Vec<f64> = serde_json::from_value(output["data"].clone()).unwrap();
        let bytes = data.iter().flat_map(|&x| (x as f32).to_le_bytes());
        let digest = Sha256::digest(bytes.collect::<Vec<u8>>());
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        (output["name"].as_str().unwrap().to_owned(), digest)
    };
    Some(
        answer["outputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(digest)
            .collect(),
    )
}

#[test]
fn reproducible_bits_are_the_same_at_every_door() {
    for folder in [
        "models/digits",
        "target/models/real/silero_vad",
        "target/models/real/minilm_fp32",
        "target/models/real/stories260k",
    ] {
        let at = root().join(folder);
        if !at.join("model.onnx").exists() {
            eprintln!("skipped: no {folder}");
            continue;
        }
        let inputs = inputs(&at);
        let mut doors = Vec::new();
        for level in Level::available() {
            let level = level.to_string();
            let found = run(&at, &inputs, &["--kernels", &level]);
            doors.push((level, found));
        }
        for arguments in [
            &["--isolation", "sandbox"][..],
            &["--isolation", "sandbox", "--pure-wasm"],
        ] {
            doors.push((arguments.join(" "), run(&at, &inputs, arguments)));
        }
        if let Some(found) = served(&at, &inputs) {
            doors.push(("wasmtime serve".into(), found));
        }
        let expected = &doors[0].1;
        for (output, digest) in expected {
            println!("{folder} {output} sha256 {digest}");
        }
        for (door, found) in &doors {
            assert_eq!(found, expected, "{folder}: {door} against {}", doors[0].0);
            println!("{folder}: the same from {door}");
        }
    }
}
