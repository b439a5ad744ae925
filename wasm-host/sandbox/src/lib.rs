//! The sandbox: a fresh WebAssembly instance per request, and nothing left of it afterwards.
//!
//! ```text
//!  once per model          ┌─ guest loads the model, runs it once ─► memory ─► image (cached file)
//!  once per guest          └─ guest compiled ahead (cached file)
//!
//!  every request           slot ─► instance ─► request in, answer out ─► instance dropped
//!                            ▲     weights copy-on-write                        │
//!                            └────────── written pages reset, counted ◄─────────┘
//! ```
//!
//! - [`image`]: the frozen memory, a file mapped copy-on-write.
//! - [`code`]: the guest's machine code, compiled once for all models.
//! - [`slots`]: where instances live, and how their memory is reset.
//! - [`cell`]: one request in one instance, its limits and what can go wrong.
//! - [`kept`]: an instance for several requests of one client.
//! - [`native_kernels`]: what the host computes for the guest.
//! - [`deadline`]: the clock that ends runs.
//! - [`cache`]: images and code on disk.
//! - [`guest`]: the module that runs in instances, made of the crate `lethe-server`.
//! - [`model_file`]: models mapped from files, with their external data.
//! - [`residue`]: what is left of a request in memory: nothing.
//!
//! Memory that a request touched outside of its instance is wiped too: copies of requests and
//! answers are zeroized, and so is the stack that guest and kernels ran on.

#![deny(unsafe_code)]

mod cache;
mod cell;
mod code;
pub mod deadline;
mod dirty;
mod faults;
mod graph_settings;
pub mod guest;
pub mod hex;
pub mod image;
mod kept;
mod mapping;
pub mod model_file;
mod native_kernels;
mod notes;
pub mod residue;
mod slots;
pub mod stack;
mod unwritten;

use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lethe_engine::kernels::env::Env;
use lethe_engine::onnx::external_data;
use lethe_engine::{Numerics, Value};
use lethe_server::message::{Answer, Call, Load, LoadOptions};
use lethe_server::{ModelInfo, Problem, Request, Response};
use zeroize::Zeroizing;

pub use cache::{Cache, default_cache_folder};
pub use cell::{CallControl, CellError, Limits};
pub use graph_settings::GraphSettings;
pub use guest::GuestBuild;
pub use kept::KeptCell;
pub use slots::{WipePolicy, Wiped};

use cache::Key;
use cell::Cells;
use image::Image;
use model_file::{Content, ModelFile};

/// A model to be put into a sandbox.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// The name that requests use.
    pub name: String,
    /// The ONNX file.
    pub model: Content,
    /// Files beside it that hold external data: path and content.
    pub files: Vec<(String, Content)>,
    /// Inputs of the run that warms the model up; empty for zeros of the smallest shapes.
    pub warm_up: Vec<(String, Value)>,
}

impl ModelSource {
    /// A model without external data.
    pub fn new(name: impl Into<String>, model: impl Into<Content>) -> Self {
        let (name, model) = (name.into(), model.into());
        Self {
            name,
            model,
            files: Vec::new(),
            warm_up: Vec::new(),
        }
    }

    /// A model file and the files beside it that its tensors name.
    ///
    /// # Errors
    /// When the model is none, or a file cannot be had.
    pub fn of_file(name: impl Into<String>, file: &ModelFile) -> Result<Self, SandboxError> {
        let load = |error: lethe_engine::Error| SandboxError::Load(error.into());
        let locations = external_data::locations(&mut file.decode().map_err(load)?);
        // What cannot be had is missing in the guest, whose error names the tensor.
        let files = locations.into_iter().filter_map(|location| {
            let content = file.beside(&location).ok()?;
            Some((location, content))
        });
        Ok(Self {
            files: files.collect(),
            ..Self::new(name, file.content().clone())
        })
    }
}

/// The name of the model in a file: the file's, or its folder's for `model.onnx`.
pub fn model_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name);
    match folder {
        Some(folder) if stem == "model" => folder.to_string_lossy().into_owned(),
        _ => stem.into_owned(),
    }
}

/// How a sandbox is made and what its cells may use.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// The host computes the hot kernels on the guest's memory; off, the guest has no imports.
    pub native_kernels: bool,
    /// Instruction set and threads of the native kernels, and how exactly results are defined.
    pub env: Env,
    /// What is done to graphs before they run.
    pub graph: GraphSettings,
    /// What one request may use.
    pub limits: Limits,
    /// Longest time to load a model, with its first run, which a hostile one would never end.
    pub load_deadline: Duration,
    /// How memory is reset.
    pub wipe: WipePolicy,
    /// Where images and code are kept; `None` keeps them in memory.
    pub cache: Option<PathBuf>,
    /// Which build of the guest runs.
    pub guest: GuestBuild,
    /// Requests that may come in one call; less than 2 for none.
    pub most_together: u32,
    /// Where the guest's code is not in the cache, compile what the model needs of it and no more.
    pub quick_start: bool,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            native_kernels: true,
            env: Env::new(),
            graph: GraphSettings::default(),
            limits: Limits::default(),
            load_deadline: Duration::from_secs(3600),
            wipe: WipePolicy::default(),
            cache: default_cache_folder(),
            guest: GuestBuild::default(),
            most_together: 0,
            quick_start: false,
        }
    }
}

/// Opens what slots need of the system, for a process that is about to give up the right to.
pub fn prepare() {
    dirty::DirtyPages::of_process();
}

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The guest did not load the model.
    #[error(transparent)]
    Load(Problem),
    /// The guest was stopped while it loaded the model.
    #[error("loading the model in the sandbox: {0}")]
    Cell(#[from] CellError),
    /// A file of the model could not be read.
    #[error("cannot read the files of model {name:?}: {source}")]
    File {
        /// The model's name.
        name: String,
        /// What was wrong.
        source: io::Error,
    },
    /// The host could not do its part.
    #[error("sandbox: {0}")]
    Host(String),
}

impl SandboxError {
    /// A stable code that every door shows.
    pub fn code(&self) -> &str {
        match self {
            Self::Load(problem) => &problem.code,
            Self::Cell(error) => error.code(),
            Self::File { .. } => "LETHE-MODEL-FILE",
            Self::Host(_) => "LETHE-SANDBOX",
        }
    }
}

/// What a call did besides answering.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallReport {
    /// From the start of the call to its end: instance made, run and wiped.
    pub elapsed: Duration,
    /// What was wiped of the instance's memory.
    pub wiped: Wiped,
}

impl CallReport {
    /// The parts of `count` requests that one call answered, the odd bytes in the first.
    pub fn shared_by(self, count: usize) -> impl Iterator<Item = Self> {
        let part = |all: u64| all / count as u64;
        let share = Self {
            elapsed: self.elapsed / count as u32,
            wiped: Wiped {
                overwritten_bytes: part(self.wiped.overwritten_bytes),
                returned_bytes: part(self.wiped.returned_bytes),
            },
        };
        let odd = |all: u64| all % count as u64;
        let first = Self {
            wiped: Wiped {
                overwritten_bytes: share.wiped.overwritten_bytes
                    + odd(self.wiped.overwritten_bytes),
                returned_bytes: share.wiped.returned_bytes + odd(self.wiped.returned_bytes),
            },
            ..share
        };
        iter::once(first).chain(iter::repeat_n(share, count - 1))
    }
}

/// One model in a sandbox: every call gets an instance of its own.
pub struct Sandbox {
    cells: Arc<Cells>,
    info: ModelInfo,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Puts a model into a sandbox: from the cache, or by loading it in a guest, which takes as
    /// long as the model is large.
    ///
    /// # Errors
    /// When the model cannot be loaded or the host lacks something.
    pub fn new(source: &ModelSource, settings: &SandboxSettings) -> Result<Self, SandboxError> {
        let source = std::slice::from_ref(source);
        let begun = match settings.quick_start {
            true => Self::with(source, settings, source),
            false => Self::with(source, settings, &[]),
        };
        match begun {
            // It wanted code that was thought not to be needed, or does so with all of it.
            Err(SandboxError::Cell(CellError::Trap { .. })) if settings.quick_start => {
                Self::with(source, settings, &[])
            }
            begun => begun,
        }
    }

    /// A sandbox for the one model in `source`, of code for `code_for`.
    fn with(
        source: &[ModelSource],
        settings: &SandboxSettings,
        code_for: &[ModelSource],
    ) -> Result<Self, SandboxError> {
        let image = image_of(source, settings, code_for)?;
        let info = image.models().first().cloned();
        let info = info.ok_or_else(|| SandboxError::Host("the image holds no model".into()))?;
        let cache = Cache::new(settings.cache.as_deref());
        let cells = Arc::new(Cells::new(image, settings, &cache, code_for)?);
        Ok(Self { cells, info })
    }

    /// What the model takes and gives.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What is worth a warning of what the model was asked so far, each once, in order.
    pub fn notes(&self) -> Vec<String> {
        self.cells.notes()
    }

    /// Bytes of linear memory that an instance begins with, and bytes of the image that are shared.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let image = self.cells.image();
        (image.memory_bytes(), image.file_bytes())
    }

    /// Whether resets ask the kernel which pages were written.
    pub fn scans_pagemap(&self) -> bool {
        self.cells.scans_pagemap()
    }

    /// Answers a message in a fresh instance.
    ///
    /// # Errors
    /// When the guest traps, takes too long or wants too much memory.
    pub fn call(&self, message: &[u8]) -> Result<(Zeroizing<Vec<u8>>, CallReport), CellError> {
        self.call_inspected(message, &mut |_| ())
    }

    /// As [`Sandbox::call`]; `inspect` sees the instance's memory after the answer was read and
    /// before the instance is dropped. For audits and tests.
    ///
    /// # Errors
    /// As [`Sandbox::call`].
    pub fn call_inspected(
        &self,
        message: &[u8],
        inspect: &mut dyn FnMut(&[u8]),
    ) -> Result<(Zeroizing<Vec<u8>>, CallReport), CellError> {
        let (answer, report) = self.cells.call(message, &CallControl::default(), inspect);
        Ok((answer?, report))
    }

    /// Opens the instance of a call to come. A server does it when an answer is on its way.
    pub fn open_ahead(&self) {
        self.cells.open_ahead();
    }

    /// An instance that is kept until it is dropped: for one client whose requests share it, and to
    /// measure what a fresh one costs.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn keep(&self) -> Result<KeptCell, CellError> {
        KeptCell::new(&self.cells)
    }

    /// Runs the model in a fresh instance.
    ///
    /// # Errors
    /// When the inputs do not fit the model or the guest is stopped.
    pub fn run(&self, inputs: Vec<(String, Value)>) -> Result<Vec<(String, Value)>, Problem> {
        self.run_reported(inputs).map(|(outputs, _)| outputs)
    }

    /// Runs the model in a fresh instance and says what else was done.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub fn run_reported(
        &self,
        inputs: Vec<(String, Value)>,
    ) -> Result<(Vec<(String, Value)>, CallReport), Problem> {
        let message = Zeroizing::new(Call::Infer(inputs).encode());
        let (answer, report) = self.call(&message)?;
        Ok((outputs_of(answer)?, report))
    }

    /// Answers an HTTP request in a fresh instance; what goes wrong is an answer too.
    pub fn handle(&self, request: &Request<'_>) -> Response {
        self.handle_controlled(request, &CallControl::default()).0
    }

    /// As [`Sandbox::handle`], ending early as `control` says, and with what was done besides:
    /// nothing where no instance was made.
    pub fn handle_controlled(
        &self,
        request: &Request<'_>,
        control: &CallControl,
    ) -> (Response, CallReport) {
        let message = Zeroizing::new(Call::encode_http(request));
        let (answer, report) = self.answer(&message, control);
        (answer.map_or_else(Response::from, response_in), report)
    }

    /// Answers a call in a fresh instance, ending early as `control` says, and with what was done
    /// besides.
    pub fn answer_call(
        &self,
        call: &Call,
        control: &CallControl,
    ) -> (Result<Answer, Problem>, CallReport) {
        self.answer(&Zeroizing::new(call.encode()), control)
    }

    /// As [`Sandbox::run`], ending early as `control` says, and with what was done besides.
    pub fn run_controlled(
        &self,
        inputs: Vec<(String, Value)>,
        control: &CallControl,
    ) -> (Result<Vec<(String, Value)>, Problem>, CallReport) {
        let (answer, report) = self.answer_call(&Call::Infer(inputs), control);
        (answer.and_then(outputs_in), report)
    }

    fn answer(
        &self,
        message: &[u8],
        control: &CallControl,
    ) -> (Result<Answer, Problem>, CallReport) {
        let (answer, report) = self.cells.call(message, control, &mut |_| ());
        let answer = answer
            .map_err(Problem::from)
            .and_then(|answer| Ok(Answer::decode(wiped_bytes(answer))?));
        (answer, report)
    }
}

/// The outputs in an answer to [`Call::Infer`].
///
/// # Errors
/// The problem that the answer is, or that it is none.
pub fn outputs_of(answer: Zeroizing<Vec<u8>>) -> Result<Vec<(String, Value)>, Problem> {
    outputs_in(Answer::decode(wiped_bytes(answer))?)
}

/// The outputs in an answer.
///
/// # Errors
/// The problem that the answer is, or that it is none.
pub fn outputs_in(answer: Answer) -> Result<Vec<(String, Value)>, Problem> {
    match answer {
        Answer::Outputs(outputs) => Ok(outputs),
        Answer::Problem(problem) => Err(problem),
        Answer::Loaded(_) | Answer::Http(_) | Answer::Together(_) => Err(another_answer()),
    }
}

/// The HTTP answer in an answer.
pub fn response_in(answer: Answer) -> Response {
    match answer {
        Answer::Http(response) => response,
        Answer::Problem(problem) => problem.into(),
        Answer::Loaded(_) | Answer::Outputs(_) | Answer::Together(_) => another_answer().into(),
    }
}

/// Bytes that are zeroized when the last piece of them is dropped.
pub fn wiped_bytes(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    struct Owner(Zeroizing<Vec<u8>>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Owner(bytes))
}

fn another_answer() -> Problem {
    Problem::new(
        500,
        "LETHE-IMAGE",
        "the cell answered something else than it was asked",
    )
}

/// Compiles the guest for this machine, if the cache has no code of it.
pub fn compile_guest(settings: &SandboxSettings) -> Result<(), SandboxError> {
    let image = Image::of_guest(settings.guest.guest());
    let image = image.map_err(|error| SandboxError::Host(error.to_string()))?;
    let cache = Cache::new(settings.cache.as_deref());
    Cells::new(Arc::new(image), settings, &cache, &[]).map(drop)
}

/// The image of a guest that holds these models: from the cache, or made.
pub fn model_image(
    sources: &[ModelSource],
    settings: &SandboxSettings,
) -> Result<Arc<Image>, SandboxError> {
    image_of(sources, settings, &[])
}

/// As [`model_image`], made by code for the models of `code_for`.
fn image_of(
    sources: &[ModelSource],
    settings: &SandboxSettings,
    code_for: &[ModelSource],
) -> Result<Arc<Image>, SandboxError> {
    let host = |error: image::ImageError| SandboxError::Host(error.to_string());
    let cache = Cache::new(settings.cache.as_deref());
    let guest = settings.guest.guest();
    let key = image_key(guest.hash(), sources, settings)?;
    if let Some(image) = cache.image(&key) {
        return Ok(Arc::new(image));
    }
    // Loading is not a request: it has a time of its own, and all the memory that a guest can have.
    let loading = SandboxSettings {
        limits: Limits {
            deadline: settings.load_deadline,
            ..Limits::default()
        },
        ..settings.clone()
    };
    let fresh = Image::of_guest(guest).map_err(|error| host(error.into()))?;
    let cells = Cells::new(Arc::new(fresh), &loading, &cache, code_for)?;
    let mut loader = cells.loader()?;
    let mut models = Vec::with_capacity(sources.len());
    for source in sources {
        let mut load = load_head(source, settings);
        load.model = source.model.bytes().map_err(unreadable(source))?;
        let files = source.files.iter();
        load.files = files
            .map(|(path, content)| Ok((path.clone(), content.bytes()?)))
            .collect::<io::Result<_>>()
            .map_err(unreadable(source))?;
        let answer = wiped_bytes(cells.handle(&mut loader, &load.encode())?);
        match Answer::decode(answer).map_err(|error| SandboxError::Load(error.into()))? {
            Answer::Loaded(info) => models.push(info),
            Answer::Problem(problem) => return Err(SandboxError::Load(problem)),
            Answer::Http(_) | Answer::Outputs(_) | Answer::Together(_) => {
                return Err(SandboxError::Load(another_answer()));
            }
        }
    }
    cache
        .keep_image(&key, loader.memory(), &models)
        .map(Arc::new)
        .map_err(host)
}

/// The name of the image of a guest that has loaded these models, without a copy of them.
fn image_key(
    guest: &[u8],
    sources: &[ModelSource],
    settings: &SandboxSettings,
) -> Result<String, SandboxError> {
    let mut key = Key::default();
    key.add(guest);
    for source in sources {
        key.add(&load_head(source, settings).encode());
        let content = |key: &mut Key, content| key.add_content(content).map_err(unreadable(source));
        content(&mut key, &source.model)?;
        for (path, file) in &source.files {
            key.add(path.as_bytes());
            content(&mut key, file)?;
        }
        // Where the files end.
        key.add(b"");
    }
    Ok(key.finish())
}

fn unreadable(model: &ModelSource) -> impl FnOnce(io::Error) -> SandboxError {
    let name = model.name.clone();
    move |source| SandboxError::File { name, source }
}

/// What a guest is told of a model to load, but for its files.
fn load_head(source: &ModelSource, settings: &SandboxSettings) -> Load {
    Load {
        name: source.name.clone(),
        options: LoadOptions {
            reproducible: settings.env.numerics == Numerics::Reproducible,
            as_written: !settings.graph.fusion,
            quantize: settings.graph.quantization,
            host_tile: settings
                .native_kernels
                .then(|| native_kernels::tile(&settings.env)),
            most_together: settings.most_together,
        },
        warm_up: source.warm_up.clone(),
        model: Bytes::new(),
        files: Vec::new(),
    }
}
