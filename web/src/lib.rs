//! The engine for JavaScript: the narrow wasm-bindgen interface under the npm package `lethe`.
//!
//! People use the package's `InferenceSession` and `Tensor` (TypeScript, in `web/lib`). This crate
//! is what those two need from WebAssembly and no more: bytes come in piece by piece
//! ([`ModelBytes`]), become a [`Session`], and [`Value`]s go in and out. Loading and running are
//! asynchronous for JavaScript, since a device may have to be waited for; computing on the CPU
//! blocks the thread, which is why the package runs it in a worker.
//!
//! Everything that can fail throws a JavaScript `Error` with the engine's stable `code`.
#![deny(unsafe_code)]

mod failure;
mod model_bytes;
mod session;
mod value;

pub use failure::Failure;
pub use model_bytes::{DecodedModel, ExternalFiles, ModelBytes};
pub use session::{Session, StepPlacement, TimedRun, ValueDescription, version};
pub use value::Value;
