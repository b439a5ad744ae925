//! Softmax, LogSoftmax and Hardmax.
//!
//! Spec: `https://onnx.ai/onnx/operators/onnx__NAME.html`, opsets 1, 11 and 13. Until opset 12 the
//! axes from `axis` (1 by default) on are flattened and normalised together; since 13 it is `axis`
//! alone (the last by default). Shapes: `input: [..]` → `output: [..]`.
//! Types: f32, f64, f16, bf16 (computed in f32).

use super::axes::normalize_axis;
use super::element_types::{REAL, compute_in_f32, elements_or_in_place};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::softmax::{Softmax as Function, softmax, softmax_doubles};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Shape};

/// One of the functions with its attributes.
#[derive(Debug)]
pub(super) struct AlongAxis {
    function: Function,
    axis: i64,
    /// Whether the axes behind `axis` belong to it.
    is_flattened: bool,
}

impl AlongAxis {
    fn parse(function: Function, node: &Attributes) -> Result<Self, OpError> {
        let is_flattened = node.opset < 13;
        let axis = node.int_or("axis", if is_flattened { 1 } else { -1 })?;
        Ok(Self {
            function,
            axis,
            is_flattened,
        })
    }

    /// Elements that are normalised together, and how many such groups interleave.
    fn extent(&self, shape: &[usize]) -> Result<(usize, usize), OpError> {
        if self.is_flattened {
            // One past the last axis stands for groups of one element.
            let rank = shape.len();
            let is_end = self.axis == rank as i64;
            let axis = if is_end {
                rank
            } else {
                normalize_axis(self.axis, rank)?
            };
            return Ok((shape[axis..].iter().product(), 1));
        }
        if shape.is_empty() && (self.axis == 0 || self.axis == -1) {
            return Ok((1, 1));
        }
        let axis = normalize_axis(self.axis, shape.len())?;
        Ok((shape[axis], shape[axis + 1..].iter().product()))
    }
}

impl Operator for AlongAxis {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "input", REAL)?;
        let input = inputs.required(0, "input")?;
        if let Some(rank) = input.rank() {
            self.extent(&Shape::from_elem(1, rank))?;
        }
        Ok(OutputInfo::maybe(data_type, input.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, function) = (ctx.env, self.function);
        let (len, inner) = self.extent(ctx.input_shape(0, "input")?)?;
        let data_type = ctx.input_type(0, "input")?;
        if data_type == DataType::Float64 {
            let x = elements_or_in_place::<f64>(ctx, 0, "input")?;
            let mut output = ctx.output(0)?;
            let y = output.as_mut_slice()?;
            if let Some(x) = x {
                y.copy_from_slice(x);
            }
            softmax_doubles(function, len, inner, y);
            return Ok(());
        }
        compute_in_f32(ctx, 0, "input", |x, y| {
            if let Some(x) = x {
                y.copy_from_slice(x);
            }
            softmax(env, function, len, inner, y);
            Ok(())
        })
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

macro_rules! operators {
    ($($name:ident = $function:ident;)*) => {$(
        /// The ONNX operator of this name.
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(node: &Attributes) -> Result<AlongAxis, OpError> {
                AlongAxis::parse(Function::$function, node)
            }
        }
    )*};
}

operators! {
    Softmax = Plain;
    LogSoftmax = Log;
    Hardmax = Hard;
}

#[cfg(test)]
mod tests {
    use crate::operators::case::{Case, tensor};

    #[test]
    fn softmax_flattens_before_opset_13() {
        let x = tensor(&[1, 2, 2], &[0f32; 4]);
        let value = |opset, axis| {
            let y = Case::of("Softmax", opset)
                .int("axis", axis)
                .one(&[x.clone()]);
            y.expect("it fits").as_slice::<f32>().expect("f32")[0]
        };
        assert_eq!(value(11, 1), 0.25);
        assert_eq!(value(13, 1), 0.5);
        assert_eq!(value(11, -1), 0.5);
        assert_eq!(value(11, 3), 1.0);
        let double = Case::of("LogSoftmax", 13).one(&[tensor(&[2], &[0f64, 0.0])]);
        let log_half = 0.5f64.ln();
        assert_eq!(double, Ok(tensor(&[2], &[log_half, log_half])));
        let hard = Case::of("Hardmax", 13).int("axis", 0);
        let y = hard.one(&[tensor(&[3, 2], &[1f32, 7.0, 3.0, 7.0, 3.0, 0.0])]);
        assert_eq!(y, Ok(tensor(&[3, 2], &[0f32, 1.0, 1.0, 0.0, 0.0, 0.0])));
        let half = |x: f32| half::f16::from_f32(x);
        let y = Case::of("Softmax", 13).one(&[tensor(&[2], &[half(1.0), half(1.0)])]);
        assert_eq!(y, Ok(tensor(&[2], &[half(0.5), half(0.5)])));
    }

    #[test]
    fn softmax_rejects_axes_out_of_range() {
        assert!(
            Case::of("Softmax", 13)
                .int("axis", 2)
                .one(&[tensor(&[1, 1], &[1f32])])
                .is_err()
        );
    }
}
