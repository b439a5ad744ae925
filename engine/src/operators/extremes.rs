//! What integers beyond 32 bits do. Each case that tests an operator is run again with its integers, one
//! after the other, at the ends of what 32 and 64 bits hold; natively and in WebAssembly, where a size has
//! 32 bits.
//!
//! Nobody knows the right answers, but there are three that are wrong:
//!
//! - 2^32 + k does what k does, and a large number below 2^32 does not (*cut*);
//! - what is beyond 32 bits does what 0 does, and a large number below 2^32 does not (*lost*);
//! - an input of a large number below 2^32 is good, and one beyond is refused (*refused*): files write
//!   2^63 - 1 for "to the end" and "no limit".

mod coverage;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::graph::attributes::Attribute;
use crate::onnx::writer::ModelWriter;
use crate::session::{Budget, Session, SessionOptions};
use crate::tensor::{DataType, Tensor, Value};

use super::case::Case;

/// Large, and beyond any memory that a test has, but within 32 bits.
const LARGE: i64 = 1 << 30;
/// The same number and its like beyond 32 bits, on either side of 0: where they are cut, they are 0.
const WRAPS: [[i64; 2]; 2] = [[1 << 32, 1 << 33], [-(1 << 32), -(1 << 33)]];
const ENDS: [[i64; 2]; 2] = [[1 << 62, i64::MAX], [-(1 << 62), i64::MIN]];
/// Cases of the same attributes and shapes that are looked at.
const MOST_ALIKE: usize = 4;
/// Tensors with more integers are data.
const MOST_INTEGERS: usize = 8;

/// Operators to which integers are numbers to compute with, as large as they like.
const ARITHMETIC: &[&str] = &["Einsum", "Gemm", "MatMul", "Mul"];

/// Where an integer of a case is.
#[derive(Debug, Clone)]
enum Place {
    Input(usize, usize),
    Attribute(String, usize),
}

/// The outputs, or why there are none.
type Outcome = Result<Vec<Value>, String>;

/// Fails where an integer of the case is cut, lost or refused.
pub(super) fn check(case: &Case, inputs: &[Option<Value>]) {
    let written =
        |attribute: &Attribute| !matches!(attribute, Attribute::Graph(_) | Attribute::Type(_));
    let is_written = case.attributes.iter().all(|(_, value)| written(value));
    let tensors = inputs
        .iter()
        .flatten()
        .all(|value| value.as_tensor().is_ok());
    if !is_written || !tensors || ARITHMETIC.contains(&case.op_type) {
        return;
    }
    if !is_new(case, inputs) {
        return;
    }
    for place in places(case, inputs) {
        for fixed in [false, true] {
            if fixed && matches!(place, Place::Attribute(..)) {
                continue;
            }
            let outcome = |value| outcome(case, inputs, &place, value, fixed);
            let name = format!("{} {:?} at {place:?}", case.op_type, case.attributes);
            judge(&name, &place, at(case, inputs, &place), &outcome);
        }
    }
}

/// Whether few cases have had the same attributes and shapes so far: some tests have thousands.
fn is_new(case: &Case, inputs: &[Option<Value>]) -> bool {
    static SEEN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let shapes: Vec<_> = inputs
        .iter()
        .map(|value| value.as_ref().and_then(|value| value.as_tensor().ok()))
        .map(|tensor| tensor.map(|tensor| (tensor.data_type(), tensor.shape())))
        .collect();
    let key = format!("{} {:?} {shapes:?}", case.op_type, case.attributes);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = seen.entry(key).or_default();
    *count += 1;
    *count <= MOST_ALIKE
}

fn judge(name: &str, place: &Place, k: i64, outcome: &dyn Fn(i64) -> Outcome) {
    let is_small = k.abs_diff(0) < 1 << 20;
    let (own, zero) = (outcome(k), outcome(0));
    for (side, modest) in [LARGE, -LARGE].into_iter().enumerate() {
        // Whatever they do at the edge, they end.
        drop(outcome(2 * modest));
        let large = outcome(modest);
        for wrap in WRAPS[side] {
            let wrapped = outcome(k.saturating_add(wrap));
            let cut = is_small && wrapped.is_ok() && wrapped == own && wrapped != large;
            assert!(!cut, "{name}: {wrap} more than {k} is cut to it: {own:?}");
        }
        for end in WRAPS[side].into_iter().chain(ENDS[side]) {
            let far = outcome(end);
            let lost = far.is_ok() && far == zero && far != large;
            assert!(
                !lost,
                "{name}: {end} is taken for 0: {far:?}, not {large:?}"
            );
            let refused = matches!(place, Place::Input(..)) && has_content(&large) && far.is_err();
            assert!(
                !refused,
                "{name}: {end} is refused ({far:?}), {modest} is not"
            );
        }
    }
}

/// Whether there are elements: a size may be anything beside a 0, but not beyond what a machine counts to.
fn has_content(outcome: &Outcome) -> bool {
    let is_empty = |value: &Value| value.as_tensor().is_ok_and(Tensor::is_empty);
    matches!(outcome, Ok(values) if !values.iter().any(is_empty))
}

fn places(case: &Case, inputs: &[Option<Value>]) -> Vec<Place> {
    let mut places = Vec::new();
    for (i, value) in inputs.iter().enumerate() {
        let tensor = value.as_ref().and_then(|value| value.as_tensor().ok());
        let tensor =
            tensor.filter(|t| t.data_type() == DataType::Int64 && t.len() <= MOST_INTEGERS);
        places.extend((0..tensor.map_or(0, Tensor::len)).map(|element| Place::Input(i, element)));
    }
    for (name, value) in case.attributes.iter() {
        let count = match value {
            Attribute::Int(_) => 1,
            Attribute::Ints(ints) => ints.len(),
            _ => 0,
        };
        places.extend((0..count).map(|element| Place::Attribute(name.to_owned(), element)));
    }
    places
}

fn elements(tensor: &Tensor) -> Vec<i64> {
    tensor.view().as_slice::<i64>().expect("int64").to_vec()
}

/// The integer that is there.
fn at(case: &Case, inputs: &[Option<Value>], place: &Place) -> i64 {
    match place {
        Place::Input(input, element) => {
            let value = inputs[*input].as_ref().expect("there is one");
            elements(value.as_tensor().expect("a tensor"))[*element]
        }
        Place::Attribute(name, element) => match case.attributes.get(name) {
            Some(Attribute::Int(n)) => *n,
            Some(Attribute::Ints(ints)) => ints[*element],
            other => unreachable!("{other:?}"),
        },
    }
}

/// The case as a model of one node, with `value` in that place; inputs with integers are constants of
/// the model where they are `fixed`.
fn outcome(
    case: &Case,
    inputs: &[Option<Value>],
    place: &Place,
    value: i64,
    fixed: bool,
) -> Outcome {
    let opset = case.attributes.opset;
    let mut model = match case.domain {
        "" => ModelWriter::new(opset),
        domain => ModelWriter::new(21).import(domain, opset),
    };
    let mut given = Vec::new();
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("in{i}")).collect();
    let mut node_inputs = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let Some(input) = input else {
            node_inputs.push("");
            continue;
        };
        let mut tensor = input.as_tensor().expect("checked before").clone();
        if let Place::Input(at, element) = place
            && *at == i
        {
            let mut changed = elements(&tensor);
            changed[*element] = value;
            tensor = Tensor::from_slice(tensor.shape(), &changed).expect("the same shape");
        }
        node_inputs.push(&*names[i]);
        if fixed && tensor.data_type() == DataType::Int64 {
            model = model.constant(&names[i], &tensor);
        } else {
            let dims: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
            let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
            model = model.input(&names[i], tensor.data_type(), &dims);
            given.push((&*names[i], Value::Tensor(tensor)));
        }
    }
    let attributes = case.attributes.iter().map(|(name, attribute)| {
        let attribute = match (attribute, place) {
            (Attribute::Int(_), Place::Attribute(at, _)) if at == name => Attribute::Int(value),
            (Attribute::Ints(ints), Place::Attribute(at, element)) if at == name => {
                let mut ints = ints.clone();
                ints[*element] = value;
                Attribute::Ints(ints)
            }
            (other, _) => other.clone(),
        };
        (name, attribute)
    });
    let outputs: Vec<String> = (0..case.attributes.output_count)
        .map(|i| format!("out{i}"))
        .collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    model = model.node_of(
        case.domain,
        case.op_type,
        &node_inputs,
        &outputs,
        attributes.collect(),
    );
    for output in outputs {
        model = model.output(output);
    }
    let options = SessionOptions {
        budget: Budget {
            memory_bytes: 1 << 24,
            ..Budget::default()
        },
        ..SessionOptions::default()
    };
    let session = Session::load(model.to_bytes(), &options).map_err(|error| error.to_string())?;
    let outputs = session.run(&given).map_err(|error| error.to_string())?;
    Ok(outputs.into_iter().map(|(_, value)| value).collect())
}
