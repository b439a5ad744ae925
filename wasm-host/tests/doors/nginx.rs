//! The recipe `deploy/edge/nginx.conf`, run by Debian's nginx in front of a bundle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server::{bundle, free_port, root, wasmtime_serve};
use crate::{check, digits, digits_request};

/// nginx in a folder of its own, which ends with the test.
struct Nginx {
    process: Child,
    folder: PathBuf,
    address: String,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it when it is asked to; killed, it would leave them behind.
        let pid = self.process.id().to_string();
        drop(Command::new("kill").arg(pid).status());
        drop(self.process.wait());
    }
}

impl Nginx {
    /// The recipe with other ports and a certificate of its own; `None` where a program is missing.
    fn start(upstream: &str) -> Option<Self> {
        let nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let curl = Command::new("curl").arg("--version").output().is_ok();
        let openssl = Command::new("openssl").arg("version").output().is_ok();
        let (Some(nginx), true, true) = (nginx, curl, openssl) else {
            eprintln!("skipped: nginx, curl or openssl is not installed");
            return None;
        };
        let folder = std::env::temp_dir().join(format!("lethe-nginx-{}", std::process::id()));
        for part in ["logs", "tmp"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        let certificate = Command::new("openssl")
            .current_dir(&folder)
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ])
            .args([
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
                "edge.key",
                "-out",
                "edge.crt",
            ])
            .output()
            .unwrap();
        assert!(
            certificate.status.success(),
            "{}",
            String::from_utf8_lossy(&certificate.stderr)
        );
        let recipe = fs::read_to_string(root().join("deploy/edge/nginx.conf")).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let ours = recipe
            .replace("listen 8443 ssl", &format!("listen {address} ssl"))
            .replace("server 127.0.0.1:8080", &format!("server {upstream}"));
        assert!(ours.contains(&address) && ours.contains(upstream));
        fs::write(folder.join("nginx.conf"), ours).unwrap();
        let process = Command::new(nginx)
            .args(["-g", "daemon off;", "-c", "nginx.conf", "-p"])
            .arg(&folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self {
            process,
            folder,
            address,
        };
        let start = Instant::now();
        while std::net::TcpStream::connect(&nginx.address).is_err() {
            let log = fs::read_to_string(nginx.folder.join("logs/error.log"));
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "nginx does not listen: {log:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(nginx)
    }

    /// What curl writes of an exchange over TLS, certificate checked: the body and then the status.
    fn curl(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        let done = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "60",
                "-w",
                "\n%{http_code}",
                "--cacert",
            ])
            .arg(self.folder.join("edge.crt"))
            .args(arguments)
            .arg(format!("https://{}{path}", self.address))
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

#[test]
fn the_recipe_for_nginx_keeps_its_limits() {
    let bundle = bundle(&digits().join("model.onnx"), "nginx.wasm");
    let Some(server) = wasmtime_serve(&bundle) else {
        return;
    };
    let Some(nginx) = Nginx::start(&server.address) else {
        return;
    };

    let request = nginx.folder.join("request.json");
    fs::write(&request, digits_request()).unwrap();
    let request = format!("@{}", request.display());
    let json = [
        "-H",
        "content-type: application/json",
        "--data-binary",
        &request,
    ];
    let (status, body) = nginx.curl("/api/v1/infer", &json);
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
    check("nginx", &(status, answer));
    let events = [&json[..], &["-H", "accept: text/event-stream"]].concat();
    let (status, body) = nginx.curl("/api/v1/infer", &events);
    assert!(
        status == 200 && body.contains("event: done"),
        "{status} {body}"
    );
    assert_eq!(nginx.curl("/v2/models/digits/ready", &[]).0, 200);
    // Nothing else is let through, and a problem of the bundle's keeps its form.
    assert_eq!(nginx.curl("/", &[]).0, 404);
    assert_eq!(nginx.curl("/api/v1x", &[]).0, 404);
    let (status, body) = nginx.curl("/api/v1/nothing", &[]);
    assert!(
        status == 404 && body.contains("LETHE-ROUTE"),
        "{status} {body}"
    );

    let large = nginx.folder.join("large");
    fs::write(&large, vec![b' '; (16 << 20) + 1]).unwrap();
    let large = format!("@{}", large.display());
    let (status, _) = nginx.curl("/api/v1/infer", &["-H", "expect:", "--data-binary", &large]);
    assert_eq!(status, 413);

    // TLS alone is spoken, and old versions of it are not.
    let plain = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg(format!("http://{}/api/v1/health", nginx.address))
        .output()
        .unwrap();
    assert_eq!(plain.stdout, b"400");
    let old = Command::new("curl")
        .args(["-sS", "--tls-max", "1.1", "--insecure"])
        .arg(format!("https://{}/api/v1/health", nginx.address))
        .output()
        .unwrap();
    assert!(!old.status.success());

    let many = Command::new("curl")
        .args(["-sS", "-w", "%{stderr}%{http_code}\n", "--cacert"])
        .arg(nginx.folder.join("edge.crt"))
        .args(["-o", "/dev/null", "--parallel", "--parallel-max", "10"])
        .arg(format!("https://{}/api/v1/health?[1-200]", nginx.address))
        .output()
        .unwrap();
    let statuses = String::from_utf8(many.stderr).unwrap();
    let count = |status: &str| statuses.lines().filter(|line| *line == status).count();
    assert!(count("429") > 0 && count("200") >= 20, "{statuses}");
    let log = fs::read_to_string(nginx.folder.join("logs/access.log")).unwrap();
    assert!(log.contains("POST /api/v1/infer 200"), "{log}");
    let folder = nginx.folder.clone();
    drop(nginx);
    fs::remove_dir_all(folder).unwrap();
}
