//! The REST server: HTTP in front of the handler, in this process or in a sandbox per request.
//!
//! ```text
//! connection ─► route, media type, size ─► body ─► model's sandbox ─► fresh instance ─► answer
//!                    (host)               (wiped)    or session          (wiped)       (wiped)
//! ```
//!
//! What needs no body is answered here. A body is read into memory that is zeroized, and handed to
//! a cell as it is: JSON is parsed inside. Only with several models does the host look into it, for
//! the name of the model and nothing else.

mod backend;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use lethe_server::handler::{Route, check_body, health, list, route};
use lethe_server::{Problem, Response as Answer};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

pub use backend::Backend;

/// Largest piece of an answer that is handed to a connection at once.
const PIECE_BYTES: usize = 64 << 10;

/// What requests may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Largest body.
    pub body_bytes: u64,
    /// From the end of the request's head to the beginning of the answer.
    pub request_timeout: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            body_bytes: 64 << 20,
            request_timeout: Duration::from_secs(30),
        }
    }
}

struct Server {
    backend: Backend,
    limits: ServeLimits,
}

/// Serves `backend` on `listener` until `stop` is ready; requests that have begun are finished.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    backend: Backend,
    limits: ServeLimits,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let server = Arc::new(Server { backend, limits });
    let router = Router::new().fallback(respond).with_state(server);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
}

async fn respond(State(server): State<Arc<Server>>, request: Request) -> Response {
    let limit = server.limits.request_timeout;
    // Dropping the future tells a native run to stop; a cell has its own deadline.
    let answer = match tokio::time::timeout(limit, answer(server, request)).await {
        Ok(answer) => answer.unwrap_or_else(Answer::from),
        Err(_) => {
            let detail = format!("the request took longer than {limit:?}");
            Problem::new(504, "LETHE-DEADLINE", detail).into()
        }
    };
    http(answer)
}

async fn answer(server: Arc<Server>, request: Request) -> Result<Answer, Problem> {
    let (head, body) = request.into_parts();
    match route(head.method.as_str(), head.uri.path())? {
        Route::Health => return Ok(health()),
        Route::Models => return Ok(list(server.backend.models())),
        Route::Infer => {}
        _ => {
            let detail = format!("path {:?} is not served here", head.uri.path());
            return Err(Problem::new(404, "LETHE-ROUTE", detail));
        }
    }
    let content_type = head.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let content_type = content_type.map(|value| value.into_owned());
    let announced = body.size_hint().lower();
    check_body(content_type.as_deref(), announced, server.limits.body_bytes)?;
    let body = read(body, server.limits.body_bytes).await?;

    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let stopped = stop.0.clone();
    let run = tokio::task::spawn_blocking(move || {
        server
            .backend
            .infer(content_type.as_deref(), &body, &stopped)
    });
    let failed = |_| {
        Problem::new(
            500,
            "LETHE-INTERNAL",
            "the request could not be carried out",
        )
    };
    run.await.map_err(failed)
}

/// Raises its flag when dropped: whoever waited for the answer is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads a body into memory that is zeroized.
async fn read(mut body: Body, limit_bytes: u64) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let expected = body.size_hint().lower().min(limit_bytes) as usize;
    let mut read = Zeroizing::new(Vec::with_capacity(expected));
    loop {
        let frame =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context));
        let Some(frame) = frame.await else {
            return Ok(read);
        };
        let broken = |_| Problem::not_understood("LETHE-BODY", "the body could not be read");
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if (read.len() + data.len()) as u64 > limit_bytes {
            return Err(Problem::too_large(
                (read.len() + data.len()) as u64,
                limit_bytes,
            ));
        }
        append(&mut read, &data);
    }
}

/// Appends, wiping the old memory where the vector must move.
fn append(to: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    if to.capacity() - to.len() < data.len() {
        let mut larger = Vec::with_capacity((to.len() + data.len()).max(2 * to.capacity()));
        larger.extend_from_slice(to);
        *to = Zeroizing::new(larger);
    }
    to.extend_from_slice(data);
}

/// An answer as HTTP, its body in pieces whose memory is zeroized when the last one is sent.
fn http(answer: Answer) -> Response {
    let len = answer.body.len();
    let body = if len <= PIECE_BYTES {
        Body::from(answer.body)
    } else {
        Body::new(Pieces(answer.body))
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = HeaderValue::from_str(&answer.content_type);
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_LENGTH, len.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A body in pieces.
struct Pieces(bytes::Bytes);

impl HttpBody for Pieces {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let len = self.0.len().min(PIECE_BYTES);
        let piece = self.0.split_to(len);
        let frame = (len > 0).then(|| Ok(http_body::Frame::data(piece)));
        std::task::Poll::Ready(frame)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.len() as u64)
    }
}
