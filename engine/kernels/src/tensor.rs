//! Tensors and the other values ONNX knows: sequences, maps and optionals.
//!
//! A [`Tensor`] is contiguous, row-major and immutable once made; its bytes are shared
//! ([`Storage`]), so cloning costs a reference count and a weight can be a slice of the file it
//! came from. Kernels never see tensors: they read [`TensorView`]s and write [`TensorViewMut`]s,
//! whose memory belongs to a run's arena, to the caller, or to the file.

mod buffer;
mod data_type;
mod element;
pub mod packed;
mod small_float;
mod strings;
mod value;
mod view;

pub use buffer::{Buffer, SharedBytes};
pub use data_type::DataType;
pub use element::{Bool, Complex, Element};
pub use small_float::{decode_small_float, encode_small_float};
pub use strings::Strings;
pub use value::{Map, MapKeys, OptionalValue, Sequence, Value, ValueKind};
pub use view::{TensorView, TensorViewMut};

use smallvec::SmallVec;
use std::sync::Arc;

use crate::error::OpError;

/// Sizes of a tensor's axes, outermost first. Empty for a scalar. Up to eight stay inline.
pub type Shape = SmallVec<[usize; 8]>;

/// Number of elements of a shape, or `None` where the product overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the tensor empty, however large the other axes claim to be.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Row-major strides, in elements.
pub fn row_major_strides(shape: &[usize]) -> Shape {
    let mut strides = Shape::from_elem(1, shape.len());
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// Where a tensor's elements are.
#[derive(Debug, Clone)]
pub enum Storage {
    /// Fixed-size elements as little-endian bytes; sub-byte types packed two or four to a byte,
    /// first element in the low bits.
    Bytes(SharedBytes),
    /// UTF-8 strings, one an element.
    Strings(Arc<Strings>),
}

/// A contiguous, row-major, immutable tensor.
#[derive(Debug, Clone)]
pub struct Tensor {
    data_type: DataType,
    shape: Shape,
    storage: Storage,
}

impl Tensor {
    /// A tensor over little-endian bytes.
    ///
    /// # Errors
    /// When `bytes` is not exactly as long as `shape` and `data_type` say, or the type is string.
    pub fn from_bytes(
        data_type: DataType,
        shape: &[usize],
        bytes: impl Into<SharedBytes>,
    ) -> Result<Self, OpError> {
        let bytes = bytes.into();
        let expected = element_count(shape)
            .and_then(|n| data_type.size_bytes(n))
            .ok_or_else(|| OpError::TooLarge {
                what: format!("tensor of shape {shape:?}"),
            })?;
        if data_type == DataType::String || bytes.len() != expected {
            return Err(OpError::ByteLength {
                data_type,
                shape: shape.into(),
                expected,
                found: bytes.len(),
            });
        }
        Ok(Self {
            data_type,
            shape: shape.into(),
            storage: Storage::Bytes(bytes),
        })
    }

    /// A tensor that copies `elements`.
    ///
    /// # Errors
    /// When their number is not the product of `shape`.
    pub fn from_slice<T: Element>(shape: &[usize], elements: &[T]) -> Result<Self, OpError> {
        Self::from_bytes(
            T::DATA_TYPE,
            shape,
            Buffer::copy_of(bytemuck::cast_slice(elements)),
        )
    }

    /// A tensor of strings.
    ///
    /// # Errors
    /// When their number is not the product of `shape`, and when the run may not have so much memory.
    pub fn from_strings(shape: &[usize], strings: Vec<String>) -> Result<Self, OpError> {
        Self::of_strings(shape, Strings::charged(strings)?)
    }

    /// A tensor of strings that are charged already.
    ///
    /// # Errors
    /// When their number is not the product of `shape`.
    pub fn of_strings(shape: &[usize], strings: Strings) -> Result<Self, OpError> {
        if element_count(shape) != Some(strings.len()) {
            return Err(OpError::ByteLength {
                data_type: DataType::String,
                shape: shape.into(),
                expected: element_count(shape).unwrap_or(usize::MAX),
                found: strings.len(),
            });
        }
        Ok(Self {
            data_type: DataType::String,
            shape: shape.into(),
            storage: Storage::Strings(Arc::new(strings)),
        })
    }

    /// A scalar.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self {
            data_type: T::DATA_TYPE,
            shape: Shape::new(),
            storage: Storage::Bytes(Buffer::copy_of(bytemuck::bytes_of(&value)).into()),
        }
    }

    /// The element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Sizes of the axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Little-endian bytes; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Bytes(bytes) => bytes,
            Storage::Strings(_) => &[],
        }
    }

    /// Where the elements are.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The tensor as kernels see it.
    pub fn view(&self) -> TensorView<'_> {
        match &self.storage {
            Storage::Bytes(bytes) => TensorView::from_bytes(self.data_type, &self.shape, bytes),
            Storage::Strings(strings) => TensorView::from_strings(&self.shape, strings),
        }
    }

    /// The elements as `T`.
    ///
    /// # Errors
    /// When the element type is another one.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], OpError> {
        let slice = match &self.storage {
            Storage::Bytes(bytes) if T::DATA_TYPE == self.data_type => {
                bytemuck::try_cast_slice(bytes).ok()
            }
            _ => None,
        };
        slice.ok_or(OpError::ElementType {
            expected: T::DATA_TYPE,
            found: self.data_type,
        })
    }

    /// The strings.
    ///
    /// # Errors
    /// When the element type is another one.
    pub fn as_strings(&self) -> Result<&[String], OpError> {
        match &self.storage {
            Storage::Strings(strings) => Ok(strings),
            Storage::Bytes(_) => Err(OpError::ElementType {
                expected: DataType::String,
                found: self.data_type,
            }),
        }
    }

    /// The same elements under another shape of the same element count.
    ///
    /// # Errors
    /// When the element counts differ.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Self, OpError> {
        if element_count(shape) != Some(self.len()) {
            return Err(OpError::shape(
                "data",
                format!("{} elements", self.len()),
                format!("shape {shape:?}"),
            ));
        }
        Ok(Self {
            shape: shape.into(),
            ..self.clone()
        })
    }

    /// The same tensor with memory that its element type can be read from in place: a weight
    /// borrowed from a file may begin at any byte.
    #[must_use]
    pub fn aligned(self) -> Self {
        let align = self.data_type.alignment();
        match &self.storage {
            Storage::Bytes(bytes) if !bytes.as_ptr().addr().is_multiple_of(align) => Self {
                storage: Storage::Bytes(Buffer::copy_of(bytes).into()),
                ..self
            },
            _ => self,
        }
    }
}

impl PartialEq for Tensor {
    /// Same type, shape and bits.
    fn eq(&self, other: &Self) -> bool {
        self.data_type == other.data_type
            && self.shape == other.shape
            && match (&self.storage, &other.storage) {
                (Storage::Bytes(a), Storage::Bytes(b)) => a[..] == b[..],
                (Storage::Strings(a), Storage::Strings(b)) => a == b,
                _ => false,
            }
    }
}
