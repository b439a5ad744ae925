//! Comparisons: Equal, Greater, GreaterOrEqual, Less, LessOrEqual.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset; before 7 with the
//! attributes `broadcast` and `axis`. Shapes: `A` and `B` broadcast to each other → `C`.
//! Types: numbers (Equal also bool and string) → bool. False where an operand is NaN.

use super::binary::Broadcasting;
use super::broadcasting::broadcast_inputs;
use super::element_types::{NUMBERS, match_integer, match_type, refused};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{Comparison, Expansion, Logic, broadcast_shape, compare, logic};
use crate::limits::{self, Watch};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Bool, DataType};

/// One of the comparisons.
#[derive(Debug)]
pub(super) struct Compare {
    comparison: Comparison,
    broadcasting: Broadcasting,
}

impl Operator for Compare {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.required(0, "A")?.data_type()?;
        let is_plain = matches!(data_type, DataType::Bool | DataType::String);
        if !(is_plain && self.comparison == Comparison::Equal) {
            inputs.data_type_of(0, "A", NUMBERS)?;
        }
        inputs.data_type_of(1, "B", &[data_type])?;
        let dims = match data_type {
            DataType::String => broadcast_inputs(inputs)?,
            _ => self.broadcasting.infer(inputs)?,
        };
        Ok(OutputInfo::maybe(DataType::Bool, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        match ctx.input_type(0, "A")? {
            DataType::Bool => return self.broadcasting.run(ctx, logic(Logic::Equal)),
            DataType::String => return strings_equal(ctx),
            _ => {}
        }
        match_type!(ctx.input_type(0, "A")?; f32, f64, half::f16, half::bf16 as T =>
            self.broadcasting.run(ctx, compare::<T>(self.comparison));
            other => match_integer!(other; T =>
                self.broadcasting.run(ctx, compare::<T>(self.comparison));
                other => Err(refused(other))))
    }
}

fn strings_equal(ctx: &mut RunContext<'_>) -> Result<(), OpError> {
    let (a, b) = (ctx.input(0, "A")?, ctx.input(1, "B")?);
    let shape = broadcast_shape(&[a.shape(), b.shape()]).ok_or_else(|| {
        OpError::shape("B", format!("{:?}", a.shape()), format!("{:?}", b.shape()))
    })?;
    let mut output = ctx.output(0)?;
    let y = output.as_mut_slice::<Bool>()?;
    let spread = |view: crate::tensor::TensorView<'_>| {
        let mut indices: Vec<usize> = limits::with_room(view.len());
        indices.extend(0..view.len());
        let mut places = limits::zeroed(y.len());
        Expansion::new(view.shape(), &shape).copy_range(&indices, 0..y.len(), &mut places);
        places
    };
    let (a_places, b_places) = (spread(a), spread(b));
    let (a, b) = (a.as_strings()?, b.as_strings()?);
    let mut watch = Watch::begin();
    for ((y, i), j) in y.iter_mut().zip(a_places).zip(b_places) {
        watch.count(8 + a[i].len().min(b[j].len()) / 8);
        *y = (a[i] == b[j]).into();
    }
    Ok(())
}

macro_rules! operators {
    ($($name:ident),*) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(node: &Attributes) -> Result<Compare, OpError> {
                Ok(Compare {
                    comparison: Comparison::$name,
                    broadcasting: Broadcasting::parse(node)?,
                })
            }
        }
    )*};
}

operators!(Equal, Greater, GreaterOrEqual, Less, LessOrEqual);
