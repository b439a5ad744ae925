//! Operators that move elements and do not compute with them.
//!
//! Such an operator is written once as a [`Rearrange`], generic over the element, and
//! [`rearrange`] runs it for every ONNX type: fixed-size types as unsigned integers of their
//! width, sub-byte types one code to a byte. Of strings it moves the numbers: so what the output
//! takes is known, and charged, before a text is copied.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use crate::error::OpError;
use crate::limits::{self, Watch};
use crate::operator::RunContext;
use crate::tensor::packed::{pack_codes, unpack_codes};
use crate::tensor::{Buffer, DataType, Strings, Tensor, TensorView, element_count};

/// Moves elements of the inputs, all of one type, to their places in the output.
pub(super) trait Rearrange: Sized {
    /// The same job on a part of its only input, and which part that is, where it reads no more.
    /// It saves numbering all strings for a few.
    fn narrowed(self) -> (Self, Option<Range<usize>>) {
        (self, None)
    }

    /// Fills `output`, which has unspecified content.
    ///
    /// # Errors
    /// When indices or sizes do not fit the inputs.
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError>;
}

/// Runs `job` on `inputs`, which have one element type, for the output of this index. `shape` is
/// the output's shape, needed where `infer` did not know it.
///
/// # Errors
/// Those of the job, and when the inputs' types differ.
pub(super) fn rearrange(
    ctx: &mut RunContext<'_>,
    inputs: &[TensorView<'_>],
    output: usize,
    shape: &[usize],
    job: impl Rearrange,
) -> Result<(), OpError> {
    if !ctx.wants(output) {
        return Ok(());
    }
    let Some(mut view) = ctx.optional_output(output) else {
        return ctx.set_output(output, rearranged(inputs, shape, job)?);
    };
    let data_type = common_type(inputs)?;
    let len = view.shape().iter().product();
    on_bytes(inputs, data_type, view.bytes_mut(), len, job)
}

/// The same, as a tensor of this shape.
///
/// # Errors
/// Those of the job, when the inputs' types differ, and when the shape is too large.
pub(super) fn rearranged(
    inputs: &[TensorView<'_>],
    shape: &[usize],
    job: impl Rearrange,
) -> Result<Tensor, OpError> {
    let data_type = common_type(inputs)?;
    let too_large = || OpError::TooLarge {
        what: format!("shape {shape:?}"),
    };
    let len = element_count(shape).ok_or_else(too_large)?;
    if data_type == DataType::String {
        return Tensor::of_strings(shape, rearranged_strings(inputs, len, job)?);
    }
    let size = data_type
        .size_bytes(len)
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(too_large)?;
    let mut bytes = Buffer::try_zeroed(size)?;
    on_bytes(inputs, data_type, &mut bytes, len, job)?;
    Tensor::from_bytes(data_type, shape, bytes)
}

fn rearranged_strings(
    inputs: &[TensorView<'_>],
    len: usize,
    job: impl Rearrange,
) -> Result<Strings, OpError> {
    let mut slices: SmallVec<[&[String]; 16]> = inputs
        .iter()
        .map(|v| v.as_strings())
        .collect::<Result<_, _>>()?;
    let (job, part) = job.narrowed();
    if let (Some(part), [only]) = (part, &mut slices[..]) {
        *only = &only[part];
    }
    // Number 0 is the empty string, as a place has it that the job leaves alone.
    let count = slices.iter().map(|slice| slice.len()).sum();
    let mut texts: Vec<&str> = limits::with_room(count + 1);
    texts.push("");
    texts.extend(slices.iter().copied().flatten().map(String::as_str));
    let mut numbers: Vec<usize> = limits::with_room(count);
    numbers.extend(1..=count);
    let mut rest = &numbers[..];
    let numbered: SmallVec<[&[usize]; 16]> = slices
        .iter()
        .map(|slice| {
            let (head, tail) = rest.split_at(slice.len());
            rest = tail;
            head
        })
        .collect();
    let mut chosen = limits::zeroed(len);
    job.run(&numbered, &mut chosen)?;
    let chosen = chosen
        .iter()
        .map(|&number: &usize| Cow::Borrowed(texts[number]));
    Ok(Strings::collect(chosen)?)
}

/// The element type of all inputs.
fn common_type(inputs: &[TensorView<'_>]) -> Result<DataType, OpError> {
    let data_type = inputs.first().map_or(DataType::Float32, |v| v.data_type());
    match inputs.iter().find(|v| v.data_type() != data_type) {
        None => Ok(data_type),
        Some(other) => Err(OpError::ElementType {
            expected: data_type,
            found: other.data_type(),
        }),
    }
}

fn on_bytes(
    inputs: &[TensorView<'_>],
    data_type: DataType,
    output: &mut [u8],
    len: usize,
    job: impl Rearrange,
) -> Result<(), OpError> {
    if data_type.is_sub_byte() {
        let unpacked: Vec<Vec<u8>> = inputs
            .iter()
            .map(|v| unpack_codes(data_type, v.bytes(), v.len()))
            .collect();
        let slices: Vec<&[u8]> = unpacked.iter().map(Vec::as_slice).collect();
        let mut codes = limits::zeroed(len);
        job.run(&slices, &mut codes)?;
        pack_codes(data_type, &codes, output);
        return Ok(());
    }
    match data_type {
        DataType::Complex64 => on_words::<[u32; 2]>(inputs, output, job),
        DataType::Complex128 => on_words::<[u64; 2]>(inputs, output, job),
        other => match other.bits() {
            8 => on_words::<u8>(inputs, output, job),
            16 => on_words::<u16>(inputs, output, job),
            32 => on_words::<u32>(inputs, output, job),
            _ => on_words::<u64>(inputs, output, job),
        },
    }
}

fn on_words<W: bytemuck::Pod + Default + Send + Sync>(
    inputs: &[TensorView<'_>],
    output: &mut [u8],
    job: impl Rearrange,
) -> Result<(), OpError> {
    let misaligned = |_| OpError::Internal {
        what: "misaligned tensor".into(),
    };
    let slices: SmallVec<[&[W]; 16]> = inputs
        .iter()
        .map(|v| bytemuck::try_cast_slice(v.bytes()).map_err(misaligned))
        .collect::<Result<_, _>>()?;
    job.run(
        &slices,
        bytemuck::try_cast_slice_mut(output).map_err(misaligned)?,
    )
}

/// Copies input 0 to output 0 as it is, whatever kind of value it is: what an alias does where its
/// memory cannot be shared.
///
/// # Errors
/// When the input is absent or of another size than the output.
pub(super) fn copy_input(ctx: &mut RunContext<'_>, name: &'static str) -> Result<(), OpError> {
    use crate::operator::InputValue;
    match ctx.value(0, name)? {
        InputValue::Value(value) => ctx.set_output(0, value.clone()),
        InputValue::InPlace { .. } => Ok(()),
        InputValue::Tensor(view) => {
            let Some(mut output) = ctx.optional_output(0) else {
                return ctx.set_output(0, view.to_tensor());
            };
            if output.bytes_mut().len() != view.bytes().len() {
                return Err(OpError::shape(
                    name,
                    format!("as many elements as {:?}", output.shape()),
                    format!("shape {:?}", view.shape()),
                ));
            }
            output.bytes_mut().copy_from_slice(view.bytes());
            Ok(())
        }
    }
}

/// Work of a short row beside its elements.
const ROW: usize = 8;

/// So many elements of each input in turn, again and again.
#[derive(Debug)]
pub(super) struct Interleave<'a> {
    /// How many elements of each input make its part of a row.
    pub(super) chunks: &'a [usize],
}

impl Rearrange for Interleave<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        let row: usize = self.chunks.iter().sum();
        if row == 0 {
            return Ok(());
        }
        let mut watch = Watch::begin();
        for (i, row) in output.chunks_exact_mut(row).enumerate() {
            let mut at = 0;
            for (input, &chunk) in inputs.iter().zip(self.chunks) {
                watch.count(chunk + ROW);
                row[at..at + chunk].clone_from_slice(&input[i * chunk..(i + 1) * chunk]);
                at += chunk;
            }
        }
        Ok(())
    }
}

/// A tensor read with other strides: slices, repetitions and permutations of axes.
#[derive(Debug, Clone)]
pub(super) struct Strided {
    /// Offset of the first element.
    start: usize,
    /// Axes of the output with the input's strides in elements, adjacent ones merged where they
    /// can be; the last one is the row.
    axes: SmallVec<[(usize, isize); 8]>,
}

impl Strided {
    /// Reads from `start` under `shape` with `strides`. Every offset that this reaches must lie in
    /// the input.
    pub(super) fn new(start: usize, shape: &[usize], strides: &[isize]) -> Self {
        let mut axes: SmallVec<[(usize, isize); 8]> = SmallVec::new();
        for (&size, &stride) in shape.iter().zip(strides) {
            match axes.last_mut() {
                _ if size == 1 => {}
                Some((outer, outer_stride)) if *outer_stride == stride * size as isize => {
                    *outer *= size;
                    *outer_stride = stride;
                }
                _ => axes.push((size, stride)),
            }
        }
        Self { start, axes }
    }
}

impl Rearrange for Strided {
    fn narrowed(mut self) -> (Self, Option<Range<usize>>) {
        if self.axes.iter().any(|&(size, _)| size == 0) {
            return (self, None);
        }
        let (mut first, mut last) = (self.start, self.start);
        for &(size, stride) in &self.axes {
            let reach = (size - 1) * stride.unsigned_abs();
            match stride < 0 {
                true => first -= reach,
                false => last += reach,
            }
        }
        self.start -= first;
        (self, Some(first..last + 1))
    }

    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        let input = inputs[0];
        if output.is_empty() {
            return Ok(());
        }
        let Some((&(len, stride), outer)) = self.axes.split_last() else {
            output.clone_from_slice(&input[self.start..self.start + 1]);
            return Ok(());
        };
        let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, outer.len());
        let mut offset = self.start as isize;
        let mut watch = Watch::begin();
        for row in output.chunks_exact_mut(len) {
            watch.count(len + ROW);
            copy_row(row, input, offset, stride);
            for (at, &(size, stride)) in index.iter_mut().zip(outer).rev() {
                *at += 1;
                offset += stride;
                if *at < size {
                    break;
                }
                *at = 0;
                offset -= stride * size as isize;
            }
        }
        Ok(())
    }
}

fn copy_row<T: Clone>(row: &mut [T], input: &[T], offset: isize, stride: isize) {
    let start = offset as usize;
    match stride {
        1 => row.clone_from_slice(&input[start..start + row.len()]),
        0 => row.fill(input[start].clone()),
        _ => {
            for (i, to) in row.iter_mut().enumerate() {
                *to = input[(offset + i as isize * stride) as usize].clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(input: &[u8], start: usize, shape: &[usize], strides: &[isize]) -> Vec<u8> {
        let mut output = vec![0; shape.iter().product()];
        Strided::new(start, shape, strides)
            .run(&[input], &mut output)
            .expect("fits");
        output
    }

    #[test]
    fn strided_reads_slices_repetitions_and_permutations() {
        let input = [0, 1, 2, 3, 4, 5];
        assert_eq!(strided(&input, 0, &[2, 3], &[3, 1]), input);
        assert_eq!(strided(&input, 0, &[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(strided(&input, 5, &[3], &[-2]), [5, 3, 1]);
        assert_eq!(strided(&input, 1, &[2, 2], &[0, 1]), [1, 2, 1, 2]);
        assert_eq!(strided(&input, 4, &[], &[]), [4]);
        assert_eq!(strided(&input, 0, &[2, 0], &[3, 1]), []);
        assert_eq!(strided(&input, 0, &[2, 1, 3], &[3, 0, 1]), input);
    }
}
