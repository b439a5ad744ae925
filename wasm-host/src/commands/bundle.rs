//! `lethe bundle MODEL… -o FILE`: one component that any WASI HTTP host serves.

use std::io::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{CommandError, Outcome};
use crate::bundle::{BundleOptions, OperatorSet, bundle};
use crate::settings::RunSettings;
use lethe_sandbox::hex;
use lethe_sandbox::model_file::ModelFile;
use lethe_sandbox::{ModelSource, model_name};

/// Freeze models into one WASI HTTP component
#[derive(Debug, clap::Args)]
pub struct Bundle {
    /// Model files; each is named after its file, or its folder for model.onnx
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Where the component goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Use relaxed SIMD: faster where the host lets it in, refused elsewhere
    #[arg(long)]
    relaxed_simd: bool,
    /// Operators whose code goes into it: those that the models use, or all
    #[arg(long, value_enum, default_value_t, value_name = "SET")]
    operators: OperatorSet,
}

#[derive(Debug, serde::Serialize)]
struct Report<'a> {
    output: &'a PathBuf,
    models: Vec<&'a str>,
    bytes: usize,
    sha256: String,
}

impl Bundle {
    /// Runs the command.
    ///
    /// # Errors
    /// When a model cannot be loaded or the file cannot be written.
    pub fn run(&self, settings: &RunSettings, json: bool) -> Result<Outcome, CommandError> {
        let mut sources = Vec::with_capacity(self.models.len());
        for path in &self.models {
            let file = ModelFile::open(path)?;
            let source = ModelSource::of_file(model_name(path), &file);
            sources.push(source.map_err(|source| super::in_sandbox(path, source))?);
        }
        let options = BundleOptions {
            numerics: settings.numerics.0,
            relaxed_simd: self.relaxed_simd,
            operators: self.operators,
            load_deadline: settings.timeout(),
        };
        let component = bundle(&sources, &options)
            .map_err(|error| CommandError::Request(format!("{error} [{}]", error.code())))?;
        // Whole or not at all: a server may be reading the old file.
        let temporary = self.output.with_extension("tmp");
        std::fs::write(&temporary, &component)
            .and_then(|()| std::fs::rename(&temporary, &self.output))
            .map_err(|error| {
                let output = self.output.display();
                CommandError::Request(format!("cannot write {output}: {error}"))
            })?;
        let report = Report {
            output: &self.output,
            models: sources.iter().map(|source| source.name.as_str()).collect(),
            bytes: component.len(),
            sha256: hex::encode(Sha256::digest(&component)),
        };
        let mut out = std::io::stdout().lock();
        if json {
            let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
        } else {
            let models = report.models.join(", ");
            writeln!(out, "{} with {models}", self.output.display())?;
            writeln!(out, "{} bytes, sha256 {}", report.bytes, report.sha256)?;
        }
        Ok(Outcome::Good)
    }
}
