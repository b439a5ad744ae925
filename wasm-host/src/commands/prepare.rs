//! `lethe prepare [MODEL…]`: fills the cache, so that the first start is as quick as any other.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use super::{CommandError, Outcome};
use crate::settings::RunSettings;
use lethe_sandbox::model_file::ModelFile;
use lethe_sandbox::{ModelSource, Sandbox, SandboxError, model_name};

/// Fill the cache: compile the sandbox's code for this machine, and load models into it
#[derive(Debug, clap::Args)]
pub struct Prepare {
    /// Model files that a server will be started with
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    cache: PathBuf,
    code_ms: u64,
    models: Vec<Prepared>,
}

#[derive(Debug, serde::Serialize)]
struct Prepared {
    name: String,
    image_bytes: usize,
    ms: u64,
}

impl Prepare {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no folder for a cache, or a model cannot be loaded.
    pub fn run(&self, settings: &RunSettings, json: bool) -> Result<Outcome, CommandError> {
        let settings = super::sandbox_settings(settings)?;
        let Some(cache) = settings.cache.clone() else {
            let reason = "no folder for a cache: set LETHE_CACHE_DIR";
            return Err(CommandError::Request(reason.into()));
        };
        let begun = Instant::now();
        let in_guest =
            |error: SandboxError| CommandError::Request(format!("{error} [{}]", error.code()));
        lethe_sandbox::compile_guest(&settings).map_err(in_guest)?;
        let mut report = Report {
            cache,
            code_ms: begun.elapsed().as_millis() as u64,
            models: Vec::with_capacity(self.models.len()),
        };
        for path in &self.models {
            let begun = Instant::now();
            let in_sandbox = |source| super::in_sandbox(path, source);
            let file = ModelFile::open(path)?;
            let name = model_name(path);
            let source = ModelSource::of_file(&name, &file).map_err(in_sandbox)?;
            let loaded = Sandbox::new(&source, &settings).map_err(in_sandbox)?;
            report.models.push(Prepared {
                name,
                image_bytes: loaded.memory_bytes().1,
                ms: begun.elapsed().as_millis() as u64,
            });
        }
        let mut out = std::io::stdout().lock();
        if json {
            let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
            return Ok(Outcome::Good);
        }
        writeln!(out, "{}", report.cache.display())?;
        writeln!(out, "code for this machine: {} ms", report.code_ms)?;
        for model in &report.models {
            let (name, bytes, ms) = (&model.name, model.image_bytes, model.ms);
            writeln!(out, "{name}: image of {bytes} bytes, {ms} ms")?;
        }
        Ok(Outcome::Good)
    }
}
