//! Lethe's inference engine: ONNX models in, tensors out, no I/O of its own.
#![deny(unsafe_code)]

pub mod isa;
pub mod kernels;
