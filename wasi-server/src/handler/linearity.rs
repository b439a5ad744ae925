//! The work of a request, and of a model's load, grows as its size does and not faster: what is eight
//! times as large takes about eight times as long. Where it is done once more for each of its parts, it
//! takes 64 times as long.
//!
//! Times are noisy. What counts is the time on a processor, where the system tells it, of several tries the
//! shortest, and a ratio is wrong only if it is wrong each time it is taken.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use lethe_engine::onnx::proto;
use lethe_engine::onnx::writer::ModelWriter;
use lethe_engine::{DataType, Session, SessionOptions, Tensor};

use super::{Handler, Model, Request, query_value};
use crate::json::InferRequest;
use crate::message::Call;

/// How much larger the second size is.
const LARGER: usize = 8;
/// Between `LARGER` and its square.
const MOST: f64 = 20.0;
/// Many times as long as a tick of the system's clock.
const TICKS: Duration = Duration::from_millis(50);

/// Work of a size, to be done again and again.
type Work = Box<dyn Fn()>;

/// How long this thread was on a processor, as of the system's last tick.
fn on_processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ns = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(ns))
}

/// What work takes, in seconds, done as often as takes many ticks.
fn seconds(work: &Work) -> f64 {
    let begun = (Instant::now(), on_processor());
    let mut times = 0.0;
    loop {
        work();
        times += 1.0;
        let taken = match (begun.1, on_processor()) {
            (Some(before), Some(after)) => after - before,
            _ => begun.0.elapsed(),
        };
        if taken > TICKS {
            return taken.as_secs_f64() / times;
        }
    }
}

fn shortest(work: &Work) -> f64 {
    (0..3).map(|_| seconds(work)).fold(f64::MAX, f64::min)
}

/// Checks cases: what grows, its size, and the work.
fn check(cases: &[(&str, usize, &dyn Fn(usize) -> Work)]) {
    let mut wrong = Vec::new();
    for (name, size, make) in cases {
        let (small, large) = (make(*size), make(LARGER * size));
        let mut ratio = f64::MAX;
        // One that is right is enough.
        for _ in 0..3 {
            if ratio > MOST {
                ratio = ratio.min(shortest(&large) / shortest(&small));
            }
        }
        println!("{name}: {ratio:.1}");
        if ratio > MOST {
            wrong.push(format!(
                "{name}, {LARGER} times as many: {ratio:.1} times the time"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}

/// A model with `n` inputs, each of which is an output too.
fn wide(n: usize) -> ModelWriter {
    let mut writer = ModelWriter::new(13);
    for (x, y) in names("x", n).iter().zip(names("y", n)) {
        writer = writer
            .input(x, DataType::Float32, &["1"])
            .node("Neg", &[x], &[&y], vec![])
            .output(&y);
    }
    writer
}

fn handler(writer: &ModelWriter) -> Handler {
    let session = Session::load(writer.to_bytes(), &SessionOptions::default());
    Handler::new(vec![Model::new("m", session.unwrap())], u64::MAX)
}

/// Posts a body to a handler, which answers with this status.
fn post(
    handler: Handler,
    path: String,
    json_bytes: Option<u64>,
    body: Vec<u8>,
    status: u16,
) -> Work {
    Box::new(move || {
        let request = Request {
            json_bytes,
            ..Request::json("POST", &path, &body)
        };
        let answer = handler.handle(&request);
        let text =
            || String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]).into_owned();
        assert_eq!(answer.status, status, "{}", text());
    })
}

/// Posts JSON to the model `m`.
fn ask(handler: Handler, json: String, status: u16) -> Work {
    post(
        handler,
        "/v2/models/m/infer".into(),
        None,
        json.into_bytes(),
        status,
    )
}

/// Lists with commas between what `item` writes.
fn list(n: usize, item: impl Fn(&mut String, usize)) -> String {
    let mut text = String::new();
    for i in 0..n {
        if i > 0 {
            text.push(',');
        }
        item(&mut text, i);
    }
    text
}

fn input(text: &mut String, name: &str) {
    write!(
        text,
        r#"{{"name":"{name}","shape":[1],"datatype":"FP32","data":[1]}}"#
    )
    .unwrap();
}

const ONE: &str = r#"{"name":"x0","shape":[1],"datatype":"FP32","data":[1]}"#;

#[test]
fn requests_are_read_and_answered_in_time_that_grows_as_they_do() {
    let inputs = |n| list(n, |text, i| input(text, &format!("x{i}")));
    check(&[
        ("inputs", 300, &|n| {
            ask(
                handler(&wide(n)),
                format!(r#"{{"inputs":[{}]}}"#, inputs(n)),
                200,
            )
        }),
        ("inputs that are not there", 2000, &|n| {
            ask(
                handler(&wide(1)),
                format!(r#"{{"inputs":[{}]}}"#, inputs(n)),
                422,
            )
        }),
        ("one input again and again", 2000, &|n| {
            let inputs = list(n, |text, _| input(text, "x0"));
            ask(
                handler(&wide(1)),
                format!(r#"{{"inputs":[{inputs}]}}"#),
                422,
            )
        }),
        ("outputs as bytes", 300, &|n| {
            let outputs = list(n, |text, i| {
                write!(
                    text,
                    r#"{{"name":"y{i}","parameters":{{"binary_data":true}}}}"#
                )
                .unwrap();
            });
            let json = format!(r#"{{"inputs":[{}],"outputs":[{outputs}]}}"#, inputs(n));
            ask(handler(&wide(n)), json, 200)
        }),
        (
            "outputs of which is asked whether they are bytes",
            2000,
            &|n| {
                let outputs = list(n, |text, i| {
                    write!(
                        text,
                        r#"{{"name":"y{i}","parameters":{{"binary_data":true}}}}"#
                    )
                    .unwrap();
                });
                let json = format!(r#"{{"inputs":[],"outputs":[{outputs}]}}"#);
                let names = names("y", n);
                Box::new(move || {
                    let request = InferRequest::parse(json.as_bytes()).unwrap();
                    let is_binary = request.binary();
                    assert!(names.iter().all(|name| is_binary(name)));
                })
            },
        ),
        ("one output again and again", 10_000, &|n| {
            let outputs = list(n, |text, _| text.push_str(r#"{"name":"y0"}"#));
            ask(
                handler(&wide(1)),
                format!(r#"{{"inputs":[{ONE}],"outputs":[{outputs}]}}"#),
                422,
            )
        }),
        ("outputs that are not there", 10_000, &|n| {
            let outputs = list(n, |text, i| write!(text, r#"{{"name":"z{i}"}}"#).unwrap());
            ask(
                handler(&wide(1)),
                format!(r#"{{"inputs":[{ONE}],"outputs":[{outputs}]}}"#),
                422,
            )
        }),
        ("inputs as bytes", 300, &|n| {
            let inputs = list(n, |text, i| {
                write!(
                    text,
                    r#"{{"name":"x{i}","shape":[1],"datatype":"FP32","parameters":{{"binary_data_size":4}}}}"#
                )
                .unwrap();
            });
            let json =
                format!(r#"{{"inputs":[{inputs}],"parameters":{{"binary_data_output":true}}}}"#);
            let len = json.len() as u64;
            let body = [json.as_bytes(), &vec![0; 4 * n]].concat();
            post(
                handler(&wide(n)),
                "/v2/models/m/infer".into(),
                Some(len),
                body,
                200,
            )
        }),
        ("elements", 5000, &|n| {
            let data = list(n, |text, _| text.push_str("[[1.5]]"));
            ask(
                handler(
                    &ModelWriter::new(13)
                        .input("x", DataType::Float32, &["n", "1", "1"])
                        .node("Neg", &["x"], &["y"], vec![])
                        .output("y"),
                ),
                format!(
                    r#"{{"inputs":[{{"name":"x","data":[{data}],"shape":[{n},1,1],"datatype":"FP32"}}]}}"#
                ),
                200,
            )
        }),
        ("texts", 2000, &|n| {
            let data = list(n, |text, i| write!(text, "\"{i}\"").unwrap());
            ask(
                handler(
                    &ModelWriter::new(13)
                        .input("x", DataType::String, &["n"])
                        .node("Identity", &["x"], &["y"], vec![])
                        .output("y"),
                ),
                format!(
                    r#"{{"inputs":[{{"name":"x","shape":[{n}],"datatype":"BYTES","data":[{data}]}}]}}"#
                ),
                200,
            )
        }),
        ("sizes of a shape", 4000, &|n| {
            let sizes = list(n, |text, _| text.push('1'));
            let input =
                format!(r#"{{"name":"x0","shape":[{sizes}],"datatype":"FP32","data":[1]}}"#);
            ask(handler(&wide(1)), format!(r#"{{"inputs":[{input}]}}"#), 422)
        }),
        ("fields that have no meaning", 4000, &|n| {
            let fields = list(n, |text, i| write!(text, r#""f{i}":[{{}}]"#).unwrap());
            let input = format!(r#"{{{fields},{}"#, &ONE[1..]);
            ask(
                handler(&wide(1)),
                format!(r#"{{{fields},"inputs":[{input}]}}"#),
                200,
            )
        }),
        ("one field again and again", 40_000, &|n| {
            let fields = list(n, |text, _| text.push_str(r#""f":[1]"#));
            let fields = format!(r#"{fields},"data":[1]"#);
            ask(
                handler(&wide(1)),
                format!(r#"{{"inputs":[{{{fields},{}]}}"#, &ONE[1..]),
                400,
            )
        }),
        ("parameters of the query", 2000, &|n| {
            let path = format!("/api/v1/infer?{}&model=m", names("p%31", n).join("=1&"));
            Box::new(move || assert!(query_value(&path, "model").unwrap().is_some()))
        }),
        ("requests of a batch", 400, &|n| {
            let requests = list(n, |text, i| {
                write!(text, r#"{{"model":"n{i}","inputs":[{ONE}]}}"#).unwrap();
            });
            let body = format!(r#"{{"requests":[{requests}]}}"#);
            post(
                handler(&wide(1)),
                super::BATCH.into(),
                None,
                body.into_bytes(),
                200,
            )
        }),
    ]);
}

#[test]
fn messages_are_read_in_time_that_grows_as_they_do() {
    let message = |n: usize| {
        let value = |name: String| (name, Tensor::scalar(1.0f32).into());
        Call::Infer(names("x", n).into_iter().map(value).collect())
    };
    check(&[
        ("values", 4000, &|n| {
            let bytes = bytes::Bytes::from(message(n).encode());
            Box::new(move || drop(Call::decode(bytes.clone()).unwrap()))
        }),
        ("messages in one", 2000, &|n| {
            let calls = (0..n).map(|_| message(1)).collect();
            let bytes = bytes::Bytes::from(Call::Together(calls).encode());
            Box::new(move || drop(Call::decode(bytes.clone()).unwrap()))
        }),
    ]);
}

/// Loads a model.
fn load(model: &ModelWriter) -> Work {
    let bytes = model.to_bytes();
    Box::new(move || drop(Session::load(bytes.clone(), &SessionOptions::default()).unwrap()))
}

/// Loads a model that somebody changed.
fn load_changed(writer: ModelWriter, change: impl FnOnce(&mut proto::Model)) -> Work {
    let mut model = writer.into_model();
    change(&mut model);
    // Whether it is taken is not what is asked here.
    Box::new(move || drop(Session::from_model(&model, &SessionOptions::default())))
}

/// `x` through `n` nodes, one after the other.
fn chain(n: usize, node: impl Fn(ModelWriter, &str, &str, usize) -> ModelWriter) -> ModelWriter {
    let mut writer = ModelWriter::new(13).input("x0", DataType::Float32, &["n"]);
    for i in 0..n {
        writer = node(writer, &format!("x{i}"), &format!("x{}", i + 1), i);
    }
    writer.output(&format!("x{n}"))
}

#[test]
fn models_are_loaded_in_time_that_grows_as_they_do() {
    check(&[
        ("inputs and outputs", 200, &|n| load(&wide(n))),
        ("nodes in a row", 300, &|n| {
            load(&chain(n, |writer, x, y, i| {
                let op = ["Sin", "Abs", "Neg"][i % 3];
                writer.node(op, &[x], &[y], vec![])
            }))
        }),
        ("constants", 300, &|n| {
            load(&chain(n, |writer, x, y, i| {
                let (name, value) = (format!("c{i}"), Tensor::from_slice(&[1], &[i as f32]));
                let writer = writer.constant(&name, &value.unwrap());
                writer.node("Add", &[x, &name], &[y], vec![])
            }))
        }),
        ("constants to fold", 300, &|n| {
            let mut writer = ModelWriter::new(13)
                .input("x", DataType::Float32, &["n"])
                .constant("c0", &Tensor::from_slice(&[1], &[0.5f32]).unwrap());
            for i in 0..n {
                writer = writer.node(
                    "Neg",
                    &[&format!("c{i}")],
                    &[&format!("c{}", i + 1)],
                    vec![],
                );
            }
            load(
                &writer
                    .node("Add", &["x", &format!("c{n}")], &["y"], vec![])
                    .output("y"),
            )
        }),
        ("constants that nobody uses", 500, &|n| {
            let mut writer = wide(1);
            for name in names("c", n) {
                writer = writer.constant(&name, &Tensor::from_slice(&[1], &[0.5f32]).unwrap());
            }
            load(&writer)
        }),
        ("users of one value", 300, &|n| {
            let mut writer = ModelWriter::new(13).input("x", DataType::Float32, &["n"]);
            for (i, name) in names("y", n).iter().enumerate() {
                let op = ["Sin", "Abs", "Neg"][i % 3];
                writer = writer.node(op, &["x"], &[name], vec![]).output(name);
            }
            load(&writer)
        }),
        ("inputs of one node", 300, &|n| {
            let mut writer = ModelWriter::new(13);
            let inputs = names("x", n);
            for name in &inputs {
                writer = writer.input(name, DataType::Float32, &["n"]);
            }
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            load(&writer.node("Sum", &inputs, &["y"], vec![]).output("y"))
        }),
        ("names of sizes", 300, &|n| {
            let mut writer = wide(1);
            for name in names("x", n) {
                writer = writer.input(&format!("i{name}"), DataType::Float32, &[&name]);
            }
            load(&writer)
        }),
        ("descriptions of values", 1000, &|n| {
            load_changed(
                chain(1, |w, x, y, _| w.node("Neg", &[x], &[y], vec![])),
                |model| {
                    let graph = model.graph.get_or_insert_default();
                    let info = graph.input[0].clone();
                    graph.value_info = names("v", n)
                        .into_iter()
                        .map(|name| proto::ValueInfo {
                            name: Some(name),
                            ..info.clone()
                        })
                        .collect();
                },
            )
        }),
        ("imports", 1000, &|n| {
            load_changed(wide(1), |model| {
                let import = |domain| proto::OperatorSetId {
                    domain: Some(domain),
                    version: Some(1),
                };
                model
                    .opset_import
                    .extend(names("d", n).into_iter().map(import));
            })
        }),
        ("attributes of one node", 1000, &|n| {
            load_changed(wide(1), |model| {
                let attribute = |name| proto::Attribute {
                    name: Some(name),
                    r#type: Some(proto::AttributeType::Int as i32),
                    i: Some(1),
                    ..Default::default()
                };
                let node = &mut model.graph.get_or_insert_default().node[0];
                node.attribute = names("a", n).into_iter().map(attribute).collect();
            })
        }),
        ("functions", 300, &|n| {
            let mut writer = chain(n, |writer, x, y, i| {
                writer.node_of("own", &format!("f{i}"), &[x], &[y], vec![])
            });
            writer = writer.import("own", 1);
            load_changed(writer, |model| {
                let node = ModelWriter::new(13)
                    .node("Neg", &["a"], &["b"], vec![])
                    .into_model();
                let node = node.graph.unwrap_or_default().node;
                let function = |name| proto::Function {
                    name: Some(name),
                    domain: Some("own".into()),
                    input: vec!["a".into()],
                    output: vec!["b".into()],
                    node: node.clone(),
                    opset_import: model.opset_import.clone(),
                    ..Default::default()
                };
                model.functions = names("f", n).into_iter().map(function).collect();
            })
        }),
    ]);
}
