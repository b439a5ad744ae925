//! The cell's door: a core wasm module without WASI.
//!
//! ```text
//! host                                   guest
//! lethe_alloc(len) ───────────────────►  room for a message; its address
//! (writes the message there)
//! lethe_load() or lethe_handle() ─────►  reads the message, leaves an answer; its address and length
//! (reads the answer)
//! ```
//!
//! `lethe_load` is called once a model, before the memory is frozen into an image; every request then gets
//! a fresh instance of that image and one `lethe_handle`. Messages are [`crate::message`]'s.
#![allow(
    unsafe_code,
    reason = "exports carry names without mangling, which Rust counts as unsafe"
)]

use std::cell::RefCell;

use bytes::Bytes;
use lethe_engine::tensor::Buffer;

use crate::handler::Handler;
use crate::load::HEAP;
use crate::message::{Answer, Call};
use crate::problem::Problem;

/// What lives between the calls of the host; a cell has one thread.
struct State {
    request: Option<Buffer>,
    answer: Vec<u8>,
    handler: Option<Handler>,
}

thread_local! {
    static STATE: RefCell<State> =
        const { RefCell::new(State { request: None, answer: Vec::new(), handler: None }) };
}

/// A buffer whose memory `Bytes` can share.
struct Message(Buffer);

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Makes room for a message of `len` bytes and gives its address, a multiple of 64.
#[unsafe(no_mangle)]
extern "C" fn lethe_alloc(len: u32) -> u32 {
    STATE.with_borrow_mut(|state| {
        // The host has read the last answer; without it there is nothing on the desk.
        state.answer = Vec::new();
        if state.handler.is_some() {
            HEAP.begin_request();
        }
        let buffer = state.request.insert(Buffer::zeroed(len as usize));
        buffer.as_ptr().addr() as u32
    })
}

/// Loads the model of the [`Load`](crate::message::Load) message that the host has written, beside
/// those loaded before.
#[unsafe(no_mangle)]
extern "C" fn lethe_load() -> u64 {
    let answer = take_request().and_then(|message| {
        let loaded = crate::load::load(message)?;
        let info = loaded.info().clone();
        STATE.with_borrow_mut(|state| {
            // The host has checked the body's size: it wrote the body.
            let handler = state
                .handler
                .get_or_insert_with(|| Handler::new(Vec::new(), u64::MAX));
            handler.add(loaded);
        });
        Ok(Answer::Loaded(info))
    });
    leave(answer, &[])
}

/// Answers the [`Call`] message that the host has written.
#[unsafe(no_mangle)]
extern "C" fn lethe_handle() -> u64 {
    let answer = take_request().and_then(|message| {
        let call = Call::decode(message)?;
        with_handler(|handler| handler.answer_call(&call))
    });
    let notes = with_handler(|handler| Ok(handler.notes())).unwrap_or_default();
    leave(answer, &notes)
}

/// Calls `f` with the handler of the loaded model.
pub(crate) fn with_handler<T>(
    f: impl FnOnce(&Handler) -> Result<T, Problem>,
) -> Result<T, Problem> {
    STATE.with_borrow(|state| f(state.handler.as_ref().ok_or_else(Problem::no_model)?))
}

fn take_request() -> Result<Bytes, Problem> {
    let request = STATE.with_borrow_mut(|state| state.request.take());
    let request = request.ok_or_else(|| Problem::new(500, "LETHE-IMAGE", "no message"))?;
    Ok(Bytes::from_owner(Message(request)))
}

/// Keeps the answer for the host to read: its address in the upper half, its length in the lower.
fn leave(answer: Result<Answer, Problem>, notes: &[String]) -> u64 {
    let answer = answer.unwrap_or_else(Answer::Problem);
    let bytes = answer.encode_noted(notes);
    let place = (bytes.as_ptr().addr() as u64) << 32 | bytes.len() as u64;
    STATE.with_borrow_mut(|state| state.answer = bytes);
    place
}
