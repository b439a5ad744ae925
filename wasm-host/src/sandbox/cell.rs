//! One request in one instance.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lethe_engine::kernels::env::Env;
use lethe_engine::kernels::scratch;
use lethe_server::Problem;
use wasmtime::{
    Engine, InstancePre, Linker, Memory, ModuleExport, ResourceLimiter, Store, Trap, TypedFunc,
};
use zeroize::Zeroizing;

use super::cache::Cache;
use super::deadline::Ticker;
use super::image::Image;
use super::slots::{Slots, last_wipe};
use super::{CallReport, SandboxError, SandboxSettings, code, native_kernels, stack};
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
            CellError::Memory { .. } => 422,
            CellError::Trap { .. } | CellError::Contract => 500,
            CellError::Host { .. } => 503,
        };
        Problem::new(status, error.code(), error.to_string())
    }
}

/// What the host keeps beside an instance.
pub(super) struct CellState {
    /// What native kernels compute with.
    pub(super) env: Env,
    /// Whether they did.
    pub(super) computed: bool,
    memory_limit_bytes: usize,
    memory_denied: bool,
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
    slots: Arc<Slots>,
    image: Arc<Image>,
    instance: InstancePre<CellState>,
    exports: Exports,
    limits: Limits,
    env: Env,
    ticker: Ticker,
    running: Mutex<usize>,
    finished: Condvar,
}

impl Cells {
    pub(super) fn new(
        image: Arc<Image>,
        settings: &SandboxSettings,
        cache: &Cache,
    ) -> Result<Self, SandboxError> {
        let host = |error: wasmtime::Error| SandboxError::Host(format!("{error:#}"));
        let door = if settings.native_kernels {
            Door::Cell
        } else {
            Door::PureCell
        };
        let slots = Slots::new(image.clone(), settings.wipe);
        let engine = code::engine(slots.clone()).map_err(host)?;
        let module = code::module(&engine, settings.guest.guest(), door, cache)?;
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
        Ok(Self {
            ticker: Ticker::start(&engine),
            engine,
            slots,
            image,
            instance,
            exports,
            limits: settings.limits,
            env: settings.env.clone(),
            running: Mutex::new(0),
            finished: Condvar::new(),
        })
    }

    pub(super) fn image(&self) -> &Image {
        &self.image
    }

    pub(super) fn scans_pagemap(&self) -> bool {
        self.slots.scans_pagemap()
    }

    /// Answers a message in a fresh instance, shows its memory to `inspect`, and drops it.
    pub(super) fn call(
        &self,
        message: &[u8],
        inspect: &mut dyn FnMut(&[u8]),
    ) -> Result<(Zeroizing<Vec<u8>>, CallReport), CellError> {
        let _turn = self.turn();
        let start = Instant::now();
        let mut cell = self.instantiate()?;
        let answer = self.handle(&mut cell, message);
        inspect(cell.memory());
        let computed = cell.store.data().computed;
        drop(cell);
        stack::wipe();
        if computed {
            scratch::wipe(&self.env.threads);
        }
        let report = CallReport {
            wiped: last_wipe(),
            elapsed: start.elapsed(),
        };
        Ok((answer?, report))
    }

    /// An instance that takes messages to load models.
    pub(super) fn loader(&self) -> Result<Cell, CellError> {
        self.instantiate_for(&self.exports.load)
    }

    /// A fresh instance.
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
        let state = CellState {
            env: self.env.clone(),
            computed: false,
            memory_limit_bytes: self.limits.memory_bytes,
            memory_denied: false,
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| state);
        // No code runs before a message comes; `handle` sets the real deadline.
        store.set_epoch_deadline(u64::MAX / 2);
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
        cell.store
            .set_epoch_deadline(self.ticker.ticks(self.limits.deadline));
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
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => CellError::Deadline {
                limit: self.limits.deadline,
            },
            _ if cell.store.data().memory_denied => CellError::Memory {
                limit_bytes: self.limits.memory_bytes,
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
