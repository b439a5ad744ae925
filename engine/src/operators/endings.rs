//! Operators within a run's limits: one that would take more memory is refused before it has it, and
//! one that takes long ends when its run is told to.

use super::case::{Case, ints, strings, tensor};
use crate::graph::attributes::Attribute;
use crate::onnx::writer::ModelWriter;
use crate::tensor::{Bool, Buffer, DataType, Tensor, Value};
use crate::{Budget, Session, SessionOptions};

const MEMORY_BYTES: u64 = 16 << 20;

/// What a model of one operator gives within [`MEMORY_BYTES`]: `None`, or the code of its error. Its
/// inputs are constants of the model, or the run's; equal ones are one.
fn refusal(case: &Case, inputs: &[Tensor], constants: bool) -> Option<&'static str> {
    let first = |tensor: &Tensor| inputs.iter().position(|other| other == tensor);
    let names: Vec<String> = inputs.iter().map(|t| format!("in{:?}", first(t))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut model = ModelWriter::new(case.attributes.opset);
    let mut given = Vec::new();
    for (i, (name, tensor)) in names.iter().zip(inputs).enumerate() {
        if first(tensor) != Some(i) {
            continue;
        }
        if constants {
            model = model.constant(name, tensor);
            continue;
        }
        let dims: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        model = model.input(name, tensor.data_type(), &dims);
        given.push((*name, Value::Tensor(tensor.clone())));
    }
    let attributes = case.attributes.iter();
    let attributes = attributes.map(|(name, value)| (name, value.clone()));
    let model = model
        .node(case.op_type, &names, &["y"], attributes.collect())
        .output("y");
    let options = SessionOptions {
        budget: Budget {
            memory_bytes: MEMORY_BYTES,
            ..Budget::default()
        },
        ..SessionOptions::default()
    };
    let ran = Session::load(model.to_bytes(), &options).and_then(|session| session.run(&given));
    ran.err().map(|error| error.code())
}

fn zeros(data_type: DataType, shape: &[usize]) -> Tensor {
    let bytes = data_type.size_bytes(shape.iter().product()).expect("small");
    Tensor::from_bytes(data_type, shape, Buffer::zeroed(bytes)).expect("so many bytes")
}

fn cast(to: DataType) -> Case {
    Case::of("Cast", 17).with("to", Attribute::Int(to as i64))
}

#[test]
fn a_text_that_is_repeated_beyond_the_limit_is_refused() {
    const TIMES: usize = 10_000;
    let text = "x".repeat(1 << 17);
    let text = strings(&[1], &[&text]);
    let times = ints(&[TIMES as i64]);
    let some = ints(&[4]);
    let condition = |count| tensor(&[count], &vec![Bool(1); count]);
    let cases: [(&str, Vec<Tensor>, Vec<Tensor>); 5] = [
        (
            "Expand",
            vec![text.clone(), times.clone()],
            vec![text.clone(), some.clone()],
        ),
        ("Tile", vec![text.clone(), times], vec![text.clone(), some]),
        (
            "Gather",
            vec![text.clone(), zeros(DataType::Int64, &[TIMES])],
            vec![text.clone(), zeros(DataType::Int64, &[4])],
        ),
        (
            "Where",
            vec![condition(TIMES), text.clone(), text.clone()],
            vec![condition(4), text.clone(), text.clone()],
        ),
        ("Concat", vec![text.clone(); 200], vec![text.clone(); 4]),
    ];
    for constants in [false, true] {
        for (name, beyond, within) in &cases {
            let mut case = Case::of(name, 17);
            if *name == "Concat" {
                case = case.int("axis", 0);
            }
            let found = refusal(&case, beyond, constants);
            assert_eq!(
                found,
                Some("LETHE-BUDGET"),
                "{name}, constants: {constants}"
            );
            assert_eq!(
                refusal(&case, within, constants),
                None,
                "{name}, within the limit"
            );
        }
    }
}

#[test]
fn what_grows_within_an_operator_is_refused() {
    let deep = [2; 17];
    let ones = tensor(&deep, &vec![Bool(1); 1 << 17]);
    let cases = [
        (Case::of("NonZero", 17), ones),
        (
            Case::of("SplitToSequence", 17),
            zeros(DataType::Uint8, &[1 << 17]),
        ),
        (cast(DataType::String), zeros(DataType::Uint8, &[1 << 20])),
    ];
    let mut went_on = Vec::new();
    for (case, input) in cases {
        for constants in [false, true] {
            if refusal(&case, std::slice::from_ref(&input), constants) != Some("LETHE-BUDGET") {
                went_on.push((case.op_type, constants));
            }
        }
    }
    assert!(went_on.is_empty(), "{went_on:?}");
}

/// Where there are threads, of which another tells a run to end, and where a run can: not where a panic aborts.
#[cfg(not(target_family = "wasm"))]
mod times {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::limits::{self, Ended, Limits, Stop};
    use crate::tensor::{Sequence, ValueKind};

    /// How an operator ends whose run is told to end while it is on.
    fn ended(case: &Case, inputs: Vec<Value>) -> Option<Ended> {
        let flag = Arc::new(AtomicBool::new(false));
        let raised = flag.clone();
        let limits = Limits {
            memory_bytes: u64::MAX,
            stop: Stop::when(flag),
        };
        let inputs: Vec<Option<Value>> = inputs.into_iter().map(Some).collect();
        let clock = thread::spawn(move || {
            thread::sleep(Duration::from_millis(1));
            raised.store(true, Ordering::Relaxed);
        });
        let ran = limits::within(limits, || {
            limits::until_ended(|| case.run_as_it_is(&inputs).expect("a case that fits"))
        });
        clock.join().expect("it only sleeps");
        ran.err()
    }

    #[test]
    fn what_takes_long_ends_when_it_is_told_to() {
        use DataType::{Float32, Uint8};
        let one = |tensor: Tensor| vec![Value::Tensor(tensor)];
        let image = zeros(Float32, &[1, 32, 64, 64]);
        let grid = zeros(Float32, &[1, 256, 256, 2]);
        let sampled = || vec![image.clone().into(), grid.clone().into()];
        let sequence = Sequence {
            element: ValueKind::Tensor(Uint8),
            values: vec![zeros(Uint8, &[1 << 12, 1]).into(); 1 << 11],
        };
        let many: Vec<i32> = (0..1 << 18)
            .map(|i: i32| i.wrapping_mul(0x9e37_79b1_u32 as i32))
            .collect();
        let cases: Vec<(Case, Vec<Value>)> = vec![
            (
                Case::of("SplitToSequence", 17),
                one(zeros(Uint8, &[1 << 19])),
            ),
            (cast(DataType::String), one(zeros(Float32, &[1 << 20]))),
            (
                Case::of("ConcatFromSequence", 17).int("axis", 1),
                vec![Value::Sequence(sequence)],
            ),
            (
                Case::of("GridSample", 16).text("mode", "bicubic"),
                sampled(),
            ),
            (
                Case::of("GridSample", 16).text("mode", "bilinear"),
                sampled(),
            ),
            (Case::of("Unique", 17), one(tensor(&[many.len()], &many))),
            (
                Case::of("Upsample", 9).text("mode", "linear"),
                vec![
                    image.clone().into(),
                    tensor(&[4], &[1f32, 1., 8., 8.]).into(),
                ],
            ),
            (Case::of("Transpose", 17), one(zeros(Uint8, &[2; 23]))),
            (
                Case::of("TopK", 17).outputs(2),
                vec![
                    zeros(Float32, &[1 << 10, 1 << 11]).into(),
                    ints(&[1 << 10]).into(),
                ],
            ),
            (
                Case::of("NonZero", 17),
                one(tensor(&[2; 20], &vec![Bool(1); 1 << 20])),
            ),
        ];
        let mut went_on = Vec::new();
        for (case, inputs) in cases {
            if ended(&case, inputs) != Some(Ended::Stopped) {
                went_on.push(case);
            }
        }
        assert!(went_on.is_empty(), "{went_on:?}");
    }
}
