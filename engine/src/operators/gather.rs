//! `Gather`, `GatherElements` and `GatherND`: elements chosen by indices.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Gather.html>,
//! <https://onnx.ai/onnx/operators/onnx__GatherElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__GatherND.html>. Negative indices count from the end.
//! Shapes, for `data: [.., size, ..]` and axis `a`:
//! `Gather`: `data[..a] ++ indices ++ data[a + 1..]`; `GatherElements`: that of `indices`;
//! `GatherND`: `indices[..-1] ++ data[batch_dims + indices[-1]..]`. Types: any; indices int32 or
//! int64.

use smallvec::SmallVec;

use super::axes::{normalize_axis, normalize_index};
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::dimension::display_dims;
use crate::graph::{Attributes, Dim, Dims, Ints};
use crate::kernels::{rows, scratch};
use crate::limits::Watch;
use crate::operator::{InferContext, InputInfo, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Shape, TensorView, row_major_strides};

const INDEX_TYPES: &[DataType] = &[DataType::Int32, DataType::Int64];

/// Calls `work` with the elements of an int32 or int64 tensor as `i64`.
pub(super) fn with_indices<R>(
    indices: TensorView<'_>,
    work: impl FnOnce(&[i64]) -> Result<R, OpError>,
) -> Result<R, OpError> {
    match indices.data_type() {
        DataType::Int32 => scratch::with(indices.len(), |wide: &mut [i64]| {
            for (to, &from) in wide.iter_mut().zip(indices.as_slice::<i32>()?) {
                *to = from.into();
            }
            work(wide)
        }),
        _ => work(indices.as_slice()?),
    }
}

/// The error for an index that does not fit an axis.
pub(super) fn out_of_range(index: i64, size: usize) -> OpError {
    OpError::value(
        "indices",
        format!("numbers from -{size} to {}", size as i64 - 1),
        index,
    )
}

/// `Gather`: slices of one axis.
#[derive(Debug)]
pub(super) struct Gather {
    axis: i64,
}

impl Gather {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.int_or("axis", 0)?,
        })
    }
}

/// The chosen elements of a small list of integers.
fn gather_ints(data: &InputInfo<'_>, indices: &InputInfo<'_>) -> Option<Ints> {
    let ints = data.ints?;
    if data.rank() != Some(1) || indices.rank()? > 1 {
        return None;
    }
    let chosen = indices.known_ints()?;
    let at = |&i: &i64| ints.get(normalize_index(i, ints.len())?).cloned();
    chosen.iter().map(at).collect()
}

impl Operator for Gather {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let indices = inputs.required(1, "indices")?;
        inputs.data_type_of(1, "indices", INDEX_TYPES)?;
        let dims = match (data.dims, indices.dims) {
            (Some(data), Some(indices)) => {
                let axis = normalize_axis(self.axis, data.len())?;
                let mut dims = Dims::from(&data[..axis]);
                dims.extend(indices.iter().chain(&data[axis + 1..]).cloned());
                Some(dims)
            }
            _ => None,
        };
        Ok(OutputInfo::maybe(data.data_type()?, dims)
            .with_ints(gather_ints(&data, &indices))
            .into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let data = ctx.input(0, "data")?;
        let indices = ctx.input(1, "indices")?;
        let axis = normalize_axis(self.axis, data.rank())?;
        let (outer, inner) = (&data.shape()[..axis], &data.shape()[axis + 1..]);
        let shape: Shape = outer
            .iter()
            .chain(indices.shape())
            .chain(inner)
            .copied()
            .collect();
        with_indices(indices, |indices| {
            if axis == 0 && copy_rows(ctx, data, indices)? {
                return Ok(());
            }
            let job = GatherSlices {
                indices,
                size: data.shape()[axis],
                inner: inner.iter().product(),
            };
            rearrange(ctx, &[data], 0, &shape, job)
        })
    }
}

/// Slices of the first axis of whole bytes, where there is an output for them; whether that was so.
fn copy_rows(
    ctx: &mut RunContext<'_>,
    data: TensorView<'_>,
    indices: &[i64],
) -> Result<bool, OpError> {
    let data_type = data.data_type();
    let size = data.shape()[0];
    if data_type == DataType::String || data_type.is_sub_byte() || u32::try_from(size).is_err() {
        return Ok(false);
    }
    let Some(mut output) = ctx.optional_output(0) else {
        return Ok(false);
    };
    scratch::with(indices.len(), |rows: &mut [u32]| {
        for (row, &index) in rows.iter_mut().zip(indices) {
            let at = normalize_index(index, size).ok_or_else(|| out_of_range(index, size))?;
            *row = at as u32;
        }
        let row_bytes = data.bytes().len().checked_div(size).unwrap_or(0);
        rows::copy_rows(output.bytes_mut(), data.bytes(), row_bytes, rows);
        Ok(true)
    })
}

struct GatherSlices<'a> {
    indices: &'a [i64],
    size: usize,
    inner: usize,
}

impl Rearrange for GatherSlices<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        let Self {
            indices,
            size,
            inner,
        } = self;
        let at = |index: i64| normalize_index(index, size).ok_or_else(|| out_of_range(index, size));
        // Indices must fit even where there is nothing to copy.
        if output.is_empty() || size * inner == 0 {
            return indices.iter().try_for_each(|&i| at(i).map(drop));
        }
        let mut watch = Watch::begin();
        let outer = output.chunks_exact_mut(indices.len() * inner);
        for (to, from) in outer.zip(inputs[0].chunks_exact(size * inner)) {
            for (to, &index) in to.chunks_exact_mut(inner).zip(indices) {
                watch.count(inner + 8);
                let start = at(index)? * inner;
                to.clone_from_slice(&from[start..start + inner]);
            }
        }
        Ok(())
    }
}

/// `GatherElements`: one index for each element.
#[derive(Debug)]
pub(super) struct GatherElements {
    axis: i64,
}

impl GatherElements {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.int_or("axis", 0)?,
        })
    }
}

/// Checks that `indices` has the axes of `data` and is, but along `axis`, no larger.
pub(super) fn check_elements(
    data: &[usize],
    indices: &[usize],
    axis: usize,
) -> Result<(), OpError> {
    let fits = data.len() == indices.len()
        && data
            .iter()
            .zip(indices)
            .enumerate()
            .all(|(i, (d, n))| i == axis || n <= d);
    if fits {
        return Ok(());
    }
    Err(OpError::shape(
        "indices",
        format!("a shape within {data:?} but for axis {axis}"),
        format!("{indices:?}"),
    ))
}

impl Operator for GatherElements {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let indices = inputs.required(1, "indices")?;
        inputs.data_type_of(1, "indices", INDEX_TYPES)?;
        if let Some(rank) = data.rank() {
            let axis = normalize_axis(self.axis, rank)?;
            if let (Some(data), Some(indices)) = (data.shape(), indices.shape()) {
                check_elements(&data, &indices, axis)?;
            }
        }
        Ok(OutputInfo::maybe(data.data_type()?, indices.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let data = ctx.input(0, "data")?;
        let indices = ctx.input(1, "indices")?;
        let axis = normalize_axis(self.axis, data.rank())?;
        check_elements(data.shape(), indices.shape(), axis)?;
        with_indices(indices, |values| {
            let job = GatherOneByOne {
                elements: ElementWalk::new(data.shape(), indices.shape(), axis),
                indices: values,
            };
            rearrange(ctx, &[data], 0, indices.shape(), job)
        })
    }
}

/// Goes through the elements of an index tensor and gives for each the place in the data that its
/// other coordinates name.
#[derive(Debug, Clone)]
pub(super) struct ElementWalk<'a> {
    shape: &'a [usize],
    strides: Shape,
    axis: usize,
    size: usize,
}

impl<'a> ElementWalk<'a> {
    /// For `data` and `indices` that [`check_elements`] accepted.
    pub(super) fn new(data: &[usize], indices: &'a [usize], axis: usize) -> Self {
        Self {
            shape: indices,
            strides: row_major_strides(data),
            axis,
            size: data[axis],
        }
    }

    /// Calls `visit(i, place)` for the `i`-th index.
    pub(super) fn each(
        &self,
        indices: &[i64],
        mut visit: impl FnMut(usize, usize),
    ) -> Result<(), OpError> {
        let mut coordinates: SmallVec<[usize; 8]> = SmallVec::from_elem(0, self.shape.len());
        for (i, &index) in indices.iter().enumerate() {
            let at =
                normalize_index(index, self.size).ok_or_else(|| out_of_range(index, self.size))?;
            let others = coordinates.iter().zip(&self.strides).enumerate();
            let base: usize = others
                .filter(|(axis, _)| *axis != self.axis)
                .map(|(_, (c, s))| c * s)
                .sum();
            visit(i, base + at * self.strides[self.axis]);
            for (at, &size) in coordinates.iter_mut().zip(self.shape).rev() {
                *at += 1;
                if *at < size {
                    break;
                }
                *at = 0;
            }
        }
        Ok(())
    }
}

struct GatherOneByOne<'a> {
    elements: ElementWalk<'a>,
    indices: &'a [i64],
}

impl Rearrange for GatherOneByOne<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        let data = inputs[0];
        self.elements
            .each(self.indices, |i, place| output[i] = data[place].clone())
    }
}

/// `GatherND`: index tuples along the last axis of the indices.
#[derive(Debug)]
pub(super) struct GatherNd {
    batch_dims: usize,
}

impl GatherNd {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let batch_dims = node.int_or("batch_dims", 0)?;
        Ok(Self {
            batch_dims: usize::try_from(batch_dims)
                .map_err(|_| OpError::value("batch_dims", "at least 0", batch_dims))?,
        })
    }

    fn mismatch(&self, data: &[Dim], indices: &[Dim]) -> OpError {
        OpError::shape(
            "indices",
            format!(
                "[.., n] with n at most the axes of data, after {} shared batch axes",
                self.batch_dims
            ),
            format!(
                "{} for data {}",
                display_dims(Some(indices)),
                display_dims(Some(data))
            ),
        )
    }

    fn dims(&self, data: &[Dim], indices: &[Dim]) -> Result<Option<Dims>, OpError> {
        let b = self.batch_dims;
        if indices.len() <= b || data.len() <= b {
            return Err(self.mismatch(data, indices));
        }
        let differ =
            |(a, b): (&Dim, &Dim)| matches!((a.known(), b.known()), (Some(a), Some(b)) if a != b);
        if data[..b].iter().zip(&indices[..b]).any(differ) {
            return Err(self.mismatch(data, indices));
        }
        let Some((Dim::Known(tuple), outer)) = indices.split_last() else {
            return Ok(None);
        };
        if b + tuple > data.len() || *tuple == 0 {
            return Err(self.mismatch(data, indices));
        }
        Ok(Some(
            outer.iter().chain(&data[b + tuple..]).cloned().collect(),
        ))
    }
}

impl Operator for GatherNd {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let indices = inputs.required(1, "indices")?;
        inputs.data_type_of(1, "indices", &[DataType::Int64])?;
        let dims = match (data.dims, indices.dims) {
            (Some(data), Some(indices)) => self.dims(data, indices)?,
            _ => None,
        };
        Ok(OutputInfo::maybe(data.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        use crate::graph::dimension::{known_dims, known_shape};
        let data = ctx.input(0, "data")?;
        let indices = ctx.input(1, "indices")?;
        let (data_dims, index_dims) = (known_dims(data.shape()), known_dims(indices.shape()));
        let shape = self
            .dims(&data_dims, &index_dims)?
            .and_then(|d| known_shape(&d))
            .ok_or_else(|| self.mismatch(&data_dims, &index_dims))?;
        let job = GatherTuples {
            walk: TupleWalk::new(data.shape(), indices.shape(), self.batch_dims),
            tuples: indices.as_slice()?,
        };
        rearrange(ctx, &[data], 0, &shape, job)
    }
}

/// Goes through index tuples and gives for each the place of the slice that it names.
#[derive(Debug)]
pub(super) struct TupleWalk<'a> {
    /// Sizes of the axes that a tuple indexes.
    sizes: &'a [usize],
    strides: Shape,
    tuple: usize,
    tuples_per_batch: usize,
    batch_stride: usize,
    /// Elements of a slice.
    pub(super) inner: usize,
}

impl<'a> TupleWalk<'a> {
    /// For tuples along the last axis of `indices`, after `batch_dims` shared axes.
    pub(super) fn new(data: &'a [usize], indices: &[usize], batch_dims: usize) -> Self {
        let tuple = indices.last().copied().unwrap_or(0);
        let strides = row_major_strides(data);
        let last = indices.len().saturating_sub(1);
        Self {
            sizes: &data[batch_dims..batch_dims + tuple],
            strides: strides[batch_dims..batch_dims + tuple].into(),
            tuple,
            tuples_per_batch: indices[batch_dims..last].iter().product(),
            batch_stride: data[batch_dims..].iter().product(),
            inner: data[batch_dims + tuple..].iter().product(),
        }
    }

    /// Calls `visit(i, place)` for the `i`-th tuple.
    pub(super) fn each(
        &self,
        tuples: &[i64],
        mut visit: impl FnMut(usize, usize),
    ) -> Result<(), OpError> {
        if self.tuple == 0 {
            return Ok(());
        }
        for (i, tuple) in tuples.chunks_exact(self.tuple).enumerate() {
            let mut place = i / self.tuples_per_batch.max(1) * self.batch_stride;
            for ((&index, &size), stride) in tuple.iter().zip(self.sizes).zip(&self.strides) {
                let at = normalize_index(index, size).ok_or_else(|| out_of_range(index, size))?;
                place += at * stride;
            }
            visit(i, place);
        }
        Ok(())
    }
}

struct GatherTuples<'a> {
    walk: TupleWalk<'a>,
    tuples: &'a [i64],
}

impl Rearrange for GatherTuples<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        let inner = self.walk.inner;
        self.walk.each(self.tuples, |i, place| {
            output[i * inner..(i + 1) * inner].clone_from_slice(&inputs[0][place..place + inner]);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, strings, tensor};
    use super::*;
    use crate::graph::Int;

    #[test]
    fn gather_takes_slices() {
        let data = tensor(&[3, 2], &[1f32, 1.2, 2.3, 3.4, 4.5, 5.7]);
        let indices = tensor(&[2, 2], &[0i64, 1, 1, -1]);
        let found = Case::of("Gather", 13).one(&[data.clone(), indices]);
        let expected = tensor(&[2, 2, 2], &[1f32, 1.2, 2.3, 3.4, 2.3, 3.4, 4.5, 5.7]);
        assert_eq!(found, Ok(expected));
        let along_1 = Case::of("Gather", 13).int("axis", 1);
        let found = along_1.one(&[data.clone(), tensor(&[], &[1i32])]);
        assert_eq!(found, Ok(tensor(&[3], &[1.2f32, 3.4, 5.7])));
        for bad in [3, -4, i64::MIN, i64::MAX] {
            assert!(
                Case::of("Gather", 13)
                    .one(&[data.clone(), ints(&[bad])])
                    .is_err(),
                "{bad}"
            );
        }
        let empty = Case::of("Gather", 13).one(&[tensor::<f32>(&[0], &[]), ints(&[0])]);
        assert!(empty.is_err());
        let text = Case::of("Gather", 13).one(&[strings(&[2], &["a", "b"]), ints(&[1])]);
        assert_eq!(text, Ok(strings(&[1], &["b"])));
    }

    #[test]
    fn gather_elements_takes_one_for_each_index() {
        let data = tensor(&[3, 3], &[1i32, 2, 3, 4, 5, 6, 7, 8, 9]);
        let indices = tensor(&[2, 3], &[1i64, 2, 0, -1, 0, 0]);
        let found = Case::of("GatherElements", 13).one(&[data.clone(), indices]);
        assert_eq!(found, Ok(tensor(&[2, 3], &[4, 8, 3, 7, 2, 3])));
        let along_1 = Case::of("GatherElements", 13).int("axis", 1);
        let found = along_1.one(&[data.clone(), tensor(&[1, 4], &[0i32, 2, 1, 0])]);
        assert_eq!(found, Ok(tensor(&[1, 4], &[1, 3, 2, 1])));
        assert!(along_1.one(&[data, tensor(&[4, 1], &[0i32; 4])]).is_err());
    }

    #[test]
    fn gather_nd_takes_slices_of_tuples() {
        let data = tensor(&[2, 2, 2], &[0i32, 1, 2, 3, 4, 5, 6, 7]);
        let case = |batch| Case::of("GatherND", 13).int("batch_dims", batch);
        let found = case(0).one(&[data.clone(), tensor(&[2, 2], &[0i64, 1, 1, 0])]);
        assert_eq!(found, Ok(tensor(&[2, 2], &[2, 3, 4, 5])));
        let found = case(1).one(&[data.clone(), tensor(&[2, 1], &[1i64, -2])]);
        assert_eq!(found, Ok(tensor(&[2, 2], &[2, 3, 4, 5])));
        assert!(
            case(0)
                .one(&[data.clone(), tensor(&[1, 4], &[0i64; 4])])
                .is_err()
        );
        assert!(
            case(-1)
                .one(&[data.clone(), tensor(&[1, 1], &[0i64])])
                .is_err()
        );
        assert!(case(0).one(&[data, tensor(&[1, 1], &[2i64])]).is_err());
    }

    #[test]
    fn chosen_sizes_stay_symbols() {
        let ints = [Int::Symbol("n".into()), Int::Known(4)];
        let data = InputInfo {
            kind: None,
            dims: Some(&[Dim::Known(2)]),
            value: None,
            ints: Some(&ints),
        };
        let index = InputInfo {
            dims: Some(&[]),
            ints: Some(&[Int::Known(0)]),
            ..data
        };
        assert_eq!(gather_ints(&data, &index).expect("known")[..], ints[..1]);
    }
}
