//! Reading inference requests.

use std::borrow::Cow;
use std::fmt;

use lethe_engine::{DataType, Tensor};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::elements::{Elements, ElementsSeed};
use crate::problem::Problem;

/// `{"model", "inputs": […], "outputs"?, "id"?, "parameters"?}`.
#[derive(Debug, Deserialize)]
pub struct InferRequest {
    /// Which model.
    pub model: String,
    /// Repeated in the answer.
    #[serde(default)]
    pub id: Option<String>,
    /// The inputs, as far as they were understood.
    pub inputs: Vec<InputTensor>,
    /// The outputs that are wanted; all of them where the list is absent or empty.
    #[serde(default)]
    pub outputs: Option<Vec<OutputName>>,
}

/// `{"name"}` of an output that is wanted.
#[derive(Debug, Deserialize)]
pub struct OutputName {
    /// The output's name.
    pub name: String,
}

/// `{"name", "shape", "datatype", "data"}`.
#[derive(Debug)]
pub struct InputTensor {
    /// The input's name.
    pub name: String,
    shape: Vec<i64>,
    data_type: Result<DataType, String>,
    elements: Elements,
}

impl InferRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// 400 where it is not JSON or not a request.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(body).map_err(|error| {
            if error.is_data() {
                let detail = format!("not an inference request: {error}");
                Problem::not_understood("LETHE-REQUEST", detail)
            } else {
                Problem::not_understood("LETHE-JSON", format!("not JSON: {error}"))
            }
        })
    }
}

impl InputTensor {
    /// The tensor.
    ///
    /// # Errors
    /// 422 where datatype, shape and data do not fit each other.
    pub fn into_tensor(self) -> Result<Tensor, Problem> {
        let name = self.name;
        let data_type = self.data_type.map_err(|found| {
            let expected = "a datatype of the Open Inference Protocol";
            Problem::wrong_input("LETHE-INPUT-TYPE", &name, expected, format!("{found:?}"))
        })?;
        let shape: Result<Vec<usize>, _> = self.shape.iter().map(|&d| d.try_into()).collect();
        let shape = shape.map_err(|_| {
            let found = format!("{:?}", self.shape);
            Problem::wrong_input("LETHE-INPUT-SHAPE", &name, "sizes of 0 or more", found)
        })?;
        self.elements
            .into_tensor(data_type, &shape)
            .map_err(|(expected, found)| {
                Problem::wrong_input("LETHE-INPUT-DATA", &name, expected, found)
            })
    }
}

impl<'de> Deserialize<'de> for InputTensor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = InputTensor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an input with name, shape, datatype and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InputTensor, A::Error> {
        let (mut name, mut shape) = (None, None);
        let mut data_type: Option<Result<DataType, String>> = None;
        let mut elements = None;
        let mut deferred: Option<&'de RawValue> = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "name" => name = Some(map.next_value()?),
                "shape" => shape = Some(map.next_value()?),
                "datatype" => {
                    let text: Cow<'de, str> = map.next_value()?;
                    let known = DataType::from_protocol_name(&text);
                    data_type = Some(known.ok_or_else(|| text.into_owned()));
                }
                "data" => match data_type {
                    Some(Ok(data_type)) => {
                        elements = Some(map.next_value_seed(ElementsSeed(data_type))?);
                    }
                    _ => deferred = Some(map.next_value()?),
                },
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let data_type = data_type.ok_or_else(|| de::Error::missing_field("datatype"))?;
        if let (Some(text), Ok(data_type)) = (deferred, &data_type) {
            let mut from = serde_json::Deserializer::from_str(text.get());
            let read = ElementsSeed(*data_type).deserialize(&mut from);
            elements = Some(read.map_err(de::Error::custom)?);
        }
        if elements.is_none() && deferred.is_none() {
            return Err(de::Error::missing_field("data"));
        }
        Ok(InputTensor {
            name: name.ok_or_else(|| de::Error::missing_field("name"))?,
            shape: shape.ok_or_else(|| de::Error::missing_field("shape"))?,
            data_type,
            elements: elements.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_any_order() {
        for body in [
            r#"{"model":"m","id":"a","inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2.5]}]}"#,
            r#"{"inputs":[{"data":[1,2.5],"parameters":{"a":[{}]},"datatype":"FP32","shape":[2],"name":"x"}],"id":"a","model":"m"}"#,
        ] {
            let request = InferRequest::parse(body.as_bytes()).unwrap();
            assert_eq!((&*request.model, request.id.as_deref()), ("m", Some("a")));
            let tensor = request
                .inputs
                .into_iter()
                .next()
                .unwrap()
                .into_tensor()
                .unwrap();
            assert_eq!(tensor.as_slice::<f32>().unwrap(), [1.0, 2.5]);
        }
    }

    #[test]
    fn problems_have_their_codes() {
        let input = |fields: &str| format!(r#"{{"model":"m","inputs":[{{{fields}}}]}}"#);
        let cases = [
            ("".into(), 400, "LETHE-JSON"),
            ("{".into(), 400, "LETHE-JSON"),
            ("[1]".into(), 400, "LETHE-REQUEST"),
            (r#"{"model":"m"}"#.into(), 400, "LETHE-REQUEST"),
            (r#"{"model":1,"inputs":[]}"#.into(), 400, "LETHE-REQUEST"),
            (
                format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
                400,
                "LETHE-REQUEST",
            ),
            (
                input(r#""name":"x","datatype":"FP32","data":[1]"#),
                400,
                "LETHE-REQUEST",
            ),
            (
                input(r#""name":"x","shape":[1],"datatype":"FP32""#),
                400,
                "LETHE-REQUEST",
            ),
            (
                input(r#""name":"x","shape":[1],"datatype":"FP99","data":[1]"#),
                422,
                "LETHE-INPUT-TYPE",
            ),
            (
                input(r#""name":"x","shape":[-1],"datatype":"FP32","data":[1]"#),
                422,
                "LETHE-INPUT-SHAPE",
            ),
            (
                input(r#""name":"x","shape":[2],"datatype":"FP32","data":[1]"#),
                422,
                "LETHE-INPUT-DATA",
            ),
            (
                input(r#""name":"x","shape":[1],"data":["a"],"datatype":"INT64""#),
                422,
                "LETHE-INPUT-DATA",
            ),
        ];
        for (body, status, code) in cases {
            let tensors = InferRequest::parse(body.as_bytes())
                .and_then(|r| r.inputs.into_iter().map(InputTensor::into_tensor).collect());
            let problem: Problem = Result::<Vec<_>, _>::unwrap_err(tensors);
            let shown = &body[..body.len().min(80)];
            assert_eq!(
                (problem.status, &*problem.code),
                (status, code),
                "{shown}: {problem}"
            );
        }
    }
}
