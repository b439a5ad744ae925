//! The CPU as a device: buffers are host memory, kernels are the operators themselves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Device, Request};
use crate::error::{Error, OpError};
use crate::kernels::env::Env;
use crate::operator::{InputValue, NoSubgraphs, Operator, OutputSlot, RunContext};
use crate::tensor::{Buffer, DataType, Shape, TensorView, TensorViewMut};

/// The CPU.
#[derive(Debug, Clone)]
pub struct Cpu {
    env: Env,
}

impl Cpu {
    /// The CPU with its instruction set, numerics and threads.
    pub fn new(env: Env) -> Self {
        Self { env }
    }
}

/// An operator with the types and shapes of its tensors.
#[derive(Debug)]
pub struct CpuKernel {
    operator: Arc<dyn Operator>,
    inputs: Vec<Option<(DataType, Shape)>>,
    outputs: Vec<Option<(DataType, Shape)>>,
}

/// Host memory.
#[derive(Debug)]
pub struct CpuBuffer(Mutex<Buffer>);

impl CpuBuffer {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Cpu {
    type Buffer = CpuBuffer;
    type Kernel = CpuKernel;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn compile(&self, request: &Request<'_>) -> Result<CpuKernel, String> {
        let of = |metas: &[Option<super::Meta<'_>>]| {
            metas
                .iter()
                .map(|m| m.map(|m| (m.data_type, Shape::from_slice(m.shape))))
                .collect()
        };
        Ok(CpuKernel {
            operator: request.operator.clone(),
            inputs: of(&request.inputs),
            outputs: of(&request.outputs),
        })
    }

    fn allocate(&self, len_bytes: usize) -> Result<CpuBuffer, Error> {
        Ok(CpuBuffer(Mutex::new(Buffer::try_zeroed(len_bytes)?)))
    }

    fn fits(&self, buffer: &CpuBuffer, len_bytes: usize) -> bool {
        buffer.lock().len() >= len_bytes
    }

    fn write(&self, buffer: &CpuBuffer, bytes: &[u8]) -> Result<(), Error> {
        buffer.lock()[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    async fn read(&self, buffer: &CpuBuffer, len_bytes: usize) -> Result<Vec<u8>, Error> {
        Ok(buffer.lock()[..len_bytes].to_vec())
    }

    fn run(
        &self,
        kernel: &CpuKernel,
        inputs: &[Option<&CpuBuffer>],
        outputs: &[Option<&CpuBuffer>],
    ) -> Result<(), Error> {
        let size = |t: &DataType, shape: &Shape| {
            t.size_bytes(shape.iter().product()).unwrap_or(usize::MAX)
        };
        // Inputs are copied: one buffer may be several inputs, and a lock is held but once.
        let copies: Vec<Option<Buffer>> = inputs
            .iter()
            .zip(&kernel.inputs)
            .map(|(buffer, meta)| {
                let (data_type, shape) = meta.as_ref()?;
                Some(Buffer::copy_of(
                    &(*buffer)?.lock()[..size(data_type, shape)],
                ))
            })
            .collect();
        let views: Vec<Option<InputValue<'_>>> = copies
            .iter()
            .zip(&kernel.inputs)
            .map(|(bytes, meta)| {
                let (data_type, shape) = meta.as_ref()?;
                let view = TensorView::from_bytes(*data_type, shape, bytes.as_ref()?);
                Some(InputValue::Tensor(view))
            })
            .collect();
        let mut guards: Vec<Option<MutexGuard<'_, Buffer>>> = outputs
            .iter()
            .map(|buffer| buffer.map(CpuBuffer::lock))
            .collect();
        let slots = guards
            .iter_mut()
            .zip(&kernel.outputs)
            .map(|(guard, meta)| match (guard, meta) {
                (Some(guard), Some((data_type, shape))) => {
                    let bytes = &mut guard[..size(data_type, shape)];
                    OutputSlot::Sized(TensorViewMut::from_bytes(*data_type, shape, bytes))
                }
                _ => OutputSlot::Unwanted,
            })
            .collect();
        let mut none = NoSubgraphs;
        let mut ctx = RunContext::new(&self.env, &views, slots, &mut none);
        kernel
            .operator
            .run(&mut ctx)
            .map_err(|e: OpError| Error::Device {
                device: "cpu",
                reason: e.to_string(),
            })
    }

    fn wipe(&self, buffer: &CpuBuffer) -> Result<(), Error> {
        buffer.lock().fill(0);
        Ok(())
    }
}
