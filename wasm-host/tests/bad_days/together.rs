//! Requests that are answered by one run: which ones, and which never. The model adds up the rows of
//! its input, so that an answer shows how many requests were before it in its run.

use std::sync::{Arc, Barrier};
use std::thread;

use lethe_engine::onnx::writer::ModelWriter;
use lethe_engine::{DataType, Tensor};
use lethe_host::tenants::KeyFile;

use crate::models;
use crate::server::{JSON, Server, folder, request, serve};

/// A server of that model with keys of two tenants.
fn house(name: &str, arguments: &[&str]) -> (Server, [String; 2]) {
    let folder = folder(name);
    let axis = Tensor::from_slice(&[], &[0i64]).unwrap();
    let running = ModelWriter::new(14)
        .input("x", DataType::Float32, &["n"])
        .constant("axis", &axis)
        .node("CumSum", &["x", "axis"], &["y"], vec![])
        .output("y");
    let model = folder.join("running.onnx");
    std::fs::write(&model, running.to_bytes()).unwrap();
    let keys = folder.join("keys");
    let made = ["first", "second"].map(|tenant| {
        let new = KeyFile::create(&keys, tenant, None).unwrap();
        new.key.to_string()
    });
    let mut serve = serve();
    serve.arg("--keys").arg(&keys).args(arguments).arg(&model);
    (Server::spawn(serve), made)
}

/// What clients with these keys get, who all ask at once for the sum of one row, 1. Another one asks
/// with the first key and does not wait.
fn sums(server: &Server, keys: &[&str]) -> Vec<f64> {
    let start = Arc::new(Barrier::new(keys.len() + 1));
    let ask = |key: &str| {
        let headers = [JSON, ("x-api-key", key)];
        let body = models::numbers("running", &[1.0]);
        request("POST", "/api/v1/infer", &headers, body.as_bytes())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = keys
            .iter()
            .map(|key| {
                let start = start.clone();
                scope.spawn(move || {
                    start.wait();
                    let answer = server.send(&ask(key));
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answer.json()["outputs"][0]["data"][0].as_f64().unwrap()
                })
            })
            .collect();
        start.wait();
        let mut gone = server.connect();
        drop(std::io::Write::write_all(&mut gone, &ask(keys[0])));
        drop(gone);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn largest(sums: &[f64]) -> f64 {
    sums.iter().copied().fold(0.0, f64::max)
}

const TOGETHER: &[&str] = &["--batched-models", "running", "--batch-window-ms", "1000"];

#[test]
fn requests_of_one_tenant_are_answered_by_one_run_where_that_is_set() {
    for isolation in ["sandbox", "none"] {
        let arguments = [TOGETHER, &["--isolation", isolation]].concat();
        let (server, [first, _]) = house(&format!("together-{isolation}"), &arguments);
        let sums = sums(&server, &[&*first; 6]);
        assert!(largest(&sums) > 1.0, "{isolation}: {sums:?}");
    }
}

#[test]
fn requests_of_one_tenant_are_answered_alone_where_nothing_is_set() {
    let (server, [first, _]) = house("together-not", &["--max-running", "1"]);
    assert_eq!(sums(&server, &[&*first; 8]), [1.0; 8]);
}

#[test]
fn no_run_is_for_two_tenants() {
    let (server, [first, second]) = house("together-tenants", TOGETHER);
    // The one that does not wait may be among the first tenant's.
    let sums = sums(&server, &[&first, &second, &second, &second, &second]);
    assert!(sums[0] <= 2.0 && largest(&sums[1..]) <= 4.0, "{sums:?}");
    assert!(largest(&sums[1..]) > 1.0, "{sums:?}");
}

#[test]
fn no_run_is_for_more_than_may_be() {
    let (server, [first, _]) = house("together-most", &[TOGETHER, &["--max-batch", "2"]].concat());
    let sums = sums(&server, &[&*first; 7]);
    assert!(largest(&sums) <= 2.0, "{sums:?}");
}
