//! `lethe keys`, `lethe audit verify` and `lethe verify-receipt`, by their exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lethe_engine::{Level, Numerics, Session, SessionOptions};
use lethe_host::audit::{AuditError, AuditLog, AuditSettings, Entry};
use lethe_host::receipt::{ModelIdentity, Receipt, RunIdentity};
use lethe_host::settings::Isolation;
use lethe_host::signing::SigningKey;
use lethe_sandbox::GraphSettings;
use lethe_sandbox::ModelSource;
use lethe_sandbox::model_file::ModelFile;
use lethe_server::{Handler, Model, Request};
use serde_json::{Map, Value};

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
    // The last lines of a log that is written are not yet signed, its first two are.
    let key = folder.path("audit.key.pub");
    let key = key.to_str().unwrap();
    let running = said(&["audit", "verify", file, "--public-key", key]);
    assert!(
        running.0 == 0 && running.1.contains("as given"),
        "{running:?}"
    );
    let signed = ["audit", "verify", file, "--public-key", key, "--at-least"];
    assert_eq!(said(&[&signed[..], &["2"]].concat()).0, 0);
    assert_eq!(said(&[&signed[..], &["3"]].concat()).0, 1);
    log.close().unwrap();

    let good = said(&["audit", "verify", file, "--public-key", key, "--closed"]);
    assert!(good.0 == 0 && good.1.contains("complete"), "{good:?}");
    let report = json(&["audit", "verify", file]);
    assert_eq!(
        (&report[0]["closed"], &report[0]["lines"]),
        (&true.into(), &6.into())
    );
    assert_eq!(said(&["audit", "verify", file, "--at-least", "6"]).0, 0);
    let cut = said(&["audit", "verify", file, "--at-least", "7"]);
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
    assert_eq!(json(&["audit", "verify", file])[0]["broken"]["line"], 3);
}

/// These lines with hashes that fit, as somebody writes them anew who has not got the key,
/// after the line with the hash `prev`.
fn chained(mut prev: String, first_seq: usize, lines: &[Map<String, Value>]) -> String {
    use sha2::Digest;
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let mut line = line.clone();
        line.remove("hash");
        line.insert("seq".into(), (first_seq + i).into());
        line.insert("prev".into(), prev.into());
        let content = serde_json::to_string(&line).unwrap();
        let content = content.strip_suffix('}').unwrap();
        prev = sha2::Sha256::digest(content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        text += &format!("{content},\"hash\":\"{prev}\"}}\n");
    }
    text
}

#[test]
fn a_log_without_its_signatures_does_not_pass_for_one_with_them() {
    let folder = Folder::new("unsigned-audit");
    let settings = AuditSettings::new(folder.path("audit.jsonl"), folder.path("audit.key"));
    let log = AuditLog::open(&settings).unwrap();
    for status in [401, 200, 200] {
        let entry = Entry {
            status,
            ..Entry::default()
        };
        log.record_now(entry).unwrap();
    }
    log.close().unwrap();
    let file = settings.file.to_str().unwrap();
    let key = folder.path("audit.key.pub");
    let key = key.to_str().unwrap();
    let whole = fs::read_to_string(file).unwrap();
    let lines: Vec<_> = whole
        .lines()
        .map(|line| serde_json::from_str::<Map<String, Value>>(line).unwrap())
        .collect();
    // All of it anew, without a checkpoint, and with another status.
    let mut forged: Vec<_> = lines
        .iter()
        .filter(|line| line["kind"] != "checkpoint")
        .cloned()
        .collect();
    forged[1].insert("status".into(), 200.into());
    fs::write(file, chained("0".repeat(64), 1, &forged)).unwrap();
    // Nothing but the key tells it from a log.
    assert_eq!(said(&["audit", "verify", file]).0, 0);
    for more in [&[][..], &["--at-least", "4"], &["--at-least", "1"]] {
        let arguments = [&["audit", "verify", file, "--public-key", key], more].concat();
        let (code, text) = said(&arguments);
        assert_eq!(code, 1, "{more:?}: {text}");
        assert!(text.contains("no line is signed"), "{more:?}: {text}");
        assert!(!text.contains("signed with"), "{more:?}: {text}");
    }

    // A server does not sign it by going on in it.
    let opened = AuditLog::open(&settings).map(drop);
    assert!(
        matches!(&opened, Err(AuditError::Unsigned { .. })),
        "{opened:?}"
    );

    // What was signed first, and more after it than a server leaves unsigned: in lines, or in time.
    let signed: String = whole.split_inclusive('\n').take(2).collect();
    let entry = &lines[2];
    let after = |count: usize, time: &dyn Fn(usize) -> String| {
        let rest = (0..count).map(|i| {
            let mut line = entry.clone();
            line.insert("time".into(), time(i).into());
            line
        });
        let prev = lines[1]["hash"].as_str().unwrap().to_owned();
        let rest = chained(prev, 3, &rest.collect::<Vec<_>>());
        fs::write(file, format!("{signed}{rest}")).unwrap();
        said(&["audit", "verify", file, "--public-key", key])
    };
    let at_once = |_: usize| "2026-12-01T10:00:00.000Z".to_owned();
    let by_minutes = |i: usize| format!("2026-12-01T10:{:02}:00.000Z", 2 * i);
    assert_eq!(after(900, &at_once).0, 0);
    for (text, expected) in [
        (after(1001, &at_once), "1001 lines follow"),
        (after(4, &by_minutes), "lines of 360 s follow"),
        (after(1, &|_| "now".to_owned()), "time cannot be read"),
    ] {
        assert!(text.0 == 1 && text.1.contains(expected), "{text:?}");
    }
    let arguments = [
        "audit",
        "verify",
        file,
        "--public-key",
        key,
        "--at-least",
        "3",
    ];
    let (code, text) = said(&arguments);
    assert!(
        code == 1 && text.contains("2 of these are certain"),
        "{text}"
    );
}

#[test]
fn audit_verify_reads_regular_files_alone() {
    // A device that never ends would be read for ever.
    for device in ["/dev/zero", "/dev/null"] {
        let (code, text) = said(&["audit", "verify", device]);
        assert_eq!(code, 2, "{device}: {text}");
    }
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
