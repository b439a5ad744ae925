//! `lethe serve` with the wipe switched off: no reset of instances, an allocator that leaves what is
//! freed. For the test that shows that the wipe is what erases; it is part of no release.
//!
//! ```text
//! cargo run -p lethe-host --example unwiped_server -- MODEL
//! ```

use std::path::PathBuf;

use lethe_host::serve::Server;
use lethe_host::serve::loaded::{Batching, Loading};
use lethe_host::serve::repository::Repository;
use lethe_host::serve::settings::Given;
use lethe_host::settings::RunSettings;
use lethe_sandbox::WipePolicy;

#[derive(Debug, clap::Parser)]
struct Arguments {
    model: PathBuf,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    run: RunSettings,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { model, given, run } = clap::Parser::parse();
    let mut sandbox = run.sandbox_settings()?;
    sandbox.wipe = WipePolicy {
        enabled: false,
        ..WipePolicy::default()
    };
    let loading = Loading {
        run,
        sandbox,
        max_model_bytes: 1 << 30,
        max_body_bytes: 64 << 20,
        budget: lethe_engine::Budget::default(),
        batching: Batching::default(),
    };
    let repository = Repository::new(&[model], None, 5, loading)?;
    let server = Server::new(&given, repository)?;
    server.repository().load_first()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        server.serve(listener, std::future::pending()).await
    })?;
    Ok(())
}
