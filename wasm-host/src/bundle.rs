//! Bundles: one WASI 0.2 HTTP component with models frozen into it.
//!
//! ```text
//! models ─► pure cell loads them ─► its memory ─► data section of the guest's component door
//!                                                 └─► component
//! ```
//!
//! The component needs nothing from its host but HTTP, and answers what a sandbox answers. The same
//! models give the same bytes: the guest has no clock, no randomness and no addresses of a host.
//! What it is made of, it says in [`provenance`].

pub mod provenance;

use lethe_engine::Numerics;
use lethe_engine::kernels::env::Env;
use wit_component::ComponentEncoder;

use crate::guest::{Door, GuestBuild, GuestError, Segment, nonzero_runs};
use crate::sandbox::image::{Image, Piece};
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
    /// This program was built without the guest that is asked for.
    #[error("this lethe was built without the guest for relaxed SIMD: build it with `make build`")]
    NoRelaxedGuest,
    /// Something that was taken for a bundle is none.
    #[error("no bundle of Lethe: {reason}")]
    NoBundle {
        /// Why.
        reason: String,
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
            Self::NoRelaxedGuest | Self::NoBundle { .. } | Self::Component { .. } => "LETHE-BUNDLE",
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

/// Zero bytes that are left out of a bundle, at least so many at once.
const ZERO_BYTES: usize = 128;
/// Most pieces of memory in a bundle: engines refuse modules of more than 100,000.
const MOST_SEGMENTS: usize = 50_000;

/// How a bundle is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleOptions {
    /// How exactly results are defined.
    pub numerics: Numerics,
    /// Use relaxed SIMD, which hosts may refuse.
    pub relaxed_simd: bool,
}

impl BundleOptions {
    fn guest(&self) -> GuestBuild {
        match self.relaxed_simd {
            true => GuestBuild::RelaxedSimd,
            false => GuestBuild::Simd128,
        }
    }
}

/// The component that serves `models`.
///
/// # Errors
/// When a model cannot be loaded, or all of them together are more than a module can hold.
pub fn bundle(models: &[ModelSource], options: &BundleOptions) -> Result<Vec<u8>, BundleError> {
    if !options.guest().is_there() {
        return Err(BundleError::NoRelaxedGuest);
    }
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
            numerics: options.numerics,
            ..Env::new()
        },
        guest: options.guest(),
        ..SandboxSettings::default()
    };
    let image = model_image(models, &settings)?;
    let mut join = ZERO_BYTES;
    let mut data = segments(&image, join);
    while data.len() > MOST_SEGMENTS {
        join *= 2;
        data = segments(&image, join);
    }
    let guest = options.guest().guest();
    let module = guest.open(Door::Component, image.memory_bytes(), &data)?;
    let component = ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode());
    let mut component = component.map_err(|error| BundleError::Component {
        reason: format!("{error:#}"),
    })?;
    provenance::append(&mut component, models, image.models(), options)?;
    Ok(component)
}

/// The pieces of an image's memory that are not zero, joined where fewer than `join` zero bytes lie
/// between them.
fn segments(image: &Image, join: usize) -> Vec<Segment<'_>> {
    let of_piece = |&piece: &Piece| {
        let content = image.content(piece);
        let runs = nonzero_runs(content, ZERO_BYTES, join);
        runs.into_iter().map(move |run| Segment {
            address: piece.address + run.start,
            bytes: &content[run],
        })
    };
    image.pieces().iter().flat_map(of_piece).collect()
}
