//! What a request may use in a sandbox, and that the next one gets its answer all the same.

#[path = "support/models.rs"]
mod models;

use std::path::Path;
use std::time::{Duration, Instant};

use lethe_engine::{Tensor, Value};
use lethe_sandbox::{Limits, ModelSource, Sandbox, SandboxSettings};

fn sandbox(limits: Limits) -> Sandbox {
    let settings = SandboxSettings {
        native_kernels: false,
        limits,
        cache: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-cache")),
        ..SandboxSettings::default()
    };
    Sandbox::new(&ModelSource::new("square", models::square()), &settings).unwrap()
}

/// The code of the answer to a matrix of this size, or nothing where there is an answer.
fn code(sandbox: &Sandbox, n: usize) -> Option<String> {
    let tensor = Tensor::from_slice(&[n, n], &vec![1.0f32; n * n]).unwrap();
    let result = sandbox.run(vec![("x".into(), Value::Tensor(tensor))]);
    result.err().map(|problem| problem.code.to_string())
}

#[test]
fn a_run_beyond_its_deadline_is_stopped() {
    let sandbox = sandbox(Limits {
        deadline: Duration::from_millis(30),
        ..Limits::default()
    });
    let start = Instant::now();
    assert_eq!(code(&sandbox, 2048).as_deref(), Some("LETHE-DEADLINE"));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(code(&sandbox, 4), None, "the next request");
}

/// A window as large as half of the image takes minutes, in one call of a kernel.
#[test]
fn a_kernel_beyond_the_deadline_is_stopped_on_either_side() {
    for native_kernels in [false, true] {
        let settings = SandboxSettings {
            native_kernels,
            limits: Limits {
                deadline: Duration::from_millis(300),
                ..Limits::default()
            },
            cache: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-cache")),
            ..SandboxSettings::default()
        };
        let source = ModelSource::new("window", models::window());
        let sandbox = Sandbox::new(&source, &settings).unwrap();
        let zeros = |size: usize| {
            let zeros = vec![0.0f32; size * size];
            Value::Tensor(Tensor::from_slice(&[1, 1, size, size], &zeros).unwrap())
        };
        let ask = |image, window| {
            sandbox.run(vec![
                ("x".into(), zeros(image)),
                ("w".into(), zeros(window)),
            ])
        };
        let begun = Instant::now();
        let problem = ask(2048, 1023).unwrap_err();
        assert_eq!(problem.code, "LETHE-DEADLINE", "{problem}");
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(20),
            "native {native_kernels}: {took:?}"
        );
        ask(8, 3).expect("the next request");
    }
}

#[test]
fn a_run_beyond_its_memory_is_stopped() {
    let free = sandbox(Limits::default());
    assert_eq!(code(&free, 700), None);
    let (memory_bytes, _) = free.memory_bytes();
    let sandbox = sandbox(Limits {
        // The matrix alone is 2 MB.
        memory_bytes: memory_bytes + (1 << 20),
        ..Limits::default()
    });
    let found = code(&sandbox, 700);
    assert!(
        found.as_deref().is_some_and(|code| code.contains("MEMORY")),
        "{found:?}"
    );
    assert_eq!(code(&sandbox, 4), None, "the next request");
}
