//! Lethe's guest: one request handler, bytes in and bytes out, behind two doors.
//!
//! ```text
//!             ┌─ cell       core wasm module: alloc, load, handle; no WASI      (sandbox host)
//! handler ◄───┼─ component  wasi:http/incoming-handler                          (edge)
//!             └─ library    plain Rust                                          (serve --isolation none)
//! ```
//!
//! The [`Handler`] owns loaded models and answers the REST contract ([`handler`]), reading and
//! writing tensors as the Open Inference Protocol does ([`json`]). The same models answer through
//! [`wire`], a compact binary form in which every ONNX value has a place; the command line uses it
//! to reach a sandbox.
//!
//! Both wasm doors are in one module, compiled once. The host closes the door it does not want by
//! replacing its imports with traps, so every door runs the same machine instructions for the same
//! model, which is what makes answers comparable bit by bit.
#![deny(unsafe_code)]

pub mod handler;
pub mod json;
pub mod message;
pub mod octets;
pub mod problem;
mod together;
pub mod wipe_on_free;
pub mod wire;

#[cfg(any(target_arch = "wasm32", test))]
mod by_size;
#[cfg(target_arch = "wasm32")]
mod cell;
#[cfg(target_arch = "wasm32")]
mod component;
#[cfg(any(target_arch = "wasm32", test))]
mod guest_heap;
#[cfg(target_arch = "wasm32")]
mod load;
#[cfg(target_arch = "wasm32")]
mod native_kernels;

pub use handler::{Handler, Model, ModelInfo, Request, Response, TensorInfo};
pub use problem::Problem;
