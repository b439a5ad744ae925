//! Whether the inputs of a run are those that the model declares.

use crate::error::Error;
use crate::graph::dimension::display_dims;
use crate::graph::{Dim, ValueInfo};
use crate::operator::InputValue;
use crate::tensor::{DataType, ValueKind};

/// Checks inputs against what the model declares.
pub(super) fn check_inputs(infos: &[ValueInfo], inputs: &[InputValue<'_>]) -> Result<(), Error> {
    if inputs.len() != infos.len() {
        return Err(Error::MissingInput {
            name: format!("number {}", inputs.len()),
            expected: names(infos),
        });
    }
    for (i, (info, input)) in infos.iter().zip(inputs).enumerate() {
        check_input(info, *input)?;
        check_symbols(infos, i, inputs)?;
    }
    Ok(())
}

/// Axes of one name have one size over all inputs.
fn check_symbols(infos: &[ValueInfo], i: usize, inputs: &[InputValue<'_>]) -> Result<(), Error> {
    let size_of = |name: &str, upto: usize| {
        infos[..upto].iter().zip(inputs).find_map(|(info, input)| {
            let InputValue::Tensor(view) = input else {
                return None;
            };
            let dims = info.value_type.dims.as_deref()?;
            let axis = dims
                .iter()
                .position(|d| matches!(d, Dim::Symbol(s) if &**s == name))?;
            view.shape().get(axis).copied()
        })
    };
    let (Some(dims), InputValue::Tensor(view)) = (infos[i].value_type.dims.as_deref(), inputs[i])
    else {
        return Ok(());
    };
    for (dim, &found) in dims.iter().zip(view.shape()) {
        if let Dim::Symbol(name) = dim
            && let Some(size) = size_of(name, i)
            && size != found
        {
            return Err(Error::InputShape {
                name: infos[i].name.to_string(),
                expected: format!("{} with {name} = {size}", display_dims(Some(dims))),
                found: format!("{:?}", view.shape()),
            });
        }
    }
    Ok(())
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
    let name = |info: &ValueInfo| {
        let kind = info
            .value_type
            .kind
            .as_ref()
            .map_or("?".into(), ToString::to_string);
        match (&info.value_type.kind, &info.value_type.dims) {
            (Some(ValueKind::Tensor(t)), Some(dims)) => {
                format!("{} ({t}{})", info.name, display_dims(Some(dims)))
            }
            _ => format!("{} ({kind})", info.name),
        }
    };
    infos.iter().map(name).collect::<Vec<_>>().join(", ")
}
