//! Requests and answers, as far as the handler looks at them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::problem::{PROBLEM_JSON, Problem};

/// The header that says how much of a body is JSON, in lower case.
pub const JSON_BYTES: &str = "inference-header-content-length";
/// Media type of raw tensors, and of JSON with raw tensors behind it.
pub const OCTET_STREAM: &str = "application/octet-stream";
/// Media type of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";

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

/// An HTTP request.
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

    /// Whether the client names this media type among those that it takes.
    pub fn accepts(&self, media_type: &str) -> bool {
        let named = |accept: &str| accept.split(',').any(|one| is_media_type(one, media_type));
        self.accept.is_some_and(named)
    }

    /// Whether the body is one tensor and nothing else: its JSON is announced to be empty.
    pub(super) fn is_raw(&self) -> bool {
        self.json_bytes == Some(0)
    }

    /// The body's JSON and what follows it.
    pub(super) fn split(&self) -> Result<(&'a [u8], &'a [u8]), Problem> {
        let Some(json_bytes) = self.json_bytes else {
            return Ok((self.body, &[]));
        };
        let at = usize::try_from(json_bytes).ok();
        at.and_then(|at| self.body.split_at_checked(at))
            .ok_or_else(|| {
                let len = self.body.len();
                let detail = format!("{JSON_BYTES} is {json_bytes}, and the body has {len} bytes");
                Problem::not_understood("LETHE-REQUEST", detail)
            })
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
    /// A good answer in JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::of("application/json", body)
    }

    /// A good answer of this media type.
    pub(super) fn of(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            content_type: content_type.into(),
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
        Some(found) if !is_json(found) && !is_media_type(found, OCTET_STREAM) => {
            Err(Problem::media_type(found))
        }
        _ => Ok(()),
    }
}

pub(super) fn is_json(content_type: &str) -> bool {
    is_media_type(content_type, "application/json")
}

/// Whether a header names this media type, parameters aside.
pub(super) fn is_media_type(header: &str, media_type: &str) -> bool {
    let essence = header.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(media_type)
}
