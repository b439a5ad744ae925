//! `lethe serve MODEL…`: answers over HTTP until it is told to stop.

mod confinement;
mod telemetry;

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, Outcome};
use crate::code_pages::CodePages;
use crate::serve::Server;
use crate::serve::loaded::Loading;
use crate::serve::repository::Repository;
use crate::serve::settings::{self, Given};
use crate::settings::{Device, Isolation, RunSettings};

/// Serve models over HTTP and gRPC, every request in a fresh sandbox
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Model files; each is named after its file, or its folder for model.onnx
    #[arg(value_name = "MODEL")]
    files: Vec<PathBuf>,
    /// File of settings (TOML)
    #[arg(long, value_name = "FILE", env = "LETHE_CONFIG")]
    config: Option<PathBuf>,
    /// Print the page of all settings and end
    #[arg(long)]
    print_settings: bool,
    #[command(flatten)]
    given: Given,
}

impl Serve {
    /// Runs the command until SIGTERM or an interrupt, then finishes the requests that have begun.
    ///
    /// # Errors
    /// When a setting cannot be followed, a model cannot be loaded or the address cannot be had.
    pub fn run(&self, settings: &RunSettings) -> Result<Outcome, CommandError> {
        if self.print_settings {
            print!("{}", settings::reference());
            return Ok(Outcome::Good);
        }
        let given = self.given()?;
        let code = CodePages::open();
        // Before there are threads, which would keep their rights.
        let hardening = match given.confine.unwrap_or(true) {
            true => Some(
                confinement::confine(&given, &self.files, self.config.as_deref())
                    .map_err(request)?,
            ),
            false => None,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let _telemetry = {
            let _inside = runtime.enter();
            telemetry::start(&given).map_err(request)?
        };
        if let Some(hardening) = hardening {
            tracing::info!(?hardening, "rights that are not needed were given up");
        }
        if crate::harden::runs_as_root() {
            tracing::warn!("running as root, which no server needs");
        }
        let server = self.server(&given, settings)?;
        server.repository().load_first().map_err(request)?;
        let given_back = code.map_or(0, CodePages::give_back);
        tracing::debug!(given_back, "bytes of code that only the start needed");
        let served = runtime.block_on(self.listen(server, &given));
        // What was cut off when the drain's time was over is not waited for.
        runtime.shutdown_background();
        served
    }

    /// What was said by flag, environment and file.
    fn given(&self) -> Result<Given, CommandError> {
        let flags = self.given.clone();
        match &self.config {
            Some(path) => Ok(flags.or(settings::read(path).map_err(request)?)),
            None => Ok(flags),
        }
    }

    fn server(
        &self,
        given: &Given,
        run: &RunSettings,
    ) -> Result<std::sync::Arc<Server>, CommandError> {
        let mut run = run.clone();
        let isolation = *run.isolation.get_or_insert(Isolation::Sandbox);
        if given.enable_gpu == Some(true) {
            run.device = Device::Webgpu;
        }
        // Requests run side by side: threads in each are for those who ask for them.
        let one = std::num::NonZeroUsize::MIN;
        run.threads = run
            .threads
            .or(given.cpu_threads.and_then(std::num::NonZeroUsize::new))
            .or(Some(one));
        super::check_device(&run)?;
        let limits = given.with_defaults().map_err(request)?;
        if limits.graph.quantization && run.device != Device::Cpu {
            let device = run.device;
            return Err(request(format!(
                "enable_quantization is for the cpu: on {device} weights stay as they are"
            )));
        }
        run.limit_gpu_memory(limits.gpu_memory_bytes)?;
        let mut sandbox = run.sandbox_settings()?;
        sandbox.limits.deadline = limits.request_timeout;
        sandbox.load_deadline = limits.load_timeout;
        sandbox.limits.instances = limits.max_running;
        sandbox.graph = limits.graph;
        // For several models the whole code is made sooner than a part for each.
        sandbox.quick_start = self.files.len() == 1 && given.models.is_none();
        let budget = run.budget();
        let loading = Loading {
            run,
            sandbox,
            max_model_bytes: limits.max_model_bytes,
            max_body_bytes: limits.max_body_bytes,
            budget,
            batching: limits.batching.clone(),
        };
        let folder = given.models.as_deref();
        let repository = Repository::new(&self.files, folder, limits.model_cache_size, loading);
        let repository = repository.map_err(request)?;
        if repository.names().is_empty() && folder.is_none() {
            return Err(request("no models: name files, or --models DIR"));
        }
        if isolation == Isolation::None {
            tracing::warn!("--isolation none: requests share one address space");
        }
        Server::new(given, repository).map_err(request)
    }

    async fn listen(
        &self,
        server: std::sync::Arc<Server>,
        given: &Given,
    ) -> Result<Outcome, CommandError> {
        let limits = given.with_defaults().map_err(request)?;
        let address = SocketAddr::new(limits.host, limits.port);
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| request(format!("cannot listen on {address}: {error}")))?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let scheme = if given.tls_cert.is_some() {
            "https"
        } else {
            "http"
        };
        let mut said = format!("listening on {scheme}://{}\n", listener.local_addr()?);
        if let Some(token) = server.control_token() {
            said += "to load and unload models: Authorization: Bearer ";
            said += token.as_str();
            said.push('\n');
        }
        // At once, and whoever started it may not listen: it serves all the same.
        drop(std::io::Write::write_all(
            &mut std::io::stdout(),
            said.as_bytes(),
        ));
        let (reloading, serve) = (server.clone(), self.clone_for_reload());
        let reload = tokio::spawn(async move {
            while hang_up.recv().await.is_some() {
                match serve.given() {
                    Ok(given) => reloading.reload(&given),
                    Err(error) => tracing::error!(%error, "the settings read before stay"),
                }
            }
        });
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        };
        server.serve(listener, stop).await?;
        reload.abort();
        Ok(Outcome::Good)
    }

    /// What is needed to read the settings again.
    fn clone_for_reload(&self) -> Self {
        Self {
            files: Vec::new(),
            config: self.config.clone(),
            print_settings: false,
            given: self.given.clone(),
        }
    }
}

fn request(error: impl std::fmt::Display) -> CommandError {
    CommandError::Request(error.to_string())
}
