//! The request handler: bytes in, bytes out, the same at every door.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET /api/v1/health` | `{"status": "ok", "version"}` |
//! | `GET /api/v1/models` | `{"models": [{"name", "inputs", "outputs"}]}` |
//! | `POST /api/v1/infer` | outputs as JSON, or a [`Problem`] |

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use lethe_engine::{DataType, Dim, Session, Value, ValueInfo, ValueKind, ValueType};
use serde::{Deserialize, Serialize};

use crate::json::{self, InferRequest};
use crate::problem::{PROBLEM_JSON, Problem};

/// Path of inference requests.
pub const INFER: &str = "/api/v1/infer";
/// Path of the list of models.
pub const MODELS: &str = "/api/v1/models";
/// Path of the health check.
pub const HEALTH: &str = "/api/v1/health";

/// The header that says how much of a body is JSON, in lower case.
pub const JSON_BYTES: &str = "inference-header-content-length";

/// The value of the header [`JSON_BYTES`].
///
/// # Errors
/// 400 where it is no length.
pub fn json_bytes(value: &str) -> Result<u64, Problem> {
    value.trim().parse().map_err(|_| {
        let detail = format!("{JSON_BYTES}: expected a number of bytes, found {value:?}");
        Problem::not_understood("LETHE-REQUEST", detail)
    })
}

/// An HTTP request, as far as the handler looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, such as `POST`.
    pub method: &'a str,
    /// The path, with its query.
    pub path: &'a str,
    /// The body's media type, where one is given.
    pub content_type: Option<&'a str>,
    /// The media types that the client takes, where it says so.
    pub accept: Option<&'a str>,
    /// Bytes of JSON at the beginning of the body, the rest being tensors: the header
    /// `Inference-Header-Content-Length` of the Open Inference Protocol's binary extension.
    pub json_bytes: Option<u64>,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// A request with a body of JSON.
    pub fn json(method: &'a str, path: &'a str, body: &'a [u8]) -> Self {
        Self {
            method,
            path,
            content_type: Some("application/json"),
            accept: None,
            json_bytes: None,
            body,
        }
    }
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body's media type.
    pub content_type: Cow<'static, str>,
    /// Bytes of JSON at the beginning of the body, as in [`Request::json_bytes`].
    pub json_bytes: Option<u64>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    fn json(body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            content_type: "application/json".into(),
            json_bytes: None,
            body: body.into(),
        }
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        let body = problem.to_json().into();
        Self {
            status: problem.status,
            content_type: PROBLEM_JSON.into(),
            json_bytes: None,
            body,
        }
    }
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name that requests use.
    pub name: String,
    /// What it takes.
    pub inputs: Vec<TensorInfo>,
    /// What it gives.
    pub outputs: Vec<TensorInfo>,
}

/// An input or output, as the Open Inference Protocol describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its datatype, such as `FP32`; ONNX's spelling for what is not a tensor.
    pub datatype: String,
    /// Sizes of its axes, -1 where any will do; empty where not even their number is known.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    fn of(info: &ValueInfo) -> Self {
        let datatype = match (info.value_type.data_type(), &info.value_type.kind) {
            (Some(data_type), _) => data_type.protocol_name().into(),
            (None, Some(kind)) => kind.to_string(),
            (None, None) => "unknown".into(),
        };
        let size = |dim: &Dim| match dim {
            Dim::Known(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Symbol(_) | Dim::Unknown => -1,
        };
        let shape = info.value_type.dims.iter().flatten().map(size).collect();
        Self {
            name: info.name.to_string(),
            datatype,
            shape,
        }
    }
}

impl TensorInfo {
    /// The engine's form of this description; sizes that are not known have no names any more.
    pub fn value_info(&self) -> ValueInfo {
        let data_type = DataType::from_protocol_name(&self.datatype);
        let dim = |&size: &i64| usize::try_from(size).map_or(Dim::Unknown, Dim::Known);
        let dims = data_type.map(|_| self.shape.iter().map(dim).collect());
        let kind = match data_type {
            Some(data_type) => Some(ValueKind::Tensor(data_type)),
            None => self.datatype.parse().ok(),
        };
        ValueInfo {
            name: self.name.as_str().into(),
            value_type: ValueType { kind, dims },
        }
    }
}

/// A loaded model with the name that requests use.
#[derive(Debug)]
pub struct Model {
    session: Session,
    info: ModelInfo,
}

impl Model {
    /// Names a loaded model.
    pub fn new(name: impl Into<String>, session: Session) -> Self {
        let info = ModelInfo {
            name: name.into(),
            inputs: session.inputs().iter().map(TensorInfo::of).collect(),
            outputs: session.outputs().iter().map(TensorInfo::of).collect(),
        };
        Self { session, info }
    }

    /// What it takes and gives.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs the model; stops before the next node once `cancel` is true.
    ///
    /// # Errors
    /// When the inputs do not fit it or an operator fails.
    pub fn run(
        &self,
        inputs: &[(String, Value)],
        outputs: Option<&[&str]>,
        cancel: Option<&AtomicBool>,
    ) -> Result<Vec<(String, Value)>, Problem> {
        let inputs: Vec<(&str, Value)> = inputs
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        Ok(self.session.run_with(&inputs, outputs, cancel)?)
    }
}

/// Answers requests about the models it holds.
#[derive(Debug)]
pub struct Handler {
    models: Vec<Model>,
    max_body_bytes: u64,
}

impl Handler {
    /// A handler of these models that refuses larger bodies.
    pub fn new(models: Vec<Model>, max_body_bytes: u64) -> Self {
        Self {
            models,
            max_body_bytes,
        }
    }

    /// Adds a model; requests find the first one of a name.
    pub fn add(&mut self, model: Model) {
        self.models.push(model);
    }

    /// The models.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// Answers a request; what goes wrong is an answer too.
    pub fn handle(&self, request: &Request<'_>) -> Response {
        self.handle_until(request, None)
    }

    /// As [`Handler::handle`], giving up before the next node once `cancel` is true.
    pub fn handle_until(&self, request: &Request<'_>, cancel: Option<&AtomicBool>) -> Response {
        let answer = match route(request.method, request.path) {
            Ok(Route::Health) => Ok(health()),
            Ok(Route::Models) => Ok(list(self.models.iter().map(Model::info))),
            Ok(Route::Infer) => self.infer(request, cancel),
            Err(problem) => Err(problem),
        };
        answer.unwrap_or_else(Response::from)
    }

    fn infer(
        &self,
        request: &Request<'_>,
        cancel: Option<&AtomicBool>,
    ) -> Result<Response, Problem> {
        let len_bytes = request.body.len() as u64;
        check_body(request.content_type, len_bytes, self.max_body_bytes)?;
        let infer = InferRequest::parse(request.body)?;
        let wanted = infer
            .outputs
            .as_deref()
            .filter(|outputs| !outputs.is_empty());
        let wanted: Option<Vec<&str>> =
            wanted.map(|outputs| outputs.iter().map(|output| output.name.as_str()).collect());
        let model = self
            .models
            .iter()
            .find(|model| model.info.name == infer.model);
        let model = model.ok_or_else(|| {
            let names = self.models.iter().map(|model| model.info.name.as_str());
            Problem::unknown_model(&infer.model, names)
        })?;
        let inputs = infer.inputs.into_iter().map(|input| {
            let name = input.name.clone();
            Ok((name, Value::Tensor(input.into_tensor()?)))
        });
        let inputs = inputs.collect::<Result<Vec<_>, Problem>>()?;
        let outputs = model.run(&inputs, wanted.as_deref(), cancel)?;
        let body = json::write_answer(&infer.model, infer.id.as_deref(), &outputs)?;
        Ok(Response::json(body))
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Whether the server is well.
    Health,
    /// The list of models.
    Models,
    /// Inference.
    Infer,
}

/// The route of a method and path.
///
/// # Errors
/// 404 for an unknown path, 405 for a method the path does not take.
pub fn route(method: &str, path: &str) -> Result<Route, Problem> {
    let path = path.split('?').next().unwrap_or_default();
    let (route, expected) = match path {
        HEALTH => (Route::Health, "GET"),
        MODELS => (Route::Models, "GET"),
        INFER => (Route::Infer, "POST"),
        _ => {
            return Err(Problem::new(
                404,
                "LETHE-ROUTE",
                format!("unknown path {path:?}"),
            ));
        }
    };
    if method == expected {
        Ok(route)
    } else {
        let detail = format!("{path} takes {expected}, not {method}");
        Err(Problem::new(405, "LETHE-METHOD", detail))
    }
}

/// Checks what can be known of a body before it is read.
///
/// # Errors
/// 413 and 415.
pub fn check_body(
    content_type: Option<&str>,
    len_bytes: u64,
    max_body_bytes: u64,
) -> Result<(), Problem> {
    if len_bytes > max_body_bytes {
        return Err(Problem::too_large(len_bytes, max_body_bytes));
    }
    match content_type {
        Some(found) if !is_json(found) => Err(Problem::media_type(found)),
        _ => Ok(()),
    }
}

/// Whether a media type is JSON, parameters aside.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The answer to a health check.
pub fn health() -> Response {
    Response::json(concat!(
        "{\"status\":\"ok\",\"version\":\"",
        env!("CARGO_PKG_VERSION"),
        "\"}"
    ))
}

/// The list of models.
pub fn list<'a>(models: impl Iterator<Item = &'a ModelInfo>) -> Response {
    #[derive(Serialize)]
    struct List<'a> {
        models: Vec<&'a ModelInfo>,
    }
    let list = List {
        models: models.collect(),
    };
    Response::json(serde_json::to_vec(&list).expect("descriptions of models are JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &str, path: &str, content_type: Option<&str>, body: &[u8]) -> (u16, String) {
        let handler = Handler::new(Vec::new(), 100);
        let response = handler.handle(&Request {
            method,
            path,
            content_type,
            accept: None,
            json_bytes: None,
            body,
        });
        let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        (
            response.status,
            json["code"].as_str().unwrap_or_default().into(),
        )
    }

    #[test]
    fn requests_that_cannot_be_answered_have_status_and_code() {
        let body = br#"{"model":"m","inputs":[]}"#;
        let json = Some("application/json; charset=utf-8");
        let cases = [
            ("GET", "/api/v1/health", None, &b""[..], 200, ""),
            ("GET", "/api/v1/models?x=1", None, b"", 200, ""),
            ("POST", "/api/v1/models", None, b"", 405, "LETHE-METHOD"),
            ("GET", "/api/v1/infer", None, b"", 405, "LETHE-METHOD"),
            ("GET", "/", None, b"", 404, "LETHE-ROUTE"),
            ("POST", INFER, json, body, 404, "LETHE-MODEL-UNKNOWN"),
            ("POST", INFER, None, body, 404, "LETHE-MODEL-UNKNOWN"),
            (
                "POST",
                INFER,
                Some("text/plain"),
                body,
                415,
                "LETHE-MEDIA-TYPE",
            ),
            ("POST", INFER, json, &[b' '; 101], 413, "LETHE-BODY-SIZE"),
            ("POST", INFER, json, b"\xff\xfe", 400, "LETHE-JSON"),
        ];
        for (method, path, content_type, body, status, code) in cases {
            let found = answer(method, path, content_type, body);
            assert_eq!(
                found,
                (status, code.into()),
                "{method} {path} {content_type:?}"
            );
        }
    }
}
