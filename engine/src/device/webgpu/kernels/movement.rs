//! Elements that go elsewhere unchanged. Types of four and eight bytes, as words.

use super::{axis_of, ints, reason};
use crate::device::webgpu::shader::{Dispatch, Source, shader, workgroups_for};
use crate::device::{Meta, Request};
use crate::tensor::row_major_strides;

/// Words of an element.
fn words(meta: Meta<'_>) -> Result<usize, String> {
    match meta.data_type.bits() {
        32 => Ok(1),
        64 => Ok(2),
        _ => Err(format!("no kernel for elements of type {}", meta.data_type)),
    }
}

/// An axis of a copy: its size, and the strides read and written, in elements.
type Axis = (usize, isize, usize);

/// A copy over `axes`, outermost first, beginning at the given elements.
fn strided_copy(
    input: usize,
    output: usize,
    words: usize,
    axes: &[Axis],
    first_read: usize,
    first_written: usize,
) -> Dispatch {
    let mut all: Vec<Axis> = axes
        .iter()
        .map(|&(n, r, w)| (n, r * words as isize, w * words))
        .collect();
    if words > 1 {
        all.push((words, 1, 1));
    }
    let count: usize = all.iter().map(|a| a.0).product();
    let mut parameters = vec![
        count as u32,
        all.len() as u32,
        (first_read * words) as u32,
        (first_written * words) as u32,
    ];
    for (size, read, written) in all.into_iter().rev() {
        parameters.extend([size as u32, read as i32 as u32, written as u32]);
    }
    Dispatch {
        shader: shader!("strided_copy"),
        constants: vec![],
        parameters,
        inputs: vec![Source::Input(input)],
        output,
        workgroups: workgroups_for(count),
    }
}

/// The same elements under another shape.
pub(super) fn copy(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let input = request.input(0)?;
    Ok(vec![strided_copy(
        0,
        0,
        words(input)?,
        &[(input.len(), 1, 1)],
        0,
        0,
    )])
}

pub(super) fn transpose(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let input = request.input(0)?;
    let rank = input.shape.len();
    let reversed: Vec<i64> = (0..rank as i64).rev().collect();
    let perm = request
        .attributes
        .optional_ints("perm")
        .map_err(reason)?
        .unwrap_or(&reversed);
    let read = row_major_strides(input.shape);
    let written = row_major_strides(request.output(0)?.shape);
    let axes = perm
        .iter()
        .enumerate()
        .map(|(i, &axis)| {
            let axis = axis_of(axis, rank)?;
            Ok((input.shape[axis], read[axis] as isize, written[i]))
        })
        .collect::<Result<Vec<Axis>, String>>()?;
    Ok(vec![strided_copy(0, 0, words(input)?, &axes, 0, 0)])
}

pub(super) fn expand(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let (input, output) = (request.input(0)?, request.output(0)?);
    let (read, written) = (
        row_major_strides(input.shape),
        row_major_strides(output.shape),
    );
    let before = output.shape.len() - input.shape.len().min(output.shape.len());
    let axes: Vec<Axis> = (0..output.shape.len())
        .map(|i| {
            let stride = match i.checked_sub(before) {
                Some(axis) if input.shape[axis] != 1 => read[axis] as isize,
                _ => 0,
            };
            (output.shape[i], stride, written[i])
        })
        .collect();
    Ok(vec![strided_copy(0, 0, words(input)?, &axes, 0, 0)])
}

pub(super) fn concat(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let output = request.output(0)?;
    let axis = request.attributes.int("axis").map_err(reason)?;
    let axis = axis_of(*axis, output.shape.len())?;
    let written = row_major_strides(output.shape);
    let mut at = 0;
    let mut dispatches = Vec::new();
    for i in 0..request.inputs.len() {
        let input = request.input(i)?;
        let read = row_major_strides(input.shape);
        let axes: Vec<Axis> = (0..output.shape.len())
            .map(|a| (input.shape[a], read[a] as isize, written[a]))
            .collect();
        if !input.is_empty() {
            dispatches.push(strided_copy(
                i,
                0,
                words(input)?,
                &axes,
                0,
                at * written[axis],
            ));
        }
        at += input.shape[axis];
    }
    Ok(dispatches)
}

pub(super) fn slice(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let (input, output) = (request.input(0)?, request.output(0)?);
    let rank = input.shape.len();
    let starts = ints(request, "starts", 1)?.ok_or("starts are absent")?;
    let axes = ints(request, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = ints(request, "steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    let (read, written) = (
        row_major_strides(input.shape),
        row_major_strides(output.shape),
    );
    let mut from = vec![0usize; rank];
    let mut step = vec![1isize; rank];
    for ((&start, &axis), &by) in starts.iter().zip(&axes).zip(&steps) {
        let axis = axis_of(axis, rank)?;
        let size = input.shape[axis] as i64;
        let start = if start < 0 {
            start.saturating_add(size)
        } else {
            start
        };
        // A step back may begin at the last element, a step forward behind it.
        let start = start.clamp(0, if by < 0 { size - 1 } else { size });
        from[axis] = usize::try_from(start).map_err(|_| format!("starts {start}"))?;
        step[axis] = isize::try_from(by).map_err(|_| format!("steps {by}"))?;
    }
    let first: usize = from.iter().zip(&read).map(|(f, s)| f * s).sum();
    let axes: Vec<Axis> = (0..rank)
        .map(|a| (output.shape[a], read[a] as isize * step[a], written[a]))
        .collect();
    Ok(vec![strided_copy(0, 0, words(input)?, &axes, first, 0)])
}

pub(super) fn gather(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    let (data, indices) = (request.input(0)?, request.input(1)?);
    let axis = request.attributes.int_or("axis", 0).map_err(reason)?;
    let axis = axis_of(axis, data.shape.len())?;
    let inner = data.shape[axis + 1..].iter().product::<usize>() * words(data)?;
    let outer: usize = data.shape[..axis].iter().product();
    let count = outer * indices.len() * inner;
    Ok(vec![Dispatch {
        shader: shader!("gather", [], true),
        constants: vec![("INDEX_WORDS", words(indices)? as f64)],
        parameters: vec![
            count as u32,
            indices.len() as u32,
            data.shape[axis] as u32,
            inner as u32,
        ],
        inputs: vec![Source::Input(0), Source::Input(1)],
        output: 0,
        workgroups: workgroups_for(count),
    }])
}
