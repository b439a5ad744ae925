//! Shapes, known values and memory of a plan for given input shapes.

use smallvec::SmallVec;
use std::ops::Range;

use super::lifetimes::Lifetimes;
use super::{Plan, Step};
use crate::error::{Error, OpError};
use crate::graph::dimension::{known_dims, known_shape};
use crate::graph::{Dims, Ints, ValueId};
use crate::kernels::env::Env;
use crate::operator::{InferContext, InputInfo, InputValue, OutputInfo, run_alone};
use crate::tensor::{DataType, Shape, Tensor, Value, ValueKind, element_count};

/// Values of up to so many elements are computed when the layout is made, if they follow from
/// shapes and constants alone: that is the arithmetic that exporters put around Reshape and Slice.
const FOLD_ELEMENTS: usize = 512;

/// How a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Its outputs follow from the shapes of the inputs and are known.
    Known,
    /// Its output is its input under another shape.
    Alias,
    /// All its tensors have their place.
    Planned {
        /// Input that is computed in place, and the output it shares memory with.
        in_place: Option<(usize, usize)>,
    },
    /// Sizes depend on data: outputs are allocated when it runs.
    Dynamic,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// Nowhere: nobody makes it in this layout.
    Nowhere,
    /// The so-manyth input of the run.
    Input(usize),
    /// A constant of the plan.
    Constant,
    /// Known in this layout: index into [`Layout::known`].
    Known(usize),
    /// In the arena.
    Arena(Range<usize>),
    /// Made on the heap in each run.
    Dynamic,
}

/// What a layout says of a value.
#[derive(Debug, Clone)]
pub(super) struct ValueLayout {
    pub(super) data_type: DataType,
    /// The shape; meaningless where the place is `Dynamic` or the value is no tensor.
    pub(super) shape: Shape,
    pub(super) place: Place,
}

/// A plan's shapes and memory for given input shapes.
#[derive(Debug)]
pub struct Layout {
    /// Types and shapes of the inputs that this layout is for; `None` for other kinds of values.
    key: Vec<Option<(DataType, Shape)>>,
    pub(super) values: Vec<ValueLayout>,
    pub(super) known: Vec<Tensor>,
    /// For each value, the one whose memory it shares: itself unless it is an alias.
    pub(super) roots: Vec<ValueId>,
    /// How each step runs.
    pub steps: Vec<StepKind>,
    /// For each step, the dynamic values that nobody reads after it.
    pub(super) release: Vec<SmallVec<[ValueId; 2]>>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
}

/// What is known of a value while the layout is made.
#[derive(Debug, Clone, Default)]
struct Known {
    kind: Option<ValueKind>,
    dims: Option<Dims>,
    ints: Option<Ints>,
    tensor: Option<Tensor>,
}

impl Known {
    fn of_tensor(tensor: Tensor) -> Self {
        Self {
            kind: Some(ValueKind::Tensor(tensor.data_type())),
            dims: Some(known_dims(tensor.shape())),
            ints: None,
            tensor: Some(tensor),
        }
    }

    fn info(&self) -> InputInfo<'_> {
        InputInfo {
            kind: self.kind.as_ref(),
            dims: self.dims.as_deref(),
            value: self.tensor.as_ref().map(Tensor::view),
            ints: self.ints.as_deref(),
        }
    }
}

impl Layout {
    /// Whether the layout is for inputs of these shapes.
    pub(super) fn fits(&self, inputs: &[InputValue<'_>]) -> bool {
        self.key.len() == inputs.len()
            && self
                .key
                .iter()
                .zip(inputs)
                .all(|(key, input)| match (key, input) {
                    (Some((data_type, shape)), InputValue::Tensor(view)) => {
                        *data_type == view.data_type() && shape[..] == *view.shape()
                    }
                    (None, InputValue::Value(_)) => true,
                    _ => false,
                })
    }

    /// Lays a plan out for inputs of these shapes.
    ///
    /// # Errors
    /// When shapes do not fit an operator, or the arena would exceed `limit_bytes`.
    pub(super) fn new(
        plan: &Plan,
        inputs: &[InputValue<'_>],
        env: &Env,
        limit_bytes: u64,
    ) -> Result<Self, Error> {
        let mut maker = Maker::new(plan, inputs);
        for step in &plan.steps {
            let fail = |source| Error::Node {
                node: Box::new((*step.name).clone()),
                source,
            };
            let kind = maker.step(step, env).map_err(fail)?;
            maker.kinds.push(kind);
        }
        maker.finish(plan, inputs, limit_bytes)
    }

    /// Number of steps that run on data.
    pub fn running_steps(&self) -> usize {
        self.steps
            .iter()
            .filter(|s| matches!(s, StepKind::Planned { .. } | StepKind::Dynamic))
            .count()
    }
}

struct Maker {
    known: Vec<Known>,
    places: Vec<Place>,
    tensors: Vec<Tensor>,
    /// For an alias, the value whose memory it shares.
    roots: Vec<ValueId>,
    kinds: Vec<StepKind>,
}

impl Maker {
    fn new(plan: &Plan, inputs: &[InputValue<'_>]) -> Self {
        let count = plan.values.len();
        let mut maker = Self {
            known: vec![Known::default(); count],
            places: vec![Place::Nowhere; count],
            tensors: Vec::new(),
            roots: (0..count as u32).map(ValueId).collect(),
            kinds: Vec::with_capacity(plan.steps.len()),
        };
        for (i, (id, input)) in plan.inputs.iter().zip(inputs).enumerate() {
            maker.places[id.index()] = Place::Input(i);
            maker.known[id.index()] = match input {
                InputValue::Tensor(view) => Known {
                    kind: Some(ValueKind::Tensor(view.data_type())),
                    dims: Some(known_dims(view.shape())),
                    ..Known::default()
                },
                InputValue::Value(value) => Known {
                    kind: Some(value.kind()),
                    ..Known::default()
                },
                InputValue::InPlace { .. } => Known::default(),
            };
        }
        for (id, tensor) in &plan.constants {
            maker.places[id.index()] = Place::Constant;
            maker.known[id.index()] = Known::of_tensor(tensor.clone());
        }
        maker
    }

    fn step(&mut self, step: &Step, env: &Env) -> Result<StepKind, OpError> {
        let own = step.inputs.len() - step.captures;
        let infos: SmallVec<[Option<InputInfo<'_>>; 16]> = step.inputs[..own]
            .iter()
            .map(|id| id.map(|id| self.known[id.index()].info()))
            .collect();
        let ctx = InferContext::new(&infos, step.outputs.len(), &step.subgraph_outputs);
        // What a subgraph gives may be of a kind that only a run tells; then nothing is known.
        let outputs = match infos.iter().flatten().all(|info| info.kind.is_some()) {
            true => step.operator.infer(&ctx)?,
            false => step.outputs.iter().map(|_| OutputInfo::unknown()).collect(),
        };
        if outputs.len() < step.outputs.len() {
            return Err(OpError::Internal {
                what: format!(
                    "{} outputs were inferred of {}",
                    outputs.len(),
                    step.outputs.len()
                ),
            });
        }
        drop(infos);
        if let Some(tensors) = self.fold(step, &outputs, env)? {
            for (id, tensor) in step.outputs.iter().zip(tensors) {
                if let (Some(id), Some(tensor)) = (id, tensor) {
                    self.places[id.index()] = Place::Known(self.tensors.len());
                    self.tensors.push(tensor.clone());
                    self.known[id.index()] = Known::of_tensor(tensor);
                }
            }
            return Ok(StepKind::Known);
        }
        let sized = |o: &OutputInfo| {
            o.value_type
                .data_type()
                .is_some_and(|t| t != DataType::String)
                && o.value_type
                    .dims
                    .as_deref()
                    .is_some_and(|d| known_shape(d).is_some())
        };
        let mut wanted = step
            .outputs
            .iter()
            .zip(&outputs)
            .filter(|(id, _)| id.is_some());
        let planned = wanted.all(|(_, o)| sized(o));
        let alias = match (
            step.operator.is_alias(),
            step.inputs.first(),
            step.outputs.first(),
        ) {
            (true, Some(&Some(input)), Some(&Some(output)))
                if planned && self.places[input.index()] != Place::Dynamic =>
            {
                Some((input, output))
            }
            _ => None,
        };
        for (id, output) in step.outputs.iter().zip(outputs) {
            let Some(id) = id else { continue };
            self.places[id.index()] = match planned {
                true => Place::Arena(0..0),
                false => Place::Dynamic,
            };
            self.known[id.index()] = Known {
                kind: output.value_type.kind,
                dims: output.value_type.dims,
                ints: output.ints,
                tensor: None,
            };
        }
        Ok(match alias {
            Some((input, output)) => {
                self.roots[output.index()] = self.roots[input.index()];
                self.places[output.index()] = self.places[input.index()].clone();
                StepKind::Alias
            }
            None if planned => StepKind::Planned { in_place: None },
            None => StepKind::Dynamic,
        })
    }

    /// The outputs, where they can be known now.
    fn fold(
        &self,
        step: &Step,
        outputs: &[OutputInfo],
        env: &Env,
    ) -> Result<Option<Vec<Option<Tensor>>>, OpError> {
        if !step.operator.is_deterministic() || !step.subplans.is_empty() {
            return Ok(None);
        }
        let from_ints = |o: &OutputInfo| {
            let values: Vec<i64> = o
                .ints
                .as_ref()?
                .iter()
                .map(|i| i.known())
                .collect::<Option<_>>()?;
            let shape = known_shape(o.value_type.dims.as_deref()?)?;
            match o.value_type.data_type()? {
                DataType::Int64 => Tensor::from_slice(&shape, &values).ok(),
                _ => None,
            }
        };
        let tensors: Option<Vec<_>> = outputs.iter().map(|o| from_ints(o).map(Some)).collect();
        if let Some(tensors) = tensors {
            return Ok(Some(tensors));
        }
        let small = |o: &OutputInfo| {
            let shape = o.value_type.dims.as_deref().and_then(known_shape);
            shape
                .and_then(|s| element_count(&s))
                .is_some_and(|n| n <= FOLD_ELEMENTS)
        };
        let all_known = step
            .inputs
            .iter()
            .flatten()
            .all(|id| self.known[id.index()].tensor.is_some());
        if !all_known || !outputs.iter().all(small) {
            return Ok(None);
        }
        let inputs: Vec<Option<Value>> = step
            .inputs
            .iter()
            .map(|id| self.known[(*id)?.index()].tensor.clone().map(Value::Tensor))
            .collect();
        let values = run_alone(&*step.operator, env, &inputs, step.outputs.len())?;
        let tensor = |v: Option<Value>| match v {
            Some(Value::Tensor(tensor)) => Some(tensor),
            _ => None,
        };
        Ok(Some(values.into_iter().map(tensor).collect()))
    }

    fn finish(
        mut self,
        plan: &Plan,
        inputs: &[InputValue<'_>],
        limit_bytes: u64,
    ) -> Result<Layout, Error> {
        let mut values = Vec::with_capacity(self.known.len());
        for (known, place) in self.known.iter().zip(&self.places) {
            values.push(ValueLayout {
                data_type: match known.kind {
                    Some(ValueKind::Tensor(data_type)) => data_type,
                    _ => DataType::Float32,
                },
                shape: known
                    .dims
                    .as_deref()
                    .and_then(known_shape)
                    .unwrap_or_default(),
                place: place.clone(),
            });
        }
        let mut lifetimes = Lifetimes::new(plan, &self.roots, &self.kinds);
        let arena_bytes = lifetimes.allocate(plan, &mut self.kinds, &mut values, limit_bytes)?;
        for i in 0..values.len() {
            let root = self.roots[i].index();
            if root != i && matches!(values[root].place, Place::Arena(_)) {
                values[i].place = values[root].place.clone();
            }
        }
        let key = inputs
            .iter()
            .map(|input| match input {
                InputValue::Tensor(v) => Some((v.data_type(), Shape::from_slice(v.shape()))),
                _ => None,
            })
            .collect();
        let release = lifetimes.releases(&values, plan.steps.len());
        Ok(Layout {
            key,
            values,
            known: self.tensors,
            roots: self.roots,
            steps: self.kinds,
            release,
            arena_bytes,
        })
    }
}
