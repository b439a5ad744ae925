//! Where requests are answered.

use std::sync::atomic::AtomicBool;

use lethe_server::handler::INFER;
use lethe_server::{Handler, ModelInfo, Problem, Request, Response};
use serde::Deserialize;

use crate::sandbox::Sandbox;

/// The models of a server.
#[derive(Debug)]
pub enum Backend {
    /// In this process: no isolation.
    Native(Handler),
    /// Each model in a sandbox; every request in a fresh instance.
    Sandboxes(Vec<Sandbox>),
}

impl Backend {
    /// The models.
    pub(super) fn models(&self) -> impl Iterator<Item = &ModelInfo> {
        let (native, sandboxes) = match self {
            Self::Native(handler) => (handler.models(), &[][..]),
            Self::Sandboxes(sandboxes) => (&[][..], &sandboxes[..]),
        };
        let native = native.iter().map(lethe_server::Model::info);
        native.chain(sandboxes.iter().map(Sandbox::info))
    }

    /// Answers an inference request.
    pub(super) fn infer(
        &self,
        content_type: Option<&str>,
        body: &[u8],
        stop: &AtomicBool,
    ) -> Response {
        let request = Request {
            method: "POST",
            path: INFER,
            content_type,
            accept: None,
            json_bytes: None,
            body,
        };
        match self {
            Self::Native(handler) => handler.handle_until(&request, Some(stop)),
            Self::Sandboxes(sandboxes) => match choose(sandboxes, body) {
                Ok(sandbox) => sandbox.handle(&request),
                Err(problem) => problem.into(),
            },
        }
    }
}

/// The sandbox of the model that a request names.
fn choose<'a>(sandboxes: &'a [Sandbox], body: &[u8]) -> Result<&'a Sandbox, Problem> {
    /// The one field of a request that the host looks at.
    #[derive(Deserialize)]
    struct Named {
        model: String,
    }
    let no_models = || Problem::unknown_model("", std::iter::empty());
    let first = sandboxes.first().ok_or_else(no_models)?;
    if sandboxes.len() == 1 {
        return Ok(first);
    }
    // A body that is no request gets its answer from a guest, which says what is wrong with it.
    let Ok(named) = serde_json::from_slice::<Named>(body) else {
        return Ok(first);
    };
    let found = sandboxes
        .iter()
        .find(|sandbox| sandbox.info().name == named.model);
    found.ok_or_else(|| {
        let names = sandboxes.iter().map(|sandbox| sandbox.info().name.as_str());
        Problem::unknown_model(&named.model, names)
    })
}
