//! Connections: slow ones, broken ones, more than there is room for.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::models;
use crate::server::{
    Answer, JSON, Server, digits_request, folder, no_more, read_one, request, serve, until_closed,
};

/// A short time that the server allows for a head; tests wait for much longer.
const HEAD_MS: &str = "500";

#[test]
fn slow_heads_and_idle_connections_are_closed() {
    let server = Server::digits(&["--header-timeout-ms", HEAD_MS]);
    // Nothing at all; a head without an end; one byte after the other; the beginning of HTTP/2.
    let beginnings: [&[u8]; 4] = [
        b"",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ",
        b"G",
        b"PRI",
    ];
    let silent: Vec<TcpStream> = beginnings
        .iter()
        .map(|beginning| {
            let mut stream = server.connect();
            stream.write_all(beginning).unwrap();
            stream
        })
        .collect();
    let dribbled = std::thread::scope(|scope| {
        let dribbling = scope.spawn(|| {
            let mut stream = server.connect();
            let begun = Instant::now();
            // A header's line that never ends: there is always something new.
            while begun.elapsed() < Duration::from_secs(30) {
                if stream.write_all(b"x").is_err() {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            false
        });
        for mut stream in silent {
            until_closed(&mut stream);
        }
        dribbling.join().unwrap()
    });
    assert!(dribbled, "a head that is dribbled is taken for ever");
    // Between requests the same holds.
    let mut stream = BufReader::new(server.connect());
    let head = b"GET /api/v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.get_mut().write_all(head).unwrap();
    assert_eq!(read_one(&mut stream).status, 200);
    let (rest, _) = until_closed(stream.get_mut());
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "an answer too many");
    server.check("slow heads");
}

#[test]
fn half_bodies_are_given_up_at_the_deadline_of_their_request() {
    let server = Server::digits(&["--request-timeout-ms", "700"]);
    // Each begins a body and sends no more of it. The paths read it in different places.
    let paths = [
        "/api/v1/infer",
        "/api/v1/batch",
        "/v2/repository/index",
        "/api/v1/models/load",
    ];
    let bearer = server.bearer();
    let mut streams = paths.map(|path| {
        let mut stream = server.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             authorization: {bearer}\r\ncontent-length: 1000\r\n\r\n{{\"inputs\""
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    });
    for (path, stream) in paths.iter().zip(&mut streams) {
        let answer = Answer::parse(&until_closed(stream).0);
        let answer = answer.unwrap_or_else(|| panic!("{path}: no answer"));
        assert_eq!(
            (answer.status, &*answer.code()),
            (504, "LETHE-DEADLINE"),
            "{path}"
        );
    }
    // A client that ends in the middle gets 400, or nothing: it may be gone.
    let mut stream = server.connect();
    let whole = request(
        "POST",
        "/api/v1/infer",
        &[JSON],
        digits_request().as_bytes(),
    );
    stream.write_all(&whole[..whole.len() - 10]).unwrap();
    no_more(&stream);
    if let Some(answer) = Answer::parse(&until_closed(&mut stream).0) {
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    server.check("half bodies");
}

#[test]
fn lengths_that_lie_do_not_smuggle() {
    let server = Server::digits(&["--request-timeout-ms", "1500"]);
    let good = digits_request();
    let len = good.len();
    let post =
        "POST /api/v1/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let chunk = format!("{len:x}\r\n{good}\r\n0\r\n\r\n");
    let hidden = "GET /api/v1/stats HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // What is sent, and the statuses that may come back, at most one answer each.
    let cases: [(&str, String, &[u16]); 9] = [
        (
            "too large",
            format!("{post}content-length: {}\r\n\r\n{good}", len + 1),
            &[504],
        ),
        (
            "too small",
            format!(
                "{post}content-length: {}\r\nconnection: close\r\n\r\n{good}",
                len - 1
            ),
            &[400],
        ),
        (
            "two that differ",
            format!("{post}content-length: 1\r\ncontent-length: {len}\r\n\r\n{good}"),
            &[400],
        ),
        (
            "not a number",
            format!("{post}content-length: +{len}\r\n\r\n{good}"),
            &[400],
        ),
        (
            "beyond 64 bits",
            format!("{post}content-length: 99999999999999999999\r\n\r\n{good}"),
            &[400, 413],
        ),
        (
            "huge",
            format!("{post}content-length: 9999999999999\r\n\r\n{good}"),
            &[413],
        ),
        (
            "with chunks",
            format!(
                "{post}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{hidden}",
                chunk.len() + hidden.len()
            ),
            &[200, 400],
        ),
        (
            "chunks, then with it",
            format!(
                "{post}transfer-encoding: chunked\r\ncontent-length: {}\r\n\r\n{chunk}{hidden}",
                chunk.len() + hidden.len()
            ),
            &[200, 400],
        ),
        (
            "an unknown coding",
            format!("{post}transfer-encoding: chunked, gzip\r\n\r\n{chunk}"),
            &[400],
        ),
    ];
    for (name, bytes, expected) in cases {
        let mut stream = server.connect();
        drop(stream.write_all(bytes.as_bytes()));
        let (all, _) = until_closed(&mut stream);
        let text = String::from_utf8_lossy(&all);
        let answer = Answer::parse(&all).unwrap_or_else(|| panic!("{name}: no answer"));
        assert!(expected.contains(&answer.status), "{name}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{name}: {text}");
    }
    server.check("lengths that lie");
}

#[test]
fn garbage_for_chunks_is_refused() {
    let server = Server::digits(&["--request-timeout-ms", "1500", "--max-body-mb", "1"]);
    let head = "POST /api/v1/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let endless = "400\r\n".to_owned() + &"x".repeat(1024) + "\r\n";
    let cases: [(&str, String, &[u16]); 6] = [
        ("not hexadecimal", "zz\r\nxx\r\n".into(), &[400]),
        ("beyond 64 bits", "fffffffffffffffff\r\nxx".into(), &[400]),
        ("no end of line", "5abcde0\r\n\r\n".into(), &[400]),
        (
            "shorter than said",
            "ff\r\nabc\r\n0\r\n\r\n".into(),
            &[400, 504],
        ),
        (
            "an extension without end",
            format!("1;{}", "x".repeat(100_000)),
            &[400, 504],
        ),
        ("more than may be", endless.repeat(1100), &[413]),
    ];
    for (name, chunks, expected) in cases {
        let mut stream = server.connect();
        drop(stream.write_all([head, &chunks].concat().as_bytes()));
        no_more(&stream);
        let answer = Answer::parse(&until_closed(&mut stream).0);
        // What is no HTTP may be answered by closing the connection.
        if let Some(answer) = answer {
            assert!(expected.contains(&answer.status), "{name}: {answer:?}");
        } else {
            assert_ne!(expected, [413], "{name}: no answer");
        }
    }
    server.check("garbage for chunks");
}

#[test]
fn heads_that_are_no_heads_are_refused() {
    let server = Server::digits(&["--header-timeout-ms", "2000"]);
    let many = "a: b\r\n".repeat(200);
    let long = "x".repeat(100 << 10);
    let cases: [(&str, String, u16); 6] = [
        ("no HTTP", "hello\r\n\r\n".into(), 400),
        (
            "another version",
            "GET / HTTP/9.9\r\nhost: localhost\r\n\r\n".into(),
            400,
        ),
        ("many headers", format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
        (
            "a long header",
            format!("GET / HTTP/1.1\r\na: {long}\r\n\r\n"),
            431,
        ),
        ("a long path", format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
        (
            "a name with a blank",
            "GET / HTTP/1.1\r\na b: c\r\n\r\n".into(),
            400,
        ),
    ];
    for (name, head, expected) in cases {
        let mut stream = server.connect();
        drop(stream.write_all(head.as_bytes()));
        let answer = Answer::parse(&until_closed(&mut stream).0);
        if let Some(answer) = answer {
            // A head that does not fit may be told as either.
            let is_expected =
                answer.status == expected || (expected >= 414 && answer.status == 431);
            assert!(is_expected, "{name}: {answer:?}");
            assert_eq!(answer.code(), "LETHE-HTTP", "{name}: {answer:?}");
            assert_eq!(answer.json()["status"], answer.status, "{name}");
        }
    }
    server.check("heads that are none");
}

#[test]
fn ten_thousand_connections_leave_room_for_the_next_client() {
    const IN_ALL: usize = 10_000;
    let server = Server::digits(&["--header-timeout-ms", "8000", "--max-connections", "1000"]);
    // As many at the same time as this process may have files, and some to spare.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let wave = (files.unwrap_or(4096) as usize / 2).clamp(100, 5000);
    let (mut opened, mut refused) = (0, 0);
    while opened < IN_ALL {
        let count = wave.min(IN_ALL - opened);
        let mut streams: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
        opened += count;
        for stream in &mut streams {
            let (said, _) = until_closed(stream);
            match Answer::parse(&said) {
                Some(answer) if answer.status == 503 => {
                    assert_eq!(answer.code(), "LETHE-CONNECTIONS");
                    assert_eq!(answer.header("retry-after"), Some("1"));
                    refused += 1;
                }
                // Idle ones are closed when their time for a head is over.
                _ => assert!(
                    said.is_empty() || said.starts_with(b"HTTP/1.1 408"),
                    "{said:?}"
                ),
            }
        }
    }
    assert!(wave <= 1000 || refused > 0, "nobody was refused");
    let begun = Instant::now();
    assert_eq!(server.get("/api/v1/health").status, 200);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert!(server.peak_mib() < 1024, "{} MiB", server.peak_mib());
    server.check("ten thousand connections");
}

#[test]
fn a_client_beyond_max_connections_is_told_and_served_when_there_is_room() {
    let server = Server::digits(&["--max-connections", "3"]);
    let streams: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = BufReader::new(server.connect());
            let head = b"GET /api/v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.get_mut().write_all(head).unwrap();
            assert_eq!(read_one(&mut stream).status, 200);
            stream
        })
        .collect();
    // It sends a request of its own before it reads, as clients do.
    for _ in 0..20 {
        let answer = server.infer(digits_request().as_bytes());
        assert_eq!((answer.status, &*answer.code()), (503, "LETHE-CONNECTIONS"));
    }
    drop(streams);
    server.wait_for("room for a client", |server| {
        server.get("/api/v1/health").status == 200
    });
    server.check("max_connections");
}

#[test]
fn a_client_that_does_not_read_a_large_answer_is_let_go() {
    let folder = folder("large-answer");
    let path = folder.join("echo.onnx");
    fs::write(&path, models::echo()).unwrap();
    let mut serve = serve();
    serve
        .args(["--header-timeout-ms", "1000", "--max-connections", "1"])
        .arg(path);
    let server = Server::spawn(serve);
    // More than the buffers between server and client hold.
    let len = 24 << 20;
    let json = format!(
        r#"{{"inputs":[{{"name":"x","shape":[{len}],"datatype":"UINT8","parameters":{{"binary_data_size":{len}}}}}],"parameters":{{"binary_data_output":true}}}}"#
    );
    let head = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n\
         inference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n{json}",
        json.len(),
        json.len() + len
    );
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![7; len]).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    // It is still there, and has the only place.
    server.wait_for("a place", |server| {
        server.get("/api/v1/health").status == 200
    });
    drop(stream);
}

#[test]
fn clients_that_do_not_read_are_let_go() {
    let server = Server::digits(&["--header-timeout-ms", "1000", "--max-connections", "4"]);
    // Answers are not read until all buffers between are full.
    let flood = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2000);
    let mut streams = [0; 4].map(|_| server.connect());
    for stream in &mut streams {
        stream
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        while stream.write_all(&flood).is_ok() {}
    }
    // They are still there, and hold on to every place.
    server.wait_for("a place", |server| {
        server.get("/api/v1/health").status == 200
    });
    drop(streams);
    server.check("clients that do not read");
}
