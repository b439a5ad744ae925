//! Ends: of the server while it works, of clients before their answer, of a request's time.

use std::fs;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::models::{self, Endless};
use crate::server::{
    Answer, JSON, Server, digits, digits_request, folder, read_one, request, requests_in, serve,
    wait_for,
};

#[test]
fn what_was_accepted_before_sigterm_is_answered() {
    let mut server = Server::digits(&["--max-running", "1"]);
    let body = digits_request();
    let whole = request("POST", "/api/v1/infer", &[JSON], body.as_bytes());
    // Kept connections, which have had an answer: the server has accepted them.
    let mut idle = [0; 2].map(|_| {
        let mut stream = BufReader::new(server.connect());
        let head = b"GET /api/v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.get_mut().write_all(head).unwrap();
        assert_eq!(read_one(&mut stream).status, 200);
        stream
    });
    let statuses = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..6)
            .map(|_| {
                let mut stream = BufReader::new(server.connect());
                let head = b"GET /api/v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
                stream.get_mut().write_all(head).unwrap();
                assert_eq!(read_one(&mut stream).status, 200);
                stream.get_mut().write_all(&whole).unwrap();
                scope.spawn(move || Answer::read(&mut stream).map(|answer| answer.status))
            })
            .collect();
        wait_for("runs", || {
            let pool = server.get("/api/v1/stats").json()["pool"].clone();
            let count = |name: &str| pool[name].as_u64().unwrap();
            count("running") + count("waiting") >= 1 || asking.iter().all(|a| a.is_finished())
        });
        server.signal("TERM");
        let statuses = asking.into_iter().map(|asking| asking.join().unwrap());
        statuses.collect::<Vec<_>>()
    });
    for status in statuses {
        assert!(matches!(status, Some(200 | 503)), "{status:?}");
    }
    // Idle ones are closed, and new ones refused.
    for stream in &mut idle {
        assert!(Answer::read(stream).is_none());
    }
    assert_eq!(server.ended(), Some(0));
    assert!(TcpStream::connect(&server.address).is_err());
}

#[test]
fn sigterm_under_load_loses_no_request() {
    let mut server = Server::digits(&[]);
    let body = digits_request();
    let is_stopped = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let clients =
            [0; 3].map(|_| {
                scope.spawn(|| {
                let mut answered = 0;
                let Ok(stream) = TcpStream::connect(&server.address) else { return 0 };
                let mut stream = BufReader::new(stream);
                let head = format!(
                    "POST /api/v1/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                loop {
                    let was_stopped = is_stopped.load(Ordering::Relaxed);
                    if stream.get_mut().write_all(head.as_bytes()).is_err() {
                        assert!(was_stopped, "closed without a reason");
                        return answered;
                    }
                    // Between two requests a connection may be closed; within one it may not.
                    let mut first = [0; 1];
                    match stream.get_ref().peek(&mut first) {
                        Ok(1) => {}
                        end => {
                            assert!(is_stopped.load(Ordering::Relaxed), "{end:?}");
                            return answered;
                        }
                    }
                    let answer = read_one(&mut stream);
                    match answer.status {
                        200 => answered += 1,
                        503 => assert!(is_stopped.load(Ordering::Relaxed), "{}", answer.text()),
                        _ => panic!("{}", answer.text()),
                    }
                }
            })
            });
        std::thread::sleep(Duration::from_millis(500));
        is_stopped.store(true, Ordering::Relaxed);
        server.signal("TERM");
        clients.map(|client| client.join().unwrap())
    });
    assert!(answered.iter().sum::<i32>() > 0, "{answered:?}");
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    let folder = folder("drain");
    let path = folder.join("looping.onnx");
    fs::write(&path, models::looping(Endless::WithMore)).unwrap();
    let mut serve = serve();
    serve.args(["--drain-timeout-ms", "300"]).arg(path);
    let mut server = Server::spawn(serve);
    let mut stream = server.connect();
    let body = models::numbers("looping", &[1.0]);
    let whole = request("POST", "/api/v1/infer", &[JSON], body.as_bytes());
    stream.write_all(&whole).unwrap();
    server.wait_for("the run", |server| {
        server.get("/api/v1/stats").json()["pool"]["running"] == 1
    });
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    // The request itself might have run for 30 seconds.
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_client_that_hangs_up_ends_its_run_and_one_that_is_late_is_told() {
    let together = ["--batched-models", "*"];
    for (name, arguments) in [("hang-up", &[][..]), ("hang-up-together", &together)] {
        hang_up(name, arguments);
    }
}

fn hang_up(name: &str, arguments: &[&str]) {
    let folder = folder(name);
    let (path, audit) = (folder.join("looping.onnx"), folder.join("audit.jsonl"));
    fs::write(&path, models::looping(Endless::WithMore)).unwrap();
    let mut serve = serve();
    serve.args(arguments);
    serve.args(["--request-timeout-ms", "60000", "--audit"]);
    serve.arg(&audit).arg(path).arg(digits());
    let server = Server::spawn(serve);
    let body = models::numbers("looping", &[1.0]);
    let whole = request("POST", "/api/v1/infer", &[JSON], body.as_bytes());
    let running = |server: &Server| server.get("/api/v1/stats").json()["pool"]["running"].clone();
    let begun = Instant::now();
    let mut stream = server.connect();
    stream.write_all(&whole).unwrap();
    server.wait_for("the run", |server| running(server) == 1);
    drop(stream);
    server.wait_for("the end of the run", |server| running(server) == 0);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{name}: it ran until its deadline"
    );
    server.wait_for("the line", |_| {
        requests_in(&audit).iter().any(|line| line["status"] == 499)
    });
    server.check("a client that hung up");
}

#[test]
fn the_trail_says_what_the_client_was_told_at_the_deadline() {
    let folder = folder("deadline");
    let (path, audit) = (folder.join("looping.onnx"), folder.join("audit.jsonl"));
    fs::write(&path, models::looping(Endless::WithMore)).unwrap();
    let mut serve = serve();
    serve.args(["--request-timeout-ms", "400", "--audit"]);
    serve.arg(&audit).arg(path);
    let server = Server::spawn(serve);
    let answer = server.infer(models::numbers("looping", &[1.0]).as_bytes());
    assert_eq!(answer.code(), "LETHE-DEADLINE");
    wait_for("the line", || !requests_in(&audit).is_empty());
    let lines = requests_in(&audit);
    assert_eq!(
        (lines.len(), &lines[0]["status"]),
        (1, &504.into()),
        "{lines:?}"
    );
    let stats = server.get("/api/v1/stats").json();
    let counted = &stats["by_model_and_tenant"][0];
    assert_eq!(counted["requests"]["failed"], 1, "{stats}");
}
