//! Tensors as JSON: nested arrays, or objects as in the Open Inference Protocol.

use lethe_engine::{DataType, Tensor};
use serde_json::Value as Json;

use super::Declared;
use super::elements::{Number, tensor_of_numbers};

pub(super) fn decode(declared: Declared<'_>, bytes: &[u8]) -> Result<Tensor, String> {
    let json: Json = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    tensor(declared, &json)
}

/// The tensor that a JSON value is for this input.
pub(super) fn tensor(declared: Declared<'_>, json: &Json) -> Result<Tensor, String> {
    let Json::Object(object) = json else {
        let (shape, leaves) = flatten(json)?;
        return from_leaves(declared.data_type(), &shape, &leaves);
    };
    if let Some(Json::Array(inputs)) = object.get("inputs") {
        let named = |input: &&Json| input["name"] == *declared.name;
        let input = inputs
            .iter()
            .find(named)
            .ok_or_else(|| format!("the request has no input {:?}", declared.name))?;
        return match input.get("inputs") {
            None => tensor(declared, input),
            Some(_) => Err("a request within a request".into()),
        };
    }
    let data = object.get("data").ok_or("an object without \"data\"")?;
    let (nested, leaves) = flatten(data)?;
    let data_type = match object.get("datatype").and_then(Json::as_str) {
        None => declared.data_type(),
        Some(name) => DataType::from_protocol_name(name)
            .ok_or_else(|| format!("the datatype {name:?} does not exist"))?,
    };
    let shape = match object.get("shape") {
        None => nested,
        Some(shape) => {
            let shape: Vec<usize> =
                serde_json::from_value(shape.clone()).map_err(|e| format!("shape: {e}"))?;
            // Below an array without elements there is nothing that could show how it goes on.
            let is_nested = nested == shape || nested.contains(&0) && shape.starts_with(&nested);
            if nested.len() > 1 && !is_nested {
                let expected = format!("expected one array, or arrays nested as {shape:?}");
                return Err(format!("{expected}, found arrays nested as {nested:?}"));
            }
            shape
        }
    };
    from_leaves(data_type, &shape, &leaves)
}

/// The shape of nested arrays, and what is in the innermost.
fn flatten(json: &Json) -> Result<(Vec<usize>, Vec<&Json>), String> {
    let mut shape = Vec::new();
    let mut level = vec![json];
    while let Some(Json::Array(first)) = level.first() {
        let size = first.len();
        let mut below = Vec::with_capacity(level.len() * size);
        for item in &level {
            match item {
                Json::Array(items) if items.len() == size => below.extend(items),
                _ => return Err(format!("the arrays {} deep are not alike", shape.len() + 1)),
            }
        }
        shape.push(size);
        level = below;
    }
    Ok((shape, level))
}

fn from_leaves(data_type: DataType, shape: &[usize], leaves: &[&Json]) -> Result<Tensor, String> {
    if data_type == DataType::String {
        let text = |leaf: &&Json| leaf.as_str().map(str::to_owned);
        let strings: Option<Vec<String>> = leaves.iter().map(text).collect();
        let strings = strings.ok_or("something else where strings are expected")?;
        return Tensor::from_strings(shape, strings).map_err(|e| e.to_string());
    }
    let number = |leaf: &&Json| -> Result<Number, String> {
        match leaf {
            Json::Bool(b) => Ok(Number::Integer((*b).into())),
            Json::Number(n) => n
                .as_i128()
                .map(Number::Integer)
                .or_else(|| n.as_f64().map(Number::Real))
                .ok_or_else(|| format!("{n} is too large")),
            // What JSON has no number for.
            Json::String(s) if ["NaN", "Infinity", "-Infinity"].contains(&s.as_str()) => {
                s.parse().map(Number::Real).map_err(|_| s.clone())
            }
            other => Err(format!("{other} where a number is expected")),
        }
    };
    let numbers: Vec<Number> = leaves.iter().map(number).collect::<Result<_, _>>()?;
    tensor_of_numbers(data_type, shape, &numbers)
}
