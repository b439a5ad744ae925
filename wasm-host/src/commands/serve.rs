//! `lethe serve MODEL…`: answers over HTTP until it is told to stop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lethe_engine::Session;
use lethe_server::{Handler, Model};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, Outcome};
use crate::model_file::ModelFile;
use crate::sandbox::{ModelSource, Sandbox, model_name};
use crate::serve::{Backend, ServeLimits, serve};
use crate::settings::{Isolation, RunSettings};

/// Serve models over HTTP, every request in a fresh sandbox
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Model files; each is named after its file, or its folder for model.onnx
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// A folder whose .onnx files, and folders with a model.onnx, are served too
    #[arg(long = "models", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 for any free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Largest body of a request, in MiB
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    max_body_mb: u64,
    /// Longest time for a request, in milliseconds
    #[arg(long, default_value_t = 30_000, value_name = "MS")]
    request_timeout_ms: u64,
}

impl Serve {
    /// Runs the command until SIGTERM or an interrupt, then finishes the requests that have begun.
    ///
    /// # Errors
    /// When a model cannot be loaded or the address cannot be had.
    pub fn run(&self, settings: &RunSettings) -> Result<Outcome, CommandError> {
        super::check_device(settings)?;
        let limits = ServeLimits {
            body_bytes: self.max_body_mb << 20,
            request_timeout: Duration::from_millis(self.request_timeout_ms),
        };
        let backend = self.backend(settings, &limits)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let address = SocketAddr::new(self.host, self.port);
            let listener = TcpListener::bind(address).await.map_err(|error| {
                CommandError::Request(format!("cannot listen on {address}: {error}"))
            })?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            println!("listening on http://{}", listener.local_addr()?);
            let stop = async move {
                tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            };
            serve(listener, backend, limits, stop).await?;
            Ok(Outcome::Good)
        })
    }

    fn backend(
        &self,
        settings: &RunSettings,
        limits: &ServeLimits,
    ) -> Result<Backend, CommandError> {
        let paths = self.paths()?;
        let names: Vec<String> = paths.iter().map(|path| model_name(path)).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                return Err(CommandError::Request(format!(
                    "two models are named {name:?}"
                )));
            }
        }
        match settings.isolation.unwrap_or(Isolation::Sandbox) {
            Isolation::None => {
                let models = paths.iter().zip(names).map(|(path, name)| {
                    let file = ModelFile::open(path)?;
                    let options = settings.session_options(&file)?;
                    let session = Session::load(file.bytes().clone(), &options)
                        .map_err(|source| super::in_model(path, source.into()))?;
                    Ok(Model::new(name, session))
                });
                let models = models.collect::<Result<_, CommandError>>()?;
                Ok(Backend::Native(Handler::new(models, limits.body_bytes)))
            }
            Isolation::Sandbox => {
                let mut sandbox_settings = settings.sandbox_settings()?;
                sandbox_settings.limits.deadline = limits.request_timeout;
                let sandboxes = paths.iter().zip(names).map(|(path, name)| {
                    let file = ModelFile::open(path)?;
                    let sandbox = ModelSource::of_file(name, &file)
                        .and_then(|source| Sandbox::new(&source, &sandbox_settings));
                    sandbox.map_err(|source| super::in_sandbox(path, source))
                });
                Ok(Backend::Sandboxes(
                    sandboxes.collect::<Result<_, CommandError>>()?,
                ))
            }
        }
    }

    /// The models given by name, then those in the folder.
    fn paths(&self) -> Result<Vec<PathBuf>, CommandError> {
        let mut paths = self.models.clone();
        if let Some(folder) = &self.folder {
            let unreadable = |error: std::io::Error| {
                CommandError::Request(format!("cannot read {}: {error}", folder.display()))
            };
            let mut found = Vec::new();
            for entry in std::fs::read_dir(folder).map_err(unreadable)? {
                found.extend(model_in(&entry.map_err(unreadable)?.path()));
            }
            found.sort();
            paths.extend(found);
        }
        if paths.is_empty() {
            return Err(CommandError::Request(
                "no models: name files, or --models DIR".into(),
            ));
        }
        Ok(paths)
    }
}

/// The model that an entry of a folder is or holds.
fn model_in(path: &Path) -> Option<PathBuf> {
    let inner = path.join("model.onnx");
    if inner.is_file() {
        return Some(inner);
    }
    let is_model = path.is_file() && path.extension().is_some_and(|e| e == "onnx");
    is_model.then(|| path.to_path_buf())
}
