//! WebSockets: floods that nobody reads, messages that are bombs, streams that stay.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{JSON, Server, digits_request};
use crate::websocket::{Stream, TEXT, frame};

impl Stream {
    pub(crate) fn open(server: &Server) -> Self {
        Self::connect(server.connect(), "/api/v1/stream", "").unwrap()
    }
}

fn named(id: &str) -> String {
    let mut request: Value = serde_json::from_str(&digits_request()).unwrap();
    request["id"] = json!(id);
    request.to_string()
}

#[test]
fn a_stream_answers_by_name_and_takes_batches() {
    let server = Server::digits(&[]);
    let mut stream = Stream::open(&server);
    stream.send(&named("a"));
    let answer = stream.next().unwrap();
    assert_eq!(
        (&answer["id"], &answer["final"]),
        (&json!("a"), &json!(true))
    );
    assert_eq!(answer["result"]["outputs"][0]["shape"][1], 10);
    let request: Value = serde_json::from_str(&digits_request()).unwrap();
    stream.send(&json!({"id": "b", "requests": [request, {}]}).to_string());
    let parts = [0; 3].map(|_| stream.next().unwrap());
    assert_eq!(parts[0]["result"]["model"], "digits", "{parts:?}");
    assert!(parts[1]["error"]["code"].is_string(), "{parts:?}");
    assert_eq!(parts[2], json!({"id": "b", "final": true}));
    stream.send("no JSON");
    assert_eq!(stream.next().unwrap()["error"]["code"], "LETHE-JSON");
    stream.0.get_mut().write_all(&frame(2, b"bytes")).unwrap();
    assert!(stream.next().is_none(), "bytes are no messages");
    server.check("a stream");
}

#[test]
fn floods_of_streams_that_are_not_read_take_bounded_memory() {
    let server = Server::digits(&["--max-running", "2"]);
    server.check("the beginning");
    let before = server.peak_mib();
    let request = frame(TEXT, digits_request().as_bytes());
    let bad = frame(TEXT, b"no JSON at all");
    let ping = frame(9, b"ping");
    let mut sent = 0;
    let mut streams = Vec::new();
    // Thousands of each, until the server takes no more.
    for message in [&request, &request, &bad, &bad, &ping, &ping] {
        let mut stream = Stream::open(&server);
        let socket = stream.0.get_mut();
        socket
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        for _ in 0..100_000 {
            if socket.write_all(message).is_err() {
                break;
            }
            sent += 1;
            if sent % 256 == 0 && server.peak_mib() > before + 512 {
                break;
            }
        }
        streams.push(stream);
    }
    assert!(sent > 2000, "{sent} messages");
    let begun = Instant::now();
    server.check("while streams flood");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    let grown = server.peak_mib() - before;
    assert!(grown < 300, "{grown} MiB more");
    drop(streams);
    server.wait_for("the end of the runs", |server| {
        server.get("/api/v1/stats").json()["pool"]["running"] == 0
    });
    server.check("floods");
}

#[test]
fn a_batch_of_tiny_requests_in_a_stream_takes_bounded_memory() {
    let server = Server::digits(&[]);
    let before = server.peak_mib();
    let mut stream = Stream::open(&server);
    let tiny = "0,".repeat(16 << 20);
    stream.send(&format!(r#"{{"id":"a","requests":[{tiny}0]}}"#));
    let answer = stream.next().unwrap();
    assert_eq!(answer["error"]["code"], "LETHE-BATCH-SIZE", "{answer}");
    let grown = server.peak_mib() - before;
    assert!(grown < 400, "{grown} MiB more");
    server.check("a batch of tiny requests");
}

#[test]
fn streams_count_as_connections() {
    let server = Server::digits(&["--max-connections", "3"]);
    let mut streams = [0; 3].map(|_| Stream::open(&server));
    let refused = server.get("/api/v1/health");
    assert_eq!(refused.code(), "LETHE-CONNECTIONS", "{refused:?}");
    streams[0].send(&named("a"));
    assert_eq!(streams[0].next().unwrap()["id"], "a");
    drop(streams);
    server.wait_for("a place", |server| {
        server.get("/api/v1/health").status == 200
    });
}

#[test]
fn streams_end_well_when_the_server_stops() {
    let mut server = Server::digits(&["--max-running", "1"]);
    let (mut busy, mut idle) = (Stream::open(&server), Stream::open(&server));
    let names: Vec<String> = (0..12).map(|i| i.to_string()).collect();
    for name in &names {
        busy.send(&named(name));
    }
    // One answer has come: the others have begun or wait for their turn.
    let mut answered = vec![busy.next().unwrap()];
    server.signal("TERM");
    while let Some(answer) = busy.next() {
        answered.push(answer);
    }
    // What ran is answered; what was not yet accepted may be refused, but is not forgotten.
    for answer in &answered {
        let refused = answer["error"]["code"] == "LETHE-DRAINING";
        assert!(answer["result"].is_object() || refused, "{answer}");
    }
    assert_eq!(answered.len(), names.len(), "{answered:?}");
    assert!(idle.next().is_none());
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn frames_that_lie_end_their_stream_alone() {
    let server = Server::digits(&["--max-body-mb", "1"]);
    let cases: [(&str, Vec<u8>); 5] = [
        ("longer than may be", frame(TEXT, &vec![b' '; 2 << 20])),
        (
            "says far more",
            [&[0x81, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat(),
        ),
        ("not masked", vec![0x81, 1, b'x']),
        ("no text", frame(TEXT, &[0xff, 0xfe])),
        ("an unknown kind", frame(3, b"")),
    ];
    let mut good = Stream::open(&server);
    for (name, bytes) in cases {
        let mut stream = Stream::open(&server);
        drop(stream.0.get_mut().write_all(&bytes));
        assert!(stream.next().is_none(), "{name}");
    }
    good.send(&named("a"));
    assert_eq!(good.next().unwrap()["id"], "a");
    server.check("frames that lie");
}

#[test]
fn messages_that_have_no_room_beside_others_are_told_to_come_again() {
    let timeout = ["--request-timeout-ms", "5000"];
    let limits = ["--max-body-mb", "2", "--max-bodies-mb", "2"];
    let server = Server::digits(&[&timeout[..], &limits].concat());
    // A ping between its pieces takes nothing from a message.
    let piece = vec![b' '; 500_000];
    let mut first = frame(TEXT, &piece);
    first[0] &= 0x7f;
    let more = frame(0, &[&piece[..], b"and what never comes"].concat());
    let half = [&first[..], &frame(9, b"ping"), &more[..500_000]].concat();
    let begin = || {
        let mut stream = Stream::open(&server);
        // It may be refused before the last byte.
        drop(stream.0.get_mut().write_all(&half));
        stream
    };
    let ask = || server.post("/api/v1/infer", &[JSON], &[b' '; 100_000]);
    let mut held = Vec::new();
    server.wait_for("room to be taken", |_| {
        // What asks takes room too, and may be why one of these was refused: then anew.
        held.clear();
        held.extend([begin(), begin()]);
        std::thread::sleep(Duration::from_millis(200));
        ask().status == 503
    });
    let mut refused = begin();
    let problem = refused.next().unwrap();
    assert_eq!(problem["error"]["code"], "LETHE-BODIES", "{problem}");
    assert!(refused.next().is_none(), "its stream has ended");
    // Half a message keeps its room until the deadline.
    for mut stream in held {
        let problem = stream.next().unwrap();
        assert_eq!(problem["error"]["code"], "LETHE-DEADLINE", "{problem}");
        assert!(stream.next().is_none(), "its stream has ended");
    }
    server.wait_for("room again", |_| ask().status == 400);
    server.check("messages that took all room");
}
