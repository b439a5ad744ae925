//! One request in one instance.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lethe_engine::kernels::env::Env;
use lethe_engine::kernels::scratch;
use lethe_engine::limits::Stop;
use lethe_server::Problem;
use wasmtime::{
    Engine, InstancePre, Linker, Memory, ModuleExport, ResourceLimiter, Store, Trap, TypedFunc,
    UpdateDeadline,
};
use zeroize::Zeroizing;

use super::cache::Cache;
use super::code::Code;
use super::faults::Whose;
use super::image::Image;
use super::notes::Notes;
use super::slots::{Slots, last_wipe, no_new_pages};
use super::{
    CallReport, ModelSource, SandboxError, SandboxSettings, deadline, native_kernels, stack,
};
use crate::guest::Door;

/// What one request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time, in steps of [`TICK`](super::deadline::TICK).
    pub deadline: Duration,
    /// Linear memory.
    pub memory_bytes: usize,
    /// Instances at the same time; more requests wait.
    pub instances: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            memory_bytes: 4 << 30,
            instances: 64,
        }
    }
}

/// How one call may end early, beside the sandbox's own [`Limits`].
#[derive(Debug, Clone, Default)]
pub struct CallControl {
    /// When its time is up.
    pub deadline: Option<Instant>,
    /// Linear memory it may have.
    pub memory_bytes: Option<usize>,
    /// Raised when nobody waits for the answer any more.
    pub stop: Arc<AtomicBool>,
}

/// Why a cell did not answer. Nothing here repeats what a request said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// The deadline passed.
    #[error("the request took longer than {limit:?}")]
    Deadline {
        /// The time it had.
        limit: Duration,
    },
    /// Nobody waits for the answer any more.
    #[error("the request was given up")]
    Stopped,
    /// The guest wanted more memory than it may have.
    #[error("the request needs more memory than the limit of {limit_bytes} bytes")]
    Memory {
        /// The memory it may have.
        limit_bytes: usize,
    },
    /// The guest did something that wasm forbids, or gave up.
    #[error("the guest stopped: {reason}")]
    Trap {
        /// What it did, in wasmtime's words.
        reason: String,
    },
    /// The guest broke the contract of messages.
    #[error("the guest answered outside of its memory")]
    Contract,
    /// The host could not make an instance.
    #[error("cannot make an instance: {reason}")]
    Host {
        /// What was missing.
        reason: String,
    },
}

impl CellError {
    /// A stable code that every door shows.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Deadline { .. } => "LETHE-DEADLINE",
            Self::Stopped => "LETHE-CANCELLED",
            Self::Memory { .. } => "LETHE-MEMORY-LIMIT",
            Self::Trap { .. } | Self::Contract => "LETHE-GUEST",
            Self::Host { .. } => "LETHE-SANDBOX",
        }
    }
}

impl From<CellError> for Problem {
    fn from(error: CellError) -> Self {
        let status = match &error {
            CellError::Deadline { .. } => 504,
            CellError::Stopped => 499,
            CellError::Memory { .. } => 422,
            CellError::Trap { .. } | CellError::Contract => 500,
            CellError::Host { .. } => 503,
        };
        Problem::new(status, error.code(), error.to_string())
    }
}

/// What native kernels compute with.
pub(super) struct Shared {
    /// Instruction set, threads and numerics.
    pub(super) env: Env,
    /// The memories of the instances, and their image.
    pub(super) slots: Arc<Slots>,
}

/// What the host keeps beside an instance.
pub(super) struct CellState {
    /// What all instances of an image share.
    pub(super) shared: Arc<Shared>,
    /// Whether native kernels computed in this call.
    pub(super) computed: bool,
    pub(super) memory_limit_bytes: usize,
    memory_denied: bool,
    /// When the call that runs began, and how it may end.
    began: Instant,
    deadline: Instant,
    stop: Arc<AtomicBool>,
    /// What ends a native kernel, which does not come by ticks.
    pub(super) stop_of_kernels: Stop,
}

impl CellState {
    /// Whether the guest goes on, asked at every tick.
    fn may_go_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && Instant::now() < self.deadline
    }

    /// Takes the limits of one call, where they are narrower than the sandbox's.
    fn control(&mut self, control: &CallControl) {
        let memory = control.memory_bytes.unwrap_or(usize::MAX);
        self.memory_limit_bytes = self.memory_limit_bytes.min(memory);
        if let Some(deadline) = control.deadline {
            self.deadline = self.deadline.min(deadline);
        }
        self.stop = control.stop.clone();
        self.stop_of_kernels = Stop {
            flag: Some(self.stop.clone()),
            ..deadline::stop_at(self.deadline)
        };
    }
}

impl ResourceLimiter for CellState {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= self.memory_limit_bytes;
        self.memory_denied |= !allowed;
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        current: usize,
        _: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The guest's table is made with its module and never grows.
        Ok(current == 0)
    }
}

/// An instance with what the host calls in it.
pub(super) struct Cell {
    store: Store<CellState>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    answer: TypedFunc<(), u64>,
}

impl Cell {
    /// The instance's linear memory.
    pub(super) fn memory(&self) -> &[u8] {
        self.memory.data(&self.store)
    }
}

/// Where the exports are in the module.
struct Exports {
    memory: ModuleExport,
    alloc: ModuleExport,
    load: ModuleExport,
    handle: ModuleExport,
}

/// Makes instances of one image.
pub(super) struct Cells {
    engine: Engine,
    shared: Arc<Shared>,
    instance: InstancePre<CellState>,
    exports: Exports,
    limits: Limits,
    most_opened: usize,
    /// Those of the threads that a guest's writes are made on.
    faults: Whose,
    /// Fresh instances that nothing was asked yet.
    opened: Mutex<Vec<Cell>>,
    running: Mutex<usize>,
    finished: Condvar,
    notes: Notes,
}

impl Cells {
    /// Cells for calls of these `models`, or of any where there are none.
    ///
    /// # Errors
    /// When the machine lacks something.
    pub(super) fn new(
        image: Arc<Image>,
        settings: &SandboxSettings,
        cache: &Cache,
        models: &[ModelSource],
    ) -> Result<Self, SandboxError> {
        let host = |error: wasmtime::Error| SandboxError::Host(format!("{error:#}"));
        let door = if settings.native_kernels {
            Door::Cell
        } else {
            Door::PureCell
        };
        let slots = Slots::new(image, settings.wipe);
        let code = Code {
            guest: settings.guest.guest(),
            door,
            cache,
        };
        let (engine, module) = code.module(&slots, models)?;
        let mut linker = Linker::new(&engine);
        if settings.native_kernels {
            native_kernels::define(&mut linker).map_err(host)?;
        }
        let instance = linker.instantiate_pre(&module).map_err(host)?;
        let export = |name: &str| {
            let found = module.get_export_index(name);
            found.ok_or_else(|| SandboxError::Host(format!("the guest has no export {name}")))
        };
        let exports = Exports {
            memory: export("memory")?,
            alloc: export("lethe_alloc")?,
            load: export("lethe_load")?,
            handle: export("lethe_handle")?,
        };
        deadline::tick(&engine);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            engine,
            shared: Arc::new(Shared {
                env: settings.env.clone(),
                slots,
            }),
            instance,
            exports,
            limits: settings.limits,
            most_opened: settings.limits.instances.min(processors),
            faults: Whose::of_threads(settings.env.threads.count()),
            opened: Mutex::default(),
            running: Mutex::new(0),
            finished: Condvar::new(),
            notes: Notes::default(),
        })
    }

    /// What the guests had to say besides their answers.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.all()
    }

    pub(super) fn image(&self) -> &Image {
        self.shared.slots.image()
    }

    pub(super) fn scans_pagemap(&self) -> bool {
        self.shared.slots.scans_pagemap()
    }

    /// Answers a message in a fresh instance, shows its memory to `inspect`, and drops it.
    pub(super) fn call(
        &self,
        message: &[u8],
        control: &CallControl,
        inspect: &mut dyn FnMut(&[u8]),
    ) -> (Result<Zeroizing<Vec<u8>>, CellError>, CallReport) {
        let _turn = self.turn();
        let start = Instant::now();
        let opened = self.opened().pop();
        let mut cell = match opened.map_or_else(|| self.instantiate(), Ok) {
            Ok(cell) => cell,
            Err(error) => return (Err(error), CallReport::default()),
        };
        // An instance is opened without a write to its memory, so all of them are made in here.
        let faults = self.faults.count();
        let answer = self.answer(&mut cell, message, control);
        inspect(cell.memory());
        if faults.is_some() && faults == self.faults.count() {
            no_new_pages();
        }
        drop(cell);
        let report = CallReport {
            wiped: last_wipe(),
            elapsed: start.elapsed(),
        };
        (answer, report)
    }

    /// Gives an instance its time and memory for the next call.
    pub(super) fn begin(&self, cell: &mut Cell, control: &CallControl) {
        let state = cell.store.data_mut();
        state.began = Instant::now();
        state.deadline = state.began + self.limits.deadline;
        state.memory_limit_bytes = self.limits.memory_bytes;
        (state.memory_denied, state.computed) = (false, false);
        state.control(control);
    }

    /// Answers a message in an instance that is kept.
    pub(super) fn call_again(
        &self,
        cell: &mut Cell,
        message: &[u8],
        control: &CallControl,
    ) -> Result<Zeroizing<Vec<u8>>, CellError> {
        let _turn = self.turn();
        self.answer(cell, message, control)
    }

    /// Answers a message and wipes what is left of it outside of the instance.
    fn answer(
        &self,
        cell: &mut Cell,
        message: &[u8],
        control: &CallControl,
    ) -> Result<Zeroizing<Vec<u8>>, CellError> {
        self.begin(cell, control);
        let answer = self.handle(cell, message);
        answer.iter().for_each(|answer| self.notes.take(answer));
        stack::wipe();
        if cell.store.data().computed {
            scratch::wipe(&self.shared.env.threads);
        }
        answer
    }

    /// Opens the instance of a request to come, so that this request need not wait for it. One is
    /// enough for each processor.
    pub(super) fn open_ahead(&self) {
        if self.opened().len() < self.most_opened {
            // What is missing, the request will say.
            if let Ok(cell) = self.instantiate() {
                self.opened().push(cell);
            }
        }
    }

    fn opened(&self) -> MutexGuard<'_, Vec<Cell>> {
        // Instances are pushed and popped whole.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance that takes messages to load models, all within the time of one call.
    pub(super) fn loader(&self) -> Result<Cell, CellError> {
        let mut loader = self.instantiate_for(&self.exports.load)?;
        self.begin(&mut loader, &CallControl::default());
        Ok(loader)
    }

    /// A fresh instance. Its time begins with its first call.
    pub(super) fn instantiate(&self) -> Result<Cell, CellError> {
        self.instantiate_for(&self.exports.handle)
    }

    fn instantiate_for(&self, answer: &ModuleExport) -> Result<Cell, CellError> {
        let host = |error: wasmtime::Error| CellError::Host {
            reason: format!("{error:#}"),
        };
        let missing = |name: &str| CellError::Host {
            reason: format!("no export {name}"),
        };
        let now = Instant::now();
        let state = CellState {
            shared: self.shared.clone(),
            computed: false,
            memory_limit_bytes: self.limits.memory_bytes,
            memory_denied: false,
            began: now,
            deadline: now,
            stop: Arc::default(),
            stop_of_kernels: Stop::default(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| state);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            Ok(match store.data().may_go_on() {
                true => UpdateDeadline::Continue(1),
                false => UpdateDeadline::Interrupt,
            })
        });
        let instance = self.instance.instantiate(&mut store).map_err(host)?;
        let exports = &self.exports;
        let memory = instance.get_module_export(&mut store, &exports.memory);
        let memory = memory.and_then(wasmtime::Extern::into_memory);
        let mut function = |export: &ModuleExport| {
            instance
                .get_module_export(&mut store, export)
                .and_then(wasmtime::Extern::into_func)
        };
        let alloc = function(&exports.alloc).ok_or_else(|| missing("lethe_alloc"))?;
        let answer = function(answer).ok_or_else(|| missing("lethe_handle"))?;
        Ok(Cell {
            memory: memory.ok_or_else(|| missing("memory"))?,
            alloc: alloc.typed(&store).map_err(host)?,
            answer: answer.typed(&store).map_err(host)?,
            store,
        })
    }

    /// Hands a message to an instance and copies its answer out.
    pub(super) fn handle(
        &self,
        cell: &mut Cell,
        message: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CellError> {
        let len = u32::try_from(message.len());
        let len = len.map_err(|_| CellError::Memory {
            limit_bytes: self.limits.memory_bytes,
        })?;
        let address = cell.alloc.call(&mut cell.store, len);
        let address = address.map_err(|error| self.stopped(cell, &error))? as usize;
        let memory = cell.memory.data_mut(&mut cell.store);
        let room = memory
            .get_mut(address..)
            .and_then(|rest| rest.get_mut(..message.len()));
        room.ok_or(CellError::Contract)?.copy_from_slice(message);
        let place = cell.answer.call(&mut cell.store, ());
        let place = place.map_err(|error| self.stopped(cell, &error))?;
        let (address, len) = (
            (place >> 32) as usize,
            (place & u64::from(u32::MAX)) as usize,
        );
        let memory = cell.memory.data(&cell.store);
        let answer = memory.get(address..).and_then(|rest| rest.get(..len));
        Ok(Zeroizing::new(answer.ok_or(CellError::Contract)?.to_vec()))
    }

    fn stopped(&self, cell: &Cell, error: &wasmtime::Error) -> CellError {
        let state = cell.store.data();
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) if Instant::now() < state.deadline => CellError::Stopped,
            Some(Trap::Interrupt) => CellError::Deadline {
                limit: state.deadline - state.began,
            },
            _ if state.memory_denied => CellError::Memory {
                limit_bytes: state.memory_limit_bytes,
            },
            Some(trap) => CellError::Trap {
                reason: trap.to_string(),
            },
            None => CellError::Host {
                reason: error.to_string(),
            },
        }
    }

    /// Waits until fewer instances run than may.
    fn turn(&self) -> Turn<'_> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |running: &mut usize| *running >= self.limits.instances;
        let running = self.finished.wait_while(running, full);
        *running.unwrap_or_else(PoisonError::into_inner) += 1;
        Turn(self)
    }
}

/// A place among the running instances.
struct Turn<'a>(&'a Cells);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.finished.notify_one();
    }
}
