//! The guest's machine code: compiled once for all models, kept in the cache.
//!
//! That takes seconds. Where it was not done beforehand and somebody waits for a model, the guest is
//! compiled without the operators that this model does not need, in half the time or less.
#![expect(
    unsafe_code,
    reason = "wasmtime trusts the machine code that it is given; the allocator is told to give back"
)]

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use lethe_engine::{onnx, rewrite};
use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine, Module, OptLevel};

use super::cache::{Cache, Key};
use super::slots::{Creator, Slots};
use super::{ModelSource, SandboxError};
use crate::guest::{Door, Guest, Known};
use crate::mapping;

/// Stack of a guest. Rust's own is in its linear memory; this one is for calls and spilled values.
const STACK_BYTES: usize = 1 << 20;

/// An engine whose instances live in these slots.
///
/// # Errors
/// When the machine cannot do what compiled code relies on.
fn engine(slots: &Arc<Slots>) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // Slots bring the image; the module has no data that wasmtime would put in place.
        .with_host_memory(Arc::new(Creator(slots.clone())))
        .memory_init_cow(false)
        .memory_reservation(4 << 30)
        .memory_may_move(false)
        // A trap is reported by its kind: there is nobody to read a guest's backtrace.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false);
    Engine::new(&config)
}

/// The guest's code, and what it is kept under.
pub(super) struct Code<'a> {
    pub(super) guest: &'a Guest,
    pub(super) door: Door,
    pub(super) cache: &'a Cache,
}

impl Code<'_> {
    /// The module, with an engine whose instances live in these slots. Only these `models` have to
    /// run, or any where there are none; code that is cached may do more.
    ///
    /// # Errors
    /// When the machine cannot do what compiled code relies on. The compiler has no reason to fail on
    /// the embedded guest.
    pub(super) fn module(
        &self,
        slots: &Arc<Slots>,
        models: &[ModelSource],
    ) -> Result<(Engine, Module), SandboxError> {
        let host = |error| host("making an engine", &error);
        let engine = engine(slots).map_err(host)?;
        let all = self.key(&engine, None);
        if let Some(module) = self.cached(&engine, &all) {
            return Ok((engine, module));
        }
        let needed = needed(models);
        let key = match &needed {
            Some(needed) => self.key(&engine, Some(needed)),
            None => all,
        };
        if let Some(module) = self.cached(&engine, &key) {
            return Ok((engine, module));
        }
        bound_free_memory();
        let module = self.compile(&engine, &key, needed.as_deref())?;
        // An engine keeps what it compiled with, tens of megabytes, and code that was not read from a
        // file is this process's alone: where it was kept, it is opened as the next process will.
        let again = self::engine(slots).map_err(host)?;
        let opened = match self.cached(&again, &key) {
            Some(kept) => {
                drop((module, engine));
                (again, kept)
            }
            None => (engine, module),
        };
        give_back_memory();
        Ok(opened)
    }

    /// The name of the code in the cache, of all of it or where only these operators are needed.
    fn key(&self, engine: &Engine, needed: Option<&[bool]>) -> String {
        // wasmtime's own hash covers its version, its settings and the machine's features.
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let mut key = Key::default();
        key.add(self.guest.hash());
        key.add(&[self.door as u8]);
        key.add(&hasher.finish().to_le_bytes());
        if let Some(needed) = needed {
            let rows: Vec<u8> = needed.iter().map(|needed| u8::from(*needed)).collect();
            key.add(&rows);
        }
        key.finish()
    }

    fn cached(&self, engine: &Engine, key: &str) -> Option<Module> {
        let (path, hash) = self.cache.code(key)?;
        let module = open(engine, &path, &hash);
        if module.is_none() {
            eprintln!(
                "lethe: cached code {}: not what was kept; making it again",
                path.display()
            );
        }
        module
    }

    fn compile(
        &self,
        engine: &Engine,
        key: &str,
        needed: Option<&[bool]>,
    ) -> Result<Module, SandboxError> {
        let (guest, door) = (self.guest, self.door);
        let known = needed.map_or(Known::Nothing, Known::Operators);
        let live = guest.live(door, known);
        let wasm = live.and_then(|live| guest.open(door, &live, guest.memory_bytes(), &[]));
        let wasm = wasm.map_err(|error| SandboxError::Host(error.to_string()))?;
        let host = |error| host("compiling the guest", &error);
        let module = Module::new(engine, wasm).map_err(host)?;
        if self.cache.is_on_disk() {
            let code = module.serialize().map_err(host)?;
            let hash = Sha256::digest(&code).into();
            self.cache.keep_code(key, &code, &hash);
        }
        Ok(module)
    }
}

/// The operators that these models need; `None` for all.
fn needed(models: &[ModelSource]) -> Option<Vec<bool>> {
    let mut all: Option<Vec<bool>> = None;
    for source in models {
        // What is no model gets its error from the guest.
        let model = onnx::read_model(source.model.outline().ok()?).ok()?;
        let needed = rewrite::needed(&model);
        all = Some(match all {
            Some(all) => all.iter().zip(needed).map(|(a, b)| *a || b).collect(),
            None => needed,
        });
    }
    all
}

fn host(what: &str, error: &wasmtime::Error) -> SandboxError {
    SandboxError::Host(format!("{what}: {error:#}"))
}

/// Has the allocator give the free end of each of its arenas back once that is so large. By itself
/// glibc waits for more and more: what compiling took, a hundred megabytes, would stay for ever.
fn bound_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number in the allocator, which takes its own locks.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 << 20);
    }
}

/// Gives back the free pages within the allocator's arenas.
fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: gives back pages that hold no allocation; glibc takes its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lethe_engine::{Tensor, Value};

    use super::*;
    use crate::model_file::ModelFile;
    use crate::{CellError, Sandbox, SandboxSettings};

    fn source(name: &str) -> ModelSource {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .unwrap();
        let file = ModelFile::open(&root.join("models").join(name).join("model.onnx")).unwrap();
        ModelSource::of_file(name, &file).unwrap()
    }

    fn answer(sandbox: &Sandbox) -> Vec<u8> {
        let image: Vec<f32> = (0..784).map(|i| (i % 29) as f32 / 29.0).collect();
        let image = Tensor::from_slice(&[1, 1, 28, 28], &image).unwrap();
        let outputs = sandbox.run(vec![("input".into(), Value::Tensor(image))]);
        let (_, output) = outputs.unwrap().remove(0);
        output.as_tensor().unwrap().bytes().to_vec()
    }

    /// Sizes of the files of code in a cache, in order.
    fn code_bytes(cache: &Path) -> Vec<u64> {
        let entries = std::fs::read_dir(cache).unwrap().map(Result::unwrap);
        let code = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "cwasm"));
        let mut sizes: Vec<u64> = code.map(|entry| entry.metadata().unwrap().len()).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn a_quick_start_compiles_what_the_model_needs_and_answers_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let settings = |quick_start| SandboxSettings {
            // All is computed by compiled code.
            native_kernels: false,
            quick_start,
            cache: Some(cache.clone()),
            ..SandboxSettings::default()
        };
        let digits = source("digits");
        let quick = Sandbox::new(&digits, &settings(true)).unwrap();
        let expected = answer(&quick);
        let part = code_bytes(&cache);
        assert_eq!(part.len(), 1);
        // Code for another model cannot load this one, which is an error and no answer.
        let other = Sandbox::with(
            std::slice::from_ref(&digits),
            &SandboxSettings {
                cache: Some(folder.path().join("other")),
                ..settings(true)
            },
            &[source("vibration")],
        );
        let trapped = matches!(other, Err(SandboxError::Cell(CellError::Trap { .. })));
        assert!(trapped, "{other:?}");

        let whole = Sandbox::new(&digits, &settings(false)).unwrap();
        assert_eq!(answer(&whole), expected);
        let both = code_bytes(&cache);
        assert!(both.len() == 2 && 3 * both[0] < 2 * both[1], "{both:?}");
        // Where there is all of it, no part is made.
        Sandbox::new(&source("vibration"), &settings(true)).unwrap();
        assert_eq!(code_bytes(&cache), both);
    }
}
