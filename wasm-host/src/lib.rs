//! Lethe's host: the command line, the server and the maker of bundles, over [`lethe_sandbox`].
//!
//! | module | what it is |
//! | --- | --- |
//! | [`values`] | tensors and other values in files |
//! | [`settings`] | flags that say how to run |
//! | [`progress`] | bars on a terminal |
//! | [`runner`] | one face for the engine in this process and in a sandbox |
//! | [`serve`] | the server: REST, gRPC, WebSocket |
//! | [`bundle`] | components for the edge with models frozen in |
//! | [`tenants`] | who asks, what they may use, whose turn it is |
//! | [`audit`] | who asked what, in a log that shows what was done to it |
//! | [`signing`] | keys of the server that sign |
//! | [`receipt`] | signed statements about answers, confirmed by running again |
//! | `harden` | what a server gives up once it is ready (Linux) |
//! | [`wasi_nn`] | `wasi:nn` for other people's components |
//! | [`verification`] | comparing with expected outputs |
//! | [`commands`] | the commands of the binary `lethe` |
#![deny(unsafe_code)]
// Futures of the server hold models, whose types are deep where a GPU is among them.
#![recursion_limit = "256"]

pub mod audit;
pub mod bundle;
mod code_pages;
pub mod commands;
#[cfg(target_os = "linux")]
pub mod harden;
mod machine;
mod private_file;
pub mod progress;
pub mod receipt;
pub mod runner;
pub mod serve;
pub mod settings;
pub mod signing;
pub mod tenants;
mod timestamp;
pub mod values;
pub mod verification;
pub mod wasi_nn;
