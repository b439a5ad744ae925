//! What an operator is told when it is asked for the shapes of its outputs.

use smallvec::{SmallVec, smallvec};

use crate::error::OpError;
use crate::graph::dimension::{display_dims, known_dims, known_shape};
use crate::graph::{Dim, Dims, Int, Ints, ValueType};
use crate::tensor::{DataType, Shape, TensorView, ValueKind};

/// What is known of one input.
#[derive(Debug, Clone, Copy)]
pub struct InputInfo<'a> {
    /// Its kind; `None` where not even that is known.
    pub kind: Option<&'a ValueKind>,
    /// Its axes, where it is a tensor and their number is known.
    pub dims: Option<&'a [Dim]>,
    /// Its elements, where they are known.
    pub value: Option<TensorView<'a>>,
    /// Its elements as far as they are known, where it is a small tensor of integers.
    pub ints: Option<&'a [Int]>,
}

impl<'a> InputInfo<'a> {
    /// The element type.
    ///
    /// # Errors
    /// When the input is not a tensor.
    pub fn data_type(&self) -> Result<DataType, OpError> {
        match self.kind {
            Some(ValueKind::Tensor(data_type)) => Ok(*data_type),
            other => Err(OpError::ValueKind {
                expected: "tensor".into(),
                found: other.map_or("value of unknown kind".into(), ToString::to_string),
            }),
        }
    }

    /// Number of axes, where it is known.
    pub fn rank(&self) -> Option<usize> {
        self.dims.map(<[Dim]>::len)
    }

    /// The shape in numbers, where all of it is known.
    pub fn shape(&self) -> Option<Shape> {
        known_shape(self.dims?)
    }

    /// The axes, owned.
    pub fn to_dims(&self) -> Option<Dims> {
        self.dims.map(Into::into)
    }

    /// All elements of an int64 or int32 tensor, where all are known.
    pub fn known_ints(&self) -> Option<SmallVec<[i64; 8]>> {
        match (self.value, self.ints) {
            (Some(value), _) => value.to_i64s().ok(),
            (None, Some(ints)) => ints.iter().map(Int::known).collect(),
            _ => None,
        }
    }

    /// Elements of an int64 or int32 tensor as far as they are known; `None` where not even their
    /// number is.
    pub fn ints(&self) -> Option<Ints> {
        if let Some(ints) = self.ints {
            return Some(ints.into());
        }
        if let Some(value) = self.value {
            return Some(value.to_i64s().ok()?.into_iter().map(Int::Known).collect());
        }
        match self.dims? {
            [] => Some(smallvec![Int::Unknown]),
            [Dim::Known(n)] if *n <= 64 => Some(smallvec![Int::Unknown; *n]),
            _ => None,
        }
    }
}

/// The inputs of a node as far as they are known.
#[derive(Debug, Clone, Copy)]
pub struct InferContext<'a> {
    inputs: &'a [Option<InputInfo<'a>>],
    /// Types of the subgraphs' outputs, in the order of the subgraphs.
    subgraph_outputs: &'a [Vec<ValueType>],
    outputs: usize,
}

impl<'a> InferContext<'a> {
    /// A context over the inputs of a node with `outputs` outputs.
    pub fn new(
        inputs: &'a [Option<InputInfo<'a>>],
        outputs: usize,
        subgraph_outputs: &'a [Vec<ValueType>],
    ) -> Self {
        Self {
            inputs,
            subgraph_outputs,
            outputs,
        }
    }

    /// Number of inputs listed, absent ones included.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Number of outputs that the node lists.
    pub fn output_count(&self) -> usize {
        self.outputs
    }

    /// Types of the outputs of the `i`-th subgraph, as known at load.
    pub fn subgraph_outputs(&self, i: usize) -> &'a [ValueType] {
        self.subgraph_outputs.get(i).map_or(&[], Vec::as_slice)
    }

    /// The `i`-th input, named `name` in the specification.
    ///
    /// # Errors
    /// When it is absent.
    pub fn required(&self, i: usize, name: &'static str) -> Result<InputInfo<'a>, OpError> {
        self.optional(i)
            .ok_or(OpError::MissingInput { input: name })
    }

    /// The `i`-th input, where it is present.
    pub fn optional(&self, i: usize) -> Option<InputInfo<'a>> {
        self.inputs.get(i).copied().flatten()
    }

    /// All inputs that are present.
    pub fn present(&self) -> impl Iterator<Item = InputInfo<'a>> {
        self.inputs.iter().copied().flatten()
    }

    /// The element type of the `i`-th input, which must be one of `allowed`.
    ///
    /// # Errors
    /// When it is absent or of another type.
    pub fn data_type_of(
        &self,
        i: usize,
        name: &'static str,
        allowed: &[DataType],
    ) -> Result<DataType, OpError> {
        let found = self.required(i, name)?.data_type()?;
        if allowed.contains(&found) {
            return Ok(found);
        }
        let names: Vec<&str> = allowed.iter().map(|t| t.name()).collect();
        Err(OpError::InputType {
            input: name,
            expected: names.join(" or "),
            found,
        })
    }

    /// The `i`-th input, which must have `rank` axes where their number is known.
    ///
    /// # Errors
    /// When it is absent or has another number of axes.
    pub fn with_rank(
        &self,
        i: usize,
        name: &'static str,
        rank: usize,
    ) -> Result<InputInfo<'a>, OpError> {
        let input = self.required(i, name)?;
        match input.dims {
            Some(dims) if dims.len() != rank => Err(OpError::shape(
                name,
                format!("{rank} axes"),
                format!("shape {}", display_dims(Some(dims))),
            )),
            _ => Ok(input),
        }
    }
}

/// What an operator says of one output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputInfo {
    /// Kind and axes.
    pub value_type: ValueType,
    /// The elements, where the output is a small integer tensor of which something is known
    /// already (the output of `Shape`).
    pub ints: Option<Ints>,
}

/// One [`OutputInfo`] for each output.
pub type OutputInfos = SmallVec<[OutputInfo; 2]>;

impl OutputInfo {
    /// A tensor whose axes are known at least in number.
    pub fn tensor(data_type: DataType, dims: Dims) -> Self {
        Self {
            value_type: ValueType::tensor(data_type, Some(dims)),
            ints: None,
        }
    }

    /// A tensor, with or without known axes.
    pub fn maybe(data_type: DataType, dims: Option<Dims>) -> Self {
        Self {
            value_type: ValueType::tensor(data_type, dims),
            ints: None,
        }
    }

    /// A tensor of a known shape.
    pub fn shaped(data_type: DataType, shape: &[usize]) -> Self {
        Self::tensor(data_type, known_dims(shape))
    }

    /// A value of another kind than a tensor.
    pub fn of_kind(kind: ValueKind) -> Self {
        Self {
            value_type: ValueType {
                kind: Some(kind),
                dims: None,
            },
            ints: None,
        }
    }

    /// A value of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            value_type: ValueType::UNKNOWN,
            ints: None,
        }
    }

    /// The same with known elements.
    #[must_use]
    pub fn with_ints(mut self, ints: Option<Ints>) -> Self {
        self.ints = ints;
        self
    }
}

impl From<OutputInfo> for OutputInfos {
    fn from(info: OutputInfo) -> Self {
        smallvec![info]
    }
}
