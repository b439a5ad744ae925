use super::*;
use std::path::Path;

use lethe_engine::{Session, SessionOptions};
use lethe_server::{Handler, Model};
use serde_json::{Value, json};

use lethe_sandbox::model_file::ModelFile;
use lethe_sandbox::{Sandbox, SandboxSettings};

fn source(model: &str) -> ModelSource {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = root.join("models").join(model).join("model.onnx");
    ModelSource::of_file("digits", &ModelFile::open(&path).unwrap()).unwrap()
}

fn body() -> Vec<u8> {
    let data: Vec<f32> = (0..784).map(|i| (i % 29) as f32 / 29.0).collect();
    let input = json!({"name": "input", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": data});
    let body = json!({"model": "digits", "inputs": [input]});
    body.to_string().into_bytes()
}

fn request(body: &[u8]) -> Request<'_> {
    Request::json("POST", "/api/v1/infer", body)
}

/// Answers in this process.
fn native(model: &ModelSource, request: &Request<'_>) -> Response {
    let options = SessionOptions {
        numerics: Numerics::Reproducible,
        ..SessionOptions::default()
    };
    let session = Session::load(model.model.bytes().unwrap(), &options).unwrap();
    let model = Model::new(model.name.clone(), session);
    Handler::new(vec![model], 1 << 20).handle(request)
}

/// Answers in a sandbox.
fn sandboxed(native_kernels: bool, model: &ModelSource, request: &Request<'_>) -> Response {
    let mut settings = SandboxSettings {
        native_kernels,
        cache: None,
        ..SandboxSettings::default()
    };
    settings.env.numerics = Numerics::Reproducible;
    Sandbox::new(model, &settings).unwrap().handle(request)
}

fn settings(numerics: Numerics) -> RunIdentity {
    RunIdentity::new(
        Isolation::Sandbox,
        numerics,
        true,
        Level::best(),
        "cpu",
        GraphSettings::default(),
    )
}

/// A receipt for the request to digits.
fn issue(key: &SigningKey) -> String {
    let (model, body) = (source("digits"), body());
    let answer = native(&model, &request(&body));
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let settings = settings(Numerics::Reproducible);
    Receipt::issue(
        &ModelIdentity::of(&model).unwrap(),
        &settings,
        &request(&body),
        &answer,
        key,
    )
}

#[test]
fn every_door_confirms_the_receipt() {
    let key = SigningKey::ephemeral().unwrap();
    let receipt = Receipt::read(&issue(&key), Some(key.public_key())).unwrap();
    let (model, body) = (source("digits"), body());
    assert_eq!(
        receipt.confirm(&model, &body, |r| native(&model, r)),
        Verdict::Confirmed
    );
    for native_kernels in [true, false] {
        let verdict = receipt.confirm(&model, &body, |r| sandboxed(native_kernels, &model, r));
        assert_eq!(
            verdict,
            Verdict::Confirmed,
            "native kernels: {native_kernels}"
        );
    }
}

#[test]
fn another_model_request_or_answer_is_named() {
    let key = SigningKey::ephemeral().unwrap();
    let receipt = Receipt::read(&issue(&key), None).unwrap();
    let (model, body) = (source("digits"), body());
    let whats = |verdict: Verdict| match verdict {
        Verdict::Differs(all) => all.into_iter().map(|one| one.what).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let not_run = |_: &Request<'_>| -> Response { panic!("there was nothing to run") };
    let other = source("vibration");
    assert_eq!(whats(receipt.confirm(&other, &body, not_run)), ["model"]);
    let mut with_file = model.clone();
    with_file.files.push(("weights".into(), b"x"[..].into()));
    assert_eq!(
        whats(receipt.confirm(&with_file, &body, not_run)),
        ["external data"]
    );
    let mut other_body = body.clone();
    *other_body.last_mut().unwrap() = b' ';
    assert_eq!(
        whats(receipt.confirm(&model, &other_body, not_run)),
        ["request"]
    );

    // A server that answered something else, or another engine that does.
    let mut lie = receipt.clone();
    lie.answer.sha256 = sha256(b"another answer");
    let lie = Receipt::read(&lie.sign(&key), None).unwrap();
    assert_eq!(
        whats(lie.confirm(&model, &body, |r| native(&model, r))),
        ["answer"]
    );
    lie_of_version(&receipt, &key, &model, &body);
}

/// Where the answer differs, so may the version that gave it; where it does not, that is no matter.
fn lie_of_version(receipt: &Receipt, key: &SigningKey, model: &ModelSource, body: &[u8]) {
    let mut old = receipt.clone();
    old.engine.lethe = "0.0.1".into();
    let verdict = old.confirm(model, body, |r| native(model, r));
    assert_eq!(verdict, Verdict::Confirmed);
    old.answer.bytes += 1;
    let old = Receipt::read(&old.sign(key), None).unwrap();
    match old.confirm(model, body, |r| native(model, r)) {
        Verdict::Differs(all) => assert_eq!((all.len(), all[1].what), (2, "lethe")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fast_numerics_are_not_confirmed() {
    let key = SigningKey::ephemeral().unwrap();
    let (model, body) = (source("digits"), body());
    let answer = native(&model, &request(&body));
    let identity = ModelIdentity::of(&model).unwrap();
    let settings = settings(Numerics::Fast);
    let text = Receipt::issue(&identity, &settings, &request(&body), &answer, &key);
    let receipt = Receipt::read(&text, None).unwrap();
    let verdict = receipt.confirm(&model, &body, |_| panic!("nothing to run"));
    assert_eq!(verdict, Verdict::NotReproducible);
}

/// Paths to all values in a JSON document that are no objects.
fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(value, format!("{path}/{name}"), found);
            }
        }
        _ => found.push(path),
    }
}

#[test]
fn a_receipt_with_any_field_changed_is_refused() {
    let key = SigningKey::ephemeral().unwrap();
    let forger = SigningKey::ephemeral().unwrap();
    let text = issue(&key);
    let pieces: Vec<&str> = text.split('.').collect();
    let statement = URL_SAFE_NO_PAD.decode(pieces[1]).unwrap();
    let statement: Value = serde_json::from_slice(&statement).unwrap();
    let mut fields = Vec::new();
    leaves(&statement, String::new(), &mut fields);
    assert!(fields.len() >= 17, "{fields:?}");
    for field in &fields {
        let mut changed = statement.clone();
        let value = changed.pointer_mut(field).unwrap();
        *value = match &*value {
            Value::Bool(is) => json!(!is),
            Value::Number(n) => json!(n.as_u64().unwrap() + 1),
            _ if field == "/public_key" => json!(forger.public_key()),
            Value::String(s) => json!(format!("{s}x")),
            other => panic!("{other}"),
        };
        let changed = URL_SAFE_NO_PAD.encode(changed.to_string());
        let forged = format!("{}.{changed}.{}", pieces[0], pieces[2]);
        let error = Receipt::read(&forged, None).unwrap_err();
        assert_eq!(error, ReceiptError::Signature, "{field}");
    }
    // Signed anew with another key: only the key that was given tells.
    let forged = Receipt::read(&text, None).unwrap();
    let forged = Receipt {
        public_key: forger.public_key(),
        ..forged
    };
    let forged = forged.sign(&forger);
    assert!(Receipt::read(&forged, None).is_ok());
    let error = Receipt::read(&forged, Some(key.public_key())).unwrap_err();
    assert!(matches!(error, ReceiptError::Key { .. }), "{error}");
    // And any changed character.
    for i in (0..text.len()).step_by(3) {
        let mut bytes = text.clone().into_bytes();
        bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(
            Receipt::read(&changed, Some(key.public_key())).is_err(),
            "{i}"
        );
    }
}

#[test]
fn what_is_no_receipt_is_malformed() {
    let key = SigningKey::ephemeral().unwrap();
    let text = issue(&key);
    let pieces: Vec<&str> = text.split('.').collect();
    let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\",\"typ\":\"lethe-receipt\"}");
    let long = "x".repeat(RECEIPT_BYTES + 1);
    let cases = [
        "",
        "..",
        "a.b.c",
        &long,
        &format!("{none}.{}.", pieces[1]),
        &format!("{none}.{}.{}", pieces[1], pieces[2]),
        &format!("{}.{}", pieces[0], pieces[1]),
        &format!("{text}.x"),
        &format!("{}.e30.{}", pieces[0], pieces[2]),
        &format!("{}.?.{}", pieces[0], pieces[2]),
    ];
    for case in cases {
        let error = Receipt::read(case, None).unwrap_err();
        assert!(
            matches!(error, ReceiptError::Malformed(_)),
            "{case}: {error}"
        );
    }
    let mut later = Receipt::read(&text, None).unwrap();
    later.version = 2;
    let error = Receipt::read(&later.sign(&key), None).unwrap_err();
    assert_eq!(error, ReceiptError::Version(2));
    // A line's end after it is no harm.
    assert!(Receipt::read(&format!("{text}\n"), None).is_ok());
}
