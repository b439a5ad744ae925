//! The models of a server: which there are, which are loaded, and which goes when there are too many.
//!
//! A model is *available* when its file is known, and loaded when it is asked for. Loading replaces
//! the old version only when the new one is ready; a request keeps the version that it began with.
//! At most [`Repository::capacity`] models are loaded; beyond, those go first that were not used
//! longest, and never one in use.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use lethe_server::Problem;

use super::loaded::{Loaded, Loading};
use lethe_sandbox::model_name;

/// What is known of a model.
#[derive(Debug, Clone)]
enum State {
    /// Loaded when it is asked for.
    Available,
    Ready(Arc<Loaded>),
    /// It could not be loaded.
    Failed(Problem),
    /// Somebody unloaded it: it is not loaded again until somebody says so.
    Unloaded,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    state: RwLock<State>,
    /// Held while it is loaded, so that it is loaded once.
    loading: Mutex<()>,
}

impl Entry {
    fn state(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// What became of a model.
#[derive(Debug)]
pub enum ModelChange<'a> {
    /// It answers from now on.
    Loaded(&'a Loaded),
    /// It could not be loaded.
    Failed(&'a str, &'a Problem),
    /// It was let go to make room for another.
    Evicted(&'a str),
    /// Somebody unloaded it.
    Unloaded(&'a str),
}

/// Who is told what becomes of models.
type Told = Box<dyn Fn(&ModelChange<'_>) + Send + Sync>;

/// What the list of models says of one.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The name that requests use.
    pub name: String,
    /// `READY`, `AVAILABLE`, `UNAVAILABLE`: the states of Triton's repository, and one for models
    /// that are loaded when they are asked for.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// The model, where it is loaded.
    pub loaded: Option<Arc<Loaded>>,
}

/// The models of a server.
pub struct Repository {
    loading: Loading,
    folder: Option<PathBuf>,
    /// Models that may be loaded at the same time.
    capacity: usize,
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    told: Option<Told>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("folder", &self.folder)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// The models in these files, and those in a folder. None is loaded yet.
    ///
    /// # Errors
    /// When the folder cannot be read, or two models have one name.
    pub fn new(
        files: &[PathBuf],
        folder: Option<&Path>,
        capacity: usize,
        loading: Loading,
    ) -> Result<Self, String> {
        let named = files.iter().map(|path| (model_name(path), path.clone()));
        Self::of_named(named.collect(), folder, capacity, loading)
    }

    /// The same of files with names of the caller's choice.
    ///
    /// # Errors
    /// As [`Repository::new`].
    pub fn of_named(
        files: Vec<(String, PathBuf)>,
        folder: Option<&Path>,
        capacity: usize,
        loading: Loading,
    ) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        let in_folder = folder.map(models_in).transpose()?;
        for (name, path) in files.into_iter().chain(in_folder.into_iter().flatten()) {
            if entries.insert(name.clone(), entry(&path)).is_some() {
                return Err(format!("two models are named {name:?}"));
            }
        }
        Ok(Self {
            loading,
            folder: folder.map(Path::to_path_buf),
            capacity,
            entries: RwLock::new(entries),
            told: None,
        })
    }

    /// From now on `told` is told what becomes of models. It may block.
    pub fn tell(&mut self, told: impl Fn(&ModelChange<'_>) + Send + Sync + 'static) {
        self.told = Some(Box::new(told));
    }

    fn changed(&self, change: &ModelChange<'_>) {
        if let Some(told) = &self.told {
            told(change);
        }
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(name).cloned()
    }

    /// Whether there is a model of this name.
    pub fn has(&self, name: &str) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.contains_key(name)
    }

    /// The names of all models.
    pub fn names(&self) -> Vec<String> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.keys().cloned().collect()
    }

    /// The model if it is loaded, without waiting.
    pub fn ready(&self, name: &str) -> Option<Arc<Loaded>> {
        match self.entry(name)?.state() {
            State::Ready(loaded) => {
                loaded.used();
                Some(loaded)
            }
            _ => None,
        }
    }

    /// The only model, if there is one and it is loaded.
    pub fn only(&self) -> Option<Arc<Loaded>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = entries.values();
        match (all.next()?.state(), all.next()) {
            (State::Ready(loaded), None) => {
                loaded.used();
                Some(loaded)
            }
            _ => None,
        }
    }

    /// The model, which is loaded if it is available. Blocks while it is loaded.
    ///
    /// # Errors
    /// 404 for an unknown model, 503 for one that is unloaded or cannot be loaded.
    pub fn get(&self, name: &str) -> Result<Arc<Loaded>, Problem> {
        let entry = self.entry(name).ok_or_else(|| self.unknown(name))?;
        for _ in 0..2 {
            match entry.state() {
                State::Ready(loaded) => {
                    loaded.used();
                    return Ok(loaded);
                }
                State::Unloaded => {
                    let detail = format!("model {name:?} is not loaded");
                    return Err(Problem::new(503, "LETHE-MODEL-UNLOADED", detail));
                }
                State::Failed(problem) => {
                    return Err(Problem {
                        status: 503,
                        ..problem
                    });
                }
                State::Available => {}
            }
            let _one = entry.loading.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(entry.state(), State::Available) {
                self.load_entry(name, &entry)?;
            }
        }
        Err(Problem::new(
            503,
            "LETHE-MODEL-UNLOADED",
            format!("model {name:?} comes and goes"),
        ))
    }

    fn unknown(&self, name: &str) -> Problem {
        let names = self.names();
        Problem::unknown_model(name, names.iter().map(String::as_str))
    }

    /// Loads a model, again if it is loaded already: the old version answers until then. A name that
    /// is not known is looked for in the folder. Blocks.
    ///
    /// # Errors
    /// 404 for an unknown model, 422 for one that cannot be loaded.
    pub fn load(&self, name: &str) -> Result<Arc<Loaded>, Problem> {
        let entry = match self.entry(name) {
            Some(entry) => entry,
            None => {
                self.rescan();
                self.entry(name).ok_or_else(|| self.unknown(name))?
            }
        };
        let _one = entry.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_entry(name, &entry)
    }

    /// Loads every model until the cache is full.
    ///
    /// # Errors
    /// The first problem.
    pub fn load_first(&self) -> Result<(), Problem> {
        for name in self.names().into_iter().take(self.capacity) {
            self.load(&name)?;
        }
        Ok(())
    }

    fn load_entry(&self, name: &str, entry: &Entry) -> Result<Arc<Loaded>, Problem> {
        match Loaded::load(name, &entry.path, &self.loading) {
            Ok(loaded) => {
                let loaded = Arc::new(loaded);
                loaded.used();
                entry.set(State::Ready(loaded.clone()));
                self.changed(&ModelChange::Loaded(&loaded));
                for name in self.trim(name) {
                    self.changed(&ModelChange::Evicted(&name));
                }
                Ok(loaded)
            }
            Err(problem) => {
                self.changed(&ModelChange::Failed(name, &problem));
                // The old version, if there is one, goes on.
                if !matches!(entry.state(), State::Ready(_)) {
                    entry.set(State::Failed(problem.clone()));
                }
                Err(problem)
            }
        }
    }

    /// Unloads the models that rested longest until no more are loaded than may be, and names them.
    fn trim(&self, keep: &str) -> Vec<String> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut loaded: Vec<(u64, &String, &Arc<Entry>, Arc<Loaded>)> = Vec::new();
        let mut count = 0;
        for (name, entry) in entries.iter() {
            if let State::Ready(model) = entry.state() {
                count += 1;
                if name != keep {
                    let last_used = model.last_used.load(Ordering::Relaxed);
                    loaded.push((last_used, name, entry, model));
                }
            }
        }
        loaded.sort_by_key(|(turn, ..)| *turn);
        let mut gone = Vec::new();
        for (_, name, entry, model) in loaded {
            if count <= self.capacity {
                break;
            }
            // Held by the entry and here; by a request too, if there are more.
            if Arc::strong_count(&model) == 2 {
                entry.set(State::Available);
                count -= 1;
                gone.push(name.clone());
            }
        }
        gone
    }

    /// Unloads a model; requests that have begun keep it until they end.
    ///
    /// # Errors
    /// 404 for an unknown model.
    pub fn unload(&self, name: &str) -> Result<(), Problem> {
        let entry = self.entry(name).ok_or_else(|| self.unknown(name))?;
        let _one = entry.loading.lock().unwrap_or_else(PoisonError::into_inner);
        entry.set(State::Unloaded);
        self.changed(&ModelChange::Unloaded(name));
        Ok(())
    }

    /// Looks for new models in the folder.
    pub fn rescan(&self) {
        let Some(Ok(found)) = self.folder.as_deref().map(models_in) else {
            return;
        };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (name, path) in found {
            entries.entry(name).or_insert_with(|| entry(&path));
        }
    }

    /// Keeps an uploaded model in the folder, whole or not at all, and loads it. Blocks.
    ///
    /// # Errors
    /// 409 without a folder, 422 for a name that is no file's or a model that cannot be loaded, and
    /// 507 when the disk is full.
    pub fn upload(&self, name: &str, model: &[u8]) -> Result<Arc<Loaded>, Problem> {
        let Some(folder) = &self.folder else {
            let detail = "the server has no folder of models: start it with --models";
            return Err(Problem::new(409, "LETHE-NO-REPOSITORY", detail));
        };
        let is_name = Path::new(name)
            .components()
            .eq([Component::Normal(name.as_ref())])
            && !name.starts_with('.')
            && !name.contains(char::is_control)
            && name.len() <= 128;
        if !is_name {
            let detail = format!("a model's name: expected a file name, found {name:?}");
            return Err(Problem::new(422, "LETHE-MODEL-NAME", detail));
        }
        let failed = |error: std::io::Error| {
            let detail = format!("the model cannot be kept: {error}");
            Problem::new(507, "LETHE-DISK", detail)
        };
        let file_name = format!("{name}.onnx");
        let path = folder.join(&file_name);
        let temporary = folder.join(format!(".{file_name}.{}.tmp", std::process::id()));
        std::fs::write(&temporary, model).map_err(failed)?;
        // What cannot be loaded does not replace what can.
        let checked = Loaded::load(name, &temporary, &self.loading);
        let kept = checked.and_then(|_| std::fs::rename(&temporary, &path).map_err(failed));
        if let Err(problem) = kept {
            // The first problem says more than one from tidying up would.
            drop(std::fs::remove_file(&temporary));
            return Err(problem);
        }
        self.rescan();
        self.load(name)
    }

    /// All models, in the order of their names.
    pub fn list(&self) -> Vec<Listed> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let list = entries.iter().map(|(name, entry)| {
            let (state, reason, loaded) = match entry.state() {
                State::Ready(loaded) => ("READY", None, Some(loaded)),
                State::Available => ("AVAILABLE", None, None),
                State::Unloaded => ("UNAVAILABLE", Some("unloaded".into()), None),
                State::Failed(problem) => ("UNAVAILABLE", Some(problem.detail), None),
            };
            Listed {
                name: name.clone(),
                state,
                reason,
                loaded,
            }
        });
        list.collect()
    }
}

fn entry(path: &Path) -> Arc<Entry> {
    Arc::new(Entry {
        path: path.into(),
        state: RwLock::new(State::Available),
        loading: Mutex::new(()),
    })
}

/// Names and files of the models in a folder.
fn models_in(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let inner = path.join("model.onnx");
        if hidden {
        } else if inner.is_file() {
            found.push((model_name(&inner), inner));
        } else if path.is_file() && path.extension().is_some_and(|ending| ending == "onnx") {
            found.push((model_name(&path), path));
        }
    }
    found.sort();
    Ok(found)
}
