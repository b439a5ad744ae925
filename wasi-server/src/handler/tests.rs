//! Requests and their answers, in tables; bodies that mean harm among them.

use std::sync::Arc;

use lethe_engine::limits::{self, Limits, Stop};
use lethe_engine::onnx::writer::ModelWriter;
use lethe_engine::{DataType, SessionOptions, Tensor};
use serde_json::{Value as Json, json};

use super::*;

const MAX_BODY_BYTES: u64 = 4096;

fn model(name: &str, writer: &ModelWriter) -> Model {
    let session = Session::load(writer.to_bytes(), &SessionOptions::default()).unwrap();
    Model::new(name, session)
}

/// Models of one input for each type that reads differently, and one of two inputs.
fn handler() -> Handler {
    let identity = |data_type, dims: &[&str]| {
        ModelWriter::new(13)
            .input("x", data_type, dims)
            .node("Identity", &["x"], &["y"], vec![])
            .output("y")
    };
    let mut models: Vec<Model> = [
        ("floats", DataType::Float32, &["n", "3"][..]),
        ("halves", DataType::Float16, &["n"]),
        ("brains", DataType::Bfloat16, &["2"]),
        ("flags", DataType::Bool, &["n"]),
        ("open", DataType::Float32, &["n", "m"]),
        ("texts", DataType::String, &["n"]),
        ("a/b c", DataType::Int64, &["2"]),
    ]
    .iter()
    .map(|(name, data_type, dims)| model(name, &identity(*data_type, dims)))
    .collect();
    let two = ModelWriter::new(13)
        .input("a", DataType::Float32, &["n"])
        .input("b", DataType::Float32, &["n"])
        .node("Add", &["a", "b"], &["sum"], vec![])
        .node("Sub", &["a", "b"], &["difference"], vec![])
        .output("sum")
        .output("difference");
    models.push(model("two", &two));
    Handler::new(models, MAX_BODY_BYTES)
}

fn le(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// A request of JSON with bytes behind it.
struct Post<'a> {
    path: &'a str,
    content_type: Option<&'a str>,
    accept: Option<&'a str>,
    json_bytes: Option<u64>,
    body: Vec<u8>,
}

impl<'a> Post<'a> {
    fn json(path: &'a str, json: &Json) -> Self {
        Self {
            path,
            content_type: Some("application/json"),
            accept: None,
            json_bytes: None,
            body: json.to_string().into_bytes(),
        }
    }

    fn binary(path: &'a str, json: &Json, tail: &[u8]) -> Self {
        let json = json.to_string().into_bytes();
        Self {
            path,
            content_type: Some(OCTET_STREAM),
            accept: None,
            json_bytes: Some(json.len() as u64),
            body: [&json[..], tail].concat(),
        }
    }

    fn raw(path: &'a str, body: &[u8]) -> Self {
        Self {
            path,
            content_type: Some(OCTET_STREAM),
            accept: None,
            json_bytes: None,
            body: body.into(),
        }
    }

    fn send(&self) -> Response {
        let handler = handler();
        let request = Request {
            method: "POST",
            path: self.path,
            content_type: self.content_type,
            accept: self.accept,
            json_bytes: self.json_bytes,
            body: &self.body,
        };
        let copied = handler.handle(&request);
        let shared = handler.handle_shared(&request, &self.body.clone().into());
        assert_eq!(copied, shared, "{}", self.path);
        copied
    }
}

/// The JSON of an answer and the bytes behind it.
fn parts(response: &Response) -> (Json, Vec<u8>) {
    let at = response
        .json_bytes
        .map_or(response.body.len(), |n| n as usize);
    let (json, tail) = response.body.split_at(at);
    let json = serde_json::from_slice(json).unwrap_or_else(|e| panic!("{e}: {response:?}"));
    (json, tail.to_vec())
}

fn problem(response: &Response) -> (u16, String) {
    let json: Json = serde_json::from_slice(&response.body).unwrap();
    (
        response.status,
        json["code"].as_str().unwrap_or_default().into(),
    )
}

fn floats() -> Json {
    json!([{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}])
}

#[test]
fn requests_that_cannot_be_answered_have_status_and_code() {
    let body = br#"{"model":"m","inputs":[]}"#;
    let json = Some("application/json; charset=utf-8");
    let too_long = [b' '; MAX_BODY_BYTES as usize + 1];
    let cases = [
        ("GET", HEALTH, None, &b""[..], 200, ""),
        ("HEAD", HEALTH, None, b"", 200, ""),
        ("GET", "/api/v1/models?x=1", None, b"", 200, ""),
        ("POST", MODELS, None, b"", 405, "LETHE-METHOD"),
        ("GET", INFER, None, b"", 405, "LETHE-METHOD"),
        ("GET", "/", None, b"", 404, "LETHE-ROUTE"),
        ("POST", INFER, json, body, 404, "LETHE-MODEL-UNKNOWN"),
        ("POST", INFER, None, body, 404, "LETHE-MODEL-UNKNOWN"),
        (
            "POST",
            INFER,
            json,
            br#"{"inputs":[]}"#,
            400,
            "LETHE-REQUEST",
        ),
        (
            "POST",
            INFER,
            Some("text/plain"),
            body,
            415,
            "LETHE-MEDIA-TYPE",
        ),
        (
            "POST",
            BATCH,
            Some(OCTET_STREAM),
            body,
            415,
            "LETHE-MEDIA-TYPE",
        ),
        ("POST", INFER, json, &too_long, 413, "LETHE-BODY-SIZE"),
        ("POST", BATCH, json, &too_long, 413, "LETHE-BODY-SIZE"),
        (
            "POST",
            "/v2/models/floats/infer",
            json,
            &too_long,
            413,
            "LETHE-BODY-SIZE",
        ),
        ("POST", INFER, json, b"\xff\xfe", 400, "LETHE-JSON"),
        ("POST", BATCH, json, b"\xff\xfe", 400, "LETHE-JSON"),
        ("POST", BATCH, json, b"{}", 400, "LETHE-REQUEST"),
        (
            "POST",
            BATCH,
            json,
            br#"{"requests":{}}"#,
            400,
            "LETHE-REQUEST",
        ),
        ("GET", "/v2/models/m", None, b"", 404, "LETHE-MODEL-UNKNOWN"),
        (
            "GET",
            "/v2/models/two/versions/2",
            None,
            b"",
            404,
            "LETHE-MODEL-UNKNOWN",
        ),
        (
            "GET",
            "/v2/models/two/versions/2/ready",
            None,
            b"",
            404,
            "LETHE-MODEL-UNKNOWN",
        ),
        (
            "POST",
            "/v2/models/m/infer",
            json,
            b"{}",
            404,
            "LETHE-MODEL-UNKNOWN",
        ),
        (
            "POST",
            "/v2/models/two/versions/0/infer",
            json,
            b"{}",
            404,
            "LETHE-MODEL-UNKNOWN",
        ),
        (
            "POST",
            "/v2/models/two/infer",
            json,
            b"{}",
            400,
            "LETHE-REQUEST",
        ),
        (
            "POST",
            "/v2/models/two/infer",
            json,
            br#"{"inputs":[]}"#,
            422,
            "LETHE-INPUT-MISSING",
        ),
    ];
    for (method, path, content_type, body, status, code) in cases {
        let response = handler().handle(&Request {
            method,
            path,
            content_type,
            accept: None,
            json_bytes: None,
            body,
        });
        let found = problem(&response);
        assert_eq!(
            found,
            (status, code.into()),
            "{method} {path} {content_type:?}"
        );
    }
}

#[test]
fn the_open_inference_protocol_describes_server_and_models() {
    let get = |path| {
        let response = handler().handle(&Request::json("GET", path, b""));
        assert_eq!(response.status, 200, "{path}: {response:?}");
        parts(&response).0
    };
    assert_eq!(get("/v2/health/live"), json!({"live": true}));
    assert_eq!(get("/v2/health/ready"), json!({"ready": true}));
    assert_eq!(get("/v2")["extensions"], json!(["binary_tensor_data"]));
    assert_eq!(
        get("/v2/models/two/ready"),
        json!({"name": "two", "ready": true})
    );
    let described = get("/v2/models/a%2Fb%20c/versions/1");
    assert_eq!(
        (
            &described["name"],
            &described["versions"],
            &described["inputs"]
        ),
        (
            &json!("a/b c"),
            &json!(["1"]),
            &json!([{"name": "x", "datatype": "INT64", "shape": [2]}])
        )
    );
}

#[test]
fn the_open_inference_protocol_answers_in_its_own_words() {
    let request = json!({"id": "7", "inputs": floats(), "outputs": [{"name": "y"}]});
    let (answer, tail) = parts(&Post::json("/v2/models/floats/versions/1/infer", &request).send());
    let expected = json!({
        "model_name": "floats", "model_version": "1", "id": "7",
        "outputs": [{"name": "y", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.0, 3.0]}],
    });
    assert_eq!((answer, tail.len()), (expected, 0));
}

#[test]
fn tensors_go_in_and_out_as_bytes() {
    let input = |name, data_type, shape: &[usize], size: usize| {
        json!({
            "name": name, "shape": shape, "datatype": data_type,
            "parameters": {"binary_data_size": size},
        })
    };
    let all = json!({"binary_data_output": true});
    let cases: [(&str, Json, Vec<u8>, Vec<u8>); 8] = [
        (
            "two",
            json!({"inputs": [input("b", "FP32", &[2], 8), input("a", "FP32", &[2], 8)], "parameters": all}),
            le(&[1.0, 2.0, 30.0, 40.0]),
            le(&[31.0, 42.0, 29.0, 38.0]),
        ),
        (
            // In JSON and as bytes, both ways; what the output says goes before what the request says.
            "two",
            json!({
                "inputs": [
                    {"name": "a", "shape": [1], "datatype": "FP32", "data": [5]},
                    input("b", "FP32", &[1], 4),
                ],
                "outputs": [
                    {"name": "sum", "parameters": {"binary_data": false}},
                    {"name": "difference"},
                ],
                "parameters": all,
            }),
            le(&[2.0]),
            le(&[3.0]),
        ),
        (
            "halves",
            json!({"inputs": [input("x", "FP16", &[2], 4)], "parameters": all}),
            vec![0, 60, 0, 192],
            vec![0, 60, 0, 192],
        ),
        (
            "brains",
            json!({"inputs": [input("x", "BF16", &[2], 4)], "parameters": all}),
            vec![128, 63, 0, 192],
            vec![128, 63, 0, 192],
        ),
        (
            "flags",
            json!({"inputs": [input("x", "BOOL", &[3], 3)], "parameters": all}),
            vec![1, 0, 1],
            vec![1, 0, 1],
        ),
        (
            "texts",
            json!({"inputs": [input("x", "BYTES", &[2], 14)], "parameters": all}),
            "\x06\0\0\0λήθ\0\0\0\0".into(),
            "\x06\0\0\0λήθ\0\0\0\0".into(),
        ),
        (
            "floats",
            json!({"inputs": [input("x", "FP32", &[0, 3], 0)], "parameters": all}),
            vec![],
            vec![],
        ),
        (
            "floats",
            json!({"inputs": floats(), "outputs": [{"name": "y", "parameters": {"binary_data": true}}]}),
            vec![],
            le(&[1.0, 2.0, 3.0]),
        ),
    ];
    for (name, request, tail, expected) in cases {
        let path = format!("/v2/models/{name}/infer");
        let response = Post::binary(&path, &request, &tail).send();
        let (answer, tail) = parts(&response);
        assert_eq!(
            (&*response.content_type, tail),
            (OCTET_STREAM, expected),
            "{name}: {answer}"
        );
        assert!(response.json_bytes.is_some(), "{name}");
    }
}

#[test]
fn the_binary_extension_is_at_infer_too() {
    let request = json!({
        "model": "floats", "parameters": {"binary_data_output": true},
        "inputs": [{
            "name": "x", "shape": [1, 3], "datatype": "FP32",
            "parameters": {"binary_data_size": 12},
        }],
    });
    let (answer, tail) = parts(&Post::binary(INFER, &request, &le(&[1.0, 2.0, 3.0])).send());
    assert_eq!(
        (&answer["model"], tail),
        (&json!("floats"), le(&[1.0, 2.0, 3.0]))
    );
    let size = &answer["outputs"][0]["parameters"]["binary_data_size"];
    assert_eq!(size, &json!(12));
}

#[test]
fn a_body_can_be_one_tensor() {
    let three = le(&[1.0, 2.0, 3.0]);
    let path = "/api/v1/infer?model=floats";
    let answer = parts(&Post::raw(path, &three).send()).0;
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 3]));
    assert_eq!(answer["outputs"][0]["data"], json!([1.0, 2.0, 3.0]));

    let bytes = Post {
        accept: Some("application/json;q=0.1, application/octet-stream"),
        ..Post::raw(path, &three)
    };
    let response = bytes.send();
    assert_eq!(
        (&*response.content_type, response.json_bytes),
        (OCTET_STREAM, None)
    );
    assert_eq!(response.body, three);

    // With no JSON announced, outputs follow the answer's JSON as bytes.
    let raw = Post {
        json_bytes: Some(0),
        ..Post::raw("/v2/models/floats/infer", &three)
    };
    let (answer, tail) = parts(&raw.send());
    assert_eq!(
        (&answer["model_name"], tail),
        (&json!("floats"), three.clone())
    );

    let shaped = Post::raw("/api/v1/infer?shape=3,1&model=open", &three);
    let answer = parts(&shaped.send()).0;
    assert_eq!(answer["outputs"][0]["shape"], json!([3, 1]));

    let text = Post::raw("/api/v1/infer?model=texts", "λ".as_bytes());
    assert_eq!(parts(&text.send()).0["outputs"][0]["data"], json!(["λ"]));
    let longs = Post::raw("/api/v1/infer?model=a%2Fb+c", &[1; 16]);
    assert_eq!(longs.send().status, 200);
}

#[test]
fn an_output_is_asked_for_once() {
    let ask = |outputs: Json| {
        let body = json!({"inputs": floats(), "outputs": outputs});
        Post::binary("/v2/models/floats/infer", &body, &[]).send()
    };
    let all = parts(&ask(json!([]))).0;
    let name = &all["outputs"][0]["name"];
    assert_eq!(ask(json!([{"name": name}])).status, 200);
    for outputs in [
        json!([{"name": name}, {"name": name}]),
        json!([{"name": "no"}]),
    ] {
        let (status, code) = problem(&ask(outputs));
        assert_eq!((status, &*code), (422, "LETHE-OUTPUT-UNKNOWN"));
    }
}

#[test]
fn bodies_of_bytes_that_do_not_fit_are_refused() {
    let with = |size: Json, shape: Json, data_type: &str| {
        json!({
            "inputs": [{
                "name": "x", "shape": shape, "datatype": data_type,
                "parameters": {"binary_data_size": size},
            }],
        })
    };
    let path = "/v2/models/floats/infer";
    let good = || with(json!(12), json!([1, 3]), "FP32");
    let binary = |json: Json, tail: usize| Post::binary(path, &json, &vec![0; tail]);
    let announced = |json_bytes, body: &str| Post {
        json_bytes: Some(json_bytes),
        ..Post::raw(path, body.as_bytes())
    };
    let huge = json!([1u64 << 62, 3]);
    let cases = [
        ("too few bytes", binary(good(), 11), 422, "LETHE-INPUT-DATA"),
        ("bytes left over", binary(good(), 13), 400, "LETHE-REQUEST"),
        (
            "another shape",
            binary(with(json!(12), json!([2, 3]), "FP32"), 12),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "a huge shape",
            binary(with(json!(12), huge.clone(), "FP32"), 12),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "a huge size",
            binary(with(json!(u64::MAX), huge.clone(), "FP32"), 12),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "huge texts",
            binary(with(json!(12), huge, "BYTES"), 12),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "a negative shape",
            binary(with(json!(12), json!([-1, 3]), "FP32"), 12),
            422,
            "LETHE-INPUT-SHAPE",
        ),
        (
            "a size of text",
            binary(with(json!("12"), json!([1, 3]), "FP32"), 12),
            400,
            "LETHE-REQUEST",
        ),
        (
            "a negative size",
            binary(with(json!(-1), json!([1, 3]), "FP32"), 12),
            400,
            "LETHE-REQUEST",
        ),
        (
            "no such type",
            binary(with(json!(12), json!([1, 3]), "FP99"), 12),
            422,
            "LETHE-INPUT-TYPE",
        ),
        (
            "the model's other type",
            binary(with(json!(12), json!([1, 3]), "INT32"), 12),
            422,
            "LETHE-INPUT-TYPE",
        ),
        (
            "text that is none",
            binary(with(json!(5), json!([1]), "BYTES"), 5),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "JSON longer than the body",
            announced(3, "{}"),
            400,
            "LETHE-REQUEST",
        ),
        (
            "JSON as long as can be said",
            announced(u64::MAX, "{}"),
            400,
            "LETHE-REQUEST",
        ),
        ("JSON cut short", announced(1, "{}"), 400, "LETHE-JSON"),
        (
            "bytes announced by JSON alone",
            Post::json(path, &good()),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "raw: not a row of 3",
            Post {
                json_bytes: Some(0),
                ..Post::raw(path, &[0; 16])
            },
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "raw: no model",
            Post::raw(INFER, &[0; 12]),
            400,
            "LETHE-REQUEST",
        ),
        (
            "raw: unknown model",
            Post::raw("/api/v1/infer?model=m", &[0; 12]),
            404,
            "LETHE-MODEL-UNKNOWN",
        ),
        (
            "raw: two inputs",
            Post::raw("/api/v1/infer?model=two", &[0; 12]),
            422,
            "LETHE-INPUT-MISSING",
        ),
        (
            "raw: two open sizes",
            Post::raw("/api/v1/infer?model=open", &[0; 12]),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "raw: a shape of words",
            Post::raw("/api/v1/infer?model=open&shape=a,1", &[0; 12]),
            422,
            "LETHE-INPUT-SHAPE",
        ),
        (
            "raw: a negative shape",
            Post::raw("/api/v1/infer?model=open&shape=-3,1", &[0; 12]),
            422,
            "LETHE-INPUT-SHAPE",
        ),
        (
            "raw: a huge shape",
            Post::raw(
                "/api/v1/infer?model=open&shape=4294967296,4294967296",
                &[0; 12],
            ),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "raw: too long a shape",
            Post::raw("/api/v1/infer?model=open&shape=4,1", &[0; 12]),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "raw: another rank",
            Post::raw("/api/v1/infer?model=open&shape=3", &[0; 12]),
            422,
            "LETHE-INPUT-SHAPE",
        ),
        (
            "raw: not UTF-8",
            Post::raw("/api/v1/infer?model=texts", &[0xff]),
            422,
            "LETHE-INPUT-DATA",
        ),
        (
            "raw: no flags",
            Post::raw("/api/v1/infer?model=flags", &[2]),
            422,
            "LETHE-INPUT-DATA",
        ),
    ];
    for (name, post, status, code) in cases {
        let response = post.send();
        assert_eq!(
            problem(&response),
            (status, code.into()),
            "{name}: {response:?}"
        );
    }
}

#[test]
fn mutated_bodies_give_an_answer_or_a_problem() {
    let request = json!({
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "b", "shape": [2], "datatype": "FP32", "data": [1, 2]},
        ],
        "parameters": {"binary_data_output": true},
    });
    let post = Post::binary("/v2/models/two/infer", &request, &le(&[1.0, 2.0]));
    assert_eq!(post.send().status, 200);
    let (handler, json_bytes) = (handler(), post.json_bytes.unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut refused = 0;
    for _ in 0..10_000 {
        let mut body = post.body.clone();
        for _ in 0..1 + random() % 3 {
            let at = random() as usize % body.len();
            body[at] = match random() % 3 {
                0 => random() as u8,
                1 => b"0123456789-.\"{}[],"[random() as usize % 18],
                _ => body[random() as usize % body.len()],
            };
        }
        body.truncate(body.len() - (random() % 3) as usize);
        let response = handler.handle(&Request {
            method: "POST",
            path: post.path,
            content_type: None,
            accept: None,
            json_bytes: Some(json_bytes + random() % 3 - 1),
            body: &body,
        });
        assert!([200, 400, 422].contains(&response.status), "{response:?}");
        refused += u32::from(response.status != 200);
    }
    assert!(
        refused > 1000,
        "only {refused} of 10000 mutations were noticed"
    );
}

#[test]
fn a_batch_answers_each_request_or_says_what_is_wrong_with_it() {
    let good = json!({"model": "floats", "id": "1", "inputs": floats()});
    let requests = json!({"requests": [
        good,
        {"model": "nothing", "inputs": []},
        7,
        {"model": "floats", "inputs": floats(), "parameters": {"binary_data_output": true}},
        {"model": "floats", "inputs": [{
            "name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4},
        }]},
        good,
    ]});
    let response = Post::json(BATCH, &requests).send();
    assert_eq!(response.status, 200);
    let answer = parts(&response).0;
    let responses = answer["responses"].as_array().unwrap();
    let codes: Vec<&str> = responses
        .iter()
        .map(|response| response["code"].as_str().unwrap_or("answer"))
        .collect();
    let expected = [
        "answer",
        "LETHE-MODEL-UNKNOWN",
        "LETHE-REQUEST",
        "LETHE-PARAMETER",
        "LETHE-INPUT-DATA",
        "answer",
    ];
    assert_eq!(codes, expected);
    assert_eq!(
        (&responses[1]["status"], &responses[0]["id"]),
        (&json!(404), &json!("1"))
    );
    let nothing = Post::json(BATCH, &json!({"requests": []})).send();
    assert_eq!(nothing.body, br#"{"responses":[]}"#[..]);
}

#[test]
fn a_batch_of_too_many_is_refused_before_it_is_kept() {
    let body = format!("{{\"requests\":[{}0]}}", "0,".repeat(batch::MOST_REQUESTS));
    let problem = batch::requests(body.as_bytes()).unwrap_err();
    assert_eq!((problem.status, &*problem.code), (422, "LETHE-BATCH-SIZE"));
    assert!(problem.detail.starts_with("4097 "), "{problem}");
    let fits = body.replacen("0,", "", 1);
    assert_eq!(
        batch::requests(fits.as_bytes()).unwrap().len(),
        batch::MOST_REQUESTS
    );
}

#[test]
fn events_are_made_one_by_one() {
    let good = json!({"model": "floats", "inputs": floats()});
    let body = json!({"requests": [good, 7]}).to_string();
    let request = Request {
        accept: Some("text/event-stream, */*"),
        ..Request::json("POST", BATCH, body.as_bytes())
    };
    let handler = handler();
    let events: Vec<String> = handler
        .events(&request)
        .unwrap()
        .unwrap()
        .map(|event| String::from_utf8(event).unwrap())
        .collect();
    let [first, second, third] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(
        first.starts_with("event: result\ndata: {\"model\":\"floats\""),
        "{first}"
    );
    assert!(
        second.contains("LETHE-REQUEST") && second.ends_with("}\n\n"),
        "{second}"
    );
    assert_eq!(third, "event: done\ndata: {\"results\":2}\n\n");
    // A door that sends an answer whole sends the same bytes.
    let whole = handler.handle(&request);
    assert_eq!(
        (&*whole.content_type, &whole.body[..]),
        (EVENT_STREAM, events.concat().as_bytes())
    );
}

#[test]
fn what_is_wrong_before_the_first_event_has_its_status() {
    let binary = json!({
        "model": "floats", "inputs": floats(), "parameters": {"binary_data_output": true},
    });
    let cases = [
        (
            INFER,
            json!({"model": "floats", "inputs": floats()}),
            200,
            "",
        ),
        (
            INFER,
            json!({"model": "nothing", "inputs": []}),
            404,
            "LETHE-MODEL-UNKNOWN",
        ),
        (INFER, binary, 422, "LETHE-PARAMETER"),
        (BATCH, json!([]), 400, "LETHE-REQUEST"),
        (
            "/v2/models/nothing/infer",
            json!({}),
            404,
            "LETHE-MODEL-UNKNOWN",
        ),
        ("/nothing", json!({}), 404, "LETHE-ROUTE"),
    ];
    for (path, body, status, code) in cases {
        let post = Post {
            accept: Some("text/event-stream"),
            ..Post::json(path, &body)
        };
        let response = post.send();
        match status {
            200 => assert_eq!(response.content_type, EVENT_STREAM, "{path}"),
            _ => assert_eq!(problem(&response), (status, code.into()), "{path}"),
        }
    }
    let handler = handler();
    let raw = Request {
        accept: Some("text/event-stream, application/octet-stream"),
        content_type: Some(OCTET_STREAM),
        body: &[0; 12],
        ..Request::json("POST", "/api/v1/infer?model=floats", b"")
    };
    assert_eq!(handler.handle(&raw).status, 422);
}

#[test]
fn a_raised_flag_ends_every_request() {
    let limits = Limits {
        memory_bytes: u64::MAX,
        stop: Stop::when(Arc::new(true.into())),
    };
    let input = |name| json!({"name": name, "shape": [1], "datatype": "FP32", "data": [1]});
    let body = json!({"model": "two", "inputs": [input("a"), input("b")]}).to_string();
    let request = Request::json("POST", INFER, body.as_bytes());
    let response = limits::within(limits, || handler().handle(&request));
    assert_eq!(problem(&response), (503, "LETHE-CANCELLED".into()));
}

#[test]
fn models_run_without_a_request() {
    let handler = handler();
    let x = Tensor::from_slice(&[1, 3], &[1.0f32, 2.0, 3.0]).unwrap();
    let outputs = handler.models()[0].run(&[("x".into(), x.clone().into())], None);
    assert_eq!(outputs.unwrap(), [("y".to_string(), x.into())]);
}
