//! The lower half of Lethe's engine: tensors, and the fast loops over them.
//!
//! Modules, each using only those above it: [`limits`], [`error`], [`tensor`], [`isa`],
//! [`kernels`]. It is a crate of
//! its own because it is what takes long to compile: every loop once for each instruction set. A change
//! to an operator compiles none of it. [`lethe-engine`](https://crates.io/crates/lethe-engine) shows all
//! of it under its own name.
#![deny(unsafe_code)]

pub mod error;
pub mod isa;
pub mod kernels;
pub mod limits;
pub mod tensor;

pub use error::{Error, NodeName, OpError};
pub use isa::{Level, Numerics};
pub use kernels::threads::Threads;
pub use tensor::{DataType, Tensor, Value, ValueKind};
