//! The least that `wasi:http/incoming-handler` can be: what a host of components costs without a
//! model, beside which `benches/edge.py` measures bundles.
//!
//! ```sh
//! cargo rustc --profile wasm -p lethe-benches --example hello --target wasm32-unknown-unknown -- \
//!     -Clinker=wasm-component-ld
//! ```
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, clippy::all, reason = "the generated bindings")]

#[rustfmt::skip]
#[path = "../../wasi-server/src/component/bindings.rs"]
mod bindings;

use bindings::exports::wasi::http::incoming_handler::Guest;
use bindings::wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

const ANSWER: &[u8] = b"hello\n";

struct Hello;

impl Guest for Hello {
    fn handle(_: IncomingRequest, response_out: ResponseOutparam) {
        let headers = [
            ("content-type".to_owned(), b"text/plain".to_vec()),
            ("content-length".to_owned(), ANSWER.len().to_string().into()),
        ];
        let headers = Fields::from_list(&headers).expect("plain headers are allowed");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("a new answer's body is taken once");
        ResponseOutparam::set(response_out, Ok(response));
        let Ok(stream) = body.write() else { return };
        // An error here, or at the end, means that the client is gone.
        drop(stream.blocking_write_and_flush(ANSWER));
        drop(stream);
        drop(OutgoingBody::finish(body, None));
    }
}

bindings::export!(Hello with_types_in bindings);
