//! Lethe's inference engine: ONNX models in, tensors out, no I/O of its own.
//!
//! ```
//! use lethe_engine::{Session, SessionOptions};
//!
//! let error = Session::load(&b"not a model"[..], &SessionOptions::default()).unwrap_err();
//! assert_eq!(error.code(), "LETHE-MODEL-MALFORMED");
//! ```
//!
//! Modules, each using only those above it: [`tensor`], [`isa`], [`kernels`], [`device`], [`operator`] and
//! [`operators`], [`onnx`], [`graph`], [`rewrite`], [`plan`], [`session`].
#![deny(unsafe_code)]

pub mod device;
pub mod graph;
pub mod onnx;
pub mod operator;
pub mod operators;
pub mod plan;
pub mod rewrite;
pub mod session;

pub use lethe_kernels::{error, isa, kernels, limits, tensor};

pub use error::{Error, NodeName, OpError};
pub use graph::{Dim, Dims, ValueInfo, ValueType};
pub use isa::{Level, Numerics};
pub use kernels::threads::Threads;
pub use operator::InputValue;
pub use session::{Budget, DeviceChoice, Session, SessionOptions, SplitName};
pub use tensor::{DataType, Tensor, Value, ValueKind};
