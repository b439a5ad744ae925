//! The bindings from inside WebAssembly, in Node or headless Chromium:
//! `CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner cargo test --package
//! lethe-web --target wasm32-unknown-unknown`.
#![cfg(target_arch = "wasm32")]

use js_sys::{Reflect, Uint8Array};
use lethe_web::{ExternalFiles, Failure, ModelBytes, Session, Value};
use wasm_bindgen::JsValue;
use wasm_bindgen_test::wasm_bindgen_test;

const DIGITS: &[u8] = include_bytes!("../../models/digits/model.onnx");
const FLOAT: i32 = 1;
const INT64: i32 = 7;

fn model_bytes(bytes: &[u8], piece: usize) -> ModelBytes {
    let mut model = ModelBytes::new(bytes.len() as f64).unwrap();
    for piece in bytes.chunks(piece) {
        model.push(&Uint8Array::from(piece)).unwrap();
    }
    model
}

async fn load(model: ModelBytes, backend: &str, numerics: &str) -> Result<Session, Failure> {
    let none = ExternalFiles::new();
    let mut model = model.decode()?;
    assert!(model.external_locations().is_empty());
    Session::load(
        model,
        none,
        backend.into(),
        numerics.into(),
        true,
        vec![],
        vec![],
    )
    .await
}

async fn digits(numerics: &str) -> Session {
    let session = load(model_bytes(DIGITS, 10_000), "wasm", numerics).await;
    session.unwrap_or_else(|failure| panic!("{failure:?}"))
}

fn pixels(ink: f32) -> Value {
    let floats = vec![ink; 28 * 28];
    let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    Value::tensor(FLOAT, &[1, 1, 28, 28], &Uint8Array::from(&bytes[..])).unwrap()
}

async fn failure_of_load(model: &[u8], backend: &str, numerics: &str) -> Failure {
    let bytes = model_bytes(model, 1 << 16);
    let loaded = load(bytes, backend, numerics).await;
    loaded.err().expect("loading fails")
}

#[wasm_bindgen_test]
async fn digits_describes_itself() {
    let session = digits("fast").await;
    let input = &session.inputs()[0];
    assert_eq!(input.name(), "input");
    assert_eq!(input.kind(), "tensor(float)");
    assert_eq!(input.data_type(), FLOAT);
    let dims = input.dims();
    assert_eq!(dims[0].as_string().as_deref(), Some("batch"));
    assert_eq!(dims[2].as_f64(), Some(28.0));
    assert_eq!(session.outputs()[0].name(), "logits");
    assert_eq!(session.opsets(), ["ai.onnx 17"]);
    assert!(session.weight_bytes() > 90_000.0);
}

#[wasm_bindgen_test]
async fn digits_gives_ten_finite_logits() {
    for numerics in ["fast", "reproducible"] {
        let session = digits(numerics).await;
        let outputs = session
            .run(vec!["input".into()], vec![pixels(0.5)], None, None)
            .await;
        let outputs = outputs.unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(outputs[0].kind(), "tensor");
        assert_eq!(outputs[0].dims(), [1, 10]);
        let bytes = outputs[0].bytes().to_vec();
        let logits = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        assert!(logits.clone().count() == 10 && logits.clone().all(f32::is_finite));
        assert!(
            session.wipe() > 0.0,
            "the run left something in memory to wipe"
        );
    }
}

#[wasm_bindgen_test]
async fn wrong_inputs_are_named() {
    let session = digits("fast").await;
    let run = async |name: &str, value: Value, wanted: Option<&str>| {
        let wanted = wanted.map(|name| vec![name.to_string()]);
        let result = session
            .run(vec![name.into()], vec![value], wanted, None)
            .await;
        result.expect_err("the run fails")
    };
    let ints = Value::tensor(INT64, &[1], &Uint8Array::new_with_length(8)).unwrap();
    let narrow = Value::tensor(FLOAT, &[1, 1, 28, 1], &Uint8Array::new_with_length(112)).unwrap();
    for (failure, code, words) in [
        (
            run("image", pixels(0.0), None).await,
            "LETHE-INPUT-UNKNOWN",
            "image",
        ),
        (run("input", ints, None).await, "LETHE-INPUT-TYPE", "int64"),
        (
            run("input", narrow, None).await,
            "LETHE-INPUT-SHAPE",
            "[1, 1, 28, 1]",
        ),
        (
            run("input", pixels(0.0), Some("class")).await,
            "LETHE-OUTPUT-UNKNOWN",
            "class",
        ),
    ] {
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
    }
    let none = session.run(vec![], vec![], None, None).await.err();
    assert_eq!(
        none.map(|failure| failure.code),
        Some("LETHE-INPUT-MISSING")
    );
}

#[wasm_bindgen_test]
async fn bad_models_and_settings_are_refused() {
    for (model, backend, numerics, code) in [
        (&b"no model"[..], "wasm", "fast", "LETHE-MODEL-MALFORMED"),
        (
            &DIGITS[..DIGITS.len() / 2],
            "wasm",
            "fast",
            "LETHE-MODEL-MALFORMED",
        ),
        (DIGITS, "npu", "fast", "LETHE-DEVICE"),
        (DIGITS, "wasm", "exact", "LETHE-OPTION"),
    ] {
        assert_eq!(failure_of_load(model, backend, numerics).await.code, code);
    }
}

#[wasm_bindgen_test]
fn a_failure_becomes_an_error_with_its_code() {
    let error: JsValue = Value::tensor(FLOAT, &[2], &Uint8Array::new_with_length(7))
        .err()
        .unwrap()
        .into();
    let code = Reflect::get(&error, &"code".into()).unwrap();
    assert_eq!(code.as_string().as_deref(), Some("LETHE-NODE-SHAPE"));
    let error: js_sys::Error = error.into();
    assert!(
        error
            .message()
            .as_string()
            .unwrap()
            .contains("8 bytes, found 7")
    );
}

#[wasm_bindgen_test]
fn values_come_out_as_they_went_in() {
    let bytes = Uint8Array::from(&[1u8, 2, 3, 4, 5, 6, 7, 8][..]);
    let tensor = Value::tensor(INT64, &[1, 1], &bytes).unwrap();
    assert_eq!((tensor.data_type(), tensor.dims()), (INT64, vec![1, 1]));
    assert_eq!(tensor.bytes().to_vec(), bytes.to_vec());

    let strings = Value::string_tensor(&[2], vec!["a".into(), "ß".into()]).unwrap();
    assert_eq!(strings.strings(), ["a", "ß"]);
    assert_eq!(strings.bytes().length(), 0);

    let sequence = Value::sequence(vec![tensor]);
    assert_eq!(sequence.kind(), "sequence");
    assert_eq!(sequence.parts()[0].bytes().to_vec(), bytes.to_vec());

    let unknown = Value::tensor(99, &[1], &bytes).err().unwrap();
    assert_eq!(unknown.code, "LETHE-OPTION");
}

#[wasm_bindgen_test]
fn an_absurd_length_is_refused_before_it_is_allocated() {
    assert_eq!(
        ModelBytes::new(1e15).err().map(|f| f.code),
        Some("LETHE-BUDGET")
    );
}
