//! Loading a model and running it.

mod accelerator;
mod budget;
mod checks;
mod overrides;
mod watched;

pub use accelerator::{DeviceChoice, StepDevice};
pub use budget::Budget;
pub use checks::SplitName;

use accelerator::Accelerator;
use bytes::Bytes;
use checks::{SharedNames, as_scalar, check_inputs, names};
use overrides::Overrides;
use smallvec::SmallVec;
use std::collections::HashMap;
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
use crate::plan::{Layout, Plan, RunOptions, RunState, StepKind};
use crate::rewrite::{self, RewriteReport, Wanted};
use crate::tensor::{DataType, Tensor, Value};

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
    shared_names: SharedNames,
    metadata: Metadata,
    report: RewriteReport,
    accelerator: Option<Accelerator>,
    /// Inputs with defaults, where the model has some.
    overrides: Option<Box<Overrides>>,
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
        options
            .budget
            .keep(|| Self::planned(model, options, Overrides::new(model, options)?))
    }

    fn planned(
        model: &proto::Model,
        options: &SessionOptions<'_>,
        overrides: Option<Box<Overrides>>,
    ) -> Result<Self, Error> {
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
            shared_names: SharedNames::of(&inputs),
            inputs,
            outputs,
            metadata: metadata(model),
            plan: Plan::new(graph, &env, accelerator.is_none())?,
            accelerator,
            env,
            budget: options.budget.clone(),
            report,
            overrides,
            idle: Mutex::default(),
        })
    }

    /// The inputs that a run needs, in the model's order.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// The inputs that have defaults, in the model's order: a run may give them or not.
    pub fn optional_inputs(&self) -> &[ValueInfo] {
        self.overrides
            .as_ref()
            .map_or(&[], |overrides| overrides.inputs())
    }

    /// The outputs, in the model's order.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// The names that the model gives several axes of its inputs and that had several sizes in a run
    /// or layout so far: something to warn of once.
    pub fn split_names(&self) -> Vec<SplitName> {
        self.shared_names.split(&self.inputs)
    }

    /// What the model says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What each rewrite did.
    pub fn rewrites(&self) -> &RewriteReport {
        &self.report
    }

    /// Whether weights of products are kept as bytes, which was asked for and had its use.
    pub fn is_quantized(&self) -> bool {
        self.report.count(rewrite::WEIGHTS_AS_BYTES) > 0
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
        self.run_with(inputs, None)
    }

    /// Runs the model and gives the `wanted` outputs, in that order; all where `None`. Within
    /// [limits](crate::limits::within) the run takes no more than they say, and ends when they do.
    ///
    /// # Errors
    /// As [`Session::run`], where an output is unknown or wanted twice, or the run is to end, and
    /// in a browser where a device other than the CPU was chosen: that needs [`Session::run_async`].
    pub fn run_with(
        &self,
        inputs: &[(&str, Value)],
        wanted: Option<&[&str]>,
    ) -> Result<Vec<(String, Value)>, Error> {
        // Nothing that is awaited here pends, except for a GPU in a browser.
        let mut run = std::pin::pin!(self.run_async(inputs, wanted));
        let polled = || Ok(run.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        match self.budget.keep(polled)? {
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
    /// As [`Session::run`], and where an output is unknown or wanted twice.
    pub async fn run_async(
        &self,
        inputs: &[(&str, Value)],
        wanted: Option<&[&str]>,
    ) -> Result<Vec<(String, Value)>, Error> {
        if let Some(other) = self.overriding(inputs)? {
            return Box::pin(other.run_async(inputs, wanted)).await;
        }
        let order = self.order(wanted)?;
        let mut is_wanted = vec![false; self.outputs.len()];
        order.iter().for_each(|&i| is_wanted[i] = true);
        let ordered = self.ordered(inputs)?;
        let mut made: Vec<Option<Value>> = vec![None; self.outputs.len()];
        match &self.accelerator {
            None => self.run_ordered(&ordered, &mut |i, value| {
                if is_wanted[i] {
                    made[i] = value.to_value();
                }
                Ok(())
            })?,
            Some(accelerator) => {
                self.check(&ordered)?;
                let options = self.run_options();
                let values = accelerator.run(&self.plan, &ordered, options).await?;
                made = values.into_iter().map(Some).collect();
            }
        }
        self.named(&order, &mut made)
    }

    /// The outputs at these places with their names.
    fn named(
        &self,
        order: &[usize],
        made: &mut [Option<Value>],
    ) -> Result<Vec<(String, Value)>, Error> {
        let named = order.iter().map(|&i| {
            let name = self.outputs[i].name.to_string();
            match made[i].take() {
                Some(value) => Ok((name, value)),
                None => Err(Error::invalid(format!("output {name:?} was not made"))),
            }
        });
        named.collect()
    }

    /// Where each step that runs on data would run for inputs of these types and shapes
    /// ([`TensorView::of_shape`](crate::tensor::TensorView::of_shape) will do: elements are not looked at).
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn devices(&self, inputs: &[(&str, InputValue<'_>)]) -> Result<Vec<StepDevice>, Error> {
        if let Some(other) = self.overriding(inputs)? {
            return other.devices(inputs);
        }
        self.budget
            .keep(|| self.devices_of(&self.in_order(inputs)?))
    }

    fn devices_of(&self, inputs: &[InputValue<'_>]) -> Result<Vec<StepDevice>, Error> {
        self.check(inputs)?;
        let options = self.run_options();
        let Some(accelerator) = &self.accelerator else {
            let layout = self.plan.layout(inputs, options)?;
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
        let steps = accelerator.steps(&self.plan, inputs, options)?;
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
        take: &mut (dyn FnMut(usize, InputValue<'_>) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        self.check(inputs)?;
        let mut state = self.take_state();
        let options = self.run_options();
        let run = || self.plan.run(inputs, &mut state, options, take);
        let result = self.budget.keep(run);
        self.give_state(state);
        result
    }

    /// The layout that a run on inputs of these types and shapes uses: its memory, what is known
    /// already. As for [`Session::devices`], elements are not looked at.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn layout(&self, inputs: &[(&str, InputValue<'_>)]) -> Result<Arc<Layout>, Error> {
        if let Some(other) = self.overriding(inputs)? {
            return other.layout(inputs);
        }
        let inputs = self.in_order(inputs)?;
        self.check(&inputs)?;
        self.budget
            .keep(|| self.plan.layout(&inputs, self.run_options()))
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
        let others = self
            .overrides
            .as_ref()
            .map_or(0, |overrides| overrides.wipe());
        wiped + others + crate::kernels::scratch::wipe(&self.env.threads)
    }

    /// The session for a run that gives inputs which have defaults; `None` for any other.
    fn overriding<T>(&self, inputs: &[(&str, T)]) -> Result<Option<Arc<Self>>, Error> {
        match &self.overrides {
            Some(overrides) => overrides.session(self, inputs),
            None => Ok(None),
        }
    }

    fn run_options(&self) -> RunOptions<'_> {
        RunOptions {
            env: &self.env,
            budget: &self.budget,
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

    /// Checks inputs in the model's order.
    fn check(&self, inputs: &[InputValue<'_>]) -> Result<(), Error> {
        check_inputs(&self.inputs, inputs)?;
        self.shared_names.note(inputs);
        Ok(())
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
        let inputs = inputs.iter();
        self.in_places(inputs.map(|(name, value)| (*name, InputValue::from_value(value))))
    }

    fn in_order<'a>(
        &self,
        inputs: &[(&str, InputValue<'a>)],
    ) -> Result<Vec<InputValue<'a>>, Error> {
        self.in_places(inputs.iter().copied())
    }

    fn in_places<'a, 'n>(
        &self,
        inputs: impl Iterator<Item = (&'n str, InputValue<'a>)>,
    ) -> Result<Vec<InputValue<'a>>, Error> {
        let mut given: SmallVec<[Option<InputValue<'a>>; 16]> =
            SmallVec::from_elem(None, self.inputs.len());
        for (name, value) in inputs {
            let place = self.input_places.get(name).copied();
            let slot = place.map(|i| &mut given[i]).filter(|slot| slot.is_none());
            *slot.ok_or_else(|| Error::UnknownInput {
                name: name.into(),
                expected: format!("{}, each once", names(&self.inputs)),
            })? = Some(value);
        }
        self.inputs
            .iter()
            .zip(given)
            .map(|(info, value)| match value {
                Some(value) => Ok(as_scalar(info, value)),
                None => Err(Error::MissingInput {
                    name: info.name.to_string(),
                    expected: names(&self.inputs),
                }),
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
