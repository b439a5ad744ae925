//! Nothing survives a request: a canary goes through a sandbox, is seen in the instance's memory
//! while that lives, and is nowhere in the process afterwards.
//!
//! The test itself must not keep the canary: it holds it masked, unmasks it byte by byte into the
//! request (which is zeroized), and compares masked when it searches.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lethe_engine::onnx::proto;
use lethe_engine::{DataType, Tensor, Value};
use lethe_host::sandbox::{ModelSource, Sandbox, SandboxSettings, WipePolicy, Wiped};
use lethe_server::message::Call;
use prost::Message;
use zeroize::Zeroizing;

const MASK: u8 = 0xa5;
const CANARY_BYTES: usize = 32;

/// A model whose output is its input.
fn echo_model() -> Vec<u8> {
    let dimension = proto::Dimension {
        value: Some(proto::DimensionValue::Param("n".into())),
    };
    let tensor = proto::TensorType {
        elem_type: Some(DataType::Uint8 as i32),
        shape: Some(proto::TensorShape {
            dim: vec![dimension],
        }),
    };
    let value = proto::ValueInfo {
        name: Some("x".into()),
        r#type: Some(proto::Type {
            value: Some(proto::TypeValue::Tensor(tensor)),
        }),
    };
    let graph = proto::Graph {
        name: Some("echo".into()),
        input: vec![value.clone()],
        output: vec![value],
        ..Default::default()
    };
    let opset = proto::OperatorSetId {
        domain: None,
        version: Some(21),
    };
    let model = proto::Model {
        ir_version: Some(10),
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    };
    model.encode_to_vec()
}

/// A canary, masked, that no other test has.
fn masked_canary(seed: u64) -> [u8; CANARY_BYTES] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id());
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

fn is_canary(bytes: &[u8], masked: &[u8; CANARY_BYTES]) -> bool {
    bytes
        .iter()
        .zip(masked)
        .all(|(byte, masked)| byte ^ MASK == *masked)
}

fn count(memory: &[u8], masked: &[u8; CANARY_BYTES]) -> usize {
    let first = masked[0] ^ MASK;
    let windows = memory.windows(CANARY_BYTES);
    windows
        .filter(|window| window[0] == first && is_canary(window, masked))
        .count()
}

/// A request whose tensor is the canary, over and over.
fn request(masked: &[u8; CANARY_BYTES], times: usize) -> Zeroizing<Vec<u8>> {
    const PLACE: u8 = 0x77;
    let tensor = Tensor::from_slice(&[times * CANARY_BYTES], &vec![PLACE; times * CANARY_BYTES]);
    let call = Call::Infer(vec![("x".into(), Value::Tensor(tensor.unwrap()))]);
    let mut message = Zeroizing::new(call.encode());
    let start = message
        .windows(CANARY_BYTES)
        .position(|w| w == [PLACE; CANARY_BYTES])
        .unwrap();
    for (i, byte) in message[start..][..times * CANARY_BYTES]
        .iter_mut()
        .enumerate()
    {
        *byte = masked[i % CANARY_BYTES] ^ MASK;
    }
    message
}

/// Where the canary is in all memory of this process that can be read.
fn places_in_process(masked: &[u8; CANARY_BYTES]) -> Vec<String> {
    const CHUNK: usize = 1 << 20;
    let memory = File::open("/proc/self/mem").unwrap();
    let mut chunk = Zeroizing::new(vec![0u8; CHUNK + CANARY_BYTES]);
    let own = chunk.as_ptr().addr()..chunk.as_ptr().addr() + chunk.len();
    let mut places = Vec::new();
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let name = fields.nth(3).unwrap_or("anonymous");
        if !rights.starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|hex| usize::from_str_radix(hex, 16).unwrap());
        let mut at = start;
        while at < end {
            // Chunks overlap by a canary, so that none is cut in two.
            let len = (end - at).min(chunk.len());
            if let Ok(read) = memory.read_at(&mut chunk[..len], at as u64) {
                let found = (0..read.saturating_sub(CANARY_BYTES - 1))
                    .filter(|&i| is_canary(&chunk[i..i + CANARY_BYTES], masked))
                    .filter(|&i| !own.contains(&(at + i)));
                places.extend(found.map(|i| format!("{:#x} in {name}", at + i)));
            }
            at += CHUNK;
        }
        places.dedup();
    }
    places
}

fn sandbox(native_kernels: bool, wipe: WipePolicy) -> Sandbox {
    let settings = SandboxSettings {
        native_kernels,
        wipe,
        cache: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("isolation-cache")),
        ..SandboxSettings::default()
    };
    Sandbox::new(&ModelSource::new("echo", echo_model()), &settings).unwrap()
}

/// What became of a canary.
struct Trace {
    in_instance: usize,
    afterwards: Vec<String>,
    wiped: Wiped,
}

/// Sends a canary through an instance.
fn send(sandbox: &Sandbox, seed: u64) -> Trace {
    let masked = masked_canary(seed);
    let mut in_instance = 0;
    let message = request(&masked, 300);
    let answer =
        sandbox.call_inspected(&message, &mut |memory| in_instance = count(memory, &masked));
    let (answer, report) = answer.unwrap();
    assert!(count(&answer, &masked) >= 300, "the model echoes");
    drop((message, answer));
    Trace {
        in_instance,
        afterwards: places_in_process(&masked),
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
                    wiped >= 300 * CANARY_BYTES as u64,
                    "{case}: {:?}",
                    trace.wiped
                );
            }
        }
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
