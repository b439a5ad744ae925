//! Inference: inputs from JSON, from the bytes behind it, or a body that is one tensor.

use lethe_engine::Value;

use super::http::{OCTET_STREAM, Response, check_body, is_json, is_media_type};
use super::metadata::MODEL_VERSION;
use super::routes::query_value;
use super::{Exchange, Handler, Model};
use crate::json::{self, AnswerHead, InferRequest};
use crate::octets::{self, Octets};
use crate::problem::Problem;

/// A request that was understood: what is to be run, and how its outputs are to be written.
pub(crate) struct Prepared<'a> {
    pub(crate) model: &'a Model,
    pub(crate) inputs: Vec<(String, Value)>,
    form: Form,
}

/// How outputs are to be written.
enum Form {
    /// The elements of the first one and nothing else.
    First,
    /// JSON.
    Json,
    /// JSON of the Open Inference Protocol, with all elements behind it.
    Binary,
    /// As the request's JSON says, in an answer with this version.
    Asked(InferRequest, Option<&'static str>),
}

impl Prepared<'_> {
    /// The outputs that the request names, where it names some.
    pub(crate) fn wanted(&self) -> Option<Vec<&str>> {
        let Form::Asked(infer, _) = &self.form else {
            return None;
        };
        let outputs = infer.outputs.as_deref()?;
        let names = outputs.iter().map(|output| output.name.as_str());
        (!outputs.is_empty()).then(|| names.collect())
    }

    /// Runs the model and writes the answer.
    pub(crate) fn answer(&self) -> Result<Response, Problem> {
        let outputs = self.model.run(&self.inputs, self.wanted().as_deref())?;
        self.write(&outputs)
    }

    /// The answer with these outputs.
    pub(crate) fn write(&self, outputs: &[(String, Value)]) -> Result<Response, Problem> {
        let version = Some(MODEL_VERSION);
        match (&self.form, outputs.first()) {
            (Form::First, Some((name, value))) => {
                let tensor = json::tensor_of(name, value)?;
                let mut bytes = Vec::with_capacity(octets::size_bytes(tensor));
                octets::write_tensor(&mut bytes, tensor);
                Ok(Response::of(OCTET_STREAM, bytes))
            }
            (Form::First | Form::Json, _) => write(self.model, None, None, outputs, &|_| false),
            // Who sends bytes alone cannot ask for bytes, and is answered by them, as Triton does.
            (Form::Binary, _) => write(self.model, version, None, outputs, &|_| true),
            (Form::Asked(infer, version), _) => {
                let is_binary = infer.binary();
                write(
                    self.model,
                    *version,
                    infer.id.as_deref(),
                    outputs,
                    &is_binary,
                )
            }
        }
    }
}

impl Handler {
    /// `POST /api/v1/infer`: the JSON names the model, or the query where the body is one tensor.
    pub(super) fn infer(&self, exchange: &Exchange<'_>) -> Result<Prepared<'_>, Problem> {
        let request = exchange.request;
        self.check_body(exchange)?;
        let is_octets = |found| is_media_type(found, OCTET_STREAM);
        let without_json =
            request.json_bytes.is_none() && request.content_type.is_some_and(is_octets);
        if !request.is_raw() && !without_json {
            let (json, tail) = request.split()?;
            let infer = InferRequest::parse(json)?;
            let model = self.model(model_name(&infer)?, None)?;
            return prepared(model, None, infer, exchange.octets(tail));
        }
        let name = query_value(request.path, "model")?.ok_or_else(|| {
            let detail = "a body that is one tensor: expected ?model=NAME in the path";
            Problem::not_understood("LETHE-REQUEST", detail)
        })?;
        let model = self.model(&name, None)?;
        Ok(Prepared {
            model,
            inputs: raw_input(model, exchange)?,
            form: match request.accepts(OCTET_STREAM) {
                true => Form::First,
                false => Form::Json,
            },
        })
    }

    /// `POST /v2/models/{name}/infer`.
    pub(super) fn infer_by<'a>(
        &self,
        model: &'a Model,
        exchange: &Exchange<'_>,
    ) -> Result<Prepared<'a>, Problem> {
        self.check_body(exchange)?;
        if exchange.request.is_raw() {
            return Ok(Prepared {
                model,
                inputs: raw_input(model, exchange)?,
                form: Form::Binary,
            });
        }
        let (json, tail) = exchange.request.split()?;
        let infer = InferRequest::parse(json)?;
        prepared(model, Some(MODEL_VERSION), infer, exchange.octets(tail))
    }

    /// One request of many: JSON alone.
    pub(super) fn infer_json(&self, json: &str) -> Result<Response, Problem> {
        let infer = InferRequest::parse(json.as_bytes())?;
        let model = self.model(model_name(&infer)?, None)?;
        let prepared = prepared(model, None, infer, Octets::new(&[], None))?;
        text_only(prepared.answer()?)
    }

    pub(super) fn check_body(&self, exchange: &Exchange<'_>) -> Result<(), Problem> {
        let request = exchange.request;
        let len_bytes = request.body.len() as u64;
        check_body(request.content_type, len_bytes, self.max_body_bytes)
    }
}

fn model_name(infer: &InferRequest) -> Result<&str, Problem> {
    infer.model.as_deref().ok_or_else(|| {
        let detail = "not an inference request: missing field `model`";
        Problem::not_understood("LETHE-REQUEST", detail)
    })
}

/// Refuses outputs as bytes where an answer is part of a text.
pub(super) fn text_only(response: Response) -> Result<Response, Problem> {
    match is_json(&response.content_type) {
        true => Ok(response),
        false => Err(Problem::new(
            422,
            "LETHE-PARAMETER",
            "outputs as bytes: an answer among others is JSON alone",
        )),
    }
}

/// A request whose inputs are in its JSON and the bytes behind it.
fn prepared<'a>(
    model: &'a Model,
    version: Option<&'static str>,
    mut infer: InferRequest,
    mut tail: Octets<'_>,
) -> Result<Prepared<'a>, Problem> {
    let mut inputs = Vec::with_capacity(infer.inputs.len());
    for input in std::mem::take(&mut infer.inputs) {
        let name = input.name.clone();
        inputs.push((name, Value::Tensor(input.into_tensor(&mut tail)?)));
    }
    if tail.len() > 0 {
        let detail = format!("{} bytes after those of all inputs", tail.len());
        return Err(Problem::not_understood("LETHE-REQUEST", detail));
    }
    Ok(Prepared {
        model,
        inputs,
        form: Form::Asked(infer, version),
    })
}

/// The input of a model of one, which is a request's body.
fn raw_input(model: &Model, exchange: &Exchange<'_>) -> Result<Vec<(String, Value)>, Problem> {
    let request = exchange.request;
    let [input] = model.session.inputs() else {
        let count = model.session.inputs().len();
        let detail = format!(
            "a body that is one tensor: model {:?} has {count} inputs",
            model.info.name
        );
        return Err(Problem::new(422, "LETHE-INPUT-MISSING", detail));
    };
    let wrong = |code, (expected, found): (String, String)| {
        Problem::wrong_input(code, &input.name, expected, found)
    };
    let data_type = input.value_type.data_type().ok_or_else(|| {
        let expected = "a model whose input is a tensor of a known type".to_owned();
        wrong("LETHE-INPUT-TYPE", (expected, "another one".into()))
    })?;
    let octets = exchange.octets(request.body);
    let tensor = match query_value(request.path, "shape")? {
        Some(shape) => {
            let shape = parse_shape(&shape).ok_or_else(|| {
                (
                    "sizes with commas between them".into(),
                    format!("{shape:?}"),
                )
            });
            let shape = shape.map_err(|error| wrong("LETHE-INPUT-SHAPE", error))?;
            octets.into_raw_tensor(data_type, &shape)
        }
        None => {
            let dims = input.value_type.dims.as_ref().ok_or_else(|| {
                let expected = "a shape, as in ?shape=1,3,224,224".to_owned();
                wrong("LETHE-INPUT-SHAPE", (expected, "none in the model".into()))
            })?;
            let dims: Vec<Option<usize>> = dims.iter().map(|dim| dim.known()).collect();
            octets.into_raw_tensor(data_type, &dims)
        }
    };
    let tensor = tensor.map_err(|error| wrong("LETHE-INPUT-DATA", error))?;
    Ok(vec![(input.name.to_string(), Value::Tensor(tensor))])
}

/// `1,3,224,224`; nothing at all is the shape of a scalar.
fn parse_shape(text: &str) -> Option<Vec<Option<usize>>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let size = |size: &str| size.parse().ok().map(Some);
    let mut sizes = text.split(',');
    let first = sizes.by_ref().take(octets::MAX_RANK).map(size);
    let shape: Option<Vec<_>> = first.collect();
    // More is no shape.
    shape.filter(|_| sizes.next().is_none())
}

fn write(
    model: &Model,
    version: Option<&str>,
    id: Option<&str>,
    outputs: &[(String, Value)],
    is_binary: &dyn Fn(&str) -> bool,
) -> Result<Response, Problem> {
    let head = AnswerHead {
        model: &model.info.name,
        version,
        id,
    };
    let (body, json_bytes) = json::write_answer(&head, outputs, is_binary)?;
    Ok(match json_bytes {
        None => Response::json(body),
        Some(_) => Response {
            json_bytes,
            ..Response::of(OCTET_STREAM, body)
        },
    })
}
