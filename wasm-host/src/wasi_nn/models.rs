//! The models that guests can have: named ones of the host, and their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lethe_engine::Budget;
use lethe_server::Problem;

use super::error::NnError;
use super::{ExecutionTarget, GraphEncoding};
use crate::serve::loaded::{Batching, Loaded, Loading};
use crate::serve::repository::Repository;
use crate::settings::{Device, Isolation, RunSettings, SettingsError};

/// Why there are no models to offer.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// A setting cannot be followed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The folder cannot be read, or two models have one name.
    #[error("{0}")]
    Repository(String),
}

/// Models, loaded when a guest asks for them and shared by all that do.
#[derive(Debug)]
pub struct Models {
    repository: Repository,
    loading: Loading,
}

impl Models {
    /// The models in these files under their names, and those in a folder, as `lethe serve` names
    /// them. One model or its run may take `memory_bytes`.
    ///
    /// # Errors
    /// When a setting cannot be followed, the folder cannot be read, or two models have one name.
    pub fn new(
        files: Vec<(String, PathBuf)>,
        folder: Option<&Path>,
        settings: &RunSettings,
        memory_bytes: u64,
    ) -> Result<Self, ModelsError> {
        let mut run = settings.clone();
        run.isolation.get_or_insert(Isolation::None);
        let mut sandbox = run.sandbox_settings()?;
        sandbox.limits.memory_bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        let budget = Budget {
            memory_bytes,
            ..Budget::default()
        };
        let loading = Loading {
            run,
            sandbox,
            // The host's own models are as large as they are; a guest's count as what it holds.
            max_model_bytes: u64::MAX,
            max_body_bytes: 0,
            budget,
            batching: Batching::default(),
        };
        // Models are few, and never unloaded under a guest.
        let repository = Repository::of_named(files, folder, usize::MAX, loading.clone());
        let repository = repository.map_err(ModelsError::Repository)?;
        Ok(Self {
            repository,
            loading,
        })
    }

    /// The names of the models.
    pub fn names(&self) -> Vec<String> {
        self.repository.names()
    }

    /// The model of this name. Blocks while it is loaded.
    ///
    /// # Errors
    /// When there is none, or it cannot be loaded.
    pub fn by_name(&self, name: &str) -> Result<Arc<Loaded>, NnError> {
        // What a guest is told of other models is that there are none of this name.
        let known = self.repository.names().iter().any(|known| known == name);
        if !known {
            let detail = format!("no model is named {name:?}");
            return Err(Problem::new(404, "LETHE-MODEL-UNKNOWN", detail).into());
        }
        Ok(self.repository.get(name)?)
    }

    /// A model that a guest brought. Blocks while it is loaded.
    ///
    /// # Errors
    /// When it cannot be loaded, or not for this device.
    pub fn of_bytes(&self, model: Bytes, target: ExecutionTarget) -> Result<Arc<Loaded>, NnError> {
        let mut loading = self.loading.clone();
        loading.run.device = match target {
            ExecutionTarget::Cpu => Device::Cpu,
            ExecutionTarget::Gpu => Device::Webgpu,
            ExecutionTarget::Tpu => return Err(NnError::Target),
        };
        loading.run.device_choice()?;
        if loading.run.device != Device::Cpu && loading.run.isolation == Some(Isolation::Sandbox) {
            return Err(SettingsError::NoDevice {
                device: loading.run.device,
                reason: "it cannot be reached from a sandbox".into(),
            }
            .into());
        }
        Ok(Arc::new(Loaded::load_bytes("", model, &loading)?))
    }
}

/// The model among the buffers that a guest gave, if its format is ONNX.
///
/// # Errors
/// When the format is another, or the model is in several pieces or in none.
pub(super) fn model_in(builder: Vec<Vec<u8>>, encoding: GraphEncoding) -> Result<Vec<u8>, NnError> {
    match encoding {
        GraphEncoding::Onnx | GraphEncoding::Autodetect => {}
        GraphEncoding::Openvino
        | GraphEncoding::Tensorflow
        | GraphEncoding::Pytorch
        | GraphEncoding::Tensorflowlite
        | GraphEncoding::Ggml => return Err(NnError::Encoding { found: encoding }),
    }
    let found = builder.len();
    let mut buffers = builder.into_iter();
    match (buffers.next(), buffers.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(NnError::Buffers { found }),
    }
}
