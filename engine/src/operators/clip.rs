//! `Clip`: elements limited to a range.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Clip.html>; bounds are attributes in opsets 1 and 6
//! and optional scalar inputs since 11. Shapes: `input: [..]`, `min: []`, `max: []` →
//! `output: [..]`. Types: f32, f64, f16, bf16 and integers. NaN stays; where the bounds contradict
//! each other the upper one wins.

use super::element_types::{
    NUMBERS, elements_or_in_place, match_f32_like, match_integer, match_type, refused,
};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{Unary, map, map_plain};
use crate::kernels::half_precision::Real;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::Element;

/// The operator, with the bounds that are attributes.
#[derive(Debug)]
pub(super) struct Clip {
    min: Option<f32>,
    max: Option<f32>,
}

impl Clip {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        if node.opset >= 11 {
            return Ok(Self {
                min: None,
                max: None,
            });
        }
        let (min, max) = (node.optional_float("min")?, node.optional_float("max")?);
        Ok(Self {
            min: min.copied(),
            max: max.copied(),
        })
    }
}

/// The only element of an optional bound.
fn bound<T: Element>(
    ctx: &RunContext<'_>,
    i: usize,
    name: &'static str,
) -> Result<Option<T>, OpError> {
    match ctx.optional_input(i)? {
        None => Ok(None),
        Some(view) => match view.as_slice::<T>()? {
            [bound] => Ok(Some(*bound)),
            other => Err(OpError::shape(
                name,
                "one element",
                format!("{} elements", other.len()),
            )),
        },
    }
}

/// The only element of an optional bound as f32, or `default`.
fn real_bound<T: Real>(
    ctx: &RunContext<'_>,
    i: usize,
    name: &'static str,
    default: f32,
) -> Result<f32, OpError> {
    let mut wide = [default];
    if let Some(bound) = bound::<T>(ctx, i, name)? {
        T::widen(&[bound], &mut wide);
    }
    Ok(wide[0])
}

impl Operator for Clip {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "input", NUMBERS)?;
        for (i, name) in [(1, "min"), (2, "max")] {
            if inputs.optional(i).is_some() {
                inputs.data_type_of(i, name, &[data_type])?;
            }
        }
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "input")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, data_type) = (ctx.env, ctx.input_type(0, "input")?);
        let (low, high) = (
            self.min.unwrap_or(f32::NEG_INFINITY),
            self.max.unwrap_or(f32::INFINITY),
        );
        match_f32_like!(data_type; T => {
            let function = Unary::Clip {
                min: real_bound::<T>(ctx, 1, "min", low)?,
                max: real_bound::<T>(ctx, 2, "max", high)?,
            };
            let x = elements_or_in_place::<T>(ctx, 0, "input")?;
            map(env, function, x, ctx.output(0)?.as_mut_slice()?);
            Ok(())
        }; other => match_integer!(other; T => {
            let (low, high) = (bound::<T>(ctx, 1, "min")?, bound::<T>(ctx, 2, "max")?);
            let (low, high) = (low.unwrap_or(T::MIN), high.unwrap_or(T::MAX));
            let x = elements_or_in_place(ctx, 0, "input")?;
            map_plain(env, x, ctx.output(0)?.as_mut_slice()?, |x: T| x.max(low).min(high));
            Ok(())
        }; other => match_type!(other; f64 as T => {
            let low = bound::<T>(ctx, 1, "min")?.unwrap_or(low.into());
            let high = bound::<T>(ctx, 2, "max")?.unwrap_or(high.into());
            let x = elements_or_in_place(ctx, 0, "input")?;
            let limited = |x: T| {
                let x = if x < low { low } else { x };
                if x > high { high } else { x }
            };
            map_plain(env, x, ctx.output(0)?.as_mut_slice()?, limited);
            Ok(())
        }; other => Err(refused(other)))))
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}
