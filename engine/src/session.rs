//! Loading a model and running it.

use bytes::Bytes;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::device::Cpu;
use crate::error::Error;
use crate::graph::dimension::display_dims;
use crate::graph::{self, BuildOptions, Dim, Dims, Graph, ValueId, ValueInfo};
use crate::isa::{Level, Numerics};
use crate::kernels::env::Env;
use crate::kernels::threads::Threads;
use crate::onnx::external_data::{ExternalData, NoExternalData};
use crate::onnx::{self, proto};
use crate::operator::InputValue;
use crate::plan::{Layout, Placed, Plan, Profile, RunOptions, RunState, StepKind};
use crate::rewrite::{self, RewriteReport};
use crate::tensor::{DataType, Tensor, Value, ValueKind};

/// Limits on what a model or a run may take, checked before anything is allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of a run's arena, and of any one tensor.
    pub memory_bytes: u64,
    /// Nodes of a model after functions are inlined.
    pub nodes: usize,
    /// Depth of subgraphs and functions.
    pub nesting: usize,
}

impl Default for Budget {
    fn default() -> Self {
        // A wasm32 guest cannot address more than 4 GiB anyway.
        let memory_bytes = if cfg!(target_pointer_width = "32") {
            3 << 30
        } else {
            64 << 30
        };
        Self {
            memory_bytes,
            nodes: 1_000_000,
            nesting: 64,
        }
    }
}

impl Budget {
    pub(crate) fn check_nesting(&self, depth: usize) -> Result<(), Error> {
        Self::check("nesting", depth, self.nesting)
    }

    pub(crate) fn check_nodes(&self, nodes: usize) -> Result<(), Error> {
        Self::check("nodes", nodes, self.nodes)
    }

    fn check(what: &'static str, needed: usize, limit: usize) -> Result<(), Error> {
        if needed <= limit {
            return Ok(());
        }
        Err(Error::Budget {
            what,
            needed: needed as u64,
            limit: limit as u64,
        })
    }
}

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
enum Accelerator {
    Cpu(Placed<Cpu>),
    #[cfg(feature = "webgpu")]
    WebGpu(Placed<crate::device::webgpu::WebGpu>),
}

impl Accelerator {
    fn new(choice: &DeviceChoice, env: &Env) -> Option<Self> {
        match choice {
            DeviceChoice::Cpu => None,
            DeviceChoice::PlacedCpu => {
                Some(Self::Cpu(Placed::new(Arc::new(Cpu::new(env.clone())))))
            }
            #[cfg(feature = "webgpu")]
            DeviceChoice::WebGpu(gpu) => Some(Self::WebGpu(Placed::new(gpu.clone()))),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Cpu(placed) => placed.name(),
            #[cfg(feature = "webgpu")]
            Self::WebGpu(placed) => placed.name(),
        }
    }

    async fn run(
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
    fn steps(
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

    fn wipe(&self) -> Result<(), Error> {
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

/// How a model is loaded and run.
#[derive(Clone)]
pub struct SessionOptions<'a> {
    /// The instruction set; the machine's best one by default.
    pub level: Level,
    /// How exactly results are defined.
    pub numerics: Numerics,
    /// The threads that share the work.
    pub threads: Threads,
    /// Limits.
    pub budget: Budget,
    /// Where nodes run.
    pub device: DeviceChoice,
    /// Whether the graph is rewritten (folded, fused); always on but for comparisons.
    pub rewrite: bool,
    /// Files beside the model.
    pub files: &'a dyn ExternalData,
}

impl Default for SessionOptions<'_> {
    fn default() -> Self {
        Self {
            level: Level::best(),
            numerics: Numerics::Fast,
            threads: Threads::single(),
            budget: Budget::default(),
            device: DeviceChoice::Cpu,
            rewrite: true,
            files: &NoExternalData,
        }
    }
}

/// What a model says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// The tool that wrote the file, with its version.
    pub producer: String,
    /// Opset versions by domain.
    pub opsets: Vec<(String, i64)>,
    /// Free entries.
    pub properties: Vec<(String, String)>,
}

/// A loaded model. Runs may go on at the same time; each has memory of its own.
#[derive(Debug)]
pub struct Session {
    plan: Plan,
    env: Env,
    budget: Budget,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    metadata: Metadata,
    report: RewriteReport,
    accelerator: Option<Accelerator>,
    /// Memory of runs that are over, for the next ones.
    idle: Mutex<Vec<RunState>>,
}

impl Session {
    /// Loads a model file's bytes. Weights stay slices of `model`, where they need no other form.
    ///
    /// # Errors
    /// Where the bytes are no valid model, an operator is missing, or the budget is exceeded.
    pub fn load(model: impl Into<Bytes>, options: &SessionOptions<'_>) -> Result<Self, Error> {
        let model = onnx::read_model(model.into())?;
        Self::from_model(&model, options)
    }

    /// Loads a decoded model.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn from_model(model: &proto::Model, options: &SessionOptions<'_>) -> Result<Self, Error> {
        let build = BuildOptions {
            files: options.files,
            budget: &options.budget,
        };
        let mut graph = graph::build(model, &build)?;
        let env = Env {
            level: options.level,
            numerics: options.numerics,
            threads: options.threads.clone(),
        };
        let report = match options.rewrite {
            true => {
                let for_cpu = matches!(options.device, DeviceChoice::Cpu);
                rewrite::rewrite(&mut graph, &env, for_cpu)
            }
            false => {
                graph::inference::infer_types(&mut graph);
                RewriteReport::default()
            }
        };
        let accelerator = Accelerator::new(&options.device, &env);
        let infos = |ids: &[ValueId], graph: &Graph| -> Vec<ValueInfo> {
            ids.iter().map(|&id| graph.value(id).clone()).collect()
        };
        let mut outputs = infos(&graph.outputs, &graph);
        // A rewrite may have replaced the value; the name is the model's all the same.
        let declared = model.graph.iter().flat_map(|g| &g.output);
        for (info, declared) in outputs.iter_mut().zip(declared) {
            info.name = declared.name.as_deref().unwrap_or_default().into();
        }
        Ok(Self {
            inputs: infos(&graph.inputs, &graph),
            outputs,
            metadata: metadata(model),
            plan: Plan::new(graph, &env, accelerator.is_none())?,
            accelerator,
            env,
            budget: options.budget.clone(),
            report,
            idle: Mutex::default(),
        })
    }

    /// The inputs that a run needs, in the model's order.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// The outputs, in the model's order.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// What the model says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What each rewrite did.
    pub fn rewrites(&self) -> &RewriteReport {
        &self.report
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Instruction set, numerics and threads.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Runs the model on named inputs and gives all outputs by name.
    ///
    /// # Errors
    /// Where an input is missing, unknown or of the wrong type or shape, or a node fails.
    pub fn run(&self, inputs: &[(&str, Value)]) -> Result<Vec<(String, Value)>, Error> {
        self.run_with(inputs, None, None)
    }

    /// Runs the model and gives the `wanted` outputs, in that order; all where `None`. Stops before
    /// the next node once `cancel` is true.
    ///
    /// # Errors
    /// As [`Session::run`], where an output is unknown or the run is cancelled, and in a browser
    /// where a device other than the CPU was chosen: that needs [`Session::run_async`].
    pub fn run_with(
        &self,
        inputs: &[(&str, Value)],
        wanted: Option<&[&str]>,
        cancel: Option<&AtomicBool>,
    ) -> Result<Vec<(String, Value)>, Error> {
        // Nothing that is awaited here pends, except for a GPU in a browser.
        let mut run = std::pin::pin!(self.run_async(inputs, wanted, cancel));
        match run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(Error::Device {
                device: self.accelerator.as_ref().map_or("cpu", Accelerator::name),
                reason: "its results come later here, and the run does not wait for them".into(),
            }),
        }
    }

    /// The same on any device: in a browser results of a GPU come by the event loop.
    ///
    /// # Errors
    /// As [`Session::run`], where an output is unknown or the run is cancelled.
    pub async fn run_async(
        &self,
        inputs: &[(&str, Value)],
        wanted: Option<&[&str]>,
        cancel: Option<&AtomicBool>,
    ) -> Result<Vec<(String, Value)>, Error> {
        let order: Vec<usize> = match wanted {
            None => (0..self.outputs.len()).collect(),
            Some(names) => names
                .iter()
                .map(|name| self.output_index(name))
                .collect::<Result<_, _>>()?,
        };
        let ordered = self.ordered(inputs)?;
        let mut made: Vec<Option<Value>> = vec![None; self.outputs.len()];
        match &self.accelerator {
            None => self.run_ordered(&ordered, cancel, &mut |i, value| {
                if order.contains(&i) {
                    made[i] = value.to_value();
                }
                Ok(())
            })?,
            Some(accelerator) => {
                self.check_inputs(&ordered)?;
                let options = self.run_options(cancel);
                let values = accelerator.run(&self.plan, &ordered, options).await?;
                made = values.into_iter().map(Some).collect();
            }
        }
        order
            .iter()
            .map(|&i| {
                let name = self.outputs[i].name.to_string();
                // An output may be asked for twice.
                match &made[i] {
                    Some(value) => Ok((name, value.clone())),
                    None => Err(Error::invalid(format!("output {name:?} was not made"))),
                }
            })
            .collect()
    }

    /// Where each step that runs on data would run for inputs of these shapes.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn devices(&self, inputs: &[(&str, Value)]) -> Result<Vec<StepDevice>, Error> {
        let inputs = self.ordered(inputs)?;
        self.check_inputs(&inputs)?;
        let options = self.run_options(None);
        let Some(accelerator) = &self.accelerator else {
            let layout = self.plan.layout(&inputs, options)?;
            let runs = |kind: &StepKind| !matches!(kind, StepKind::Known | StepKind::Alias);
            let steps = layout
                .steps
                .iter()
                .enumerate()
                .filter(|(_, kind)| runs(kind));
            return Ok(steps
                .map(|(step, _)| StepDevice {
                    step,
                    device: "cpu",
                    reason: None,
                })
                .collect());
        };
        let steps = accelerator.steps(&self.plan, &inputs, options)?;
        Ok(steps
            .into_iter()
            .map(|(step, reason)| StepDevice {
                step,
                device: if reason.is_some() {
                    "cpu"
                } else {
                    accelerator.name()
                },
                reason,
            })
            .collect())
    }

    /// Runs the model on inputs in the model's order and hands each output to `take`, in order.
    /// Once the session has seen these shapes, this allocates nothing unless sizes depend on data.
    /// Always on the CPU.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_ordered(
        &self,
        inputs: &[InputValue<'_>],
        cancel: Option<&AtomicBool>,
        take: &mut (dyn FnMut(usize, InputValue<'_>) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        self.check_inputs(inputs)?;
        let mut state = self.take_state();
        let result = self.env.threads.enter(|| {
            self.plan
                .run(inputs, &mut state, self.run_options(cancel), take)
        });
        self.give_state(state);
        result
    }

    /// Runs once, adding the time of each step of the plan to `profile` by a clock.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_profiled(
        &self,
        inputs: &[(&str, Value)],
        profile: &mut Profile,
        clock: &(dyn Fn() -> u64 + Sync),
    ) -> Result<(), Error> {
        let inputs = self.ordered(inputs)?;
        self.check_inputs(&inputs)?;
        let mut state = self.take_state();
        let result = self.env.threads.enter(|| {
            let clock: &dyn Fn() -> u64 = clock;
            let profile = Some((profile, clock));
            let options = self.run_options(None);
            self.plan
                .run_profiled(&inputs, &mut state, options, profile, &mut |_, _| Ok(()))
        });
        self.give_state(state);
        result
    }

    /// The layout that a run on inputs of these shapes uses: its memory, what is known already.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn layout(&self, inputs: &[(&str, Value)]) -> Result<std::sync::Arc<Layout>, Error> {
        let inputs = self.ordered(inputs)?;
        self.check_inputs(&inputs)?;
        self.plan.layout(&inputs, self.run_options(None))
    }

    /// Overwrites with zeros the memory that finished runs left for the next ones, and gives the
    /// number of bytes.
    pub fn wipe(&self) -> usize {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let wiped = idle.iter_mut().map(RunState::wipe).sum::<usize>();
        if let Some(accelerator) = &self.accelerator {
            // A lost device has lost its memory too.
            drop(accelerator.wipe());
        }
        wiped + crate::kernels::scratch::wipe(&self.env.threads)
    }

    fn run_options<'a>(&'a self, cancel: Option<&'a AtomicBool>) -> RunOptions<'a> {
        RunOptions {
            env: &self.env,
            budget: &self.budget,
            cancel,
            depth: 0,
        }
    }

    fn take_state(&self) -> RunState {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        idle.pop().unwrap_or_default()
    }

    fn give_state(&self, state: RunState) {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        idle.push(state);
    }

    fn output_index(&self, name: &str) -> Result<usize, Error> {
        self.outputs
            .iter()
            .position(|o| &*o.name == name)
            .ok_or_else(|| Error::UnknownOutput {
                name: name.into(),
                expected: names(&self.outputs),
            })
    }

    /// Named inputs in the model's order.
    fn ordered<'a>(&self, inputs: &'a [(&str, Value)]) -> Result<Vec<InputValue<'a>>, Error> {
        for (i, (name, _)) in inputs.iter().enumerate() {
            let known = self.inputs.iter().any(|info| &*info.name == *name);
            if !known || inputs[..i].iter().any(|(other, _)| other == name) {
                return Err(Error::UnknownInput {
                    name: (*name).into(),
                    expected: format!("{}, each once", names(&self.inputs)),
                });
            }
        }
        self.inputs
            .iter()
            .map(|info| {
                let found = inputs.iter().find(|(name, _)| *name == &*info.name);
                found
                    .map(|(_, value)| InputValue::from_value(value))
                    .ok_or_else(|| Error::MissingInput {
                        name: info.name.to_string(),
                        expected: names(&self.inputs),
                    })
            })
            .collect()
    }

    /// Checks inputs against what the model declares.
    fn check_inputs(&self, inputs: &[InputValue<'_>]) -> Result<(), Error> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::MissingInput {
                name: format!("number {}", inputs.len()),
                expected: names(&self.inputs),
            });
        }
        for (i, (info, input)) in self.inputs.iter().zip(inputs).enumerate() {
            check_input(info, *input)?;
            self.check_symbols(i, inputs)?;
        }
        Ok(())
    }

    /// Axes of one name have one size over all inputs.
    fn check_symbols(&self, i: usize, inputs: &[InputValue<'_>]) -> Result<(), Error> {
        let size_of = |name: &str, upto: usize| {
            self.inputs[..upto]
                .iter()
                .zip(inputs)
                .find_map(|(info, input)| {
                    let InputValue::Tensor(view) = input else {
                        return None;
                    };
                    let dims = info.value_type.dims.as_deref()?;
                    let axis = dims
                        .iter()
                        .position(|d| matches!(d, Dim::Symbol(s) if &**s == name))?;
                    view.shape().get(axis).copied()
                })
        };
        let (Some(dims), InputValue::Tensor(view)) =
            (self.inputs[i].value_type.dims.as_deref(), inputs[i])
        else {
            return Ok(());
        };
        for (dim, &found) in dims.iter().zip(view.shape()) {
            if let Dim::Symbol(name) = dim
                && let Some(size) = size_of(name, i)
                && size != found
            {
                return Err(Error::InputShape {
                    name: self.inputs[i].name.to_string(),
                    expected: format!("{} with {name} = {size}", display_dims(Some(dims))),
                    found: format!("{:?}", view.shape()),
                });
            }
        }
        Ok(())
    }
}

fn check_input(info: &ValueInfo, input: InputValue<'_>) -> Result<(), Error> {
    let kind = match input {
        InputValue::Tensor(view) => ValueKind::Tensor(view.data_type()),
        InputValue::Value(value) => value.kind(),
        InputValue::InPlace { data_type, .. } => ValueKind::Tensor(data_type),
    };
    if let Some(expected) = &info.value_type.kind
        && !accepts(expected, &kind)
    {
        return Err(Error::InputType {
            name: info.name.to_string(),
            expected: expected.to_string(),
            found: kind.to_string(),
        });
    }
    if let (Some(dims), InputValue::Tensor(view)) = (&info.value_type.dims, input) {
        let fits = dims.len() == view.rank()
            && dims
                .iter()
                .zip(view.shape())
                .all(|(d, &n)| d.known().is_none_or(|k| k == n));
        if !fits {
            return Err(Error::InputShape {
                name: info.name.to_string(),
                expected: display_dims(Some(dims)),
                found: format!("{:?}", view.shape()),
            });
        }
    }
    Ok(())
}

/// Whether a value of kind `found` may be given for `expected`: an optional takes what it is of,
/// and an empty sequence takes any element.
fn accepts(expected: &ValueKind, found: &ValueKind) -> bool {
    match (expected, found) {
        (ValueKind::Optional(inner), found) if **inner == *found => true,
        (ValueKind::Optional(_), ValueKind::Optional(_)) => true,
        (ValueKind::Sequence(_), ValueKind::Sequence(element)) => {
            expected == found || **element == ValueKind::Tensor(DataType::Float32)
        }
        _ => expected == found,
    }
}

fn names(infos: &[ValueInfo]) -> String {
    let name = |info: &ValueInfo| {
        let kind = info
            .value_type
            .kind
            .as_ref()
            .map_or("?".into(), ToString::to_string);
        match (&info.value_type.kind, &info.value_type.dims) {
            (Some(ValueKind::Tensor(t)), Some(dims)) => {
                format!("{} ({t}{})", info.name, display_dims(Some(dims)))
            }
            _ => format!("{} ({kind})", info.name),
        }
    };
    infos.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn metadata(model: &proto::Model) -> Metadata {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    Metadata {
        producer: format!(
            "{} {}",
            text(&model.producer_name),
            text(&model.producer_version)
        )
        .trim()
        .into(),
        opsets: graph::opset_versions(model),
        properties: model
            .metadata_props
            .iter()
            .map(|e| (text(&e.key), text(&e.value)))
            .collect(),
    }
}

/// Inputs of a model as tensors of zeros, for measuring and warming up: named axes take the size
/// given for them, others 1.
pub fn zero_inputs(
    inputs: &[ValueInfo],
    size_of: &dyn Fn(&str, &Dims, usize) -> Option<usize>,
) -> Option<Vec<(String, Value)>> {
    inputs
        .iter()
        .map(|info| {
            let data_type = info.value_type.data_type()?;
            let dims = info.value_type.dims.as_ref()?;
            let shape: Vec<usize> = (0..dims.len())
                .map(|axis| {
                    let given = size_of(&info.name, dims, axis);
                    given.or_else(|| dims[axis].known()).unwrap_or(1)
                })
                .collect();
            let len = crate::tensor::element_count(&shape)?;
            let tensor = match data_type {
                DataType::String => Tensor::from_strings(&shape, vec![String::new(); len]).ok()?,
                _ => {
                    let bytes = crate::tensor::Buffer::zeroed(data_type.size_bytes(len)?);
                    Tensor::from_bytes(data_type, &shape, bytes).ok()?
                }
            };
            Some((info.name.to_string(), Value::Tensor(tensor)))
        })
        .collect()
}
