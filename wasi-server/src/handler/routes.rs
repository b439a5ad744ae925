//! Which path asks for what.
//!
//! | path | route | takes |
//! | --- | --- | --- |
//! | `/api/v1/health` | [`Route::Health`] | GET |
//! | `/api/v1/models` | [`Route::Models`] | GET |
//! | `/api/v1/infer` | [`Route::Infer`] | POST |
//! | `/api/v1/batch` | [`Route::Batch`] | POST |
//! | `/v2` | [`Route::ServerMetadata`] | GET |
//! | `/v2/health/live` | [`Route::Live`] | GET |
//! | `/v2/health/ready` | [`Route::Ready`] | GET |
//! | `/v2/models/{name}[/versions/{version}]` | [`Route::Model`] | GET |
//! | `/v2/models/{name}[/versions/{version}]/ready` | [`Route::ModelReady`] | GET |
//! | `/v2/models/{name}[/versions/{version}]/infer` | [`Route::ModelInfer`] | POST |
//!
//! Where GET is taken, HEAD is too: it is answered as GET is, and the door leaves the body out.

use std::borrow::Cow;

use crate::problem::Problem;

/// Path of inference requests.
pub const INFER: &str = "/api/v1/infer";
/// Path of many inference requests in one.
pub const BATCH: &str = "/api/v1/batch";
/// Path of the list of models.
pub const MODELS: &str = "/api/v1/models";
/// Path of the health check.
pub const HEALTH: &str = "/api/v1/health";

/// What a request asks for. Names are percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    /// Whether the server is well.
    Health,
    /// The list of models.
    Models,
    /// Inference; the body names the model.
    Infer,
    /// Many inferences.
    Batch,
    /// Whether the server answers at all.
    Live,
    /// Whether the server takes inferences.
    Ready,
    /// What the server is.
    ServerMetadata,
    /// What a model takes and gives.
    Model {
        /// Its name.
        name: Cow<'a, str>,
        /// The version, where the path has one.
        version: Option<Cow<'a, str>>,
    },
    /// Whether a model can be asked.
    ModelReady {
        /// Its name.
        name: Cow<'a, str>,
        /// The version, where the path has one.
        version: Option<Cow<'a, str>>,
    },
    /// Inference by the model that the path names.
    ModelInfer {
        /// Its name.
        name: Cow<'a, str>,
        /// The version, where the path has one.
        version: Option<Cow<'a, str>>,
    },
}

impl Route<'_> {
    /// The methods that the path takes, as the header `Allow` lists them.
    fn takes(&self) -> &'static str {
        match self {
            Self::Infer | Self::Batch | Self::ModelInfer { .. } => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// The route of a method and path; the path may carry a query.
///
/// # Errors
/// 404 for an unknown path, 405 for a method the path does not take.
pub fn route<'a>(method: &str, path: &'a str) -> Result<Route<'a>, Problem> {
    let path = without_query(path);
    let route = find(path)?;
    let takes = route.takes();
    if takes.split(", ").any(|taken| taken == method) {
        Ok(route)
    } else {
        let detail = format!("{path} takes {takes}, not {method}");
        Err(Problem::new(405, "LETHE-METHOD", detail))
    }
}

/// What the header `Allow` of a 405 says about a path; `None` for an unknown one.
pub fn allowed(path: &str) -> Option<&'static str> {
    let route = find(without_query(path)).ok()?;
    Some(route.takes())
}

fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

fn find(path: &str) -> Result<Route<'_>, Problem> {
    let unknown = || Problem::new(404, "LETHE-ROUTE", format!("unknown path {path:?}"));
    Ok(match path {
        INFER => Route::Infer,
        HEALTH => Route::Health,
        MODELS => Route::Models,
        BATCH => Route::Batch,
        "/v2" | "/v2/" => Route::ServerMetadata,
        "/v2/health/live" => Route::Live,
        "/v2/health/ready" => Route::Ready,
        _ => {
            let of_model = path.strip_prefix("/v2/models/").ok_or_else(unknown)?;
            let (name, rest) = first_segment(of_model);
            if name.is_empty() {
                return Err(unknown());
            }
            let name = percent_decoded(name, false)?;
            let (version, rest) = match rest.and_then(|rest| rest.strip_prefix("versions/")) {
                Some(rest) => {
                    let (version, rest) = first_segment(rest);
                    (Some(percent_decoded(version, false)?), rest)
                }
                None => (None, rest),
            };
            match rest {
                None => Route::Model { name, version },
                Some("ready") => Route::ModelReady { name, version },
                Some("infer") => Route::ModelInfer { name, version },
                Some(_) => return Err(unknown()),
            }
        }
    })
}

/// What stands before the first slash, and what after it.
fn first_segment(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    }
}

/// The value of a parameter in a path's query, percent-decoded.
///
/// # Errors
/// 400 where an escape is broken, or the parameter is there twice.
pub fn query_value<'a>(path: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Problem> {
    let Some((_, query)) = path.split_once('?') else {
        return Ok(None);
    };
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decoded(key, true)? == name
            && found.replace(percent_decoded(value, true)?).is_some()
        {
            let detail = format!("?{name}=: expected it once, found it twice");
            return Err(Problem::not_understood("LETHE-REQUEST", detail));
        }
    }
    Ok(found)
}

/// Text with its escapes (`%2F`) as what they stand for; in a query a `+` is a space.
///
/// # Errors
/// 400 where an escape is broken, or the text is not UTF-8.
pub fn percent_decoded(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, Problem> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let broken = || {
        let detail = format!("{text:?}: expected UTF-8 with escapes of two hexadecimal digits");
        Problem::not_understood("LETHE-REQUEST", detail)
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || {
            let digit = char::from(bytes.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        decoded.push(match byte {
            b'%' => digit()
                .zip(digit())
                .map(|(h, l)| h << 4 | l)
                .ok_or_else(broken)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model<'a>(name: &'a str, version: Option<&'a str>) -> (Cow<'a, str>, Option<Cow<'a, str>>) {
        (name.into(), version.map(Cow::Borrowed))
    }

    #[test]
    fn paths_have_their_routes() {
        let of = |(name, version)| Route::Model { name, version };
        let ready = |(name, version)| Route::ModelReady { name, version };
        let infer = |(name, version)| Route::ModelInfer { name, version };
        let cases = [
            ("GET", "/api/v1/health", Route::Health),
            ("HEAD", "/api/v1/health", Route::Health),
            ("GET", "/api/v1/models?verbose=1", Route::Models),
            ("POST", "/api/v1/infer", Route::Infer),
            ("POST", "/api/v1/infer?model=m", Route::Infer),
            ("POST", "/api/v1/batch", Route::Batch),
            ("GET", "/v2", Route::ServerMetadata),
            ("GET", "/v2/", Route::ServerMetadata),
            ("GET", "/v2/health/live", Route::Live),
            ("HEAD", "/v2/health/ready", Route::Ready),
            ("GET", "/v2/models/m", of(model("m", None))),
            ("GET", "/v2/models/m/versions/1", of(model("m", Some("1")))),
            ("GET", "/v2/models/a%2Fb%20c+d", of(model("a/b c+d", None))),
            ("GET", "/v2/models/%CE%BB", of(model("λ", None))),
            ("GET", "/v2/models/ready", of(model("ready", None))),
            ("GET", "/v2/models/m/ready?x", ready(model("m", None))),
            (
                "GET",
                "/v2/models/versions/versions/9/ready",
                ready(model("versions", Some("9"))),
            ),
            ("POST", "/v2/models/m/infer", infer(model("m", None))),
            (
                "POST",
                "/v2/models/m/versions/1/infer?a=b",
                infer(model("m", Some("1"))),
            ),
        ];
        for (method, path, expected) in cases {
            assert_eq!(route(method, path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn other_paths_and_methods_have_status_and_code() {
        let cases = [
            ("GET", "/", 404, "LETHE-ROUTE"),
            ("GET", "", 404, "LETHE-ROUTE"),
            ("GET", "*", 404, "LETHE-ROUTE"),
            ("GET", "/v2/models", 404, "LETHE-ROUTE"),
            ("GET", "/v2/models/", 404, "LETHE-ROUTE"),
            ("GET", "/v2/models//ready", 404, "LETHE-ROUTE"),
            ("GET", "/v2/models/m/", 404, "LETHE-ROUTE"),
            ("GET", "/v2/models/m/versions", 404, "LETHE-ROUTE"),
            ("GET", "/v2/models/m/ready/x", 404, "LETHE-ROUTE"),
            ("POST", "/v2/models/m/explain", 404, "LETHE-ROUTE"),
            ("GET", "/v2/models/%", 400, "LETHE-REQUEST"),
            ("GET", "/v2/models/%4", 400, "LETHE-REQUEST"),
            ("GET", "/v2/models/%+1", 400, "LETHE-REQUEST"),
            ("GET", "/v2/models/%zz", 400, "LETHE-REQUEST"),
            ("GET", "/v2/models/%ff", 400, "LETHE-REQUEST"),
            ("POST", "/api/v1/models", 405, "LETHE-METHOD"),
            ("GET", "/api/v1/infer", 405, "LETHE-METHOD"),
            ("HEAD", "/api/v1/infer", 405, "LETHE-METHOD"),
            ("get", "/api/v1/health", 405, "LETHE-METHOD"),
            ("POST", "/v2", 405, "LETHE-METHOD"),
            ("GET", "/v2/models/m/infer", 405, "LETHE-METHOD"),
            ("DELETE", "/v2/models/m", 405, "LETHE-METHOD"),
        ];
        for (method, path, status, code) in cases {
            let problem = route(method, path).unwrap_err();
            assert_eq!(
                (problem.status, &*problem.code),
                (status, code),
                "{method} {path}"
            );
        }
        let problem = route("PUT", "/api/v1/health").unwrap_err();
        assert_eq!(problem.detail, "/api/v1/health takes GET, HEAD, not PUT");
        assert_eq!(allowed("/v2/models/m/infer?x=1"), Some("POST"));
        assert_eq!(allowed("/v3"), None);
    }

    #[test]
    fn queries_are_decoded() {
        let cases = [
            ("/p", Ok(None)),
            ("/p?", Ok(None)),
            ("/p?models=x&mode=l", Ok(None)),
            ("/p?model", Ok(Some(""))),
            ("/p?a=b&model=x&models=y", Ok(Some("x"))),
            ("/p?a=b&model=x&model=x", Err(400)),
            ("/p?model=x&mode%6C=y", Err(400)),
            ("/p?m%6Fdel=a+b%3D%26", Ok(Some("a b=&"))),
            ("/p?model=%", Err(400)),
            ("/p?model=%fe%ff", Err(400)),
        ];
        for (path, expected) in cases {
            let found = query_value(path, "model").map_err(|problem| problem.status);
            assert_eq!(
                found,
                expected.map(|value| value.map(Cow::Borrowed)),
                "{path}"
            );
        }
    }
}
