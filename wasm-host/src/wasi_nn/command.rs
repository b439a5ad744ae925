//! A WASI 0.2 command (`wasi:cli/run`) with `wasi:nn`.
//!
//! The guest has its arguments, the standard streams, clocks and randomness: no files, no
//! environment and no network. Its store lives for one run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, OptLevel, ResourceLimiter, Store, Trap};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::error::NnError;
use super::holdings::HoldingLimits;
use super::interfaces::{HasWasiNn, WasiNn, WasiNnView, add_to_linker};
use super::models::Models;
use lethe_sandbox::deadline;

/// Most resources of all kinds that a guest holds, errors and streams among them.
const MOST_RESOURCES: usize = 10_000;
/// Most core instances, memories and tables in one component.
const MOST_PARTS: usize = 64;
/// Most elements of a table.
const MOST_ELEMENTS: usize = 1_000_000;

/// What one run of a guest may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLimits {
    /// Time, in steps of 10 ms; what the guest waits for and what it computes count alike.
    pub time: Duration,
    /// Bytes of all of its linear memories together.
    pub memory_bytes: u64,
    /// What it may hold through `wasi:nn`.
    pub holdings: HoldingLimits,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(300),
            memory_bytes: 1 << 30,
            holdings: HoldingLimits::default(),
        }
    }
}

/// Where a guest reads and writes.
#[derive(Debug, Clone)]
pub enum Streams {
    /// This process's own standard streams.
    Inherited,
    /// Memory.
    Memory {
        /// What it reads.
        input: Bytes,
        /// Most bytes that it may write to either of its streams.
        most_bytes: usize,
    },
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: u8,
    /// What it wrote to its standard output, where that was memory.
    pub output: Bytes,
    /// What it wrote to its standard error, where that was memory.
    pub errors: Bytes,
}

/// Why a guest did not come to its own end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandRunError {
    /// The bytes are no component, or one that needs what is not offered.
    #[error("expected a WASI 0.2 command component: {reason}")]
    Unfit {
        /// What was found.
        reason: String,
    },
    /// Its time was up.
    #[error("the guest took longer than {limit:?}")]
    Deadline {
        /// The time it had.
        limit: Duration,
    },
    /// It ended because it did not get more memory.
    #[error("the guest needs more memory than the limit of {limit_bytes} bytes")]
    Memory {
        /// The memory it may have.
        limit_bytes: u64,
    },
    /// It held more than it may, where `wasi:nn` has no error to give.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// It did what wasm forbids, or gave up.
    #[error("the guest stopped: {reason}")]
    Trap {
        /// What it did.
        reason: String,
    },
    /// The host could not do its part.
    #[error("cannot run components: {reason}")]
    Host {
        /// What was missing.
        reason: String,
    },
}

impl CommandRunError {
    /// A stable code that every door shows.
    pub fn code(&self) -> &str {
        match self {
            Self::Unfit { .. } => "LETHE-COMPONENT",
            Self::Deadline { .. } => "LETHE-DEADLINE",
            Self::Memory { .. } => "LETHE-MEMORY-LIMIT",
            Self::Nn(error) => error.lethe_code(),
            Self::Trap { .. } => "LETHE-COMPONENT-TRAP",
            Self::Host { .. } => "LETHE-SANDBOX",
        }
    }
}

/// What the host keeps beside a guest.
struct GuestState {
    wasi: WasiCtx,
    nn: WasiNn,
    table: ResourceTable,
    memory: GuestMemory,
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl HasWasiNn for GuestState {
    fn wasi_nn(&mut self) -> WasiNnView<'_> {
        WasiNnView {
            nn: &mut self.nn,
            table: &mut self.table,
        }
    }
}

/// The linear memories of a guest.
struct GuestMemory {
    limit_bytes: u64,
    used_bytes: u64,
    denied: bool,
}

impl ResourceLimiter for GuestMemory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Memories never shrink while the store lives.
        let used = self.used_bytes + (desired - current) as u64;
        let allowed = used <= self.limit_bytes;
        match allowed {
            true => self.used_bytes = used,
            false => self.denied = true,
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MOST_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MOST_PARTS
    }

    fn tables(&self) -> usize {
        MOST_PARTS
    }

    fn memories(&self) -> usize {
        MOST_PARTS
    }
}

/// A compiled command; every run is a new instance.
pub struct Command {
    engine: Engine,
    command: CommandPre<GuestState>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").finish_non_exhaustive()
    }
}

impl Command {
    /// Compiles a component.
    ///
    /// # Errors
    /// When the bytes are none, or it imports what is not offered.
    pub fn new(component: &[u8]) -> Result<Self, CommandRunError> {
        let host = |error: wasmtime::Error| CommandRunError::Host {
            reason: format!("{error:#}"),
        };
        let unfit = |error: wasmtime::Error| CommandRunError::Unfit {
            reason: format!("{error:#}"),
        };
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::Speed)
            .epoch_interruption(true)
            // What a guest spilled is not left for the next one.
            .async_stack_zeroing(true)
            // A trap is reported by its kind: there is nobody to read a guest's backtrace.
            .wasm_backtrace_max_frames(None)
            .generate_address_map(false);
        let engine = Engine::new(&config).map_err(host)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(host)?;
        add_to_linker(&mut linker).map_err(host)?;
        let component = Component::from_binary(&engine, component).map_err(unfit)?;
        let instance = linker.instantiate_pre(&component).map_err(unfit)?;
        let command = CommandPre::new(instance).map_err(unfit)?;
        Ok(Self { engine, command })
    }

    /// Runs the command on a runtime of its own.
    ///
    /// # Errors
    /// As [`Command::run`].
    pub fn run_blocking(
        &self,
        arguments: &[String],
        streams: &Streams,
        models: &Arc<Models>,
        limits: &CommandLimits,
    ) -> Result<Ended, CommandRunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| CommandRunError::Host {
            reason: error.to_string(),
        })?;
        let ended = runtime.block_on(self.run(arguments, streams, models, limits));
        // A load that was given up goes on to its end; nobody waits for it.
        runtime.shutdown_background();
        ended
    }

    /// Runs the command in a new instance. The first of `arguments` is the program's name.
    ///
    /// # Errors
    /// When the guest traps, or uses more than it may.
    pub async fn run(
        &self,
        arguments: &[String],
        streams: &Streams,
        models: &Arc<Models>,
        limits: &CommandLimits,
    ) -> Result<Ended, CommandRunError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(arguments)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        let written = match streams {
            Streams::Inherited => {
                wasi.inherit_stdio();
                None
            }
            Streams::Memory { input, most_bytes } => {
                let pipes = [(); 2].map(|()| MemoryOutputPipe::new(*most_bytes));
                wasi.stdin(MemoryInputPipe::new(input.clone()))
                    .stdout(pipes[0].clone())
                    .stderr(pipes[1].clone());
                Some(pipes)
            }
        };
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_RESOURCES);
        let state = GuestState {
            wasi: wasi.build(),
            nn: WasiNn::new(models.clone(), limits.holdings),
            table,
            memory: GuestMemory {
                limit_bytes: limits.memory_bytes,
                used_bytes: 0,
                denied: false,
            },
        };
        let code = self.run_in(state, limits).await?;
        let [output, errors] = match written {
            Some(pipes) => pipes.map(|pipe| pipe.contents()),
            None => [Bytes::new(), Bytes::new()],
        };
        Ok(Ended {
            code,
            output,
            errors,
        })
    }

    async fn run_in(
        &self,
        state: GuestState,
        limits: &CommandLimits,
    ) -> Result<u8, CommandRunError> {
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        // What one call may bring is no more than what may be held.
        store.set_hostcall_fuel(usize::try_from(limits.holdings.bytes).unwrap_or(usize::MAX));
        store.set_max_component_handles(MOST_RESOURCES);
        // At every tick the guest lets the clock of `timeout` be looked at.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        deadline::tick(&self.engine);
        let run = async {
            let command = self.command.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await
        };
        let ended = tokio::time::timeout(limits.time, run).await;
        let Ok(ended) = ended else {
            return Err(CommandRunError::Deadline { limit: limits.time });
        };
        let error = match ended {
            Ok(Ok(())) => return Ok(0),
            Ok(Err(())) => return Ok(1),
            Err(error) => error,
        };
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Ok(u8::try_from(*code).unwrap_or(u8::MAX));
        }
        if store.data().memory.denied {
            let limit_bytes = limits.memory_bytes;
            return Err(CommandRunError::Memory { limit_bytes });
        }
        let reason = match error.downcast::<NnError>() {
            Ok(error) => return Err(error.into()),
            Err(error) => match error.downcast_ref::<Trap>() {
                Some(trap) => trap.to_string(),
                None => error.root_cause().to_string(),
            },
        };
        Err(CommandRunError::Trap { reason })
    }
}
