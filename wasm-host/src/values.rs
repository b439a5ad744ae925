//! Values in files: what `run`, `verify` and `bench` read and write.

pub mod elements;
pub mod protobuf;

pub use elements::Elements;
