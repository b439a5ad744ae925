//! A loaded model: where its requests are answered.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use lethe_engine::{Budget, Session, Value};
use lethe_server::message::{Answer, Call};
use lethe_server::{Handler, Model, ModelInfo, Problem, Request, Response};

use super::in_process::in_process;
use super::together::{Rooms, SMALL_BYTES};
use crate::receipt::{ModelIdentity, Receipt, RunIdentity};
use crate::settings::{Isolation, RunSettings};
use crate::signing::SigningKey;
use lethe_sandbox::model_file::ModelFile;
use lethe_sandbox::{
    CallControl, CallReport, CellError, GraphSettings, KeptCell, ModelSource, Sandbox,
    SandboxError, SandboxSettings, outputs_in,
};

/// How models of a server are loaded.
#[derive(Debug, Clone)]
pub struct Loading {
    /// What the command line says.
    pub run: RunSettings,
    /// How sandboxes are made.
    pub sandbox: SandboxSettings,
    /// Largest model file, with the files of weights that it names.
    pub max_model_bytes: u64,
    /// Largest body that a handler in this process takes.
    pub max_body_bytes: u64,
    /// What a model and its runs may take where there is no sandbox around them.
    pub budget: Budget,
    /// Models whose requests may be answered by one run.
    pub batching: Batching,
}

/// Which models take requests of one tenant as rows of one batch.
#[derive(Debug, Clone, Default)]
pub struct Batching {
    /// Their names; `*` for all.
    pub models: Vec<String>,
    /// Requests that are answered by one run, at most.
    pub most: u32,
}

impl Batching {
    /// Requests for the model of this name that are answered by one run, at most.
    fn most_of(&self, name: &str) -> u32 {
        let is_named = self
            .models
            .iter()
            .any(|model| model == "*" || model == name);
        if is_named { self.most } else { 0 }
    }
}

#[derive(Debug)]
enum Place {
    /// In this process: no isolation.
    Native(Handler),
    /// Every request in a fresh instance.
    Sandbox(Box<Sandbox>),
}

/// A model that answers.
#[derive(Debug)]
pub struct Loaded {
    place: Place,
    file_bytes: u64,
    run: RunIdentity,
    /// `None` where a file was changed before it was hashed.
    identity: Option<ModelIdentity>,
    /// When it was loaded.
    pub since: SystemTime,
    /// How long that took, in microseconds.
    pub load_us: u64,
    /// Requests that are answered by one run, at most; less than 2 where each has its own.
    pub(super) most_together: usize,
    /// Those that wait for company.
    pub(super) rooms: Rooms,
    /// What the log was told of its requests.
    said: Mutex<BTreeSet<String>>,
    /// The turn of its last use, which says who has rested longest.
    pub(super) last_used: AtomicU64,
}

impl Loaded {
    /// Loads the model in a file under a name.
    ///
    /// # Errors
    /// A problem that says what is wrong with it.
    pub fn load(name: &str, path: &Path, loading: &Loading) -> Result<Self, Problem> {
        let begun = Instant::now();
        let until = begun.checked_add(loading.sandbox.load_deadline);
        let file = ModelFile::open_until(path, until)
            .map_err(|error| refused(name, &error, "LETHE-MODEL-FILE"))?;
        Self::of_file(name, &file, loading, begun)
    }

    /// Loads a model that came as bytes, without external data. Nothing of it is kept on disk.
    ///
    /// # Errors
    /// A problem that says what is wrong with it.
    pub fn load_bytes(name: &str, model: Bytes, loading: &Loading) -> Result<Self, Problem> {
        let mut loading = loading.clone();
        loading.sandbox.cache = None;
        let file = ModelFile::of_bytes(model);
        Self::of_file(name, &file, &loading, Instant::now())
    }

    /// The model in an open file.
    fn of_file(
        name: &str,
        file: &ModelFile,
        loading: &Loading,
        begun: Instant,
    ) -> Result<Self, Problem> {
        let refused = |error: &dyn std::fmt::Display, code: &str| refused(name, error, code);
        let late = || {
            let limit = loading.sandbox.load_deadline;
            let error = CellError::Deadline { limit };
            refused(&error, error.code())
        };
        let not_made = |error: SandboxError| match &error {
            SandboxError::File { source, .. } if source.kind() == ErrorKind::TimedOut => late(),
            error => refused(error, error.code()),
        };
        let most = loading.max_model_bytes;
        let bytes = file.content().len();
        if bytes > most {
            let error = format!("{bytes} bytes: the limit is {most} bytes");
            return Err(refused(&error, "LETHE-MODEL-SIZE"));
        }
        let source = ModelSource::of_file(name, file).map_err(not_made)?;
        let lengths = source.files.iter().map(|(_, content)| content.len());
        let all_bytes = lengths.fold(bytes, u64::saturating_add);
        if all_bytes > most {
            let error = format!(
                "{all_bytes} bytes with the files that it names: the limit is {most} bytes"
            );
            return Err(refused(&error, "LETHE-MODEL-SIZE"));
        }
        let most_together = loading.batching.most_of(name);
        let isolation = loading.run.isolation.unwrap_or(Isolation::Sandbox);
        let place = match isolation {
            Isolation::None => {
                let options = loading.run.session_options(file);
                let mut options = options.map_err(|error| refused(&error, "LETHE-SETTINGS"))?;
                loading.sandbox.graph.put_into(&mut options);
                options.budget = loading.budget.clone();
                let control = CallControl {
                    deadline: begun.checked_add(loading.sandbox.load_deadline),
                    ..CallControl::default()
                };
                let load = || {
                    let model = file.decode()?;
                    Ok(Session::from_model(&model, &options)?)
                };
                let (session, _) = in_process(&control, load);
                let session = session.map_err(|problem| refused(&problem.detail, &problem.code))?;
                let model = Model::new(name, session);
                Place::Native(Handler::new(vec![model], loading.max_body_bytes))
            }
            Isolation::Sandbox => {
                let settings = SandboxSettings {
                    most_together,
                    ..loading.sandbox.clone()
                };
                let sandbox = Sandbox::new(&source, &settings);
                Place::Sandbox(Box::new(sandbox.map_err(not_made)?))
            }
        };
        let info = match &place {
            Place::Native(handler) => handler.models()[0].info(),
            Place::Sandbox(sandbox) => sandbox.info(),
        };
        let done = GraphSettings {
            quantization: info.quantized,
            ..loading.sandbox.graph
        };
        let device = loading.run.device_name();
        // Here, on a thread that may block, and before anybody asks for it: SHA-256 of a large model takes
        // longer than all the rest.
        let identity = match ModelIdentity::of(&source) {
            Ok(identity) => Some(identity),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(late()),
            Err(error) => {
                tracing::warn!(
                    model = source.name,
                    "no hash of its file, and no receipts till it is loaded again: {error}"
                );
                None
            }
        };
        Ok(Self {
            run: RunIdentity::new(
                isolation,
                loading.run.numerics.0,
                loading.sandbox.native_kernels,
                loading.run.level(),
                &device.map_err(|error| refused(&error, "LETHE-SETTINGS"))?,
                done,
            ),
            place,
            file_bytes: bytes,
            identity,
            since: SystemTime::now(),
            load_us: begun.elapsed().as_micros() as u64,
            most_together: most_together as usize,
            rooms: Rooms::default(),
            said: Mutex::default(),
            last_used: AtomicU64::new(0),
        })
    }

    /// What it takes and gives.
    pub fn info(&self) -> &ModelInfo {
        match &self.place {
            Place::Native(handler) => handler.models()[0].info(),
            Place::Sandbox(sandbox) => sandbox.info(),
        }
    }

    /// Whether requests get an instance of their own.
    pub fn is_isolated(&self) -> bool {
        matches!(self.place, Place::Sandbox(_))
    }

    /// Bytes of its file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of memory that all instances share, and that one begins with; 0 without isolation.
    pub fn memory_bytes(&self) -> (usize, usize) {
        match &self.place {
            Place::Native(_) => (0, 0),
            Place::Sandbox(sandbox) => {
                let (instance, shared) = sandbox.memory_bytes();
                (shared, instance)
            }
        }
    }

    /// The hashes of its files; `None` where one was changed before it was hashed.
    pub fn identity(&self) -> Option<&ModelIdentity> {
        self.identity.as_ref()
    }

    /// The hash of its file, as [`Loaded::identity`] has it.
    pub fn sha256(&self) -> Option<&str> {
        Some(&self.identity()?.sha256)
    }

    /// A signed statement that `request` got `answer`, where there is an identity to put into it.
    pub fn receipt(
        &self,
        request: &Request<'_>,
        answer: &Response,
        key: &SigningKey,
    ) -> Option<String> {
        let identity = self.identity()?;
        Some(Receipt::issue(identity, &self.run, request, answer, key))
    }

    pub(super) fn used(&self) {
        static TURN: AtomicU64 = AtomicU64::new(1);
        self.last_used
            .store(TURN.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether a request with so large a body may be answered together with others.
    pub(super) fn takes_together(&self, request_bytes: u64) -> bool {
        self.most_together > 1 && request_bytes <= SMALL_BYTES
    }

    /// Writes to the log what is worth a warning of the requests so far, each once for the model.
    fn warn(&self) {
        let notes = match &self.place {
            Place::Native(handler) => handler.notes(),
            Place::Sandbox(sandbox) => sandbox.notes(),
        };
        if notes.is_empty() {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for note in notes {
            if !said.contains(&note) {
                tracing::warn!(model = %self.info().name, "{note}");
                said.insert(note);
            }
        }
    }

    /// Ends a request, and gets ready for the next one.
    pub fn open_ahead(&self) {
        self.warn();
        if let Place::Sandbox(sandbox) = &self.place {
            sandbox.open_ahead();
        }
    }

    /// An instance for several requests of one client; `None` where requests have none.
    pub fn keep(&self) -> Option<Result<KeptCell, Problem>> {
        match &self.place {
            Place::Native(_) => None,
            Place::Sandbox(sandbox) => Some(sandbox.keep().map_err(Problem::from)),
        }
    }

    /// Answers an HTTP request for inference.
    pub fn answer(&self, request: &Request<'_>, control: &CallControl) -> (Response, CallReport) {
        match &self.place {
            Place::Native(handler) => {
                let (response, report) = in_process(control, || Ok(handler.handle(request)));
                (response.unwrap_or_else(Response::from), report)
            }
            Place::Sandbox(sandbox) => sandbox.handle_controlled(request, control),
        }
    }

    /// Runs the model on named inputs.
    ///
    /// # Errors
    /// When they do not fit it, or the run is ended.
    pub fn run(
        &self,
        inputs: Vec<(String, Value)>,
        control: &CallControl,
    ) -> (Result<Vec<(String, Value)>, Problem>, CallReport) {
        let (answer, report) = self.answer_call(&Call::Infer(inputs), control);
        (answer.and_then(outputs_in), report)
    }

    /// Answers calls of one tenant in one instance, in order; where that goes wrong, each in its own.
    pub(super) fn answer_calls(
        &self,
        calls: Vec<Call>,
        control: &CallControl,
    ) -> Vec<(Answer, CallReport)> {
        let alone = |call: &Call| {
            let (answer, report) = self.answer_call(call, control);
            (answer.unwrap_or_else(Answer::Problem), report)
        };
        let count = calls.len();
        if count < 2 {
            return calls.iter().map(alone).collect();
        }
        let together = Call::Together(calls);
        let (answer, report) = self.answer_call(&together, control);
        match (answer, together) {
            (Ok(Answer::Together(answers)), _) if answers.len() == count => {
                answers.into_iter().zip(report.shared_by(count)).collect()
            }
            (_, Call::Together(calls)) => calls.iter().map(alone).collect(),
            (_, call) => vec![alone(&call)],
        }
    }

    fn answer_call(
        &self,
        call: &Call,
        control: &CallControl,
    ) -> (Result<Answer, Problem>, CallReport) {
        match &self.place {
            Place::Native(handler) => in_process(control, || handler.answer_call(call)),
            Place::Sandbox(sandbox) => sandbox.answer_call(call, control),
        }
    }

    /// Overwrites what runs in this process left in memory for the next ones; a sandbox leaves
    /// nothing.
    pub fn wipe(&self) {
        if let Place::Native(handler) = &self.place {
            for model in handler.models() {
                model.session().wipe();
            }
        }
    }
}

/// 422: the model cannot be loaded.
fn refused(name: &str, error: &dyn std::fmt::Display, code: &str) -> Problem {
    Problem {
        status: 422,
        code: code.to_owned().into(),
        detail: format!("model {name:?}: {error}"),
        retry_after_s: None,
    }
}
