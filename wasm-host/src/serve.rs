//! The server: HTTP and gRPC in front of models, each request in a fresh sandbox.
//!
//! ```text
//! connection ─► route ─► who asks ─► body ─► model ─► turn ─► fresh instance ─► answer
//!  [listener]            [access]   [body] [repository]  │       [loaded]      [body]
//!                                                    admission      │
//!                                             [figures] ◄───────────┘ audit
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`settings`] | what can be set, and where |
//! | `listener` | connections: limits, time-outs, TLS, draining |
//! | `origins` | web pages that may call, and names that the server may be called by |
//! | `access` | keys, tokens, what a tenant may do |
//! | `inference` | requests that run a model |
//! | `control` | requests about the server: models, figures, pages |
//! | `grpc` | the Open Inference Protocol over gRPC |
//! | `stream` | requests over a WebSocket |
//! | `session` | the requests of a WebSocket in one instance |
//! | [`repository`] | which models there are, and which are loaded |
//! | [`loaded`] | a model that answers |
//! | `together` | requests that are answered by one run |
//! | `body` | bodies, read into memory that is wiped |
//! | `ending` | what is written down when a request ends |
//! | `records` | what else is: models that come and go, who is turned away |
//! | `figures` | what is counted |
//! | `wiping` | connections whose idle buffers hold nothing |
//!
//! A body is handed to a cell as it is: JSON is parsed inside. Only with several models does the
//! host look into it, for the name of the model and nothing else.

mod access;
mod body;
mod control;
mod ending;
mod figures;
mod grpc;
mod in_process;
mod inference;
mod listener;
pub mod loaded;
mod origins;
mod records;
pub mod repository;
mod session;
pub mod settings;
mod stream;
mod tls;
mod together;
mod wiping;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::any;
use lethe_server::handler::allowed;
use lethe_server::{Problem, Response as Answer};
use tokio::net::TcpListener;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::audit::{AuditLog, AuditSettings};
use crate::signing::SigningKey;
use crate::tenants::{
    Admission, AdmissionSettings, Authenticator, JwtSettings, JwtVerifier, KeyFile, Refusal,
    Tenants,
};
use access::{Access, Caller};
use body::{Coding, Room};
use figures::Figures;
use inference::Answered;
use listener::{Listeners, Place};
use origins::{Entrance, Origins};
use records::{Records, Refused};
use repository::Repository;
use session::Sessions;
use settings::{Given, ServeSettings};
use tls::Tls;

/// The target of the spans that are sent to a collector.
pub const TRACES: &str = "lethe::traces";

pub use access::ControlToken;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A server that is set up but does not listen yet.
pub struct Server {
    settings: ServeSettings,
    repository: Repository,
    access: Access,
    admission: Admission,
    sessions: Arc<Sessions>,
    /// Room for the bodies of requests for inference.
    bodies: Room,
    figures: Arc<Figures>,
    draining: AtomicBool,
    /// The next number of a request whose client gave none.
    next_request: AtomicU64,
    /// Drawn at start, so that numbers of requests differ between servers.
    mark: u32,
    tls: Option<Tls>,
    records: Arc<Records>,
    /// Signs receipts.
    signing: Option<Arc<SigningKey>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The limits of tenants in the settings. Where nothing tells tenants from each other, there is nobody
/// to be starved by them.
fn tenants(given: &Given) -> Result<Tenants, String> {
    let Some(table) = &given.tenants else {
        let are_known = given.keys.is_some() || given.jwt_jwks.is_some();
        return Ok(match are_known {
            true => Tenants::default(),
            false => Tenants::alone(),
        });
    };
    let tenants = toml::Value::Table(table.clone()).try_into();
    tenants.map_err(|error: toml::de::Error| format!("tenants: {}", error.message()))
}

impl Server {
    /// Reads keys, tokens' issuers and certificates, and puts all together.
    ///
    /// # Errors
    /// A sentence that says which setting cannot be followed.
    pub fn new(given: &Given, mut repository: Repository) -> Result<Arc<Self>, String> {
        let settings = given.with_defaults().map_err(|error| error.to_string())?;
        let keys = given.keys.as_deref().map(KeyFile::open).transpose();
        let tokens = match (&given.jwt_issuer, &given.jwt_audience, &given.jwt_jwks) {
            (Some(issuer), Some(audience), Some(jwks)) => {
                let settings = JwtSettings {
                    issuer: issuer.clone(),
                    audience: audience.clone(),
                    jwks: jwks.clone(),
                    tenant_claim: None,
                };
                Some(JwtVerifier::open(settings).map_err(|error| error.to_string())?)
            }
            (None, None, None) => None,
            _ => return Err("jwt_issuer, jwt_audience and jwt_jwks go together".into()),
        };
        let tls = match (&given.tls_cert, &given.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::open(certificate, key)?),
            (None, None) => None,
            _ => return Err("tls_cert and tls_key go together".into()),
        };
        let audit = given.audit.as_deref().map(|file| {
            let key = given.signing_key.clone();
            let key = key.unwrap_or_else(|| file.with_extension("key"));
            let audit = AuditLog::open(&AuditSettings::new(file, key));
            audit.map_err(|error| error.to_string())
        });
        let signing = given.signing_key.as_deref();
        let signing = signing.map(SigningKey::open_or_create).transpose();
        let tenants = tenants(given)?;
        let gate = AdmissionSettings {
            permits: settings.max_running,
            queue_per_tenant: settings.max_waiting_per_tenant,
            queue: settings.max_waiting,
        };
        let mut mark = [0; 4];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut mark)
            .map_err(|_| "the system has no randomness")?;
        let figures = Arc::new(Figures::new());
        let records = Arc::new(Records::new(audit.transpose()?, figures.clone()));
        let of_models = records.clone();
        repository.tell(move |change| of_models.model(change));
        if given.keys.is_some() {
            records.read("keys", None);
        }
        records.read("settings", given.file_sha256.clone());
        Ok(Arc::new(Self {
            admission: Admission::new(tenants.clone(), gate),
            access: Access::new(
                Authenticator {
                    keys: keys.map_err(|error| error.to_string())?,
                    tokens,
                },
                settings.admin_tenants.clone(),
                tenants,
            )?,
            sessions: Sessions::new(settings.max_sessions),
            bodies: Room::new(settings.max_bodies_bytes),
            settings,
            repository,
            figures,
            draining: AtomicBool::new(false),
            next_request: AtomicU64::new(0),
            mark: u32::from_le_bytes(mark),
            tls,
            records,
            signing: signing.map_err(|error| error.to_string())?.map(Arc::new),
        }))
    }

    /// The token of who loads and unloads models, where no keys are set.
    pub fn control_token(&self) -> Option<&ControlToken> {
        self.access.control_token()
    }

    /// The models.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Takes what can change while the server runs: limits of tenants, keys, certificate.
    pub fn reload(&self, given: &Given) {
        match tenants(given) {
            Ok(tenants) => {
                self.access.set_tenants(tenants.clone());
                self.admission.set_limits(tenants);
                self.records.read("settings", given.file_sha256.clone());
            }
            Err(error) => tracing::error!(%error, "the limits of tenants stay"),
        }
        self.refresh_keys();
        self.repository.rescan();
        self.reload_certificate();
    }

    fn refresh_keys(&self) {
        for read in self.access.refresh() {
            self.records.read(read, None);
        }
    }

    fn reload_certificate(&self) {
        match self.tls.as_ref().map(Tls::reload) {
            Some(Ok(true)) => self.records.read("certificate", None),
            Some(Err(error)) => tracing::error!(%error, "the certificate read before stays"),
            Some(Ok(false)) | None => {}
        }
    }

    /// Serves on `listener` until `stop` is ready; requests that have begun are finished.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let settings = &self.settings;
        let is_loopback = listener.local_addr()?.ip().to_canonical().is_loopback();
        let unix = settings.unix_socket.as_deref().map(listener::unix);
        let listeners = Listeners {
            tcp: listener,
            tls: self.tls.clone(),
            unix: unix.transpose()?,
        };
        let limits = listener::Limits {
            connections: settings.max_connections,
            head: settings.header_timeout,
            drain: settings.drain_timeout,
        };
        let watcher = tokio::spawn(watch_files(self.clone()));
        let server = self.clone();
        let stop = async move {
            stop.await;
            tracing::info!("no new requests are taken; those that have begun are finished");
            server.draining.store(true, Ordering::Relaxed);
            server.admission.drain();
        };
        let router = router(self.clone(), is_loopback);
        let served = listeners.serve(router, limits, stop).await;
        watcher.abort();
        self.records.write_refusals(true);
        if let Some(audit) = &self.records.audit {
            audit.close().map_err(io::Error::other)?;
        }
        if let Some(path) = &self.settings.unix_socket {
            // Somebody else may have removed it.
            drop(std::fs::remove_file(path));
        }
        served
    }

    fn is_ready(&self) -> bool {
        let audit = self.records.audit.as_ref();
        let writes_down = audit.is_none_or(AuditLog::is_healthy);
        writes_down && !self.draining.load(Ordering::Relaxed)
    }
}

/// Keys that are revoked and certificates that are renewed take effect without a signal.
async fn watch_files(server: Arc<Server>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.records.write_refusals(false);
        server.refresh_keys();
        server.reload_certificate();
    }
}

fn router(server: Arc<Server>, is_loopback: bool) -> Router {
    let door = Door {
        origins: Arc::new(Origins {
            pages: server.settings.cors_origins.clone(),
            hosts: server.settings.allowed_hosts.clone(),
        }),
        is_loopback,
        server: server.clone(),
    };
    let origins = &server.settings.cors_origins;
    let cors = (!origins.is_empty()).then(|| {
        let origin = match origins.iter().any(|origin| origin == "*") {
            true => AllowOrigin::any(),
            false => {
                AllowOrigin::list(origins.iter().filter_map(|o| HeaderValue::from_str(o).ok()))
            }
        };
        CorsLayer::new()
            .allow_origin(origin)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(tower_http::cors::Any)
            .expose_headers([
                REQUEST_ID,
                HeaderName::from_static("inference-header-content-length"),
            ])
    });
    let router = Router::new()
        .route("/api/v1/stream", any(stream::open))
        .fallback(respond)
        .with_state(server);
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    // Outside of all else: what is not let in is answered by nothing behind it.
    router.layer(middleware::from_fn_with_state(door, enter))
}

/// What requests pass before all else.
#[derive(Clone)]
struct Door {
    origins: Arc<Origins>,
    is_loopback: bool,
    server: Arc<Server>,
}

async fn enter(State(door): State<Door>, request: Request, next: Next) -> Response {
    let server = &door.server;
    let peer = request.extensions().get::<Place>().and_then(|p| p.peer);
    let entrance = Entrance {
        // Web pages reach no socket of this machine's files.
        is_loopback: door.is_loopback && peer.is_some(),
        is_tls: server.tls.is_some() && peer.is_some(),
    };
    let is_page = || control::is_page(request.uri().path());
    let Err(problem) = door.origins.check(&request, entrance, is_page) else {
        return next.run(request).await;
    };
    let id = server.request_id(request.headers());
    let refused = Refused {
        request_id: id.to_str().unwrap_or_default().into(),
        route: "any",
        peer,
        ..Refused::default()
    };
    server.records.refuse(&refused, &problem);
    let mut response = match is_grpc(&request) {
        true => grpc::refuse(problem),
        false => with_headers(problem, None),
    };
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// What is known of a request before its body is read.
struct Head {
    method: Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    /// The client's name for it, or ours.
    id: HeaderValue,
    begun: tokio::time::Instant,
    /// Where it comes from; a Unix socket has no address.
    peer: Option<IpAddr>,
}

impl Head {
    fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Its id as text.
    fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    fn text(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Server {
    /// Whom a request comes from; who is nobody is written down.
    ///
    /// # Errors
    /// 401.
    fn caller(
        &self,
        headers: &HeaderMap,
        request_id: &str,
        route: &'static str,
        peer: Option<IpAddr>,
    ) -> Result<Caller, Problem> {
        let caller = self.access.caller(headers, request_id, route, peer);
        caller.inspect_err(|problem| {
            let refused = Refused {
                request_id: request_id.into(),
                route,
                peer,
                ..Refused::default()
            };
            self.records.refuse(&refused, problem);
        })
    }

    /// Writes down what a caller was refused.
    fn checked<T>(&self, caller: &Caller, checked: Result<T, Problem>) -> Result<T, Problem> {
        checked.inspect_err(|problem| self.records.refuse(&caller.into(), problem))
    }

    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let is_short =
            |id: &&HeaderValue| id.len() <= 128 && id.as_bytes().iter().all(u8::is_ascii_graphic);
        if let Some(id) = headers.get(REQUEST_ID).filter(is_short) {
            return id.clone();
        }
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{number:x}", self.mark);
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    }
}

async fn respond(State(server): State<Arc<Server>>, request: Request) -> Response {
    let span = tracing::info_span!(
        target: TRACES,
        "request",
        otel.kind = "server",
        http.request.method = %request.method(),
        http.response.status_code = tracing::field::Empty,
    );
    if span.is_disabled() {
        return respond_within(server, request).await;
    }
    let headers = Headers(request.headers());
    let parent = opentelemetry::global::get_text_map_propagator(|from| from.extract(&headers));
    // Without a subscriber that takes parents there is none to set.
    let _ = span.set_parent(parent);
    let response = respond_within(server, request)
        .instrument(span.clone())
        .await;
    // Unsigned numbers would be sent as texts.
    let status = i64::from(response.status().as_u16());
    span.record("http.response.status_code", status);
    response
}

/// Headers, as the trace context (W3C) is read from them.
struct Headers<'a>(&'a HeaderMap);

impl opentelemetry::propagation::Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

async fn respond_within(server: Arc<Server>, request: Request) -> Response {
    if is_grpc(&request) {
        return grpc::respond(server, request).await;
    }
    let (parts, body) = request.into_parts();
    let head = Head {
        id: server.request_id(&parts.headers),
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        begun: tokio::time::Instant::now(),
        peer: parts.extensions.get::<Place>().and_then(|p| p.peer),
    };
    let coding = Coding::of_answer(&head.headers);
    let is_head = head.method == Method::HEAD;
    let id = head.id.clone();
    let answered = match control::control(&head.method, head.path()) {
        Ok(Some(control)) => control::respond(&server, &head, control, body, coding).await,
        Ok(None) => inference::respond(&server, &head, body)
            .await
            .map(|answered| with_receipt(answered, coding)),
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| refuse(&head, problem));
    response.headers_mut().insert(REQUEST_ID, id);
    if is_head {
        *response.body_mut() = axum::body::Body::empty();
    }
    response
}

fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn with_receipt(answered: Answered, coding: Option<Coding>) -> Response {
    let mut response = body::http(answered.answer, coding);
    let receipt = answered
        .receipt
        .and_then(|text| HeaderValue::from_str(&text).ok());
    if let Some(receipt) = receipt {
        response.headers_mut().insert(inference::RECEIPT, receipt);
    }
    response
}

/// A problem as an answer, with the headers that its status asks for.
fn refuse(head: &Head, problem: Problem) -> Response {
    let status = problem.status;
    // Who is asked to come again met a limit, and no failure.
    if status >= 500 && problem.retry_after_s.is_none() {
        let path = head.uri.path();
        tracing::warn!(status, code = %problem.code, path, id = ?head.id, "a request failed");
    }
    with_headers(
        problem,
        allowed(head.path()).or(control::allowed(head.uri.path())),
    )
}

/// A problem with the headers that its status asks for.
fn with_headers(problem: Problem, methods: Option<&'static str>) -> Response {
    let (status, retry_after_s) = (problem.status, problem.retry_after_s);
    let mut response = body::http(Answer::from(problem), None);
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after_s {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    match status {
        401 => {
            let scheme = HeaderValue::from_static("Bearer realm=\"lethe\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        405 => {
            if let Some(methods) = methods {
                headers.insert(header::ALLOW, HeaderValue::from_static(methods));
            }
        }
        _ => {}
    }
    response
}

/// A request that is not run, as a problem.
fn refused(refusal: Refusal) -> Problem {
    let code = match refusal {
        Refusal::Rate { .. } => "LETHE-RATE",
        Refusal::QueueFull { .. } => "LETHE-QUEUE",
        Refusal::Draining => "LETHE-DRAINING",
        _ => "LETHE-OVERLOAD",
    };
    Problem {
        retry_after_s: refusal.retry_after_seconds(),
        ..Problem::new(refusal.status(), code, refusal.to_string())
    }
}
