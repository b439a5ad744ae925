//! Which operators the GPU has, and how each becomes dispatches.

mod elementwise;
mod movement;
mod products;
mod rows;
mod windows;

use super::shader::Dispatch;
use crate::device::{Meta, Request};
use crate::operators::{LETHE_DOMAIN, ONNX_DOMAIN};
use crate::tensor::DataType;

type Compile = fn(&Request<'_>) -> Result<Vec<Dispatch>, String>;

/// Domain, operator, and what makes dispatches of it. Versions that differ in where attributes
/// stand are told apart by the functions.
#[rustfmt::skip]
const KERNELS: &[(&str, &str, Compile)] = &[
    (ONNX_DOMAIN, "Abs",                elementwise::unary),
    (ONNX_DOMAIN, "Ceil",               elementwise::unary),
    (ONNX_DOMAIN, "Clip",               elementwise::unary),
    (ONNX_DOMAIN, "Cos",                elementwise::unary),
    (ONNX_DOMAIN, "Erf",                elementwise::unary),
    (ONNX_DOMAIN, "Exp",                elementwise::unary),
    (ONNX_DOMAIN, "Floor",              elementwise::unary),
    (ONNX_DOMAIN, "Gelu",               elementwise::unary),
    (ONNX_DOMAIN, "HardSigmoid",        elementwise::unary),
    (ONNX_DOMAIN, "HardSwish",          elementwise::unary),
    (ONNX_DOMAIN, "LeakyRelu",          elementwise::unary),
    (ONNX_DOMAIN, "Log",                elementwise::unary),
    (ONNX_DOMAIN, "Neg",                elementwise::unary),
    (ONNX_DOMAIN, "Reciprocal",         elementwise::unary),
    (ONNX_DOMAIN, "Relu",               elementwise::unary),
    (ONNX_DOMAIN, "Sigmoid",            elementwise::unary),
    (ONNX_DOMAIN, "Sin",                elementwise::unary),
    (ONNX_DOMAIN, "Sqrt",               elementwise::unary),
    (ONNX_DOMAIN, "Tanh",               elementwise::unary),
    (ONNX_DOMAIN, "Add",                elementwise::binary),
    (ONNX_DOMAIN, "Div",                elementwise::binary),
    (ONNX_DOMAIN, "Max",                elementwise::binary),
    (ONNX_DOMAIN, "Min",                elementwise::binary),
    (ONNX_DOMAIN, "Mul",                elementwise::binary),
    (ONNX_DOMAIN, "Pow",                elementwise::binary),
    (ONNX_DOMAIN, "Sub",                elementwise::binary),
    (ONNX_DOMAIN, "Where",              elementwise::select),
    (ONNX_DOMAIN, "Concat",             movement::concat),
    (ONNX_DOMAIN, "Expand",             movement::expand),
    (ONNX_DOMAIN, "Flatten",            movement::copy),
    (ONNX_DOMAIN, "Gather",             movement::gather),
    (ONNX_DOMAIN, "Reshape",            movement::copy),
    (ONNX_DOMAIN, "Slice",              movement::slice),
    (ONNX_DOMAIN, "Squeeze",            movement::copy),
    (ONNX_DOMAIN, "Transpose",          movement::transpose),
    (ONNX_DOMAIN, "Unsqueeze",          movement::copy),
    (ONNX_DOMAIN, "Gemm",               products::gemm),
    (ONNX_DOMAIN, "MatMul",             products::matmul),
    (LETHE_DOMAIN, "FusedGemm",         products::gemm),
    (LETHE_DOMAIN, "FusedMatMul",       products::matmul),
    (ONNX_DOMAIN, "LayerNormalization", rows::layer_norm),
    (ONNX_DOMAIN, "LogSoftmax",         rows::softmax),
    (ONNX_DOMAIN, "RMSNormalization",   rows::layer_norm),
    (ONNX_DOMAIN, "ReduceMax",          rows::reduce),
    (ONNX_DOMAIN, "ReduceMean",         rows::reduce),
    (ONNX_DOMAIN, "ReduceSum",          rows::reduce),
    (ONNX_DOMAIN, "Softmax",            rows::softmax),
    (ONNX_DOMAIN, "AveragePool",        windows::pool),
    (ONNX_DOMAIN, "Conv",               windows::conv),
    (LETHE_DOMAIN, "FusedConv",         windows::conv),
    (ONNX_DOMAIN, "GlobalAveragePool",  windows::global_pool),
    (ONNX_DOMAIN, "GlobalMaxPool",      windows::global_pool),
    (ONNX_DOMAIN, "MaxPool",            windows::pool),
];

/// Whether the GPU has a kernel for an operator, whatever the shapes and types.
pub fn has_kernel(domain: &str, op_type: &str) -> bool {
    KERNELS
        .iter()
        .any(|(d, o, _)| (*d, *o) == (domain, op_type))
}

/// A step as dispatches.
///
/// # Errors
/// The reason why the GPU cannot run it.
pub(super) fn dispatches(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let row = KERNELS
        .iter()
        .find(|(d, o, _)| (*d, *o) == (request.domain, request.op_type));
    let (_, _, compile) = row.ok_or("no kernel for this operator")?;
    if request.outputs.iter().flatten().all(Meta::is_empty) {
        return Ok(Vec::new());
    }
    if request
        .inputs
        .iter()
        .chain(&request.outputs)
        .flatten()
        .any(|m| m.len() > 1 << 30)
    {
        return Err("a tensor has more elements than a shader can count".into());
    }
    compile(request)
}

/// Which input is a residual of the shape of the sum that it is added to, if there is one; the reason
/// for leaving others to the CPU.
fn residual_of(request: &Request<'_>, sum_shape: &[usize]) -> Result<Option<usize>, String> {
    const RESIDUAL: usize = 3;
    match request.optional_input(RESIDUAL) {
        None => Ok(None),
        Some(residual) if residual.shape == sum_shape => Ok(Some(RESIDUAL)),
        Some(_) => Err("no kernel for a residual that broadcasts".into()),
    }
}

/// The reason for leaving types other than float32 to the CPU.
fn require_f32(metas: &[Option<Meta<'_>>]) -> Result<(), String> {
    match metas
        .iter()
        .flatten()
        .find(|m| m.data_type != DataType::Float32)
    {
        None => Ok(()),
        Some(other) => Err(format!(
            "no kernel for elements of type {}",
            other.data_type
        )),
    }
}

/// An attribute's error as a reason.
fn reason(error: crate::error::OpError) -> String {
    error.to_string()
}

/// An axis counted from the front.
fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| format!("axis {axis} of {rank}"))
}

/// Integers of an attribute or, where there is none, of the so-manyth input.
fn ints(request: &Request<'_>, name: &str, input: usize) -> Result<Option<Vec<i64>>, String> {
    if let Some(ints) = request.attributes.optional_ints(name).map_err(reason)? {
        return Ok(Some(ints.to_vec()));
    }
    match request.optional_input(input) {
        None => Ok(None),
        Some(meta) => {
            let value = meta
                .value
                .ok_or_else(|| format!("{name} depends on data"))?;
            Ok(Some(value.view().to_i64s().map_err(reason)?.to_vec()))
        }
    }
}
