//! What a request leaves behind: its line in the audit trail, its receipt, and nothing else.

use std::fs::{self, File};
use std::process::Command;

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

#[test]
fn a_receipt_of_a_served_request_is_confirmed_and_a_forged_one_is_not() {
    let folder = folder("receipts");
    let (audit, key) = (folder.join("audit.jsonl"), folder.join("key"));
    let mut serve = serve();
    serve
        .args(["--numerics", "reproducible", "--audit"])
        .arg(&audit);
    serve.arg("--signing-key").arg(&key).arg(digits());
    let mut server = Server::spawn(serve);
    let body = digits_request();
    let headers = [JSON, ("lethe-receipt", "1"), ("x-request-id", "r-1")];
    // Answers' names are in lower case where this client reads them: a receipt has both.
    let answer = raw_header(&server, &headers, body.as_bytes(), "lethe-receipt");
    let receipt = answer.expect("a receipt");
    let plain = server.infer(body.as_bytes());
    assert!(
        plain.header("lethe-receipt").is_none(),
        "nobody asked for it"
    );
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));

    let public = folder.join("key.pub");
    let (code, text) = run(lethe()
        .args(["audit", "verify"])
        .arg(&audit)
        .arg("--public-key")
        .arg(&public)
        .arg("--closed"));
    assert_eq!(code, 0, "{text}");
    let trail = fs::read_to_string(&audit).unwrap();
    assert!(trail.contains("\"request_id\":\"r-1\""), "{trail}");
    assert!(
        trail.contains("\"model\":\"digits\"") && !trail.contains("0.25"),
        "{trail}"
    );

    fs::write(folder.join("body"), &body).unwrap();
    let verify = |receipt: &str, more: &[&str]| {
        fs::write(folder.join("receipt"), receipt).unwrap();
        let mut verify = lethe();
        verify.arg("verify-receipt").arg(folder.join("receipt"));
        verify
            .arg("--model")
            .arg(digits())
            .arg("--request")
            .arg(folder.join("body"));
        run(verify.arg("--public-key").arg(&public).args(more))
    };
    for more in [&[][..], &["--isolation", "sandbox", "--pure-wasm"]] {
        let (code, text) = verify(&receipt, more);
        assert!(code == 0 && text.contains("confirmed"), "{more:?}: {text}");
    }
    // One character of the statement, and one of the signature.
    for at in [receipt.find('.').unwrap() + 50, receipt.len() - 20] {
        let mut forged = receipt.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let (code, text) = verify(&String::from_utf8(forged).unwrap(), &[]);
        assert_ne!(code, 0, "{text}");
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
    let load = server.post("/api/v1/models/load", &[JSON], br#"{"model":"plus"}"#);
    assert_eq!(load.status, 200, "{}", load.text());
    let put = server.send(&request(
        "PUT",
        "/api/v1/models/sent",
        &[],
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
