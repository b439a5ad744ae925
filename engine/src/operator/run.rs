//! What an operator is given to run.

use crate::error::OpError;
use crate::graph::ValueType;
use crate::kernels::env::Env;
use crate::tensor::{
    Buffer, DataType, Element, Tensor, TensorView, TensorViewMut, Value, element_count,
};

/// An input of a node at run time.
#[derive(Debug, Clone, Copy)]
pub enum InputValue<'a> {
    /// A tensor somewhere.
    Tensor(TensorView<'a>),
    /// A value that lives on the heap: sequences, maps, optionals.
    Value(&'a Value),
    /// The content of this output's buffer, which the operator may overwrite.
    InPlace {
        /// Which output.
        output: usize,
        /// The element type of the input.
        data_type: DataType,
        /// The shape of the input.
        shape: &'a [usize],
    },
}

impl<'a> InputValue<'a> {
    /// The value as an input.
    pub fn from_value(value: &'a Value) -> Self {
        match value {
            Value::Tensor(tensor) => Self::Tensor(tensor.view()),
            other => Self::Value(other),
        }
    }

    /// An owned copy.
    pub fn to_value(&self) -> Option<Value> {
        match self {
            Self::Tensor(view) => Some(Value::Tensor(view.to_tensor())),
            Self::Value(value) => Some((*value).clone()),
            Self::InPlace { .. } => None,
        }
    }
}

/// Where an output goes.
#[derive(Debug)]
pub enum OutputSlot<'a> {
    /// Nobody wants it.
    Unwanted,
    /// Into memory that `infer` sized.
    Sized(TensorViewMut<'a>),
    /// The operator makes the value: a kind without fixed size, or a size known only to it.
    Made(&'a mut Option<Value>),
}

/// The outputs of a node: the first few inline, since a run should not allocate. (Not a `SmallVec`,
/// which is invariant over lifetimes.)
#[derive(Debug)]
pub struct OutputSlots<'a> {
    first: [OutputSlot<'a>; 4],
    rest: Vec<OutputSlot<'a>>,
    len: usize,
}

impl<'a> OutputSlots<'a> {
    fn get_mut(&mut self, i: usize) -> Option<&mut OutputSlot<'a>> {
        match i < self.len.min(self.first.len()) {
            true => self.first.get_mut(i),
            false => self.rest.get_mut(i.checked_sub(self.first.len())?),
        }
    }

    fn get(&self, i: usize) -> Option<&OutputSlot<'a>> {
        match i < self.len.min(self.first.len()) {
            true => self.first.get(i),
            false => self.rest.get(i.checked_sub(self.first.len())?),
        }
    }
}

impl<'a> FromIterator<OutputSlot<'a>> for OutputSlots<'a> {
    fn from_iter<I: IntoIterator<Item = OutputSlot<'a>>>(slots: I) -> Self {
        let mut slots = slots.into_iter();
        let mut len = 0;
        let first = std::array::from_fn(|_| match slots.next() {
            Some(slot) => {
                len += 1;
                slot
            }
            None => OutputSlot::Unwanted,
        });
        let rest: Vec<_> = slots.collect();
        len += rest.len();
        Self { first, rest, len }
    }
}

/// Runs the subgraphs of a node.
pub trait Subgraphs {
    /// Runs the `index`-th subgraph on `inputs`, to which the captures are added.
    ///
    /// # Errors
    /// Those of the subgraph.
    fn run(&mut self, index: usize, inputs: &[InputValue<'_>]) -> Result<Vec<Value>, OpError>;

    /// What was known at load of an output of the `index`-th subgraph.
    fn output_type(&self, index: usize, output: usize) -> Option<&ValueType>;
}

/// Inputs, outputs and the environment of one execution of a node.
pub struct RunContext<'a> {
    /// Instruction set, numerics and threads.
    pub env: &'a Env,
    inputs: &'a [Option<InputValue<'a>>],
    outputs: OutputSlots<'a>,
    subgraphs: &'a mut dyn Subgraphs,
}

impl<'a> RunContext<'a> {
    /// A context for one node.
    pub fn new(
        env: &'a Env,
        inputs: &'a [Option<InputValue<'a>>],
        outputs: OutputSlots<'a>,
        subgraphs: &'a mut dyn Subgraphs,
    ) -> Self {
        Self {
            env,
            inputs,
            outputs,
            subgraphs,
        }
    }

    /// Number of inputs listed, absent ones included (captures of subgraphs are not).
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Number of outputs listed, unwanted ones included.
    pub fn output_count(&self) -> usize {
        self.outputs.len
    }

    /// The `i`-th input, which must be a tensor with memory of its own.
    ///
    /// # Errors
    /// When it is absent or another kind of value.
    pub fn input(&self, i: usize, name: &'static str) -> Result<TensorView<'a>, OpError> {
        self.optional_input(i)?
            .ok_or(OpError::MissingInput { input: name })
    }

    /// The same, `None` where it is absent.
    ///
    /// # Errors
    /// When it is another kind of value.
    pub fn optional_input(&self, i: usize) -> Result<Option<TensorView<'a>>, OpError> {
        match self.inputs.get(i).copied().flatten() {
            None => Ok(None),
            Some(InputValue::Tensor(view)) => Ok(Some(view)),
            Some(InputValue::Value(value)) => Err(not_a_tensor(value)),
            Some(InputValue::InPlace { .. }) => Err(OpError::Internal {
                what: format!("input {i} lies in an output's memory"),
            }),
        }
    }

    /// The `i`-th input of any kind.
    ///
    /// # Errors
    /// When it is absent.
    pub fn value(&self, i: usize, name: &'static str) -> Result<InputValue<'a>, OpError> {
        self.inputs
            .get(i)
            .copied()
            .flatten()
            .ok_or(OpError::MissingInput { input: name })
    }

    /// All inputs.
    pub fn inputs(&self) -> &'a [Option<InputValue<'a>>] {
        self.inputs
    }

    /// Whether the `i`-th input is to be read from an output's memory. Only for the pairs of
    /// [`Operator::in_place`](super::Operator::in_place).
    pub fn is_in_place(&self, i: usize) -> bool {
        matches!(self.inputs.get(i), Some(Some(InputValue::InPlace { .. })))
    }

    /// The shape of the `i`-th input, in place or not.
    ///
    /// # Errors
    /// When it is absent or not a tensor.
    pub fn input_shape(&self, i: usize, name: &'static str) -> Result<&'a [usize], OpError> {
        match self.value(i, name)? {
            InputValue::Tensor(view) => Ok(view.shape()),
            InputValue::InPlace { shape, .. } => Ok(shape),
            InputValue::Value(value) => Err(not_a_tensor(value)),
        }
    }

    /// The element type of the `i`-th input, in place or not.
    ///
    /// # Errors
    /// When it is absent or not a tensor.
    pub fn input_type(&self, i: usize, name: &'static str) -> Result<DataType, OpError> {
        match self.value(i, name)? {
            InputValue::Tensor(view) => Ok(view.data_type()),
            InputValue::InPlace { data_type, .. } => Ok(data_type),
            InputValue::Value(value) => Err(not_a_tensor(value)),
        }
    }

    /// Whether anybody wants the `i`-th output.
    pub fn wants(&self, i: usize) -> bool {
        !matches!(self.outputs.get(i), None | Some(OutputSlot::Unwanted))
    }

    /// Takes the memory of the `i`-th output, sized by `infer`.
    ///
    /// # Errors
    /// When nobody wants it, its size was not known, or it was taken before.
    pub fn output(&mut self, i: usize) -> Result<TensorViewMut<'a>, OpError> {
        self.optional_output(i).ok_or_else(|| OpError::Internal {
            what: format!("output {i} has no memory"),
        })
    }

    /// Takes the memory of the `i`-th output, or `None` where nobody wants it.
    pub fn optional_output(&mut self, i: usize) -> Option<TensorViewMut<'a>> {
        let slot = self.outputs.get_mut(i)?;
        match std::mem::replace(slot, OutputSlot::Unwanted) {
            OutputSlot::Sized(view) => Some(view),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Sets the `i`-th output to a value made by the operator. Where `infer` sized the output after
    /// all, a tensor is copied into its memory.
    ///
    /// # Errors
    /// When the value is not of the size or kind that `infer` gave.
    pub fn set_output(&mut self, i: usize, value: impl Into<Value>) -> Result<(), OpError> {
        let value = value.into();
        match self.outputs.get_mut(i) {
            Some(OutputSlot::Made(slot)) => **slot = Some(value),
            Some(OutputSlot::Sized(view)) => {
                let tensor = value.as_tensor()?;
                if tensor.data_type() != view.data_type() || tensor.shape() != view.shape() {
                    return Err(OpError::Internal {
                        what: format!(
                            "output {i} was announced as {} {:?} and is {} {:?}",
                            view.data_type(),
                            view.shape(),
                            tensor.data_type(),
                            tensor.shape()
                        ),
                    });
                }
                view.bytes_mut().copy_from_slice(tensor.bytes());
            }
            _ => {}
        }
        Ok(())
    }

    /// Sets the `i`-th output to a tensor of `elements`.
    ///
    /// # Errors
    /// When their number is not the product of `shape`.
    pub fn set_elements<T: Element>(
        &mut self,
        i: usize,
        shape: &[usize],
        elements: &[T],
    ) -> Result<(), OpError> {
        self.set_output(i, Tensor::from_slice(shape, elements)?)
    }

    /// Runs the `index`-th subgraph on `inputs`; what it captures is added by the executor.
    ///
    /// # Errors
    /// Those of the subgraph.
    pub fn run_subgraph(
        &mut self,
        index: usize,
        inputs: &[InputValue<'_>],
    ) -> Result<Vec<Value>, OpError> {
        self.subgraphs.run(index, inputs)
    }

    /// What was known at load of an output of the `index`-th subgraph.
    pub fn subgraph_output(&self, index: usize, output: usize) -> Option<&ValueType> {
        self.subgraphs.output_type(index, output)
    }
}

fn not_a_tensor(value: &Value) -> OpError {
    OpError::ValueKind {
        expected: "tensor".into(),
        found: value.kind().to_string(),
    }
}

/// For operators without subgraphs.
pub(crate) struct NoSubgraphs;

impl Subgraphs for NoSubgraphs {
    fn run(&mut self, index: usize, _: &[InputValue<'_>]) -> Result<Vec<Value>, OpError> {
        Err(OpError::Internal {
            what: format!("there is no subgraph {index}"),
        })
    }

    fn output_type(&self, _: usize, _: usize) -> Option<&ValueType> {
        None
    }
}

/// Runs an operator on values outside of any graph: for constant folding and tests. Outputs that
/// `infer` can size are allocated here.
///
/// # Errors
/// Those of the operator.
pub fn run_alone(
    operator: &dyn super::Operator,
    env: &Env,
    inputs: &[Option<Value>],
    output_count: usize,
) -> Result<Vec<Option<Value>>, OpError> {
    use super::{InferContext, InputInfo};
    use crate::graph::dimension::{known_dims, known_shape};

    let kinds: Vec<_> = inputs.iter().map(|v| v.as_ref().map(Value::kind)).collect();
    let dims: Vec<_> = inputs
        .iter()
        .map(|v| {
            v.as_ref()
                .and_then(|v| v.as_tensor().ok())
                .map(|t| known_dims(t.shape()))
        })
        .collect();
    let infos: Vec<Option<InputInfo<'_>>> = inputs
        .iter()
        .zip(&kinds)
        .zip(&dims)
        .map(|((value, kind), dims)| {
            let value = value.as_ref()?;
            Some(InputInfo {
                kind: kind.as_ref(),
                dims: dims.as_deref(),
                value: value.as_tensor().ok().map(Tensor::view),
                ints: None,
            })
        })
        .collect();
    let outputs = operator.infer(&InferContext::new(&infos, output_count, &[]))?;
    let views: Vec<Option<InputValue<'_>>> = inputs
        .iter()
        .map(|v| v.as_ref().map(InputValue::from_value))
        .collect();

    enum Place {
        Sized(DataType, crate::tensor::Shape, Buffer),
        Made(Option<Value>),
    }
    let mut places = outputs
        .iter()
        .take(output_count)
        .map(|o| {
            let shape = o.value_type.dims.as_deref().and_then(known_shape);
            match (o.value_type.data_type(), shape) {
                (Some(data_type), Some(shape)) if data_type != DataType::String => {
                    let size = element_count(&shape)
                        .and_then(|n| data_type.size_bytes(n))
                        .filter(|&n| n <= isize::MAX as usize)
                        .ok_or_else(|| OpError::TooLarge {
                            what: format!("shape {shape:?}"),
                        })?;
                    Ok(Place::Sized(data_type, shape, Buffer::try_zeroed(size)?))
                }
                _ => Ok(Place::Made(None)),
            }
        })
        .collect::<Result<Vec<_>, OpError>>()?;
    let slots: OutputSlots<'_> = places
        .iter_mut()
        .map(|place| match place {
            Place::Sized(data_type, shape, buffer) => {
                OutputSlot::Sized(TensorViewMut::from_bytes(*data_type, shape, buffer))
            }
            Place::Made(value) => OutputSlot::Made(value),
        })
        .collect();
    operator.run(&mut RunContext::new(env, &views, slots, &mut NoSubgraphs))?;
    places
        .into_iter()
        .map(|place| match place {
            Place::Sized(data_type, shape, buffer) => Ok(Some(Value::Tensor(Tensor::from_bytes(
                data_type, &shape, buffer,
            )?))),
            Place::Made(value) => Ok(value),
        })
        .collect()
}
