//! What comes together is answered as if it had come alone, but for models whose rows are not
//! independent, which show what was one run.

use bytes::Bytes;
use lethe_engine::SessionOptions;
use lethe_engine::onnx::writer::ModelWriter;
use serde_json::json;

use super::*;
use crate::message::HttpCall;

fn model(name: &str, writer: &ModelWriter) -> Model {
    let session = Session::load(writer.to_bytes(), &SessionOptions::default()).unwrap();
    Model::new(name, session)
}

/// `double`: two outputs of independent rows. `table`: rows of a table, which has three. `running`:
/// sums over the rows before. `fixed`: as `running`, for two rows. `whole`: one number for all.
fn handler() -> Handler {
    let axis = Tensor::from_slice(&[], &[0i64]).unwrap();
    let floats = DataType::Float32;
    let double = ModelWriter::new(14)
        .input("x", floats, &["n", "2"])
        .node("Add", &["x", "x"], &["y"], vec![])
        .node("Neg", &["x"], &["z"], vec![])
        .output("y")
        .output("z");
    let rows = Tensor::from_slice(&[3, 2], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let table = ModelWriter::new(14)
        .input("x", DataType::Int64, &["n"])
        .constant("rows", &rows)
        .node("Gather", &["rows", "x"], &["y"], vec![])
        .output("y");
    let running = |rows: &str| {
        ModelWriter::new(14)
            .input("x", floats, &[rows])
            .constant("axis", &axis)
            .node("CumSum", &["x", "axis"], &["y"], vec![])
            .output("y")
    };
    let whole = ModelWriter::new(14)
        .input("x", floats, &["n"])
        .node("ReduceSum", &["x"], &["y"], vec![])
        .output("y");
    let models = [
        ("double", &double),
        ("table", &table),
        ("running", &running("n")),
        ("fixed", &running("2")),
        ("whole", &whole),
    ];
    let models = models.map(|(name, writer)| model(name, writer));
    Handler::new(models.into(), u64::MAX)
}

fn post(path: &str, body: impl Into<Bytes>) -> Call {
    Call::Http(HttpCall {
        method: "POST".into(),
        path: path.into(),
        content_type: Some("application/json".into()),
        accept: None,
        json_bytes: None,
        body: body.into(),
    })
}

fn infer(model: &str, datatype: &str, shape: &[usize], data: &[i32]) -> Call {
    let input = json!({"name": "x", "datatype": datatype, "shape": shape, "data": data});
    post(
        "/api/v1/infer",
        json!({"model": model, "inputs": [input]}).to_string(),
    )
}

/// What a client sees of an answer.
fn seen(answer: &Answer) -> (u16, String) {
    match answer {
        Answer::Http(response) => {
            let body = String::from_utf8_lossy(&response.body);
            (response.status, body.into_owned())
        }
        Answer::Outputs(outputs) => (200, format!("{outputs:?}")),
        other => panic!("{other:?}"),
    }
}

fn together(calls: &[Call]) -> Vec<(u16, String)> {
    let answer = handler().answer_call(&Call::Together(calls.to_vec()));
    let Ok(Answer::Together(answers)) = answer else {
        panic!("{answer:?}");
    };
    answers.iter().map(seen).collect()
}

fn alone(calls: &[Call]) -> Vec<(u16, String)> {
    let handler = handler();
    let answer = |call| handler.answer_call(call).unwrap();
    calls.iter().map(|call| seen(&answer(call))).collect()
}

#[test]
fn each_gets_the_answer_that_it_gets_alone() {
    let double = |shape: &[usize], data: &[i32]| infer("double", "FP32", shape, data);
    let asked = json!({
        "id": "17",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [8, 9]}],
        "outputs": [{"name": "z"}],
    });
    let tensor = Tensor::from_slice(&[2, 2], &[1.0f32, -2.0, 3.0, -4.0]).unwrap();
    let calls = [
        double(&[1, 2], &[1, 2]),
        double(&[3, 2], &[3, 4, 5, 6, 7, 8]),
        post("/v2/models/double/infer", asked.to_string()),
        // Nothing at all, other shapes, other models, what is wrong and what is no inference.
        double(&[0, 2], &[]),
        double(&[1, 3], &[1, 2, 3]),
        double(&[2, 2], &[1, 2, 3]),
        infer("table", "INT64", &[2], &[2, 0]),
        post("/api/v1/infer", "{"),
        infer("none", "FP32", &[1], &[1]),
        post("/v2/models/none/infer", "{}"),
        post("/api/v1/health", ""),
        post("/api/v1/batch", r#"{"requests": []}"#),
        Call::Infer(vec![("x".into(), tensor.into())]),
        double(&[1, 2], &[-1, -2]),
        infer("fixed", "FP32", &[2], &[1, 2]),
        infer("fixed", "FP32", &[2], &[3, 4]),
        infer("whole", "FP32", &[2], &[1, 2]),
        infer("whole", "FP32", &[1], &[3]),
    ];
    for count in 0..=calls.len() {
        assert_eq!(together(&calls[..count]), alone(&calls[..count]), "{count}");
    }
}

#[test]
fn rows_of_several_requests_are_one_run() {
    let one = |n: i32| infer("running", "FP32", &[1], &[n]);
    let numbers = |answers: &[(u16, String)]| -> Vec<String> {
        let data = answers.iter().map(|(status, body)| {
            assert_eq!(*status, 200, "{body}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            body["outputs"][0]["data"].to_string()
        });
        data.collect()
    };
    // A run for two, then one for what is left.
    let found = together(&[one(1), one(10), one(100)]);
    assert_eq!(numbers(&found), ["[1.0]", "[11.0]", "[100.0]"]);
    let two = infer("running", "FP32", &[2], &[100, 1000]);
    let found = together(&[one(1), one(10), two, one(7)]);
    assert_eq!(
        numbers(&found),
        ["[1.0]", "[11.0]", "[111.0,1111.0]", "[1118.0]"]
    );
}

#[test]
fn a_mistake_that_only_a_run_finds_is_nobody_elses() {
    let row = |n: i32| infer("table", "INT64", &[1], &[n]);
    let calls = [row(0), row(1), row(3), row(2)];
    let found = together(&calls);
    assert_eq!(found, alone(&calls));
    assert!(
        found.iter().map(|answer| answer.0).eq([200, 200, 422, 200]),
        "{found:?}"
    );
}

#[test]
fn what_a_run_for_many_needs_is_made_ready_where_there_are_such_runs() {
    let axis = Tensor::from_slice(&[], &[0i64]).unwrap();
    let twice = |rows: &str| {
        let writer = ModelWriter::new(14)
            .input("x", DataType::Float32, &[rows])
            .constant("axis", &axis)
            .node("CumSum", &["x", "axis"], &["t"], vec![])
            .node("CumSum", &["t", "axis"], &["y"], vec![])
            .output("y");
        model("twice", &writer)
    };
    let x = Tensor::from_slice(&[1], &[1.0f32]).unwrap();
    let inputs = [("x".to_owned(), Value::Tensor(x))];
    for (rows, most, is_ready) in [("n", 15, true), ("n", 1, false), ("1", 15, false)] {
        let model = twice(rows);
        warm_up(&model, &inputs, most);
        // Runs leave memory behind.
        assert_eq!(model.session().wipe() > 0, is_ready, "{rows}, {most}");
    }
}
