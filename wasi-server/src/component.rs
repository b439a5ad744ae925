//! The edge's door: `wasi:http/incoming-handler` of WASI 0.2.
//!
//! `lethe bundle` freezes a loaded model into this door's module and wraps it as a component. The
//! handler is the cell's, so what a host of components serves is what a sandbox answers.
#![allow(unsafe_code, reason = "the generated bindings of the component model")]
#![allow(missing_docs, clippy::all, reason = "the generated bindings")]

use bytes::Bytes;

use crate::handler::{EVENT_STREAM, JSON_BYTES, Request, Response, allowed, json_bytes};
use crate::load::HEAP;
use crate::problem::Problem;

#[rustfmt::skip]
mod bindings;

use bindings::exports::wasi::http::incoming_handler::Guest;
use bindings::wasi::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use bindings::wasi::io::streams::StreamError;

/// Largest body a bundle takes.
const MAX_BODY_BYTES: u64 = 64 << 20;
/// Bytes asked for at once.
const READ_BYTES: u64 = 64 << 10;
/// Most bytes that `blocking-write-and-flush` takes at once.
const WRITE_BYTES: usize = 4096;

struct Edge;

impl Guest for Edge {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        HEAP.begin_request();
        if let Err((problem, response_out)) = answer(&request, response_out) {
            let head = Head {
                method: "",
                path: "",
            };
            send(problem.into(), head, response_out);
        }
    }
}

/// What of a request's head an answer's head depends on.
#[derive(Clone, Copy)]
struct Head<'a> {
    method: &'a str,
    path: &'a str,
}

/// Answers, or gives back what an answer would have gone to.
fn answer(
    request: &IncomingRequest,
    response_out: ResponseOutparam,
) -> Result<(), (Problem, ResponseOutparam)> {
    let method = method_name(request.method());
    let path = request.path_with_query().unwrap_or_default();
    let headers = request.headers();
    let header = |name: &str| {
        let value = headers.get(name).into_iter().next()?;
        Some(String::from_utf8_lossy(&value).into_owned())
    };
    let (content_type, accept) = (header("content-type"), header("accept"));
    let read = || {
        let json_bytes = header(JSON_BYTES)
            .map(|text| json_bytes(&text))
            .transpose()?;
        Ok((json_bytes, Bytes::from(read_body(request)?)))
    };
    let (json_bytes, body) = match read() {
        Ok(read) => read,
        Err(problem) => return Err((problem, response_out)),
    };
    let request = Request {
        method: &method,
        path: &path,
        content_type: content_type.as_deref(),
        accept: accept.as_deref(),
        json_bytes,
        body: &body,
    };
    let head = Head {
        method: &method,
        path: &path,
    };
    let mut response_out = Some(response_out);
    let done = crate::cell::with_handler(|handler| {
        let response = match handler.events(&request) {
            None => handler.handle_shared(&request, &body),
            Some(Err(problem)) => problem.into(),
            Some(Ok(events)) => {
                if let Some(out) = response_out.take() {
                    send_events(events, out);
                }
                return Ok(());
            }
        };
        if let Some(out) = response_out.take() {
            send(response, head, out);
        }
        Ok(())
    });
    match (done, response_out) {
        (Err(problem), Some(response_out)) => Err((problem, response_out)),
        _ => Ok(()),
    }
}

fn method_name(method: Method) -> String {
    match method {
        Method::Get => "GET".into(),
        Method::Head => "HEAD".into(),
        Method::Post => "POST".into(),
        Method::Put => "PUT".into(),
        Method::Delete => "DELETE".into(),
        Method::Connect => "CONNECT".into(),
        Method::Options => "OPTIONS".into(),
        Method::Trace => "TRACE".into(),
        Method::Patch => "PATCH".into(),
        Method::Other(name) => name,
    }
}

fn read_body(request: &IncomingRequest) -> Result<Vec<u8>, Problem> {
    let broken = || Problem::not_understood("LETHE-BODY", "the body could not be read");
    let incoming = request.consume().map_err(|()| broken())?;
    let stream = incoming.stream().map_err(|()| broken())?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(piece) => body.extend_from_slice(&piece),
            Err(StreamError::Closed) => return Ok(body),
            Err(StreamError::LastOperationFailed(_)) => return Err(broken()),
        }
        if body.len() as u64 > MAX_BODY_BYTES {
            return Err(Problem::too_large(body.len() as u64, MAX_BODY_BYTES));
        }
    }
}

/// Sends an answer. Where the client is gone there is nobody to tell.
fn send(response: Response, head: Head<'_>, response_out: ResponseOutparam) {
    let mut headers = vec![("content-type", response.content_type.to_string())];
    // The length of a body that is left out need not be told, and a host counts what is written.
    let is_head = head.method == "HEAD";
    if !is_head {
        headers.push(("content-length", response.body.len().to_string()));
    }
    if let Some(bytes) = response.json_bytes {
        headers.push((JSON_BYTES, bytes.to_string()));
    }
    if response.status == 405
        && let Some(allowed) = allowed(head.path)
    {
        headers.push(("allow", allowed.to_owned()));
    }
    let body = begin(response.status, headers, response_out);
    let content = if is_head { &[][..] } else { &response.body[..] };
    write(body, std::iter::once(content));
}

/// Sends events, each as soon as it is there.
fn send_events(events: impl Iterator<Item = Vec<u8>>, response_out: ResponseOutparam) {
    let headers = vec![
        ("content-type", EVENT_STREAM.to_owned()),
        ("cache-control", "no-store".to_owned()),
        // A proxy that collects an answer before it passes it on would undo the streaming.
        ("x-accel-buffering", "no".to_owned()),
    ];
    write(begin(200, headers, response_out), events);
}

/// Sends the head of an answer; its body is to follow.
fn begin(
    status: u16,
    headers: Vec<(&str, String)>,
    response_out: ResponseOutparam,
) -> OutgoingBody {
    let headers: Vec<_> = headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into_bytes()))
        .collect();
    let headers = Fields::from_list(&headers).expect("plain headers are allowed");
    let outgoing = OutgoingResponse::new(headers);
    outgoing
        .set_status_code(status)
        .expect("a status between 200 and 599 is allowed");
    let body = outgoing.body().expect("a new answer's body is taken once");
    ResponseOutparam::set(response_out, Ok(outgoing));
    body
}

/// Writes a body, every piece before the next one is made.
fn write(body: OutgoingBody, pieces: impl Iterator<Item = impl AsRef<[u8]>>) {
    let Ok(stream) = body.write() else { return };
    for piece in pieces {
        for part in piece.as_ref().chunks(WRITE_BYTES) {
            if stream.blocking_write_and_flush(part).is_err() {
                return;
            }
        }
    }
    drop(stream);
    // An error here means that the client is gone.
    drop(OutgoingBody::finish(body, None));
}

bindings::export!(Edge with_types_in bindings);
