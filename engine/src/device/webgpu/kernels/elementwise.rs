//! Functions of one element each, with broadcasting.

use super::{reason, require_f32};
use crate::device::webgpu::shader::{Dispatch, Source, shader, workgroups_for};
use crate::device::{Meta, Request};
use crate::graph::Attributes;
use crate::tensor::{DataType, row_major_strides};

/// A function of `activation.wgsl`: its code there and its two parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Function {
    pub(super) code: u32,
    pub(super) a: f32,
    pub(super) b: f32,
}

/// The codes by the names that operators and activations have.
const CODES: &[(&str, u32)] = &[
    ("Relu", 1),
    ("LeakyRelu", 2),
    ("Clip", 3),
    ("Sigmoid", 4),
    ("HardSigmoid", 5),
    ("HardSwish", 6),
    ("Tanh", 7),
    ("Gelu", 8),
    ("GeluTanh", 9),
    ("Swish", 10),
    ("Erf", 11),
    ("Sqrt", 12),
    ("Exp", 13),
    ("Log", 14),
    ("Abs", 15),
    ("Neg", 16),
    ("Reciprocal", 17),
    ("Floor", 18),
    ("Ceil", 19),
    ("Sin", 20),
    ("Cos", 21),
];

impl Function {
    const IDENTITY: Self = Self {
        code: 0,
        a: 0.0,
        b: 0.0,
    };

    fn named(name: &str, a: f32, b: f32) -> Result<Self, String> {
        let code = CODES.iter().find(|(n, _)| *n == name);
        let (_, code) = code.ok_or_else(|| format!("no kernel for the function {name}"))?;
        Ok(Self { code: *code, a, b })
    }

    /// The activation of a fused operator.
    pub(super) fn activation(attributes: &Attributes) -> Result<Self, String> {
        let Some(name) = attributes.optional_string("activation").map_err(reason)? else {
            return Ok(Self::IDENTITY);
        };
        let params = attributes
            .optional_floats("activation_params")
            .map_err(reason)?;
        let param = |i: usize| params.and_then(|p| p.get(i)).copied().unwrap_or(0.0);
        Self::named(name, param(0), param(1))
    }

    /// The function that a unary operator is.
    fn of(request: &Request<'_>) -> Result<Self, String> {
        let float = |name, default| request.attributes.float_or(name, default).map_err(reason);
        match request.op_type {
            "LeakyRelu" => Self::named("LeakyRelu", float("alpha", 0.01)?, 0.0),
            "HardSigmoid" => Self::named("HardSigmoid", float("alpha", 0.2)?, float("beta", 0.5)?),
            "Clip" => {
                let bound = |i, name, default| match request.optional_input(i) {
                    None => float(name, default),
                    Some(meta) => {
                        let value = meta.value.ok_or("bounds depend on data")?;
                        value.view().single::<f32>().map_err(reason)
                    }
                };
                Self::named(
                    "Clip",
                    bound(1, "min", f32::MIN)?,
                    bound(2, "max", f32::MAX)?,
                )
            }
            "Gelu" => {
                let tanh = request
                    .attributes
                    .string_or("approximate", "none")
                    .map_err(reason)?;
                Self::named(if tanh == "tanh" { "GeluTanh" } else { "Gelu" }, 0.0, 0.0)
            }
            other => Self::named(other, 0.0, 0.0),
        }
    }
}

pub(super) fn unary(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs[..1])?;
    let count = request.output(0)?.len();
    let function = Function::of(request)?;
    Ok(vec![Dispatch {
        shader: shader!("unary", ["activation"], false),
        constants: vec![("CODE", function.code.into())],
        parameters: vec![count as u32, function.a.to_bits(), function.b.to_bits()],
        inputs: vec![Source::Input(0)],
        output: 0,
        workgroups: workgroups_for(count),
    }])
}

pub(super) fn binary(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs)?;
    if request.inputs.len() != 2 || request.attributes.get("axis").is_some() {
        return Err("only for two inputs that broadcast as numpy does".into());
    }
    let code = match request.op_type {
        "Add" => 0,
        "Sub" => 1,
        "Mul" => 2,
        "Div" => 3,
        "Pow" => 4,
        "Max" => 5,
        _ => 6,
    };
    let output = request.output(0)?;
    Ok(vec![Dispatch {
        shader: shader!("binary"),
        constants: vec![("CODE", f64::from(code))],
        parameters: broadcast(output.shape, &[request.input(0)?, request.input(1)?])?,
        inputs: vec![Source::Input(0), Source::Input(1)],
        output: 0,
        workgroups: workgroups_for(output.len()),
    }])
}

pub(super) fn select(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let inputs = [request.input(0)?, request.input(1)?, request.input(2)?];
    require_f32(&request.inputs[1..])?;
    if inputs[0].data_type != DataType::Bool {
        return Err("the condition is not of type bool".into());
    }
    let output = request.output(0)?;
    Ok(vec![Dispatch {
        shader: shader!("where"),
        constants: vec![],
        parameters: broadcast(output.shape, &inputs)?,
        inputs: vec![Source::Input(0), Source::Input(1), Source::Input(2)],
        output: 0,
        workgroups: workgroups_for(output.len()),
    }])
}

/// Count, rank and, for each axis, innermost first: its size and each input's stride, which is 0
/// where the input is repeated.
pub(super) fn broadcast(shape: &[usize], inputs: &[Meta<'_>]) -> Result<Vec<u32>, String> {
    let mut parameters = vec![shape.iter().product::<usize>() as u32, shape.len() as u32];
    let strides: Vec<_> = inputs.iter().map(|m| row_major_strides(m.shape)).collect();
    for from_end in 0..shape.len() {
        parameters.push(shape[shape.len() - 1 - from_end] as u32);
        for (meta, strides) in inputs.iter().zip(&strides) {
            let axis = meta.shape.len().checked_sub(1 + from_end);
            let stride = match axis.map(|a| (meta.shape[a], strides[a])) {
                None | Some((1, _)) => 0,
                Some((n, stride)) if n == shape[shape.len() - 1 - from_end] => stride,
                Some(_) => return Err("shapes do not broadcast".into()),
            };
            parameters.push(stride as u32);
        }
    }
    Ok(parameters)
}
