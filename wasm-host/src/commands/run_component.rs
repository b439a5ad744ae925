//! `lethe run-component GUEST.wasm`: somebody else's program, with `wasi:nn` from this engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{CommandError, Outcome};
use crate::settings::RunSettings;
use crate::wasi_nn::command::{Command, CommandLimits, Streams};
use crate::wasi_nn::holdings::HoldingLimits;
use crate::wasi_nn::models::Models;
use lethe_sandbox::model_name;

/// Run a WASI 0.2 command component that computes through wasi:nn
#[derive(Debug, clap::Args)]
pub struct RunComponent {
    /// The component
    guest: PathBuf,
    /// A model that the guest may load by name; named after its file where no name is given
    #[arg(long = "model", value_name = "[NAME=]FILE")]
    files: Vec<String>,
    /// Folder of models that the guest may load by name, as for `lethe serve`
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Seconds that the guest may take, waiting and computing
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    time_limit: u64,
    /// Megabytes for the guest's memory, and as much again for what it holds in the host
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    memory_limit: u64,
    /// Arguments of the guest
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

impl RunComponent {
    /// Runs the command; its outcome is the guest's.
    ///
    /// # Errors
    /// When the guest or a model cannot be had, or the guest does not come to its own end.
    pub fn run(&self, settings: &RunSettings) -> Result<Outcome, CommandError> {
        super::check_device(settings)?;
        let guest = self.guest.display().to_string();
        let component = std::fs::read(&self.guest)
            .map_err(|error| CommandError::Request(format!("cannot read {guest}: {error}")))?;
        let memory_bytes = self.memory_limit.saturating_mul(1 << 20);
        let limits = CommandLimits {
            time: Duration::from_secs(self.time_limit),
            memory_bytes,
            holdings: HoldingLimits {
                bytes: memory_bytes,
                ..HoldingLimits::default()
            },
        };
        let files = self.files.iter().map(|file| named(file)).collect();
        let models = Models::new(files, self.models.as_deref(), settings, memory_bytes)
            .map_err(|error| CommandError::Request(error.to_string()))?;
        let mut arguments = vec![guest.clone()];
        arguments.extend_from_slice(&self.arguments);
        let in_guest = |source| CommandError::Component {
            guest: guest.clone(),
            source,
        };
        let ended = Command::new(&component)
            .and_then(|command| {
                command.run_blocking(&arguments, &Streams::Inherited, &Arc::new(models), &limits)
            })
            .map_err(in_guest)?;
        Ok(Outcome::Exit(ended.code))
    }
}

/// A name and its file in `[NAME=]FILE`.
fn named(argument: &str) -> (String, PathBuf) {
    match argument.split_once('=') {
        Some((name, file)) => (name.into(), file.into()),
        None => (model_name(Path::new(argument)), argument.into()),
    }
}
