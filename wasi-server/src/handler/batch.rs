//! Many requests in one: `{"requests": […]}` gives `{"responses": […]}`, in order.
//!
//! Every request has its own answer or [`Problem`]: one that cannot be answered does not sink the
//! others. A request's text is looked into only when its turn has come.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::http::{Response, is_json};
use super::{Exchange, Handler};
use crate::json::not_understood;
use crate::problem::Problem;

/// Most requests in one: a hostile body of many tiny ones has a large answer.
pub const MOST_REQUESTS: usize = 4096;

/// The requests in a batch's body, as texts of JSON.
///
/// # Errors
/// 400 where the body is not JSON or not a batch, 422 where it has more than [`MOST_REQUESTS`].
pub fn requests(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        requests: Requests<'a>,
    }
    let batch: Batch<'_> = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
    let Requests { texts, more } = batch.requests;
    if more > 0 {
        let detail = format!(
            "{} requests: the limit is {MOST_REQUESTS}",
            texts.len() + more
        );
        return Err(Problem::new(422, "LETHE-BATCH-SIZE", detail));
    }
    Ok(texts)
}

/// The first requests, and how many more there are.
struct Requests<'a> {
    texts: Vec<&'a RawValue>,
    more: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Requests<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Requests<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of inference requests")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Requests<'de>, A::Error> {
                let (mut texts, mut more) = (Vec::new(), 0);
                while texts.len() < MOST_REQUESTS
                    && let Some(text) = seq.next_element()?
                {
                    texts.push(text);
                }
                while seq.next_element::<de::IgnoredAny>()?.is_some() {
                    more += 1;
                }
                Ok(Requests { texts, more })
            }
        }
        from.deserialize_seq(Texts)
    }
}

/// Writes the answer to a batch, one answer or problem after the other.
#[derive(Debug)]
pub struct Responses {
    json: Vec<u8>,
    is_empty: bool,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            json: b"{\"responses\":[".to_vec(),
            is_empty: true,
        }
    }
}

impl Responses {
    /// Appends an answer's or a problem's JSON.
    pub fn push(&mut self, json: &[u8]) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.json.push(b',');
        }
        self.json.extend_from_slice(json);
    }

    /// The whole answer.
    pub fn finish(mut self) -> Response {
        self.json.extend_from_slice(b"]}");
        Response::json(self.json)
    }
}

impl Handler {
    /// `POST /api/v1/batch`.
    pub(super) fn batch(&self, exchange: &Exchange<'_>) -> Result<Response, Problem> {
        let mut responses = Responses::default();
        for request in self.batch_requests(exchange)? {
            responses.push(&self.answer_one(request));
        }
        Ok(responses.finish())
    }

    pub(super) fn batch_requests<'a>(
        &self,
        exchange: &Exchange<'a>,
    ) -> Result<Vec<&'a RawValue>, Problem> {
        self.check_body(exchange)?;
        match exchange.request.content_type {
            Some(found) if !is_json(found) => return Err(Problem::media_type(found)),
            _ => {}
        }
        let (json, tail) = exchange.request.split()?;
        if !tail.is_empty() {
            let detail = "a batch is JSON alone: nothing follows it";
            return Err(Problem::not_understood("LETHE-REQUEST", detail));
        }
        requests(json)
    }

    /// The JSON of a request's answer, or of the problem with it.
    pub(super) fn answer_one(&self, request: &RawValue) -> bytes::Bytes {
        match self.infer_json(request.get()) {
            Ok(response) => response.body,
            Err(problem) => problem.to_json().into(),
        }
    }
}
