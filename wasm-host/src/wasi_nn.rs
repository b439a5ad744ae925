//! `wasi:nn` for other people's components, backed by this engine.
//!
//! ```text
//! guest ─ wasi:nn ─► interfaces ─► models ─► engine in this process, or a sandbox around it
//!                       │
//!                       └─ holdings: what the guest has in the host, and may have
//! ```
//!
//! - [`models`]: models by name, as `lethe serve` finds them, and models that a guest brings.
//! - [`interfaces`]: the functions that guests call. The declarations are in `wit/nn.wit`.
//! - [`holdings`]: how many graphs, contexts, tensors and bytes a guest holds.
//! - [`error`]: what guests are told.
//! - [`command`]: a WASI 0.2 command with these interfaces.
//!
//! A guest's mistake is an error that it can read. What `wasi:nn` has no words for, such as more
//! tensors than allowed, ends the guest. Loading and computing are done on threads of their own, so
//! that a guest's time is up wherever it spends it.

pub mod command;
pub mod error;
pub mod holdings;
pub mod interfaces;
pub mod models;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "the generated bindings of the component model"
)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "ml",
        imports: {
            "wasi:nn/graph.load": async | trappable,
            "wasi:nn/graph.load-by-name": async | trappable,
            "wasi:nn/inference.[method]graph-execution-context.compute": async | trappable,
            default: trappable,
        },
        with: {
            "wasi:nn/errors.error": crate::wasi_nn::error::NnError,
            "wasi:nn/graph.graph": crate::wasi_nn::interfaces::Graph,
            "wasi:nn/inference.graph-execution-context": crate::wasi_nn::interfaces::Context,
            "wasi:nn/tensor.tensor": crate::wasi_nn::interfaces::Tensor,
        },
    });
}

pub use bindings::wasi::nn::errors::ErrorCode;
pub use bindings::wasi::nn::graph::{ExecutionTarget, GraphEncoding};
pub use bindings::wasi::nn::tensor::TensorType;
