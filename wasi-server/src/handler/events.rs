//! Answers as server-sent events.
//!
//! ```text
//! event: result                     one for each request, in order: its answer or its problem
//! data: {"model": …}
//!
//! event: done                       nothing more comes
//! data: {"results": 1}
//! ```
//!
//! An event is made when it is asked for, so a door that sends each at once gives the first answer
//! of a batch before the second is computed. Source: <https://html.spec.whatwg.org/#server-sent-events>.

use serde_json::value::RawValue;

use super::http::EVENT_STREAM;
use super::infer::text_only;
use super::routes::{Route, route};
use super::{Exchange, Handler};
use crate::problem::Problem;

/// The events of an answer, as bytes to send.
#[derive(Debug)]
pub struct Events<'a> {
    handler: &'a Handler,
    source: Source<'a>,
    results: usize,
}

#[derive(Debug)]
enum Source<'a> {
    /// An answer that is there already: what is wrong with it has had its status.
    One(bytes::Bytes),
    /// Requests that are still to be answered.
    Many(std::vec::IntoIter<&'a RawValue>),
    /// Nothing but the end.
    End,
    Ended,
}

impl Handler {
    pub(super) fn events_of<'a>(
        &'a self,
        exchange: Exchange<'a>,
    ) -> Option<Result<Events<'a>, Problem>> {
        let request = exchange.request;
        if !request.accepts(EVENT_STREAM) {
            return None;
        }
        let source = match route(request.method, request.path) {
            Ok(Route::Infer) => self
                .infer(&exchange)
                .and_then(|prepared| prepared.answer())
                .and_then(text_only)
                .map(|response| Source::One(response.body)),
            Ok(Route::Batch) => self
                .batch_requests(&exchange)
                .map(|requests| Source::Many(requests.into_iter())),
            _ => return None,
        };
        Some(source.map(|source| Events {
            handler: self,
            source,
            results: 0,
        }))
    }
}

impl Iterator for Events<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let result = match &mut self.source {
            Source::One(_) => match std::mem::replace(&mut self.source, Source::End) {
                Source::One(answer) => Some(answer),
                _ => None,
            },
            Source::Many(requests) => requests
                .next()
                .map(|request| self.handler.answer_one(request)),
            Source::End => None,
            Source::Ended => return None,
        };
        if let Some(result) = result {
            self.results += 1;
            return Some(event("result", &result));
        }
        self.source = Source::Ended;
        Some(event(
            "done",
            format!("{{\"results\":{}}}", self.results).as_bytes(),
        ))
    }
}

/// An event; JSON as it is written here has no line ends, which would end the data.
fn event(name: &str, json: &[u8]) -> Vec<u8> {
    [b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"].concat()
}
