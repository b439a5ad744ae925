//! Steps whose outputs are sized only when they run: they are allocated one by one.

use smallvec::SmallVec;

use super::Step;
use crate::error::OpError;
use crate::graph::Dims;
use crate::graph::dimension::{known_dims, known_shape};
use crate::operator::{InferContext, InputInfo, InputValue, OutputInfo, OutputSlot};
use crate::session::Budget;
use crate::tensor::{
    Buffer, DataType, Shape, Tensor, TensorViewMut, Value, ValueKind, element_count,
};

/// Asks an operator for its outputs with all inputs known.
pub(super) fn infer_dynamic(
    step: &Step,
    inputs: &[Option<InputValue<'_>>],
) -> Result<SmallVec<[OutputInfo; 2]>, OpError> {
    let inputs = &inputs[..inputs.len().min(step.inputs.len() - step.captures)];
    let kinds: SmallVec<[Option<(ValueKind, Dims)>; 8]> = inputs
        .iter()
        .map(|input| match (*input)? {
            InputValue::Tensor(v) => {
                Some((ValueKind::Tensor(v.data_type()), known_dims(v.shape())))
            }
            InputValue::Value(v) => Some((v.kind(), Dims::new())),
            InputValue::InPlace { .. } => None,
        })
        .collect();
    let infos: SmallVec<[Option<InputInfo<'_>>; 16]> = inputs
        .iter()
        .zip(&kinds)
        .map(|(input, kind)| {
            let (kind, dims) = kind.as_ref()?;
            let value = match (*input)? {
                InputValue::Tensor(view) => Some(view),
                _ => None,
            };
            let dims = value.is_some().then_some(&dims[..]);
            Some(InputInfo {
                kind: Some(kind),
                dims,
                value,
                ints: None,
            })
        })
        .collect();
    let ctx = InferContext::new(&infos, step.outputs.len(), &step.subgraph_outputs);
    let outputs = step.operator.infer(&ctx)?;
    if outputs.len() < step.outputs.len() {
        return Err(OpError::Internal {
            what: "too few outputs were inferred".into(),
        });
    }
    Ok(outputs)
}

/// An output outside of the arena.
pub(super) enum HeapOutput {
    Sized(DataType, Shape, Buffer),
    Made(Option<Value>),
}

impl HeapOutput {
    pub(super) fn new(info: &OutputInfo, budget: &Budget) -> Result<Self, OpError> {
        let shape = info.value_type.dims.as_deref().and_then(known_shape);
        let (Some(data_type), Some(shape)) = (info.value_type.data_type(), shape) else {
            return Ok(Self::Made(None));
        };
        let size = element_count(&shape)
            .and_then(|n| match data_type {
                // Without what they hold, which is copied from inputs.
                DataType::String => n.checked_mul(size_of::<String>()),
                _ => data_type.size_bytes(n),
            })
            .filter(|&n| n as u64 <= budget.memory_bytes)
            .ok_or_else(|| OpError::TooLarge {
                what: format!(
                    "tensor of shape {shape:?}, the limit is {} bytes",
                    budget.memory_bytes
                ),
            })?;
        if data_type == DataType::String {
            return Ok(Self::Made(None));
        }
        Ok(Self::Sized(data_type, shape, Buffer::try_zeroed(size)?))
    }

    pub(super) fn slot(&mut self) -> OutputSlot<'_> {
        match self {
            Self::Sized(data_type, shape, buffer) => {
                OutputSlot::Sized(TensorViewMut::from_bytes(*data_type, shape, buffer))
            }
            Self::Made(value) => OutputSlot::Made(value),
        }
    }

    pub(super) fn into_value(self) -> Result<Option<Value>, OpError> {
        match self {
            Self::Sized(data_type, shape, buffer) => {
                Ok(Some(Tensor::from_bytes(data_type, &shape, buffer)?.into()))
            }
            Self::Made(value) => Ok(value),
        }
    }
}
