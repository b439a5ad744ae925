//! Two tenants, many requests with canaries of their own, and the whole memory of the server.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use memchr::memmem;
use serde_json::json;

use crate::models;
use crate::serving::{self, Server};
use crate::websocket::{Stream, frame};

/// Requests in all; `LETHE_CANARIES` says another number.
const REQUESTS: usize = 100_000;
/// The memory is searched after so many.
const BATCH: usize = 5_000;
/// Connections, half of them each tenant's.
const CONNECTIONS: usize = 8;
/// How each canary begins: what the search looks for. No other program has it in memory.
const MARK: &[u8; 12] = b"\x9bLeThE\xf1\x07can\xa3";
const CANARY_BYTES: usize = 32;

impl Server {
    fn start(mut command: Command) -> Self {
        command.env("LETHE_CACHE_DIR", crate::cache());
        Self::spawn(command)
    }

    /// Where in its memory a canary begins, by the names of the mappings.
    fn canaries(&self) -> Vec<String> {
        let folder = PathBuf::from(format!("/proc/{}", self.process.id()));
        let memory = File::open(folder.join("mem")).unwrap();
        let mut chunk = vec![0u8; 4 << 20];
        let mut places = Vec::new();
        for mapping in fs::read_to_string(folder.join("maps")).unwrap().lines() {
            let fields: Vec<&str> = mapping.split_whitespace().collect();
            let name = fields.get(5).copied().unwrap_or("anonymous");
            if !fields[1].starts_with('r') || name.starts_with("[v") {
                continue;
            }
            let (start, end) = fields[0].split_once('-').unwrap();
            let address = |hex| u64::from_str_radix(hex, 16).unwrap();
            let (mut at, end) = (address(start), address(end));
            while at < end {
                let len = (end - at).min(chunk.len() as u64) as usize;
                let read = memory.read_at(&mut chunk[..len], at).unwrap_or(0);
                for i in find(&chunk[..read]) {
                    places.push(format!("{:#x} in {name}", at + i as u64));
                }
                // Pieces overlap by a mark, so that none is cut in two.
                at += if (len as u64) < end - at {
                    (len - MARK.len()) as u64
                } else {
                    len as u64
                };
            }
        }
        places.dedup();
        places
    }
}

/// Where a canary begins, as bytes or as the hexadecimal text that names its request.
fn find(memory: &[u8]) -> Vec<usize> {
    let text: Vec<u8> = MARK
        .iter()
        .flat_map(|b| format!("{b:02x}").into_bytes())
        .collect();
    let marks = [&MARK[..], &text];
    let found = marks.map(|mark| memmem::find_iter(memory, mark).collect::<Vec<_>>());
    found.concat()
}

/// A connection that is kept.
struct Client {
    stream: BufReader<TcpStream>,
    key: String,
    random: u64,
}

impl Client {
    fn connect(server: &Server, key: &str, seed: u64) -> Self {
        let stream = TcpStream::connect(&server.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
            key: key.into(),
            random: seed,
        }
    }

    fn canary(&mut self) -> [u8; CANARY_BYTES] {
        let mut canary = [0; CANARY_BYTES];
        canary[..MARK.len()].copy_from_slice(MARK);
        for byte in &mut canary[MARK.len()..] {
            // Xorshift (Marsaglia 2003).
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            *byte = (self.random >> 32) as u8;
        }
        canary
    }

    /// Sends a canary, as a tensor and in the text of the request, and checks what comes back.
    fn ask(&mut self) {
        let canary = self.canary();
        let tensor = canary.repeat(4);
        let id: String = canary.iter().map(|byte| format!("{byte:02x}")).collect();
        let json = format!(
            r#"{{"id":"{id}","inputs":[{{"name":"x","shape":[{len}],"datatype":"UINT8","parameters":{{"binary_data_size":{len}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
            len = tensor.len()
        );
        let head = format!(
            "POST /v2/models/echo/infer HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\ncontent-type: application/octet-stream\r\ninference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
            self.key,
            json.len(),
            json.len() + tensor.len()
        );
        let whole = [head.as_bytes(), json.as_bytes(), &tensor].concat();
        self.stream.get_mut().write_all(&whole).unwrap();
        let (mut status, mut len) = (String::new(), 0);
        self.stream.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(status.contains(" 200 "), "{status}{text}");
        assert!(text.contains(&id), "another request's name");
        assert!(body.ends_with(&tensor), "another request's tensor");
    }
}

/// Sends canaries, searches the memory after each batch, and gives where some were left.
fn left_behind(command: Command, keys: [&str; 2], requests: usize) -> Vec<String> {
    let server = Server::start(command);
    let mut clients: Vec<Client> = (0..CONNECTIONS)
        .map(|i| Client::connect(&server, keys[i % 2], 0x9e37_79b9_7f4a_7c15 ^ (i as u64 + 1)))
        .collect();
    let mut sent = 0;
    while sent < requests {
        std::thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| (0..BATCH / CONNECTIONS).for_each(|_| client.ask()));
            }
        });
        sent += BATCH / CONNECTIONS * CONNECTIONS;
        // An answer arrives a moment before the server has dropped its own end of it.
        std::thread::sleep(Duration::from_millis(100));
        let found = server.canaries();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn requests() -> usize {
    let asked = std::env::var("LETHE_CANARIES").ok();
    asked.map_or(REQUESTS, |count| count.parse().unwrap())
}

/// The echoing model in a file, and keys of two tenants.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("canaries");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("echo.onnx"), models::echo()).unwrap();
    folder
}

/// `lethe serve` of the echoing model for two tenants, and a key of each.
fn served(keys_file: &str) -> (Command, [String; 2]) {
    let folder = folder();
    let file = folder.join(keys_file);
    // It may be that of an earlier run.
    drop(fs::remove_file(&file));
    let keys = ["a", "b"].map(|tenant| {
        let key = lethe_host::tenants::KeyFile::create(&file, tenant, None);
        key.unwrap().key.to_string()
    });
    let mut lethe = serving::program(&crate::cache());
    lethe.args(["serve", "--port", "0", "--confine", "false"]);
    // Connections rest while the memory is searched, which takes long on a slow machine.
    lethe.args(["--header-timeout-ms", "600000", "--keys"]);
    lethe.arg(&file).arg(folder.join("echo.onnx"));
    (lethe, keys)
}

#[test]
fn no_canary_of_a_session_survives_its_end() {
    let (command, keys) = served("session-keys");
    let server = Server::start(command);
    let mut sessions = keys.each_ref().map(|key| {
        let stream = TcpStream::connect(&server.address).unwrap();
        let header = format!("x-api-key: {key}\r\n");
        Stream::connect(stream, "/api/v1/stream?session=echo", &header).unwrap()
    });
    for (i, session) in sessions.iter_mut().enumerate() {
        let mut client = Client::connect(&server, &keys[i], 77 + i as u64);
        for _ in 0..20 {
            let canary = client.canary();
            let id: String = canary.iter().map(|byte| format!("{byte:02x}")).collect();
            let tensor = json!({
                "name": "x", "shape": [canary.len()], "datatype": "UINT8", "data": &canary[..],
            });
            let request = json!({ "model": "echo", "id": id, "inputs": [tensor] });
            session.send(&request.to_string());
            let answer = session.next().unwrap();
            assert_eq!(answer["result"]["outputs"][0]["data"], json!(&canary[..]));
        }
    }
    let kept = server.canaries();
    assert!(
        !kept.is_empty(),
        "the instances of the sessions hold nothing"
    );
    // One takes its leave, the other hangs up.
    let [mut one, other] = sessions;
    let close = frame(8, &1000u16.to_be_bytes());
    one.0.get_mut().write_all(&close).unwrap();
    assert!(one.next().is_none());
    drop((one, other));
    let begun = Instant::now();
    let mut found = server.canaries();
    while !found.is_empty() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(100));
        found = server.canaries();
    }
    assert!(
        found.is_empty(),
        "{} of {}: {found:?}",
        found.len(),
        kept.len()
    );
}

#[test]
fn no_canary_of_two_tenants_survives_in_the_server() {
    let (lethe, keys) = served("keys");
    let found = left_behind(lethe, [&keys[0], &keys[1]], requests());
    assert!(
        found.is_empty(),
        "{} canaries: {:?}",
        found.len(),
        &found[..found.len().min(10)]
    );
}

#[test]
fn the_same_search_finds_canaries_where_nothing_is_wiped() {
    let program = Path::new(env!("CARGO_BIN_EXE_lethe"));
    let program = program.parent().unwrap().join("examples/unwiped_server");
    let mut unwiped = Command::new(program);
    unwiped.arg(folder().join("echo.onnx"));
    let found = left_behind(unwiped, ["", ""], BATCH);
    assert!(
        !found.is_empty(),
        "the search finds nothing where nothing is wiped"
    );
}
