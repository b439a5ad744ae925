//! The binary `lethe` as a shell sees it: exit codes, one line on errors, JSON for programs.

#[path = "support/models.rs"]
mod models;

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    folder.expect("the crate is in a folder of the repository")
}

/// Runs `lethe` in the repository's folder.
fn lethe(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lethe"));
    command.current_dir(root()).args(arguments);
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(arguments: &[&str]) -> Json {
    let output = lethe(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(stderr, "", "{arguments:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}"))
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lethe-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("it can be made");
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("it is in the folder"))
            .expect("it can be made");
        std::fs::write(&path, content).expect("it can be written");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind is no failure of the test.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const DIGITS: &str = "models/digits/model.onnx";
const SAMPLE: &str = "--input=input=models/digits/samples/3.npy";

#[test]
fn what_cannot_be_done_is_one_line_and_code_2() {
    let folder = Folder::new("refusals");
    let broken = folder.file("broken.onnx", b"this is not a model");
    let absent = folder.0.join("absent.onnx").display().to_string();
    let folder_name = folder.0.display().to_string();
    let cases: [(&str, &[&str], &str); 17] = [
        ("an unknown command", &["frobnicate"], "frobnicate"),
        (
            "an unknown flag",
            &["run", DIGITS, "--frobnicate"],
            "--frobnicate",
        ),
        ("no model", &["run", &absent], "absent.onnx"),
        ("a folder for a model", &["run", &folder_name], "directory"),
        ("a broken model", &["run", &broken], "LETHE-MODEL-MALFORMED"),
        (
            "a broken model to inspect",
            &["inspect", &broken],
            "LETHE-MODEL-MALFORMED",
        ),
        ("no input", &["run", DIGITS], "LETHE-INPUT-MISSING"),
        (
            "an unknown input",
            &["run", DIGITS, "--input", "x=1"],
            "with one of input [LETHE-OPTION]",
        ),
        (
            "a wrong shape",
            &["run", DIGITS, "--input", "input=[[1]]"],
            "LETHE-INPUT-SHAPE",
        ),
        (
            "no such file",
            &["run", DIGITS, "--input", "input=absent.npy"],
            "absent.npy",
        ),
        (
            "text for numbers",
            &["run", DIGITS, "--input", "input=hello"],
            "hello",
        ),
        (
            "an unknown level",
            &["verify", "models/digits", "--kernels", "mmx"],
            "mmx",
        ),
        (
            "no threads",
            &["verify", "models/digits", "--threads", "0"],
            "--threads",
        ),
        (
            "an unknown numerics",
            &["run", DIGITS, SAMPLE, "--numerics", "vague"],
            "vague",
        ),
        (
            "no such device",
            &["run", DIGITS, SAMPLE, "--device", "cuda"],
            "device cuda",
        ),
        (
            "no such folder",
            &["verify", "models/absent"],
            "models/absent",
        ),
        (
            "a shape for nothing",
            &["bench", DIGITS, "--shape", "x=1"],
            "[LETHE-OPTION]",
        ),
    ];
    for (name, arguments, part) in cases {
        let output = lethe(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{name}: {stderr}");
        assert!(
            stderr.starts_with("lethe: ") && stderr.contains(part),
            "{name}: {stderr}"
        );
        assert_eq!(text(&output.stdout), "", "{name}: half an answer");
    }
}

/// Files of an adversary: a dimension that nobody has memory for, constants that grow, loops without end.
#[test]
fn what_takes_too_much_is_one_line_with_a_code() {
    use lethe_engine::onnx::writer::ModelWriter;
    use lethe_engine::{DataType, Tensor};
    use models::Endless;

    let folder = Folder::new("too-much");
    let huge = ModelWriter::new(17)
        .input("x", DataType::Float32, &["n", "2147483647"])
        .node("Relu", &["x"], &["y"], vec![])
        .output("y");
    let huge = folder.file("huge.onnx", &huge.to_bytes());
    let size = Tensor::from_slice(&[1], &[1i64 << 31]).unwrap();
    let folded = ModelWriter::new(17)
        .input("x", DataType::Float32, &["n"])
        .constant("size", &size)
        .node("ConstantOfShape", &["size"], &["zeros"], vec![])
        .node("Cos", &["zeros"], &["ones"], vec![])
        .node("ReduceSum", &["ones"], &["sum"], vec![])
        .node("Add", &["x", "sum"], &["y"], vec![])
        .output("y");
    let folded = folder.file("folded.onnx", &folded.to_bytes());
    let endless = folder.file("endless.onnx", &models::looping(Endless::Always));
    let growing = folder.file("growing.onnx", &models::growing());
    let (x, memory, time) = ("--input=x=[1]", "--memory-mb=256", "--timeout-s=1");
    for (arguments, expected) in [
        (&["inspect", &huge][..], None),
        (&["bench", &huge], Some("give --data [LETHE-OPTION]")),
        (&["inspect", &folded], None),
        (&["run", &folded, x, memory], Some("[LETHE-BUDGET]")),
        (&["bench", &folded, memory], Some("[LETHE-BUDGET]")),
        (&["inspect", &endless], None),
        (&["run", &endless, x, time], Some("[LETHE-DEADLINE]")),
        (&["bench", &endless, time], Some("[LETHE-DEADLINE]")),
        (&["run", &growing, x, memory], Some("[LETHE-BUDGET]")),
    ] {
        let output = lethe(arguments);
        let stderr = text(&output.stderr);
        match expected {
            None => assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}"),
            Some(expected) => {
                assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
                assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
                assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
            }
        }
    }
    // A GPU gives no reproducible bits, whether there is one or not.
    let arguments = [
        "run",
        DIGITS,
        SAMPLE,
        "--device=webgpu",
        "--numerics=reproducible",
    ];
    let stderr = text(&lethe(&arguments).stderr);
    assert!(stderr.contains("does not give reproducible"), "{stderr}");
}

/// `y = x + v`, where `v` comes of a loop without end over constants, which loading computes.
fn loading_for_ever() -> Vec<u8> {
    use lethe_engine::DataType;
    use lethe_engine::onnx::proto;
    use models::{attribute, node, value};
    let number = |name| value(name, DataType::Float32, &[]);
    let body = proto::Graph {
        name: Some("body".into()),
        node: vec![
            node("Identity", &["going"], &["goes_on"]),
            node("Neg", &["v"], &["w"]),
        ],
        input: vec![
            value("turn", DataType::Int64, &[]),
            value("going", DataType::Bool, &[]),
            number("v"),
        ],
        output: vec![value("goes_on", DataType::Bool, &[]), number("w")],
        ..Default::default()
    };
    let mut repeat = node("Loop", &["", "", "one"], &["last"]);
    repeat.attribute = vec![proto::Attribute {
        g: Some(body),
        ..attribute("body", proto::AttributeType::Graph)
    }];
    let one = proto::Tensor {
        data_type: Some(DataType::Float32 as i32),
        float_data: vec![1.0],
        name: Some("one".into()),
        ..Default::default()
    };
    models::model(proto::Graph {
        name: Some("endless".into()),
        node: vec![repeat, node("Add", &["x", "last"], &["y"])],
        initializer: vec![one],
        input: vec![value("x", DataType::Float32, &["n"])],
        output: vec![value("y", DataType::Float32, &["n"])],
        ..Default::default()
    })
}

#[test]
fn a_model_whose_loading_never_ends_is_ended_in_a_sandbox_too() {
    let folder = Folder::new("endless-loading");
    let endless = folder.file("test/model.onnx", &loading_for_ever());
    let test = folder.0.join("test").display().to_string();
    let bundle = folder.0.join("endless.wasm").display().to_string();
    let (sandbox, time) = ("--isolation=sandbox", "--timeout-s=1");
    for (arguments, code) in [
        (&["run", &endless, "--input=x=[1]", sandbox, time][..], 2),
        (&["bench", &endless, sandbox, time], 2),
        // A test that failed.
        (&["verify", &test, sandbox, time], 1),
        (&["prepare", &endless, time], 2),
        (&["bundle", &endless, "-o", &bundle, time], 2),
    ] {
        let mut command = Command::new("timeout");
        command.arg("120").arg(env!("CARGO_BIN_EXE_lethe"));
        let output = command.args(arguments).output().expect("it starts");
        let said = text(&[output.stdout, output.stderr].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains("[LETHE-DEADLINE]"), "{arguments:?}: {said}");
    }
}

#[test]
fn verify_passes_what_is_right_and_fails_what_is_not() {
    let output = lethe(&["verify", "models/digits", "models/vibration", "docs"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains("skipped docs"), "{stdout}");
    assert_eq!(stdout.lines().last(), Some("2 passed, 0 failed"));

    // The same model with the outputs of one set where those of the other belong.
    let folder = Folder::new("wrong-outputs");
    let read =
        |name: &str| std::fs::read(root().join("models/digits").join(name)).expect("it is there");
    folder.file("model.onnx", &read("model.onnx"));
    folder.file(
        "test_data_set_0/input_0.pb",
        &read("test_data_set_0/input_0.pb"),
    );
    folder.file(
        "test_data_set_0/output_0.pb",
        &read("test_data_set_1/output_0.pb"),
    );
    folder.file(
        "test_data_set_1/input_0.pb",
        &read("test_data_set_1/input_0.pb"),
    );
    folder.file(
        "test_data_set_1/output_0.pb",
        &read("test_data_set_1/output_0.pb"),
    );
    let name = folder.0.display().to_string();
    let output = lethe(&["verify", &name, "models/digits"]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert_eq!(stdout.lines().last(), Some("1 passed, 1 failed"));
    assert!(
        stdout.contains("test_data_set_0: output \"logits\""),
        "{stdout}"
    );
    assert!(
        !stdout.contains("test_data_set_1: "),
        "the other set is right: {stdout}"
    );

    let report: Json =
        serde_json::from_slice(&lethe(&["verify", &name, "--json"]).stdout).expect("JSON");
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&Json::from(0), &Json::from(1))
    );
    assert!(
        report["tests"][0]["failures"][0]
            .as_str()
            .is_some_and(|f| f.contains("logits"))
    );
}

#[test]
fn a_model_that_cannot_be_loaded_is_a_failed_test() {
    let folder = Folder::new("broken-model");
    folder.file("model.onnx", b"this is not a model");
    let output = lethe(&["verify", &folder.0.display().to_string()]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("LETHE-MODEL-MALFORMED"), "{stdout}");
    assert_eq!(stdout.lines().last(), Some("0 passed, 1 failed"));
}

#[test]
fn run_prints_and_writes_the_outputs() {
    let folder = Folder::new("outputs");
    let name = folder.0.join("new").display().to_string();
    let output = lethe(&["run", DIGITS, SAMPLE, "--output", &name]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(
        stdout.contains("logits: float[1, 10]") && stdout.contains("sha256"),
        "{stdout}"
    );
    let written = std::fs::read(folder.0.join("new/logits.npy")).expect("it was written");
    let logits: Vec<f32> = written[written.len() - 40..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let best = logits
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map(|(i, _)| i);
    assert_eq!(best, Some(3), "a three is read as a three: {logits:?}");
}

#[test]
fn reproducible_digests_do_not_depend_on_how_the_input_was_given() {
    let digest = |input: &str, more: &[&str]| {
        let input = format!("--input=input={input}");
        let mut arguments = vec![
            "run",
            DIGITS,
            &input,
            "--json",
            "--numerics",
            "reproducible",
        ];
        arguments.extend(more);
        let answer = json(&arguments);
        assert_eq!(answer["outputs"][0]["datatype"], "FP32");
        answer["outputs"][0]["sha256"]
            .as_str()
            .expect("a digest")
            .to_owned()
    };
    let base = digest("models/digits/samples/7.npy", &[]);
    assert_eq!(base.len(), 64);
    assert_eq!(
        digest("models/digits/samples/7.npy", &["--kernels", "scalar"]),
        base
    );
    assert_eq!(
        digest("models/digits/samples/7.npy", &["--threads", "3"]),
        base
    );
    assert_ne!(digest("models/digits/samples/1.npy", &[]), base);
}

#[test]
fn bench_measures() {
    let report = json(&[
        "bench",
        DIGITS,
        "--seconds",
        "0.05",
        "--json",
        "--profile",
        "--threads",
        "1",
    ]);
    let number = |key: &str| {
        report[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key} in {report}"))
    };
    assert!(number("min_ms") > 0.0 && number("min_ms") <= number("median_ms"));
    assert!(number("median_ms") <= number("p90_ms"));
    assert!(number("runs") >= 1.0);
    if cfg!(target_os = "linux") {
        assert!(number("peak_memory_bytes") > 1e6);
    }
    let operators = report["profile"]["operators"]
        .as_array()
        .expect("operators");
    assert!(!operators.is_empty());
    let from_data = lethe(&[
        "bench",
        DIGITS,
        "--seconds",
        "0.01",
        "--data",
        "test_data_set_1",
    ]);
    assert_eq!(
        from_data.status.code(),
        Some(0),
        "{}",
        text(&from_data.stderr)
    );
}

#[test]
fn inspect_tells_what_a_model_needs() {
    let report = json(&["inspect", DIGITS, "--json"]);
    let input = &report["inputs"][0];
    assert_eq!(
        (&input["name"], &input["datatype"]),
        (&Json::from("input"), &Json::from("FP32"))
    );
    assert_eq!(input["shape"], serde_json::json!([-1, 1, 28, 28]));
    assert_eq!(report["outputs"][0]["name"], "logits");
    assert_eq!(report["parameters"], 25_034);
    assert_eq!(report["runs"], true);
    let conv = report["operators"]
        .as_array()
        .expect("operators")
        .iter()
        .find(|o| o["operator"] == "Conv");
    let conv = conv.expect("digits has convolutions");
    assert_eq!(
        (&conv["nodes"], &conv["supported"]),
        (&Json::from(3), &Json::from(true))
    );
    assert!(
        report["memory"]["arena_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0)
    );
}

#[test]
fn sizes_that_have_one_name_may_differ_and_are_warned_of() {
    use lethe_engine::DataType::Float32;
    let folder = Folder::new("two-sizes");
    let model = lethe_engine::onnx::writer::ModelWriter::new(17)
        .input("a", Float32, &["n"])
        .input("b", Float32, &["n"])
        .node("Add", &["a", "b"], &["y"], vec![])
        .output("y");
    let path = folder.file("model.onnx", &model.to_bytes());
    for (b, warnings) in [("b=3", 0), ("b=1", 1)] {
        let inspect = ["inspect", &path, "--shape", "a=3", "--shape", b];
        let report = json(&[&inspect[..], &["--json"]].concat());
        let found = report["warnings"].as_array().expect("warnings");
        assert_eq!(found.len(), warnings, "{found:?}");
        let printed = text(&lethe(&inspect).stdout);
        assert_eq!(
            printed.contains("warning: the model gives one name"),
            warnings == 1
        );
    }
    let run = |b| lethe(&["run", &path, "--input", "a=[1, 2]", "--input", b]);
    for (b, warned) in [("b=[3, 4]", false), ("b=[3]", true)] {
        let output = run(b);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said.contains("the model gives one name"), warned, "{said}");
    }
}

#[test]
fn inspecting_takes_time_in_proportion_to_the_inputs() {
    use lethe_engine::DataType;
    use lethe_engine::onnx::writer::ModelWriter;
    let folder = Folder::new("many-inputs");
    let least = |inputs: usize| {
        let mut model = ModelWriter::new(17);
        for i in 0..inputs {
            model = model.input(&format!("x{i}"), DataType::Float32, &[&format!("n{i}")]);
        }
        let model = model.node("Relu", &["x0"], &["y"], vec![]).output("y");
        let file = folder.file(&format!("{inputs}.onnx"), &model.to_bytes());
        let runs = (0..3).map(|_| {
            let start = std::time::Instant::now();
            let output = lethe(&["inspect", &file]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            start.elapsed()
        });
        runs.min().unwrap_or_default()
    };
    let (few, many) = (least(2_500), least(20_000));
    // Eight times the inputs: 64 times the time were it quadratic.
    assert!(many < few * 24, "{few:?} became {many:?}");
}

#[test]
fn inspect_lists_every_unknown_operator() {
    use lethe_engine::DataType::Float32;
    let folder = Folder::new("unknown-operators");
    let model = lethe_engine::onnx::writer::ModelWriter::new(17)
        .import("com.example", 3)
        .input("x", Float32, &["n"])
        .node("NoSuchThing", &["x"], &["a"], vec![])
        .node("NoSuchThing", &["a"], &["b"], vec![])
        .node_of("com.example", "Other", &["b"], &["y"], vec![])
        .output("y");
    let path = folder.file("model.onnx", &model.to_bytes());
    let output = lethe(&["inspect", &path, "--json"]);
    assert_eq!(output.status.code(), Some(1), "the answer is no");
    let report: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["error"]["code"], "LETHE-OPERATOR-UNKNOWN");
    let unknown: Vec<(&str, u64)> = report["operators"]
        .as_array()
        .expect("operators")
        .iter()
        .filter(|o| o["supported"] == false)
        .map(|o| {
            (
                o["operator"].as_str().unwrap_or_default(),
                o["nodes"].as_u64().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(unknown, [("NoSuchThing", 2), ("Other", 1)]);
    let printed = text(&lethe(&["inspect", &path]).stdout);
    assert!(
        printed.contains("com.example.Other") && printed.contains("UNKNOWN in opset 3"),
        "{printed}"
    );
}

#[test]
fn help_is_no_error() {
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let output = lethe(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_is_prepared_is_what_a_server_starts_with() {
    use std::io::{BufRead, BufReader};
    let folder = Folder::new("prepared");
    let cache = folder.0.join("cache");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lethe"));
        command
            .current_dir(root())
            .env("LETHE_CACHE_DIR", &cache)
            .args(arguments);
        command
    };
    let files = || {
        let entries = std::fs::read_dir(&cache).expect("there is a cache");
        let names = entries.map(|entry| entry.expect("it can be read").file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let output = command(&["prepare", "--json"]).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let code = files();
    assert!(!code.is_empty());
    let output = command(&["prepare", DIGITS, "--json"])
        .output()
        .expect("it starts");
    let report: Json = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(report["models"][0]["name"], "digits");
    let all = files();
    assert_eq!(all.len(), code.len() + 1, "{all:?}");

    let mut serve = command(&["serve", "--port", "0", DIGITS]);
    let mut serve = serve
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let out = serve.stdout.take().expect("it is piped");
    BufReader::new(out)
        .read_line(&mut line)
        .expect("it says where it listens");
    serve.kill().expect("it runs");
    serve.wait().expect("it ends");
    assert!(line.contains("://"), "{line}");
    assert_eq!(files(), all, "the server made files of its own");
}
