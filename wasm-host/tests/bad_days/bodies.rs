//! Bodies: not text, not JSON, JSON in a bad mood, and far more than they seem.

use std::io::Write;
use std::time::Duration;

use crate::server::{JSON, Server, digits, digits_request, serve};

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
