//! Sequences of tensors and optional values.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__SequenceConstruct.html> and its kin (opset 11),
//! `SplitToSequence`, `ConcatFromSequence`, and
//! <https://onnx.ai/onnx/operators/onnx__Optional.html>, `OptionalHasElement`,
//! `OptionalGetElement` (15, 18). Positions count from the end where they are negative.

use super::axes::{at_most, normalize_axis, normalize_index};
use super::rearrange::{Interleave, Strided, rearranged};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::limits::{self, Watch};
use crate::operator::{InferContext, InputValue, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{
    Bool, DataType, OptionalValue, Sequence, Shape, Tensor, TensorView, Value, ValueKind,
    row_major_strides,
};

/// The sequence that an input is.
fn sequence<'a>(ctx: &RunContext<'a>, i: usize) -> Result<&'a Sequence, OpError> {
    match ctx.value(i, "input_sequence")? {
        InputValue::Value(Value::Sequence(sequence)) => Ok(sequence),
        InputValue::Value(other) => Err(not_a_sequence(&other.kind())),
        InputValue::Tensor(view) => Err(not_a_sequence(&ValueKind::Tensor(view.data_type()))),
        InputValue::InPlace { data_type, .. } => Err(not_a_sequence(&ValueKind::Tensor(data_type))),
    }
}

fn not_a_sequence(found: &ValueKind) -> OpError {
    OpError::ValueKind {
        expected: "sequence".into(),
        found: found.to_string(),
    }
}

/// The kind of a sequence's elements.
fn element_kind(inputs: &InferContext<'_>) -> Result<Option<ValueKind>, OpError> {
    match inputs.required(0, "input_sequence")?.kind {
        None => Ok(None),
        Some(ValueKind::Sequence(element)) => Ok(Some((**element).clone())),
        Some(other) => Err(not_a_sequence(other)),
    }
}

fn of_kind(kind: Option<ValueKind>) -> OutputInfo {
    kind.map_or_else(OutputInfo::unknown, OutputInfo::of_kind)
}

fn sequence_of(element: Option<ValueKind>) -> OutputInfo {
    of_kind(element.map(|e| ValueKind::Sequence(Box::new(e))))
}

/// The position that an optional scalar input names in `0..len`.
fn position(ctx: &RunContext<'_>, i: usize, len: usize) -> Result<Option<usize>, OpError> {
    let Some(view) = ctx.optional_input(i)? else {
        return Ok(None);
    };
    let positions = view.to_i64s()?;
    let at = positions.first().and_then(|&p| normalize_index(p, len));
    at.map(Some).ok_or_else(|| {
        let expected = format!("a number from -{len} to {}", len as i64 - 1);
        OpError::value("position", expected, format!("{positions:?}"))
    })
}

fn owned(value: InputValue<'_>) -> Result<Value, OpError> {
    value.to_value().ok_or_else(|| OpError::Internal {
        what: "an element lies in an output's memory".into(),
    })
}

macro_rules! without_attributes {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl $name {
            pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
                Ok(Self)
            }
        }
    )*};
}

without_attributes! {
    /// `SequenceConstruct`.
    SequenceConstruct,
    /// `SequenceAt`.
    SequenceAt,
    /// `SequenceInsert`: at the end, unless a position is given.
    SequenceInsert,
    /// `SequenceErase`: the last one, unless a position is given.
    SequenceErase,
    /// `SequenceLength`.
    SequenceLength,
    /// `OptionalHasElement`.
    OptionalHasElement,
    /// `OptionalGetElement`.
    OptionalGetElement
}

impl Operator for SequenceConstruct {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        Ok(sequence_of(inputs.required(0, "inputs")?.kind.cloned()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let values = (0..ctx.input_count())
            .map(|i| owned(ctx.value(i, "inputs")?))
            .collect::<Result<Vec<_>, _>>()?;
        let element = values[0].kind();
        if let Some(other) = values.iter().find(|v| v.kind() != element) {
            return Err(OpError::ValueKind {
                expected: element.to_string(),
                found: other.kind().to_string(),
            });
        }
        ctx.set_output(0, Value::Sequence(Sequence { element, values }))
    }
}

impl Operator for SequenceAt {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        Ok(of_kind(element_kind(inputs)?).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let sequence = sequence(ctx, 0)?;
        let at = position(ctx, 1, sequence.values.len())?;
        let at = at.ok_or(OpError::MissingInput { input: "position" })?;
        ctx.set_output(0, sequence.values[at].clone())
    }
}

impl Operator for SequenceInsert {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        Ok(sequence_of(element_kind(inputs)?).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let mut sequence = sequence(ctx, 0)?.clone();
        let value = owned(ctx.value(1, "tensor")?)?;
        let len = sequence.values.len();
        // One may insert behind the last, but counted from the end this has no number.
        let at = match ctx.optional_input(2)? {
            None => len,
            Some(view) => match view.to_i64s()?.first() {
                Some(&p) if usize::try_from(p) == Ok(len) => len,
                _ => position(ctx, 2, len)?.unwrap_or(len),
            },
        };
        if value.kind() != sequence.element {
            return Err(OpError::ValueKind {
                expected: sequence.element.to_string(),
                found: value.kind().to_string(),
            });
        }
        sequence.values.insert(at, value);
        ctx.set_output(0, Value::Sequence(sequence))
    }
}

impl Operator for SequenceErase {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        Ok(sequence_of(element_kind(inputs)?).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let mut sequence = sequence(ctx, 0)?.clone();
        let len = sequence.values.len();
        let at = position(ctx, 1, len)?.or(len.checked_sub(1));
        let at = at.ok_or_else(|| OpError::value("input_sequence", "an element", "none"))?;
        sequence.values.remove(at);
        ctx.set_output(0, Value::Sequence(sequence))
    }
}

impl Operator for SequenceLength {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        element_kind(inputs)?;
        Ok(OutputInfo::shaped(DataType::Int64, &[]).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let len = sequence(ctx, 0)?.values.len();
        ctx.set_elements(0, &[], &[len as i64])
    }
}

/// `SequenceEmpty`.
#[derive(Debug)]
pub(super) struct SequenceEmpty {
    element: ValueKind,
}

impl SequenceEmpty {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let data_type = node
            .optional_data_type("dtype")?
            .unwrap_or(DataType::Float32);
        Ok(Self {
            element: ValueKind::Tensor(data_type),
        })
    }
}

impl Operator for SequenceEmpty {
    fn infer(&self, _: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        Ok(sequence_of(Some(self.element.clone())).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let sequence = Sequence {
            element: self.element.clone(),
            values: Vec::new(),
        };
        ctx.set_output(0, Value::Sequence(sequence))
    }
}

/// `SplitToSequence`.
#[derive(Debug)]
pub(super) struct SplitToSequence {
    axis: i64,
    keep_axis: bool,
}

impl SplitToSequence {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.int_or("axis", 0)?,
            keep_axis: node.flag_or("keepdims", true)?,
        })
    }

    /// Lengths of the pieces of an axis.
    fn lengths(split: Option<TensorView<'_>>, size: usize) -> Result<Vec<usize>, OpError> {
        let Some(view) = split else {
            return Ok(limits::filled(1, size));
        };
        let given = view.to_i64s()?;
        let wrong = || {
            let expected = format!("lengths that add up to {size}, or one above 0");
            OpError::value("split", expected, format!("{given:?}"))
        };
        let mut lengths: Vec<usize> = limits::with_room(given.len());
        for &n in &given {
            lengths.push((n >= 0).then(|| at_most(n)).ok_or_else(wrong)?);
        }
        if view.rank() == 0 {
            let length = lengths
                .first()
                .copied()
                .filter(|&n| n > 0)
                .ok_or_else(wrong)?;
            let piece = |start: usize| length.min(size - start);
            let mut lengths = limits::with_room(size.div_ceil(length));
            lengths.extend((0..size).step_by(length).map(piece));
            return Ok(lengths);
        }
        let sum = lengths
            .iter()
            .try_fold(0usize, |sum, &n| sum.checked_add(n));
        if sum == Some(size) {
            Ok(lengths)
        } else {
            Err(wrong())
        }
    }
}

impl Operator for SplitToSequence {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        Ok(sequence_of(inputs.required(0, "input")?.kind.cloned()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let input = ctx.input(0, "input")?;
        let axis = normalize_axis(self.axis, input.rank())?;
        let split = ctx.optional_input(1)?;
        let strides: Vec<isize> = row_major_strides(input.shape())
            .iter()
            .map(|&s| s as isize)
            .collect();
        let mut shape = Shape::from_slice(input.shape());
        let lengths = Self::lengths(split, shape[axis])?;
        // A piece may be smaller than what holds it.
        let _pieces = limits::charge(lengths.len().saturating_mul(PIECE))?;
        let mut values = limits::with_room(lengths.len());
        let mut start = 0;
        let mut watch = Watch::begin();
        for length in lengths {
            // To allocate is slow.
            watch.count(1024);
            shape[axis] = length;
            let piece = Strided::new(start * strides[axis] as usize, &shape, &strides);
            let mut tensor = rearranged(&[input], &shape, piece)?;
            if split.is_none() && !self.keep_axis {
                let mut without = shape.clone();
                without.remove(axis);
                tensor = tensor.reshaped(&without)?;
            }
            values.push(Value::Tensor(tensor));
            start += length;
        }
        let element = ValueKind::Tensor(input.data_type());
        ctx.set_output(0, Value::Sequence(Sequence { element, values }))
    }
}

/// Bytes of a tensor in a sequence beside its elements: itself, and its buffer's parts.
const PIECE: usize = size_of::<Value>() + 128;

/// `ConcatFromSequence`.
#[derive(Debug)]
pub(super) struct ConcatFromSequence {
    axis: i64,
    new_axis: bool,
}

impl ConcatFromSequence {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: *node.int("axis")?,
            new_axis: node.flag_or("new_axis", false)?,
        })
    }
}

impl Operator for ConcatFromSequence {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        Ok(of_kind(element_kind(inputs)?).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let sequence = sequence(ctx, 0)?;
        let tensors: Vec<&Tensor> = sequence
            .values
            .iter()
            .map(Value::as_tensor)
            .collect::<Result<_, _>>()?;
        let Some(first) = tensors.first() else {
            return Err(OpError::value("input_sequence", "an element", "none"));
        };
        let mut shape = Shape::from_slice(first.shape());
        let axis = normalize_axis(self.axis, shape.len() + usize::from(self.new_axis))?;
        let fits = |t: &&Tensor| {
            let pairs = t.shape().iter().zip(first.shape()).enumerate();
            let mut equal = pairs.map(|(i, (a, b))| a == b || !self.new_axis && i == axis);
            t.shape().len() == shape.len() && equal.all(|e| e)
        };
        if let Some(other) = tensors.iter().find(|t| !fits(t)) {
            let expected = format!("shapes like {:?}", first.shape());
            return Err(OpError::shape(
                "input_sequence",
                expected,
                format!("{:?}", other.shape()),
            ));
        }
        match self.new_axis {
            true => shape.insert(axis, tensors.len()),
            false => shape[axis] = tensors.iter().map(|t| t.shape()[axis]).sum(),
        }
        let mut chunks: Vec<usize> = limits::with_room(tensors.len());
        chunks.extend(
            tensors
                .iter()
                .map(|t| -> usize { t.shape()[axis..].iter().product() }),
        );
        let mut views: Vec<TensorView<'_>> = limits::with_room(tensors.len());
        views.extend(tensors.iter().map(|t| t.view()));
        limits::end_if_stopped();
        let joined = rearranged(&views, &shape, Interleave { chunks: &chunks })?;
        ctx.set_output(0, joined)
    }
}

/// `Optional`: a value, or none of a kind.
#[derive(Debug)]
pub(super) struct Optional {
    kind: Option<ValueKind>,
}

impl Optional {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            kind: node.optional_value_kind("type")?.cloned(),
        })
    }
}

impl Operator for Optional {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let given = inputs.optional(0).and_then(|v| v.kind.cloned());
        let kind = given.or(self.kind.clone());
        Ok(of_kind(kind.map(|k| ValueKind::Optional(Box::new(k)))).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let value = match ctx.inputs().first().copied().flatten() {
            Some(value) => Some(owned(value)?),
            None => None,
        };
        let element = value.as_ref().map(Value::kind).or(self.kind.clone());
        let element = element.ok_or_else(|| OpError::MissingAttribute {
            name: "type".into(),
        })?;
        let value = value.map(Box::new);
        ctx.set_output(0, Value::Optional(OptionalValue { element, value }))
    }
}

impl Operator for OptionalHasElement {
    fn infer(&self, _: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        Ok(OutputInfo::shaped(DataType::Bool, &[]).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let has = match ctx.inputs().first().copied().flatten() {
            None => false,
            Some(InputValue::Value(Value::Optional(optional))) => optional.value.is_some(),
            Some(_) => true,
        };
        ctx.set_elements(0, &[], &[Bool::from(has)])
    }
}

impl Operator for OptionalGetElement {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        Ok(match input.kind {
            Some(ValueKind::Optional(element)) => OutputInfo::of_kind((**element).clone()),
            Some(ValueKind::Tensor(data_type)) => {
                let dims = input.dims.map(|d| Dims::from_elem(Dim::Unknown, d.len()));
                OutputInfo::maybe(*data_type, dims.filter(|d| !d.is_empty()))
            }
            other => of_kind(other.cloned()),
        }
        .into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let value = match ctx.value(0, "input")? {
            InputValue::Value(Value::Optional(optional)) => match &optional.value {
                Some(value) => (**value).clone(),
                None => return Err(OpError::value("input", "an element", "none")),
            },
            other => owned(other)?,
        };
        ctx.set_output(0, value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};
    use super::*;

    fn run(op_type: &'static str, inputs: &[Option<Value>]) -> Result<Value, OpError> {
        Ok(Case::of(op_type, 18).run(inputs)?.swap_remove(0))
    }

    fn numbers(values: &[i64]) -> Value {
        let inputs: Vec<Option<Value>> = values.iter().map(|&v| Some(ints(&[v]).into())).collect();
        run("SequenceConstruct", &inputs).expect("one kind")
    }

    fn at(position: i64) -> Option<Value> {
        Some(tensor(&[], &[position]).into())
    }

    #[test]
    fn sequences_are_read_and_changed_at_positions() {
        let three = Some(numbers(&[1, 2, 3]));
        assert_eq!(
            run("SequenceAt", &[three.clone(), at(-1)]),
            Ok(ints(&[3]).into())
        );
        assert_eq!(
            run("SequenceLength", std::slice::from_ref(&three)),
            Ok(tensor(&[], &[3i64]).into())
        );
        let value = Some(ints(&[9]).into());
        let inserted = run("SequenceInsert", &[three.clone(), value.clone(), at(1)]);
        assert_eq!(inserted, Ok(numbers(&[1, 9, 2, 3])));
        let appended = run("SequenceInsert", &[three.clone(), value.clone(), at(3)]);
        assert_eq!(appended, Ok(numbers(&[1, 2, 3, 9])));
        assert_eq!(
            run("SequenceErase", &[three.clone(), at(-3)]),
            Ok(numbers(&[2, 3]))
        );
        for bad in [3, -4, i64::MIN] {
            assert!(
                run("SequenceAt", &[three.clone(), at(bad)]).is_err(),
                "{bad}"
            );
        }
        let float = Some(tensor(&[1], &[1f32]).into());
        assert!(run("SequenceInsert", &[three, float]).is_err());
        assert!(run("SequenceAt", &[value, at(0)]).is_err());
    }

    #[test]
    fn tensors_are_cut_and_joined() {
        let x = ints(&[1, 2, 3]);
        let pieces = Case::of("SplitToSequence", 11)
            .int("keepdims", 1)
            .run(&[Some(x.clone().into())]);
        assert_eq!(pieces, Ok(vec![numbers(&[1, 2, 3])]));
        let joined = Case::of("ConcatFromSequence", 11)
            .int("axis", 0)
            .run(&[Some(numbers(&[1, 2, 3]))]);
        assert_eq!(joined, Ok(vec![x.clone().into()]));
        let stacked = Case::of("ConcatFromSequence", 11)
            .int("axis", 1)
            .int("new_axis", 1);
        let stacked = stacked.run(&[Some(numbers(&[1, 2]))]);
        assert_eq!(stacked, Ok(vec![tensor(&[1, 2], &[1i64, 2]).into()]));
        assert!(run("SplitToSequence", &[Some(x.into()), at(0)]).is_err());
    }

    #[test]
    fn optionals_hold_a_value_or_none() {
        let value: Option<Value> = Some(ints(&[1]).into());
        let some = run("Optional", std::slice::from_ref(&value)).expect("a value");
        let has = |v: Option<Value>| run("OptionalHasElement", &[v]);
        assert_eq!(has(Some(some.clone())), Ok(tensor(&[], &[Bool(1)]).into()));
        assert_eq!(has(None), Ok(tensor(&[], &[Bool(0)]).into()));
        assert_eq!(
            run("OptionalGetElement", &[Some(some)]),
            Ok(ints(&[1]).into())
        );
        let element = ValueKind::Tensor(DataType::Int64);
        let none = Value::Optional(OptionalValue {
            element,
            value: None,
        });
        assert_eq!(has(Some(none.clone())), Ok(tensor(&[], &[Bool(0)]).into()));
        assert!(run("OptionalGetElement", &[Some(none)]).is_err());
    }
}
