//! Sessions: requests of one WebSocket in one instance, and how they end.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::models::{self, Endless};
use crate::server::{Server, digits_request, folder, serve};
use crate::websocket::Stream;

fn open(server: &Server, model: &str) -> Stream {
    let path = format!("/api/v1/stream?session={model}");
    Stream::connect(server.connect(), &path, "").unwrap()
}

/// Waits until as many sessions are open.
fn wait_for_sessions(server: &Server, count: usize) {
    server.wait_for("the sessions to end", |server| {
        server.get("/api/v1/stats").json()["pool"]["sessions"] == count
    });
}

/// What is said when a session ends before its client closes it.
fn ended(stream: &mut Stream) -> Option<String> {
    let last = stream.next()?;
    assert_eq!((&last["id"], &last["final"]), (&json!(""), &json!(true)));
    assert_eq!(last["error"]["code"], "LETHE-SESSION-ENDED", "{last}");
    assert!(stream.next().is_none(), "the stream is closed");
    last["error"]["detail"].as_str().map(str::to_owned)
}

/// A folder with a model that never ends where it is asked for more than zeros.
fn looping(name: &str) -> PathBuf {
    let folder = folder(name);
    let model = models::looping(Endless::WithMore);
    fs::write(folder.join("looping.onnx"), model).unwrap();
    folder
}

fn serving(folder: PathBuf, arguments: &[&str]) -> Server {
    let mut serve = serve();
    serve.args(arguments).arg("--models").arg(folder);
    Server::spawn(serve)
}

#[test]
fn a_session_answers_as_fresh_instances_do() {
    let server = Server::digits(&["--max-running", "1"]);
    let (mut session, mut other) = (open(&server, "digits"), open(&server, "digits"));
    for pixel in ["0.25", "0.9", "0.0", "0.25"] {
        let request = digits_request().replace("0.25", pixel);
        let fresh = server.infer(request.as_bytes()).json();
        for session in [&mut session, &mut other] {
            session.send(&request);
            let answer = session.next().unwrap();
            assert_eq!(answer["result"]["outputs"], fresh["outputs"], "{pixel}");
        }
    }
    // What is wrong with a request is its own, and the session goes on.
    let request: Value = serde_json::from_str(&digits_request()).unwrap();
    let mut wrong = request.clone();
    wrong["model"] = json!("another");
    session.send(&json!({"id": "b", "requests": [wrong, {}, request]}).to_string());
    let parts = [0; 4].map(|_| session.next().unwrap());
    assert_eq!(
        parts[0]["error"]["code"], "LETHE-MODEL-UNKNOWN",
        "{parts:?}"
    );
    assert!(parts[1]["error"]["code"].is_string(), "{parts:?}");
    assert_eq!(parts[2]["result"]["model"], "digits", "{parts:?}");
    assert_eq!(parts[3], json!({"id": "b", "final": true}));
    // Many at once have their turns one after the other.
    for _ in 0..20 {
        session.send(&digits_request());
    }
    for _ in 0..20 {
        assert!(session.next().unwrap()["result"].is_object());
    }
    wait_for_sessions(&server, 2);
    drop((session, other));
    wait_for_sessions(&server, 0);
    server.check("sessions");
}

#[test]
fn sessions_that_cannot_be_are_refused_with_a_problem() {
    let server = Server::digits(&["--max-sessions", "1"]);
    let refused = |path: &str| {
        let refused = Stream::connect(server.connect(), path, "");
        refused.err().unwrap()
    };
    let cases = [
        (
            "/api/v1/stream?session=another",
            "404",
            "LETHE-MODEL-UNKNOWN",
        ),
        ("/api/v1/stream?session=", "404", "LETHE-MODEL-UNKNOWN"),
        ("/api/v1/stream?session=%", "400", "LETHE-REQUEST"),
    ];
    for (path, status, code) in cases {
        let answer = refused(path);
        assert!(answer.contains(status) && answer.contains(code), "{answer}");
    }
    let session = open(&server, "digits");
    let answer = refused("/api/v1/stream?session=digits");
    assert!(
        answer.contains("429") && answer.contains("LETHE-SESSIONS"),
        "{answer}"
    );
    assert!(
        answer.to_ascii_lowercase().contains("retry-after: 1"),
        "{answer}"
    );
    // Those without a session go on, and so does the next one.
    server.check("a full house");
    drop(session);
    wait_for_sessions(&server, 0);
    drop(open(&server, "digits"));

    let native = Server::digits(&["--isolation", "none"]);
    let path = "/api/v1/stream?session=digits";
    let answer = Stream::connect(native.connect(), path, "").err().unwrap();
    assert!(
        answer.contains("409") && answer.contains("LETHE-SESSION"),
        "{answer}"
    );
}

#[test]
fn a_session_whose_instance_was_stopped_ends_and_says_so() {
    let folder = looping("session-stopped");
    let server = serving(folder, &["--request-timeout-ms", "700"]);
    let mut late = open(&server, "looping");
    late.send(&models::numbers("looping", &[0.0]));
    assert!(late.next().unwrap()["result"].is_object(), "zeros end");
    late.send(&models::numbers("looping", &[1.0]));
    let answer = late.next().unwrap();
    assert_eq!(answer["error"]["code"], "LETHE-DEADLINE", "{answer}");
    assert!(ended(&mut late).unwrap().contains("stopped"));
    wait_for_sessions(&server, 0);
    let mut next = open(&server, "looping");
    next.send(&models::numbers("looping", &[0.0]));
    assert!(next.next().unwrap()["result"].is_object());
}

#[test]
fn a_request_that_is_cancelled_ends_its_session_and_no_other() {
    let server = serving(looping("session-cancelled"), &["--max-running", "2"]);
    let (mut session, mut other) = (open(&server, "looping"), open(&server, "looping"));
    let mut request: Value = serde_json::from_str(&models::numbers("looping", &[1.0])).unwrap();
    request["id"] = json!("a");
    session.send(&request.to_string());
    server.wait_for("the run", |server| {
        server.get("/api/v1/stats").json()["pool"]["running"] == 1
    });
    session.send(r#"{"cancel":"a"}"#);
    let answer = session.next().unwrap();
    assert_eq!(answer["error"]["code"], "LETHE-CANCELLED", "{answer}");
    assert!(ended(&mut session).is_some());
    wait_for_sessions(&server, 1);
    other.send(&models::numbers("looping", &[0.0]));
    assert!(other.next().unwrap()["result"].is_object());
}

#[test]
fn a_client_that_hangs_up_frees_its_session_even_while_it_runs() {
    let server = serving(looping("session-gone"), &["--max-sessions", "2"]);
    let (resting, mut running) = (open(&server, "looping"), open(&server, "looping"));
    running.send(&models::numbers("looping", &[1.0]));
    server.wait_for("the run", |server| {
        server.get("/api/v1/stats").json()["pool"]["running"] == 1
    });
    drop((resting, running));
    // Long before the deadline of what ran.
    let begun = Instant::now();
    wait_for_sessions(&server, 0);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_session_that_rests_for_too_long_ends() {
    let server = Server::digits(&["--session-idle-ms", "400"]);
    let mut session = open(&server, "digits");
    session.send(&digits_request());
    assert!(session.next().unwrap()["result"].is_object());
    assert!(ended(&mut session).unwrap().contains("400ms"));
    wait_for_sessions(&server, 0);
}

#[test]
fn the_audit_trail_has_each_request_of_a_session_and_its_end() {
    let audit = folder("session-audit").join("audit.jsonl");
    let server = Server::digits(&["--audit", audit.to_str().unwrap()]);
    let mut session = open(&server, "digits");
    for _ in 0..2 {
        session.send(&digits_request());
        assert!(session.next().unwrap()["result"].is_object());
    }
    drop(session);
    let lines = || {
        let text = fs::read_to_string(&audit).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let requests = lines.filter(|line: &Value| line["kind"] == "request");
        requests.collect::<Vec<_>>()
    };
    server.wait_for("the line of the end", |_| lines().len() == 3);
    for (line, route) in lines()
        .iter()
        .zip(["?session", "?session", "?session, end"])
    {
        let expected = format!("WS /api/v1/stream{route}");
        assert_eq!(
            (&line["route"], &line["status"]),
            (&json!(expected), &json!(200))
        );
        let wiped = line["wiped_bytes"].as_u64().unwrap();
        assert_eq!(wiped > 0, route.ends_with("end"), "{line}");
    }
}

#[test]
fn sessions_end_when_the_server_stops() {
    let mut server = Server::digits(&[]);
    let mut session = open(&server, "digits");
    session.send(&digits_request());
    assert!(session.next().unwrap()["result"].is_object());
    server.signal("TERM");
    assert!(session.next().is_none());
    assert_eq!(server.ended(), Some(0));
}
