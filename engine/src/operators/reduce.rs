//! Reductions: ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd, ReduceL1, ReduceL2,
//! ReduceSumSquare, ReduceLogSum, ReduceLogSumExp.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__ReduceNAME.html`, every opset. The axes are an
//! attribute until opset 17 (ReduceSum: 12) and an optional input afterwards; without axes all are
//! reduced, or none with `noop_with_empty_axes` (then the element-wise part of the function is
//! still applied, as in `|x|` for L1). Shapes: `data: [..]` → `reduced`, with axes of size 1 where
//! `keepdims`. Types: f32, f64, f16, bf16, integers of whole bytes; ReduceMax and ReduceMin also
//! bool.

use smallvec::SmallVec;

use super::axes::{IntList, KnownList, axis_set};
use super::element_types::{NUMBERS, match_f32_like, match_type, refused};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::reduction::{Reduction, reduce, reduce_scalars};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// One of the reductions with its attributes.
#[derive(Debug)]
pub(super) struct Reduce {
    reduction: Reduction,
    axes: IntList,
    keeps_axes: bool,
    /// Whether no axes means none, rather than all.
    is_noop_without_axes: bool,
}

impl Reduce {
    fn new(reduction: Reduction, axes: IntList, node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            reduction,
            axes,
            keeps_axes: node.flag_or("keepdims", true)?,
            is_noop_without_axes: node.flag_or("noop_with_empty_axes", false)?,
        })
    }

    /// Which axes are reduced.
    fn reduced(&self, axes: Option<&[i64]>, rank: usize) -> Result<SmallVec<[bool; 8]>, OpError> {
        match axes {
            Some(axes) if !axes.is_empty() => axis_set(axes, rank),
            _ => Ok(SmallVec::from_elem(!self.is_noop_without_axes, rank)),
        }
    }

    fn output_dims(&self, dims: &[Dim], axes: &KnownList) -> Result<Option<Dims>, OpError> {
        let list = match axes {
            KnownList::Absent => None,
            other => match other.known() {
                Some(list) => Some(list),
                // Which axes is not known; with their number kept, the rank is.
                None => {
                    let unknown = || dims.iter().map(|_| Dim::Unknown).collect();
                    return Ok(self.keeps_axes.then(unknown));
                }
            },
        };
        let reduced = self.reduced(list.as_deref(), dims.len())?;
        let kept = dims
            .iter()
            .zip(reduced)
            .filter_map(|(dim, is_reduced)| match is_reduced {
                false => Some(dim.clone()),
                true => self.keeps_axes.then_some(Dim::Known(1)),
            });
        Ok(Some(kept.collect()))
    }
}

impl Operator for Reduce {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let data_type = data.data_type()?;
        let is_extremum = matches!(self.reduction, Reduction::Max | Reduction::Min);
        if !(is_extremum && data_type == DataType::Bool) {
            inputs.data_type_of(0, "data", NUMBERS)?;
        }
        let dims = match data.dims {
            Some(dims) => self.output_dims(dims, &self.axes.infer(inputs))?,
            None => None,
        };
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, x) = (ctx.env, ctx.input(0, "data")?);
        let shape = x.shape();
        let reduced = self.reduced(self.axes.read(ctx)?.as_deref(), shape.len())?;
        let mut output = ctx.output(0)?;
        if x.data_type() == DataType::Bool {
            // The larger byte is true where one of them is, the smaller where all are.
            let y = output.bytes_mut();
            reduce_scalars::<u8>(env, self.reduction, shape, &reduced, x.bytes(), y);
            return Ok(());
        }
        match_f32_like!(x.data_type(); T => {
            let y = output.as_mut_slice::<T>()?;
            reduce(env, self.reduction, shape, &reduced, x.as_slice()?, y);
            Ok(())
        }; other => match_type!(other; f64, i8, i16, i32, i64, u8, u16, u32, u64 as T => {
            let y = output.as_mut_slice::<T>()?;
            reduce_scalars(env, self.reduction, shape, &reduced, x.as_slice()?, y);
            Ok(())
        }; other => Err(refused(other))))
    }
}

macro_rules! reductions {
    ($($name:ident = $reduction:ident, $inputs_since:literal;)*) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(node: &Attributes) -> Result<Reduce, OpError> {
                let axes = if node.opset < $inputs_since {
                    IntList::attribute(node, "axes")?
                } else {
                    IntList::Input(1)
                };
                Reduce::new(Reduction::$reduction, axes, node)
            }
        }
    )*};
}

reductions! {
    ReduceSum = Sum, 13;
    ReduceMean = Mean, 18;
    ReduceMax = Max, 18;
    ReduceMin = Min, 18;
    ReduceProd = Prod, 18;
    ReduceL1 = L1, 18;
    ReduceL2 = L2, 18;
    ReduceSumSquare = SumSquare, 18;
    ReduceLogSum = LogSum, 18;
    ReduceLogSumExp = LogSumExp, 18;
}

#[cfg(test)]
mod tests {
    use crate::error::OpError;
    use crate::operators::case::{Case, ints, tensor};

    #[test]
    fn reduce_takes_axes_from_attribute_and_input() {
        let x = tensor(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let old = Case::of("ReduceSum", 11).ints("axes", &[-1]);
        assert_eq!(old.one(&[x.clone()]), Ok(tensor(&[2, 1], &[6f32, 15.0])));
        let new = Case::of("ReduceSum", 13).int("keepdims", 0);
        assert_eq!(
            new.one(&[x.clone(), ints(&[0])]),
            Ok(tensor(&[3], &[5f32, 7.0, 9.0]))
        );
        assert_eq!(new.one(&[x.clone()]), Ok(tensor(&[], &[21f32])));
        let noop = Case::of("ReduceL1", 18).int("noop_with_empty_axes", 1);
        assert_eq!(
            noop.one(&[tensor(&[2], &[-1f32, 2.0]), ints(&[])]),
            Ok(tensor(&[2], &[1f32, 2.0]))
        );
        let mean = Case::of("ReduceMean", 11).ints("axes", &[0, 1]);
        assert_eq!(mean.one(&[x]), Ok(tensor(&[1, 1], &[3.5f32])));
    }

    #[test]
    fn reduce_rejects_axes_out_of_range() {
        let case = Case::of("ReduceMax", 13).ints("axes", &[2]);
        let result = case.one(&[tensor(&[2, 1], &[1i32, 2])]);
        assert!(matches!(result, Err(OpError::Value { .. })), "{result:?}");
    }
}
