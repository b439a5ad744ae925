//! `wasmtime serve`, as the crate wasmtime-cli has it: a host of components that knows nothing of
//! Lethe, for the tests of bundles.
//!
//! ```text
//! cargo run -p lethe-host --features wasmtime-serve --example wasmtime_serve -- --addr 127.0.0.1:8080 model.wasm
//! ```

use clap::Parser;

fn main() -> wasmtime::Result<()> {
    wasmtime_cli::commands::ServeCommand::parse().execute()
}
