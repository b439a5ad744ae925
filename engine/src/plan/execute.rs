//! Running a plan.

use smallvec::SmallVec;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use super::arena::Arena;
use super::heap_outputs::{HeapOutput, infer_dynamic};
use super::layout::{Layout, Place, StepKind};
use super::{Plan, Step};
use crate::error::{Error, OpError};
use crate::graph::dimension::known_shape;
use crate::graph::{ValueId, ValueType};
use crate::kernels::env::Env;
use crate::limits;
use crate::operator::{InputValue, NoSubgraphs, OutputSlot, OutputSlots, RunContext, Subgraphs};
use crate::session::Budget;
use crate::tensor::{DataType, Tensor, TensorView, TensorViewMut, Value};

/// Layouts that a plan keeps; with more input shapes than this in turn, some are made again.
const LAYOUTS_KEPT: usize = 8;

/// What a run is given besides its inputs.
#[derive(Clone, Copy)]
pub struct RunOptions<'a> {
    /// Instruction set, numerics, threads.
    pub env: &'a Env,
    /// Limits.
    pub budget: &'a Budget,
    /// Depth of subgraphs around this plan.
    pub depth: usize,
}

/// Memory that a run needs and the next one can use again.
#[derive(Debug, Default)]
pub struct RunState {
    arena: Arena,
    dynamic: Vec<Option<Value>>,
    /// States of the subgraphs, by step and subgraph.
    below: States,
}

impl RunState {
    /// Overwrites with zeros everything that a run left behind, and gives the number of bytes.
    pub fn wipe(&mut self) -> usize {
        self.dynamic.clear();
        let below = self
            .below
            .iter_mut()
            .flat_map(|(_, states)| states)
            .map(Self::wipe);
        below.sum::<usize>() + self.arena.wipe()
    }
}

/// Time by step, in the unit of the clock that was given.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// One entry for each step of the plan, in order.
    pub steps: Vec<StepProfile>,
}

/// What a run waits for between two steps.
pub type Pause = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Time spent in one step.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepProfile {
    /// How often it ran.
    pub runs: u64,
    /// Sum of its times.
    pub time: u64,
}

impl Plan {
    /// Runs the plan and hands each output to `take` in order.
    ///
    /// # Errors
    /// Those of the nodes, of the budget, and cancellation. No output is handed out before all are
    /// there.
    pub fn run(
        &self,
        inputs: &[InputValue<'_>],
        state: &mut RunState,
        options: RunOptions<'_>,
        take: &mut dyn FnMut(usize, InputValue<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.run_profiled(inputs, state, options, None, take)
    }

    /// The same, adding up the time of each step by a clock.
    ///
    /// # Errors
    /// As [`Plan::run`].
    pub fn run_profiled(
        &self,
        inputs: &[InputValue<'_>],
        state: &mut RunState,
        options: RunOptions<'_>,
        mut profile: Option<(&mut Profile, &dyn Fn() -> u64)>,
        take: &mut dyn FnMut(usize, InputValue<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let layout = self.begin(inputs, state, options)?;
        if let Some((profile, _)) = &mut profile {
            profile
                .steps
                .resize(self.steps.len(), StepProfile::default());
        }
        let mut run = Run {
            plan: self,
            layout: &layout,
            inputs,
            options,
        };
        for i in 0..self.steps.len() {
            run.next(i, state, &mut profile)?;
        }
        run.end(state, take)
    }

    /// The same, with pauses between steps: after each, `pause` says whether the run is to wait, and for
    /// what. An error of what it waits for ends the run.
    ///
    /// # Errors
    /// As [`Plan::run`], and those of the pauses.
    pub async fn run_with_pauses(
        &self,
        inputs: &[InputValue<'_>],
        state: &mut RunState,
        options: RunOptions<'_>,
        pause: &dyn Fn() -> Option<Pause>,
        take: &mut dyn FnMut(usize, InputValue<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Limits are a thread's: while this waits, others may run in it.
        let budget = options.budget;
        let layout = budget.keep(|| self.begin(inputs, state, options))?;
        let mut run = Run {
            plan: self,
            layout: &layout,
            inputs,
            options,
        };
        let mut steps = 0..self.steps.len();
        while let Some(pause) = budget.keep(|| {
            for i in steps.by_ref() {
                run.next(i, state, &mut None)?;
                if let Some(pause) = pause() {
                    return Ok(Some(pause));
                }
            }
            Ok(None)
        })? {
            pause.await?;
        }
        budget.keep(|| run.end(state, take))
    }

    /// The layout of a run, and room for it.
    fn begin(
        &self,
        inputs: &[InputValue<'_>],
        state: &mut RunState,
        options: RunOptions<'_>,
    ) -> Result<Arc<Layout>, Error> {
        options.budget.check_nesting(options.depth)?;
        // A loop whose body does nothing is told to end as well.
        if limits::is_stopped() {
            return Err(Error::Cancelled);
        }
        let layout = self.layout(inputs, options)?;
        state.arena.reserve(layout.arena_bytes)?;
        state.dynamic.clear();
        state.dynamic.resize(self.values.len(), None);
        Ok(layout)
    }

    /// The layout for inputs of these shapes, made now or earlier.
    ///
    /// # Errors
    /// When shapes do not fit an operator, or memory would exceed the budget.
    pub fn layout(
        &self,
        inputs: &[InputValue<'_>],
        options: RunOptions<'_>,
    ) -> Result<Arc<Layout>, Error> {
        let poisoned = |_| Error::invalid("a panic happened while a layout was made");
        {
            let mut layouts = self.layouts.lock().map_err(poisoned)?;
            if let Some(at) = layouts.iter().rposition(|l| l.fits(inputs)) {
                let last = layouts.len() - 1;
                layouts[at..=last].rotate_left(1);
                return Ok(layouts[last].clone());
            }
        }
        let layout = Arc::new(Layout::new(
            self,
            inputs,
            options.env,
            options.budget.memory_bytes,
        )?);
        let mut layouts = self.layouts.lock().map_err(poisoned)?;
        if layouts.len() == LAYOUTS_KEPT {
            layouts.remove(0);
        }
        layouts.push(layout.clone());
        Ok(layout)
    }
}

/// What stays the same during one run.
struct Run<'a> {
    plan: &'a Plan,
    layout: &'a Layout,
    inputs: &'a [InputValue<'a>],
    options: RunOptions<'a>,
}

/// Where an input of a step is; views are made once the arena is lent.
enum Source<'a> {
    Absent,
    Ready(InputValue<'a>),
    /// The so-manyth read of the arena.
    Arena(usize, DataType, &'a [usize]),
}

impl<'a> Run<'a> {
    /// Does the step `i`, if there is something to do.
    fn next(
        &mut self,
        i: usize,
        state: &mut RunState,
        profile: &mut Option<(&mut Profile, &dyn Fn() -> u64)>,
    ) -> Result<(), Error> {
        if matches!(self.layout.steps[i], StepKind::Known | StepKind::Alias) {
            return Ok(());
        }
        if limits::is_stopped() {
            return Err(Error::Cancelled);
        }
        let step = &self.plan.steps[i];
        let start = profile.as_ref().map(|(_, clock)| clock());
        self.step(i, step, state).map_err(|source| match source {
            OpError::Subgraph(error) if matches!(*error, Error::Cancelled) => *error,
            source => Error::Node {
                node: Box::new((*step.name).clone()),
                source,
            },
        })?;
        if let (Some((profile, clock)), Some(start)) = (profile, start) {
            profile.steps[i].runs += 1;
            profile.steps[i].time += clock() - start;
        }
        for id in &self.layout.release[i] {
            state.dynamic[id.index()] = None;
        }
        Ok(())
    }

    /// Hands out the outputs.
    fn end(
        &self,
        state: &mut RunState,
        take: &mut dyn FnMut(usize, InputValue<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // What a loop of kernels left out is nobody's to see.
        if limits::is_stopped() {
            return Err(Error::Cancelled);
        }
        for (i, id) in self.plan.outputs.iter().enumerate() {
            let value = self.read(*id, state).ok_or_else(|| {
                Error::invalid(format!(
                    "output {:?} was not made",
                    self.plan.values[id.index()].name
                ))
            })?;
            take(i, value)?;
        }
        state.dynamic.clear();
        Ok(())
    }

    /// A value that is not in the arena.
    fn outside(&self, id: ValueId, dynamic: &'a [Option<Value>]) -> Option<InputValue<'a>> {
        let value = &self.layout.values[id.index()];
        Some(match &value.place {
            // An alias has the bytes of its root under a shape of its own.
            Place::Input(i) => match self.inputs[*i] {
                InputValue::Tensor(v) => InputValue::Tensor(reshaped(v, &value.shape)),
                other => other,
            },
            Place::Constant => {
                let root = self
                    .plan
                    .constants
                    .get(&id)
                    .or_else(|| self.alias_root(id))?;
                InputValue::Tensor(reshaped(root.view(), &value.shape))
            }
            Place::Known(i) => {
                InputValue::Tensor(reshaped(self.layout.known[*i].view(), &value.shape))
            }
            Place::Dynamic => InputValue::from_value(dynamic[id.index()].as_ref()?),
            Place::Arena(_) | Place::Nowhere => return None,
        })
    }

    /// The constant that an alias is of.
    fn alias_root(&self, id: ValueId) -> Option<&'a Tensor> {
        self.plan.constants.get(&self.layout.roots[id.index()])
    }

    fn read(&self, id: ValueId, state: &'a RunState) -> Option<InputValue<'a>> {
        let value = &self.layout.values[id.index()];
        match &value.place {
            Place::Arena(range) => {
                let bytes = state.arena.read(range.clone())?;
                let view = TensorView::from_bytes(value.data_type, &value.shape, bytes);
                Some(InputValue::Tensor(view))
            }
            _ => self.outside(id, &state.dynamic),
        }
    }

    fn step(&mut self, i: usize, step: &'a Step, state: &mut RunState) -> Result<(), OpError> {
        match self.layout.steps[i] {
            StepKind::Planned { in_place } => self.planned(i, step, in_place, state),
            _ => self.dynamic(i, step, state),
        }
    }

    fn planned(
        &self,
        i: usize,
        step: &Step,
        in_place: Option<(usize, usize)>,
        state: &mut RunState,
    ) -> Result<(), OpError> {
        let mut below = std::mem::take(&mut state.below);
        let result = self.planned_with(i, step, in_place, state, &mut below);
        state.below = below;
        result
    }

    fn planned_with(
        &self,
        i: usize,
        step: &Step,
        in_place: Option<(usize, usize)>,
        state: &mut RunState,
        below: &mut States,
    ) -> Result<(), OpError> {
        let RunState { arena, dynamic, .. } = state;
        let mut reads: SmallVec<[Range<usize>; 16]> = SmallVec::new();
        let mut sources: SmallVec<[Source<'_>; 16]> = SmallVec::new();
        for (n, id) in step.inputs.iter().enumerate() {
            sources.push(match id {
                None => Source::Absent,
                Some(id) => {
                    let value = &self.layout.values[id.index()];
                    match (&value.place, in_place) {
                        (Place::Arena(_), Some((input, output))) if input == n => {
                            Source::Ready(InputValue::InPlace {
                                output,
                                data_type: value.data_type,
                                shape: &value.shape,
                            })
                        }
                        (Place::Arena(range), _) => {
                            reads.push(range.clone());
                            Source::Arena(reads.len() - 1, value.data_type, &value.shape)
                        }
                        _ => Source::Ready(
                            self.outside(*id, dynamic)
                                .ok_or_else(|| missing(self.plan, *id))?,
                        ),
                    }
                }
            });
        }
        let places = step
            .outputs
            .iter()
            .map(|id| Some(&self.layout.values[(*id)?.index()]));
        let writes: SmallVec<[Range<usize>; 8]> = places
            .clone()
            .flatten()
            .map(|value| match &value.place {
                Place::Arena(range) => Ok(range.clone()),
                _ => Err(OpError::Internal {
                    what: "a planned output has no place".into(),
                }),
            })
            .collect::<Result<_, _>>()?;
        let pieces = arena.lend(&reads, &writes)?;
        let inputs: SmallVec<[Option<InputValue<'_>>; 16]> = sources
            .into_iter()
            .map(|source| match source {
                Source::Absent => None,
                Source::Ready(value) => Some(value),
                Source::Arena(read, data_type, shape) => Some(InputValue::Tensor(
                    TensorView::from_bytes(data_type, shape, pieces.reads[read]),
                )),
            })
            .collect();
        let mut memory = pieces.writes.into_iter();
        let outputs: OutputSlots<'_> = places
            .map(
                |value| match value.and_then(|value| Some((value, memory.next()?))) {
                    None => OutputSlot::Unwanted,
                    Some((value, bytes)) => OutputSlot::Sized(TensorViewMut::from_bytes(
                        value.data_type,
                        &value.shape,
                        bytes,
                    )),
                },
            )
            .collect();
        step.call(i, &inputs, outputs, self.options, below)
    }

    fn dynamic(&self, i: usize, step: &Step, state: &mut RunState) -> Result<(), OpError> {
        let mut below = std::mem::take(&mut state.below);
        let made = self.dynamic_outputs(i, step, state, &mut below);
        state.below = below;
        for (id, value) in step.outputs.iter().zip(made?) {
            let Some(id) = id else { continue };
            if value.is_none() {
                return Err(missing(self.plan, *id));
            }
            state.dynamic[id.index()] = value;
        }
        Ok(())
    }

    fn dynamic_outputs(
        &self,
        i: usize,
        step: &Step,
        state: &RunState,
        below: &mut States,
    ) -> Result<SmallVec<[Option<Value>; 4]>, OpError> {
        let mut inputs: SmallVec<[Option<InputValue<'_>>; 16]> = SmallVec::new();
        for id in &step.inputs {
            inputs.push(match id {
                None => None,
                Some(id) => Some(
                    self.read(*id, state)
                        .ok_or_else(|| missing(self.plan, *id))?,
                ),
            });
        }
        if step.operator.is_alias()
            && let Some(Some(id)) = step.inputs.first()
            && let Some(Value::Tensor(tensor)) = &state.dynamic[id.index()]
            && let Some(shape) = infer_dynamic(step, &inputs)?[0]
                .value_type
                .dims
                .as_deref()
                .and_then(known_shape)
        {
            return Ok(SmallVec::from_iter([Some(Value::Tensor(
                tensor.reshaped(&shape)?,
            ))]));
        }
        step.run_on_heap(i, &inputs, self.options, below)
    }
}

/// States of subgraphs, by step.
type States = Vec<(usize, Vec<RunState>)>;

impl Step {
    /// Runs the step with outputs that are allocated for it. `inputs` has the captures at its end.
    ///
    /// # Errors
    /// Those of the operator.
    pub(super) fn run_on_heap(
        &self,
        i: usize,
        inputs: &[Option<InputValue<'_>>],
        options: RunOptions<'_>,
        below: &mut States,
    ) -> Result<SmallVec<[Option<Value>; 4]>, OpError> {
        let infos = infer_dynamic(self, inputs)?;
        let mut places = infos
            .iter()
            .take(self.outputs.len())
            .map(|info| HeapOutput::new(info, options.budget))
            .collect::<Result<SmallVec<[HeapOutput; 4]>, OpError>>()?;
        let outputs: OutputSlots<'_> = places
            .iter_mut()
            .zip(&self.outputs)
            .map(|(place, id)| match id {
                None => OutputSlot::Unwanted,
                Some(_) => place.slot(),
            })
            .collect();
        self.call(i, inputs, outputs, options, below)?;
        places.into_iter().map(HeapOutput::into_value).collect()
    }

    fn call(
        &self,
        i: usize,
        inputs: &[Option<InputValue<'_>>],
        outputs: OutputSlots<'_>,
        options: RunOptions<'_>,
        below: &mut States,
    ) -> Result<(), OpError> {
        let (own, captures) = inputs.split_at(inputs.len() - self.captures);
        let env = options.env;
        let operator = &*self.operator;
        if self.subplans.is_empty() {
            let mut none = NoSubgraphs;
            let mut context = RunContext::new(env, own, outputs, &mut none);
            return limits::until_ended(|| operator.run(&mut context))?;
        }
        let mut runner = SubgraphRunner {
            plans: &self.subplans,
            states: states_of_step(below, i, self.subplans.len()),
            captures,
            options: RunOptions {
                depth: options.depth + 1,
                ..options
            },
        };
        let mut context = RunContext::new(env, own, outputs, &mut runner);
        limits::until_ended(|| operator.run(&mut context))?
    }
}

/// The states of a step's subgraphs, made when they are first needed.
fn states_of_step(states: &mut States, step: usize, count: usize) -> &mut [RunState] {
    let at = states
        .iter()
        .position(|(s, _)| *s == step)
        .unwrap_or_else(|| {
            states.push((step, (0..count).map(|_| RunState::default()).collect()));
            states.len() - 1
        });
    &mut states[at].1
}

fn missing(plan: &Plan, id: ValueId) -> OpError {
    OpError::Internal {
        what: format!("value {:?} was not made", plan.values[id.index()].name),
    }
}

fn reshaped<'a>(view: TensorView<'a>, shape: &'a [usize]) -> TensorView<'a> {
    match view.data_type() {
        DataType::String => view,
        data_type => TensorView::from_bytes(data_type, shape, view.bytes()),
    }
}

/// Runs the subgraphs of one step.
struct SubgraphRunner<'a> {
    plans: &'a [Plan],
    states: &'a mut [RunState],
    captures: &'a [Option<InputValue<'a>>],
    options: RunOptions<'a>,
}

impl Subgraphs for SubgraphRunner<'_> {
    fn output_type(&self, index: usize, output: usize) -> Option<&ValueType> {
        let plan = self.plans.get(index)?;
        let id = plan.outputs.get(output)?;
        Some(&plan.values[id.index()].value_type)
    }

    fn run(&mut self, index: usize, inputs: &[InputValue<'_>]) -> Result<Vec<Value>, OpError> {
        let (Some(plan), Some(state)) = (self.plans.get(index), self.states.get_mut(index)) else {
            return Err(OpError::Internal {
                what: format!("there is no subgraph {index}"),
            });
        };
        let captures = self.captures.iter().copied().flatten();
        let all: SmallVec<[InputValue<'_>; 16]> = inputs.iter().copied().chain(captures).collect();
        if all.len() != plan.inputs.len() {
            return Err(OpError::shape(
                format!("subgraph {index}"),
                format!("{} inputs", plan.inputs.len() - self.captures.len()),
                format!("{}", inputs.len()),
            ));
        }
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        plan.run(&all, state, self.options, &mut |_, value| {
            outputs.extend(value.to_value());
            Ok(())
        })
        .map_err(|error| OpError::Subgraph(Box::new(error)))?;
        Ok(outputs)
    }
}
