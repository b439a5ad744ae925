//! `ScatterElements` (once `Scatter`) and `ScatterND`: a copy of a tensor with some elements
//! replaced by, or combined with, updates.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__ScatterElements.html> (opsets 11 to 18),
//! <https://onnx.ai/onnx/operators/onnx__Scatter.html> (9), and
//! <https://onnx.ai/onnx/operators/onnx__ScatterND.html> (11 to 18).
//! Shapes: `ScatterElements`: `indices` and `updates` alike, within `data` but for the axis;
//! `ScatterND`: `indices: [.., k]`, `updates: indices[..-1] ++ data[k..]`. Updates are applied in
//! their order. Types: any; reductions: numbers.

use half::{bf16, f16};

use super::axes::normalize_axis;
use super::gather::{ElementWalk, TupleWalk, check_elements, with_indices};
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Bool, DataType, Element, TensorView, TensorViewMut};

/// How an update and what is there become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    /// The update replaces.
    None,
    Add,
    Mul,
    Max,
    Min,
}

impl Reduction {
    fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(match node.string_or("reduction", "none")? {
            "none" => Self::None,
            "add" => Self::Add,
            "mul" => Self::Mul,
            "max" => Self::Max,
            "min" => Self::Min,
            other => {
                return Err(OpError::Attribute {
                    name: "reduction".into(),
                    expected: "none, add, mul, max or min".into(),
                    found: other.into(),
                });
            }
        })
    }
}

/// `ScatterElements`.
#[derive(Debug)]
pub(super) struct ScatterElements {
    axis: i64,
    reduction: Reduction,
}

/// `ScatterND`.
#[derive(Debug)]
pub(super) struct ScatterNd {
    reduction: Reduction,
}

/// Where updates go: calls a function with the place and the number of each block of updates.
trait Places {
    /// Elements of a block.
    fn block(&self) -> usize;
    fn each(&self, visit: impl FnMut(usize, usize)) -> Result<(), OpError>;
}

struct ElementPlaces<'a>(ElementWalk<'a>, &'a [i64]);

impl Places for ElementPlaces<'_> {
    fn block(&self) -> usize {
        1
    }
    fn each(&self, visit: impl FnMut(usize, usize)) -> Result<(), OpError> {
        self.0.each(self.1, visit)
    }
}

struct TuplePlaces<'a>(TupleWalk<'a>, &'a [i64]);

impl Places for TuplePlaces<'_> {
    fn block(&self) -> usize {
        self.0.inner
    }
    fn each(&self, visit: impl FnMut(usize, usize)) -> Result<(), OpError> {
        self.0.each(self.1, visit)
    }
}

/// Replaces blocks.
struct Replace<P>(P);

impl<P: Places> Rearrange for Replace<P> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        output.clone_from_slice(inputs[0]);
        let block = self.0.block();
        self.0.each(|i, place| {
            output[place..place + block].clone_from_slice(&inputs[1][i * block..(i + 1) * block]);
        })
    }
}

/// A number that updates are combined with.
trait Combined: Element {
    fn combined(self, update: Self, reduction: Reduction) -> Self;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Combined for $t {
            fn combined(self, update: Self, reduction: Reduction) -> Self {
                match reduction {
                    Reduction::None => update,
                    Reduction::Add => self.wrapping_add(update),
                    Reduction::Mul => self.wrapping_mul(update),
                    Reduction::Max => self.max(update),
                    Reduction::Min => self.min(update),
                }
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! floats {
    ($($t:ty, $wide:ty, $widen:expr, $narrow:expr;)*) => {$(
        impl Combined for $t {
            fn combined(self, update: Self, reduction: Reduction) -> Self {
                let (a, b): ($wide, $wide) = ($widen(self), $widen(update));
                match reduction {
                    Reduction::None => update,
                    Reduction::Add => $narrow(a + b),
                    Reduction::Mul => $narrow(a * b),
                    Reduction::Max if a.is_nan() || a > b => self,
                    Reduction::Min if a.is_nan() || a < b => self,
                    Reduction::Max | Reduction::Min => update,
                }
            }
        }
    )*};
}

floats! {
    f32, f32, |x| x, |x| x;
    f64, f64, |x| x, |x| x;
    f16, f32, f16::to_f32, f16::from_f32;
    bf16, f32, bf16::to_f32, bf16::from_f32;
}

impl Combined for Bool {
    fn combined(self, update: Self, reduction: Reduction) -> Self {
        let (a, b) = (self.get(), update.get());
        Bool::from(match reduction {
            Reduction::None => b,
            Reduction::Add | Reduction::Max => a || b,
            Reduction::Mul | Reduction::Min => a && b,
        })
    }
}

fn combine<T: Combined>(
    data: TensorView<'_>,
    updates: TensorView<'_>,
    output: &mut TensorViewMut<'_>,
    reduction: Reduction,
    places: &impl Places,
) -> Result<(), OpError> {
    let updates = updates.as_slice::<T>()?;
    let output = output.as_mut_slice::<T>()?;
    output.copy_from_slice(data.as_slice::<T>()?);
    let block = places.block();
    places.each(|i, place| {
        let updates = &updates[i * block..][..block];
        for (to, &update) in output[place..place + block].iter_mut().zip(updates) {
            *to = to.combined(update, reduction);
        }
    })
}

fn scatter(
    ctx: &mut RunContext<'_>,
    reduction: Reduction,
    places: impl Places,
) -> Result<(), OpError> {
    let (data, updates) = (ctx.input(0, "data")?, ctx.input(2, "updates")?);
    if reduction == Reduction::None {
        return rearrange(ctx, &[data, updates], 0, data.shape(), Replace(places));
    }
    let Some(mut output) = ctx.optional_output(0) else {
        return Ok(());
    };
    macro_rules! dispatch {
        ($($data_type:ident => $t:ty),*) => {
            match data.data_type() {
                $(DataType::$data_type => {
                    combine::<$t>(data, updates, &mut output, reduction, &places)
                })*
                other => Err(OpError::InputType {
                    input: "data",
                    expected: "numbers, for a reduction".into(),
                    found: other,
                }),
            }
        };
    }
    dispatch!(
        Float32 => f32, Float64 => f64, Float16 => f16, Bfloat16 => bf16, Int8 => i8,
        Int16 => i16, Int32 => i32, Int64 => i64, Uint8 => u8, Uint16 => u16, Uint32 => u32,
        Uint64 => u64, Bool => Bool
    )
}

fn infer_like_data(inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
    let data = inputs.required(0, "data")?;
    let data_type = data.data_type()?;
    inputs.data_type_of(2, "updates", &[data_type])?;
    Ok(OutputInfo::maybe(data_type, data.to_dims()).into())
}

impl ScatterElements {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.int_or("axis", 0)?,
            reduction: Reduction::parse(node)?,
        })
    }
}

impl Operator for ScatterElements {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(1, "indices", &[DataType::Int32, DataType::Int64])?;
        infer_like_data(inputs)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let data = ctx.input_shape(0, "data")?;
        let indices = ctx.input(1, "indices")?;
        let updates = ctx.input_shape(2, "updates")?;
        let axis = normalize_axis(self.axis, data.len())?;
        check_elements(data, indices.shape(), axis)?;
        if updates != indices.shape() {
            let expected = format!("{:?}, as indices have", indices.shape());
            return Err(OpError::shape("updates", expected, format!("{updates:?}")));
        }
        let walk = ElementWalk::new(data, indices.shape(), axis);
        with_indices(indices, |values| {
            scatter(ctx, self.reduction, ElementPlaces(walk, values))
        })
    }
}

impl ScatterNd {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let reduction = Reduction::parse(node)?;
        Ok(Self { reduction })
    }
}

impl Operator for ScatterNd {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(1, "indices", &[DataType::Int64])?;
        infer_like_data(inputs)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let data = ctx.input_shape(0, "data")?;
        let indices = ctx.input(1, "indices")?;
        let updates = ctx.input_shape(2, "updates")?;
        let (tuple, outer) = match indices.shape().split_last() {
            Some((&tuple, outer)) if tuple <= data.len() => (tuple, outer),
            _ => {
                let expected = format!("[.., k] with k up to {}", data.len());
                return Err(OpError::shape(
                    "indices",
                    expected,
                    format!("{:?}", indices.shape()),
                ));
            }
        };
        if !updates.iter().eq(outer.iter().chain(&data[tuple..])) {
            let expected = format!("{outer:?} followed by {:?}", &data[tuple..]);
            return Err(OpError::shape("updates", expected, format!("{updates:?}")));
        }
        let walk = TupleWalk::new(data, indices.shape(), 0);
        scatter(ctx, self.reduction, TuplePlaces(walk, indices.as_slice()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, strings, tensor};

    #[test]
    fn scatter_elements_replaces_and_combines() {
        let data = tensor(&[1, 5], &[1f32, 2., 3., 4., 5.]);
        let indices = tensor(&[1, 2], &[1i64, -4]);
        let updates = tensor(&[1, 2], &[1.5f32, 2.5]);
        let inputs = [data, indices, updates];
        for (reduction, at_1) in [
            ("none", 2.5f32),
            ("add", 6.0),
            ("mul", 7.5),
            ("max", 2.5),
            ("min", 1.5),
        ] {
            let case = Case::of("ScatterElements", 18)
                .int("axis", 1)
                .text("reduction", reduction);
            let expected = tensor(&[1, 5], &[1., at_1, 3., 4., 5.]);
            assert_eq!(case.one(&inputs), Ok(expected), "{reduction}");
        }
        let old = Case::of("Scatter", 9).int("axis", 1).one(&inputs);
        assert_eq!(old, Ok(tensor(&[1, 5], &[1f32, 2.5, 3., 4., 5.])));
        let wide = [
            inputs[0].clone(),
            tensor(&[2, 2], &[0i64; 4]),
            tensor(&[2, 2], &[0f32; 4]),
        ];
        assert!(
            Case::of("ScatterElements", 18)
                .int("axis", 1)
                .one(&wide)
                .is_err()
        );
    }

    #[test]
    fn scatter_nd_replaces_slices() {
        let data = tensor(&[3, 2], &[0i64; 6]);
        let indices = tensor(&[2, 1], &[2i64, 0]);
        let updates = tensor(&[2, 2], &[1i64, 2, 3, 4]);
        let case = Case::of("ScatterND", 18);
        let found = case.one(&[data.clone(), indices.clone(), updates.clone()]);
        assert_eq!(found, Ok(tensor(&[3, 2], &[3i64, 4, 0, 0, 1, 2])));
        let short = tensor(&[1, 2], &[1i64, 2]);
        assert!(case.one(&[data.clone(), indices, short]).is_err());
        let bad = tensor(&[2, 1], &[3i64, 0]);
        assert!(case.one(&[data, bad, updates]).is_err());
        let text = strings(&[2], &["a", "b"]);
        let found = case.one(&[text, tensor(&[1, 1], &[1i64]), strings(&[1], &["c"])]);
        assert_eq!(found, Ok(strings(&[2], &["a", "c"])));
    }
}
