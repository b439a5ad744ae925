//! `Loop` and `Scan`: a subgraph run again and again.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Loop.html> (opsets 1 to 25),
//! <https://onnx.ai/onnx/operators/onnx__Scan.html> (8, where everything has a batch axis, and 9
//! to 25).
//!
//! ```text
//! Loop: while i < M and cond: cond, carried.., scanned.. = body(i, cond, carried..)
//! Scan: for slices of the scan inputs: states.., scanned.. = body(states.., slices..)
//! ```
//! What is scanned in each round is stacked along a new axis.

use super::axes::{at_most, normalize_axis};
use super::rearrange::{Interleave, Strided, rearranged};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims, ValueType};
use crate::limits;
use crate::operator::{InferContext, InputValue, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{
    Bool, Buffer, DataType, Shape, Tensor, TensorView, Value, ValueKind, row_major_strides,
};

/// `Loop`.
#[derive(Debug)]
pub(super) struct Loop {
    body: usize,
}

/// `Scan` since opset 9.
#[derive(Debug)]
pub(super) struct Scan {
    body: usize,
    scan_inputs: usize,
    input_axes: Vec<i64>,
    input_reversed: Vec<bool>,
    output_axes: Vec<i64>,
    output_reversed: Vec<bool>,
}

/// `Scan` of opset 8: input 0 has lengths, and all values a batch axis in front.
#[derive(Debug)]
pub(super) struct ScanBatches {
    scan: Scan,
}

/// What is known of a value that a subgraph makes, but for its sizes.
fn kind_only(value_type: &ValueType) -> OutputInfo {
    OutputInfo {
        value_type: ValueType {
            kind: value_type.kind.clone(),
            dims: None,
        },
        ints: None,
    }
}

/// What is known of a value that is stacked: one axis more.
fn stacked(value_type: &ValueType) -> OutputInfo {
    let rank = value_type.dims.as_ref().map(|d| d.len() + 1);
    OutputInfo {
        value_type: ValueType {
            kind: value_type.kind.clone(),
            dims: rank.map(|rank| Dims::from_elem(Dim::Unknown, rank)),
        },
        ints: None,
    }
}

/// Stacks tensors of one shape along a new axis. Where there are none, `element` says what they
/// would have been.
fn stack(
    tensors: &[Tensor],
    axis: i64,
    reversed: bool,
    element: Option<&ValueType>,
) -> Result<Tensor, OpError> {
    let Some(first) = tensors.first() else {
        return empty_stack(element, axis);
    };
    if let Some(other) = tensors.iter().find(|t| t.shape() != first.shape()) {
        return Err(OpError::shape(
            "scan output",
            format!("{:?} in every round", first.shape()),
            format!("{:?}", other.shape()),
        ));
    }
    let mut shape = Shape::from_slice(first.shape());
    let axis = normalize_axis(axis, shape.len() + 1)?;
    shape.insert(axis, tensors.len());
    let mut views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
    if reversed {
        views.reverse();
    }
    let chunks = vec![first.shape()[axis..].iter().product(); views.len()];
    rearranged(&views, &shape, Interleave { chunks: &chunks })
}

fn empty_stack(element: Option<&ValueType>, axis: i64) -> Result<Tensor, OpError> {
    let data_type = element
        .and_then(ValueType::data_type)
        .unwrap_or(DataType::Float32);
    let dims = element.and_then(|e| e.dims.as_deref()).unwrap_or(&[]);
    let mut shape: Shape = dims.iter().map(|d| d.known().unwrap_or(0)).collect();
    let axis = normalize_axis(axis, shape.len() + 1)?;
    shape.insert(axis, 0);
    match data_type {
        DataType::String => Tensor::from_strings(&shape, Vec::new()),
        _ => Tensor::from_bytes(data_type, &shape, Buffer::default()),
    }
}

/// The slice of a tensor at `index` of `axis`, which is dropped.
fn slice_at(view: TensorView<'_>, axis: usize, index: usize) -> Result<Tensor, OpError> {
    let mut shape = Shape::from_slice(view.shape());
    shape.remove(axis);
    let mut strides: Vec<isize> = row_major_strides(view.shape())
        .iter()
        .map(|&s| s as isize)
        .collect();
    let start = index * strides.remove(axis) as usize;
    rearranged(&[view], &shape, Strided::new(start, &shape, &strides))
}

fn owned(value: InputValue<'_>) -> Result<Value, OpError> {
    value.to_value().ok_or_else(|| OpError::Internal {
        what: "an input of a loop lies in an output's memory".into(),
    })
}

impl Loop {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let body = *node.graph("body")?;
        Ok(Self { body })
    }
}

impl Operator for Loop {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let body = inputs.subgraph_outputs(self.body);
        let carried = inputs.len().saturating_sub(2);
        if body.len() < carried + 1 {
            let expected = format!("a condition and {carried} carried values");
            return Err(OpError::shape(
                "body",
                expected,
                format!("{} outputs", body.len()),
            ));
        }
        let info = |(i, value_type): (usize, &ValueType)| match i < carried {
            true => match inputs.optional(i + 2).and_then(|v| v.kind.cloned()) {
                Some(kind) => OutputInfo::of_kind(kind),
                None => kind_only(value_type),
            },
            false => stacked(value_type),
        };
        Ok(body[1..].iter().enumerate().map(info).collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let limit = match ctx.optional_input(0)? {
            Some(limit) => limit.single::<i64>()?,
            None => i64::MAX,
        };
        let mut goes_on = match ctx.optional_input(1)? {
            Some(condition) => condition.single::<Bool>()?.get(),
            None => true,
        };
        let mut carried = (2..ctx.input_count())
            .map(|i| owned(ctx.value(i, "v_initial")?))
            .collect::<Result<Vec<Value>, _>>()?;
        let scanned_count = ctx.output_count().saturating_sub(carried.len());
        let mut scanned: Vec<Vec<Tensor>> = limits::filled(Vec::new(), scanned_count);
        let mut round = 0;
        while goes_on && round < limit {
            let (iteration, condition) = (Tensor::scalar(round), Tensor::scalar(Bool::from(true)));
            let mut inputs = vec![
                InputValue::Tensor(iteration.view()),
                InputValue::Tensor(condition.view()),
            ];
            inputs.extend(carried.iter().map(InputValue::from_value));
            let mut outputs = ctx.run_subgraph(self.body, &inputs)?.into_iter();
            let short = || OpError::shape("body", "as many outputs as carried values", "fewer");
            goes_on = match outputs.next().ok_or_else(short)? {
                Value::Tensor(condition) => condition.view().single::<Bool>()?.get(),
                other => return Err(wrong_kind(&other)),
            };
            for value in &mut carried {
                *value = outputs.next().ok_or_else(short)?;
            }
            for (all, value) in scanned.iter_mut().zip(outputs) {
                all.push(value.as_tensor()?.clone());
            }
            round += 1;
        }
        let count = carried.len();
        for (i, value) in carried.into_iter().enumerate() {
            ctx.set_output(i, value)?;
        }
        for (i, tensors) in scanned.iter().enumerate() {
            let element = ctx.subgraph_output(self.body, 1 + count + i);
            let stack = stack(tensors, 0, false, element)?;
            ctx.set_output(count + i, stack)?;
        }
        Ok(())
    }
}

fn wrong_kind(value: &Value) -> OpError {
    OpError::ValueKind {
        expected: ValueKind::Tensor(DataType::Bool).to_string(),
        found: value.kind().to_string(),
    }
}

impl Scan {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let count = *node.int("num_scan_inputs")?;
        let scan_inputs = usize::try_from(count).ok().filter(|&n| n > 0);
        let flags = |name: &str| -> Result<Vec<bool>, OpError> {
            let list = node.optional_ints(name)?.unwrap_or(&[]);
            Ok(list.iter().map(|&d| d != 0).collect())
        };
        let list = |name: &str| -> Result<Vec<i64>, OpError> {
            Ok(node.optional_ints(name)?.unwrap_or(&[]).to_vec())
        };
        Ok(Self {
            body: *node.graph("body")?,
            scan_inputs: scan_inputs
                .ok_or_else(|| OpError::value("num_scan_inputs", "at least 1", count))?,
            input_axes: list("scan_input_axes")?,
            input_reversed: flags("scan_input_directions")?,
            output_axes: list("scan_output_axes")?,
            output_reversed: flags("scan_output_directions")?,
        })
    }

    /// Runs the body over all slices; gives the final states and the stacks.
    fn sweep(
        &self,
        ctx: &mut RunContext<'_>,
        mut states: Vec<Value>,
        sequences: &[TensorView<'_>],
        rounds: Option<usize>,
    ) -> Result<(Vec<Value>, Vec<Tensor>), OpError> {
        let axes = sequences
            .iter()
            .enumerate()
            .map(|(i, view)| {
                let axis = self.input_axes.get(i).copied().unwrap_or(0);
                normalize_axis(axis, view.rank())
            })
            .collect::<Result<Vec<usize>, _>>()?;
        let mut lengths = sequences
            .iter()
            .zip(&axes)
            .map(|(v, &axis)| v.shape()[axis]);
        let length = lengths.next().unwrap_or(0);
        if let Some(other) = lengths.find(|&n| n != length) {
            return Err(OpError::shape(
                "scan inputs",
                format!("length {length}"),
                other.to_string(),
            ));
        }
        let outputs = ctx.output_count().max(states.len());
        let mut scanned: Vec<Vec<Tensor>> = limits::filled(Vec::new(), outputs - states.len());
        let rounds = rounds.unwrap_or(length).min(length);
        for round in 0..rounds {
            let slices = sequences
                .iter()
                .zip(&axes)
                .enumerate()
                .map(|(i, (view, &axis))| {
                    let reversed = self.input_reversed.get(i).copied().unwrap_or(false);
                    let index = if reversed { rounds - 1 - round } else { round };
                    slice_at(*view, axis, index)
                })
                .collect::<Result<Vec<Tensor>, _>>()?;
            let inputs: Vec<InputValue<'_>> = states
                .iter()
                .map(InputValue::from_value)
                .chain(slices.iter().map(|t| InputValue::Tensor(t.view())))
                .collect();
            let mut made = ctx.run_subgraph(self.body, &inputs)?.into_iter();
            for state in &mut states {
                *state = made.next().ok_or_else(|| {
                    OpError::shape("body", "as many outputs as there are states", "fewer")
                })?;
            }
            for (all, value) in scanned.iter_mut().zip(made) {
                all.push(value.as_tensor()?.clone());
            }
        }
        let stacks = scanned
            .iter()
            .enumerate()
            .map(|(i, tensors)| {
                let axis = self.output_axes.get(i).copied().unwrap_or(0);
                let reversed = self.output_reversed.get(i).copied().unwrap_or(false);
                let element = ctx.subgraph_output(self.body, states.len() + i);
                stack(tensors, axis, reversed, element)
            })
            .collect::<Result<_, _>>()?;
        Ok((states, stacks))
    }

    fn infer_from(
        &self,
        inputs: &InferContext<'_>,
        states: Option<usize>,
    ) -> Result<OutputInfos, OpError> {
        let body = inputs.subgraph_outputs(self.body);
        let states = states.filter(|&n| n <= body.len()).ok_or_else(|| {
            OpError::shape(
                "inputs",
                "states and scan inputs as the body has",
                inputs.len().to_string(),
            )
        })?;
        let info = |(i, value_type): (usize, &ValueType)| match i < states {
            true => kind_only(value_type),
            false => stacked(value_type),
        };
        Ok(body.iter().enumerate().map(info).collect())
    }
}

impl Operator for Scan {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        self.infer_from(inputs, inputs.len().checked_sub(self.scan_inputs))
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let states = ctx.input_count().saturating_sub(self.scan_inputs);
        let initial = (0..states)
            .map(|i| owned(ctx.value(i, "initial_state")?))
            .collect::<Result<Vec<Value>, _>>()?;
        let sequences = (states..ctx.input_count())
            .map(|i| ctx.input(i, "scan_inputs"))
            .collect::<Result<Vec<_>, _>>()?;
        let (states, stacks) = self.sweep(ctx, initial, &sequences, None)?;
        let stacks = stacks.into_iter().map(Value::Tensor);
        for (i, value) in states.into_iter().chain(stacks).enumerate() {
            ctx.set_output(i, value)?;
        }
        Ok(())
    }
}

impl ScanBatches {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let mut scan = Scan::parse(node)?;
        let directions = node.optional_ints("directions")?.unwrap_or(&[]);
        scan.input_reversed = directions.iter().map(|&d| d != 0).collect();
        Ok(Self { scan })
    }
}

impl Operator for ScanBatches {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let states = inputs.len().checked_sub(1 + self.scan.scan_inputs);
        let mut infos = self.scan.infer_from(inputs, states)?;
        infos
            .iter_mut()
            .for_each(|info| info.value_type.dims = None);
        Ok(infos)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let lengths = ctx.optional_input(0)?.map(|v| v.to_i64s()).transpose()?;
        let views = (1..ctx.input_count())
            .map(|i| ctx.input(i, "initial_state_and_scan_inputs"))
            .collect::<Result<Vec<_>, _>>()?;
        let batch = views
            .first()
            .and_then(|v| v.shape().first())
            .copied()
            .unwrap_or(0);
        if views.iter().any(|v| v.shape().first() != Some(&batch)) {
            return Err(OpError::shape(
                "inputs",
                format!("batches of {batch}"),
                "others",
            ));
        }
        if let Some(lengths) = &lengths
            && (lengths.len() != batch || lengths.iter().any(|&n| n < 0))
        {
            let expected = format!("{batch} numbers of at least 0");
            let found = format!("{lengths:?}");
            return Err(OpError::value("sequence_lens", expected, found));
        }
        let mut made: Vec<Vec<Tensor>> = limits::filled(Vec::new(), ctx.output_count());
        for b in 0..batch {
            let mut rows = views
                .iter()
                .map(|view| slice_at(*view, 0, b))
                .collect::<Result<Vec<Tensor>, _>>()?;
            let sequences = rows.split_off(rows.len().saturating_sub(self.scan.scan_inputs));
            let sequences: Vec<TensorView<'_>> = sequences.iter().map(Tensor::view).collect();
            let states = rows.into_iter().map(Value::Tensor).collect();
            // A length beyond the sequence's is as long as that.
            let rounds = lengths.as_ref().map(|lengths| at_most(lengths[b]));
            let (states, stacks) = self.scan.sweep(ctx, states, &sequences, rounds)?;
            let states = states.iter().map(|v| v.as_tensor().cloned());
            let all = states.chain(stacks.into_iter().map(Ok));
            for (made, tensor) in made.iter_mut().zip(all) {
                made.push(tensor?);
            }
        }
        for (i, tensors) in made.iter().enumerate() {
            let stack = stack(tensors, 0, false, None)?;
            ctx.set_output(i, stack)?;
        }
        Ok(())
    }
}
