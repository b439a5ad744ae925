//! Names of instruction sets and what this machine has of them.

use std::fmt;
use std::str::FromStr;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::Isa;
#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// A family of instructions that kernels are compiled for.
///
/// Every level exists as a name on every target, so that settings and messages are the same
/// everywhere; [`Level::available`] says which ones this machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, one element at a time.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C: 8 lanes.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL: 16 lanes.
    Avx512,
    /// AArch64 Advanced SIMD: 4 lanes.
    Neon,
    /// WebAssembly SIMD128: 4 lanes. Chosen when the module is compiled, since WebAssembly has
    /// no run-time detection.
    Simd128,
}

/// What kernels may assume about rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Numerics {
    /// Whatever is quickest and accurate: fused multiply-add, sums in the order of the lanes.
    #[default]
    Fast,
    /// The same bits on every instruction set, thread count and blocking: multiply then add,
    /// sums in one fixed order.
    Reproducible,
}

impl Level {
    /// All levels, slowest first.
    pub const ALL: [Level; 5] = [
        Level::Scalar,
        Level::Simd128,
        Level::Neon,
        Level::Avx2,
        Level::Avx512,
    ];

    /// The fastest level of this machine.
    pub fn best() -> Level {
        Self::available().last().unwrap_or(Level::Scalar)
    }

    /// The levels that this machine (on WebAssembly: this build) can run, slowest first.
    ///
    /// A WebAssembly build carries exactly one.
    pub fn available() -> impl DoubleEndedIterator<Item = Level> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// Whether this machine can run the level.
    pub fn is_available(self) -> bool {
        match self {
            Level::Scalar => !cfg!(all(target_arch = "wasm32", target_feature = "simd128")),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::Avx2::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::Avx512::new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::Neon::new().is_some(),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128 => true,
            _ => false,
        }
    }

    /// The name used in settings: `scalar`, `avx2`, `avx512`, `neon` or `simd128`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Neon => "neon",
            Level::Simd128 => "simd128",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A level was asked for that does not exist or that this machine cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// No level has this name.
    #[error(
        "unknown instruction set `{found}`: this machine has {}",
        available_names()
    )]
    Unknown {
        /// The name that was given.
        found: String,
    },
    /// The level exists, but not here.
    #[error(
        "instruction set `{found}` is not available: this machine has {}",
        available_names()
    )]
    Unavailable {
        /// The level that was asked for.
        found: Level,
    },
}

fn available_names() -> String {
    let names: Vec<_> = Level::available().map(Level::name).collect();
    names.join(", ")
}

impl FromStr for Level {
    type Err = LevelError;

    /// Parses a name and checks that this machine can run the level.
    fn from_str(name: &str) -> Result<Level, LevelError> {
        let level = Level::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| LevelError::Unknown { found: name.into() })?;
        if level.is_available() {
            Ok(level)
        } else {
            Err(LevelError::Unavailable { found: level })
        }
    }
}
