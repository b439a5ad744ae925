//! Servers under test: `lethe serve`, and stock hosts of bundles.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use crate::serving::Server;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-cache")
}

pub(crate) fn lethe() -> Command {
    crate::serving::program(&cache())
}

impl Server {
    /// `lethe serve` on a free port.
    pub(crate) fn lethe(arguments: &[&str]) -> Self {
        let mut serve = lethe();
        serve.args(["serve", "--port", "0"]).args(arguments);
        serve.arg(root().join("models/digits/model.onnx"));
        Self::spawn(serve)
    }

    /// Another program, once it listens on `port`.
    pub(crate) fn peer(mut command: Command, port: u16) -> Self {
        // jco answers in a process of its own.
        let process = command
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            process,
            address: format!("127.0.0.1:{port}"),
            bearer: None,
        };
        let start = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "{command:?} does not listen"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    pub(crate) fn request(&self, head: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        write!(
            stream,
            "{head}host: {}\r\nconnection: close\r\n",
            self.address
        )
        .unwrap();
        write!(stream, "content-length: {}\r\n\r\n", body.len()).unwrap();
        // A server that refuses a body by its length may close before it is all sent.
        drop(stream.write_all(body));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let body = if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        };
        let json = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body:?}"));
        (status, json)
    }

    pub(crate) fn infer(&self, body: &str) -> (u16, Value) {
        self.request(
            "POST /api/v1/infer HTTP/1.1\r\ncontent-type: application/json\r\n",
            body.as_bytes(),
        )
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((len, rest)) = body.split_once("\r\n") {
        let len = usize::from_str_radix(len.trim(), 16).unwrap();
        if len == 0 {
            break;
        }
        whole.push_str(&rest[..len]);
        body = &rest[len + 2..];
    }
    whole
}

/// `lethe bundle` of a model, with reproducible numerics, as a file of this name.
pub(crate) fn bundle(model: &Path, name: &str) -> PathBuf {
    bundle_with(&["--numerics", "reproducible"], &[model], name, &cache())
}

/// `lethe bundle` of these models with these arguments, as a file of this name, with a folder for
/// images.
pub(crate) fn bundle_with(
    arguments: &[&str],
    models: &[&Path],
    name: &str,
    cache: &Path,
) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let done = lethe()
        .env("LETHE_CACHE_DIR", cache)
        .arg("bundle")
        .args(arguments)
        .arg("-o")
        .arg(&path)
        .args(models)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    path
}

/// Stock `wasmtime`, where it was built.
pub(crate) fn wasmtime() -> Option<Command> {
    let program = examples().join("wasmtime_serve");
    if !program.exists() {
        eprintln!("skipped: wasmtime serve is not built: --features wasmtime-serve");
        return None;
    }
    Some(Command::new(program))
}

/// Stock `wasmtime serve` on a bundle, where it was built.
pub(crate) fn wasmtime_serve(bundle: &Path) -> Option<Server> {
    let port = free_port();
    let mut command = wasmtime()?;
    // Where it was compiled ahead; another file is refused or taken just the same.
    command
        .args(["--allow-precompiled", "--addr"])
        .arg(format!("127.0.0.1:{port}"))
        .arg(bundle);
    Some(Server::peer(command, port))
}

/// Where cargo puts this package's examples.
fn examples() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_lethe"));
    program.parent().unwrap().join("examples")
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
