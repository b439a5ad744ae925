//! Running a plan on a device other than the CPU, with the CPU for what the device lacks.
//!
//! For the shapes of a layout each step is compiled by the device or left to the CPU, with the
//! reason. Tensors stay where they were made until somebody on the other side reads them: then
//! they are copied across once. Buffers of the device go back to a pool after their last use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::layout::{Layout, Place, StepKind};
use super::{Plan, RunOptions, Step};
use crate::device::{Device, Meta, Request};
use crate::error::{Error, OpError};
use crate::graph::ValueId;
use crate::limits;
use crate::operator::InputValue;
use crate::tensor::{SharedBytes, Tensor, Value};

/// Where a step runs.
#[derive(Debug)]
enum Where<K> {
    /// On the device.
    Device(K),
    /// On the CPU, for this reason.
    Cpu(String),
    /// Nowhere: its outputs follow from shapes, or are its input under another shape.
    Nowhere,
}

/// Which step runs where, for the shapes of one layout.
#[derive(Debug)]
pub struct Placement<D: Device> {
    layout: Arc<Layout>,
    steps: Vec<Where<D::Kernel>>,
    /// For each step, the values that nobody reads after it.
    release: Vec<Vec<ValueId>>,
}

/// Memory on a device that runs of one plan share: its constants, and buffers for the next run.
#[derive(Debug)]
pub struct DeviceMemory<D: Device> {
    constants: Mutex<BTreeMap<ValueId, Arc<D::Buffer>>>,
    idle: Mutex<Vec<Arc<D::Buffer>>>,
}

impl<D: Device> Default for DeviceMemory<D> {
    fn default() -> Self {
        Self {
            constants: Mutex::default(),
            idle: Mutex::default(),
        }
    }
}

impl<D: Device> DeviceMemory<D> {
    /// A buffer for a tensor: the smallest idle one is not sought, the first that fits will do.
    fn take(&self, device: &D, len_bytes: usize) -> Result<Arc<D::Buffer>, Error> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle
            .iter()
            .position(|buffer| device.fits(buffer, len_bytes))
        {
            Some(at) => Ok(idle.swap_remove(at)),
            None => device.allocate(len_bytes).map(Arc::new),
        }
    }

    fn give(&self, buffer: Arc<D::Buffer>) {
        // An alias may still hold it; then the alias gives it back.
        if Arc::strong_count(&buffer) == 1 {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(buffer);
        }
    }

    /// Overwrites all idle buffers with zeros.
    ///
    /// # Errors
    /// [`Error::Device`] where the device is lost.
    pub fn wipe(&self, device: &D) -> Result<(), Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().try_for_each(|buffer| device.wipe(buffer))
    }
}

/// A device with what runs of one plan keep on it.
#[derive(Debug)]
pub struct Placed<D: Device> {
    device: Arc<D>,
    memory: DeviceMemory<D>,
    placements: Mutex<Vec<Arc<Placement<D>>>>,
}

impl<D: Device> Placed<D> {
    /// A plan's memory on a device, empty.
    pub fn new(device: Arc<D>) -> Self {
        Self {
            device,
            memory: DeviceMemory::default(),
            placements: Mutex::default(),
        }
    }

    /// The device's name.
    pub fn name(&self) -> &'static str {
        self.device.name()
    }

    /// Which step of the plan runs where, for inputs of these shapes.
    ///
    /// # Errors
    /// When the shapes do not fit an operator.
    pub fn placement(
        &self,
        plan: &Plan,
        inputs: &[InputValue<'_>],
        options: RunOptions<'_>,
    ) -> Result<Arc<Placement<D>>, Error> {
        let layout = plan.layout(inputs, options)?;
        let mut placements = self
            .placements
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = placements.iter().find(|p| Arc::ptr_eq(&p.layout, &layout)) {
            return Ok(found.clone());
        }
        // A layout that the plan has let go will not come again.
        placements.retain(|p| Arc::strong_count(&p.layout) > 1);
        let placement = Arc::new(Placement::new(plan, layout, &*self.device));
        placements.push(placement.clone());
        Ok(placement)
    }

    /// Runs the plan and gives its outputs.
    ///
    /// # Errors
    /// Those of the nodes and of the device, and cancellation.
    pub async fn run(
        &self,
        plan: &Plan,
        inputs: &[InputValue<'_>],
        options: RunOptions<'_>,
    ) -> Result<Vec<Value>, Error> {
        let placement = self.placement(plan, inputs, options)?;
        placement
            .run(plan, &self.device, &self.memory, inputs, options)
            .await
    }

    /// Overwrites with zeros the device memory that finished runs left for the next ones.
    ///
    /// # Errors
    /// [`Error::Device`] where the device is lost.
    pub fn wipe(&self) -> Result<(), Error> {
        self.memory.wipe(&self.device)
    }
}

impl<D: Device> Placement<D> {
    /// Places the steps of a plan for a layout.
    pub(super) fn new(plan: &Plan, layout: Arc<Layout>, device: &D) -> Self {
        let steps = plan
            .steps
            .iter()
            .zip(&layout.steps)
            .map(|(step, kind)| match kind {
                StepKind::Known | StepKind::Alias => Where::Nowhere,
                StepKind::Dynamic => Where::Cpu("sizes depend on data".into()),
                StepKind::Planned { .. } if !step.subplans.is_empty() => {
                    Where::Cpu("it has subgraphs".into())
                }
                StepKind::Planned { .. } => match request(plan, &layout, step) {
                    None => Where::Cpu("an input's size depends on data".into()),
                    Some(request) => match device.compile(&request) {
                        Ok(kernel) => Where::Device(kernel),
                        Err(reason) => Where::Cpu(reason),
                    },
                },
            })
            .collect();
        Self {
            release: releases(plan),
            layout,
            steps,
        }
    }

    /// For each step that runs: its index in the plan, and why it runs on the CPU, if it does.
    pub fn steps(&self) -> impl Iterator<Item = (usize, Option<&str>)> {
        self.steps
            .iter()
            .enumerate()
            .filter_map(|(i, place)| match place {
                Where::Device(_) => Some((i, None)),
                Where::Cpu(reason) => Some((i, Some(reason.as_str()))),
                Where::Nowhere => None,
            })
    }

    /// Runs the plan on inputs of the layout's shapes and gives its outputs.
    ///
    /// # Errors
    /// Those of the nodes and of the device, and cancellation.
    pub async fn run(
        &self,
        plan: &Plan,
        device: &D,
        memory: &DeviceMemory<D>,
        inputs: &[InputValue<'_>],
        options: RunOptions<'_>,
    ) -> Result<Vec<Value>, Error> {
        let mut run = PlacedRun {
            placement: self,
            plan,
            device,
            memory,
            host: vec![None; plan.values.len()],
            buffers: (0..plan.values.len()).map(|_| None).collect(),
        };
        for (id, input) in plan.inputs.iter().zip(inputs) {
            run.host[id.index()] = input.to_value();
        }
        for (i, step) in plan.steps.iter().enumerate() {
            if limits::is_stopped() {
                return Err(Error::Cancelled);
            }
            run.step(i, step, options)
                .await
                .map_err(|error| match error {
                    Error::Device { device, reason } => Error::Node {
                        node: Box::new((*step.name).clone()),
                        source: OpError::Device { device, reason },
                    },
                    other => other,
                })?;
            for id in &self.release[i] {
                run.release(*id);
            }
        }
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        for id in &plan.outputs {
            outputs.push(run.bring_to_host(*id).await?);
        }
        let made = (0..plan.values.len() as u32).map(ValueId);
        made.for_each(|id| run.release(id));
        Ok(outputs)
    }
}

/// What a device is told of a step; `None` where the size of a tensor is not known.
fn request<'a>(plan: &'a Plan, layout: &'a Layout, step: &'a Step) -> Option<Request<'a>> {
    let meta = |id: ValueId| {
        let value = &layout.values[id.index()];
        (value.place != Place::Dynamic).then(|| Meta {
            data_type: value.data_type,
            shape: &value.shape,
            value: match value.place {
                Place::Constant => plan.constants.get(&id),
                Place::Known(i) => layout.known.get(i),
                _ => None,
            },
        })
    };
    let metas = |ids: &[Option<ValueId>]| -> Option<Vec<Option<Meta<'a>>>> {
        ids.iter()
            .map(|id| id.map_or(Some(None), |id| meta(id).map(Some)))
            .collect()
    };
    Some(Request {
        domain: &step.name.domain,
        op_type: &step.name.op_type,
        opset: step.name.opset,
        attributes: &step.attributes,
        operator: &step.operator,
        inputs: metas(&step.inputs)?,
        outputs: metas(&step.outputs)?,
    })
}

/// For each step, the values whose last reader or maker it is, outputs of the plan left out.
fn releases(plan: &Plan) -> Vec<Vec<ValueId>> {
    let mut last = vec![None; plan.values.len()];
    for (i, step) in plan.steps.iter().enumerate() {
        for id in step.inputs.iter().chain(&step.outputs).flatten() {
            last[id.index()] = Some(i);
        }
    }
    for id in &plan.outputs {
        last[id.index()] = None;
    }
    let mut releases = vec![Vec::new(); plan.steps.len()];
    for (i, step) in last.into_iter().enumerate() {
        if let Some(step) = step {
            releases[step].push(ValueId(i as u32));
        }
    }
    releases
}

/// One run: every value on the host, on the device, on both, or not made yet.
struct PlacedRun<'a, D: Device> {
    placement: &'a Placement<D>,
    plan: &'a Plan,
    device: &'a D,
    memory: &'a DeviceMemory<D>,
    host: Vec<Option<Value>>,
    buffers: Vec<Option<Arc<D::Buffer>>>,
}

impl<D: Device> PlacedRun<'_, D> {
    async fn step(&mut self, i: usize, step: &Step, options: RunOptions<'_>) -> Result<(), Error> {
        match &self.placement.steps[i] {
            Where::Nowhere => self.alias(i, step),
            Where::Device(kernel) => self.on_device(step, kernel),
            Where::Cpu(_) => self.on_cpu(step, options).await,
        }
    }

    /// Gives the output of an alias what its input has; known values are read where they are.
    fn alias(&mut self, i: usize, step: &Step) -> Result<(), Error> {
        let (StepKind::Alias, Some(Some(input)), Some(Some(output))) = (
            self.placement.layout.steps[i],
            step.inputs.first(),
            step.outputs.first(),
        ) else {
            return Ok(());
        };
        let shape = &self.placement.layout.values[output.index()].shape;
        self.buffers[output.index()] = self.buffers[input.index()].clone();
        self.host[output.index()] = match self.known(*input) {
            Some(Value::Tensor(tensor)) => Some(Value::Tensor(
                tensor
                    .reshaped(shape)
                    .map_err(|e| Error::invalid(e.to_string()))?,
            )),
            _ => None,
        };
        Ok(())
    }

    /// A value on the host, without waiting for the device.
    fn known(&self, id: ValueId) -> Option<Value> {
        let known = match self.placement.layout.values[id.index()].place {
            Place::Constant => self.plan.constants.get(&id),
            Place::Known(i) => self.placement.layout.known.get(i),
            _ => None,
        };
        known
            .map(|t| Value::Tensor(t.clone()))
            .or_else(|| self.host[id.index()].clone())
    }

    fn on_device(&mut self, step: &Step, kernel: &D::Kernel) -> Result<(), Error> {
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for id in &step.inputs {
            inputs.push(match id {
                None => None,
                Some(id) => Some(self.bring_to_device(*id)?),
            });
        }
        let mut outputs = Vec::with_capacity(step.outputs.len());
        for id in &step.outputs {
            outputs.push(match id {
                None => None,
                Some(id) => {
                    let buffer = self.memory.take(self.device, self.len_bytes(*id))?;
                    self.buffers[id.index()] = Some(buffer.clone());
                    Some(buffer)
                }
            });
        }
        let inputs: Vec<_> = inputs.iter().map(Option::as_deref).collect();
        let outputs: Vec<_> = outputs.iter().map(Option::as_deref).collect();
        self.device.run(kernel, &inputs, &outputs)
    }

    async fn on_cpu(&mut self, step: &Step, options: RunOptions<'_>) -> Result<(), Error> {
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for id in &step.inputs {
            inputs.push(match id {
                None => None,
                Some(id) => Some(self.bring_to_host(*id).await?),
            });
        }
        let views: Vec<_> = inputs
            .iter()
            .map(|value| value.as_ref().map(InputValue::from_value))
            .collect();
        let outputs = step
            .run_on_heap(0, &views, options, &mut Vec::new())
            .map_err(|source| Error::Node {
                node: Box::new((*step.name).clone()),
                source,
            })?;
        for (id, value) in step.outputs.iter().zip(outputs) {
            if let Some(id) = id {
                self.host[id.index()] = value;
            }
        }
        Ok(())
    }

    fn len_bytes(&self, id: ValueId) -> usize {
        let value = &self.placement.layout.values[id.index()];
        value
            .data_type
            .size_bytes(value.shape.iter().product())
            .unwrap_or(usize::MAX)
    }

    fn bring_to_device(&mut self, id: ValueId) -> Result<Arc<D::Buffer>, Error> {
        if let Some(buffer) = &self.buffers[id.index()] {
            return Ok(buffer.clone());
        }
        let is_constant = self.plan.constants.contains_key(&id);
        if is_constant {
            let constants = self
                .memory
                .constants
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(buffer) = constants.get(&id) {
                return Ok(buffer.clone());
            }
        }
        let value = self.known(id).ok_or_else(|| self.missing(id))?;
        let tensor = value
            .as_tensor()
            .map_err(|e| Error::invalid(e.to_string()))?;
        let buffer = match is_constant {
            true => Arc::new(self.device.allocate(tensor.bytes().len())?),
            false => self.memory.take(self.device, tensor.bytes().len())?,
        };
        self.device.write(&buffer, tensor.bytes())?;
        if is_constant {
            let mut constants = self
                .memory
                .constants
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            constants.insert(id, buffer.clone());
        } else {
            self.buffers[id.index()] = Some(buffer.clone());
        }
        Ok(buffer)
    }

    async fn bring_to_host(&mut self, id: ValueId) -> Result<Value, Error> {
        if let Some(value) = self.known(id) {
            return Ok(value);
        }
        let buffer = self.buffers[id.index()]
            .clone()
            .ok_or_else(|| self.missing(id))?;
        let bytes = self.device.read(&buffer, self.len_bytes(id)).await?;
        let layout = &self.placement.layout.values[id.index()];
        let tensor = Tensor::from_bytes(layout.data_type, &layout.shape, SharedBytes::from(bytes))
            .map_err(|e| Error::invalid(e.to_string()))?;
        self.host[id.index()] = Some(Value::Tensor(tensor.clone()));
        Ok(Value::Tensor(tensor))
    }

    fn release(&mut self, id: ValueId) {
        self.host[id.index()] = None;
        if let Some(buffer) = self.buffers[id.index()].take() {
            self.memory.give(buffer);
        }
    }

    fn missing(&self, id: ValueId) -> Error {
        Error::invalid(format!(
            "value {:?} was not made",
            self.plan.values[id.index()].name
        ))
    }
}
