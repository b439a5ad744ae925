//! How a model is run, as the command line says it.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

use lethe_engine::kernels::env::Env;
use lethe_engine::kernels::threads::ThreadsError;
use lethe_engine::session::DeviceChoice;
use lethe_engine::{Budget, Level, Numerics, SessionOptions, Threads};
use lethe_sandbox::model_file::ModelFile;
use lethe_sandbox::{Limits, SandboxSettings};

use crate::machine;

/// Where kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU through WebGPU's interface.
    Webgpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// What is around a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Nothing: the engine runs in this process.
    None,
    /// A fresh WebAssembly instance.
    Sandbox,
}

/// A setting with a value that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found `{found}`")]
pub struct SettingError {
    expected: &'static str,
    found: String,
}

macro_rules! named {
    ($type:ty, $expected:literal, $($name:literal => $variant:expr),*) => {
        impl FromStr for $type {
            type Err = SettingError;
            fn from_str(name: &str) -> Result<Self, SettingError> {
                match name {
                    $($name => Ok($variant),)*
                    _ => Err(SettingError { expected: $expected, found: name.into() }),
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(if *self == $variant { return f.write_str($name); })*
                Ok(())
            }
        }
    };
}

named!(Device, "cpu, webgpu or cuda",
    "cpu" => Device::Cpu, "webgpu" => Device::Webgpu, "cuda" => Device::Cuda);
named!(Isolation, "none or sandbox", "none" => Isolation::None, "sandbox" => Isolation::Sandbox);

/// How exactly results are defined: [`Numerics`] with the names of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumericsName(pub Numerics);

named!(NumericsName, "fast or reproducible",
    "fast" => NumericsName(Numerics::Fast),
    "reproducible" => NumericsName(Numerics::Reproducible));

/// The settings that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct RunSettings {
    /// Threads that share the work [default: one a core]
    #[arg(long, global = true, value_name = "N", help_heading = "Running")]
    pub threads: Option<NonZeroUsize>,
    /// Instruction set of the kernels: scalar, avx2, avx512, neon [default: the best one here]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Running")]
    pub kernels: Option<Level>,
    /// Where kernels run: cpu, webgpu, cuda
    #[arg(
        long,
        global = true,
        value_name = "DEVICE",
        default_value_t,
        help_heading = "Running"
    )]
    pub device: Device,
    /// What is around a run: none, sandbox [default: sandbox for serve, none for the others]
    #[arg(
        long,
        global = true,
        value_name = "ISOLATION",
        help_heading = "Running"
    )]
    pub isolation: Option<Isolation>,
    /// No native kernels in the sandbox: the trusted base is the WebAssembly runtime alone
    #[arg(long, global = true, help_heading = "Running")]
    pub pure_wasm: bool,
    /// fast, or reproducible: the same bits on every machine and at every door
    #[arg(
        long,
        global = true,
        value_name = "NUMERICS",
        default_value = "fast",
        help_heading = "Running"
    )]
    pub numerics: NumericsName,
    /// Memory that a model, and each of its runs, may take [default: three quarters of the machine's]
    #[arg(
        long,
        global = true,
        env = "LETHE_MEMORY_MB",
        value_name = "MIB",
        help_heading = "Running"
    )]
    pub memory_mb: Option<NonZeroU32>,
    /// Time that the runs of a command may take in all; for serve see --request-timeout-ms
    #[arg(
        long,
        global = true,
        value_name = "S",
        default_value = "3600",
        help_heading = "Running"
    )]
    pub timeout_s: NonZeroU32,
}

impl RunSettings {
    /// Time that the runs of a command may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s.get().into())
    }

    /// What a model, and each of its runs, may take in this process.
    pub fn budget(&self) -> Budget {
        let given = self.memory_mb.map(|mb| u64::from(mb.get()) << 20);
        let three_quarters = || machine::memory_bytes().map(|bytes| bytes / 4 * 3);
        let default = Budget::default();
        Budget {
            memory_bytes: given
                .or_else(three_quarters)
                .unwrap_or(default.memory_bytes),
            ..default
        }
    }

    /// The instruction set.
    pub fn level(&self) -> Level {
        self.kernels.unwrap_or_else(Level::best)
    }

    /// The number of threads.
    pub fn thread_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }

    /// Settings of a sandbox for runs that a person waits for: they may take their time.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn sandbox_settings(&self) -> Result<SandboxSettings, SettingsError> {
        Ok(SandboxSettings {
            native_kernels: !self.pure_wasm,
            env: Env {
                level: self.level(),
                numerics: self.numerics.0,
                threads: Threads::new(self.thread_count())?,
            },
            limits: Limits {
                deadline: self.timeout(),
                memory_bytes: match self.memory_mb {
                    Some(_) => usize::try_from(self.budget().memory_bytes).unwrap_or(usize::MAX),
                    None => Limits::default().memory_bytes,
                },
                ..Limits::default()
            },
            ..SandboxSettings::default()
        })
    }

    /// The device asked for.
    ///
    /// # Errors
    /// When it is not there.
    pub fn device_choice(&self) -> Result<DeviceChoice, SettingsError> {
        match self.device {
            Device::Cpu => Ok(DeviceChoice::Cpu),
            Device::Webgpu => webgpu(),
            Device::Cuda => Err(SettingsError::NoDevice {
                device: Device::Cuda,
                reason: "this build has no CUDA".into(),
            }),
        }
    }

    /// What the device calls itself: `cpu`, or the name of a GPU.
    ///
    /// # Errors
    /// When it is not there.
    pub fn device_name(&self) -> Result<String, SettingsError> {
        Ok(match self.device_choice()? {
            #[cfg(feature = "webgpu")]
            DeviceChoice::WebGpu(gpu) => format!("webgpu: {}", gpu.adapter()),
            _ => Device::Cpu.to_string(),
        })
    }

    /// From now on no more of the GPU's memory is used, where models run on it.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn limit_gpu_memory(&self, bytes: u64) -> Result<(), SettingsError> {
        let device = self.device_choice()?;
        #[cfg(feature = "webgpu")]
        if let DeviceChoice::WebGpu(gpu) = &device {
            gpu.limit_memory(bytes);
        }
        #[cfg(not(feature = "webgpu"))]
        let _ = (device, bytes);
        Ok(())
    }

    /// Options for a session of a model in this process.
    ///
    /// # Errors
    /// When the device is not there or the threads cannot be started.
    pub fn session_options<'a>(
        &self,
        files: &'a ModelFile,
    ) -> Result<SessionOptions<'a>, SettingsError> {
        Ok(SessionOptions {
            level: self.level(),
            numerics: self.numerics.0,
            threads: Threads::new(self.thread_count())?,
            device: self.device_choice()?,
            budget: self.budget(),
            files,
            ..SessionOptions::default()
        })
    }
}

/// A setting that this machine or build cannot follow.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The threads could not be started.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// The device is not there.
    #[error("device {device} is not available: {reason}")]
    NoDevice {
        /// Which one.
        device: Device,
        /// Why.
        reason: String,
    },
}

/// The machine's GPU, asked for once: all sessions share it.
#[cfg(feature = "webgpu")]
fn webgpu() -> Result<DeviceChoice, SettingsError> {
    use lethe_engine::device::webgpu::WebGpu;
    use std::sync::{Arc, OnceLock};
    static GPU: OnceLock<Result<Arc<WebGpu>, String>> = OnceLock::new();
    let request = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        let gpu = runtime.block_on(WebGpu::request());
        gpu.map(Arc::new).map_err(|e| e.to_string())
    };
    match GPU.get_or_init(request) {
        Ok(gpu) => Ok(DeviceChoice::WebGpu(gpu.clone())),
        Err(reason) => Err(SettingsError::NoDevice {
            device: Device::Webgpu,
            reason: reason.clone(),
        }),
    }
}

#[cfg(not(feature = "webgpu"))]
fn webgpu() -> Result<DeviceChoice, SettingsError> {
    Err(SettingsError::NoDevice {
        device: Device::Webgpu,
        reason: "this build has no WebGPU (cargo's feature `webgpu`)".into(),
    })
}
