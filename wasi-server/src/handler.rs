//! The request handler: bytes in, bytes out, the same at every door.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET /api/v1/health` | `{"status": "ok", "version"}` |
//! | `GET /api/v1/models` | `{"models": [{"name", "inputs", "outputs"}]}` |
//! | `POST /api/v1/infer` | outputs as JSON or bytes, or a [`Problem`] |
//! | `POST /api/v1/batch` | an answer or a problem for every request, in order |
//! | `/v2/…` | the Open Inference Protocol, with its binary extension |
//!
//! With `Accept: text/event-stream` the two `POST` routes of `/api/v1` answer by server-sent
//! events ([`Events`]), which a door may send one by one.

pub mod batch;
mod events;
mod http;
mod infer;
mod metadata;
mod routes;

use bytes::Bytes;
use lethe_engine::{Session, Value, ValueInfo};

use crate::message::HttpCall;
use crate::octets::Octets;
use crate::problem::Problem;

pub use events::Events;
pub use http::{EVENT_STREAM, JSON_BYTES, OCTET_STREAM, Request, Response, check_body, json_bytes};
pub(crate) use infer::Prepared;
pub use metadata::{
    MODEL_VERSION, ModelInfo, PLATFORM, TensorInfo, check_version, health, list, live,
    model_metadata, model_ready, ready, server_metadata,
};
pub use routes::{
    BATCH, HEALTH, INFER, MODELS, Route, allowed, percent_decoded, query_value, route,
};

/// The extensions of the Open Inference Protocol that the handler itself has.
pub const EXTENSIONS: &[&str] = &["binary_tensor_data"];

/// A loaded model with the name that requests use.
#[derive(Debug)]
pub struct Model {
    session: Session,
    info: ModelInfo,
}

impl Model {
    /// Names a loaded model.
    pub fn new(name: impl Into<String>, session: Session) -> Self {
        let infos = |infos: &[ValueInfo]| infos.iter().map(TensorInfo::of).collect();
        let info = ModelInfo {
            name: name.into(),
            inputs: infos(session.inputs()),
            optional_inputs: infos(session.optional_inputs()),
            outputs: infos(session.outputs()),
            quantized: session.is_quantized(),
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

    /// Runs the model.
    ///
    /// # Errors
    /// When the inputs do not fit it or an operator fails.
    pub fn run(
        &self,
        inputs: &[(String, Value)],
        outputs: Option<&[&str]>,
    ) -> Result<Vec<(String, Value)>, Problem> {
        let inputs: Vec<(&str, Value)> = inputs
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        Ok(self.session.run_with(&inputs, outputs)?)
    }
}

/// Answers requests about the models it holds.
#[derive(Debug)]
pub struct Handler {
    models: Vec<Model>,
    max_body_bytes: u64,
}

/// A request with what is to be known beside it.
#[derive(Debug, Clone, Copy)]
struct Exchange<'a> {
    request: &'a Request<'a>,
    /// The request's body, where tensors may share it.
    body: Option<&'a Bytes>,
}

impl<'a> Exchange<'a> {
    fn octets(&self, bytes: &'a [u8]) -> Octets<'a> {
        Octets::new(bytes, self.body)
    }
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

    /// What is worth a warning of what the models were asked so far: names that they give sizes of
    /// their inputs, which differed.
    pub fn notes(&self) -> Vec<String> {
        let split = self.models.iter().flat_map(|m| m.session.split_names());
        split.map(|name| name.to_string()).collect()
    }

    /// Answers a request; what goes wrong is an answer too.
    pub fn handle(&self, request: &Request<'_>) -> Response {
        self.answer(&Exchange {
            request,
            body: None,
        })
    }

    /// As [`Handler::handle`], for a request whose body is `body`: tensors among its bytes are used
    /// where they lie.
    pub fn handle_shared(&self, request: &Request<'_>, body: &Bytes) -> Response {
        let request = Request { body, ..*request };
        self.answer(&Exchange {
            request: &request,
            body: Some(body),
        })
    }

    /// What a request asks to be run, where it asks for one run and takes the answer in one piece.
    pub(crate) fn prepare(&self, http: &HttpCall) -> Option<Result<Prepared<'_>, Problem>> {
        let request = http.request();
        let exchange = Exchange {
            request: &request,
            body: Some(&http.body),
        };
        match route(request.method, request.path) {
            _ if request.accepts(EVENT_STREAM) => None,
            Ok(Route::Infer) => Some(self.infer(&exchange)),
            Ok(Route::ModelInfer { name, version }) => {
                Some(self.infer_named(&name, version.as_deref(), &exchange))
            }
            _ => None,
        }
    }

    fn infer_named(
        &self,
        name: &str,
        version: Option<&str>,
        exchange: &Exchange<'_>,
    ) -> Result<Prepared<'_>, Problem> {
        self.infer_by(self.model(name, version)?, exchange)
    }

    /// The answer as events, each made when it is asked for; `None` where the request does not take
    /// events or its route has none.
    ///
    /// # Errors
    /// What is found wrong before the first event.
    pub fn events<'a>(&'a self, request: &'a Request<'a>) -> Option<Result<Events<'a>, Problem>> {
        self.events_of(Exchange {
            request,
            body: None,
        })
    }

    fn answer(&self, exchange: &Exchange<'_>) -> Response {
        if let Some(events) = self.events_of(*exchange) {
            return match events {
                Ok(events) => Response::of(EVENT_STREAM, events.flatten().collect::<Vec<u8>>()),
                Err(problem) => problem.into(),
            };
        }
        let request = exchange.request;
        let answer = match route(request.method, request.path) {
            Ok(route) => self.answer_route(route, exchange),
            Err(problem) => Err(problem),
        };
        answer.unwrap_or_else(Response::from)
    }

    fn answer_route(&self, route: Route<'_>, exchange: &Exchange<'_>) -> Result<Response, Problem> {
        Ok(match route {
            Route::Infer => self.infer(exchange)?.answer()?,
            Route::ModelInfer { name, version } => {
                let prepared = self.infer_named(&name, version.as_deref(), exchange)?;
                prepared.answer()?
            }
            Route::Batch => self.batch(exchange)?,
            Route::Health => health(),
            Route::Models => list(self.models.iter().map(Model::info)),
            Route::Live => live(),
            Route::Ready => ready(true),
            Route::ServerMetadata => server_metadata(EXTENSIONS),
            Route::Model { name, version } => {
                model_metadata(self.model(&name, version.as_deref())?.info())
            }
            Route::ModelReady { name, version } => {
                model_ready(&self.model(&name, version.as_deref())?.info.name)
            }
        })
    }

    fn model(&self, name: &str, version: Option<&str>) -> Result<&Model, Problem> {
        let model = self.models.iter().find(|model| model.info.name == name);
        let model = model.ok_or_else(|| {
            let names = self.models.iter().map(|model| model.info.name.as_str());
            Problem::unknown_model(name, names)
        })?;
        check_version(name, version)?;
        Ok(model)
    }
}

#[cfg(test)]
mod linearity;
#[cfg(test)]
mod tests;
