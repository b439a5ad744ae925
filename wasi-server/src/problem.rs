//! What went wrong with a request, as RFC 9457 problem details.
//!
//! A [`Problem`] carries the HTTP status, a stable `LETHE-…` code and one sentence that names what
//! was expected and what was found. [`Problem::from`] maps the engine's errors in one match.

use std::borrow::Cow;

use lethe_engine::{Error, OpError};
use serde::Serialize;

use crate::wire::WireError;

/// Media type of a problem's JSON form.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Most models that a problem names.
const MODELS_NAMED: usize = 32;

/// A request that was not answered, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({code})")]
pub struct Problem {
    /// HTTP status, such as 422.
    pub status: u16,
    /// Stable code, such as `LETHE-INPUT-SHAPE`.
    pub code: Cow<'static, str>,
    /// One sentence for a person.
    pub detail: String,
    /// Seconds after which to ask again, where that is known; a door says it in a header.
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with its status, code and detail.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: Cow::Borrowed(code),
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    /// 400: the body is not what the route takes.
    pub fn not_understood(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(400, code, detail)
    }

    /// 422: understood, but an input is wrong.
    pub fn wrong_input(
        code: &'static str,
        name: &str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::new(
            422,
            code,
            format!("input {name:?}: expected {expected}, found {found}"),
        )
    }

    /// 422: an input that is there twice.
    pub fn repeated_input(name: &str) -> Self {
        Self::wrong_input("LETHE-INPUT-UNKNOWN", name, "each once", "it twice")
    }

    /// 404: no such model. Of the models that there are some are named, so that an answer to many
    /// requests stays small.
    pub fn unknown_model<'a>(name: &str, mut models: impl Iterator<Item = &'a str>) -> Self {
        let mut named: Vec<_> = models.by_ref().take(MODELS_NAMED).collect();
        let more = match models.count() {
            0 => String::new(),
            count => format!("{count} more"),
        };
        named.extend((!more.is_empty()).then_some(&*more));
        let detail = format!("unknown model {name:?}: there is {}", named.join(", "));
        Self::new(404, "LETHE-MODEL-UNKNOWN", detail)
    }

    /// 500: there is no model to ask.
    pub(crate) fn no_model() -> Self {
        Self::new(500, "LETHE-IMAGE", "the image holds no model")
    }

    /// 413: the body is larger than the limit.
    pub fn too_large(found_bytes: u64, limit_bytes: u64) -> Self {
        let detail = format!("body of {found_bytes} bytes: the limit is {limit_bytes} bytes");
        Self::new(413, "LETHE-BODY-SIZE", detail)
    }

    /// 415: a body of another media type.
    pub fn media_type(found: &str) -> Self {
        let detail = format!("content type: expected application/json, found {found:?}");
        Self::new(415, "LETHE-MEDIA-TYPE", detail)
    }

    /// What the status means, in the words of HTTP.
    pub fn title(&self) -> &'static str {
        match self.status {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            410 => "Gone",
            413 => "Content Too Large",
            414 => "URI Too Long",
            415 => "Unsupported Media Type",
            421 => "Misdirected Request",
            422 => "Unprocessable Content",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            499 => "Client Closed Request",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            507 => "Insufficient Storage",
            _ => "Internal Server Error",
        }
    }

    /// The problem as `application/problem+json`.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Details<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: &'a str,
        }
        let details = Details {
            r#type: format!("urn:lethe:error:{}", self.code.to_ascii_lowercase()),
            title: self.title(),
            status: self.status,
            detail: &self.detail,
            code: &self.code,
        };
        serde_json::to_vec(&details).expect("five plain fields are JSON")
    }
}

impl From<Error> for Problem {
    /// A wrong request is 422; what the caller cannot mend is 500.
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::MissingInput { .. }
            | Error::UnknownInput { .. }
            | Error::UnknownOutput { .. }
            | Error::InputType { .. }
            | Error::InputShape { .. }
            | Error::Budget { .. }
            | Error::Memory(_) => 422,
            Error::Node {
                source: OpError::Internal { .. },
                ..
            } => 500,
            // The model loaded, so a node that fails was given data it cannot take.
            Error::Node { .. } => 422,
            Error::Cancelled => 503,
            _ => 500,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<WireError> for Problem {
    fn from(error: WireError) -> Self {
        Self::not_understood("LETHE-WIRE", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_five_fields() {
        let problem = Problem::wrong_input("LETHE-INPUT-SHAPE", "x", "[1, 2]", "[3]");
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(json["type"], "urn:lethe:error:lethe-input-shape");
        assert_eq!(json["title"], "Unprocessable Content");
        assert_eq!(json["status"], 422);
        assert_eq!(json["code"], "LETHE-INPUT-SHAPE");
        assert_eq!(json["detail"], "input \"x\": expected [1, 2], found [3]");
    }

    #[test]
    fn no_wrong_request_is_called_a_server_error() {
        for status in [
            400, 401, 403, 404, 405, 409, 410, 413, 414, 415, 421, 422, 426, 429, 431, 499,
        ] {
            let title = Problem::new(status, "LETHE-REQUEST", "").title();
            assert_ne!(title, "Internal Server Error", "{status}");
        }
    }

    #[test]
    fn engine_errors_keep_their_codes() {
        let missing = Error::MissingInput {
            name: "x".into(),
            expected: "x".into(),
        };
        let problem = Problem::from(missing);
        assert_eq!(
            (problem.status, &*problem.code),
            (422, "LETHE-INPUT-MISSING")
        );
    }
}
