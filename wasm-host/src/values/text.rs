//! Values as text, in files and on the command line.

use lethe_engine::{DataType, Tensor};
use serde_json::Value as Json;

use super::elements::{Number, tensor_of_numbers};
use super::{Declared, json};

/// The content of a text file: numbers, or one string.
pub(super) fn decode(declared: Declared<'_>, bytes: Vec<u8>) -> Result<Tensor, String> {
    let text = String::from_utf8(bytes).map_err(|e| e.utf8_error().to_string())?;
    let data_type = declared.data_type();
    if data_type == DataType::String {
        let shape = vec![1; declared.axes().map_or(0, |axes| axes.len())];
        return Tensor::from_strings(&shape, vec![text]).map_err(|e| e.to_string());
    }
    let words = text.split(|c: char| c.is_whitespace() || c == ',');
    let numbers = words.filter(|word| !word.is_empty()).map(number);
    let numbers: Vec<Number> = numbers.collect::<Result<_, _>>()?;
    tensor_of_numbers(data_type, &declared.shape_of_row(numbers.len()), &numbers)
}

fn number(word: &str) -> Result<Number, String> {
    let integer = word.parse().map(Number::Integer).ok();
    integer
        .or_else(|| word.parse().map(Number::Real).ok())
        .ok_or_else(|| format!("{word:?} is no number"))
}

/// A value on the command line.
pub(super) fn literal(declared: Declared<'_>, text: &str) -> Result<Tensor, String> {
    let axes = declared.axes().unwrap_or_default();
    let fill: Vec<usize> = axes.iter().map(|axis| axis.unwrap_or(1)).collect();
    let fills = lethe_engine::tensor::element_count(&fill).ok_or("its shape is too large")?;
    if declared.data_type() == DataType::String && !text.starts_with(['[', '{', '"']) {
        return Tensor::from_strings(&fill, vec![text.into(); fills]).map_err(|e| e.to_string());
    }
    let value: Json = serde_json::from_str(text)
        .map_err(|_| format!("{text:?} is neither a file with a known ending nor a value"))?;
    let made = json::tensor(declared, &value)?;
    if !made.shape().is_empty() || axes.is_empty() {
        return Ok(made);
    }
    match made.as_strings() {
        Ok(strings) => Tensor::from_strings(&fill, vec![strings[0].clone(); fills]),
        Err(_) if made.data_type().is_sub_byte() => {
            return Err("give all elements of a packed type".into());
        }
        Err(_) => Tensor::from_bytes(made.data_type(), &fill, made.bytes().repeat(fills)),
    }
    .map_err(|e| e.to_string())
}
