//! The guest's machine code: compiled once for all models, kept in the cache.
#![expect(
    unsafe_code,
    reason = "wasmtime trusts the machine code that it is given"
)]

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine, Module, OptLevel};

use super::SandboxError;
use super::cache::{Cache, Key};
use super::slots::{Creator, Slots};
use crate::guest::{Door, Guest};
use crate::model_file::mapping;

/// Stack of a guest. Rust's own is in its linear memory; this one is for calls and spilled values.
const STACK_BYTES: usize = 1 << 20;

/// An engine whose instances live in these slots.
///
/// # Errors
/// When the machine cannot do what compiled code relies on.
pub(super) fn engine(slots: Arc<Slots>) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // Slots bring the image; the module has no data that wasmtime would put in place.
        .with_host_memory(Arc::new(Creator(slots)))
        .memory_init_cow(false)
        .memory_reservation(4 << 30)
        .memory_may_move(false)
        // A trap is reported by its kind: there is nobody to read a guest's backtrace.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false);
    Engine::new(&config)
}

/// The guest with this door open, compiled.
///
/// # Errors
/// When the compiler fails, which the embedded guest gives no reason for.
pub(super) fn module(
    engine: &Engine,
    guest: &Guest,
    door: Door,
    cache: &Cache,
) -> Result<Module, SandboxError> {
    let host =
        |error: wasmtime::Error| SandboxError::Host(format!("compiling the guest: {error:#}"));
    // wasmtime's own hash covers its version, its settings and the machine's features.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let mut key = Key::default();
    key.add(guest.hash());
    key.add(&[door as u8]);
    key.add(&hasher.finish().to_le_bytes());
    let key = key.finish();
    if let Some((path, hash)) = cache.code(&key) {
        if let Some(module) = open(engine, &path, &hash) {
            return Ok(module);
        }
        eprintln!(
            "lethe: cached code {}: not what was kept; making it again",
            path.display()
        );
    }
    let live = guest.live(door, None);
    let wasm = live.and_then(|live| guest.open(door, &live, guest.memory_bytes(), &[]));
    let wasm = wasm.map_err(|error| SandboxError::Host(error.to_string()))?;
    let module = Module::new(engine, wasm).map_err(host)?;
    if cache.is_on_disk() {
        let code = module.serialize().map_err(host)?;
        cache.keep_code(&key, &code, &Sha256::digest(&code).into());
    }
    Ok(module)
}

/// Maps code from the cache, if it is what was put there.
fn open(engine: &Engine, path: &Path, hash: &[u8; 32]) -> Option<Module> {
    let content = File::open(path)
        .and_then(|file| mapping::read_only(&file))
        .ok()?;
    if Sha256::digest(&content)[..] != hash[..] {
        return None;
    }
    // SAFETY: the file's hash is the one noted when this program wrote it into the user's own
    // cache, whose files are replaced and never changed.
    unsafe { Module::deserialize_file(engine, path) }.ok()
}
