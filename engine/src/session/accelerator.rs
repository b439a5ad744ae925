//! Devices that a session can run on besides the CPU's arena.

use std::sync::Arc;

use crate::device::Cpu;
use crate::error::Error;
use crate::kernels::env::Env;
use crate::operator::InputValue;
use crate::plan::{Placed, Plan, RunOptions};
use crate::tensor::Value;

/// Where a session's nodes run.
#[derive(Debug, Clone, Default)]
pub enum DeviceChoice {
    /// On the CPU, in one arena.
    #[default]
    Cpu,
    /// On the CPU as if it were a device with memory of its own: for testing what runs on devices
    /// where there is none.
    PlacedCpu,
    /// On a GPU, with the CPU for what it lacks.
    #[cfg(feature = "webgpu")]
    WebGpu(Arc<crate::device::webgpu::WebGpu>),
}

/// A device other than the CPU, with what runs keep on it.
#[derive(Debug)]
pub(super) enum Accelerator {
    Cpu(Placed<Cpu>),
    #[cfg(feature = "webgpu")]
    WebGpu(Placed<crate::device::webgpu::WebGpu>),
}

impl Accelerator {
    pub(super) fn new(choice: &DeviceChoice, env: &Env) -> Option<Self> {
        match choice {
            DeviceChoice::Cpu => None,
            DeviceChoice::PlacedCpu => {
                Some(Self::Cpu(Placed::new(Arc::new(Cpu::new(env.clone())))))
            }
            #[cfg(feature = "webgpu")]
            DeviceChoice::WebGpu(gpu) => Some(Self::WebGpu(Placed::new(gpu.clone()))),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Cpu(placed) => placed.name(),
            #[cfg(feature = "webgpu")]
            Self::WebGpu(placed) => placed.name(),
        }
    }

    pub(super) async fn run(
        &self,
        plan: &Plan,
        inputs: &[InputValue<'_>],
        options: RunOptions<'_>,
    ) -> Result<Vec<Value>, Error> {
        match self {
            Self::Cpu(placed) => placed.run(plan, inputs, options).await,
            #[cfg(feature = "webgpu")]
            Self::WebGpu(placed) => placed.run(plan, inputs, options).await,
        }
    }

    /// For each step that runs on data: why it runs on the CPU, if it does.
    pub(super) fn steps(
        &self,
        plan: &Plan,
        inputs: &[InputValue<'_>],
        options: RunOptions<'_>,
    ) -> Result<Vec<(usize, Option<String>)>, Error> {
        fn owned(step: (usize, Option<&str>)) -> (usize, Option<String>) {
            (step.0, step.1.map(Into::into))
        }
        Ok(match self {
            Self::Cpu(placed) => placed
                .placement(plan, inputs, options)?
                .steps()
                .map(owned)
                .collect(),
            #[cfg(feature = "webgpu")]
            Self::WebGpu(placed) => placed
                .placement(plan, inputs, options)?
                .steps()
                .map(owned)
                .collect(),
        })
    }

    pub(super) fn wipe(&self) -> Result<(), Error> {
        match self {
            Self::Cpu(placed) => placed.wipe(),
            #[cfg(feature = "webgpu")]
            Self::WebGpu(placed) => placed.wipe(),
        }
    }
}

/// Where a step of a plan runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepDevice {
    /// Index of the step in the plan.
    pub step: usize,
    /// The device's name.
    pub device: &'static str,
    /// Why it runs on the CPU, where another device was asked for.
    pub reason: Option<String>,
}
