//! A server under test, and the simplest clients that can misbehave.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::serving;
pub(crate) use crate::serving::Server;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn digits() -> PathBuf {
    root().join("models/digits/model.onnx")
}

/// A folder of a test's own, empty at its begin.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("bad-days")
        .join(name);
    // It may be that of an earlier run.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-cache")
}

/// The program, with the cache that all tests share.
pub(crate) fn lethe() -> Command {
    let mut lethe = serving::program(&cache());
    lethe.env("LETHE_LOG", "error");
    lethe
}

/// `lethe serve` on a free port, without models.
pub(crate) fn serve() -> Command {
    let mut serve = lethe();
    serve.args(["serve", "--port", "0"]);
    serve
}

impl Server {
    /// Serves the embedded digits.
    pub(crate) fn digits(arguments: &[&str]) -> Self {
        let mut serve = serve();
        serve.args(arguments).arg(digits());
        Self::spawn(serve)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// What comes back for these bytes on a connection of their own.
    pub(crate) fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that refuses a body by its length may close before it is all sent.
        drop(stream.write_all(bytes));
        Answer::read(&mut stream).unwrap_or_else(|| panic!("no answer"))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&request("GET", path, &[], b""))
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&request("POST", path, headers, body))
    }

    /// The value of `Authorization` that loads models.
    pub(crate) fn bearer(&self) -> String {
        self.bearer
            .clone()
            .expect("a server without keys prints it")
    }

    /// Posts what is for who may control the server.
    pub(crate) fn control(&self, path: &str, body: &[u8]) -> Answer {
        let bearer = self.bearer();
        self.post(path, &[JSON, ("authorization", &bearer)], body)
    }

    pub(crate) fn infer(&self, body: &[u8]) -> Answer {
        self.post("/api/v1/infer", &[JSON], body)
    }

    /// Asks for digits, and expects them.
    pub(crate) fn check(&self, after: &str) {
        let answer = self.infer(digits_request().as_bytes());
        assert_eq!(answer.status, 200, "{after}: {}", answer.text());
        assert_eq!(answer.json()["outputs"][0]["shape"][1], 10, "{after}");
    }

    /// Asks until there is an answer like this.
    pub(crate) fn wait_for(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        wait_for(what, || is_so(self));
    }

    fn status_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let value = line.unwrap().trim().split(' ').next().unwrap();
        value.parse().unwrap()
    }

    /// The memory that is resident, in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        self.status_kib("VmRSS:") >> 10
    }

    /// The most memory that was resident so far, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        self.status_kib("VmHWM:") >> 10
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not end");
    }
}

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// A whole request, which ends its connection.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads until the server closes; `None` where it said nothing.
    pub(crate) fn read(stream: &mut impl Read) -> Option<Self> {
        let mut whole = Vec::new();
        // A reset after the answer is the end of it, too.
        drop(stream.read_to_end(&mut whole));
        Self::parse(&whole)
    }

    pub(crate) fn parse(whole: &[u8]) -> Option<Self> {
        let end = whole.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8(whole[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self {
            status,
            body: whole[end + 4..].to_vec(),
            head: head.to_ascii_lowercase(),
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Its code, if it is a problem.
    pub(crate) fn code(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(found, _)| *found == name)?;
        Some(value.trim())
    }
}

/// Reads one answer of a connection that stays open.
pub(crate) fn read_one(stream: &mut BufReader<TcpStream>) -> Answer {
    let mut head = Vec::new();
    let mut len = 0;
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).unwrap();
        assert!(read > 0, "closed in the head: {head:?}");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().unwrap();
        }
        head.extend_from_slice(line.as_bytes());
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).unwrap();
    Answer::parse(&[head, body].concat()).unwrap()
}

/// What else comes until the server closes, and how long that took; panics if it does not close.
pub(crate) fn until_closed(stream: &mut TcpStream) -> (Vec<u8>, Duration) {
    let (mut rest, mut piece, begun) = (Vec::new(), [0; 4096], Instant::now());
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (rest, begun.elapsed()),
            Ok(len) => rest.extend_from_slice(&piece[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return (rest, begun.elapsed());
            }
            Err(error) => panic!("the server keeps the connection: {error}"),
        }
    }
}

/// Says that no more will come.
pub(crate) fn no_more(stream: &TcpStream) {
    // The server may have closed already.
    drop(stream.shutdown(Shutdown::Write));
}

/// A request for digits that is well formed.
pub(crate) fn digits_request() -> String {
    let zeros = vec!["0.25"; 784].join(",");
    format!(
        r#"{{"model":"digits","inputs":[{{"name":"input","shape":[1,1,28,28],"datatype":"FP32","data":[{zeros}]}}]}}"#
    )
}

/// The lines of an audit trail about requests.
pub(crate) fn requests_in(audit: &Path) -> Vec<Value> {
    let text = fs::read_to_string(audit).unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["kind"] == "request")
        .collect()
}
