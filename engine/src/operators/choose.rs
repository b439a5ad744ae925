//! Operators whose output's size depends on data: `NonZero`, `Compress` and `Unique`.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__NonZero.html>,
//! <https://onnx.ai/onnx/operators/onnx__Compress.html>,
//! <https://onnx.ai/onnx/operators/onnx__Unique.html>. Types: any.

use std::cell::RefCell;
use std::cmp::Ordering;

use half::{bf16, f16};

use super::axes::normalize_axis;
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::limits::{self, Watch};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Bool, Buffer, DataType, Shape, Tensor, TensorView, element_count};

/// `NonZero`: the coordinates of all elements that are not zero, a column each.
#[derive(Debug)]
pub(super) struct NonZero;

impl NonZero {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

/// Which elements are not zero.
fn not_zero(view: TensorView<'_>) -> Result<Vec<bool>, OpError> {
    use DataType::*;
    Ok(match view.data_type() {
        String => view.as_strings()?.iter().map(|s| !s.is_empty()).collect(),
        // A negative zero is zero though its bits are not.
        Float32 => view.as_slice::<f32>()?.iter().map(|&x| x != 0.0).collect(),
        Float64 => view.as_slice::<f64>()?.iter().map(|&x| x != 0.0).collect(),
        Float16 => view
            .as_slice::<f16>()?
            .iter()
            .map(|x| x.to_bits() & 0x7fff != 0)
            .collect(),
        Bfloat16 => view
            .as_slice::<bf16>()?
            .iter()
            .map(|x| x.to_bits() & 0x7fff != 0)
            .collect(),
        Complex64 => {
            let numbers = view.as_slice::<crate::tensor::Complex<f32>>()?;
            numbers.iter().map(|x| x.re != 0.0 || x.im != 0.0).collect()
        }
        Complex128 => {
            let numbers = view.as_slice::<crate::tensor::Complex<f64>>()?;
            numbers.iter().map(|x| x.re != 0.0 || x.im != 0.0).collect()
        }
        small if small.bits() < 8 => {
            let codes = crate::tensor::packed::unpack_codes(small, view.bytes(), view.len());
            codes.iter().map(|&code| code != 0).collect()
        }
        other => {
            let elements = view.bytes().chunks_exact(other.bits() / 8);
            elements
                .map(|bytes| bytes.iter().any(|&b| b != 0))
                .collect()
        }
    })
}

impl Operator for NonZero {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        // A scalar counts as a vector of one element.
        let rank = inputs.required(0, "X")?.rank().map(|rank| rank.max(1));
        let dims = [rank.map_or(Dim::Unknown, Dim::Known), Dim::Unknown];
        Ok(OutputInfo::tensor(DataType::Int64, dims.into_iter().collect()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let not_zero = not_zero(x)?;
        let count = not_zero.iter().filter(|&&nonzero| nonzero).count();
        limits::end_if_stopped();
        let mut found: Vec<usize> = limits::with_room(count);
        let places = not_zero.iter().enumerate();
        found.extend(places.filter_map(|(i, &nonzero)| nonzero.then_some(i)));
        drop(not_zero);
        let shape = if x.rank() == 0 { &[1][..] } else { x.shape() };
        let strides = crate::tensor::row_major_strides(shape);
        let dims = [shape.len(), count];
        let mut bytes = buffer_of(&dims)?;
        let coordinates: &mut [i64] = bytemuck::cast_slice_mut(&mut bytes);
        let mut watch = Watch::begin();
        for (row, (&size, &stride)) in shape.iter().zip(&strides).enumerate() {
            let row = coordinates[row * count..][..count].chunks_mut(LOOK);
            for (to, places) in row.zip(found.chunks(LOOK)) {
                watch.count(8 * to.len());
                for (to, &i) in to.iter_mut().zip(places) {
                    *to = (i / stride % size) as i64;
                }
            }
        }
        ctx.set_output(0, Tensor::from_bytes(DataType::Int64, &dims, bytes)?)
    }
}

/// Elements between two looks whether the run is to end.
const LOOK: usize = 1 << 14;

/// Room for int64 of this shape.
fn buffer_of(shape: &[usize]) -> Result<Buffer, OpError> {
    let bytes = element_count(shape).and_then(|n| DataType::Int64.size_bytes(n));
    let bytes = bytes.ok_or_else(|| OpError::TooLarge {
        what: format!("shape {shape:?}"),
    })?;
    Ok(Buffer::try_zeroed(bytes)?)
}

/// `Compress`: the slices of an axis, or the elements, where a condition holds.
#[derive(Debug)]
pub(super) struct Compress {
    axis: Option<i64>,
}

impl Compress {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.optional_int("axis")?.copied(),
        })
    }
}

impl Operator for Compress {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        inputs.data_type_of(1, "condition", &[DataType::Bool])?;
        let dims = match (self.axis, input.dims) {
            (None, _) => Some(Dims::from_elem(Dim::Unknown, 1)),
            (Some(_), None) => None,
            (Some(axis), Some(dims)) => {
                let mut dims = Dims::from(dims);
                let axis = normalize_axis(axis, dims.len())?;
                dims[axis] = Dim::Unknown;
                Some(dims)
            }
        };
        Ok(OutputInfo::maybe(input.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let input = ctx.input(0, "input")?;
        let condition = ctx.input(1, "condition")?.as_slice::<Bool>()?;
        let (mut shape, axis) = match self.axis {
            None => (Shape::from_slice(&[input.len()]), 0),
            Some(axis) => (input.shape().into(), normalize_axis(axis, input.rank())?),
        };
        let size = shape[axis];
        if condition.len() > size {
            let expected = format!("at most {size} values");
            return Err(OpError::shape(
                "condition",
                expected,
                condition.len().to_string(),
            ));
        }
        let holds = |(i, c): (usize, &Bool)| c.get().then_some(i);
        let chosen: Vec<usize> = condition.iter().enumerate().filter_map(holds).collect();
        let inner = shape[axis + 1..].iter().product();
        shape[axis] = chosen.len();
        let job = Slices {
            chosen: &chosen,
            size,
            inner,
        };
        rearrange(ctx, &[input], 0, &shape, job)
    }
}

/// Slices of an axis of this size, in order.
struct Slices<'a> {
    chosen: &'a [usize],
    size: usize,
    inner: usize,
}

impl Rearrange for Slices<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        if output.is_empty() {
            return Ok(());
        }
        let mut watch = Watch::begin();
        let outer = output.chunks_exact_mut(self.chosen.len() * self.inner);
        for (to, from) in outer.zip(inputs[0].chunks_exact(self.size * self.inner)) {
            for (to, &slice) in to.chunks_exact_mut(self.inner).zip(self.chosen) {
                watch.count(self.inner + 8);
                to.clone_from_slice(&from[slice * self.inner..][..self.inner]);
            }
        }
        Ok(())
    }
}

/// `Unique`: the different slices of an axis, or elements, with where each was first, which of
/// them every one is, and how often it occurs.
#[derive(Debug)]
pub(super) struct Unique {
    axis: Option<i64>,
    sorted: bool,
}

impl Unique {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.optional_int("axis")?.copied(),
            sorted: node.flag_or("sorted", true)?,
        })
    }
}

/// Order of two elements by their places. NaN comes last and is equal to itself.
fn order_of<'a>(
    view: TensorView<'a>,
) -> Result<Box<dyn Fn(usize, usize) -> Ordering + 'a>, OpError> {
    use DataType::*;
    fn floats(a: f64, b: f64) -> Ordering {
        a.partial_cmp(&b)
            .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    }
    macro_rules! by {
        ($t:ty, $key:expr) => {{
            let elements = view.as_slice::<$t>()?;
            Box::new(move |a: usize, b: usize| $key(&elements[a], &elements[b]))
        }};
    }
    Ok(match view.data_type() {
        String => {
            let strings = view.as_strings()?;
            Box::new(move |a, b| strings[a].cmp(&strings[b]))
        }
        Float32 => by!(f32, |a: &f32, b: &f32| floats(f64::from(*a), f64::from(*b))),
        Float64 => by!(f64, |a: &f64, b: &f64| floats(*a, *b)),
        Float16 => by!(f16, |a: &f16, b: &f16| floats(a.to_f64(), b.to_f64())),
        Bfloat16 => by!(bf16, |a: &bf16, b: &bf16| floats(a.to_f64(), b.to_f64())),
        Int8 => by!(i8, i8::cmp),
        Int16 => by!(i16, i16::cmp),
        Int32 => by!(i32, i32::cmp),
        Int64 => by!(i64, i64::cmp),
        Uint8 => by!(u8, u8::cmp),
        Uint16 => by!(u16, u16::cmp),
        Uint32 => by!(u32, u32::cmp),
        Uint64 => by!(u64, u64::cmp),
        Bool => by!(
            crate::tensor::Bool,
            |a: &crate::tensor::Bool, b: &crate::tensor::Bool| { a.get().cmp(&b.get()) }
        ),
        other => {
            return Err(OpError::InputType {
                input: "X",
                expected: "elements that have an order".into(),
                found: other,
            });
        }
    })
}

impl Operator for Unique {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let x = inputs.required(0, "X")?;
        let dims = match (self.axis, x.dims) {
            (None, _) => Some(Dims::from_elem(Dim::Unknown, 1)),
            (Some(_), None) => None,
            (Some(axis), Some(dims)) => {
                let mut dims = Dims::from(dims);
                let axis = normalize_axis(axis, dims.len())?;
                dims[axis] = Dim::Unknown;
                Some(dims)
            }
        };
        let counts = || OutputInfo::tensor(DataType::Int64, Dims::from_elem(Dim::Unknown, 1));
        Ok([
            OutputInfo::maybe(x.data_type()?, dims),
            counts(),
            counts(),
            counts(),
        ]
        .into_iter()
        .take(inputs.output_count().max(1))
        .collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let (mut shape, axis) = match self.axis {
            None => (Shape::from_slice(&[x.len()]), 0),
            Some(axis) => (x.shape().into(), normalize_axis(axis, x.rank())?),
        };
        let size = shape[axis];
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        let element_order = order_of(x)?;
        // Elements of slices that are compared, however many comparisons a sort takes.
        let watch = RefCell::new(Watch::begin());
        let order = |a: usize, b: usize| {
            let place = |slice: usize, i: usize| (i / inner * size + slice) * inner + i % inner;
            (0..outer * inner)
                .map(|i| {
                    watch.borrow_mut().count(8);
                    element_order(place(a, i), place(b, i))
                })
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        let mut slices = numbers(size);
        // The sort has a copy of half of them.
        let sorting = limits::charge(size.div_ceil(2) * size_of::<usize>())?;
        slices.sort_by(|&a, &b| order(a, b));
        drop(sorting);
        // Groups of equal slices; the sort is stable, so each begins with its first.
        let begins = |i: &usize| *i == 0 || order(slices[*i - 1], slices[*i]).is_ne();
        let mut starts = limits::with_room(size + 1);
        starts.extend((0..size).filter(begins));
        let count = starts.len();
        starts.push(size);
        let mut groups = numbers(count);
        if !self.sorted {
            groups.sort_unstable_by_key(|&group| slices[starts[group]]);
        }
        let mut first: Vec<usize> = limits::with_room(count);
        let mut inverse = limits::zeroed(size);
        let mut counts: Vec<i64> = limits::with_room(count);
        for (i, &group) in groups.iter().enumerate() {
            let group = &slices[starts[group]..starts[group + 1]];
            watch.borrow_mut().count(group.len() + 8);
            first.push(group[0]);
            counts.push(group.len() as i64);
            group.iter().for_each(|&slice| inverse[slice] = i as i64);
        }
        shape[axis] = count;
        let job = Slices {
            chosen: &first,
            size,
            inner,
        };
        rearrange(ctx, &[x], 0, &shape, job)?;
        let mut places: Vec<i64> = limits::with_room(count);
        places.extend(first.iter().map(|&i| i as i64));
        ctx.set_elements(1, &[count], &places)?;
        ctx.set_elements(2, &[inverse.len()], &inverse)?;
        ctx.set_elements(3, &[counts.len()], &counts)
    }
}

/// The numbers below `count`.
fn numbers(count: usize) -> Vec<usize> {
    let mut numbers = limits::with_room(count);
    numbers.extend(0..count);
    numbers
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, strings, tensor};
    use super::*;

    #[test]
    fn nonzero_gives_coordinates() {
        let x = tensor(&[2, 2], &[1f32, -0.0, f32::NAN, 1.]);
        let found = Case::of("NonZero", 13).one(&[x]);
        assert_eq!(found, Ok(tensor(&[2, 3], &[0i64, 1, 1, 0, 0, 1])));
        let scalar = Case::of("NonZero", 13).one(&[tensor(&[], &[5i32])]);
        assert_eq!(scalar, Ok(tensor(&[1, 1], &[0i64])));
    }

    #[test]
    fn compress_keeps_what_the_condition_says() {
        let x = tensor(&[3, 2], &[1i32, 2, 3, 4, 5, 6]);
        let condition = tensor(&[3], &[Bool(0), Bool(1), Bool(1)]);
        let rows = Case::of("Compress", 11)
            .int("axis", 0)
            .one(&[x.clone(), condition.clone()]);
        assert_eq!(rows, Ok(tensor(&[2, 2], &[3, 4, 5, 6])));
        let flat = Case::of("Compress", 11).one(&[x.clone(), condition.clone()]);
        assert_eq!(flat, Ok(tensor(&[2], &[2, 3])));
        assert!(
            Case::of("Compress", 11)
                .int("axis", 1)
                .one(&[x, condition])
                .is_err()
        );
    }

    #[test]
    fn unique_sorts_counts_and_finds_again() {
        let x = tensor(&[6], &[2f32, 1., 1., 3., 4., 3.]);
        let case = Case::of("Unique", 11).outputs(4);
        let sorted = case.tensors(&[x.clone()]).expect("fits");
        assert_eq!(sorted[0], tensor(&[4], &[1f32, 2., 3., 4.]));
        assert_eq!(sorted[1], ints(&[1, 0, 3, 4]));
        assert_eq!(sorted[2], ints(&[1, 0, 0, 2, 3, 2]));
        assert_eq!(sorted[3], ints(&[2, 1, 2, 1]));
        let found = case.int("sorted", 0).tensors(&[x]).expect("fits");
        assert_eq!(found[0], tensor(&[4], &[2f32, 1., 3., 4.]));
        let rows = tensor(&[3, 2], &[1i64, 0, 1, 0, 0, 5]);
        let found = Case::of("Unique", 11).int("axis", 0).one(&[rows]);
        assert_eq!(found, Ok(tensor(&[2, 2], &[0i64, 5, 1, 0])));
        let text = Case::of("Unique", 11).one(&[strings(&[3], &["b", "a", "b"])]);
        assert_eq!(text, Ok(strings(&[2], &["a", "b"])));
    }
}
