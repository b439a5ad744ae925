//! `lethe run-component` as a shell sees it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lethe_engine::Numerics;

use crate::guest::{file, path, root};
use crate::{engines_answer, picture, text};

/// Runs the guest by the command, with this on its standard input.
fn lethe(options: &[&str], arguments: &[&str], input: &[u8]) -> Output {
    let mut lethe = Command::new(env!("CARGO_BIN_EXE_lethe"));
    // The sandbox's guest is compiled once for these tests and those of the doors.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-cache");
    lethe.current_dir(root()).env("LETHE_CACHE_DIR", cache);
    lethe.arg("run-component").arg(path()).args(options);
    lethe.arg("--").args(arguments);
    lethe
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = lethe.spawn().unwrap();
    // A guest that does not read is gone by now.
    let _ = running.stdin.take().unwrap().write_all(input);
    running.wait_with_output().unwrap()
}

#[test]
fn the_command_runs_a_guest_with_models_by_name() {
    let named = "--model=digits=models/digits/model.onnx";
    let cases: [(&str, &[&str], &str, Numerics); 4] = [
        (
            "a name and a file",
            &["--model=reader=models/digits/model.onnx"],
            "reader",
            Numerics::Fast,
        ),
        (
            "a file",
            &["--model=models/digits/model.onnx"],
            "digits",
            Numerics::Fast,
        ),
        ("a folder", &["--models=models"], "digits", Numerics::Fast),
        (
            "in a sandbox",
            &[named, "--isolation=sandbox", "--numerics=reproducible"],
            "digits",
            Numerics::Reproducible,
        ),
    ];
    for (name, options, model, numerics) in cases {
        let output = lethe(options, &["named", model], &picture(7));
        assert_eq!(text(&output.stderr), "", "{name}");
        assert_eq!(text(&output.stdout), engines_answer(7, numerics), "{name}");
        assert_eq!(output.status.code(), Some(0), "{name}");
    }
}

#[test]
fn the_guests_exit_code_is_passed_on_and_trouble_is_one_line_and_code_2() {
    assert_eq!(lethe(&[], &["exit", "42"], b"").status.code(), Some(42));
    let unknown = lethe(&["--models=models"], &["named", "absent"], b"");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stdout).contains("LETHE-MODEL-UNKNOWN"));

    let twice = ["--model=a=models/digits/model.onnx"; 2];
    let cases: [(&str, &[&str], &[&str], &str); 5] = [
        ("no end", &["--time-limit=1"], &["spin"], "LETHE-DEADLINE"),
        (
            "greed",
            &["--memory-limit=16"],
            &["grow", "40"],
            "LETHE-MEMORY-LIMIT",
        ),
        ("too many tensors", &[], &["tensors", "1"], "LETHE-NN-LIMIT"),
        (
            "no such folder",
            &["--models=absent"],
            &["exit", "0"],
            "absent",
        ),
        (
            "one name for two",
            &twice,
            &["exit", "0"],
            "two models are named \"a\"",
        ),
    ];
    for (name, options, arguments, expected) in cases {
        let output = lethe(options, arguments, b"");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(
            last.starts_with("lethe: ") && last.contains(expected),
            "{name}: {stderr}"
        );
    }
}

#[test]
fn a_file_that_is_no_command_is_one_line_and_code_2() {
    let absent = root().join("absent.wasm");
    let text_file = file("text.wasm", b"no component");
    for (name, guest, expected) in [
        ("absent", absent, "absent.wasm"),
        ("text", text_file, "LETHE-COMPONENT"),
    ] {
        let mut lethe = Command::new(env!("CARGO_BIN_EXE_lethe"));
        let output = lethe.arg("run-component").arg(guest).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{name}: {stderr}");
        assert!(stderr.contains(expected), "{name}: {stderr}");
    }
}
