//! `wasmtime serve` and `wasmtime compile`, as the crate wasmtime-cli has them: a host of components
//! that knows nothing of Lethe, for the tests of bundles.
//!
//! ```text
//! wasmtime_serve --addr 127.0.0.1:8080 model.wasm
//! wasmtime_serve compile model.wasm -o model.cwasm
//! wasmtime_serve --allow-precompiled --addr 127.0.0.1:8080 model.cwasm
//! ```
//!
//! It is built by `cargo build -p lethe-host --features wasmtime-serve --example wasmtime_serve`.

use clap::Parser;
use wasmtime_cli::commands::{CompileCommand, ServeCommand};

fn main() -> wasmtime::Result<()> {
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    let mut rest = arguments.peekable();
    if rest.next_if(|argument| argument == "compile").is_some() {
        return CompileCommand::parse_from(program.into_iter().chain(rest)).execute();
    }
    ServeCommand::parse().execute()
}
