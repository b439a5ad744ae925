//! `lethe keys`, `lethe audit verify` and `lethe verify-receipt`, by their exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lethe_engine::{Level, Numerics, Session, SessionOptions};
use lethe_host::audit::{AuditLog, AuditSettings, Entry};
use lethe_host::receipt::{ModelIdentity, Receipt, RunIdentity};
use lethe_host::settings::Isolation;
use lethe_host::signing::SigningKey;
use lethe_sandbox::GraphSettings;
use lethe_sandbox::ModelSource;
use lethe_sandbox::model_file::ModelFile;
use lethe_server::{Handler, Model, Request};
use serde_json::Value;

/// A folder of a test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("lethe-trust-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn lethe<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lethe"));
    command.args(arguments).output().unwrap()
}

/// Exit code, and what was said, as text and as JSON with `--json`.
fn said(arguments: &[&str]) -> (i32, String) {
    let output = lethe(arguments.iter().copied());
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

fn json(arguments: &[&str]) -> Value {
    let output = lethe(arguments.iter().copied().chain(["--json"]));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let folder = Folder::new("keys");
    let file = folder.path("keys.toml");
    let file = file.to_str().unwrap();
    let (code, key) = said(&["keys", "create", "--tenant", "acme", "--file", file]);
    assert_eq!(code, 0);
    assert!(key.starts_with("lethe_"), "{key}");
    let made = json(&[
        "keys", "create", "--tenant", "b", "--note", "n", "--file", file,
    ]);
    let id = made["id"].as_str().unwrap();
    assert!(
        made["key"]
            .as_str()
            .unwrap()
            .starts_with(&format!("lethe_{id}_"))
    );
    let listed = json(&["keys", "list", "--file", file]);
    assert_eq!(listed["keys"][1]["note"], "n");
    assert!(!listed.to_string().contains(made["key"].as_str().unwrap()));
    assert_eq!(said(&["keys", "revoke", id, "--file", file]).0, 0);
    assert!(json(&["keys", "list", "--file", file])["keys"][1]["revoked"].is_string());
    assert_eq!(
        said(&["keys", "revoke", "0000000000000000", "--file", file]).0,
        1
    );
    let (code, text) = said(&["keys", "create", "--tenant", "a b", "--file", file]);
    assert_eq!((code, text.lines().count()), (2, 1), "{text}");
    assert_eq!(said(&["keys", "list", "--file", "/nowhere"]).0, 2);
}

#[test]
fn audit_verify_says_what_is_certain() {
    let folder = Folder::new("audit");
    let settings = AuditSettings::new(folder.path("audit.jsonl"), folder.path("audit.key"));
    let log = AuditLog::open(&settings).unwrap();
    for _ in 0..3 {
        log.record_now(Entry::default()).unwrap();
    }
    let file = settings.file.to_str().unwrap();
    let open = said(&["audit", "verify", file]);
    assert!(open.0 == 0 && open.1.contains("not closed"), "{open:?}");
    assert_eq!(said(&["audit", "verify", file, "--closed"]).0, 1);
    log.close().unwrap();

    let key = folder.path("audit.key.pub");
    let key = key.to_str().unwrap();
    let good = said(&["audit", "verify", file, "--public-key", key, "--closed"]);
    assert!(good.0 == 0 && good.1.contains("complete"), "{good:?}");
    let report = json(&["audit", "verify", file]);
    assert_eq!(
        (&report[0]["closed"], &report[0]["lines"]),
        (&true.into(), &5.into())
    );
    assert_eq!(said(&["audit", "verify", file, "--at-least", "5"]).0, 0);
    let cut = said(&["audit", "verify", file, "--at-least", "6"]);
    assert!(cut.0 == 1 && cut.1.contains("MISSING"), "{cut:?}");
    let other = SigningKey::ephemeral().unwrap().public_key().to_string();
    // A key may begin with a dash, which is no flag.
    for other in [other, format!("-{}", "A".repeat(42))] {
        let wrong = said(&["audit", "verify", file, "--public-key", &other]);
        assert_eq!(wrong.0, 1, "{other}: {wrong:?}");
    }
    assert_eq!(said(&["audit", "verify", file, "--public-key", "?"]).0, 2);
    assert_eq!(said(&["audit", "verify", "/nowhere/log"]).0, 2);

    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text.replacen("\"status\":0", "\"status\":1", 1)).unwrap();
    let broken = said(&["audit", "verify", file]);
    assert!(
        broken.0 == 1 && broken.1.contains("BROKEN at"),
        "{broken:?}"
    );
    assert_eq!(json(&["audit", "verify", file])[0]["broken"]["line"], 2);
}

#[test]
fn verify_receipt_runs_the_request_again() {
    let folder = Folder::new("receipt");
    let models = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("models");
    let path = models.join("digits/model.onnx");
    let file = ModelFile::open(&path).unwrap();
    let source = ModelSource::of_file("digits", &file).unwrap();
    let zeros = vec!["0.25"; 784].join(",");
    let body = format!(
        r#"{{"model":"digits","inputs":[{{"name":"input","shape":[1,1,28,28],"datatype":"FP32","data":[{zeros}]}}]}}"#
    );
    let options = SessionOptions {
        numerics: Numerics::Reproducible,
        ..SessionOptions::default()
    };
    let session = Session::load(source.model.bytes().unwrap(), &options).unwrap();
    let handler = Handler::new(vec![Model::new("digits", session)], 1 << 20);
    let request = Request::json("POST", "/api/v1/infer", body.as_bytes());
    let answer = handler.handle(&request);
    assert_eq!(answer.status, 200);
    let key = SigningKey::open_or_create(&folder.path("key")).unwrap();
    let issue = |numerics| {
        let run = RunIdentity::new(
            Isolation::None,
            numerics,
            true,
            Level::best(),
            "cpu",
            GraphSettings::default(),
        );
        let model = ModelIdentity::of(&source).unwrap();
        Receipt::issue(&model, &run, &request, &answer, &key)
    };
    let good = issue(Numerics::Reproducible);
    let write = |name: &str, content: &str| {
        fs::write(folder.path(name), content).unwrap();
        folder.path(name).to_str().unwrap().to_owned()
    };
    let receipt = write("receipt", &good);
    let fast = write("fast", &issue(Numerics::Fast));
    let forged = write("forged", &{
        let at = good.find('.').unwrap() + 40;
        let other = if good.as_bytes()[at] == b'x' {
            "y"
        } else {
            "x"
        };
        format!("{}{other}{}", &good[..at], &good[at + 1..])
    });
    let none = write("none", "hello");
    let (asked, another) = (
        write("body", &body),
        write("another", &body.replacen("0.25", "0.5", 1)),
    );
    let key = folder.path("key.pub");
    let (digits, key) = (path.to_str().unwrap(), key.to_str().unwrap());
    let vibration = models.join("vibration/model.onnx");
    let vibration = vibration.to_str().unwrap();
    let other_key = SigningKey::ephemeral().unwrap().public_key().to_string();

    let cases: [(&str, &str, &str, &[&str], i32, &str); 10] = [
        (&receipt, digits, &asked, &[], 0, "confirmed"),
        (
            &receipt,
            digits,
            &asked,
            &["--public-key", key],
            0,
            "as given",
        ),
        (
            &receipt,
            digits,
            &asked,
            &["--isolation", "sandbox", "--pure-wasm"],
            0,
            "confirmed",
        ),
        (
            &receipt,
            digits,
            &asked,
            &["--public-key", &other_key],
            1,
            "is signed with",
        ),
        (&receipt, vibration, &asked, &[], 1, "model: found"),
        (&receipt, digits, &another, &[], 1, "request: found"),
        (&fast, digits, &asked, &[], 1, "fast numerics"),
        (&forged, digits, &asked, &["--public-key", key], -1, ""),
        (&none, digits, &asked, &[], 2, "no receipt"),
        (&receipt, "/nowhere", &asked, &[], 2, "nowhere"),
    ];
    for (receipt, model, request, more, code, part) in cases {
        let arguments = [
            &[
                "verify-receipt",
                receipt,
                "--model",
                model,
                "--request",
                request,
            ],
            more,
        ];
        let found = said(&arguments.concat());
        match code {
            // A changed character makes it forged or malformed.
            -1 => assert_ne!(found.0, 0, "{found:?}"),
            _ => assert_eq!(found.0, code, "{arguments:?}: {found:?}"),
        }
        assert!(found.1.contains(part), "{arguments:?}: {found:?}");
    }
    let arguments = [
        "verify-receipt",
        &receipt,
        "--model",
        digits,
        "--request",
        &asked,
    ];
    let report = json(&arguments);
    assert_eq!(report["verdict"], "confirmed");
    assert_eq!(report["receipt"]["model"]["name"], "digits");
}
