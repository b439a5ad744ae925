//! Connections: accepted up to a limit, given time-outs, spoken to in HTTP/1.1 or HTTP/2, and let go
//! one after the other when the server stops.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use lethe_server::Problem;
use lethe_server::problem::PROBLEM_JSON;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::ServiceExt;

use super::body::Inflow;
use super::tls::Tls;
use super::wiping::Wiping;

/// The first bytes of HTTP/2 without TLS (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// How connections are treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    /// For the handshake of TLS, for a request's head, between requests, and for a client that
    /// takes nothing of its answer.
    pub(super) head: Duration,
    /// For requests that have begun when the server stops.
    pub(super) drain: Duration,
}

/// A connection's place among those that may be open. What outlives HTTP on a connection, a
/// WebSocket, holds it too: it is in the extensions of every request.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// What the connection receives.
    pub(super) inflow: Arc<Inflow>,
    /// Where it comes from; a Unix socket has no address.
    pub(super) peer: Option<IpAddr>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, peer: Option<IpAddr>) -> Self {
        Self {
            inflow: Arc::default(),
            peer,
            _permit: Arc::new(permit),
        }
    }
}

/// Where connections come from.
pub(super) struct Listeners {
    pub(super) tcp: TcpListener,
    pub(super) tls: Option<Tls>,
    pub(super) unix: Option<UnixListener>,
}

impl Listeners {
    /// Serves until `stop` is ready, then lets requests that have begun end.
    ///
    /// # Errors
    /// When a listener fails.
    pub(super) async fn serve(
        self,
        router: Router,
        limits: Limits,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(limits.connections));
        let open = GracefulShutdown::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                accepted = self.tcp.accept() => {
                    let (stream, peer) = match accepted {
                        Ok((stream, peer)) => (stream, peer.ip()),
                        Err(error) if is_of_one_connection(&error) => continue,
                        Err(error) => {
                            // Such as too many open files: others will close some.
                            tracing::warn!(%error, "cannot accept a connection");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    };
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        tokio::spawn(refuse(stream, self.tls.is_some()));
                        continue;
                    };
                    let (router, watcher, tls) = (router.clone(), open.watcher(), self.tls.clone());
                    let place = Place::new(place, Some(peer));
                    tokio::spawn(async move {
                        // A client that breaks off has nobody to tell.
                        drop(one(stream, tls, router, limits, watcher, place).await);
                    });
                }
                accepted = accept_unix(self.unix.as_ref()) => {
                    let Ok(stream) = accepted else { continue };
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let (router, watcher) = (router.clone(), open.watcher());
                    let place = Place::new(place, None);
                    tokio::spawn(async move {
                        drop(speak(stream, None, router, limits, watcher, place).await);
                    });
                }
                () = &mut stop => break,
            }
        }
        drop(self);
        let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        let ended = async {
            open.shutdown().await;
            // Streams go on after their connection's HTTP has ended.
            places.acquire_many(all).await.map(drop)
        };
        if timeout(limits.drain, ended).await.is_err() {
            tracing::warn!(
                "requests were cut off: they did not end in {:?}",
                limits.drain
            );
        }
        Ok(())
    }
}

/// Listens on a Unix socket for this user alone, in place of one that a server left behind.
///
/// # Errors
/// When the socket cannot be had.
pub(super) fn unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let left_behind = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if left_behind {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept_unix(listener: Option<&UnixListener>) -> io::Result<tokio::net::UnixStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

/// Whether an error of `accept` is about the connection that was to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Says in one breath that there is no place.
async fn refuse(mut stream: TcpStream, is_tls: bool) {
    let body = Problem::new(503, "LETHE-CONNECTIONS", "too many connections").to_json();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
         content-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    if !is_tls {
        let answer = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
            stream.shutdown().await?;
            // Closed with something unread, a connection is reset, and the answer may be lost.
            let mut unread = [0; 4096];
            while stream.read(&mut unread).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        // A client that is gone already has nothing to hear.
        drop(timeout(Duration::from_secs(1), answer).await);
    }
}

fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(100)
        .max_buf_size(64 << 10)
        // Bodies are sent from where they lie: a copy in a buffer that is kept would survive.
        .writev(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.head)
        .keep_alive_timeout(limits.head)
        .max_concurrent_streams(128)
        .max_header_list_size(64 << 10)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

/// One connection, from its first byte on.
async fn one(
    stream: TcpStream,
    tls: Option<Tls>,
    router: Router,
    limits: Limits,
    watcher: hyper_util::server::graceful::Watcher,
    place: Place,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => {
            let is_http2 = timeout(limits.head, speaks_http2(&stream)).await??;
            speak(stream, Some(is_http2), router, limits, watcher, place).await
        }
        Some(tls) => {
            let stream = timeout(limits.head, tls.acceptor().accept(stream)).await??;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            speak(stream, Some(is_http2), router, limits, watcher, place).await
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    // Where it is known already.
    is_http2: Option<bool>,
    router: Router,
    limits: Limits,
    watcher: hyper_util::server::graceful::Watcher,
    place: Place,
) -> io::Result<()> {
    let builder = match is_http2 {
        Some(true) => builder(limits).http2_only(),
        Some(false) => builder(limits).http1_only(),
        None => builder(limits),
    };
    let (inflow, understood) = (place.inflow.clone(), Arc::new(AtomicBool::new(false)));
    let stream = Wiping::new(stream, inflow, limits.head, understood.clone());
    let stream = TokioIo::new(stream);
    let service = router.map_request(move |mut request: Request<_>| {
        understood.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(place.clone());
        request
    });
    let connection = builder
        .serve_connection_with_upgrades(stream, TowerToHyperService::new(service))
        .into_owned();
    watcher.watch(connection).await.map_err(io::Error::other)
}

/// Whether a connection begins as HTTP/2 does, once enough of it has come to tell.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        let len = stream.peek(&mut start).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start[..len] != HTTP2_PREFACE[..len] {
            return Ok(false);
        }
        if len == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // `peek` returns at once while there is anything: wait for more.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
