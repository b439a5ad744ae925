//! A bundle under a stock host: every route, bytes and events, compiled ahead; and what `lethe
//! inspect` reads of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Server, bundle, bundle_with, cache, lethe, root, wasmtime, wasmtime_serve};
use crate::{check, digits, digits_request, tensor};

/// An answer's head in lower case, and its body.
fn exchange(server: &Server, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = send(server, head, body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    (head, answer[end + 4..].to_vec())
}

fn send(server: &Server, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let limit = Some(Duration::from_secs(120));
    stream.set_read_timeout(limit).unwrap();
    let rest = format!("host: {}\r\nconnection: close\r\n", server.address);
    write!(stream, "{head}{rest}content-length: {}\r\n\r\n", body.len()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

fn image() -> Vec<u8> {
    let numbers = tensor("input_0.pb");
    let numbers = numbers.as_slice::<f32>().unwrap();
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn model_bundle(name: &str) -> PathBuf {
    bundle(&digits().join("model.onnx"), name)
}

#[test]
fn a_bundle_speaks_the_open_inference_protocol_in_json_and_bytes() {
    let Some(server) = wasmtime_serve(&model_bundle("edge-routes.wasm")) else {
        return;
    };
    let get = |path: &str| server.request(&format!("GET {path} HTTP/1.1\r\n"), b"");
    assert_eq!(get("/v2/health/live"), (200, json!({"live": true})));
    assert_eq!(get("/v2/health/ready"), (200, json!({"ready": true})));
    assert_eq!(get("/v2").1["extensions"], json!(["binary_tensor_data"]));
    assert_eq!(get("/v2/models/digits/ready").0, 200);
    let described = get("/v2/models/digits/versions/1").1;
    assert_eq!(described["inputs"][0]["shape"], json!([-1, 1, 28, 28]));
    assert_eq!(get("/v2/models/digits/versions/2").0, 404);

    let (head, body) = exchange(&server, "HEAD /api/v1/health HTTP/1.1\r\n", b"");
    assert!(
        head.starts_with("http/1.1 200") && body.is_empty(),
        "{head} {body:?}"
    );
    let (head, _) = exchange(&server, "GET /api/v1/infer HTTP/1.1\r\n", b"");
    assert!(head.contains("\r\nallow: post"), "{head}");

    let expected = tensor("output_0.pb");
    let good = |bytes: &[u8], door: &str| {
        let (found, rest) = bytes.as_chunks();
        assert!(
            rest.is_empty() && found.len() == expected.len(),
            "{door}: {} bytes",
            bytes.len()
        );
        let found = found.iter().map(|&bytes| f32::from_le_bytes(bytes));
        for (found, &expected) in found.zip(expected.as_slice::<f32>().unwrap()) {
            assert!(
                (found - expected).abs() < 1e-3,
                "{door}: {found} for {expected}"
            );
        }
    };
    let octets = "content-type: application/octet-stream\r\n";
    let raw = format!(
        "POST /api/v1/infer?model=digits HTTP/1.1\r\n{octets}accept: application/octet-stream\r\n"
    );
    good(&exchange(&server, &raw, &image()).1, "one tensor");

    let json = json!({
        "inputs": [{
            "name": crate::input_name(), "shape": [1, 1, 28, 28], "datatype": "FP32",
            "parameters": {"binary_data_size": image().len()},
        }],
        "parameters": {"binary_data_output": true},
    });
    let json = json.to_string();
    let binary = format!(
        "POST /v2/models/digits/infer HTTP/1.1\r\n{octets}inference-header-content-length: {}\r\n",
        json.len()
    );
    let (head, body) = exchange(&server, &binary, &[json.as_bytes(), &image()].concat());
    let at = head.split("inference-header-content-length: ").nth(1);
    let at = at.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let (answer, tail) = body.split_at(at.unwrap_or_else(|| panic!("{head}")));
    let answer: Value = serde_json::from_slice(answer).unwrap();
    assert_eq!(answer["model_name"], "digits");
    good(tail, "binary extension");

    let (status, problem) = server.request(&binary, json.as_bytes());
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("LETHE-INPUT-DATA"))
    );
}

#[test]
fn a_bundle_sends_each_event_before_it_computes_the_next() {
    const REQUESTS: usize = 300;
    let Some(server) = wasmtime_serve(&model_bundle("edge-events.wasm")) else {
        return;
    };
    let request: Value = serde_json::from_str(&digits_request()).unwrap();
    let batch = json!({"requests": vec![request; REQUESTS]}).to_string();
    let head = "POST /api/v1/batch HTTP/1.1\r\ncontent-type: application/json\r\naccept: text/event-stream\r\n";
    let start = Instant::now();
    let (mut first, mut results, mut done) = (None, 0, None);
    for line in BufReader::new(send(&server, head, batch.as_bytes())).lines() {
        match &*line.unwrap() {
            "event: result" => {
                first.get_or_insert(start.elapsed());
                results += 1;
            }
            "event: done" => done = Some(start.elapsed()),
            _ => {}
        }
    }
    let (first, done) = (first.unwrap(), done.unwrap());
    assert_eq!(results, REQUESTS);
    // Whoever computed all of them first would send the first one at the end.
    assert!(
        first < done / 2,
        "the first of {REQUESTS} after {first:?}, the last after {done:?}"
    );
}

#[test]
fn a_bundle_compiled_ahead_answers_the_same() {
    let bundle = model_bundle("edge-ahead.wasm");
    let compiled = bundle.with_extension("cwasm");
    let Some(mut wasmtime) = wasmtime() else {
        return;
    };
    let done = wasmtime
        .arg("compile")
        .arg(&bundle)
        .arg("-o")
        .arg(&compiled)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let server = wasmtime_serve(&compiled).unwrap();
    check("compiled ahead", &server.infer(&digits_request()));
}

fn inspect(file: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let done = lethe()
        .arg("inspect")
        .arg(file)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[test]
fn inspect_reads_what_a_bundle_says_of_itself() {
    let bundle = model_bundle("edge-inspected.wasm");
    let (code, report, said) = inspect(&bundle, &["--json"]);
    assert_eq!(code, Some(0), "{said}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let model = std::fs::read(digits().join("model.onnx")).unwrap();
    assert_eq!(report["format"], "bundle");
    assert_eq!(
        report["bytes"],
        json!(std::fs::metadata(&bundle).unwrap().len())
    );
    assert_eq!(report["lethe"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&report["numerics"], &report["relaxed_simd"]),
        (&json!("reproducible"), &json!(false))
    );
    assert_eq!(report["inputs"][0]["shape"], json!([-1, 1, 28, 28]));
    assert_eq!(
        (&report["models"][0]["name"], &report["models"][0]["bytes"]),
        (&json!("digits"), &json!(model.len()))
    );
    assert_eq!(report["models"][0]["sha256"].as_str().unwrap().len(), 64);
    assert!(report["licenses"].as_str().unwrap().contains("Apache"));
    let (code, text, _) = inspect(&bundle, &[]);
    assert!(code == Some(0) && text.contains("model digits"), "{text}");

    // What is neither: one line, exit code 2.
    let cut = bundle.with_extension("cut");
    std::fs::write(&cut, &std::fs::read(&bundle).unwrap()[..5000]).unwrap();
    for neither in [cut, root().join("README.md")] {
        let (code, out, said) = inspect(&neither, &[]);
        assert_eq!(
            (code, &*out, said.lines().count()),
            (Some(2), "", 1),
            "{said}"
        );
    }
}

/// A bundle of the digits and the vibration model with this set of operators.
fn bundle_of_two(operators: &str, name: &str) -> PathBuf {
    let models =
        [digits(), root().join("models/vibration")].map(|folder| folder.join("model.onnx"));
    let models = models.each_ref().map(PathBuf::as_path);
    bundle_with(&["--operators", operators], &models, name, &cache())
}

#[test]
fn a_bundle_of_several_models_answers_for_each() {
    let path = bundle_of_two("model", "edge-several.wasm");
    let Some(server) = wasmtime_serve(&path) else {
        return;
    };
    let models = server.request("GET /api/v1/models HTTP/1.1\r\n", b"").1;
    let names: Vec<&str> = models["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["digits", "vibration"]);
    check("one of several", &server.infer(&digits_request()));
}

#[test]
fn a_bundle_has_its_models_operators_and_no_others() {
    let bundle = |set| bundle_of_two(set, &format!("edge-operators-{set}.wasm"));
    let bundles = ["model", "all"].map(bundle);
    let [model, all] = bundles.each_ref().map(|path| std::fs::read(path).unwrap());
    // Most of the guest is operators that neither model has.
    assert!(
        model.len() * 2 < all.len(),
        "{} bytes, with all operators {}",
        model.len(),
        all.len()
    );
    for (path, expected) in bundles.iter().zip(["model", "all"]) {
        let report: Value = serde_json::from_str(&inspect(path, &["--json"]).1).unwrap();
        assert_eq!(report["operator_set"], json!(expected));
    }

    let mut servers = Vec::new();
    for path in &bundles {
        let Some(server) = wasmtime_serve(path) else {
            return;
        };
        servers.push(server);
    }
    // Other shapes than the frozen ones too: layouts are made anew for them.
    let inputs = |folder: &str| {
        let done = inspect(
            &root().join("models").join(folder).join("model.onnx"),
            &["--json"],
        );
        serde_json::from_str::<Value>(&done.1).unwrap()["inputs"].clone()
    };
    for model in ["digits", "vibration"] {
        for batch in [1, 2, 5] {
            let tensors = inputs(model).as_array().unwrap().clone();
            let tensors: Vec<Value> = tensors
                .into_iter()
                .map(|input| {
                    let shape = input["shape"].as_array().unwrap().iter();
                    let shape: Vec<u64> =
                        shape.map(|size| size.as_u64().unwrap_or(batch)).collect();
                    let len: u64 = shape.iter().product();
                    let data: Vec<f64> = (0..len).map(|i| (i % 7) as f64 / 8.0).collect();
                    json!({"name": input["name"], "datatype": "FP32", "shape": shape, "data": data})
                })
                .collect();
            let request = json!({"model": model, "inputs": tensors}).to_string();
            let answers = [&servers[0], &servers[1]].map(|server| server.infer(&request));
            assert_eq!(answers[0].0, 200, "{model} of {batch}: {}", answers[0].1);
            assert_eq!(answers[0], answers[1], "{model} of {batch}");
        }
    }
}

/// What a bundle may add to its weights.
const MOST_ADDED_BYTES: usize = 3_000_000;

#[test]
fn a_bundle_is_little_more_than_its_weights() {
    let weights = std::fs::metadata(digits().join("model.onnx"))
        .unwrap()
        .len() as usize;
    let bundle = std::fs::metadata(model_bundle("edge-size.wasm"))
        .unwrap()
        .len() as usize;
    let added = bundle - weights;
    assert!(
        added <= MOST_ADDED_BYTES,
        "{added} bytes more than the model"
    );
}

#[test]
fn a_bundle_keeps_no_copy_of_the_file_it_was_made_from() {
    let model = std::fs::read(digits().join("model.onnx")).unwrap();
    let bundle = std::fs::read(model_bundle("edge-copies.wasm")).unwrap();
    // The file's head, names and layout of messages, is needed by nobody once it is loaded.
    let head = &model[..64];
    assert!(!bundle.windows(head.len()).any(|piece| piece == head));
}

#[test]
fn relaxed_simd_is_served_or_refused_by_a_program_without_it() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("edge-relaxed.wasm");
    let done = lethe()
        .args(["bundle", "--relaxed-simd", "-o"])
        .args([&path, &digits().join("model.onnx")])
        .output()
        .unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    if cfg!(feature = "relaxed-guest") {
        assert_eq!(done.status.code(), Some(0), "{said}");
        let report: Value = serde_json::from_str(&inspect(&path, &["--json"]).1).unwrap();
        assert_eq!(report["relaxed_simd"], json!(true));
        let Some(server) = wasmtime_serve(&path) else {
            return;
        };
        check("relaxed SIMD", &server.infer(&digits_request()));
        return;
    }
    assert_eq!(
        (done.status.code(), said.lines().count()),
        (Some(2), 1),
        "{said}"
    );
    assert!(said.contains("relaxed SIMD"), "{said}");
}
