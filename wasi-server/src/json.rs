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
mod request;

pub use elements::write_elements;
pub use request::{InferRequest, InputTensor, OutputName};

use lethe_engine::Value;

use crate::problem::Problem;

/// Writes the answer to an inference request: `{"model", "id"?, "outputs": […]}`.
///
/// # Errors
/// When an output is not a tensor, or its elements have no JSON form.
pub fn write_answer(
    model: &str,
    id: Option<&str>,
    outputs: &[(String, Value)],
) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"model\":");
    write_text(&mut out, model);
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        write_text(&mut out, id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (i, (name, value)) in outputs.iter().enumerate() {
        let Value::Tensor(tensor) = value else {
            let detail = format!(
                "output {name:?} is a {}: JSON has tensors only",
                value.kind()
            );
            return Err(Problem::new(422, "LETHE-OUTPUT-KIND", detail));
        };
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
        out.extend_from_slice(b",\"data\":");
        write_elements(&mut out, tensor).map_err(|data_type| {
            let detail = format!("output {name:?} has elements of {data_type}: JSON has no such");
            Problem::new(422, "LETHE-OUTPUT-KIND", detail)
        })?;
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory succeeds");
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::tensor::Sequence;
    use lethe_engine::{Tensor, ValueKind};

    #[test]
    fn answers_name_type_and_shape() {
        let tensor = Tensor::from_slice(&[1, 2], &[0.1f32, f32::INFINITY]).unwrap();
        let answer = write_answer("m", Some("7"), &[("y".into(), tensor.into())]).unwrap();
        let expected = r#"{"model":"m","id":"7","outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[0.1,"Infinity"]}]}"#;
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
    }

    #[test]
    fn sequences_have_no_json_form() {
        let sequence = Value::Sequence(Sequence {
            element: ValueKind::Tensor(lethe_engine::DataType::Int64),
            values: vec![],
        });
        let problem = write_answer("m", None, &[("y".into(), sequence)]).unwrap_err();
        assert_eq!(problem.code, "LETHE-OUTPUT-KIND");
        assert!(problem.detail.contains("\"y\""), "{problem}");
    }
}
