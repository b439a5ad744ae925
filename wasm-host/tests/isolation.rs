//! Nothing survives a request: a canary goes through a sandbox, is seen in the instance's memory
//! while that lives, and is nowhere in the process afterwards.

#[path = "support/models.rs"]
mod models;
#[path = "isolation/server.rs"]
mod server;
#[path = "support/serving.rs"]
mod serving;
#[path = "support/websocket.rs"]
mod websocket;

use std::path::{Path, PathBuf};

use lethe_engine::{Tensor, Value};
use lethe_sandbox::residue::Canary;
use lethe_sandbox::{
    CallControl, KeptCell, ModelSource, Sandbox, SandboxSettings, WipePolicy, Wiped,
};
use lethe_server::Request;
use lethe_server::message::Call;
use zeroize::Zeroizing;

/// A request whose tensor is the canary, over and over.
fn request(canary: &Canary, times: usize) -> Zeroizing<Vec<u8>> {
    const PLACE: u8 = 0x77;
    let tensor = Tensor::from_slice(
        &[times * Canary::BYTES],
        &vec![PLACE; times * Canary::BYTES],
    );
    let call = Call::Infer(vec![("x".into(), Value::Tensor(tensor.unwrap()))]);
    let mut message = Zeroizing::new(call.encode());
    let start = message
        .windows(Canary::BYTES)
        .position(|w| w == [PLACE; Canary::BYTES])
        .unwrap();
    canary.write(&mut message[start..][..times * Canary::BYTES]);
    message
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-cache")
}

fn sandbox(native_kernels: bool, wipe: WipePolicy) -> Sandbox {
    let settings = SandboxSettings {
        native_kernels,
        wipe,
        cache: Some(cache()),
        ..SandboxSettings::default()
    };
    Sandbox::new(&ModelSource::new("echo", models::echo()), &settings).unwrap()
}

/// What became of a canary.
struct Trace {
    in_instance: usize,
    afterwards: Vec<String>,
    wiped: Wiped,
}

/// Sends a canary through an instance.
fn send(sandbox: &Sandbox, seed: u64) -> Trace {
    let canary = Canary::new(seed);
    let mut in_instance = 0;
    let message = request(&canary, 300);
    let answer = sandbox.call_inspected(&message, &mut |memory| in_instance = canary.count(memory));
    let (answer, report) = answer.unwrap();
    assert!(canary.count(&answer) >= 300, "the model echoes");
    drop((message, answer));
    Trace {
        in_instance,
        afterwards: canary.places_in_process().unwrap(),
        wiped: report.wiped,
    }
}

#[test]
fn nothing_survives_a_request() {
    let policies = [
        ("pagemap_scan", WipePolicy::default()),
        (
            "pagemap_scan, nothing kept resident",
            WipePolicy {
                keep_resident_bytes: 0,
                ..WipePolicy::default()
            },
        ),
        (
            "no pagemap_scan",
            WipePolicy {
                pagemap_scan: false,
                ..WipePolicy::default()
            },
        ),
    ];
    let mut seed = 1;
    for native_kernels in [true, false] {
        for (name, policy) in policies {
            let sandbox = sandbox(native_kernels, policy);
            if policy.pagemap_scan && !sandbox.scans_pagemap() {
                eprintln!("skipped: {name}: this kernel has no PAGEMAP_SCAN");
                continue;
            }
            // More than one: the second finds a slot that has been reset.
            for round in 0..3 {
                seed += 1;
                let trace = send(&sandbox, seed);
                let case = format!("{name}, native kernels {native_kernels}, round {round}");
                assert!(
                    trace.in_instance >= 300,
                    "{case}: the instance had {}",
                    trace.in_instance
                );
                assert_eq!(trace.afterwards, [""; 0], "{case}");
                let wiped = trace.wiped.overwritten_bytes + trace.wiped.returned_bytes;
                assert!(
                    wiped >= 300 * Canary::BYTES as u64,
                    "{case}: {:?}",
                    trace.wiped
                );
            }
        }
    }
}

/// Sends a canary through an instance that is kept.
fn send_kept(cell: KeptCell, canary: &Canary) -> KeptCell {
    let mut body = Zeroizing::new(vec![0; 300 * Canary::BYTES]);
    canary.write(&mut body);
    let request = Request {
        method: "POST",
        path: "/api/v1/infer?model=echo",
        content_type: Some("application/octet-stream"),
        accept: Some("application/octet-stream"),
        json_bytes: None,
        body: &body,
    };
    let (answer, _) = cell.handle(&request, &CallControl::default());
    let (cell, answer) = answer.unwrap();
    assert_eq!(answer.status, 200);
    assert!(canary.count(&answer.body) >= 300, "the model echoes");
    cell
}

#[test]
fn kept_instances_do_not_see_each_other_and_leave_nothing() {
    for native_kernels in [true, false] {
        let sandbox = sandbox(native_kernels, WipePolicy::default());
        let seed = 200 + 2 * u64::from(native_kernels);
        let canaries = [Canary::new(seed), Canary::new(seed + 1)];
        let [mut one, mut two] = [(); 2].map(|()| sandbox.keep().unwrap());
        for _ in 0..3 {
            one = send_kept(one, &canaries[0]);
            two = send_kept(two, &canaries[1]);
        }
        let seen = |cell: &KeptCell| canaries.each_ref().map(|c| c.count(cell.memory()));
        let (by_one, by_two) = (seen(&one), seen(&two));
        assert!(by_one[0] >= 300 && by_one[1] == 0, "{by_one:?}");
        assert!(by_two[1] >= 300 && by_two[0] == 0, "{by_two:?}");
        // The first is wiped while the second goes on; and nobody who comes next finds anything.
        let wiped = one.end();
        assert!(wiped.bytes() >= 300 * Canary::BYTES as u64, "{wiped:?}");
        assert_eq!(canaries[0].places_in_process().unwrap(), [""; 0]);
        assert_eq!(seen(&sandbox.keep().unwrap()), [0, 0]);
        two = send_kept(two, &canaries[1]);
        drop(two);
        assert_eq!(canaries[1].places_in_process().unwrap(), [""; 0]);
    }
}

#[test]
fn without_the_wipe_the_search_finds_the_canary() {
    for native_kernels in [true, false] {
        let sandbox = sandbox(
            native_kernels,
            WipePolicy {
                enabled: false,
                ..WipePolicy::default()
            },
        );
        let trace = send(&sandbox, 100 + u64::from(native_kernels));
        assert!(trace.in_instance >= 300);
        assert!(
            trace.afterwards.len() >= 300,
            "found in {:?}",
            trace.afterwards
        );
    }
}
