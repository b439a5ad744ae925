//! Requests about the server: health, models, figures, pages. None of them waits for a turn.

mod description;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use lethe_server::handler::{
    Route, check_version, live, model_metadata, model_ready, percent_decoded, ready, route,
    server_metadata,
};
use lethe_server::{Problem, Response as Answer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::access::Caller;
use super::body::{self, Coding, Held, Room};
use super::loaded::Loaded;
use super::repository::Listed;
use super::{Head, Server, figures};
use crate::audit::Entry;

/// Extensions of the Open Inference Protocol that this server has.
pub(super) const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "model_repository",
    "statistics",
    "model_configuration",
];

const DASHBOARD: &str = include_str!("pages/dashboard.html");
const API_PAGE: &str = include_str!("pages/api.html");
const OPENAPI: &str = include_str!("pages/openapi.json");

/// Longest body of a request that names a model to load or unload.
const CONTROL_BODY_BYTES: u64 = 64 << 10;

/// What a request about the server asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Control<'a> {
    /// A page or document that is the same for everybody.
    Page(&'static str, &'static str),
    Health,
    Live,
    Ready,
    Models,
    Statistics,
    Metrics,
    ServerMetadata,
    Model(Cow<'a, str>, Option<Cow<'a, str>>),
    ModelReady(Cow<'a, str>, Option<Cow<'a, str>>),
    ModelConfig(Cow<'a, str>),
    ModelStatistics(Option<Cow<'a, str>>),
    Index,
    /// The model in the body, or in the path.
    Load(Option<Cow<'a, str>>),
    Unload(Option<Cow<'a, str>>),
    Upload(Cow<'a, str>),
}

/// The control request of a path, with the methods that it takes; `None` where a path is not about
/// the server. Names are percent-decoded.
///
/// # Errors
/// 400 where an escape in a name is broken.
fn find(path: &str) -> Result<Option<(Control<'_>, &'static str)>, Problem> {
    const GET: &str = "GET, HEAD";
    let between = |before: &str, after: &str| {
        let name = path.strip_prefix(before)?.strip_suffix(after)?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    };
    let of_model = |rest| between("/v2/models/", rest);
    let of_repository = |rest| between("/v2/repository/models/", rest);
    let decoded = |name| percent_decoded(name, false);
    let page = |content_type, content| (Control::Page(content_type, content), GET);
    Ok(Some(match path {
        "/" => page("text/html; charset=utf-8", DASHBOARD),
        "/docs" => page("text/html; charset=utf-8", API_PAGE),
        "/openapi.json" => page("application/json", OPENAPI),
        "/metrics" => (Control::Metrics, GET),
        "/api/v1/stats" => (Control::Statistics, GET),
        "/api/v1/models/load" => (Control::Load(None), "POST"),
        "/api/v1/models/unload" => (Control::Unload(None), "POST"),
        "/v2/repository/index" => (Control::Index, "POST"),
        "/v2/models/stats" => (Control::ModelStatistics(None), GET),
        _ => {
            if let Some(name) = of_repository("/load") {
                (Control::Load(Some(decoded(name)?)), "POST")
            } else if let Some(name) = of_repository("/unload") {
                (Control::Unload(Some(decoded(name)?)), "POST")
            } else if let Some(name) = of_model("/stats") {
                (Control::ModelStatistics(Some(decoded(name)?)), GET)
            } else if let Some(name) = of_model("/config") {
                (Control::ModelConfig(decoded(name)?), GET)
            } else if let Some(name) = path.strip_prefix("/api/v1/models/") {
                (Control::Upload(decoded(name)?), "PUT")
            } else {
                return Ok(None);
            }
        }
    }))
}

/// Whether a path is that of a page or document that is the same for everybody.
pub(super) fn is_page(path: &str) -> bool {
    matches!(find(path), Ok(Some((Control::Page(..), _))))
}

/// The methods that a path about the server takes.
pub(super) fn allowed(path: &str) -> Option<&'static str> {
    find(path).ok()?.map(|(_, methods)| methods)
}

/// What a request asks for, if it is about the server.
///
/// # Errors
/// 405 for a method that the path does not take, 400 for a name with a broken escape.
pub(super) fn control<'a>(method: &Method, path: &'a str) -> Result<Option<Control<'a>>, Problem> {
    let bare = path.split('?').next().unwrap_or_default();
    if let Some((control, methods)) = find(bare)? {
        if methods.split(", ").any(|taken| taken == method.as_str()) {
            return Ok(Some(control));
        }
        let detail = format!("{bare} takes {methods}, not {method}");
        return Err(Problem::new(405, "LETHE-METHOD", detail));
    }
    Ok(Some(match route(method.as_str(), path)? {
        Route::Health => Control::Health,
        Route::Live => Control::Live,
        Route::Ready => Control::Ready,
        Route::Models => Control::Models,
        Route::ServerMetadata => Control::ServerMetadata,
        Route::Model { name, version } => Control::Model(name, version),
        Route::ModelReady { name, version } => Control::ModelReady(name, version),
        Route::Infer | Route::Batch | Route::ModelInfer { .. } => return Ok(None),
    }))
}

/// Answers a request about the server.
pub(super) async fn respond(
    server: &Arc<Server>,
    head: &Head,
    control: Control<'_>,
    body: Body,
    coding: Option<Coding>,
) -> Result<Response, Problem> {
    // What everybody may see.
    let answer = match &control {
        Control::Page(content_type, content) => return Ok(page(content_type, content, coding)),
        Control::Health => health(server),
        Control::Live => live(),
        Control::Ready => ready(server.is_ready()),
        _ => answer(server, head, control, body).await?,
    };
    Ok(body::http(answer, coding))
}

fn page(content_type: &'static str, content: &'static str, coding: Option<Coding>) -> Response {
    let answer = Answer {
        status: 200,
        content_type: content_type.into(),
        json_bytes: None,
        body: content.into(),
    };
    let mut response = body::http(answer, coding);
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(policy),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

async fn answer(
    server: &Arc<Server>,
    head: &Head,
    control: Control<'_>,
    body: Body,
) -> Result<Answer, Problem> {
    let pattern = pattern(&control);
    let caller = server.caller(&head.headers, head.id(), pattern, head.peer)?;
    let answer = match control {
        Control::Page(..) | Control::Health | Control::Live | Control::Ready => {
            unreachable!("answered without a key")
        }
        Control::Models => json_answer(&json!({ "models": models(server, &caller) })),
        Control::Statistics => json_answer(&server.figures.json(
            caller.sees(),
            &server.repository,
            &server.admission,
            &server.sessions,
        )),
        Control::Metrics => {
            server.checked(&caller, caller.check_admin())?;
            let text = figures::prometheus(
                &server.figures,
                &server.repository,
                &server.admission,
                &server.sessions,
            );
            Answer {
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8".into(),
                ..Answer::json(text)
            }
        }
        Control::ServerMetadata => server_metadata(EXTENSIONS),
        Control::Model(name, version) => {
            let model = server.model(&caller, Some(&name)).await?;
            check_version(&name, version.as_deref())?;
            model_metadata(model.info())
        }
        Control::ModelReady(name, version) => {
            let model = server.model(&caller, Some(&name)).await?;
            check_version(&name, version.as_deref())?;
            model_ready(&model.info().name)
        }
        Control::ModelConfig(name) => {
            let model = server.model(&caller, Some(&name)).await?;
            json_answer(&description::config(model.info()))
        }
        Control::ModelStatistics(name) => {
            if let Some(name) = &name {
                server.model(&caller, Some(name)).await?;
            }
            json_answer(&server.figures.model_stats(name.as_deref(), &caller))
        }
        Control::Index => {
            let wanted = read_index_request(server, head, body).await?;
            let listed = seen(server, &caller);
            let listed = listed.filter(|listed| !wanted.ready || listed.loaded.is_some());
            json_answer(&listed.map(|listed| description::index(&listed)).collect())
        }
        Control::Load(name) => {
            server.checked(&caller, caller.check_control())?;
            let name = named(server, head, name, body).await?;
            let (loading, of_name) = (server.clone(), name.clone());
            let loaded = blocking(move || loading.repository.load(&of_name)).await;
            let written = Written::new(&caller, head, name);
            written
                .finish(server, loaded.map(|loaded| ready_now(&loaded)))
                .await?
        }
        Control::Unload(name) => {
            server.checked(&caller, caller.check_control())?;
            let name = named(server, head, name, body).await?;
            let (unloading, of_name) = (server.clone(), name.clone());
            let unloaded = blocking(move || unloading.repository.unload(&of_name)).await;
            let answer = json_answer(&json!({ "model": name, "state": "UNAVAILABLE" }));
            let written = Written::new(&caller, head, name);
            written.finish(server, unloaded.map(|()| answer)).await?
        }
        Control::Upload(name) => {
            server.checked(&caller, caller.check_control())?;
            if !server.settings.enable_upload {
                let detail = "models are not taken over HTTP: see the setting enable_upload";
                let refused = Err(Problem::new(403, "LETHE-FORBIDDEN", detail));
                return server.checked(&caller, refused);
            }
            let model = read(server, head, body, server.settings.max_model_bytes).await?;
            let mut written = Written::new(&caller, head, name.clone().into_owned());
            written.request_bytes = model.len() as u64;
            let (loading, name) = (server.clone(), name.into_owned());
            let loaded = blocking(move || loading.repository.upload(&name, &model)).await;
            written
                .finish(server, loaded.map(|loaded| ready_now(&loaded)))
                .await?
        }
    };
    Ok(answer)
}

/// The answer to who had a model loaded.
fn ready_now(loaded: &Loaded) -> Answer {
    json_answer(&json!({
        "model": loaded.info().name,
        "state": "READY",
        "sha256": loaded.sha256(),
        "load_us": loaded.load_us,
    }))
}

/// What is written down of a request that loads, unloads or uploads a model.
pub(super) struct Written {
    caller: Caller,
    begun: Instant,
    name: String,
    pub(super) request_bytes: u64,
}

impl Written {
    pub(super) fn of(caller: &Caller, begun: Instant, name: String) -> Self {
        Self {
            caller: caller.clone(),
            begun,
            name,
            request_bytes: 0,
        }
    }

    fn new(caller: &Caller, head: &Head, name: String) -> Self {
        Self::of(caller, head.begun, name)
    }

    /// Writes down how it ended; the answer is sent only after this.
    ///
    /// # Errors
    /// The problem, or 503 where it cannot be written down.
    pub(super) async fn finish(
        self,
        server: &Server,
        answer: Result<Answer, Problem>,
    ) -> Result<Answer, Problem> {
        let Self {
            caller,
            begun,
            name,
            request_bytes,
        } = self;
        let ended = match &answer {
            Ok(answer) => (answer.status, None),
            Err(problem) => (problem.status, Some(problem.code.to_string())),
        };
        let entry = Entry {
            // What is no model's name is the client's text.
            model: server.repository.has(&name).then_some(name),
            request_bytes,
            answer_bytes: answer.as_ref().map_or(0, |answer| answer.body.len() as u64),
            status: ended.0,
            code: ended.1,
            duration_us: begun.elapsed().as_micros() as u64,
            ..caller.entry()
        };
        server.write_down(entry).await?;
        answer
    }
}

/// The pattern of a request: what the audit trail shows of a path.
fn pattern(control: &Control<'_>) -> &'static str {
    match control {
        Control::Page(..) => "GET /",
        Control::Health => "GET /api/v1/health",
        Control::Live => "GET /v2/health/live",
        Control::Ready => "GET /v2/health/ready",
        Control::Models => "GET /api/v1/models",
        Control::Statistics => "GET /api/v1/stats",
        Control::Metrics => "GET /metrics",
        Control::ServerMetadata => "GET /v2",
        Control::Model(..) => "GET /v2/models/{model}",
        Control::ModelReady(..) => "GET /v2/models/{model}/ready",
        Control::ModelConfig(_) => "GET /v2/models/{model}/config",
        Control::ModelStatistics(_) => "GET /v2/models/{model}/stats",
        Control::Index => "POST /v2/repository/index",
        Control::Load(None) => "POST /api/v1/models/load",
        Control::Load(Some(_)) => "POST /v2/repository/models/{model}/load",
        Control::Unload(None) => "POST /api/v1/models/unload",
        Control::Unload(Some(_)) => "POST /v2/repository/models/{model}/unload",
        Control::Upload(_) => "PUT /api/v1/models/{model}",
    }
}

/// Does what takes its time on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(Problem::new(
            500,
            "LETHE-INTERNAL",
            "it could not be carried out",
        ))
    })
}

fn json_answer(value: &Value) -> Answer {
    Answer::json(value.to_string())
}

fn health(server: &Server) -> Answer {
    let is_ready = server.is_ready();
    let loaded = server
        .repository
        .list()
        .iter()
        .filter(|listed| listed.loaded.is_some())
        .count();
    let answer = json_answer(&json!({
        "status": match is_ready {
            true => "ok",
            false if server.draining.load(Ordering::Relaxed) => "draining",
            false => "no_audit",
        },
        "live": true,
        "ready": is_ready,
        "version": env!("CARGO_PKG_VERSION"),
        "models_loaded": loaded,
        "uptime_s": server.figures.uptime().as_secs(),
    }));
    Answer {
        status: if is_ready { 200 } else { 503 },
        ..answer
    }
}

/// The models that a tenant may use.
pub(super) fn seen(server: &Server, caller: &Caller) -> impl Iterator<Item = Listed> {
    let all = server.repository.list().into_iter();
    all.filter(|listed| caller.limits().allows_model(&listed.name))
}

fn models(server: &Server, caller: &Caller) -> Vec<Value> {
    seen(server, caller)
        .map(|listed| description::model(&listed))
        .collect()
}

/// Reads a body, for which there is as much time as for any request's.
async fn read(server: &Server, head: &Head, body: Body, limit_bytes: u64) -> Result<Held, Problem> {
    // What an operator sends has limits of its own.
    let room = Room::new(u64::MAX);
    let deadline = head.begun + server.settings.request_timeout;
    let body = tokio::time::timeout_at(deadline, body::read(body, limit_bytes, &room)).await;
    body.unwrap_or_else(|_| {
        let detail = "the request's body did not come in time";
        Err(Problem::new(504, "LETHE-DEADLINE", detail))
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IndexRequest {
    ready: bool,
}

async fn read_index_request(
    server: &Server,
    head: &Head,
    body: Body,
) -> Result<IndexRequest, Problem> {
    let body = read(server, head, body, CONTROL_BODY_BYTES).await?;
    if body.is_empty() {
        return Ok(IndexRequest::default());
    }
    object(&body)
}

/// Reads a JSON object; a list of its fields' values is none.
fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        let detail = "not the JSON that is expected: not an object";
        return Err(Problem::not_understood("LETHE-JSON", detail));
    }
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("not the JSON that is expected: {error}");
        Problem::not_understood("LETHE-JSON", detail)
    })
}

/// The model to load or unload: in the path, or in the body.
async fn named(
    server: &Server,
    head: &Head,
    in_path: Option<Cow<'_, str>>,
    body: Body,
) -> Result<String, Problem> {
    #[derive(Deserialize)]
    struct Named {
        model: String,
    }
    let body = read(server, head, body, CONTROL_BODY_BYTES).await?;
    if let Some(name) = in_path {
        return Ok(name.into_owned());
    }
    let named: Named = object(&body)?;
    Ok(named.model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths_are_decoded() {
        let name = || Cow::Borrowed("a b/λ");
        let cases = [
            (
                "GET",
                "/v2/models/a%20b%2F%CE%BB/config",
                Control::ModelConfig(name()),
            ),
            (
                "GET",
                "/v2/models/a%20b%2F%CE%BB/stats?x",
                Control::ModelStatistics(Some(name())),
            ),
            (
                "POST",
                "/v2/repository/models/a%20b%2F%CE%BB/load",
                Control::Load(Some(name())),
            ),
            (
                "POST",
                "/v2/repository/models/a%20b%2F%CE%BB/unload",
                Control::Unload(Some(name())),
            ),
            (
                "PUT",
                "/api/v1/models/a%20b%2F%CE%BB",
                Control::Upload(name()),
            ),
            (
                "GET",
                "/v2/models/a%20b%2F%CE%BB",
                Control::Model(name(), None),
            ),
        ];
        for (method, path, expected) in cases {
            let method = method.parse().unwrap();
            assert_eq!(control(&method, path), Ok(Some(expected)), "{path}");
        }
        for path in ["/v2/models/%/config", "/v2/models/%ff/stats"] {
            let problem = control(&Method::GET, path).unwrap_err();
            assert_eq!(
                (problem.status, &*problem.code),
                (400, "LETHE-REQUEST"),
                "{path}"
            );
        }
    }
}
