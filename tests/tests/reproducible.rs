//! In reproducible mode the bits do not depend on the instruction set or the number of threads.

use std::path::Path;

use lethe_engine::{Level, Numerics, Value};
use lethe_tests::{inputs, load, model_folder, tensors};

/// Outputs of a data set as bytes, one after another.
fn bits(
    folder: &Path,
    data_set: &str,
    level: Level,
    numerics: Numerics,
    threads: usize,
) -> Vec<u8> {
    let session = load(folder, level, numerics, threads);
    let given = tensors(&folder.join(data_set), "input_");
    let outputs = session.run(&inputs(&given)).expect("the model runs");
    let bytes = |(_, value): (String, Value)| match value {
        Value::Tensor(tensor) => tensor.bytes().to_vec(),
        other => panic!("a tensor was expected, not {}", other.kind()),
    };
    outputs.into_iter().flat_map(bytes).collect()
}

fn check(model: &str, data_set: &str) {
    let Some(folder) = model_folder(model) else {
        return;
    };
    let expected = bits(&folder, data_set, Level::Scalar, Numerics::Reproducible, 1);
    assert!(!expected.is_empty(), "{model} has outputs");
    for level in Level::available() {
        for threads in [1, 2, 3] {
            let found = bits(&folder, data_set, level, Numerics::Reproducible, threads);
            assert!(
                found == expected,
                "{model} at {level} with {threads} threads has other bits"
            );
        }
    }
}

#[test]
fn digits_has_the_same_bits_everywhere() {
    check("digits", "test_data_set_0");
    check("digits", "test_data_set_1");
}

#[test]
fn vibration_has_the_same_bits_everywhere() {
    check("vibration", "test_data_set_0");
}

#[test]
fn silero_vad_has_the_same_bits_everywhere() {
    check("silero_vad", "test_data_set_8");
}

#[test]
fn minilm_has_the_same_bits_everywhere() {
    check("minilm_fp32", "test_data_set_0");
    check("minilm_int8", "test_data_set_0");
}

#[test]
fn stories260k_has_the_same_bits_everywhere() {
    check("stories260k", "test_data_set_0");
    check("stories260k_kv", "test_data_set_1");
}
