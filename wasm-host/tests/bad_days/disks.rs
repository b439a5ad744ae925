//! Disks that are full and power that goes: caches and audit trails afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::server::{Server, digits, digits_request, folder, lethe, serve};

/// A file system of one mebibyte, where the test may mount one.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(folder: PathBuf) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tiny"])
            .arg(&folder)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                eprintln!("skipped: no tmpfs may be mounted here: {other:?}");
                None
            }
        }
    }

    /// Takes all that is left.
    fn fill(&self) -> PathBuf {
        let file = self.0.join("fill");
        // It ends where there is no room.
        drop(fs::write(&file, vec![0; 2 << 20]));
        file
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // Lazily: a server may still have files open in it.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn verify(audit: &Path, more: &[&str]) -> Output {
    let mut verify = lethe();
    verify.args(["audit", "verify"]).arg(audit).args(more);
    verify.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_full_disk_is_told_and_the_trail_is_whole_when_it_has_room_again() {
    let Some(disk) = Tiny::mount(folder("full-disk")) else {
        return;
    };
    let audit = disk.0.join("audit.jsonl");
    let mut serve = serve();
    serve.arg("--audit").arg(&audit).arg(digits());
    let mut server = Server::spawn(serve);
    server.check("a disk with room");
    let fill = disk.fill();
    // Requests may be answered while their lines wait for room; they are not lost.
    let body = digits_request();
    server.wait_for("trouble to be told", |server| {
        let answer = server.infer(body.as_bytes());
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        server.get("/api/v1/health").status == 503
    });
    let health = server.get("/api/v1/health").json();
    assert_eq!(
        (&health["status"], &health["ready"]),
        (&"no_audit".into(), &false.into())
    );
    assert_eq!(server.get("/v2/health/ready").status, 503);
    assert_eq!(server.get("/v2/health/live").status, 200);
    fs::remove_file(fill).unwrap();
    server.wait_for("health", |server| {
        server.get("/api/v1/health").status == 200
    });
    server.check("a disk that was full");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    let verified = verify(&audit, &["--closed"]);
    assert!(verified.status.success(), "{}", said(&verified));
}

#[test]
fn a_cache_without_room_is_done_without() {
    let Some(disk) = Tiny::mount(folder("full-cache")) else {
        return;
    };
    disk.fill();
    let mut serve = serve();
    serve.env("LETHE_CACHE_DIR", &disk.0).arg(digits());
    let server = Server::spawn(serve);
    server.check("a cache without room");
}

#[test]
fn what_a_first_start_takes_is_given_back() {
    let cache = folder("first-start");
    let start = || {
        let mut serve = serve();
        serve.env("LETHE_CACHE_DIR", &cache).arg(digits());
        let server = Server::spawn(serve);
        let resident = server.resident_mib();
        server.check("a start");
        (resident, server.peak_mib())
    };
    let (first, of_compiling) = start();
    let (second, of_reading) = start();
    assert!(
        of_compiling > 3 * of_reading,
        "the first compiled, the second did not: {of_compiling} and {of_reading} MiB"
    );
    // Compiling leaves its own code's pages, and some memory between what is kept.
    assert!(
        first < second + of_compiling / 4,
        "{first} MiB after a first start, {second} after another, {of_compiling} at most"
    );
}

/// Every line that is whole, and whether it is about a request.
fn lines(audit: &Path) -> usize {
    let text = fs::read_to_string(audit).unwrap_or_default();
    let requests = text.lines().filter(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        line["kind"] == "request"
    });
    requests.count()
}

#[test]
fn a_trail_goes_on_after_each_kill() {
    let folder = folder("killed");
    let audit = folder.join("audit.jsonl");
    let body = digits_request();
    let mut before = 0;
    for round in 0..6u64 {
        let mut serve = serve();
        serve.arg("--audit").arg(&audit).arg(digits());
        let server = Server::spawn(serve);
        let answered = std::thread::scope(|scope| {
            let clients = [0; 3].map(|_| {
                scope.spawn(|| {
                    let mut answered = 0;
                    loop {
                        let Ok(mut stream) = std::net::TcpStream::connect(&server.address) else {
                            return answered;
                        };
                        let whole = crate::server::request(
                            "POST",
                            "/api/v1/infer",
                            &[crate::server::JSON],
                            body.as_bytes(),
                        );
                        if std::io::Write::write_all(&mut stream, &whole).is_err() {
                            return answered;
                        }
                        match crate::server::Answer::read(&mut stream) {
                            Some(answer) => assert_eq!(answer.status, 200, "{}", answer.text()),
                            None => return answered,
                        }
                        answered += 1;
                    }
                })
            });
            // A delay that differs from round to round, and from run to run.
            let noise = u64::from(std::process::id()) * 7919 % 97;
            std::thread::sleep(Duration::from_millis(120 + round * 37 + noise));
            server.signal("KILL");
            clients
                .map(|client| client.join().unwrap())
                .iter()
                .sum::<usize>()
        });
        drop(server);
        let after = lines(&audit);
        assert!(
            after >= before,
            "round {round}: lines were lost that had been written"
        );
        assert!(
            answered > 0 || round == 0,
            "round {round}: nothing was answered"
        );
        before = after;
    }
    let mut serve = serve();
    serve.arg("--audit").arg(&audit).arg(digits());
    let mut server = Server::spawn(serve);
    server.check("six kills");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    let verified = verify(&audit, &["--closed"]);
    assert!(verified.status.success(), "{}", said(&verified));
}

#[test]
fn a_trail_that_somebody_changed_is_not_written_on() {
    let folder = folder("changed");
    let audit = folder.join("audit.jsonl");
    let mut first = serve();
    first.arg("--audit").arg(&audit).arg(digits());
    let mut server = Server::spawn(first);
    server.check("a new trail");
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
    let text = fs::read_to_string(&audit).unwrap();
    fs::write(&audit, text.replace("\"status\":200", "\"status\":201")).unwrap();
    let mut second = serve();
    let output = second
        .arg("--audit")
        .arg(&audit)
        .arg(digits())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let lines = said(&output);
    assert!(lines.contains("audit"), "{lines}");
    assert!(!verify(&audit, &[]).status.success());
}

#[test]
fn a_cache_is_good_after_each_kill_and_after_damage() {
    let cache = folder("cache");
    let spawn = || {
        let mut serve = serve();
        serve.env("LETHE_CACHE_DIR", &cache).arg(digits());
        serve
    };
    // Killed while it fills the cache: at the beginning, in the middle, near the end.
    for delay in [50, 400, 1200] {
        let mut killed = spawn().stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    Server::spawn(spawn()).check("a cache that was being filled");
    // Every file cut, then every file with a byte changed.
    for damage in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
        |bytes: &mut Vec<u8>| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
    ] {
        let mut damaged = 0;
        for entry in fs::read_dir(&cache).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            if path.is_file() && bytes.len() > 1 {
                damage(&mut bytes);
                fs::write(&path, bytes).unwrap();
                damaged += 1;
            }
        }
        assert!(damaged > 0, "an empty cache");
        Server::spawn(spawn()).check("a damaged cache");
    }
}
