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

use std::ops::Range;
use std::time::Duration;

use lethe_engine::Numerics;
use lethe_engine::kernels::env::Env;
use serde::{Deserialize, Serialize};
use wit_component::ComponentEncoder;

use lethe_sandbox::guest::{Door, Frozen, GuestBuild, GuestError, Known, Segment, nonzero_runs};
use lethe_sandbox::image::Image;
use lethe_sandbox::{ModelSource, SandboxError, SandboxSettings, model_image};

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

/// Unread bytes that are left out of a bundle, at least so many at once: a piece has a head.
const GAP_BYTES: usize = 16;

/// Which operators a bundle's guest has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperatorSet {
    /// Those that its models use.
    #[default]
    Model,
    /// Every operator of the engine, whether anything can call it or not.
    All,
}

impl std::fmt::Display for OperatorSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::All => "all",
        })
    }
}

/// How a bundle is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleOptions {
    /// How exactly results are defined.
    pub numerics: Numerics,
    /// Use relaxed SIMD, which hosts may refuse.
    pub relaxed_simd: bool,
    /// Which operators go into it.
    pub operators: OperatorSet,
    /// Longest time to load the models, which a hostile one would never end.
    pub load_deadline: Duration,
}

impl BundleOptions {
    fn guest(&self) -> GuestBuild {
        match self.relaxed_simd {
            true => GuestBuild::RELAXED_SIMD,
            false => GuestBuild::SIMD128,
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
        load_deadline: options.load_deadline,
        ..SandboxSettings::default()
    };
    let image = model_image(models, &settings)?;
    let guest = options.guest().guest();
    let live = match options.operators {
        OperatorSet::All => guest.live(Door::Component, Known::Nothing)?,
        OperatorSet::Model => {
            let moved = SandboxSettings {
                guest: settings.guest.moved(),
                ..settings.clone()
            };
            let moved = model_image(models, &moved)?;
            let frozen = Frozen {
                memory: &segments(&image, &[], ZERO_BYTES),
                moved: &segments(&moved, &[], ZERO_BYTES),
            };
            guest.live(Door::Component, Known::Memory(frozen))?
        }
    };
    let mut join = ZERO_BYTES;
    let mut data = segments(&image, &live.unread, join);
    while data.len() > MOST_SEGMENTS {
        join *= 2;
        data = segments(&image, &live.unread, join);
    }
    let module = guest.open(Door::Component, &live, image.memory_bytes(), &data)?;
    let component = ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode());
    let mut component = component.map_err(|error| BundleError::Component {
        reason: format!("{error:#}"),
    })?;
    provenance::append(&mut component, models, image.models(), options)?;
    Ok(component)
}

/// The pieces of an image's memory that are not zero nor `unread`, joined where fewer than `join`
/// zero bytes lie between them.
fn segments<'a>(image: &'a Image, unread: &[Range<usize>], join: usize) -> Vec<Segment<'a>> {
    let mut segments = Vec::new();
    for &piece in image.pieces() {
        let content = image.content(piece);
        for part in without(piece.address..piece.address + content.len(), unread) {
            let bytes = &content[part.start - piece.address..part.end - piece.address];
            let runs = nonzero_runs(bytes, ZERO_BYTES, join);
            segments.extend(runs.into_iter().map(|run| Segment {
                address: part.start + run.start,
                bytes: &bytes[run],
            }));
        }
    }
    segments
}

/// What is left of a range without others, which ascend and are apart; what is too short to be
/// worth a gap stays.
fn without(whole: Range<usize>, others: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut left = Vec::new();
    let mut start = whole.start;
    for other in others.iter().filter(|other| other.len() >= GAP_BYTES) {
        if other.start >= whole.end {
            break;
        }
        if start < other.start {
            left.push(start..other.start);
        }
        start = start.max(other.end);
    }
    if start < whole.end {
        left.push(start..whole.end);
    }
    left
}
