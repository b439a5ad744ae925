//! Reading inference requests.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use lethe_engine::{DataType, Tensor};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::elements::{Elements, ElementsSeed};
use crate::octets::{self, Octets};
use crate::problem::Problem;

/// `{"model", "inputs": […], "outputs"?, "id"?, "parameters"?}`.
#[derive(Debug, Deserialize)]
pub struct InferRequest {
    /// Which model, where the path does not say.
    #[serde(default)]
    pub model: Option<String>,
    /// Repeated in the answer.
    #[serde(default)]
    pub id: Option<String>,
    /// The inputs, as far as they were understood.
    pub inputs: Vec<InputTensor>,
    /// The outputs that are wanted; all of them where the list is absent or empty.
    #[serde(default)]
    pub outputs: Option<Vec<OutputName>>,
    #[serde(default)]
    parameters: Option<RequestParameters>,
}

/// `{"name", "parameters"?}` of an output that is wanted.
#[derive(Debug, Deserialize)]
pub struct OutputName {
    /// The output's name.
    pub name: String,
    #[serde(default)]
    parameters: Option<OutputParameters>,
}

/// Parameters of requests, inputs and outputs that have a meaning here; others are let be.
#[derive(Debug, Default, Deserialize)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
struct InputParameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
    #[serde(default)]
    shared_memory_region: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    shared_memory_region: Option<IgnoredAny>,
    #[serde(default)]
    classification: Option<IgnoredAny>,
}

/// `{"name", "shape", "datatype", "data"}`, or instead of the data
/// `"parameters": {"binary_data_size"}`.
#[derive(Debug)]
pub struct InputTensor {
    /// The input's name.
    pub name: String,
    shape: Vec<i64>,
    data_type: Result<DataType, String>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Elements(Elements),
    /// So many of the bytes that follow the JSON.
    Binary(u64),
}

impl InferRequest {
    /// Reads a request's JSON.
    ///
    /// # Errors
    /// 400 where it is not JSON or not a request, 422 where it asks for what is not offered here.
    pub fn parse(json: &[u8]) -> Result<Self, Problem> {
        let request: Self = serde_json::from_slice(json).map_err(|e| not_understood(&e))?;
        request.refuse_repeated_names()?;
        request.refuse_parameters()?;
        Ok(request)
    }

    /// Says of each output whether it is to follow the JSON as bytes. The request's list is gone
    /// through once, however many outputs are asked for.
    pub fn binary(&self) -> impl Fn(&str) -> bool {
        let outputs = self.outputs.iter().flatten();
        let wanted: HashMap<&str, bool> = outputs
            .filter_map(|output| Some((&*output.name, output.parameters.as_ref()?.binary_data?)))
            .collect();
        let parameters = self.parameters.as_ref();
        let others = parameters.is_some_and(|p| p.binary_data_output == Some(true));
        move |output| wanted.get(output).copied().unwrap_or(others)
    }

    /// A name that stands there again asks for the same work again.
    fn refuse_repeated_names(&self) -> Result<(), Problem> {
        let inputs = self.inputs.iter().map(|input| &*input.name);
        if let Some(name) = repeated(inputs) {
            return Err(Problem::repeated_input(name));
        }
        let outputs = self.outputs.iter().flatten();
        if let Some(name) = repeated(outputs.map(|output| &*output.name)) {
            let detail = format!("output {name:?}: expected each once, found it twice");
            return Err(Problem::new(422, "LETHE-OUTPUT-UNKNOWN", detail));
        }
        Ok(())
    }

    /// A parameter that changes what an answer holds must not be ignored.
    fn refuse_parameters(&self) -> Result<(), Problem> {
        for output in self.outputs.iter().flatten() {
            let parameters = output.parameters.as_ref();
            let refused = parameters.and_then(|p| match p {
                _ if p.classification.is_some() => Some("classification"),
                _ if p.shared_memory_region.is_some() => Some("shared_memory_region"),
                _ => None,
            });
            if let Some(refused) = refused {
                let detail = format!("output {:?}: no parameter {refused:?} here", output.name);
                return Err(Problem::new(422, "LETHE-PARAMETER", detail));
            }
        }
        Ok(())
    }
}

/// The first name that was there before.
fn repeated<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(*name))
}

/// What is wrong with a text that should have been an inference request.
pub(crate) fn not_understood(error: &serde_json::Error) -> Problem {
    if error.is_data() {
        Problem::not_understood(
            "LETHE-REQUEST",
            format!("not an inference request: {error}"),
        )
    } else {
        Problem::not_understood("LETHE-JSON", format!("not JSON: {error}"))
    }
}

impl InputTensor {
    /// The tensor; its bytes, where they are not in the JSON, are the next ones of `tail`.
    ///
    /// # Errors
    /// 422 where datatype, shape and data do not fit each other.
    pub(crate) fn into_tensor(self, tail: &mut Octets<'_>) -> Result<Tensor, Problem> {
        let name = self.name;
        let data_type = self.data_type.map_err(|found| {
            let expected = "a datatype of the Open Inference Protocol";
            Problem::wrong_input("LETHE-INPUT-TYPE", &name, expected, format!("{found:?}"))
        })?;
        let shape = octets::sizes(&self.shape).map_err(|(expected, found)| {
            Problem::wrong_input("LETHE-INPUT-SHAPE", &name, expected, found)
        })?;
        let tensor = match self.content {
            Content::Elements(elements) => elements.into_tensor(data_type, &shape),
            Content::Binary(size) => {
                let left = tail.len();
                let expected = || format!("binary_data_size of the {left} bytes that are left");
                let taken = tail
                    .take(size)
                    .ok_or_else(|| (expected(), size.to_string()));
                taken.and_then(|octets| octets.into_tensor(data_type, &shape))
            }
        };
        tensor.map_err(|(expected, found)| {
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
        let mut parameters: Option<InputParameters> = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "name" if name.is_some() => return Err(de::Error::duplicate_field("name")),
                "name" => name = Some(map.next_value()?),
                "shape" if shape.is_some() => return Err(de::Error::duplicate_field("shape")),
                "shape" => shape = Some(map.next_value()?),
                "datatype" if data_type.is_some() => {
                    return Err(de::Error::duplicate_field("datatype"));
                }
                "datatype" => {
                    let text: Cow<'de, str> = map.next_value()?;
                    let known = DataType::from_protocol_name(&text);
                    data_type = Some(known.ok_or_else(|| text.into_owned()));
                }
                "data" if elements.is_some() || deferred.is_some() => {
                    return Err(de::Error::duplicate_field("data"));
                }
                "data" => match data_type {
                    Some(Ok(data_type)) => {
                        elements = Some(map.next_value_seed(ElementsSeed(data_type))?);
                    }
                    _ => deferred = Some(map.next_value()?),
                },
                "parameters" if parameters.is_some() => {
                    return Err(de::Error::duplicate_field("parameters"));
                }
                "parameters" => {
                    parameters = Some(map.next_value::<Option<_>>()?.unwrap_or_default());
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let parameters = parameters.unwrap_or_default();
        let data_type = data_type.ok_or_else(|| de::Error::missing_field("datatype"))?;
        if let (Some(text), Ok(data_type)) = (deferred, &data_type) {
            let mut from = serde_json::Deserializer::from_str(text.get());
            let read = ElementsSeed(*data_type).deserialize(&mut from);
            elements = Some(read.map_err(de::Error::custom)?);
        }
        if parameters.shared_memory_region.is_some() {
            return Err(de::Error::custom(
                "no parameter `shared_memory_region` here",
            ));
        }
        let has_data = elements.is_some() || deferred.is_some();
        let content = match (has_data, parameters.binary_data_size) {
            (true, None) => Content::Elements(elements.unwrap_or_default()),
            (false, Some(size)) => Content::Binary(size),
            (false, None) => return Err(de::Error::missing_field("data")),
            (true, Some(_)) => {
                return Err(de::Error::custom("both `data` and `binary_data_size`"));
            }
        };
        Ok(InputTensor {
            name: name.ok_or_else(|| de::Error::missing_field("name"))?,
            shape: shape.ok_or_else(|| de::Error::missing_field("shape"))?,
            data_type,
            content,
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
            assert_eq!(
                (request.model.as_deref(), request.id.as_deref()),
                (Some("m"), Some("a"))
            );
            let tensor = request
                .inputs
                .into_iter()
                .next()
                .unwrap()
                .into_tensor(&mut Octets::new(&[], None))
                .unwrap();
            assert_eq!(tensor.as_slice::<f32>().unwrap(), [1.0, 2.5]);
        }
    }

    #[test]
    fn data_are_flat_or_nested_as_the_shape_is() {
        let problem = |shape: &str, data: &str| {
            let body = format!(
                r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":{shape},"data":{data}}}]}}"#
            );
            let input = InferRequest::parse(body.as_bytes())
                .unwrap()
                .inputs
                .remove(0);
            let tensor = input.into_tensor(&mut Octets::new(&[], None));
            tensor.err().map(|problem| (problem.status, problem.detail))
        };
        for (shape, data) in [
            ("[2,3]", "[1,2,3,4,5,6]"),
            ("[2,3]", "[[1,2,3],[4,5,6]]"),
            ("[1,2,2]", "[[[1,2],[3,4]]]"),
            ("[]", "[1]"),
            ("[]", "1"),
            ("[1,1]", "[1]"),
            ("[0]", "[]"),
            ("[0,3]", "[]"),
            ("[2,0]", "[]"),
            ("[2,0]", "[[],[]]"),
            ("[2,0,3]", "[[],[]]"),
        ] {
            assert_eq!(problem(shape, data), None, "{shape} {data}");
        }
        for (shape, data, found) in [
            ("[2,3]", "[[1,2],[3,4],[5,6]]", "arrays nested as [3, 2]"),
            ("[2,3]", "[[1,2,3,4,5,6]]", "arrays nested as [1, 6]"),
            ("[6]", "[[1,2,3],[4,5,6]]", "arrays nested as [2, 3]"),
            (
                "[2,3]",
                "[[1,2],[3,4,5,6]]",
                "arrays that differ in length or depth",
            ),
            (
                "[2,2]",
                "[1,[2,3],4]",
                "arrays that differ in length or depth",
            ),
            (
                "[4]",
                "[1,[2,3],4]",
                "arrays that differ in length or depth",
            ),
            ("[1]", "[[1]]", "arrays nested as [1, 1]"),
            ("[0]", "[[],[]]", "arrays nested as [2, 0]"),
        ] {
            let shape_said = shape.replace(',', ", ");
            let detail = format!(
                "input \"x\": expected one array, or arrays nested as {shape_said}, found {found}"
            );
            assert_eq!(problem(shape, data), Some((422, detail)), "{shape} {data}");
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
            (
                input(
                    r#""name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"binary_data_size":4}"#,
                ),
                400,
                "LETHE-REQUEST",
            ),
            (
                input(
                    r#""name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":-4}"#,
                ),
                400,
                "LETHE-REQUEST",
            ),
            (
                input(
                    r#""name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4.5}"#,
                ),
                400,
                "LETHE-REQUEST",
            ),
            (
                input(
                    r#""name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}"#,
                ),
                400,
                "LETHE-REQUEST",
            ),
            (
                input(
                    r#""name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}"#,
                ),
                422,
                "LETHE-INPUT-DATA",
            ),
            (
                input(
                    r#""name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":18446744073709551615}"#,
                ),
                422,
                "LETHE-INPUT-DATA",
            ),
            (
                input(
                    r#""name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":4}"#,
                ),
                422,
                "LETHE-INPUT-DATA",
            ),
            (
                r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#
                    .into(),
                422,
                "LETHE-PARAMETER",
            ),
        ];
        for (body, status, code) in cases {
            let tensors = InferRequest::parse(body.as_bytes()).and_then(|r| {
                let tensor =
                    |input: InputTensor| input.into_tensor(&mut Octets::new(&[0; 4], None));
                r.inputs.into_iter().map(tensor).collect()
            });
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
