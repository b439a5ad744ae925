//! Web pages of strangers, which a browser runs where it reaches the server: what they may not do,
//! without keys too.

use std::io::Write;

use crate::models;
use crate::server::{Answer, JSON, Server, digits_request, folder, request, serve};
use crate::websocket::Stream;

const FOREIGN: (&str, &str) = ("origin", "https://evil.example");
const UNLOAD: &[u8] = br#"{"model":"digits"}"#;

/// Whether the model still answers.
fn is_loaded(server: &Server) -> bool {
    server.infer(digits_request().as_bytes()).status == 200
}

#[test]
fn a_page_of_another_server_unloads_nothing_and_reads_no_stream() {
    let server = Server::digits(&[]);
    let token = server.bearer();
    let token = ("authorization", &*token);
    // As a form of any page would post it, and with the token, which it cannot know.
    let form = ("content-type", "text/plain");
    for headers in [&[FOREIGN, form][..], &[FOREIGN, form, token]] {
        for path in [
            "/api/v1/models/unload",
            "/v2/repository/models/digits/unload",
        ] {
            let answer = server.post(path, headers, UNLOAD);
            assert_eq!(
                (answer.status, &*answer.code()),
                (403, "LETHE-ORIGIN"),
                "{path}: {}",
                answer.text()
            );
        }
    }
    assert!(is_loaded(&server));
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        let header = format!("origin: {origin}\r\n");
        let refused = Stream::connect(server.connect(), "/api/v1/stream", &header);
        let refused = refused
            .err()
            .unwrap_or_else(|| panic!("{origin}: it was let in"));
        assert!(refused.contains("LETHE-ORIGIN"), "{origin}: {refused}");
    }
    // Its own pages, and who is no page.
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let own = format!("http://127.0.0.1:{port}");
    let headers = [JSON, ("origin", &*own)];
    let answer = server.send(&ask_as(&server.address, &headers));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let stream = Stream::connect(server.connect(), "/api/v1/stream", "");
    assert!(stream.is_ok());
}

/// A request for digits by this name.
fn ask_as(host: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let whole = request(
        "POST",
        "/api/v1/infer",
        headers,
        digits_request().as_bytes(),
    );
    let whole = String::from_utf8(whole).unwrap();
    whole
        .replacen("host: localhost", &format!("host: {host}"), 1)
        .into_bytes()
}

#[test]
fn a_page_whose_name_leads_here_is_refused_and_named_ones_are_let_in() {
    let server = Server::digits(&[]);
    let status = |server: &Server, host: &str| server.send(&ask_as(host, &[JSON])).status;
    // The page asks in its own name, which leads to this address.
    let own = [JSON, ("origin", "http://evil.example:8080")];
    let answer = server.send(&ask_as("evil.example:8080", &own));
    assert_eq!((answer.status, &*answer.code()), (421, "LETHE-HOST"));
    assert_eq!(status(&server, &server.address), 200);
    assert_eq!(status(&server, "localhost"), 200);

    let settings = [
        "--allowed-hosts",
        "lethe.example",
        "--cors-origins",
        "https://app.example",
    ];
    let server = Server::digits(&settings);
    assert_eq!(status(&server, "lethe.example"), 200);
    assert_eq!(status(&server, "evil.example"), 421);
    let answer = server.post(
        "/api/v1/infer",
        &[JSON, ("origin", "https://app.example")],
        digits_request().as_bytes(),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(
        server.post("/api/v1/infer", &[JSON, FOREIGN], b"{}").status,
        403
    );
    let stream = Stream::connect(
        server.connect(),
        "/api/v1/stream",
        "origin: https://app.example\r\n",
    );
    assert!(stream.is_ok());
}

#[test]
fn without_keys_models_are_loaded_by_who_has_the_token() {
    let folder = folder("token");
    std::fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
    let mut serve = serve();
    serve.args(["--enable-upload", "--models"]).arg(&folder);
    let server = Server::spawn(serve);
    let control = |headers: &[(&str, &str)]| {
        let body = br#"{"model":"plus"}"#;
        [
            ("POST", "/api/v1/models/load", &body[..]),
            ("POST", "/v2/repository/models/plus/load", b""),
            ("PUT", "/api/v1/models/plus", &models::plus(1.0)),
            ("POST", "/v2/repository/models/plus/unload", b""),
            ("POST", "/api/v1/models/unload", body),
        ]
        .map(|(method, path, body)| server.send(&request(method, path, headers, body)))
    };
    let is_refused = |answers: [Answer; 5], code: &str| {
        for answer in answers {
            assert_eq!((answer.status, &*answer.code()), (401, code));
            assert!(answer.header("www-authenticate").is_some());
        }
    };
    is_refused(control(&[]), "LETHE-KEY-MISSING");
    let bearer = server.bearer();
    let wrong = format!("{}x", &bearer[..bearer.len() - 1]);
    is_refused(control(&[("authorization", &wrong)]), "LETHE-KEY-UNKNOWN");
    is_refused(control(&[("x-api-key", "")]), "LETHE-KEY-UNKNOWN");
    // All else needs none, and the pages show their figures.
    let answer = server.infer(models::numbers("plus", &[1.0]).as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    for path in ["/", "/docs", "/api/v1/stats", "/metrics", "/api/v1/models"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let key = bearer.strip_prefix("Bearer ").unwrap();
    for header in [("authorization", &*bearer), ("x-api-key", key)] {
        for answer in control(&[header]) {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

#[test]
fn a_request_says_once_by_which_name_it_calls() {
    let server = Server::digits(&[]);
    let cases = [
        ("HTTP/1.1", "", 400),
        ("HTTP/1.1", "host: localhost\r\nhost: localhost\r\n", 400),
        ("HTTP/1.1", "host: a b\r\n", 400),
        ("HTTP/1.1", "host: localhost\r\n", 200),
        ("HTTP/1.0", "", 200),
    ];
    for (version, host, expected) in cases {
        let mut stream = server.connect();
        let head = format!("GET /api/v1/models {version}\r\n{host}connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let answer = Answer::read(&mut stream).unwrap();
        assert_eq!(
            answer.status,
            expected,
            "{version} {host:?}: {}",
            answer.text()
        );
        if expected == 400 {
            assert_eq!(answer.code(), "LETHE-HOST", "{}", answer.text());
        }
    }
}
