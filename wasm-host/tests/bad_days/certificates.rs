//! TLS: a certificate is exchanged while the server runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::server::{Server, digits, folder, serve, wait_for};

/// A certificate of its own making, if there is a program that makes one.
fn certificate(folder: &Path, name: &str) -> Option<()> {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", &format!("/CN={name}")])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(folder.join(format!("{name}.key")))
        .arg("-out")
        .arg(folder.join(format!("{name}.pem")))
        .output();
    match made {
        Ok(output) if output.status.success() => Some(()),
        other => {
            eprintln!("skipped: no certificate can be made: {other:?}");
            None
        }
    }
}

/// The status that a client gets which trusts one certificate alone; `None` where it does not
/// trust the server.
fn status(server: &Server, trusted: &Path, more: &[&str]) -> Option<String> {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "30",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{http_version}",
            "--cacert",
        ])
        .arg(trusted)
        .args(more)
        .arg(format!("https://{}/api/v1/health", server.address))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    output.status.success().then_some(said)
}

#[test]
fn a_certificate_is_exchanged_while_the_server_runs() {
    let folder = folder("certificates");
    if certificate(&folder, "old")
        .and_then(|()| certificate(&folder, "new"))
        .is_none()
    {
        return;
    }
    if Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return eprintln!("skipped: no curl");
    }
    let (pem, key) = (folder.join("server.pem"), folder.join("server.key"));
    let install = |name: &str| {
        // In two steps: between them, certificate and key do not fit each other.
        fs::copy(folder.join(format!("{name}.pem")), &pem).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1200));
        fs::copy(folder.join(format!("{name}.key")), &key).unwrap();
    };
    install("old");
    let mut serve = serve();
    serve.env("LETHE_LOG", "off");
    serve
        .arg("--tls-cert")
        .arg(&pem)
        .arg("--tls-key")
        .arg(&key)
        .arg(digits());
    let server = Server::spawn(serve);
    let (old, new) = (folder.join("old.pem"), folder.join("new.pem"));
    assert_eq!(
        status(&server, &old, &["--http1.1"]).as_deref(),
        Some("200 1.1")
    );
    assert_eq!(
        status(&server, &old, &["--http2"]).as_deref(),
        Some("200 2")
    );
    assert_eq!(status(&server, &new, &[]), None);
    // Who does not speak TLS gets nothing.
    assert!(
        crate::server::Answer::read(&mut {
            use std::io::Write;
            let mut stream = server.connect();
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .unwrap();
            stream
        })
        .is_none()
    );
    install("new");
    wait_for("the new certificate", || {
        status(&server, &new, &[]).is_some()
    });
    assert_eq!(status(&server, &old, &[]), None);
    // What is no certificate changes nothing.
    fs::write(&pem, "no certificate").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(status(&server, &new, &[]).is_some());
}
