//! Bundles: one WASI 0.2 HTTP component with models frozen into it.
//!
//! ```text
//! models ─► pure cell loads them ─► its memory ─► data section of the guest's component door
//!                                                 └─► component
//! ```
//!
//! The component needs nothing from its host but HTTP, and answers what a sandbox answers. The same
//! models give the same bytes: the guest has no clock, no randomness and no addresses of a host.

use lethe_engine::Numerics;
use lethe_engine::kernels::env::Env;
use wit_component::ComponentEncoder;

use crate::guest::{Door, GUEST, GuestError, Segment, nonzero_runs};
use crate::sandbox::{ModelSource, SandboxError, SandboxSettings, model_image};

/// Why a bundle could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The models could not be loaded.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Two models have one name.
    #[error("two models are named {name:?}")]
    SameName {
        /// The name.
        name: String,
    },
    /// The component could not be put together.
    #[error("cannot put the component together: {reason}")]
    Component {
        /// Why.
        reason: String,
    },
}

impl BundleError {
    /// A stable code that every door shows.
    pub fn code(&self) -> &str {
        match self {
            Self::Sandbox(error) => error.code(),
            Self::SameName { .. } => "LETHE-MODEL-NAME",
            Self::Component { .. } => "LETHE-BUNDLE",
        }
    }
}

impl From<GuestError> for BundleError {
    fn from(error: GuestError) -> Self {
        Self::Component {
            reason: error.to_string(),
        }
    }
}

/// Pages that are zero and at least this long are left out of a bundle.
const ZERO_BYTES: usize = 128;

/// The component that serves `models`.
///
/// # Errors
/// When a model cannot be loaded, or all of them together are more than a module can hold.
pub fn bundle(models: &[ModelSource], numerics: Numerics) -> Result<Vec<u8>, BundleError> {
    for (i, model) in models.iter().enumerate() {
        if models[..i].iter().any(|other| other.name == model.name) {
            return Err(BundleError::SameName {
                name: model.name.clone(),
            });
        }
    }
    let settings = SandboxSettings {
        native_kernels: false,
        env: Env {
            numerics,
            ..Env::new()
        },
        ..SandboxSettings::default()
    };
    let image = model_image(models, &settings)?;
    let mut data = Vec::new();
    for &piece in image.pieces() {
        let content = image.content(piece);
        let runs = nonzero_runs(content, ZERO_BYTES, ZERO_BYTES);
        data.extend(runs.into_iter().map(|run| Segment {
            address: piece.address + run.start,
            bytes: &content[run],
        }));
    }
    let module = GUEST.open(Door::Component, image.memory_bytes(), &data)?;
    let component = ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode());
    component.map_err(|error| BundleError::Component {
        reason: format!("{error:#}"),
    })
}
