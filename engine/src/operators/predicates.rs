//! Questions about each element: IsNaN, IsInf; and Not.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, every opset. Shapes: `X: [..]` →
//! `Y: [..]`. Types: f32, f64, f16, bf16 and the 8-bit floats (Not: bool) → bool.

use super::element_types::refused;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Bool, DataType, TensorView, decode_small_float};

const FLOATS: &[DataType] = &[
    DataType::Float32,
    DataType::Float64,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Float8E4M3FN,
    DataType::Float8E4M3FNUZ,
    DataType::Float8E5M2,
    DataType::Float8E5M2FNUZ,
    DataType::Float8E8M0,
];

/// `y[i] = f(x[i])`, each element as f64, which is exact for all floats.
fn ask(x: TensorView<'_>, y: &mut [Bool], f: impl Fn(f64) -> bool) -> Result<(), OpError> {
    match x.data_type() {
        DataType::Float32 => {
            let x = x.as_slice::<f32>()?;
            y.iter_mut()
                .zip(x)
                .for_each(|(y, &x)| *y = f(x.into()).into());
        }
        DataType::Float64 => {
            let x = x.as_slice::<f64>()?;
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x).into());
        }
        DataType::Float16 => {
            let x = x.as_slice::<half::f16>()?;
            y.iter_mut()
                .zip(x)
                .for_each(|(y, &x)| *y = f(x.into()).into());
        }
        DataType::Bfloat16 => {
            let x = x.as_slice::<half::bf16>()?;
            y.iter_mut()
                .zip(x)
                .for_each(|(y, &x)| *y = f(x.into()).into());
        }
        small if FLOATS.contains(&small) => {
            for (y, &code) in y.iter_mut().zip(x.bytes()) {
                *y = f(decode_small_float(small, code).into()).into();
            }
        }
        other => return Err(refused(other)),
    }
    Ok(())
}

/// Whether an element is NaN.
#[derive(Debug)]
pub(super) struct IsNaN;

impl IsNaN {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for IsNaN {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "X", FLOATS)?;
        Ok(OutputInfo::maybe(DataType::Bool, inputs.required(0, "X")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        ask(
            ctx.input(0, "X")?,
            ctx.output(0)?.as_mut_slice()?,
            f64::is_nan,
        )
    }
}

/// Whether an element is infinite, of a sign that is asked for.
#[derive(Debug)]
pub(super) struct IsInf {
    detect_negative: bool,
    detect_positive: bool,
}

impl IsInf {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            detect_negative: node.flag_or("detect_negative", true)?,
            detect_positive: node.flag_or("detect_positive", true)?,
        })
    }
}

impl Operator for IsInf {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "X", FLOATS)?;
        Ok(OutputInfo::maybe(DataType::Bool, inputs.required(0, "X")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        ask(ctx.input(0, "X")?, ctx.output(0)?.as_mut_slice()?, |x| {
            self.detect_negative && x == f64::NEG_INFINITY
                || self.detect_positive && x == f64::INFINITY
        })
    }
}

/// The opposite of a truth value.
#[derive(Debug)]
pub(super) struct Not;

impl Not {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for Not {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", &[DataType::Bool])?;
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "X")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?.as_slice::<Bool>()?;
        let mut output = ctx.output(0)?;
        for (y, x) in output.as_mut_slice::<Bool>()?.iter_mut().zip(x) {
            *y = (!x.get()).into();
        }
        Ok(())
    }
}
