//! What a request leaves behind: its line in the audit trail, its receipt, and nothing else.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::models;
use crate::server::{Answer, JSON, Server, digits, digits_request, folder, lethe, request, serve};
use crate::websocket::Stream;

fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// What a server in `folder` with these arguments says to a digit, and its receipt.
fn served(folder: &Path, arguments: &[&OsStr]) -> (Value, String) {
    let mut serve = serve();
    serve.args(["--numerics", "reproducible"]).args(arguments);
    serve.arg("--signing-key").arg(folder.join("key"));
    serve.arg(digits());
    let mut server = Server::spawn(serve);
    let body = digits_request();
    let headers = [JSON, ("lethe-receipt", "1"), ("x-request-id", "r-1")];
    // Answers' names are in lower case where this client reads them: a receipt has both.
    let receipt = raw_header(&server, &headers, body.as_bytes(), "lethe-receipt");
    let plain = server.infer(body.as_bytes());
    assert!(
        plain.header("lethe-receipt").is_none(),
        "nobody asked for it"
    );
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    (plain.json(), receipt.expect("a receipt"))
}

/// What `lethe verify-receipt` says of a receipt of that digit.
fn verified(folder: &Path, receipt: &str, more: &[&str]) -> (i32, String) {
    fs::write(folder.join("body"), digits_request()).unwrap();
    fs::write(folder.join("receipt"), receipt).unwrap();
    let mut verify = lethe();
    verify.arg("verify-receipt").arg(folder.join("receipt"));
    verify.arg("--model").arg(digits());
    verify.arg("--request").arg(folder.join("body"));
    verify.arg("--public-key").arg(folder.join("key.pub"));
    run(verify.args(more))
}

const ENGINES: [&[&str]; 2] = [&[], &["--isolation", "sandbox", "--pure-wasm"]];

#[test]
fn a_receipt_of_a_served_request_is_confirmed_and_a_forged_one_is_not() {
    let folder = folder("receipts");
    let audit = folder.join("audit.jsonl");
    let (_, receipt) = served(&folder, &["--audit".as_ref(), audit.as_os_str()]);
    let (code, text) = run(lethe()
        .args(["audit", "verify"])
        .arg(&audit)
        .arg("--public-key")
        .arg(folder.join("key.pub"))
        .arg("--closed"));
    assert_eq!(code, 0, "{text}");
    let trail = fs::read_to_string(&audit).unwrap();
    assert!(trail.contains("\"request_id\":\"r-1\""), "{trail}");
    assert!(
        trail.contains("\"model\":\"digits\"") && !trail.contains("0.25"),
        "{trail}"
    );

    for more in ENGINES {
        let (code, text) = verified(&folder, &receipt, more);
        assert!(code == 0 && text.contains("confirmed"), "{more:?}: {text}");
    }
    // One character of the statement, and one of the signature.
    for at in [receipt.find('.').unwrap() + 50, receipt.len() - 20] {
        let mut forged = receipt.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let (code, text) = verified(&folder, &String::from_utf8(forged).unwrap(), &[]);
        assert_ne!(code, 0, "{text}");
    }
}

#[test]
fn weights_as_bytes_change_answers_a_little_and_receipts_say_so() {
    let outputs = |answer: &Value| -> Vec<f64> {
        let data = answer["outputs"][0]["data"].as_array().unwrap();
        data.iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let (exact, _) = served(&folder("receipts-exact"), &[]);
    let exact = outputs(&exact);
    let largest = exact.iter().fold(0f64, |most, value| most.max(value.abs()));
    for isolation in ["sandbox", "none"] {
        let folder = folder(&format!("receipts-bytes-{isolation}"));
        let arguments = ["--enable-quantization", "--isolation", isolation];
        let (answer, receipt) = served(&folder, &arguments.map(OsStr::new));
        let pairs = exact.iter().zip(outputs(&answer));
        let difference = pairs.fold(0f64, |most, (x, y)| most.max((x - y).abs()));
        assert!(
            difference > 0.0 && difference < 0.05 * largest,
            "{isolation}: {difference} of {largest}"
        );
        for more in ENGINES {
            let (code, text) = verified(&folder, &receipt, more);
            assert!(code == 0 && text.contains("confirmed"), "{more:?}: {text}");
        }
    }
}

/// A header of the answer, letter by letter.
fn raw_header(
    server: &Server,
    headers: &[(&str, &str)],
    body: &[u8],
    name: &str,
) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = server.connect();
    stream
        .write_all(&request("POST", "/api/v1/infer", headers, body))
        .unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let text = String::from_utf8_lossy(&all);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// What no log may have: a number in a tensor, a name in a request, a key.
const CANARY: &str = "31337.25";
const NAME: &str = "canary-of-a-patient";
const KEY: &str = "lethe_0123456789abcdef_canarycanarycanarycanarycanarycanarycan";

#[test]
fn nothing_of_a_request_is_in_logs_figures_or_the_trail() {
    let folder = folder("canary");
    let (audit, log) = (folder.join("audit.jsonl"), folder.join("log"));
    fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
    let mut serve = serve();
    serve
        .env("LETHE_LOG", "trace")
        .stderr(File::create(&log).unwrap());
    serve
        .arg("--audit")
        .arg(&audit)
        .arg(folder.join("plus.onnx"));
    let mut server = Server::spawn(serve);
    let good = models::numbers("plus", &[31337.25; 3]);
    let good = good.replacen('{', &format!(r#"{{"id":"{NAME}","#), 1);
    assert!(good.contains(CANARY));
    let key = ("x-api-key", KEY);
    let asks: [(&str, &str); 5] = [
        ("/api/v1/infer", &good),
        ("/v2/models/plus/infer", &good),
        (
            "/api/v1/batch",
            &format!(r#"{{"requests":[{good},{good}]}}"#),
        ),
        // What fails, fails without being repeated in a log.
        ("/api/v1/infer", &good.replace("FP32", "FP64")),
        ("/api/v1/infer", &good[..good.len() - 3]),
    ];
    for (path, body) in asks {
        let answer = server.post(path, &[JSON, key], body.as_bytes());
        assert!(answer.status < 500, "{path}: {}", answer.text());
    }
    let mut stream = Stream::open(&server);
    stream.send(&good);
    assert_eq!(
        stream.next().unwrap()["result"]["outputs"][0]["data"][0],
        31338.25
    );
    stream.send(&good[..good.len() - 3]);
    stream.next().unwrap();
    drop(stream);
    let figures: Vec<Answer> = [
        "/api/v1/stats",
        "/metrics",
        "/v2/models/stats",
        "/api/v1/models",
    ]
    .map(|path| server.get(path))
    .into();
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    let mut places: Vec<(String, Vec<u8>)> = vec![
        ("the log".into(), fs::read(&log).unwrap()),
        ("the trail".into(), fs::read(&audit).unwrap()),
    ];
    let log = String::from_utf8_lossy(&places[0].1);
    assert!(
        log.contains("no new requests are taken"),
        "a log of nothing: {log}"
    );
    for answer in figures {
        assert_eq!(answer.status, 200);
        places.push((answer.head.clone(), answer.body));
    }
    let hex = |text: &str| {
        text.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    for (place, content) in &places {
        let text = String::from_utf8_lossy(content);
        for canary in [CANARY, "31338.25", NAME, KEY] {
            for written in [
                canary.to_owned(),
                hex(canary),
                format!("{:?}", canary.as_bytes()).replace(['[', ']'], ""),
            ] {
                let found = text.find(&written);
                let around = found.map(|at| {
                    text[at.saturating_sub(200)..]
                        .chars()
                        .take(400)
                        .collect::<String>()
                });
                assert_eq!(around, None, "{canary} in {place}");
            }
        }
    }
}

#[test]
fn a_confined_server_loads_another_model_and_writes_its_trail() {
    let folder = folder("confined");
    let (audit, served) = (folder.join("audit.jsonl"), folder.join("models"));
    fs::create_dir(&served).unwrap();
    fs::copy(digits(), served.join("digits.onnx")).unwrap();
    let mut serve = serve();
    serve.env("LETHE_CACHE_DIR", folder.join("cache"));
    serve.args(["--confine", "true", "--enable-upload", "--models"]);
    serve.arg(&served).arg("--audit").arg(&audit);
    let server = Server::spawn(serve);
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    assert!(
        status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"),
        "{status}"
    );
    server.check("confinement");
    fs::write(served.join("plus.onnx"), models::plus(1.0)).unwrap();
    let load = server.control("/api/v1/models/load", br#"{"model":"plus"}"#);
    assert_eq!(load.status, 200, "{}", load.text());
    let put = server.send(&request(
        "PUT",
        "/api/v1/models/sent",
        &[("authorization", &server.bearer())],
        &models::plus(2.0),
    ));
    assert_eq!(put.status, 200, "{}", put.text());
    for (model, sum) in [("plus", 2.0), ("sent", 3.0)] {
        let answer = server.infer(models::numbers(model, &[1.0]).as_bytes());
        assert_eq!(
            answer.json()["outputs"][0]["data"][0],
            sum,
            "{}",
            answer.text()
        );
    }
    crate::server::wait_for("the trail", || {
        fs::read_to_string(&audit)
            .unwrap()
            .contains("\"model\":\"sent\"")
    });
}

/// Axes of one name that have two sizes are a warning: once for the model, not for each request.
#[test]
fn the_log_warns_once_of_a_name_that_has_two_sizes() {
    let folder = folder("two-sizes");
    fs::write(folder.join("sum.onnx"), models::sum()).unwrap();
    for isolation in ["none", "sandbox"] {
        let log = folder.join(isolation);
        let mut serve = serve();
        serve.env("LETHE_LOG", "warn");
        serve.stderr(File::create(&log).unwrap());
        serve.args(["--isolation", isolation]);
        serve.arg(folder.join("sum.onnx"));
        let mut server = Server::spawn(serve);
        let warnings = || {
            let log = fs::read_to_string(&log).unwrap();
            log.lines().filter(|line| line.contains("one name")).count()
        };
        let ask = |a: &[f32], b: &[f32]| {
            let input = |name: &str, x: &[f32]| {
                let shape = [x.len()];
                serde_json::json!({"name": name, "shape": shape, "datatype": "FP32", "data": x})
            };
            let inputs = [input("a", a), input("b", b)];
            let body = serde_json::json!({"model": "sum", "inputs": inputs}).to_string();
            let answer = server.infer(body.as_bytes());
            assert_eq!(answer.status, 200, "{isolation}: {}", answer.text());
            answer.json()["outputs"][0]["data"].clone()
        };
        assert_eq!(ask(&[1., 2.], &[3., 4.]), serde_json::json!([4.0, 6.0]));
        assert_eq!(warnings(), 0, "{isolation}");
        assert_eq!(ask(&[1., 2.], &[3.]), serde_json::json!([4.0, 5.0]));
        assert_eq!(
            ask(&[1.], &[3., 4., 5.]),
            serde_json::json!([4.0, 5.0, 6.0])
        );
        assert_eq!(ask(&[1., 2.], &[3., 4.]), serde_json::json!([4.0, 6.0]));
        server.signal("TERM");
        assert_eq!(server.ended(), Some(0));
        assert_eq!(warnings(), 1, "{isolation}");
    }
}
