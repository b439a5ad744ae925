//! `TopK`: the largest or smallest elements along an axis, with their indices.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__TopK.html>, opsets 1 (`k` an attribute), 10, 11
//! (`largest`, `sorted`), 24. Of equal elements the one with the lower index comes first; the
//! result is always sorted. NaN counts as larger than any number.
//! Shapes: `X: [.., n, ..]` → `[.., k, ..]` twice. Types: real numbers.

use half::{bf16, f16};
use std::cmp::Ordering;

use super::axes::normalize_axis;
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::scratch;
use crate::limits::Watch;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Element};

/// The operator.
#[derive(Debug)]
pub(super) struct TopK {
    axis: i64,
    largest: bool,
    /// Where it is an attribute.
    k: Option<i64>,
}

/// `TopK` of opset 1.
pub(super) struct TopKAttribute;

impl TopK {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.int_or("axis", -1)?,
            largest: node.flag_or("largest", true)?,
            k: None,
        })
    }

    fn checked(k: i64, size: Option<usize>) -> Result<usize, OpError> {
        let limit = size.unwrap_or(usize::MAX);
        usize::try_from(k)
            .ok()
            .filter(|&k| k <= limit)
            .ok_or_else(|| OpError::value("K", format!("a number from 0 to {limit}"), k))
    }
}

impl TopKAttribute {
    pub(super) fn parse(node: &Attributes) -> Result<TopK, OpError> {
        Ok(TopK {
            axis: node.int_or("axis", -1)?,
            largest: true,
            k: Some(*node.int("k")?),
        })
    }
}

/// An element with an order.
trait Ordered: Element {
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! ordered {
    ($($t:ty: $order:expr;)*) => {$(
        impl Ordered for $t {
            #[inline(always)]
            fn order(&self, other: &Self) -> Ordering {
                $order(self, other)
            }
        }
    )*};
}

ordered! {
    i8: i8::cmp; i16: i16::cmp; i32: i32::cmp; i64: i64::cmp;
    u8: u8::cmp; u16: u16::cmp; u32: u32::cmp; u64: u64::cmp;
    f32: |a: &f32, b: &f32| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    f64: |a: &f64, b: &f64| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    f16: |a: &f16, b: &f16| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    bf16: |a: &bf16, b: &bf16| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
}

const TYPES: &[DataType] = &[
    DataType::Float32,
    DataType::Float64,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Uint8,
    DataType::Uint16,
    DataType::Uint32,
    DataType::Uint64,
];

impl TopK {
    fn select<T: Ordered>(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let axis = normalize_axis(self.axis, x.rank())?;
        let k = match self.k {
            Some(k) => k,
            None => ctx.input(1, "K")?.single::<i64>()?,
        };
        let size = x.shape()[axis];
        let k = Self::checked(k, Some(size))?;
        let inner: usize = x.shape()[axis + 1..].iter().product();
        let outer: usize = x.shape()[..axis].iter().product();
        let x = x.as_slice::<T>()?;
        let (mut values, mut indices) = (ctx.optional_output(0), ctx.optional_output(1));
        let mut values = match &mut values {
            Some(view) => Some(view.as_mut_slice::<T>()?),
            None => None,
        };
        let mut indices = match &mut indices {
            Some(view) => Some(view.as_mut_slice::<i64>()?),
            None => None,
        };
        if k == 0 {
            return Ok(());
        }
        // Choosing takes a few rounds over all elements, sorting one for each bit of `k`.
        let work = size
            .saturating_mul(8)
            .saturating_add(k.saturating_mul(k.ilog2() as usize));
        scratch::with(size, |places: &mut [usize]| {
            let mut watch = Watch::begin();
            for row in 0..outer * inner {
                watch.count(work);
                let (o, i) = (row / inner, row % inner);
                let at = |j: usize| &x[(o * size + j) * inner + i];
                let order = |a: &usize, b: &usize| {
                    let order = at(*a).order(at(*b));
                    let order = if self.largest { order.reverse() } else { order };
                    order.then(a.cmp(b))
                };
                places
                    .iter_mut()
                    .enumerate()
                    .for_each(|(j, place)| *place = j);
                if k < size {
                    places.select_nth_unstable_by(k - 1, order);
                }
                places[..k].sort_unstable_by(order);
                for (j, &place) in places[..k].iter().enumerate() {
                    let to = (o * k + j) * inner + i;
                    if let Some(values) = &mut values {
                        values[to] = *at(place);
                    }
                    if let Some(indices) = &mut indices {
                        indices[to] = place as i64;
                    }
                }
            }
        });
        Ok(())
    }
}

impl Operator for TopK {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", TYPES)?;
        let k = match self.k {
            Some(k) => Some(k),
            None => {
                inputs.data_type_of(1, "K", &[DataType::Int64])?;
                let k = inputs.required(1, "K")?.known_ints();
                k.and_then(|k| k.first().copied())
            }
        };
        let dims = match inputs.required(0, "X")?.dims {
            None => None,
            Some(dims) => {
                let axis = normalize_axis(self.axis, dims.len())?;
                let mut dims = Dims::from(dims);
                dims[axis] = match k {
                    Some(k) => Dim::Known(Self::checked(k, dims[axis].known())?),
                    None => Dim::Unknown,
                };
                Some(dims)
            }
        };
        Ok([
            OutputInfo::maybe(data_type, dims.clone()),
            OutputInfo::maybe(DataType::Int64, dims),
        ]
        .into_iter()
        .take(inputs.output_count().max(1))
        .collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        match ctx.input_type(0, "X")? {
            DataType::Float64 => self.select::<f64>(ctx),
            DataType::Float16 => self.select::<f16>(ctx),
            DataType::Bfloat16 => self.select::<bf16>(ctx),
            DataType::Int8 => self.select::<i8>(ctx),
            DataType::Int16 => self.select::<i16>(ctx),
            DataType::Int32 => self.select::<i32>(ctx),
            DataType::Int64 => self.select::<i64>(ctx),
            DataType::Uint8 => self.select::<u8>(ctx),
            DataType::Uint16 => self.select::<u16>(ctx),
            DataType::Uint32 => self.select::<u32>(ctx),
            DataType::Uint64 => self.select::<u64>(ctx),
            _ => self.select::<f32>(ctx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};

    #[test]
    fn top_k_sorts_and_prefers_lower_indices() {
        let x = tensor(&[2, 4], &[1f32, 3., 3., 0., 4., f32::NAN, 6., 7.]);
        let case = Case::of("TopK", 11).outputs(2);
        let found = case.tensors(&[x.clone(), ints(&[2])]).expect("fits");
        assert_eq!(found[0].as_slice::<f32>().expect("f32")[..2], [3., 3.]);
        assert!(found[0].as_slice::<f32>().expect("f32")[2].is_nan());
        assert_eq!(found[1], tensor(&[2, 2], &[1i64, 2, 1, 3]));
        let smallest = case
            .clone()
            .int("largest", 0)
            .int("axis", 0)
            .tensors(&[x.clone(), ints(&[1])]);
        assert_eq!(
            smallest.expect("fits")[1],
            tensor(&[1, 4], &[0i64, 0, 0, 0])
        );
        for k in [-1, 5] {
            assert!(case.tensors(&[x.clone(), ints(&[k])]).is_err(), "k {k}");
        }
        let old = Case::of("TopK", 1).int("k", 1).outputs(2).tensors(&[x]);
        assert_eq!(old.expect("fits")[1], tensor(&[2, 1], &[1i64, 1]));
    }
}
