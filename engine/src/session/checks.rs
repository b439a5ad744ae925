//! Whether the inputs of a run are those that the model declares.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;
use crate::graph::dimension::display_dims;
use crate::graph::{Dim, ValueInfo};
use crate::operator::InputValue;
use crate::tensor::{DataType, TensorView, ValueKind};

/// Checks inputs against what the model declares, but for names of axes.
pub(super) fn check_inputs(infos: &[ValueInfo], inputs: &[InputValue<'_>]) -> Result<(), Error> {
    if inputs.len() != infos.len() {
        return Err(Error::MissingInput {
            name: format!("number {}", inputs.len()),
            expected: names(infos),
        });
    }
    let pairs = infos.iter().zip(inputs);
    pairs
        .into_iter()
        .try_for_each(|(info, input)| check_input(info, *input))
}

/// An input as it is taken: where the model declares a scalar, any tensor of one number is it. onnxruntime
/// takes those, and programs give them.
pub(super) fn as_scalar<'a>(info: &ValueInfo, input: InputValue<'a>) -> InputValue<'a> {
    match input {
        InputValue::Tensor(view)
            if info
                .value_type
                .dims
                .as_ref()
                .is_some_and(|dims| dims.is_empty())
                && view.data_type() != DataType::String
                && !view.shape().is_empty()
                && view.shape().iter().all(|&size| size == 1) =>
        {
            InputValue::Tensor(TensorView::from_bytes(view.data_type(), &[], view.bytes()))
        }
        other => other,
    }
}

/// A name that a model gives several axes of its inputs, which were not of one size in a run.
/// Nothing is wrong with the answer: what is computed follows from sizes, not from their names. But
/// somebody may have meant the axes to be equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitName {
    /// The name.
    pub name: Arc<str>,
    /// All that have it: an input and which of its axes.
    pub axes: Vec<(Arc<str>, usize)>,
}

impl fmt::Display for SplitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        let shown = self.axes.iter().take(SHOWN);
        let shown: Vec<String> = shown
            .map(|(input, axis)| format!("axis {axis} of {input:?}"))
            .collect();
        let more = match self.axes.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        write!(
            f,
            "the model gives one name, {:?}, to the sizes of {}{more}, and they were not equal: each \
             is taken for a size of its own",
            self.name,
            shown.join(", "),
        )
    }
}

/// The names that stand for several axes of the inputs.
#[derive(Debug, Default)]
pub(super) struct SharedNames(Vec<SharedName>);

#[derive(Debug)]
struct SharedName {
    name: Arc<str>,
    /// Input and axis, at least two.
    places: Vec<(usize, usize)>,
    /// Whether they had several sizes in a run.
    is_split: AtomicBool,
}

impl SharedNames {
    pub(super) fn of(infos: &[ValueInfo]) -> Self {
        let mut places: BTreeMap<&Arc<str>, Vec<(usize, usize)>> = BTreeMap::new();
        for (i, info) in infos.iter().enumerate() {
            for (axis, dim) in info.value_type.dims.iter().flatten().enumerate() {
                if let Dim::Symbol(name) = dim {
                    places.entry(name).or_default().push((i, axis));
                }
            }
        }
        let shared = places.into_iter().filter(|(_, places)| places.len() > 1);
        let names = shared.map(|(name, places)| SharedName {
            name: name.clone(),
            places,
            is_split: AtomicBool::new(false),
        });
        Self(names.collect())
    }

    /// Notes the names that have several sizes in these inputs, which were checked.
    pub(super) fn note(&self, inputs: &[InputValue<'_>]) {
        for shared in &self.0 {
            // Once is enough.
            if shared.is_split.load(Ordering::Relaxed) {
                continue;
            }
            let mut sizes = shared.places.iter().filter_map(|&(input, axis)| {
                let InputValue::Tensor(view) = inputs.get(input)? else {
                    return None;
                };
                view.shape().get(axis)
            });
            let first = sizes.next();
            if sizes.any(|size| Some(size) != first) {
                shared.is_split.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Those that had several sizes so far.
    pub(super) fn split(&self, infos: &[ValueInfo]) -> Vec<SplitName> {
        let axis = |&(input, axis): &(usize, usize)| (infos[input].name.clone(), axis);
        let split = self.0.iter().filter(|n| n.is_split.load(Ordering::Relaxed));
        split
            .map(|shared| SplitName {
                name: shared.name.clone(),
                axes: shared.places.iter().map(axis).collect(),
            })
            .collect()
    }
}

fn check_input(info: &ValueInfo, input: InputValue<'_>) -> Result<(), Error> {
    let kind = match input {
        InputValue::Tensor(view) => ValueKind::Tensor(view.data_type()),
        InputValue::Value(value) => value.kind(),
        InputValue::InPlace { data_type, .. } => ValueKind::Tensor(data_type),
    };
    if let Some(expected) = &info.value_type.kind
        && !accepts(expected, &kind)
    {
        return Err(Error::InputType {
            name: info.name.to_string(),
            expected: expected.to_string(),
            found: kind.to_string(),
        });
    }
    if let (Some(dims), InputValue::Tensor(view)) = (&info.value_type.dims, input) {
        let fits = dims.len() == view.rank()
            && dims
                .iter()
                .zip(view.shape())
                .all(|(d, &n)| d.known().is_none_or(|k| k == n));
        if !fits {
            return Err(Error::InputShape {
                name: info.name.to_string(),
                expected: display_dims(Some(dims)),
                found: format!("{:?}", view.shape()),
            });
        }
    }
    Ok(())
}

/// Whether a value of kind `found` may be given for `expected`: an optional takes what it is of,
/// and an empty sequence takes any element.
fn accepts(expected: &ValueKind, found: &ValueKind) -> bool {
    match (expected, found) {
        (ValueKind::Optional(inner), found) if **inner == *found => true,
        (ValueKind::Optional(_), ValueKind::Optional(_)) => true,
        (ValueKind::Sequence(_), ValueKind::Sequence(element)) => {
            expected == found || **element == ValueKind::Tensor(DataType::Float32)
        }
        _ => expected == found,
    }
}

/// Names, types and shapes, for messages.
pub(super) fn names(infos: &[ValueInfo]) -> String {
    // A model may have thousands, with names and shapes of any length: an error is no place for all.
    const MOST_NAMES: usize = 16;
    const MOST_CHARACTERS: usize = 200;
    let cut = |text: &str| match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    let name = |info: &ValueInfo| {
        let kind = match (&info.value_type.kind, &info.value_type.dims) {
            (Some(ValueKind::Tensor(t)), Some(dims)) => {
                format!("{t}{}", display_dims(Some(dims)))
            }
            (Some(kind), _) => kind.to_string(),
            (None, _) => "?".into(),
        };
        format!("{} ({})", cut(&info.name), cut(&kind))
    };
    let some: Vec<_> = infos.iter().take(MOST_NAMES).map(name).collect();
    match infos.len().saturating_sub(MOST_NAMES) {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use crate::onnx::writer::ModelWriter;
    use crate::tensor::{DataType, Tensor, Value};
    use crate::{Error, Session, SessionOptions};

    /// `y = relu(x · w + r)`, all of whose sizes have one name but for 2 columns.
    fn session(rewrite: bool) -> Session {
        let identity = Tensor::from_slice(&[2, 2], &[1f32, 0., 0., 1.]).expect("fits");
        let model = ModelWriter::new(17)
            .input("x", DataType::Float32, &["n", "2"])
            .input("r", DataType::Float32, &["n", "2"])
            .constant("w", &identity)
            .node("MatMul", &["x", "w"], &["p"], vec![])
            .node("Add", &["p", "r"], &["s"], vec![])
            .node("Relu", &["s"], &["y"], vec![])
            .output("y");
        let options = SessionOptions {
            rewrite,
            ..SessionOptions::default()
        };
        Session::load(model.to_bytes(), &options).expect("a model")
    }

    fn rows(rows: usize, columns: usize) -> Value {
        let numbers: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        Tensor::from_slice(&[rows, columns], &numbers)
            .expect("fits")
            .into()
    }

    #[test]
    fn a_name_that_has_two_sizes_is_two_names() {
        for rewrite in [true, false] {
            let session = session(rewrite);
            let run = |x, r| {
                let outputs = session.run(&[("x", rows(x, 2)), ("r", rows(r, 2))])?;
                let y = outputs[0].1.as_tensor().expect("a tensor").clone();
                Ok::<_, Error>((
                    y.shape().to_vec(),
                    y.as_slice::<f32>().expect("f32").to_vec(),
                ))
            };
            let doubled = || (vec![2, 2], vec![0., 2., 4., 6.]);
            assert_eq!(run(2, 2).expect("one size"), doubled());
            assert_eq!(session.split_names(), []);
            let broadcast = (vec![3, 2], vec![0., 2., 2., 4., 4., 6.]);
            assert_eq!(run(3, 1).expect("two sizes"), broadcast);
            assert_eq!(run(1, 3).expect("two sizes"), broadcast);
            // Layouts of one size stay what they were.
            assert_eq!(run(2, 2).expect("one size"), doubled());
            let split = session.split_names();
            assert_eq!(split.len(), 1, "said once: {split:?}");
            assert_eq!(
                split[0].to_string(),
                "the model gives one name, \"n\", to the sizes of axis 0 of \"x\", axis 0 of \"r\", and \
                 they were not equal: each is taken for a size of its own"
            );
            // What does not fit is still an error, by the node that it does not fit.
            assert!(matches!(run(3, 2), Err(Error::Node { .. })));
        }
    }

    #[test]
    fn numbers_that_a_model_declares_hold() {
        let session = session(true);
        let found = session.run(&[("x", rows(2, 3)), ("r", rows(2, 2))]);
        assert!(matches!(found, Err(Error::InputShape { .. })), "{found:?}");
        assert_eq!(session.split_names(), []);
    }
    #[test]
    fn one_number_of_any_shape_is_a_scalar() {
        let model = ModelWriter::new(17)
            .input("x", DataType::Float32, &["n"])
            .input("s", DataType::Float32, &[])
            .node("Mul", &["x", "s"], &["y"], vec![])
            .output("y");
        let session = Session::load(model.to_bytes(), &SessionOptions::default()).expect("a model");
        let run = |shape: &[usize]| {
            let x = Tensor::from_slice(&[2], &[1f32, 2.]).expect("fits");
            let numbers = vec![3f32; shape.iter().product()];
            let s = Tensor::from_slice(shape, &numbers).expect("fits");
            let outputs = session.run(&[("x", x.into()), ("s", s.into())])?;
            let y = outputs[0].1.as_tensor().expect("a tensor");
            assert_eq!(y.shape(), [2]);
            Ok::<_, Error>(y.as_slice::<f32>().expect("f32").to_vec())
        };
        for shape in [&[][..], &[1], &[1, 1, 1]] {
            assert_eq!(run(shape).expect("a scalar"), [3., 6.]);
        }
        for shape in [&[2][..], &[0], &[1, 2]] {
            assert!(matches!(run(shape), Err(Error::InputShape { .. })));
        }
    }
}
