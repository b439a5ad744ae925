//! `wasi:nn` for other people's components: the same bits as the engine, errors for mistakes, limits
//! that hold, and nothing of the host's within reach. The guest is `tests/nn-guest`.

// Futures hold models, whose types are deep where a GPU is among them.
#![recursion_limit = "256"]

#[path = "wasi_nn/command_line.rs"]
mod command_line;
#[path = "wasi_nn/guest.rs"]
mod guest;
#[path = "wasi_nn/models.rs"]
mod models;
#[path = "support/models.rs"]
mod small;

use std::time::{Duration, Instant};

use bytes::Bytes;
use lethe_engine::{DataType, Numerics, Session, SessionOptions, Tensor, Value};
use lethe_host::wasi_nn::command::{Command, CommandLimits, CommandRunError, Ended, Streams};
use lethe_host::wasi_nn::holdings::HoldingLimits;
use lethe_sandbox::residue::Canary;
use lethe_server::wipe_on_free::WipeOnFree;
use zeroize::Zeroizing;

use guest::{digits, root};
use small::Endless;

/// As in the program `lethe`.
#[global_allocator]
static ALLOCATOR: WipeOnFree = WipeOnFree::always();

/// The picture of a digit: little-endian floats.
fn picture(digit: usize) -> Vec<u8> {
    let path = root().join(format!("models/digits/samples/{digit}.npy"));
    let file = std::fs::read(path).unwrap();
    file[file.len() - 28 * 28 * 4..].to_vec()
}

/// What the guest prints for the engine's own answer.
fn engines_answer(digit: usize, numerics: Numerics) -> String {
    let model = std::fs::read(digits()).unwrap();
    let options = SessionOptions {
        numerics,
        ..SessionOptions::default()
    };
    let session = Session::load(model, &options).unwrap();
    let tensor = Tensor::from_bytes(DataType::Float32, &[1, 1, 28, 28], picture(digit)).unwrap();
    let outputs = session.run(&[("input", Value::Tensor(tensor))]).unwrap();
    let logits = outputs[0].1.as_tensor().unwrap();
    let numbers = logits.as_slice::<f32>().unwrap();
    let bits: Vec<u32> = numbers.iter().map(|n| n.to_bits()).collect();
    let shape = logits.shape();
    format!("logits TensorType::Fp32 {shape:?} {bits:?}\ndigit {digit}\n")
}

/// Runs the guest in this process.
fn run(
    arguments: &[&str],
    input: impl Into<Bytes>,
    limits: &CommandLimits,
) -> Result<Ended, CommandRunError> {
    let arguments = ["guest"].iter().chain(arguments);
    let arguments: Vec<String> = arguments.map(ToString::to_string).collect();
    let streams = Streams::Memory {
        input: input.into(),
        most_bytes: 1 << 20,
    };
    guest::command().run_blocking(&arguments, &streams, guest::models(), limits)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the guest prints, without limits that matter, and its exit code.
fn printed(arguments: &[&str], input: impl Into<Bytes>) -> (String, u8) {
    let ended = run(arguments, input, &CommandLimits::default()).unwrap();
    assert_eq!(text(&ended.errors), "", "{arguments:?}");
    (text(&ended.output), ended.code)
}

#[test]
fn a_guest_gets_the_bits_of_the_engine() {
    for digit in [0, 3, 9] {
        let expected = engines_answer(digit, Numerics::Fast);
        for arguments in [&["named", "digits"][..], &["brought"]] {
            let found = printed(arguments, picture(digit));
            assert_eq!(found, (expected.clone(), 0), "{arguments:?}");
        }
    }
}

#[test]
fn every_type_goes_through_unchanged() {
    assert_eq!(
        printed(&["echo"], models::all_types()),
        ("7 types\n".into(), 0)
    );
}

#[test]
fn mistakes_are_errors_that_say_what_was_expected() {
    /// The mistake, the code of `wasi:nn`, and parts of the text.
    const CASES: [(&str, &str, &[&str]); 20] = [
        (
            "unknown name",
            "NotFound",
            &["\"absent\"", "[LETHE-MODEL-UNKNOWN]"],
        ),
        ("a path", "NotFound", &["[LETHE-MODEL-UNKNOWN]"]),
        (
            "openvino",
            "InvalidEncoding",
            &["found openvino", "[LETHE-NN-ENCODING]"],
        ),
        ("ggml", "InvalidEncoding", &["expected onnx", "found ggml"]),
        ("autodetect", "", &["no error"]),
        (
            "tpu",
            "UnsupportedOperation",
            &["expected cpu or gpu, found tpu", "[LETHE-DEVICE]"],
        ),
        (
            "no buffer",
            "InvalidArgument",
            &["expected 1 buffer, found 0", "[LETHE-NN-BUFFERS]"],
        ),
        (
            "two buffers",
            "InvalidArgument",
            &["expected 1 buffer, found 2"],
        ),
        (
            "half a model",
            "InvalidEncoding",
            &["[LETHE-MODEL-MALFORMED]"],
        ),
        ("no model", "InvalidEncoding", &["[LETHE-MODEL-MALFORMED]"]),
        (
            "missing input",
            "InvalidArgument",
            &["\"input\"", "[LETHE-INPUT-MISSING]"],
        ),
        (
            "unknown input",
            "InvalidArgument",
            &["\"other\"", "[LETHE-INPUT-UNKNOWN]"],
        ),
        (
            "input twice",
            "InvalidArgument",
            &["each once", "[LETHE-INPUT-UNKNOWN]"],
        ),
        (
            "too few bytes",
            "InvalidArgument",
            &["takes 3136 bytes, found 3135", "[LETHE-INPUT-SHAPE]"],
        ),
        (
            "too many bytes",
            "InvalidArgument",
            &["takes 3136 bytes, found 3137"],
        ),
        (
            "wrong dimensions",
            "InvalidArgument",
            &["[1, 1, 14, 56]", "[LETHE-INPUT-SHAPE]"],
        ),
        (
            "wrong rank",
            "InvalidArgument",
            &["[28, 28]", "[LETHE-INPUT-SHAPE]"],
        ),
        (
            "wrong type",
            "InvalidArgument",
            &["found tensor(int32)", "[LETHE-INPUT-TYPE]"],
        ),
        (
            "endless dimensions",
            "InvalidArgument",
            &["[LETHE-INPUT-SHAPE]"],
        ),
        ("a good picture after all", "", &["no error"]),
    ];
    let (output, code) = printed(&["mistakes"], Bytes::new());
    assert_eq!(code, 0, "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), CASES.len(), "{output}");
    for ((name, code, parts), line) in CASES.into_iter().zip(lines) {
        let (found, told) = line.split_once(" | ").unwrap();
        assert_eq!(found, name, "{line}");
        if !code.is_empty() {
            assert!(told.starts_with(&format!("ErrorCode::{code}: ")), "{line}");
        }
        for part in parts {
            assert!(told.contains(part), "{name}: expected {part}, found {told}");
        }
    }
}

#[test]
fn hostile_models_are_errors_for_the_guest() {
    let cases = [
        (
            "no operator",
            "load",
            models::unknown_operator(),
            "UnsupportedOperation",
            "LETHE-OPERATOR-UNKNOWN",
        ),
        (
            "four terabytes",
            "compute",
            models::huge(),
            "TooLarge",
            "LETHE-BUDGET",
        ),
        (
            "growth without end",
            "compute",
            small::growing(),
            "TooLarge",
            "LETHE-BUDGET",
        ),
        (
            "an output of text",
            "compute",
            models::text(),
            "UnsupportedOperation",
            "LETHE-NN-OUTPUT-TYPE",
        ),
    ];
    for (name, arguments, model, kind, code) in cases {
        let (output, exit) = printed(&[arguments], model);
        assert_eq!(exit, 1, "{name}: {output}");
        let good = output.starts_with(&format!("ErrorCode::{kind}: "));
        assert!(good && output.contains(code), "{name}: {output}");
    }
}

#[test]
fn a_guest_holds_no_more_than_it_may() {
    let limits = CommandLimits {
        holdings: HoldingLimits {
            graphs: 3,
            contexts: 5,
            tensors: 7,
            bytes: 8 << 20,
        },
        ..CommandLimits::default()
    };
    for (what, held) in [("graphs", "3 graphs"), ("contexts", "5 contexts")] {
        let ended = run(&[what], Bytes::new(), &limits).unwrap();
        let output = text(&ended.output);
        assert!(output.starts_with(held), "{output}");
        assert!(output.contains("ErrorCode::TooLarge: "), "{output}");
        assert!(output.contains("LETHE-NN-LIMIT"), "{output}");
        assert_eq!(ended.code, 1);
    }
    // A constructor has no error to give: the guest ends.
    let cases = [
        (
            "many tensors",
            "1",
            "tensors held: expected at most 7, found 8",
        ),
        (
            "many bytes",
            "3000000",
            "bytes held: expected at most 8388608, found 9000012",
        ),
    ];
    for (name, bytes, expected) in cases {
        let error = run(&["tensors", bytes], Bytes::new(), &limits).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string()),
            ("LETHE-NN-LIMIT", expected.into()),
            "{name}"
        );
    }
    let error = run(&["builders"], Bytes::new(), &limits).unwrap_err();
    assert_eq!(error.code(), "LETHE-COMPONENT-TRAP", "{error}");
}

#[test]
fn a_guests_time_ends_wherever_it_spends_it() {
    let limits = CommandLimits {
        time: Duration::from_secs(2),
        ..CommandLimits::default()
    };
    // Compiled before the clock runs.
    guest::command();
    let cases = [
        ("in a loop", &["spin"][..], Vec::new()),
        ("asleep", &["sleep"], Vec::new()),
        ("in a run", &["compute"], small::looping(Endless::WithMore)),
    ];
    for (name, arguments, input) in cases {
        let begun = Instant::now();
        let error = run(arguments, input, &limits).unwrap_err();
        assert_eq!(error.code(), "LETHE-DEADLINE", "{name}: {error}");
        let took = begun.elapsed();
        assert!(
            took >= limits.time && took < limits.time * 10,
            "{name}: {took:?}"
        );
    }
}

#[test]
fn a_guests_memory_is_limited() {
    let limits = CommandLimits {
        memory_bytes: 32 << 20,
        ..CommandLimits::default()
    };
    for (mebibytes, fits) in [("8", true), ("40", false)] {
        let ended = run(&["grow", mebibytes], Bytes::new(), &limits);
        if fits {
            assert_eq!(text(&ended.unwrap().output), "it is there\n");
            continue;
        }
        let error = ended.unwrap_err();
        let expected = "the guest needs more memory than the limit of 33554432 bytes";
        assert_eq!(
            (error.code(), error.to_string()),
            ("LETHE-MEMORY-LIMIT", expected.into()),
        );
    }
    // It suffices for what is not greedy.
    let ended = run(&["brought"], picture(4), &limits).unwrap();
    assert!(text(&ended.output).ends_with("digit 4\n"));
}

#[test]
fn a_guest_reaches_nothing_of_the_hosts() {
    let expected = "0 files\n0 variables\nconnected: false\nbound: false\n";
    assert_eq!(printed(&["confined"], Bytes::new()), (expected.into(), 0));
}

#[test]
fn a_guests_end_is_told_from_the_hosts_trouble() {
    let limits = CommandLimits::default();
    let error = run(&["panic"], Bytes::new(), &limits).unwrap_err();
    assert_eq!(error.code(), "LETHE-COMPONENT-TRAP", "{error}");
    for code in [0, 7, 255] {
        let ended = run(&["exit", &code.to_string()], Bytes::new(), &limits).unwrap();
        assert_eq!(ended.code, code);
    }
    let ended = run(&["unknown"], Bytes::new(), &limits).unwrap();
    assert_eq!(ended.code, 1);
    assert!(text(&ended.errors).contains("unknown"));
}

#[test]
fn what_is_no_command_is_refused() {
    // The beginning of a core module.
    let module = b"\0asm\x01\0\0\0";
    // A component with nothing in it.
    let empty = b"\0asm\x0d\0\x01\0";
    for (name, bytes) in [
        ("text", &b"no component"[..]),
        ("a module", module),
        ("an empty one", empty),
    ] {
        let error = Command::new(bytes).unwrap_err();
        assert_eq!(error.code(), "LETHE-COMPONENT", "{name}: {error}");
    }
}

#[test]
fn nothing_of_a_guests_data_is_left_after_its_run() {
    let canary = Canary::new(48);
    let mut input = Zeroizing::new(vec![0; 400 * Canary::BYTES]);
    canary.write(&mut input);
    // The search finds what is there.
    assert!(canary.places_in_process().unwrap().len() >= 400);
    let ended = run(
        &["forget"],
        Bytes::from_owner(input),
        &CommandLimits::default(),
    )
    .unwrap();
    assert_eq!(
        (text(&ended.output), ended.code),
        ("fourfold: true\n".into(), 0)
    );
    assert_eq!(canary.places_in_process().unwrap(), [""; 0]);
}
