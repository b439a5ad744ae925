//! The commands of the binary `lethe`.
//!
//! Each command is a struct of its arguments with a function `run`. What it has to say goes to the
//! standard output: text for people, or one JSON document with `--json`. Progress and errors go to
//! the standard error.

pub mod audit;
pub mod bench;
pub mod bundle;
pub mod inspect;
pub mod keys;
pub mod prepare;
pub mod run;
pub mod run_component;
pub mod serve;
pub mod verify;
pub mod verify_receipt;

use std::path::{Path, PathBuf};
use std::time::Instant;

use lethe_engine::limits::{self, Limits};
use lethe_engine::onnx::proto;
use lethe_engine::{Numerics, Session};

use crate::runner::{Runner, RunnerError, SandboxRunner};
use crate::settings::{Device, Isolation, RunSettings, SettingsError};
use crate::tenants::keys::KeyFileError;
use crate::values::ValueError;
use crate::verification;
use crate::wasi_nn::command::CommandRunError;
use lethe_sandbox::model_file::{ModelFile, ModelFileError};
use lethe_sandbox::{ModelSource, Sandbox, SandboxError, SandboxSettings, deadline, model_name};

/// How a command that could be carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is yes: exit code 0.
    Good,
    /// The answer is no, such as a failed test: exit code 1.
    Bad,
    /// Another program was run, and this is its exit code.
    Exit(u8),
}

/// A command that could not be carried out: exit code 2 and one line.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The model file cannot be read.
    #[error(transparent)]
    ModelFile(#[from] ModelFileError),
    /// The model cannot be loaded or run.
    #[error("{}: {source} [{}]", model, source.code())]
    Model {
        /// Which one.
        model: String,
        /// What is wrong.
        source: RunnerError,
    },
    /// The model cannot be put into a sandbox.
    #[error("{}: {source} [{}]", model, source.code())]
    Sandbox {
        /// Which one.
        model: String,
        /// What is wrong.
        source: SandboxError,
    },
    /// A component did not come to its own end.
    #[error("{guest}: {source} [{}]", source.code())]
    Component {
        /// Which one.
        guest: String,
        /// What is wrong.
        source: CommandRunError,
    },
    /// An input cannot be read.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A test folder cannot be used.
    #[error(transparent)]
    Test(#[from] verification::Failure),
    /// A setting cannot be followed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file of keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// Nothing can be written to the standard output.
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] std::io::Error),
    /// The arguments ask for what cannot be had.
    #[error("{0}")]
    Request(String),
}

/// Does the work of a command, whose runs in this process end when its time is up.
///
/// # Errors
/// Those of the command.
pub fn in_time(
    settings: &RunSettings,
    work: impl FnOnce() -> Result<Outcome, CommandError>,
) -> Result<Outcome, CommandError> {
    let limits = Limits {
        memory_bytes: u64::MAX,
        stop: deadline::stop_at(Instant::now() + settings.timeout()),
    };
    let (done, is_late) = limits::within(limits, || (work(), limits::is_stopped()));
    match is_late && done.is_err() {
        true => Err(took_longer(settings)),
        false => done,
    }
}

fn took_longer(settings: &RunSettings) -> CommandError {
    let timeout = settings.timeout();
    CommandError::Request(format!("it took longer than {timeout:?} [LETHE-DEADLINE]"))
}

/// Settings of a sandbox whose loading ends with the command's time too: a model can compute while it is
/// loaded, and for ever.
fn sandbox_settings(settings: &RunSettings) -> Result<SandboxSettings, SettingsError> {
    Ok(SandboxSettings {
        load_deadline: settings.timeout(),
        ..settings.sandbox_settings()?
    })
}

/// A model that is ready to run.
struct Loaded {
    path: PathBuf,
    runner: Box<dyn Runner>,
}

impl Loaded {
    /// Loads the model at `path` the way the settings say.
    fn open(path: &Path, settings: &RunSettings) -> Result<Self, CommandError> {
        let file = ModelFile::open(path)?;
        let model = file
            .decode()
            .map_err(|source| in_model(path, source.into()))?;
        Ok(Self {
            path: path.into(),
            runner: load(path, &file, &model, settings)?,
        })
    }

    /// Says that an error is about this model.
    fn in_model(&self, source: RunnerError) -> CommandError {
        in_model(&self.path, source)
    }
}

/// Loads a model the way the settings say.
fn load(
    path: &Path,
    file: &ModelFile,
    model: &proto::Model,
    settings: &RunSettings,
) -> Result<Box<dyn Runner>, CommandError> {
    check_device(settings)?;
    match settings.isolation.unwrap_or(Isolation::None) {
        Isolation::None => Ok(Box::new(load_session(path, file, model, settings)?)),
        Isolation::Sandbox => {
            // The command's time may be up before the next of several models.
            if limits::is_stopped() {
                return Err(took_longer(settings));
            }
            let settings = sandbox_settings(settings)?;
            let sandbox = ModelSource::of_file(model_name(path), file)
                .and_then(|source| Sandbox::new(&source, &settings))
                .map_err(|source| in_sandbox(path, source))?;
            Ok(Box::new(SandboxRunner::new(sandbox)))
        }
    }
}

/// Loads a model into a session in this process.
fn load_session(
    path: &Path,
    file: &ModelFile,
    model: &proto::Model,
    settings: &RunSettings,
) -> Result<Session, CommandError> {
    let options = settings.session_options(file)?;
    Session::from_model(model, &options).map_err(|source| in_model(path, source.into()))
}

/// Says which model an error is about.
fn in_model(path: &Path, source: RunnerError) -> CommandError {
    CommandError::Model {
        model: path.display().to_string(),
        source,
    }
}

/// Says which model could not be put into a sandbox.
fn in_sandbox(path: &Path, source: SandboxError) -> CommandError {
    CommandError::Sandbox {
        model: path.display().to_string(),
        source,
    }
}

/// Whether the device asked for is there. A sandbox has no other than the processor.
fn check_device(settings: &RunSettings) -> Result<(), CommandError> {
    let sandboxed = settings.isolation == Some(Isolation::Sandbox);
    if sandboxed && settings.device != Device::Cpu {
        return Err(CommandError::Request(format!(
            "device {} cannot be reached from a sandbox: run with --isolation none",
            settings.device
        )));
    }
    if settings.numerics.0 == Numerics::Reproducible && settings.device != Device::Cpu {
        return Err(CommandError::Request(format!(
            "device {} does not give reproducible results, the cpu does",
            settings.device
        )));
    }
    settings.device_choice()?;
    Ok(())
}
