//! One request, the same answer at every door: a sandbox per request, with and without native
//! kernels, this process, and the bundle under hosts of WASI HTTP that know nothing of Lethe.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lethe_engine::onnx::external_data::NoExternalData;
use lethe_engine::onnx::{proto, values};
use prost::Message;
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn digits() -> PathBuf {
    root().join("models/digits")
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("doors-cache")
}

fn lethe() -> Command {
    let mut lethe = Command::new(env!("CARGO_BIN_EXE_lethe"));
    lethe.env("LETHE_CACHE_DIR", cache());
    lethe
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

/// A server that ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Server {
    /// `lethe serve` on a free port.
    fn lethe(arguments: &[&str]) -> Self {
        let mut process = lethe()
            .args(["serve", "--port", "0"])
            .args(arguments)
            .arg(digits().join("model.onnx"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { process, address }
    }

    /// Another program, once it listens on `port`.
    fn peer(mut command: Command, port: u16) -> Self {
        let process = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            process,
            address: format!("127.0.0.1:{port}"),
        };
        let start = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "{command:?} does not listen"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn request(&self, head: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        write!(
            stream,
            "{head}host: {}\r\nconnection: close\r\n",
            self.address
        )
        .unwrap();
        write!(stream, "content-length: {}\r\n\r\n", body.len()).unwrap();
        // A server that refuses a body by its length may close before it is all sent.
        drop(stream.write_all(body));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let body = if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        };
        let json = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body:?}"));
        (status, json)
    }

    fn infer(&self, body: &str) -> (u16, Value) {
        self.request(
            "POST /api/v1/infer HTTP/1.1\r\ncontent-type: application/json\r\n",
            body.as_bytes(),
        )
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((len, rest)) = body.split_once("\r\n") {
        let len = usize::from_str_radix(len.trim(), 16).unwrap();
        if len == 0 {
            break;
        }
        whole.push_str(&rest[..len]);
        body = &rest[len + 2..];
    }
    whole
}

fn bundle(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let done = lethe()
        .args(["bundle", "--numerics", "reproducible", "-o"])
        .args([&path, &digits().join("model.onnx")])
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    path
}

/// Where cargo puts this package's examples.
fn examples() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_lethe"));
    program.parent().unwrap().join("examples")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
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
    let request = digits_request();
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
            .arg(bundle("jco.wasm"));
        answers.push(("jco", Server::peer(command, port).infer(&request)));
    } else {
        eprintln!("skipped: jco is not installed: npm install --no-save in tests/edge");
    }
    let wasmtime = examples().join("wasmtime_serve");
    if wasmtime.exists() {
        let port = free_port();
        let mut command = Command::new(wasmtime);
        command
            .arg("--addr")
            .arg(format!("127.0.0.1:{port}"))
            .arg(bundle("wasmtime.wasm"));
        answers.push((
            "wasmtime serve",
            Server::peer(command, port).infer(&request),
        ));
    } else {
        eprintln!("skipped: wasmtime serve is not built: --features wasmtime-serve");
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
    let [first, second] = ["first.wasm", "second.wasm"].map(bundle);
    // The second image is made anew.
    std::fs::remove_dir_all(cache()).ok();
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
