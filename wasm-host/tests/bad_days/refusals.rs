//! Who is turned away, and what else is written down: the audit trail, the log, the figures.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lethe_host::tenants::KeyFile;
use serde_json::{Value, json};

use crate::models::{self, Endless};
use crate::server::{
    JSON, Server, digits, digits_request, folder, lethe, request, requests_in, serve, wait_for,
};

/// A server with a trail, a log and two tenants, of which the first may use digits only.
struct House {
    server: Server,
    folder: PathBuf,
    first: String,
    operator: String,
}

fn house(name: &str, settings: &str, arguments: &[&str]) -> House {
    let folder = folder(name);
    let keys = folder.join("keys");
    let [first, operator] = ["first", "operator"].map(|tenant| {
        let new = KeyFile::create(&keys, tenant, None).unwrap();
        new.key.to_string()
    });
    let (config, served) = (folder.join("lethe.toml"), folder.join("models"));
    fs::write(&config, settings).unwrap();
    fs::create_dir(&served).unwrap();
    fs::write(served.join("plus.onnx"), models::plus(1.0)).unwrap();
    fs::copy(digits(), served.join("digits.onnx")).unwrap();
    let mut serve = serve();
    serve.env("LETHE_LOG", "info");
    serve.stderr(File::create(folder.join("log")).unwrap());
    serve
        .args(["--admin-tenants", "operator", "--keys"])
        .arg(&keys);
    serve.arg("--config").arg(&config);
    serve.arg("--models").arg(&served).args(arguments);
    serve.arg("--audit").arg(folder.join("audit.jsonl"));
    House {
        server: Server::spawn(serve),
        folder,
        first,
        operator,
    }
}

impl House {
    fn ask(&self, key: &str, method: &str, path: &str, body: &str) -> u16 {
        let headers = [JSON, ("x-api-key", key)];
        let whole = request(method, path, &headers, body.as_bytes());
        self.server.send(&whole).status
    }

    fn trail(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("audit.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    /// Ends the server; the lines of its trail, which is whole.
    fn ended(mut self) -> (Vec<Value>, String) {
        self.server.signal("TERM");
        assert_eq!(self.server.ended(), Some(0));
        let audit = self.folder.join("audit.jsonl");
        let verified = lethe()
            .args(["audit", "verify", "--closed"])
            .arg(&audit)
            .output();
        assert!(verified.unwrap().status.success());
        let log = fs::read_to_string(self.folder.join("log")).unwrap();
        (self.trail(), log)
    }
}

/// Lines that have these fields.
fn having<'a>(lines: &'a [Value], fields: &Value) -> Vec<&'a Value> {
    let fields = fields.as_object().unwrap();
    let has = |line: &&Value| fields.iter().all(|(name, value)| line[name] == *value);
    lines.iter().filter(has).collect()
}

const ONE_MODEL: &str = "[tenants.overrides.first]\nmodels = [\"digits\"]\n";

#[test]
fn loads_keys_settings_and_refusals_are_lines_of_trail_and_log() {
    let house = house(
        "trail-of-all",
        ONE_MODEL,
        &["--enable-upload", "--model-cache-size", "1"],
    );
    let named = r#"{"model":"plus"}"#;
    let operator = house.operator.clone();
    let first = house.first.clone();
    let pause = || std::thread::sleep(Duration::from_millis(2300));
    // Loads plus, for which digits goes.
    assert_eq!(
        house.ask(&operator, "POST", "/api/v1/models/load", named),
        200
    );
    assert_eq!(
        house.ask(&operator, "POST", "/api/v1/models/unload", named),
        200
    );
    assert_eq!(
        house.ask(&operator, "POST", "/v2/repository/models/nothing/load", ""),
        404
    );
    let sent = request(
        "PUT",
        "/api/v1/models/sent",
        &[("x-api-key", &operator)],
        &models::plus(2.0),
    );
    assert_eq!(house.server.send(&sent).status, 200);
    // 403, 404 of a model of others, 401: each a source of its own, or later.
    assert_eq!(house.ask(&first, "POST", "/api/v1/models/load", named), 403);
    assert_eq!(house.ask("wrong", "GET", "/api/v1/models", ""), 401);
    pause();
    let foreign = models::numbers("plus", &[1.0]);
    assert_eq!(house.ask(&first, "POST", "/api/v1/infer", &foreign), 404);
    pause();
    let nowhere = models::numbers("name-of-a-patient", &[1.0]);
    assert_eq!(house.ask(&first, "POST", "/api/v1/infer", &nowhere), 404);
    KeyFile::create(&house.folder.join("keys"), "third", None).unwrap();
    wait_for("the keys", || {
        let read = json!({"kind": "change", "subject": "keys"});
        having(&house.trail(), &read).len() == 2
    });
    house.server.signal("HUP");
    wait_for("the settings", || {
        let read = json!({"kind": "change", "subject": "settings"});
        having(&house.trail(), &read).len() == 2
    });
    let stats = request("GET", "/api/v1/stats", &[("x-api-key", &operator)], b"");
    let stats = house.server.send(&stats).json();
    assert_eq!(stats["refusals"]["LETHE-FORBIDDEN"], 1, "{stats}");
    assert_eq!(stats["refusals"]["LETHE-MODEL-UNKNOWN"], 2, "{stats}");
    assert!(
        stats["model_changes"]["evicted"].as_u64() >= Some(1),
        "{stats}"
    );
    let metrics = request("GET", "/metrics", &[("x-api-key", &operator)], b"");
    let metrics = house.server.send(&metrics).text();
    for line in [
        "lethe_refusals_total{code=\"LETHE-KEY-UNKNOWN\"} 1",
        "lethe_model_changes_total{change=\"unloaded\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let (lines, log) = house.ended();
    let by_operator = |route: &str, status: u16| {
        let fields =
            json!({"kind": "request", "tenant": "operator", "route": route, "status": status});
        let found = having(&lines, &fields);
        assert_eq!(found.len(), 1, "{route} {status}: {lines:#?}");
        found[0].clone()
    };
    let load = by_operator("POST /api/v1/models/load", 200);
    assert_eq!(load["model"], "plus");
    assert_eq!(
        by_operator("POST /api/v1/models/unload", 200)["model"],
        "plus"
    );
    assert_eq!(
        by_operator("PUT /api/v1/models/{model}", 200)["model"],
        "sent"
    );
    let unknown = by_operator("POST /v2/repository/models/{model}/load", 404);
    assert_eq!(unknown["model"], Value::Null);
    for (change, model) in [
        ("loaded", "digits"),
        ("loaded", "plus"),
        ("evicted", "digits"),
        ("unloaded", "plus"),
        ("loaded", "sent"),
    ] {
        let fields =
            json!({"kind": "change", "subject": "model", "change": change, "model": model});
        let found = having(&lines, &fields);
        assert!(!found.is_empty(), "{change} {model}: {lines:#?}");
        let is_hashed = found[0]["sha256"].as_str().map(str::len) == Some(64);
        assert_eq!(is_hashed, change == "loaded", "{}", found[0]);
    }
    for (status, code, tenant, model) in [
        (403, "LETHE-FORBIDDEN", "first", Value::Null),
        (401, "LETHE-KEY-UNKNOWN", "", Value::Null),
        (404, "LETHE-MODEL-UNKNOWN", "first", json!("plus")),
        (404, "LETHE-MODEL-UNKNOWN", "first", Value::Null),
    ] {
        let fields = json!({
            "kind": "request", "status": status, "code": code, "tenant": tenant,
            "model": model, "source": "127.0.0.1",
        });
        assert_eq!(having(&lines, &fields).len(), 1, "{fields}: {lines:#?}");
    }
    let whole = fs_text(&lines);
    assert!(!whole.contains("patient") && !log.contains("patient"));
    for said in [
        "a model was loaded",
        "unloaded to make room",
        "a request was turned away",
        "the tenant has no such model",
        "the key is not valid here",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

fn fs_text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn refusals_of_one_source_are_one_line_a_second() {
    let house = house(
        "flood",
        "[tenants.default]\nrequests_per_second = 0.1\nburst = 1\n",
        &[],
    );
    let (first, body) = (house.first.clone(), digits_request());
    let begun = Instant::now();
    let (mut unknown, mut limited) = (0, 0);
    while begun.elapsed() < Duration::from_secs(3) {
        let status = house.ask("wrong", "GET", "/api/v1/models", "");
        unknown += usize::from(status == 401);
        let status = house.ask(&first, "POST", "/api/v1/infer", &body);
        limited += u64::from(status == 429);
    }
    assert!(unknown > 20 && limited > 20, "{unknown} {limited}");
    let seconds = begun.elapsed().as_secs() as usize + 1;
    let (lines, log) = house.ended();
    let of = |status: u16| having(&lines, &json!({"kind": "request", "status": status})).len();
    assert_eq!((of(401), of(429)), (1, 1), "{lines:#?}");
    let counted = having(&lines, &json!({"kind": "refusals"}));
    assert!(counted.len() <= 2 * (seconds + 1), "{counted:#?}");
    let sum = |code: &str| {
        let counts = counted
            .iter()
            .filter_map(|line| line["codes"][code].as_u64());
        1 + counts.sum::<u64>()
    };
    assert_eq!(sum("LETHE-KEY-UNKNOWN"), unknown as u64, "{counted:#?}");
    assert_eq!(sum("LETHE-RATE"), limited, "{counted:#?}");
    assert!(counted.iter().any(|line| line["tenant"] == "first"));
    let said = log.matches("turned away").count();
    assert!(said <= 2 * (seconds + 2), "{said} lines: {log}");
}

#[test]
fn a_request_is_written_under_the_model_that_it_named_or_none() {
    for more in [&[][..], &["--batched-models", "*"]] {
        let audit = folder("named").join("audit.jsonl");
        let mut arguments = vec!["--audit", audit.to_str().unwrap()];
        arguments.extend(more);
        let server = Server::digits(&arguments);
        let good = digits_request();
        let pause = || std::thread::sleep(Duration::from_millis(2300));
        assert_eq!(server.infer(good.as_bytes()).status, 200);
        // Another model, none, and what cannot be read.
        let other = good.replacen("\"digits\"", "\"somebody\"", 1);
        assert_eq!(server.infer(other.as_bytes()).status, 404);
        pause();
        let none = good.replacen("\"model\":\"digits\",", "", 1);
        assert_eq!(server.infer(none.as_bytes()).status, 400);
        assert_eq!(server.infer(&good.as_bytes()[..99]).status, 400);
        let wrong = good.replacen("FP32", "FP99", 1);
        assert_eq!(server.infer(wrong.as_bytes()).status, 422);
        let lines = || requests_in(&audit);
        wait_for("five lines", || lines().len() == 5);
        let expected = [
            (200, json!("digits")),
            (404, Value::Null),
            (400, Value::Null),
            (400, Value::Null),
            (422, json!("digits")),
        ];
        for (line, (status, model)) in lines().iter().zip(expected) {
            assert_eq!(
                (&line["status"], &line["model"]),
                (&json!(status), &model),
                "{line}"
            );
            let is_hashed = line["model_sha256"].is_string();
            assert_eq!(is_hashed, model != Value::Null, "{line}");
        }
    }
}

#[test]
fn a_hundred_and_fifty_connections_of_one_tenant_find_room() {
    let server = Server::digits(&[]);
    let body = digits_request();
    let statuses = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..150)
            .map(|_| scope.spawn(|| server.infer(body.as_bytes()).status))
            .collect();
        let joined = clients.into_iter().map(|client| client.join().unwrap());
        joined.collect::<Vec<_>>()
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    // Where fewer may wait, that is said.
    let server = Server::digits(&["--max-waiting-per-tenant", "0", "--max-running", "1"]);
    let codes = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| server.infer(body.as_bytes()).code()))
            .collect();
        let joined = clients.into_iter().map(|client| client.join().unwrap());
        joined.collect::<Vec<_>>()
    });
    assert!(codes.iter().any(|code| code == "LETHE-QUEUE"), "{codes:?}");
    assert!(codes.iter().any(String::is_empty), "{codes:?}");
}

#[test]
fn a_run_that_starves_others_ends_at_its_tenants_limit() {
    let folder = folder("starving");
    let keys = folder.join("keys");
    let [greedy, modest] = ["greedy", "modest"].map(|tenant| {
        let new = KeyFile::create(&keys, tenant, None).unwrap();
        new.key.to_string()
    });
    let path = folder.join("looping.onnx");
    fs::write(&path, models::looping(Endless::WithMore)).unwrap();
    let ask = |server: &Server, key: &str, body: &str| {
        let headers = [JSON, ("x-api-key", key)];
        server.post("/api/v1/infer", &headers, body.as_bytes())
    };
    let endless = models::numbers("looping", &[1.0]);
    // What is said in the settings, and the ten seconds where nothing is.
    let settings = folder.join("lethe.toml");
    fs::write(&settings, "[tenants.overrides.greedy]\ncompute_ms = 700\n").unwrap();
    let said = ["--config", settings.to_str().unwrap()];
    for (arguments, limit) in [(&said[..], 0.7), (&[], 10.0)] {
        let mut serve = serve();
        serve.args(["--max-running", "1", "--request-timeout-ms", "60000"]);
        serve.arg("--keys").arg(&keys).args(arguments);
        serve.arg(&path).arg(digits());
        let server = Server::spawn(serve);
        assert_eq!(ask(&server, &modest, &digits_request()).status, 200);
        std::thread::scope(|scope| {
            let begun = Instant::now();
            let starving: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| ask(&server, &greedy, &endless)))
                .collect();
            std::thread::sleep(Duration::from_millis(200));
            let answer = ask(&server, &modest, &digits_request());
            let waited = begun.elapsed().as_secs_f64();
            assert_eq!(answer.status, 200, "{}", answer.text());
            // After the run that had begun, and before the other.
            assert!(waited < 1.7 * limit + 1.0, "{waited} s of {limit}");
            for starving in starving {
                let answer = starving.join().unwrap();
                assert_eq!(
                    (answer.status, &*answer.code()),
                    (504, "LETHE-DEADLINE"),
                    "{}",
                    answer.text()
                );
            }
        });
    }
}
