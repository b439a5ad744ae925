//! `Pad`: elements added around a tensor, or taken away where a pad is negative.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Pad.html>, opsets 1 and 2 (attributes), 11, 13, 18
//! (`axes`), 19 (`wrap`), 21 to 25.
//! Shapes: `data: [d]` → `output: [begin + d + end]`. Types: any.
//!
//! Each axis has a table that says, for every index of the output, which index of the input it
//! shows or that it shows the constant.

use smallvec::SmallVec;

use super::axes::{IntList, KnownList, at_most, clamped, normalize_axis};
use super::rearrange::{Rearrange, rearrange};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::scratch;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Buffer, DataType, Shape, Tensor, row_major_strides};

/// The operator.
#[derive(Debug)]
pub(super) struct Pad {
    mode: Mode,
    pads: IntList,
    axes: IntList,
    /// The constant, where it is an attribute.
    value: Option<f32>,
}

/// `Pad` of opset 2, with attributes.
pub(super) struct PadAttributes;

/// `Pad` of opset 1, where `pads` are called `paddings`.
pub(super) struct PadFirst;

/// What is seen beyond the edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One value.
    Constant,
    /// The tensor mirrored at its outermost elements.
    Reflect,
    /// The outermost elements.
    Edge,
    /// The tensor again.
    Wrap,
}

impl Mode {
    fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(match node.string_or("mode", "constant")? {
            "constant" => Self::Constant,
            "reflect" => Self::Reflect,
            "edge" => Self::Edge,
            "wrap" => Self::Wrap,
            other => {
                return Err(OpError::Attribute {
                    name: "mode".into(),
                    expected: "constant, reflect, edge or wrap".into(),
                    found: other.into(),
                });
            }
        })
    }

    /// The input's index that is seen at `index`, which may lie outside.
    fn source(self, index: i64, size: i64) -> Option<usize> {
        let inside = (0..size).contains(&index);
        let source = match self {
            Self::Constant => return usize::try_from(index).ok().filter(|_| inside),
            _ if size == 0 => return None,
            Self::Edge => index.clamp(0, size - 1),
            Self::Wrap => index.rem_euclid(size),
            Self::Reflect if size == 1 => 0,
            Self::Reflect => {
                let period = 2 * (size - 1);
                let at = index.rem_euclid(period);
                at.min(period - at)
            }
        };
        usize::try_from(source).ok()
    }
}

impl Pad {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            mode: Mode::parse(node)?,
            pads: IntList::Input(1),
            axes: IntList::Input(3),
            value: None,
        })
    }

    fn from_attributes(node: &Attributes, pads: &str) -> Result<Self, OpError> {
        Ok(Self {
            mode: Mode::parse(node)?,
            pads: IntList::Attribute(Some(node.ints(pads)?.to_vec())),
            axes: IntList::Attribute(None),
            value: Some(node.float_or("value", 0.0)?),
        })
    }

    /// Pads before and after every axis.
    fn pairs(
        rank: usize,
        pads: &[i64],
        axes: Option<&[i64]>,
    ) -> Result<SmallVec<[(i64, i64); 8]>, OpError> {
        let count = axes.map_or(rank, <[i64]>::len);
        if pads.len() != 2 * count {
            let found = format!("{} numbers", pads.len());
            return Err(OpError::value(
                "pads",
                format!("{} numbers", 2 * count),
                found,
            ));
        }
        let mut pairs = SmallVec::from_elem((0, 0), rank);
        for i in 0..count {
            let axis = axes.map_or(Ok(i), |axes| normalize_axis(axes[i], rank))?;
            pairs[axis] = (pads[i], pads[count + i]);
        }
        Ok(pairs)
    }

    fn padded(size: usize, (begin, end): (i64, i64)) -> Result<usize, OpError> {
        let sum = i64::try_from(size)
            .ok()
            .and_then(|n| n.checked_add(begin)?.checked_add(end));
        sum.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
            let expected = format!("pads that leave something of {size}");
            OpError::value("pads", expected, format!("{begin} and {end}"))
        })
    }
}

impl PadAttributes {
    pub(super) fn parse(node: &Attributes) -> Result<Pad, OpError> {
        Pad::from_attributes(node, "pads")
    }
}

impl PadFirst {
    pub(super) fn parse(node: &Attributes) -> Result<Pad, OpError> {
        Pad::from_attributes(node, "paddings")
    }
}

/// A float as the one element of a tensor of another type.
fn constant(value: f32, data_type: DataType) -> Result<Tensor, OpError> {
    use crate::kernels::conversion::{SmallFloatRounding, convert};
    use crate::tensor::TensorViewMut;
    if data_type == DataType::String {
        return Tensor::from_strings(&[], vec![String::new()]);
    }
    let mut bytes = Buffer::try_zeroed(data_type.size_bytes(1).unwrap_or(0))?;
    if value != 0.0 {
        let mut view = TensorViewMut::from_bytes(data_type, &[], &mut bytes);
        let rounding = SmallFloatRounding::default();
        convert(Tensor::scalar(value).view(), &mut view, rounding)?;
    }
    Tensor::from_bytes(data_type, &[], bytes)
}

impl Operator for Pad {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let data_type = data.data_type()?;
        let Some(dims) = data.dims else {
            return Ok(OutputInfo::maybe(data_type, None).into());
        };
        let pads = self.pads.infer(inputs);
        if pads == KnownList::Absent {
            return Err(OpError::MissingInput { input: "pads" });
        }
        let axes = self.axes.infer(inputs);
        let unknown = Dims::from_elem(Dim::Unknown, dims.len());
        let dims = match (pads.known(), axes.known(), axes) {
            (Some(pads), axes, KnownList::Absent | KnownList::Ints(_))
                if axes.is_some() || matches!(self.axes.infer(inputs), KnownList::Absent) =>
            {
                let pairs = Self::pairs(dims.len(), &pads, axes.as_deref())?;
                dims.iter()
                    .zip(pairs)
                    .map(|(dim, pair)| match (dim, pair) {
                        (dim, (0, 0)) => Ok(dim.clone()),
                        (Dim::Known(n), pair) => Self::padded(*n, pair).map(Dim::Known),
                        _ => Ok(Dim::Unknown),
                    })
                    .collect::<Result<_, _>>()?
            }
            _ => unknown,
        };
        Ok(OutputInfo::tensor(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let data = ctx.input(0, "data")?;
        let pads = self
            .pads
            .read(ctx)?
            .ok_or(OpError::MissingInput { input: "pads" })?;
        let axes = self.axes.read(ctx)?;
        let pairs = Self::pairs(data.rank(), &pads, axes.as_deref())?;
        let shape: Shape = data
            .shape()
            .iter()
            .zip(&pairs)
            .map(|(&n, &pair)| Self::padded(n, pair))
            .collect::<Result<_, _>>()?;
        let job = PadAxes {
            mode: self.mode,
            from: data.shape(),
            to: &shape,
            pairs: &pairs,
        };
        let given = match self.value {
            None if self.mode == Mode::Constant => ctx.optional_input(2)?,
            _ => None,
        };
        match (given.filter(|v| !v.is_empty()), self.value) {
            (Some(value), _) => rearrange(ctx, &[data, value], 0, &shape, job),
            (None, Some(value)) if value != 0.0 => {
                let value = constant(value, data.data_type())?;
                rearrange(ctx, &[data, value.view()], 0, &shape, job)
            }
            _ => rearrange(ctx, &[data], 0, &shape, job),
        }
    }
}

/// Stands in a table for "the constant".
const OUTSIDE: usize = usize::MAX;

struct PadAxes<'a> {
    mode: Mode,
    from: &'a [usize],
    to: &'a [usize],
    pairs: &'a [(i64, i64)],
}

impl Rearrange for PadAxes<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        let value = inputs.get(1).map_or(T::default(), |v| v[0].clone());
        let data = inputs[0];
        if output.is_empty() {
            return Ok(());
        }
        if data.is_empty() && self.mode != Mode::Constant {
            return Err(OpError::shape(
                "data",
                "elements to repeat",
                format!("{:?}", self.from),
            ));
        }
        let Some((&width, outer)) = self.to.split_last() else {
            output.clone_from_slice(data);
            return Ok(());
        };
        let strides = row_major_strides(self.from);
        scratch::with(self.to.iter().sum(), |tables: &mut [usize]| {
            let mut rest = &mut *tables;
            let mut starts: SmallVec<[usize; 8]> = SmallVec::new();
            let mut start = 0;
            for (axis, &size) in self.to.iter().enumerate() {
                let (table, tail) = rest.split_at_mut(size);
                for (i, entry) in table.iter_mut().enumerate() {
                    let index = i as i64 - self.pairs[axis].0;
                    let source = self.mode.source(index, self.from[axis] as i64);
                    *entry = source.map_or(OUTSIDE, |s| s * strides[axis]);
                }
                starts.push(start);
                start += size;
                rest = tail;
            }
            let row_table = &tables[starts[outer.len()]..];
            // The part of a row that shows a row of the input as it is.
            let size = self.from[outer.len()];
            let begin = self.pairs[outer.len()].0;
            let end = begin.saturating_add(size as i64);
            let middle = clamped(begin, width)..clamped(end, width);
            let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, outer.len());
            for row in output.chunks_exact_mut(width) {
                let mut places = index
                    .iter()
                    .zip(&starts)
                    .map(|(i, start)| tables[start + i]);
                let base = places.try_fold(0, |sum, place| match place {
                    OUTSIDE => None,
                    place => Some(sum + place),
                });
                match base {
                    None => row.fill(value.clone()),
                    Some(base) => {
                        let show = |(to, &place): (&mut T, &usize)| {
                            *to = match place {
                                OUTSIDE => value.clone(),
                                place => data[base + place].clone(),
                            };
                        };
                        let copied = middle.start < middle.end;
                        let middle = if copied { middle.clone() } else { 0..0 };
                        if copied {
                            // In front of the row's begin the input's first elements are cut off.
                            let first = base + at_most(middle.start as i64 - begin);
                            row[middle.clone()]
                                .clone_from_slice(&data[first..first + middle.len()]);
                        }
                        let (before, after) = (middle.start, middle.end);
                        row[..before].iter_mut().zip(row_table).for_each(show);
                        row[after..]
                            .iter_mut()
                            .zip(&row_table[after..])
                            .for_each(show);
                    }
                }
                for (at, &size) in index.iter_mut().zip(outer).rev() {
                    *at += 1;
                    if *at < size {
                        break;
                    }
                    *at = 0;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, strings, tensor};

    fn pad(mode: &str, data: &[i32], begin: i64, end: i64) -> Option<Vec<i32>> {
        let inputs = [tensor(&[data.len()], data), ints(&[begin, end])];
        let found = Case::of("Pad", 19).text("mode", mode).one(&inputs).ok()?;
        Some(found.as_slice().expect("int32").to_vec())
    }

    #[test]
    fn modes_say_what_lies_beyond_the_edges() {
        let data = [1, 2, 3];
        let cases: &[(&str, i64, i64, &[i32])] = &[
            ("constant", 2, 1, &[0, 0, 1, 2, 3, 0]),
            ("edge", 2, 1, &[1, 1, 1, 2, 3, 3]),
            ("reflect", 2, 1, &[3, 2, 1, 2, 3, 2]),
            ("reflect", 5, 0, &[2, 1, 2, 3, 2, 1, 2, 3]),
            ("wrap", 2, 4, &[2, 3, 1, 2, 3, 1, 2, 3, 1]),
            ("constant", -1, 1, &[2, 3, 0]),
            ("constant", -2, 0, &[3]),
            ("edge", -1, -1, &[2]),
            ("constant", 4, -5, &[0, 0]),
        ];
        for (mode, begin, end, expected) in cases {
            assert_eq!(
                pad(mode, &data, *begin, *end).as_deref(),
                Some(*expected),
                "{mode} {begin} {end}"
            );
        }
        assert_eq!(pad("constant", &data, -2, -2), None);
        assert_eq!(pad("constant", &data, i64::MAX, 1), None);
        assert_eq!(pad("edge", &[], 1, 1), None);
    }

    #[test]
    fn only_the_listed_axes_are_padded() {
        let data = tensor(&[2, 1], &[1f32, 2.]);
        let inputs = [data, ints(&[1, 0]), tensor(&[], &[9f32]), ints(&[-1])];
        let found = Case::of("Pad", 18).one(&inputs);
        assert_eq!(found, Ok(tensor(&[2, 2], &[9f32, 1., 9., 2.])));
    }

    #[test]
    fn old_pads_are_attributes() {
        let data = tensor(&[1, 1], &[1f32]);
        let with = |opset, name| {
            let case = Case::of("Pad", opset).ints(name, &[0, 1, 0, 0]);
            case.with("value", crate::graph::attributes::Attribute::Float(2.0))
        };
        let expected = Ok(tensor(&[1, 2], &[2f32, 1.]));
        assert_eq!(with(2, "pads").one(&[data.clone()]), expected);
        assert_eq!(with(1, "paddings").one(&[data]), expected);
    }

    #[test]
    fn strings_are_padded_with_empty_ones() {
        let found = Case::of("Pad", 13).one(&[strings(&[1], &["a"]), ints(&[0, 1])]);
        assert_eq!(found, Ok(strings(&[2], &["a", ""])));
    }
}
