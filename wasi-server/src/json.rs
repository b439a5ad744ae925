//! The JSON of the REST contract: inference requests in, answers out.
//!
//! Numbers go from the text straight into an element's bytes: no tree of JSON values is built. A
//! tensor whose `datatype` comes after its `data` is read in a second pass over that piece of text.
//! An element that does not fit its type does not end the parse: it is noted, and the request is
//! then refused with the input's name, what was expected and what was found.
//!
//! Datatypes are those of the Open Inference Protocol, and ONNX's other ones named in its manner.
//! 16-bit floats are JSON numbers rounded to the nearest. `NaN`, `Infinity` and `-Infinity`, which
//! JSON lacks, are strings, as in the JSON mapping of protocol buffers. Sources:
//! <https://github.com/kserve/open-inference-protocol> (REST),
//! <https://protobuf.dev/programming-guides/json/>.

mod elements;
mod nesting;
mod request;

pub use elements::write_elements;
pub(crate) use request::not_understood;
pub use request::{InferRequest, InputTensor, OutputName};

use lethe_engine::{Tensor, Value};

use crate::octets;
use crate::problem::Problem;

/// What an answer says of itself.
#[derive(Debug, Clone, Copy)]
pub struct AnswerHead<'a> {
    /// The model that answered.
    pub model: &'a str,
    /// Its version, where the answer is to be the Open Inference Protocol's, whose names for these
    /// two fields are others.
    pub version: Option<&'a str>,
    /// What the request called itself.
    pub id: Option<&'a str>,
}

/// Writes the answer to an inference request, and says how much of it is JSON where not all of it
/// is.
///
/// ```text
/// {"model", "id"?, "outputs": […]}                              or, with a version,
/// {"model_name", "model_version", "id"?, "outputs": […]}
/// ```
///
/// Outputs whose names `is_binary` follow the JSON as bytes, in order.
///
/// # Errors
/// When an output is not a tensor, or its elements have no JSON form.
pub fn write_answer(
    head: &AnswerHead<'_>,
    outputs: &[(String, Value)],
    is_binary: &dyn Fn(&str) -> bool,
) -> Result<(Vec<u8>, Option<u64>), Problem> {
    let mut out = Vec::with_capacity(256);
    let mut binary: Vec<&Tensor> = Vec::new();
    out.extend_from_slice(match head.version {
        Some(_) => b"{\"model_name\":",
        None => b"{\"model\":",
    });
    write_text(&mut out, head.model);
    for (name, value) in [
        (&b",\"model_version\":"[..], head.version),
        (b",\"id\":", head.id),
    ] {
        if let Some(value) = value {
            out.extend_from_slice(name);
            write_text(&mut out, value);
        }
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (i, (name, value)) in outputs.iter().enumerate() {
        let tensor = tensor_of(name, value)?;
        out.extend_from_slice(if i == 0 {
            b"{\"name\":"
        } else {
            b",{\"name\":"
        });
        write_text(&mut out, name);
        out.extend_from_slice(b",\"shape\":");
        serde_json::to_writer(&mut out, tensor.shape()).expect("writing to memory succeeds");
        out.extend_from_slice(b",\"datatype\":");
        write_text(&mut out, tensor.data_type().protocol_name());
        if is_binary(name) {
            out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            let size = octets::size_bytes(tensor);
            serde_json::to_writer(&mut out, &size).expect("writing to memory succeeds");
            out.extend_from_slice(b"}}");
            binary.push(tensor);
            continue;
        }
        out.extend_from_slice(b",\"data\":");
        write_elements(&mut out, tensor).map_err(|data_type| {
            let detail = format!("output {name:?} has elements of {data_type}: JSON has no such");
            Problem::new(422, "LETHE-OUTPUT-KIND", detail)
        })?;
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    if binary.is_empty() {
        return Ok((out, None));
    }
    let json_bytes = out.len() as u64;
    out.reserve_exact(binary.iter().map(|tensor| octets::size_bytes(tensor)).sum());
    for tensor in binary {
        octets::write_tensor(&mut out, tensor);
    }
    Ok((out, Some(json_bytes)))
}

/// The tensor that an output is.
pub(crate) fn tensor_of<'a>(name: &str, value: &'a Value) -> Result<&'a Tensor, Problem> {
    match value {
        Value::Tensor(tensor) => Ok(tensor),
        other => {
            let detail = format!(
                "output {name:?} is a {}: an answer has tensors only",
                other.kind()
            );
            Err(Problem::new(422, "LETHE-OUTPUT-KIND", detail))
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory succeeds");
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::tensor::Sequence;
    use lethe_engine::{Tensor, ValueKind};

    const HEAD: AnswerHead<'_> = AnswerHead {
        model: "m",
        version: None,
        id: Some("7"),
    };

    #[test]
    fn answers_name_type_and_shape() {
        let tensor = Tensor::from_slice(&[1, 2], &[0.1f32, f32::INFINITY]).unwrap();
        let outputs = [("y".into(), tensor.into())];
        let (answer, json_bytes) = write_answer(&HEAD, &outputs, &|_| false).unwrap();
        let expected = r#"{"model":"m","id":"7","outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[0.1,"Infinity"]}]}"#;
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
        assert_eq!(json_bytes, None);
    }

    #[test]
    fn binary_outputs_follow_the_json() {
        let number = Tensor::from_slice(&[1], &[1i16]).unwrap();
        let texts = Tensor::from_strings(&[2], vec!["a".into(), String::new()]).unwrap();
        let outputs = [
            ("n".into(), number.clone().into()),
            ("t".into(), texts.into()),
            ("j".into(), number.into()),
        ];
        let head = AnswerHead {
            version: Some("1"),
            id: None,
            ..HEAD
        };
        let (answer, json_bytes) = write_answer(&head, &outputs, &|name| name != "j").unwrap();
        let (json, tail) = answer.split_at(json_bytes.unwrap() as usize);
        let expected = concat!(
            r#"{"model_name":"m","model_version":"1","outputs":["#,
            r#"{"name":"n","shape":[1],"datatype":"INT16","parameters":{"binary_data_size":2}},"#,
            r#"{"name":"t","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}},"#,
            r#"{"name":"j","shape":[1],"datatype":"INT16","data":[1]}]}"#,
        );
        assert_eq!(std::str::from_utf8(json).unwrap(), expected);
        assert_eq!(tail, b"\x01\0\x01\0\0\0a\0\0\0\0");
    }

    #[test]
    fn sequences_have_no_json_form() {
        let sequence = Value::Sequence(Sequence {
            element: ValueKind::Tensor(lethe_engine::DataType::Int64),
            values: vec![],
        });
        let outputs = [("y".into(), sequence)];
        let problem = write_answer(&HEAD, &outputs, &|_| true).unwrap_err();
        assert_eq!(problem.code, "LETHE-OUTPUT-KIND");
        assert!(problem.detail.contains("\"y\""), "{problem}");
    }
}
