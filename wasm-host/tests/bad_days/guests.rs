//! Models that never end or never have enough, and models that are exchanged while they are used.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::models::{self, Endless};
use crate::server::{JSON, Server, folder, serve, wait_for};

fn serving(folder: &Path, arguments: &[&str]) -> Server {
    let mut serve = serve();
    serve.args(arguments).arg("--models").arg(folder);
    Server::spawn(serve)
}

#[test]
fn a_model_that_never_ends_is_stopped_at_the_deadline() {
    let folder = folder("looping");
    fs::write(
        folder.join("looping.onnx"),
        models::looping(Endless::WithMore),
    )
    .unwrap();
    fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
    let server = serving(
        &folder,
        &["--request-timeout-ms", "800", "--max-running", "2"],
    );
    let begun = Instant::now();
    let asked = models::numbers("looping", &[1.0, 2.0]);
    // More than may run: what waits for them is refused or stopped at its own deadline.
    std::thread::scope(|scope| {
        let all = [0; 6].map(|_| scope.spawn(|| server.infer(asked.as_bytes())));
        for one in all {
            let answer = one.join().unwrap();
            let (status, code) = (answer.status, answer.code());
            assert!(
                matches!(
                    (status, &*code),
                    (504, "LETHE-DEADLINE") | (503, "LETHE-OVERLOAD")
                ),
                "{}",
                answer.text()
            );
        }
    });
    // Generous: the machine is busy, and six may have come one after the other.
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    server.wait_for("the end of the runs", |server| {
        server.get("/api/v1/stats").json()["pool"]["running"] == 0
    });
    let answer = server.infer(models::numbers("plus", &[1.0]).as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_model_that_never_ends_while_it_is_loaded_is_given_up() {
    let folder = folder("loading");
    fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
    let server = serving(&folder, &["--load-timeout-ms", "1500"]);
    fs::write(folder.join("always.onnx"), models::looping(Endless::Always)).unwrap();
    let begun = Instant::now();
    let answer = server.post("/v2/repository/models/always/load", &[JSON], b"{}");
    assert_eq!(
        (answer.status, &*answer.code()),
        (422, "LETHE-DEADLINE"),
        "{}",
        answer.text()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    let answer = server.infer(models::numbers("plus", &[1.0]).as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_model_that_grows_is_stopped_at_its_memory() {
    let folder = folder("growing");
    fs::write(folder.join("growing.onnx"), models::growing()).unwrap();
    fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
    let settings = folder.join("lethe.toml");
    fs::write(&settings, "[tenants.default]\nmemory_bytes = 268435456\n").unwrap();
    let server = serving(&folder, &["--config", settings.to_str().unwrap()]);
    let answer = server.infer(models::numbers("growing", &[1.0; 1000]).as_bytes());
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(
        matches!(&*answer.code(), "LETHE-MEMORY-LIMIT" | "LETHE-BUDGET"),
        "{}",
        answer.text()
    );
    assert!(server.peak_mib() < 1024, "{} MiB", server.peak_mib());
    let answer = server.infer(models::numbers("plus", &[1.0]).as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Puts a file in the place of another as a careful operator does.
fn replace(path: &Path, content: &[u8]) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content).unwrap();
    fs::rename(&temporary, path).unwrap();
}

#[test]
fn a_model_is_exchanged_under_load_without_an_error_or_a_mixed_answer() {
    let folder = folder("exchange");
    let path = folder.join("plus.onnx");
    fs::write(&path, models::plus(1.0)).unwrap();
    let server = serving(&folder, &[]);
    let load = || server.post("/api/v1/models/load", &[JSON], br#"{"model":"plus"}"#);
    let body = models::numbers("plus", &[0.0; 500]);
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = server.infer(body.as_bytes());
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let data = answer.json()["outputs"][0]["data"].clone();
                    let data: Vec<f32> = serde_json::from_value(data).unwrap();
                    assert!(data.len() == 500 && [1.0, 2.0, 3.0].contains(&data[0]));
                    assert!(
                        data.iter().all(|x| *x == data[0]),
                        "two versions in one answer"
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let more = || {
            let before = answered.load(Ordering::Relaxed);
            wait_for("answers", || answered.load(Ordering::Relaxed) > before + 5);
        };
        // Whatever goes wrong, the other threads end.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more();
            for constant in [2.0, 1.0, 2.0] {
                replace(&path, &models::plus(constant));
                assert_eq!(load().status, 200);
                more();
            }
            // A broken file: 422, and the old version answers on.
            for broken in [&b"no model"[..], &models::plus(3.0)[..20], b""] {
                replace(&path, broken);
                let answer = load();
                assert_eq!(answer.status, 422, "{}", answer.text());
                more();
                let answer = server.infer(body.as_bytes());
                assert_eq!(answer.json()["outputs"][0]["data"][0], 2.0);
            }
            replace(&path, &models::plus(3.0));
            assert_eq!(load().status, 200);
            more();
        }));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    let answer = server.infer(body.as_bytes());
    assert_eq!(answer.json()["outputs"][0]["data"][0], 3.0);
}
