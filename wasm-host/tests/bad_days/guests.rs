//! Models that never end or never have enough, and models that are exchanged while they are used.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lethe_engine::graph::attributes::Attribute;
use lethe_engine::onnx::{proto, writer::ModelWriter};
use lethe_engine::{DataType, Tensor};

use crate::models::{self, Endless};
use crate::server::{Server, folder, serve, wait_for};

fn serving(folder: &Path, arguments: &[&str]) -> Server {
    let mut serve = serve();
    serve.args(arguments).arg("--models").arg(folder);
    Server::spawn(serve)
}

/// A sandbox around requests, and none.
const PLACES: [&str; 2] = ["sandbox", "none"];

#[test]
fn a_model_that_never_ends_is_stopped_at_the_deadline() {
    for isolation in PLACES {
        a_model_that_never_ends_is_stopped(isolation);
    }
}

fn a_model_that_never_ends_is_stopped(isolation: &str) {
    let folder = folder(&format!("looping-{isolation}"));
    fs::write(
        folder.join("looping.onnx"),
        models::looping(Endless::WithMore),
    )
    .unwrap();
    fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
    let server = serving(
        &folder,
        &[
            "--request-timeout-ms",
            "800",
            "--max-running",
            "2",
            "--isolation",
            isolation,
        ],
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
    let answer = server.control("/v2/repository/models/always/load", b"{}");
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

/// Constants of which a load makes one number, by a sum of more products than anybody waits for.
#[test]
fn a_load_that_computes_for_ever_is_given_up() {
    let zeros = Tensor::from_slice(&[1 << 14], &[0.0f32; 1 << 14]).unwrap();
    let equation = vec![("equation", Attribute::String("a,b,c->".into()))];
    let model = ["a", "b", "c"]
        .iter()
        .fold(ModelWriter::new(17), |model, name| {
            model.constant(name, &zeros)
        })
        .input("x", DataType::Float32, &["n"])
        .node("Einsum", &["a", "b", "c"], &["sum"], equation)
        .node("Add", &["x", "sum"], &["y"], vec![])
        .output("y");
    for isolation in PLACES {
        let folder = folder(&format!("folding-{isolation}"));
        fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
        let arguments = ["--load-timeout-ms", "1500", "--isolation", isolation];
        let server = serving(&folder, &arguments);
        fs::write(folder.join("sums.onnx"), model.to_bytes()).unwrap();
        let answer = server.control("/v2/repository/models/sums/load", b"{}");
        assert_eq!(
            (answer.status, &*answer.code()),
            (422, "LETHE-DEADLINE"),
            "{isolation}: {}",
            answer.text()
        );
    }
}

/// `y = x + w`, whose four weights begin a file that is far longer.
fn with_weights_beside() -> Vec<u8> {
    let entry = |key: &str, value: &str| proto::StringStringEntry {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    let weights = proto::Tensor {
        name: Some("w".into()),
        data_type: Some(DataType::Float32 as i32),
        dims: vec![4],
        external_data: vec![
            entry("location", "weights.bin"),
            entry("offset", "0"),
            entry("length", "16"),
        ],
        data_location: Some(1),
        ..Default::default()
    };
    models::model(proto::Graph {
        name: Some("weights".into()),
        node: vec![models::node("Add", &["x", "w"], &["y"])],
        initializer: vec![weights],
        input: vec![models::value("x", DataType::Float32, &["four"])],
        output: vec![models::value("y", DataType::Float32, &["four"])],
        ..Default::default()
    })
}

#[test]
fn a_load_of_weights_that_are_too_many_is_given_up_while_others_are_answered() {
    // A limit of time, and one of size; which of them ends the load.
    let limits: [(&[&str], &str); 2] = [
        (
            &[
                "--load-timeout-ms",
                "2000",
                "--max-model-size-mb",
                "10000000",
            ],
            "LETHE-DEADLINE",
        ),
        (&["--max-model-size-mb", "64"], "LETHE-MODEL-SIZE"),
    ];
    for isolation in PLACES {
        for (arguments, code) in limits {
            let folder = folder(&format!("weights-{isolation}-{code}"));
            fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
            let server = serving(&folder, &[arguments, &["--isolation", isolation]].concat());
            fs::write(folder.join("weights.onnx"), with_weights_beside()).unwrap();
            let weights = fs::File::create(folder.join("weights.bin")).unwrap();
            // Nothing but a length: no disk holds it, but who reads it is busy for minutes.
            weights.set_len(1 << 39).unwrap();
            let begun = Instant::now();
            std::thread::scope(|scope| {
                let load =
                    scope.spawn(|| server.control("/v2/repository/models/weights/load", b"{}"));
                while !load.is_finished() {
                    let asked = Instant::now();
                    assert_eq!(server.get("/api/v1/health").status, 200);
                    assert_eq!(server.get("/api/v1/models").status, 200);
                    let took = asked.elapsed();
                    assert!(
                        took < Duration::from_secs(10),
                        "{isolation}, {code}: {took:?}"
                    );
                    std::thread::sleep(Duration::from_millis(50));
                }
                let answer = load.join().unwrap();
                assert_eq!(
                    (answer.status, &*answer.code()),
                    (422, code),
                    "{isolation}: {}",
                    answer.text()
                );
            });
            let took = begun.elapsed();
            assert!(
                took < Duration::from_secs(30),
                "{isolation}, {code}: {took:?}"
            );
            // One that is as long as it should be.
            weights.set_len(16).unwrap();
            let answer = server.control("/v2/repository/models/weights/load", b"{}");
            let loaded = answer.json();
            assert_eq!(answer.status, 200, "{isolation}, {code}: {loaded}");
            assert_eq!(
                loaded["sha256"].as_str().map(str::len),
                Some(64),
                "{loaded}"
            );
        }
    }
}

/// A tenant's own limit, which is below the server's deadline.
#[test]
fn a_run_is_stopped_when_its_tenant_has_no_more_time() {
    for isolation in PLACES {
        let folder = folder(&format!("compute-{isolation}"));
        fs::write(
            folder.join("looping.onnx"),
            models::looping(Endless::WithMore),
        )
        .unwrap();
        let settings = folder.join("lethe.toml");
        fs::write(&settings, "[tenants.default]\ncompute_ms = 300\n").unwrap();
        let settings = settings.to_str().unwrap();
        let server = serving(&folder, &["--config", settings, "--isolation", isolation]);
        let answer = server.infer(models::numbers("looping", &[1.0, 2.0]).as_bytes());
        assert_eq!(
            (answer.status, &*answer.code()),
            (504, "LETHE-DEADLINE"),
            "{isolation}: {}",
            answer.text()
        );
        server.wait_for("the end of the run", |server| {
            server.get("/api/v1/stats").json()["pool"]["running"] == 0
        });
    }
}

/// What is written over a model's file, or cut off it, is no business of one that is loaded.
#[test]
fn a_file_that_changes_under_a_loaded_model_changes_nothing() {
    for isolation in PLACES {
        let folder = folder(&format!("changed-{isolation}"));
        let path = folder.join("digits.onnx");
        let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits/model.onnx");
        fs::copy(digits, &path).unwrap();
        let server = serving(&folder, &["--isolation", isolation]);
        let body = models::numbers_of("digits", "input", &[1, 1, 28, 28], &[0.5; 28 * 28]);
        let ask = || server.infer(body.as_bytes());
        let before = ask();
        assert_eq!(before.status, 200, "{isolation}: {}", before.text());
        for content in [&b""[..], b"short", &[0; 1 << 20]] {
            fs::write(&path, content).unwrap();
            let after = ask();
            assert_eq!(after.text(), before.text(), "{isolation}");
        }
    }
}

#[test]
fn a_model_that_grows_is_stopped_at_its_memory() {
    for isolation in PLACES {
        a_model_that_grows_is_stopped(isolation);
    }
}

fn a_model_that_grows_is_stopped(isolation: &str) {
    let folder = folder(&format!("growing-{isolation}"));
    fs::write(folder.join("growing.onnx"), models::growing()).unwrap();
    fs::write(folder.join("plus.onnx"), models::plus(1.0)).unwrap();
    let settings = folder.join("lethe.toml");
    fs::write(&settings, "[tenants.default]\nmemory_bytes = 268435456\n").unwrap();
    let settings = settings.to_str().unwrap();
    let server = serving(&folder, &["--config", settings, "--isolation", isolation]);
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
    let load = || server.control("/api/v1/models/load", br#"{"model":"plus"}"#);
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
