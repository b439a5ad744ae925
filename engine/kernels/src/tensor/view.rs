//! Borrowed tensors: what operators read and write.

use std::sync::Arc;

use super::{DataType, Element, Shape, Storage, Strings, Tensor, buffer::Buffer};
use crate::error::OpError;

/// A tensor somebody else owns: type, shape and contiguous elements.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    data_type: DataType,
    shape: &'a [usize],
    data: ViewData<'a>,
}

#[derive(Debug, Clone, Copy)]
enum ViewData<'a> {
    Bytes(&'a [u8]),
    Strings(&'a [String]),
}

impl<'a> TensorView<'a> {
    /// A view over little-endian bytes, whose number the caller has matched to the shape.
    pub fn from_bytes(data_type: DataType, shape: &'a [usize], bytes: &'a [u8]) -> Self {
        debug_assert_eq!(
            data_type.size_bytes(shape.iter().product()),
            Some(bytes.len())
        );
        Self {
            data_type,
            shape,
            data: ViewData::Bytes(bytes),
        }
    }

    /// Type and shape of a tensor that nobody has: enough to plan with. It shows no elements.
    pub fn of_shape(data_type: DataType, shape: &'a [usize]) -> Self {
        Self {
            data_type,
            shape,
            data: ViewData::Bytes(&[]),
        }
    }

    /// A view over strings.
    pub fn from_strings(shape: &'a [usize], strings: &'a [String]) -> Self {
        Self {
            data_type: DataType::String,
            shape,
            data: ViewData::Strings(strings),
        }
    }

    /// The element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Sizes of the axes, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
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
    pub fn bytes(&self) -> &'a [u8] {
        match self.data {
            ViewData::Bytes(bytes) => bytes,
            ViewData::Strings(_) => &[],
        }
    }

    /// The elements as `T`.
    ///
    /// # Errors
    /// When the element type is another one.
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T], OpError> {
        match self.data {
            ViewData::Bytes(bytes) if T::DATA_TYPE == self.data_type => {
                bytemuck::try_cast_slice(bytes).map_err(|_| OpError::Internal {
                    what: "misaligned tensor".into(),
                })
            }
            _ => Err(OpError::ElementType {
                expected: T::DATA_TYPE,
                found: self.data_type,
            }),
        }
    }

    /// The strings.
    ///
    /// # Errors
    /// When the element type is another one.
    pub fn as_strings(&self) -> Result<&'a [String], OpError> {
        match self.data {
            ViewData::Strings(strings) => Ok(strings),
            ViewData::Bytes(_) => Err(OpError::ElementType {
                expected: DataType::String,
                found: self.data_type,
            }),
        }
    }

    /// The elements of an integer tensor (int64 or int32) as `i64`: axes, shapes, repeats.
    ///
    /// # Errors
    /// When the element type is neither.
    pub fn to_i64s(&self) -> Result<smallvec::SmallVec<[i64; 8]>, OpError> {
        match self.data_type {
            DataType::Int32 => Ok(self.as_slice::<i32>()?.iter().map(|&v| v.into()).collect()),
            _ => Ok(self.as_slice::<i64>()?.into()),
        }
    }

    /// The only element of a one-element tensor.
    ///
    /// # Errors
    /// When there is not exactly one element, or its type is another one.
    pub fn single<T: Element>(&self) -> Result<T, OpError> {
        match self.as_slice::<T>()? {
            [value] => Ok(*value),
            other => Err(OpError::shape(
                "scalar",
                "one element",
                format!("{}", other.len()),
            )),
        }
    }

    /// An owned copy. Without memory for it the run [ends](crate::limits::until_ended).
    pub fn to_tensor(&self) -> Tensor {
        let storage = match self.data {
            ViewData::Bytes(bytes) => Storage::Bytes(Buffer::copy_of(bytes).into()),
            ViewData::Strings(strings) => {
                let copy = Strings::copy_of(strings).unwrap_or_else(|shortage| shortage.raise());
                Storage::Strings(Arc::new(copy))
            }
        };
        Tensor {
            data_type: self.data_type,
            shape: Shape::from_slice(self.shape),
            storage,
        }
    }
}

/// A tensor to be written. Its content before is unspecified unless the operator computes in
/// place.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    data_type: DataType,
    shape: &'a [usize],
    bytes: &'a mut [u8],
}

impl<'a> TensorViewMut<'a> {
    /// A view over bytes, whose number the caller has matched to the shape.
    pub fn from_bytes(data_type: DataType, shape: &'a [usize], bytes: &'a mut [u8]) -> Self {
        debug_assert_eq!(
            data_type.size_bytes(shape.iter().product()),
            Some(bytes.len())
        );
        Self {
            data_type,
            shape,
            bytes,
        }
    }

    /// The element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Sizes of the axes, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Little-endian bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// The elements as `T`.
    ///
    /// # Errors
    /// When the element type is another one.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], OpError> {
        if T::DATA_TYPE != self.data_type {
            return Err(OpError::ElementType {
                expected: T::DATA_TYPE,
                found: self.data_type,
            });
        }
        bytemuck::try_cast_slice_mut(self.bytes).map_err(|_| OpError::Internal {
            what: "misaligned tensor".into(),
        })
    }
}
