//! WebGPU: in a browser, or through Vulkan, Metal or Direct3D natively (by the crate wgpu).
//!
//! Shaders are WGSL files under `webgpu/shaders`, each with the table row that uses it under
//! `webgpu/kernels`. Every dispatch has the same bindings: parameters first, then what it reads,
//! then the one buffer it writes and, for kernels that can fail on data, a flag. Dispatches are
//! recorded and handed to the queue only when something is read back or written.

mod kernels;
mod shader;

pub use kernels::has_kernel;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Device, Request};
use crate::error::Error;
use shader::{Dispatch, Shader, Source};

const NAME: &str = "webgpu";

/// A GPU with its queue and the pipelines made so far.
pub struct WebGpu {
    adapter: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    /// Bytes that tensors hold, and may hold.
    held_bytes: Arc<AtomicU64>,
    most_bytes: AtomicU64,
    pipelines: Mutex<HashMap<PipelineKey, Arc<Pipeline>>>,
    /// Commands recorded and not handed over yet.
    recorded: Mutex<Option<wgpu::CommandEncoder>>,
    /// Stands for absent inputs.
    nothing: wgpu::Buffer,
    /// Not zero once a kernel met data it cannot work with.
    fault: wgpu::Buffer,
    may_fault: AtomicBool,
    /// What the GPU complained of since the last check.
    complaint: Arc<Mutex<Option<String>>>,
}

type PipelineKey = (&'static str, Vec<(&'static str, u64)>);

struct Pipeline {
    compute: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// Memory on the GPU.
#[derive(Debug)]
pub struct GpuBuffer {
    buffer: wgpu::Buffer,
    _share: Share,
}

/// Bytes that count as held until this is dropped.
#[derive(Debug)]
struct Share {
    held_bytes: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A step as dispatches with their pipelines and parameters.
pub struct GpuKernel(Vec<Ready>);

struct Ready {
    pipeline: Arc<Pipeline>,
    parameters: wgpu::Buffer,
    inputs: Vec<Source>,
    output: usize,
    workgroups: [u32; 3],
    reports_faults: bool,
}

impl fmt::Debug for WebGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebGpu({})", self.adapter)
    }
}

impl fmt::Debug for GpuKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuKernel({} dispatches)", self.0.len())
    }
}

fn fail(reason: impl Into<String>) -> Error {
    Error::Device {
        device: NAME,
        reason: reason.into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WebGpu {
    /// The machine's preferred adapter, with the largest buffers it allows.
    ///
    /// # Errors
    /// [`Error::Device`] where there is none or it gives no device.
    pub async fn request() -> Result<Self, Error> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::PRIMARY;
        let instance = wgpu::Instance::new(descriptor);
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..wgpu::RequestAdapterOptions::default()
        };
        let adapter = instance
            .request_adapter(&options)
            .await
            .map_err(|e| fail(format!("no adapter: {e}")))?;
        let offered = adapter.limits();
        let limits = wgpu::Limits {
            max_buffer_size: offered.max_buffer_size,
            max_storage_buffer_binding_size: offered.max_storage_buffer_binding_size,
            ..wgpu::Limits::default()
        };
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("lethe"),
                required_limits: limits.clone(),
                ..wgpu::DeviceDescriptor::default()
            })
            .await
            .map_err(|e| fail(format!("the adapter gives no device: {e}")))?;
        let complaint: Arc<Mutex<Option<String>>> = Arc::default();
        let heard = complaint.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&heard).get_or_insert(error.to_string());
        }));
        let small = |label| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: 16,
                usage: BUFFER_USAGE,
                mapped_at_creation: false,
            })
        };
        let info = adapter.get_info();
        Ok(Self {
            adapter: format!("{} ({:?})", info.name, info.backend),
            nothing: small("nothing"),
            fault: small("fault"),
            device,
            queue,
            limits,
            held_bytes: Arc::default(),
            most_bytes: AtomicU64::new(u64::MAX),
            pipelines: Mutex::default(),
            recorded: Mutex::default(),
            may_fault: AtomicBool::new(false),
            complaint,
        })
    }

    /// From now on tensors, weights among them, are given no more than so many bytes in all.
    pub fn limit_memory(&self, bytes: u64) {
        self.most_bytes.store(bytes, Ordering::Relaxed);
    }

    fn share(&self, bytes: u64) -> Result<Share, Error> {
        let share = Share {
            held_bytes: self.held_bytes.clone(),
            bytes,
        };
        let held = self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        let most = self.most_bytes.load(Ordering::Relaxed);
        if held.saturating_add(bytes) > most {
            return Err(fail(format!(
                "{bytes} bytes beside {held} exceed the limit of {most} bytes on the GPU"
            )));
        }
        Ok(share)
    }

    /// The adapter's name and the interface it is reached by.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// What the GPU complained of since the last call, as an error.
    fn check(&self) -> Result<(), Error> {
        lock(&self.complaint)
            .take()
            .map_or(Ok(()), |what| Err(fail(what)))
    }

    /// Hands recorded commands to the queue.
    fn submit(&self) {
        if let Some(encoder) = lock(&self.recorded).take() {
            self.queue.submit([encoder.finish()]);
        }
    }

    fn record(&self, commands: impl FnOnce(&mut wgpu::CommandEncoder)) {
        let mut recorded = lock(&self.recorded);
        commands(recorded.get_or_insert_with(|| {
            self.device
                .create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
        }));
    }

    fn ready(&self, dispatch: Dispatch) -> Result<Ready, String> {
        let most = self.limits.max_compute_workgroups_per_dimension;
        if dispatch.workgroups.iter().any(|&n| n > most) {
            return Err(format!(
                "{:?} workgroups exceed the GPU's {most}",
                dispatch.workgroups
            ));
        }
        let parameters = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(dispatch.shader.name),
            size: (dispatch.parameters.len().max(4) * 4) as u64,
            usage: BUFFER_USAGE,
            mapped_at_creation: false,
        });
        self.queue
            .write_buffer(&parameters, 0, bytemuck::cast_slice(&dispatch.parameters));
        Ok(Ready {
            pipeline: self.pipeline(&dispatch),
            parameters,
            inputs: dispatch.inputs,
            output: dispatch.output,
            workgroups: dispatch.workgroups,
            reports_faults: dispatch.shader.reports_faults,
        })
    }

    fn pipeline(&self, dispatch: &Dispatch) -> Arc<Pipeline> {
        let Shader {
            name,
            sources,
            reports_faults,
        } = dispatch.shader;
        let key: PipelineKey = (
            name,
            dispatch
                .constants
                .iter()
                .map(|&(n, v)| (n, v.to_bits()))
                .collect(),
        );
        if let Some(pipeline) = lock(&self.pipelines).get(&key) {
            return pipeline.clone();
        }
        let reads = 1 + dispatch.inputs.len() as u32;
        let entry = |binding, read_only| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let written = 1 + u32::from(*reports_faults);
        let entries: Vec<_> = (0..reads + written).map(|b| entry(b, b < reads)).collect();
        let layout = self
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(name),
                entries: &entries,
            });
        let pipeline_layout = self
            .device
            .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(name),
                bind_group_layouts: &[Some(&layout)],
                ..wgpu::PipelineLayoutDescriptor::default()
            });
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(name),
                source: wgpu::ShaderSource::Wgsl(sources.concat().into()),
            });
        let compute = self
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &dispatch.constants,
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            });
        let pipeline = Arc::new(Pipeline { compute, layout });
        lock(&self.pipelines).insert(key, pipeline.clone());
        pipeline
    }

    /// Copies bytes to where the host can map them, and maps them.
    async fn map(&self, buffer: &wgpu::Buffer, len: u64) -> Result<wgpu::Buffer, Error> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: len,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.record(|encoder| encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, Some(len)));
        self.submit();
        let (sender, receiver) = futures_channel::oneshot::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // Nobody listens any more where the run was dropped.
            drop(sender.send(result));
        });
        // Native: wait here. In a browser this does nothing and the event loop answers.
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| fail(format!("waiting for the GPU: {e}")))?;
        match receiver.await {
            Ok(Ok(())) => Ok(staging),
            Ok(Err(e)) => Err(fail(format!("reading back: {e}"))),
            Err(_) => Err(fail("the device was lost")),
        }
    }
}

const BUFFER_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_DST)
    .union(wgpu::BufferUsages::COPY_SRC);

/// Sizes on the GPU are whole words, and never zero.
fn gpu_len(len_bytes: usize) -> u64 {
    (len_bytes.max(1) as u64).next_multiple_of(4)
}

impl Device for WebGpu {
    type Buffer = GpuBuffer;
    type Kernel = GpuKernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn compile(&self, request: &Request<'_>) -> Result<GpuKernel, String> {
        let limit = self.limits.max_storage_buffer_binding_size;
        let metas = request.inputs.iter().chain(&request.outputs).flatten();
        if let Some(large) = metas
            .map(super::Meta::len_bytes)
            .find(|&n| n as u64 > limit)
        {
            return Err(format!(
                "a tensor of {large} bytes exceeds the GPU's {limit}"
            ));
        }
        let dispatches = kernels::dispatches(request)?;
        dispatches
            .into_iter()
            .map(|d| self.ready(d))
            .collect::<Result<_, _>>()
            .map(GpuKernel)
    }

    fn allocate(&self, len_bytes: usize) -> Result<GpuBuffer, Error> {
        let size = gpu_len(len_bytes);
        if size > self.limits.max_buffer_size {
            return Err(fail(format!(
                "a buffer of {size} bytes exceeds the GPU's {}",
                self.limits.max_buffer_size
            )));
        }
        let share = self.share(size)?;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: BUFFER_USAGE,
            mapped_at_creation: false,
        });
        self.check()?;
        Ok(GpuBuffer {
            buffer,
            _share: share,
        })
    }

    fn fits(&self, buffer: &GpuBuffer, len_bytes: usize) -> bool {
        let needed = gpu_len(len_bytes);
        // A small tensor should not hold a large buffer that a later one wants.
        buffer.buffer.size() >= needed && buffer.buffer.size() <= needed.saturating_mul(4)
    }

    fn write(&self, buffer: &GpuBuffer, bytes: &[u8]) -> Result<(), Error> {
        // The queue writes before anything submitted later: what was recorded must go first.
        self.submit();
        let whole = bytes.len() / 4 * 4;
        self.queue.write_buffer(&buffer.buffer, 0, &bytes[..whole]);
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(&buffer.buffer, whole as u64, &last);
        }
        self.check()
    }

    async fn read(&self, buffer: &GpuBuffer, len_bytes: usize) -> Result<Vec<u8>, Error> {
        if self.may_fault.swap(false, Ordering::Relaxed) {
            let staging = self.map(&self.fault, 4).await?;
            let faulty = mapped(&staging, 4)?.iter().any(|&b| b != 0);
            self.record(|encoder| encoder.clear_buffer(&self.fault, 0, None));
            if faulty {
                return Err(fail("an index is out of range"));
            }
        }
        let staging = self.map(&buffer.buffer, gpu_len(len_bytes)).await?;
        self.check()?;
        mapped(&staging, len_bytes)
    }

    fn run(
        &self,
        kernel: &GpuKernel,
        inputs: &[Option<&GpuBuffer>],
        outputs: &[Option<&GpuBuffer>],
    ) -> Result<(), Error> {
        for dispatch in &kernel.0 {
            let mut buffers = vec![&dispatch.parameters];
            for source in &dispatch.inputs {
                buffers.push(match source {
                    Source::Input(i) => inputs
                        .get(*i)
                        .copied()
                        .flatten()
                        .map(|b| &b.buffer)
                        .ok_or_else(|| fail(format!("input {i} has no buffer")))?,
                    Source::Absent => &self.nothing,
                });
            }
            let output = outputs.get(dispatch.output).copied().flatten();
            buffers.push(
                &output
                    .ok_or_else(|| fail("an output has no buffer"))?
                    .buffer,
            );
            if dispatch.reports_faults {
                buffers.push(&self.fault);
                self.may_fault.store(true, Ordering::Relaxed);
            }
            let entries: Vec<_> = buffers
                .iter()
                .enumerate()
                .map(|(i, buffer)| wgpu::BindGroupEntry {
                    binding: i as u32,
                    resource: buffer.as_entire_binding(),
                })
                .collect();
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &dispatch.pipeline.layout,
                entries: &entries,
            });
            self.record(|encoder| {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&dispatch.pipeline.compute);
                pass.set_bind_group(0, &group, &[]);
                let [x, y, z] = dispatch.workgroups;
                pass.dispatch_workgroups(x, y, z);
            });
        }
        Ok(())
    }

    fn wipe(&self, buffer: &GpuBuffer) -> Result<(), Error> {
        self.record(|encoder| encoder.clear_buffer(&buffer.buffer, 0, None));
        self.submit();
        self.check()
    }
}

fn mapped(staging: &wgpu::Buffer, len: usize) -> Result<Vec<u8>, Error> {
    let view = staging
        .get_mapped_range(..)
        .map_err(|e| fail(e.to_string()))?;
    Ok(view[..len].to_vec())
}
