//! Loading a model and running it.

mod accelerator;
mod checks;

pub use accelerator::{DeviceChoice, StepDevice};

use accelerator::Accelerator;
use bytes::Bytes;
use checks::{check_inputs, names};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::error::Error;
use crate::graph::{self, BuildOptions, Dims, Graph, ValueId, ValueInfo};
use crate::isa::{Level, Numerics};
use crate::kernels::env::Env;
use crate::kernels::threads::Threads;
use crate::onnx::external_data::{ExternalData, NoExternalData};
use crate::onnx::{self, proto};
use crate::operator::InputValue;
use crate::plan::{Layout, Plan, Profile, RunOptions, RunState, StepKind};
use crate::rewrite::{self, RewriteReport, Wanted};
use crate::tensor::{DataType, Tensor, Value};

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
    /// Whether weights of products are kept as bytes, on the CPU: a quarter of the memory, for answers
    /// that are approximate. A rewrite; without them nothing changes.
    pub quantize: bool,
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
            quantize: false,
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
    /// Where in them a name is: a request may have as many names as it likes.
    input_places: HashMap<Arc<str>, usize>,
    output_places: HashMap<Arc<str>, usize>,
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
                let wanted = Wanted {
                    for_cpu: matches!(options.device, DeviceChoice::Cpu),
                    quantize: options.quantize,
                };
                rewrite::rewrite(&mut graph, &env, wanted)
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
        let inputs = infos(&graph.inputs, &graph);
        Ok(Self {
            input_places: places(&inputs),
            output_places: places(&outputs),
            inputs,
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
    /// As [`Session::run`], where an output is unknown or wanted twice, or the run is cancelled, and
    /// in a browser where a device other than the CPU was chosen: that needs [`Session::run_async`].
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
    /// As [`Session::run`], where an output is unknown or wanted twice, or the run is cancelled.
    pub async fn run_async(
        &self,
        inputs: &[(&str, Value)],
        wanted: Option<&[&str]>,
        cancel: Option<&AtomicBool>,
    ) -> Result<Vec<(String, Value)>, Error> {
        let order = self.order(wanted)?;
        let mut is_wanted = vec![false; self.outputs.len()];
        order.iter().for_each(|&i| is_wanted[i] = true);
        let ordered = self.ordered(inputs)?;
        let mut made: Vec<Option<Value>> = vec![None; self.outputs.len()];
        match &self.accelerator {
            None => self.run_ordered(&ordered, cancel, &mut |i, value| {
                if is_wanted[i] {
                    made[i] = value.to_value();
                }
                Ok(())
            })?,
            Some(accelerator) => {
                check_inputs(&self.inputs, &ordered)?;
                let options = self.run_options(cancel);
                let values = accelerator.run(&self.plan, &ordered, options).await?;
                made = values.into_iter().map(Some).collect();
            }
        }
        order
            .iter()
            .map(|&i| {
                let name = self.outputs[i].name.to_string();
                match made[i].take() {
                    Some(value) => Ok((name, value)),
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
        check_inputs(&self.inputs, &inputs)?;
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
        check_inputs(&self.inputs, inputs)?;
        let mut state = self.take_state();
        let result = self
            .plan
            .run(inputs, &mut state, self.run_options(cancel), take);
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
        check_inputs(&self.inputs, &inputs)?;
        let mut state = self.take_state();
        let clock: &dyn Fn() -> u64 = clock;
        let profile = Some((profile, clock));
        let options = self.run_options(None);
        let result = self
            .plan
            .run_profiled(&inputs, &mut state, options, profile, &mut |_, _| Ok(()));
        self.give_state(state);
        result
    }

    /// The layout that a run on inputs of these shapes uses: its memory, what is known already.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn layout(&self, inputs: &[(&str, Value)]) -> Result<std::sync::Arc<Layout>, Error> {
        let inputs = self.ordered(inputs)?;
        check_inputs(&self.inputs, &inputs)?;
        self.plan.layout(&inputs, self.run_options(None))
    }

    /// Overwrites with zeros the memory that finished runs left for the next ones, and gives the
    /// number of bytes. Working memory belongs to threads: of those that call, the one that calls
    /// this is meant.
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

    /// Which outputs are wanted, in that order.
    fn order(&self, wanted: Option<&[&str]>) -> Result<Vec<usize>, Error> {
        let Some(wanted) = wanted else {
            return Ok((0..self.outputs.len()).collect());
        };
        let mut is_taken = vec![false; self.outputs.len()];
        let place = |name: &&str| {
            let place = self.output_places.get(*name).copied();
            place
                .filter(|&i| !std::mem::replace(&mut is_taken[i], true))
                .ok_or_else(|| Error::UnknownOutput {
                    name: (*name).into(),
                    expected: format!("{}, each once", names(&self.outputs)),
                })
        };
        wanted.iter().map(place).collect()
    }

    /// Named inputs in the model's order.
    fn ordered<'a>(&self, inputs: &'a [(&str, Value)]) -> Result<Vec<InputValue<'a>>, Error> {
        let mut given: SmallVec<[Option<&Value>; 16]> =
            SmallVec::from_elem(None, self.inputs.len());
        for (name, value) in inputs {
            let place = self.input_places.get(*name).copied();
            let slot = place.map(|i| &mut given[i]).filter(|slot| slot.is_none());
            *slot.ok_or_else(|| Error::UnknownInput {
                name: (*name).into(),
                expected: format!("{}, each once", names(&self.inputs)),
            })? = Some(value);
        }
        self.inputs
            .iter()
            .zip(given)
            .map(|(info, value)| {
                value
                    .map(InputValue::from_value)
                    .ok_or_else(|| Error::MissingInput {
                        name: info.name.to_string(),
                        expected: names(&self.inputs),
                    })
            })
            .collect()
    }
}

/// Where each name is; the first place, where it stands at several.
fn places(infos: &[ValueInfo]) -> HashMap<Arc<str>, usize> {
    let places = infos.iter().enumerate().rev();
    places.map(|(i, info)| (info.name.clone(), i)).collect()
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
