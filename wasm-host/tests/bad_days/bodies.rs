//! Bodies: not text, not JSON, JSON in a bad mood, and far more than they seem.

use std::fs;
use std::io::Write;
use std::time::Duration;

use lethe_engine::DataType;
use lethe_engine::onnx::writer::ModelWriter;
use serde_json::{Value, json};

use crate::server::{JSON, Server, digits, digits_request, folder, serve};
use crate::websocket::Stream;

/// A server with two models: the host looks into bodies for the name.
fn two_models() -> Server {
    let mut serve = serve();
    let vibration = crate::server::root().join("models/vibration/model.onnx");
    serve.arg(digits()).arg(vibration);
    Server::spawn(serve)
}

fn with_data(data: &str) -> Vec<u8> {
    format!(
        r#"{{"model":"digits","inputs":[{{"name":"input","shape":[1,1,28,28],"datatype":"FP32","data":{data}}}]}}"#
    )
    .into_bytes()
}

#[test]
fn bodies_that_are_no_requests_are_refused() {
    let mut half_a_letter = digits_request().into_bytes();
    half_a_letter[12] = 0xe2;
    let deep = |what: &str| what.repeat(100_000).into_bytes();
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("nothing", Vec::new(), &[400]),
        ("no text", vec![0xff; 1000], &[400]),
        ("half a letter", half_a_letter, &[400, 404]),
        ("a lone surrogate", br#"{"model":"\ud800","inputs":[]}"#.to_vec(), &[400, 404]),
        ("a zero byte", b"{\0}".to_vec(), &[400]),
        ("deep lists", deep("["), &[400]),
        ("deep objects", deep(r#"{"a":"#), &[400]),
        ("deep data", with_data(&("[".repeat(100_000) + &"]".repeat(100_000))), &[400, 422]),
        ("deep parameters", format!(r#"{{"model":"digits","parameters":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000)).into_bytes(), &[400, 422]),
        ("a number of a thousand digits", with_data(&format!("[{}]", "9".repeat(1000))), &[400, 422]),
        ("a huge exponent", with_data("[1e999999999]"), &[400, 422]),
        ("a huge shape", br#"{"model":"digits","inputs":[{"name":"input","shape":[9223372036854775807,9223372036854775807],"datatype":"FP32","data":[]}]}"#.to_vec(), &[422]),
        ("a negative shape", br#"{"model":"digits","inputs":[{"name":"input","shape":[-1],"datatype":"FP32","data":[]}]}"#.to_vec(), &[400, 422]),
        ("bytes that are not there", br#"{"model":"digits","inputs":[{"name":"input","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4000000000}}]}"#.to_vec(), &[400, 422]),
        ("many inputs", format!(r#"{{"model":"digits","inputs":[{}]}}"#, vec!["{}"; 100_000].join(",")).into_bytes(), &[400, 422]),
        ("one field twice", br#"{"model":"digits","model":"digits","inputs":[]}"#.to_vec(), &[400, 422]),
    ];
    for server in [Server::digits(&[]), two_models()] {
        for (name, body, expected) in &cases {
            let answer = server.infer(body);
            // Where several models are served, what names none may be answered as unknown.
            let is_expected = expected.contains(&answer.status);
            assert!(is_expected, "{name}: {} {}", answer.status, answer.text());
            assert!(
                answer.code().starts_with("LETHE-"),
                "{name}: {}",
                answer.text()
            );
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json"),
                "{name}"
            );
            assert!(
                answer.body.len() < 4096,
                "{name}: an answer of {} bytes",
                answer.body.len()
            );
        }
        server.check("bodies that are no requests");
    }
}

#[test]
fn sixty_four_megabytes_of_brackets_are_refused_in_bounded_memory() {
    let server = two_models();
    let before = server.peak_mib();
    let bombs = [
        ("lists", "/api/v1/infer", vec![b'['; 64 << 20]),
        ("a batch of nothing", "/api/v1/batch", {
            let mut body = br#"{"requests":["#.to_vec();
            body.extend(b"0,".repeat(32 << 19));
            body.extend(b"0]}");
            body
        }),
    ];
    for (name, path, body) in bombs {
        let answer = server.post(path, &[JSON], &body);
        assert!(
            matches!(answer.status, 400 | 404 | 413 | 422),
            "{name}: {}",
            answer.text()
        );
        let grown = server.peak_mib() - before;
        assert!(grown < 800, "{name}: {grown} MiB more");
    }
    server.check("bombs of brackets");
}

/// A gigabyte of spaces, compressed; compressed again it would fit into a letter.
fn bomb(coding: &str) -> Vec<u8> {
    let piece = vec![b' '; 1 << 20];
    match coding {
        "gzip" => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            (0..256).for_each(|_| to.write_all(&piece).unwrap());
            to.finish().unwrap()
        }
        _ => {
            let mut to = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            (0..1024).for_each(|_| to.write_all(&piece).unwrap());
            to.finish().unwrap()
        }
    }
}

#[test]
fn compressed_bombs_are_refused_in_bounded_memory() {
    let server = Server::digits(&["--max-body-mb", "16"]);
    let before = server.peak_mib();
    for coding in ["gzip", "zstd"] {
        let bomb = bomb(coding);
        assert!(bomb.len() < 4 << 20, "{coding}: {} bytes", bomb.len());
        let ask = || {
            server.post(
                "/api/v1/infer",
                &[JSON, ("content-encoding", coding)],
                &bomb,
            )
        };
        std::thread::scope(|scope| {
            let all = [0; 4].map(|_| scope.spawn(ask));
            for one in all {
                let answer = one.join().unwrap();
                assert_eq!(
                    (answer.status, &*answer.code()),
                    (413, "LETHE-BODY-SIZE"),
                    "{coding}"
                );
            }
        });
        let cut = &bomb[..bomb.len() / 2];
        let answer = server.post("/api/v1/infer", &[JSON, ("content-encoding", coding)], cut);
        assert!(
            matches!(answer.status, 400 | 413),
            "{coding}: {}",
            answer.text()
        );
    }
    let grown = server.peak_mib() - before;
    assert!(grown < 400, "{grown} MiB more");
    server.check("compressed bombs");
}

/// A frame of zstd that asks for a window of this size, and holds nothing.
#[test]
fn a_frame_that_asks_for_a_large_window_is_refused() {
    let server = Server::digits(&[]);
    // Magic number, a descriptor without a size, 2 to the 41st bytes of window (RFC 8878, 3.1.1).
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3, 1, 0, 0];
    let answer = server.post(
        "/api/v1/infer",
        &[JSON, ("content-encoding", "zstd")],
        &frame,
    );
    assert_eq!(
        (answer.status, &*answer.code()),
        (400, "LETHE-ENCODING"),
        "{}",
        answer.text()
    );
    server.check("a large window");
}

#[test]
fn bodies_that_have_no_room_beside_others_are_told_to_come_again() {
    let server = Server::digits(&["--max-body-mb", "2", "--max-bodies-mb", "2"]);
    let begin = || {
        let mut stream = server.connect();
        let head = "POST /api/v1/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 1000000\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[b' '; 1000]).unwrap();
        stream
    };
    // Their memory is taken when their first bytes are there.
    let body = [b' '; 1 << 20];
    let ask = || server.post("/api/v1/infer", &[JSON], &body);
    let mut held = Vec::new();
    server.wait_for("room to be taken", |_| {
        // What asks takes room too, and may be why one of these was refused: then anew.
        held.clear();
        held.extend([begin(), begin()]);
        std::thread::sleep(Duration::from_millis(200));
        ask().status == 503
    });
    let refused = ask();
    assert_eq!(refused.code(), "LETHE-BODIES", "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(held);
    // What is no request is one that was read.
    server.wait_for("room again", |_| ask().status == 400);
    server.check("bodies that took all room");
}

/// A server of two models: `filled` gives as many zeros as it is told, `many` takes three hundred
/// inputs of long names.
fn large_answers(name: &str, arguments: &[&str]) -> Server {
    let folder = folder(name);
    let filled = ModelWriter::new(17)
        .input("shape", DataType::Int64, &["1"])
        .node("ConstantOfShape", &["shape"], &["y"], vec![])
        .output("y");
    fs::write(folder.join("filled.onnx"), filled.to_bytes()).unwrap();
    let names: Vec<String> = (0..300)
        .map(|i| "long".repeat(250) + &i.to_string())
        .collect();
    let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = inputs.iter().fold(ModelWriter::new(17), |model, name| {
        model.input(name, DataType::Float32, &["n"])
    });
    let many = many.node("Sum", &inputs, &["y"], vec![]).output("y");
    fs::write(folder.join("many.onnx"), many.to_bytes()).unwrap();
    let mut serve = serve();
    serve.args(arguments).arg("--models").arg(folder);
    Server::spawn(serve)
}

/// A request for so many zeros.
fn filled(count: usize) -> Value {
    let input = json!({"name": "shape", "shape": [1], "datatype": "INT64", "data": [count]});
    json!({"model": "filled", "inputs": [input]})
}

#[test]
fn the_answers_of_a_batch_are_together_no_larger_than_a_body() {
    for isolation in ["sandbox", "none"] {
        let arguments = ["--isolation", isolation, "--max-body-mb", "1"];
        let server = large_answers(&format!("large-answers-{isolation}"), &arguments);
        let ask = |request: &Value, count: usize| {
            let body = json!({"requests": vec![request.clone(); count]}).to_string();
            server.post("/api/v1/batch", &[JSON], body.as_bytes())
        };
        // Whatever a first run takes is taken.
        let answer = ask(&filled(20_000), 4);
        assert_eq!(answer.status, 200, "{isolation}: {}", answer.code());
        let answers = answer.json();
        assert_eq!(answers["responses"].as_array().unwrap().len(), 4);
        let before = server.peak_mib();
        for request in [filled(100_000), json!({"model": "many", "inputs": []})] {
            let answer = ask(&request, 2000);
            assert_eq!(
                (answer.status, &*answer.code()),
                (422, "LETHE-BATCH-SIZE"),
                "{isolation}: {}",
                answer.text()
            );
        }
        let grown = server.peak_mib() - before;
        assert!(grown < 200, "{isolation}: {grown} MiB more");
        let answer = ask(&filled(1), 1);
        assert_eq!(answer.status, 200, "{isolation}: {}", answer.text());
    }
}

#[test]
fn an_error_lists_some_of_many_inputs() {
    for isolation in ["sandbox", "none"] {
        let server = large_answers(&format!("many-{isolation}"), &["--isolation", isolation]);
        let answer = server.infer(br#"{"model":"many","inputs":[]}"#);
        let text = answer.text();
        assert_eq!(answer.status, 422, "{isolation}: {text}");
        assert!(text.contains("and 284 more"), "{isolation}: {text}");
        assert!(text.len() < 8192, "{isolation}: {} bytes", text.len());
    }
}

#[test]
fn answers_that_a_stream_does_not_read_wait_and_take_room() {
    let server = large_answers("unread-answers", &[]);
    let mut stream = Stream::open(&server);
    let count = 24;
    // More than may be unsent, and than sockets take.
    let batch = json!({"id": "a", "requests": vec![filled(400_000); count]});
    stream.send(&batch.to_string());
    std::thread::sleep(Duration::from_secs(1));
    for index in 0..count {
        let part = stream.next().unwrap();
        assert_eq!(part["index"], index, "{}", part["error"]);
        assert_eq!(part["result"]["outputs"][0]["shape"][0], 400_000);
    }
    assert_eq!(stream.next(), Some(json!({"id": "a", "final": true})));
    let small = large_answers(
        "unread-room",
        &["--max-body-mb", "1", "--max-bodies-mb", "1"],
    );
    let mut stream = Stream::open(&small);
    stream.send(&filled(1_000_000).to_string());
    let refused = stream.next().unwrap();
    assert_eq!(refused["error"]["code"], "LETHE-BODIES");
    stream.send(&filled(1).to_string());
    let answer = stream.next().unwrap();
    assert_eq!(answer["result"]["outputs"][0]["shape"][0], 1, "{answer}");
}
