//! One request, the same answer at every door: a sandbox per request, with and without native
//! kernels, this process, and the bundle under hosts of WASI HTTP that know nothing of Lethe.

#[path = "doors/edge.rs"]
mod edge;
#[path = "doors/manifests.rs"]
mod manifests;
#[path = "doors/nginx.rs"]
mod nginx;
#[path = "doors/reproducible.rs"]
mod reproducible;
#[path = "doors/server.rs"]
mod server;
#[path = "support/serving.rs"]
mod serving;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lethe_engine::onnx::external_data::NoExternalData;
use lethe_engine::onnx::{proto, values};
use prost::Message;
use serde_json::{Value, json};
use server::{Server, bundle, bundle_with, free_port, root, wasmtime_serve};

fn digits() -> PathBuf {
    root().join("models/digits")
}

fn tensor(file: &str) -> lethe_engine::Tensor {
    let bytes = std::fs::read(digits().join("test_data_set_0").join(file)).unwrap();
    let message = proto::Tensor::decode(bytes::Bytes::from(bytes)).unwrap();
    values::tensor_from_proto(&message, &NoExternalData).unwrap()
}

fn input_name() -> String {
    let bytes = std::fs::read(digits().join("model.onnx")).unwrap();
    let model = lethe_engine::onnx::read_model(bytes.into()).unwrap();
    model.graph.unwrap().input[0].name.clone().unwrap()
}

fn digits_request() -> String {
    let image = tensor("input_0.pb");
    let input = json!({
        "name": input_name(),
        "shape": image.shape(),
        "datatype": "FP32",
        "data": image.as_slice::<f32>().unwrap(),
    });
    json!({ "model": "digits", "id": "7", "inputs": [input] }).to_string()
}

/// The answer is the one that the model's folder expects.
fn check(door: &str, (status, answer): &(u16, Value)) {
    assert_eq!(*status, 200, "{door}: {answer}");
    assert_eq!(
        (&answer["model"], &answer["id"]),
        (&json!("digits"), &json!("7")),
        "{door}"
    );
    let expected = tensor("output_0.pb");
    let found: Vec<f64> = serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap();
    assert_eq!(
        answer["outputs"][0]["shape"],
        json!(expected.shape()),
        "{door}"
    );
    for (found, expected) in found.iter().zip(expected.as_slice::<f32>().unwrap()) {
        assert!(
            (found - f64::from(*expected)).abs() < 1e-3,
            "{door}: {found} for {expected}"
        );
    }
}

/// Status and answer with the numbers as `f32`: some doors write them with the digits of an `f64`.
fn bits((status, answer): &(u16, Value)) -> (u16, Value, Vec<u32>) {
    let mut answer = answer.clone();
    let data = answer["outputs"][0]["data"].take();
    let data: Vec<f64> = serde_json::from_value(data).unwrap();
    let bits = data.iter().map(|&x| (x as f32).to_bits()).collect();
    (*status, answer, bits)
}

/// The npm package in headless Chromium, or what it lacks.
fn browser() -> Result<Command, String> {
    let needed = [
        "tests/browser/node_modules/playwright-core",
        "www/dist/lethe/index.js",
    ];
    if let Some(missing) = needed.iter().find(|path| !root().join(path).exists()) {
        return Err(format!("no {missing}: make site, npm ci in tests/browser"));
    }
    if !Path::new("/usr/bin/chromium").exists() && std::env::var_os("CHROMIUM").is_none() {
        return Err("no /usr/bin/chromium and no CHROMIUM".into());
    }
    let mut command = Command::new("node");
    command
        .arg(root().join("tests/browser/door.mjs"))
        .stdin(Stdio::piped());
    Ok(command)
}

#[test]
fn every_door_gives_the_same_answer() {
    let (request, model) = (digits_request(), digits().join("model.onnx"));
    let mut answers = Vec::new();
    for (door, arguments) in [
        ("sandbox", &["--numerics", "reproducible"][..]),
        ("pure wasm", &["--numerics", "reproducible", "--pure-wasm"]),
        (
            "no isolation",
            &["--numerics", "reproducible", "--isolation", "none"],
        ),
    ] {
        answers.push((door, Server::lethe(arguments).infer(&request)));
    }
    let jco = root().join("tests/edge/node_modules/.bin/jco");
    if jco.exists() {
        let port = free_port();
        let mut command = Command::new(jco);
        command
            .args(["serve", "--port", &port.to_string()])
            .arg(bundle(&model, "jco.wasm"));
        answers.push(("jco", Server::peer(command, port).infer(&request)));
    } else {
        eprintln!("skipped: jco is not installed: npm install --no-save in tests/edge");
    }
    if let Some(server) = wasmtime_serve(&bundle(&model, "wasmtime.wasm")) {
        answers.push(("wasmtime serve", server.infer(&request)));
    }
    match browser() {
        Ok(command) => {
            let (mut command, port) = (command, free_port());
            command.args([&port.to_string(), "models/digits"]);
            answers.push(("Chromium", Server::peer(command, port).infer(&request)));
        }
        Err(missing) => eprintln!("skipped: Chromium: {missing}"),
    }
    for (door, answer) in &answers {
        check(door, answer);
        assert_eq!(
            bits(answer),
            bits(&answers[0].1),
            "{door} against {}",
            answers[0].0
        );
    }
}

#[test]
fn a_bundle_is_the_same_byte_for_byte() {
    let model = digits().join("model.onnx");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bundle-cache");
    let bundle = |name| bundle_with(&["--numerics", "reproducible"], &[&model], name, &cache);
    let [first, second] = ["first.wasm", "second.wasm"].map(bundle);
    // The second image is made anew.
    std::fs::remove_dir_all(&cache).unwrap();
    let third = bundle("third.wasm");
    let [first, second, third] = [first, second, third].map(|path| std::fs::read(path).unwrap());
    assert!(first == second && second == third);
}

#[test]
fn bad_requests_get_their_problem_and_the_server_goes_on() {
    let request = digits_request();
    let good: Value = serde_json::from_str(&request).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string()
    };
    let cases = [
        ("not JSON", "{".to_owned(), 400, "LETHE-JSON"),
        ("no request", "[]".into(), 400, "LETHE-REQUEST"),
        (
            "unknown model",
            with("/model", json!("nothing")),
            404,
            "LETHE-MODEL-UNKNOWN",
        ),
        (
            "unknown input",
            with("/inputs/0/name", json!("y")),
            422,
            "LETHE-INPUT-UNKNOWN",
        ),
        (
            "missing input",
            with("/inputs", json!([])),
            422,
            "LETHE-INPUT-MISSING",
        ),
        (
            "wrong shape",
            with("/inputs/0/shape", json!([1, 1, 8, 98])),
            422,
            "LETHE-INPUT-SHAPE",
        ),
        (
            "wrong count",
            with("/inputs/0/shape", json!([3])),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "wrong element",
            with("/inputs/0/data/0", json!("a")),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "wrong type",
            with("/inputs/0/datatype", json!("FP64")),
            422,
            "LETHE-INPUT-TYPE",
        ),
        (
            "no such type",
            with("/inputs/0/datatype", json!("FP33")),
            422,
            "LETHE-INPUT-TYPE",
        ),
    ];
    for arguments in [&[][..], &["--isolation", "none"]] {
        let server = Server::lethe(&[&["--max-body-mb", "1"][..], arguments].concat());
        for (name, body, status, code) in &cases {
            let (found, problem) = server.infer(body);
            assert_eq!(
                (found, &problem["code"]),
                (*status, &json!(code)),
                "{name}: {problem}"
            );
            assert_eq!(problem["status"], json!(status), "{name}");
        }
        let (status, problem) = server.infer(&" ".repeat((1 << 20) + 1));
        assert_eq!(
            (status, &problem["code"]),
            (413, &json!("LETHE-BODY-SIZE")),
            "{problem}"
        );
        let text = "POST /api/v1/infer HTTP/1.1\r\ncontent-type: text/plain\r\n";
        assert_eq!(server.request(text, b"x").1["code"], "LETHE-MEDIA-TYPE");
        assert_eq!(
            server.request("GET /nothing HTTP/1.1\r\n", b"").1["code"],
            "LETHE-ROUTE"
        );
        assert_eq!(server.request("GET /api/v1/infer HTTP/1.1\r\n", b"").0, 405);
        assert_eq!(
            server.request("GET /api/v1/health HTTP/1.1\r\n", b"").1["status"],
            "ok"
        );
        let models = server.request("GET /api/v1/models HTTP/1.1\r\n", b"").1;
        assert_eq!(models["models"][0]["name"], "digits");
        check("afterwards", &server.infer(&request));
    }
}

#[test]
fn a_terminated_server_ends_well() {
    let mut server = Server::lethe(&["--isolation", "none"]);
    let terminated = Command::new("kill")
        .arg(server.process.id().to_string())
        .status()
        .unwrap();
    assert!(terminated.success());
    assert!(server.process.wait().unwrap().success());
}
