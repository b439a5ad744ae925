//! Tensors of any real type, read or written as f32.

use crate::error::OpError;
use crate::kernels::conversion::{SmallFloatRounding, convert};
use crate::kernels::scratch;
use crate::tensor::{DataType, TensorView, TensorViewMut};

/// Calls `work` with a tensor's elements as f32: in place where they are, else converted.
///
/// # Errors
/// When the elements are no numbers, and those of `work`.
pub(super) fn with_f32<R>(
    view: TensorView<'_>,
    work: impl FnOnce(&[f32]) -> Result<R, OpError>,
) -> Result<R, OpError> {
    if view.data_type() == DataType::Float32 {
        return work(view.as_slice()?);
    }
    scratch::with(view.len(), |wide: &mut [f32]| {
        let bytes = bytemuck::cast_slice_mut(wide);
        let mut to = TensorViewMut::from_bytes(DataType::Float32, view.shape(), bytes);
        convert(view, &mut to, SmallFloatRounding::default())?;
        work(wide)
    })
}

/// The same for a tensor that may be absent: then `work` sees no elements.
///
/// # Errors
/// As [`with_f32`].
pub(super) fn with_optional_f32<R>(
    view: Option<TensorView<'_>>,
    work: impl FnOnce(&[f32]) -> Result<R, OpError>,
) -> Result<R, OpError> {
    match view {
        Some(view) => with_f32(view, work),
        None => work(&[]),
    }
}

/// Calls `work` with memory for a tensor's elements as f32: its own where it is of f32, else
/// memory whose content is converted afterwards.
///
/// # Errors
/// When the type is none that numbers convert to, and those of `work`.
pub(super) fn write_f32<R>(
    output: &mut TensorViewMut<'_>,
    work: impl FnOnce(&mut [f32]) -> Result<R, OpError>,
) -> Result<R, OpError> {
    if output.data_type() == DataType::Float32 {
        return work(output.as_mut_slice()?);
    }
    let len: usize = output.shape().iter().product();
    scratch::with(len, |wide: &mut [f32]| {
        let result = work(wide)?;
        let bytes = bytemuck::cast_slice(wide);
        let from = TensorView::from_bytes(DataType::Float32, output.shape(), bytes);
        convert(from, output, SmallFloatRounding::default())?;
        Ok(result)
    })
}
