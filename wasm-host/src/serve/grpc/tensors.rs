//! Tensors as gRPC messages have them, both ways.

use std::collections::HashSet;

use bytes::Bytes;
use lethe_engine::{DataType, Tensor, Value};
use lethe_server::Problem;
use lethe_server::octets::{Octets, size_bytes, sizes, write_tensor};

use super::messages::{Contents, InferTensor, ModelInferRequest};

/// The named inputs of a request: all of them raw, or each with its contents.
///
/// # Errors
/// 422 where datatype, shape and elements do not fit each other.
pub(super) fn inputs(request: ModelInferRequest) -> Result<Vec<(String, Value)>, Problem> {
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        let detail = format!(
            "raw_input_contents: expected {} entries, one an input, found {}",
            request.inputs.len(),
            raw.len()
        );
        return Err(Problem::new(422, "LETHE-INPUT-DATA", detail));
    }
    let mut names = HashSet::new();
    if let Some(input) = request.inputs.iter().find(|i| !names.insert(&*i.name)) {
        return Err(Problem::repeated_input(&input.name));
    }
    let mut raw = raw.into_iter();
    let inputs = request.inputs.into_iter().map(|input| {
        let name = input.name;
        let wrong = |code, expected: &str, found: String| {
            Problem::wrong_input(code, &name, expected, found)
        };
        let data_type = DataType::from_protocol_name(&input.datatype).ok_or_else(|| {
            let expected = "a datatype of the Open Inference Protocol";
            wrong(
                "LETHE-INPUT-TYPE",
                expected,
                format!("{:?}", input.datatype),
            )
        })?;
        let shape = sizes(&input.shape)
            .map_err(|(expected, found)| wrong("LETHE-INPUT-SHAPE", expected, found))?;
        let bytes = match (raw.next(), input.contents) {
            (Some(_), Some(_)) => {
                let found = "both contents and raw_input_contents".to_owned();
                return Err(wrong("LETHE-INPUT-DATA", "one of them", found));
            }
            (Some(raw), None) => raw,
            (None, contents) => {
                little_endian(contents.unwrap_or_default(), data_type).map_err(|found| {
                    let expected = format!("elements of {}", input.datatype);
                    wrong("LETHE-INPUT-DATA", &expected, found)
                })?
            }
        };
        let tensor = Octets::new(&bytes, Some(&bytes)).into_tensor(data_type, &shape);
        let tensor =
            tensor.map_err(|(expected, found)| wrong("LETHE-INPUT-DATA", &expected, found))?;
        Ok((name, Value::Tensor(tensor)))
    });
    inputs.collect()
}

/// The elements of the list that a datatype uses, as raw bytes; other lists are not looked at, so
/// that a tensor in the wrong one has too few elements.
///
/// # Errors
/// The first element that the datatype cannot hold.
fn little_endian(contents: Contents, data_type: DataType) -> Result<Bytes, String> {
    use DataType::{
        Bool, Float32, Float64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64,
    };
    macro_rules! bytes {
        ($list:expr, $type:ty) => {{
            let mut bytes = Vec::with_capacity($list.len() * size_of::<$type>());
            for element in $list {
                let narrow = <$type>::try_from(element).map_err(|_| element.to_string())?;
                bytes.extend_from_slice(&narrow.to_le_bytes());
            }
            bytes
        }};
    }
    let bytes = match data_type {
        Bool => bytes!(contents.bools, u8),
        Int8 => bytes!(contents.ints, i8),
        Int16 => bytes!(contents.ints, i16),
        Int32 => bytes!(contents.ints, i32),
        Int64 => bytes!(contents.int64s, i64),
        Uint8 => bytes!(contents.uints, u8),
        Uint16 => bytes!(contents.uints, u16),
        Uint32 => bytes!(contents.uints, u32),
        Uint64 => bytes!(contents.uint64s, u64),
        Float32 => bytes!(contents.fp32s, f32),
        Float64 => bytes!(contents.fp64s, f64),
        DataType::String => {
            let texts = contents.bytes.iter();
            let with_lengths = texts.flat_map(|text| {
                let len = (text.len() as u32).to_le_bytes();
                len.into_iter().chain(text.iter().copied())
            });
            with_lengths.collect()
        }
        // Their elements are always raw.
        _ => Vec::new(),
    };
    Ok(bytes.into())
}

/// The outputs that are wanted, all of them where none is named, with their elements as raw bytes.
///
/// # Errors
/// 422 for an output that is not there, or is no tensor.
pub(super) fn outputs(
    mut outputs: Vec<(String, Value)>,
    wanted: &[String],
) -> Result<(Vec<InferTensor>, Vec<Bytes>), Problem> {
    if !wanted.is_empty() {
        let known: HashSet<&str> = outputs.iter().map(|(name, _)| &**name).collect();
        let mut asked = HashSet::new();
        let mut wrong = wanted
            .iter()
            .filter(|name| !known.contains(&***name) || !asked.insert(&***name));
        if let Some(name) = wrong.next() {
            let detail = format!("output {name:?}: expected one of the model's, each once");
            return Err(Problem::new(422, "LETHE-OUTPUT-UNKNOWN", detail));
        }
        outputs.retain(|(name, _)| asked.contains(&**name));
    }
    let tensors = outputs.into_iter().map(|(name, value)| match value {
        Value::Tensor(tensor) => Ok(output(name, &tensor)),
        other => {
            let detail = format!(
                "output {name:?} is a {}: gRPC has tensors only",
                other.kind()
            );
            Err(Problem::new(422, "LETHE-OUTPUT-KIND", detail))
        }
    });
    tensors.collect()
}

fn output(name: String, tensor: &Tensor) -> (InferTensor, Bytes) {
    let mut bytes = Vec::with_capacity(size_bytes(tensor));
    write_tensor(&mut bytes, tensor);
    let output = InferTensor {
        name,
        datatype: tensor.data_type().protocol_name().into(),
        shape: tensor.shape().iter().map(|&size| size as i64).collect(),
        ..InferTensor::default()
    };
    (output, bytes.into())
}

/// Triton's number of a datatype (`model_config.proto`), 0 for one that it does not have.
pub(super) fn configured_type(name: &str) -> i32 {
    const NAMES: [&str; 15] = [
        "", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
        "FP16", "FP32", "FP64", "BYTES", "BF16",
    ];
    NAMES.iter().position(|known| *known == name).unwrap_or(0) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, shape: Vec<i64>) -> InferTensor {
        InferTensor {
            name: name.into(),
            datatype: "FP32".into(),
            shape,
            contents: Some(Contents {
                fp32s: vec![1.0],
                ..Contents::default()
            }),
            ..InferTensor::default()
        }
    }

    #[test]
    fn inputs_are_given_once_and_have_few_sizes() {
        let given = |tensors: Vec<InferTensor>| {
            let request = ModelInferRequest {
                inputs: tensors,
                ..ModelInferRequest::default()
            };
            inputs(request)
                .map(|inputs| inputs.len())
                .map_err(|p| p.code)
        };
        let (x, y) = (input("x", vec![1]), input("y", vec![1]));
        assert_eq!(given(vec![x.clone(), y.clone()]), Ok(2));
        let twice = given(vec![x.clone(), y, x]);
        assert_eq!(twice, Err("LETHE-INPUT-UNKNOWN".into()));
        assert_eq!(given(vec![input("x", vec![1; 64])]), Ok(1));
        let long = given(vec![input("x", vec![1; 65])]);
        assert_eq!(long, Err("LETHE-INPUT-SHAPE".into()));
    }
}
