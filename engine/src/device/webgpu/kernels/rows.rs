//! Softmax, normalisation and reductions: a workgroup for each row.

use super::{axis_of, ints, reason, require_f32};
use crate::device::Request;
use crate::device::webgpu::shader::{Dispatch, Source, rows_of, shader};

pub(super) fn softmax(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs)?;
    let shape = request.input(0)?.shape;
    // Until opset 12 the axis parts the shape in two, and all that follows it is one row.
    let flattens = request.opset < 13;
    let axis = request
        .attributes
        .int_or("axis", if flattens { 1 } else { -1 })
        .map_err(reason)?;
    let axis = axis_of(axis, shape.len())?;
    let after: usize = shape[axis + 1..].iter().product();
    let (len, inner) = if flattens {
        (shape[axis] * after, 1)
    } else {
        (shape[axis], after)
    };
    let rows = shape.iter().product::<usize>() / len.max(1);
    Ok(vec![Dispatch {
        shader: shader!("softmax", ["row_reduction"], false),
        constants: vec![("LOG", f64::from(u8::from(request.op_type == "LogSoftmax")))],
        parameters: vec![rows as u32, len as u32, inner as u32],
        inputs: vec![Source::Input(0)],
        output: 0,
        workgroups: rows_of(rows),
    }])
}

pub(super) fn layer_norm(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs)?;
    if request.outputs[1..].iter().any(Option::is_some) {
        return Err("no kernel that gives mean and deviation".into());
    }
    let (x, scale) = (request.input(0)?, request.input(1)?);
    let axis = request.attributes.int_or("axis", -1).map_err(reason)?;
    let axis = axis_of(axis, x.shape.len())?;
    let len: usize = x.shape[axis..].iter().product();
    let bias = request.optional_input(2);
    if scale.len() != len || bias.is_some_and(|b| b.len() != len) {
        return Err("no kernel for a scale that broadcasts".into());
    }
    let rows = x.len() / len.max(1);
    let epsilon = request
        .attributes
        .float_or("epsilon", 1e-5)
        .map_err(reason)?;
    let flag = |b: bool| f64::from(u8::from(b));
    Ok(vec![Dispatch {
        shader: shader!("layer_norm", ["row_reduction"], false),
        constants: vec![
            ("RMS", flag(request.op_type == "RMSNormalization")),
            ("HAS_BIAS", flag(bias.is_some())),
        ],
        parameters: vec![rows as u32, len as u32, 1, epsilon.to_bits()],
        inputs: vec![
            Source::Input(0),
            Source::Input(1),
            bias.map_or(Source::Absent, |_| Source::Input(2)),
        ],
        output: 0,
        workgroups: rows_of(rows),
    }])
}

pub(super) fn reduce(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs[..1])?;
    let shape = request.input(0)?.shape;
    let axes = ints(request, "axes", 1)?.filter(|axes| !axes.is_empty());
    if axes.is_none()
        && request
            .attributes
            .flag_or("noop_with_empty_axes", false)
            .map_err(reason)?
    {
        return Err("nothing is reduced".into());
    }
    let axes = axes.unwrap_or_else(|| (0..shape.len() as i64).collect());
    let mut axes = axes
        .into_iter()
        .map(|a| axis_of(a, shape.len()))
        .collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    let (Some(&first), Some(&last)) = (axes.first(), axes.last()) else {
        return Err("nothing is reduced".into());
    };
    if last - first + 1 != axes.len() {
        return Err("no kernel for axes apart".into());
    }
    let len: usize = shape[first..=last].iter().product();
    let inner: usize = shape[last + 1..].iter().product();
    let rows = shape.iter().product::<usize>() / len.max(1);
    let code = match request.op_type {
        "ReduceSum" => 0,
        "ReduceMean" => 1,
        _ => 2,
    };
    Ok(vec![Dispatch {
        shader: shader!("reduce", ["row_reduction"], false),
        constants: vec![("CODE", f64::from(code))],
        parameters: vec![rows as u32, len as u32, inner as u32],
        inputs: vec![Source::Input(0)],
        output: 0,
        workgroups: rows_of(rows),
    }])
}
