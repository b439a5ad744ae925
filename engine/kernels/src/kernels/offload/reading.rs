//! The host's side: words that nobody vouches for become kernel calls on slices.

use bytemuck::Pod;
use smallvec::SmallVec;

use super::{
    ATTENTION, CONVOLVE, COPY_ROWS, GEMM, GEMM_BATCHED, INTEGER_GEMM, LARGEST, OffloadError,
};
use crate::kernels::attention::{self, Attention, HeadStrides, Mask, MaskValues, Sizes, Visible};
use crate::kernels::convolution::{self, Convolution, Geometry, Window};
use crate::kernels::env::Env;
use crate::kernels::gemm::{
    self, Activation, BatchedGemm, Bias, Epilogue, Gemm, Left, MatrixRef, PackedARef, PackedBRef,
    Right,
};
use crate::kernels::integer_gemm::{self, Bytes, Lhs, Output, PackedRhsRef, Scale};
use crate::kernels::rows;

/// What a host has of a guest's memory outside of it as well: a model's weights, say.
pub trait Constants {
    /// The `len_bytes` bytes at an address, if the host has the same bytes elsewhere.
    fn find(&self, address: usize, len_bytes: usize) -> Option<&[u8]>;
}

/// No constants.
impl Constants for () {
    fn find(&self, _: usize, _: usize) -> Option<&[u8]> {
        None
    }
}

/// Computes what a guest's words say, on its memory.
///
/// Operands are read from `constants` where it has them, which spares many guests of one model from
/// having its weights mapped each for itself.
///
/// # Errors
/// When the words are not a call, or name what is not in the memory.
///
/// # Panics
/// When sizes do not fit each other, as the kernels do: a host that must go on catches that.
pub fn perform(
    env: &Env,
    memory: &mut [u8],
    constants: &dyn Constants,
    words: &[u32],
) -> Result<(), OffloadError> {
    let mut words = Words(words);
    let kernel = words.word()?;
    let address = words.word()? as usize;
    let len = words.word()? as usize;
    let outside = OffloadError::Slice { address, len };
    let (before, rest) = memory
        .split_at_mut_checked(address)
        .ok_or(outside.clone())?;
    let (output, after) = rest.split_at_mut_checked(len).ok_or(outside)?;
    let mut reader = Reader {
        words,
        before,
        after,
        after_address: address + len,
        constants,
    };
    match kernel {
        GEMM => reader.gemm(env, output),
        GEMM_BATCHED => reader.gemm_batched(env, output),
        INTEGER_GEMM => reader.integer_gemm(env, output),
        CONVOLVE => reader.convolve(env, output),
        ATTENTION => reader.attention(env, output),
        COPY_ROWS => reader.copy_rows(output),
        _ => Err(OffloadError::Malformed("unknown kernel")),
    }
}

struct Words<'a>(&'a [u32]);

impl Words<'_> {
    fn word(&mut self) -> Result<u32, OffloadError> {
        let (&first, rest) = self
            .0
            .split_first()
            .ok_or(OffloadError::Malformed("it ends too soon"))?;
        self.0 = rest;
        Ok(first)
    }
}

/// Reads a call; slices come from the memory on both sides of the output.
struct Reader<'a> {
    words: Words<'a>,
    before: &'a [u8],
    after: &'a [u8],
    after_address: usize,
    constants: &'a dyn Constants,
}

impl<'a> Reader<'a> {
    fn number(&mut self) -> Result<usize, OffloadError> {
        match self.words.word()? {
            number if number <= LARGEST => Ok(number as usize),
            _ => Err(OffloadError::Malformed("a size beyond 2³¹")),
        }
    }

    fn float(&mut self) -> Result<f32, OffloadError> {
        self.words.word().map(f32::from_bits)
    }

    fn slice<T: Pod>(&mut self) -> Result<&'a [T], OffloadError> {
        let address = self.words.word()? as usize;
        let len = self.words.word()? as usize;
        if len == 0 {
            return Ok(&[]);
        }
        let outside = || OffloadError::Slice { address, len };
        let len_bytes = len.checked_mul(size_of::<T>()).ok_or_else(outside)?;
        let (memory, start) = match address.checked_sub(self.after_address) {
            Some(start) => (self.after, start),
            None => (self.before, address),
        };
        let bytes = memory.get(start..).and_then(|rest| rest.get(..len_bytes));
        let bytes = bytes.ok_or_else(outside)?;
        let bytes = self.constants.find(address, len_bytes).unwrap_or(bytes);
        bytemuck::try_cast_slice(bytes).map_err(|_| outside())
    }

    fn optional<T: Pod>(&mut self) -> Result<Option<&'a [T]>, OffloadError> {
        let present = self.number()? != 0;
        let slice = self.slice()?;
        Ok(present.then_some(slice))
    }

    fn copy_rows(&mut self, output: &mut [u8]) -> Result<(), OffloadError> {
        let table = self.slice()?;
        let row_bytes = self.number()?;
        rows::copy_rows(output, table, row_bytes, self.slice()?);
        Ok(())
    }

    fn matrix(&mut self) -> Result<MatrixRef<'a>, OffloadError> {
        let data = self.slice()?;
        let (rows, cols) = (self.number()?, self.number()?);
        let (row_stride, col_stride) = (self.number()?, self.number()?);
        Ok(MatrixRef::strided(data, rows, cols, row_stride, col_stride))
    }

    fn activation(&mut self) -> Result<Activation, OffloadError> {
        let tag = self.words.word()?;
        let (a, b) = (self.float()?, self.float()?);
        match tag {
            0 => Ok(Activation::None),
            1 => Ok(Activation::Relu),
            2 => Ok(Activation::Clip { min: a, max: b }),
            3 => Ok(Activation::LeakyRelu { alpha: a }),
            4 => Ok(Activation::HardSigmoid { alpha: a, beta: b }),
            5 => Ok(Activation::HardSwish),
            6 => Ok(Activation::Sigmoid),
            7 => Ok(Activation::Silu),
            8 => Ok(Activation::Tanh),
            9 => Ok(Activation::Gelu),
            10 => Ok(Activation::GeluTanh),
            11 => Ok(Activation::Elu { alpha: a }),
            12 => Ok(Activation::Softplus),
            13 => Ok(Activation::Mish),
            _ => Err(OffloadError::Malformed("unknown activation")),
        }
    }

    fn gemm(&mut self, env: &Env, output: &mut [u8]) -> Result<(), OffloadError> {
        let packed = OffloadError::Malformed("a packed operand of another length");
        let a = match self.words.word()? {
            0 => Left::Plain(self.matrix()?),
            _ => {
                let data = self.slice()?;
                let (m, k, height) = (self.number()?, self.number()?, self.number()?);
                Left::Packed(PackedARef::new(m, k, height.max(1), data).ok_or(packed.clone())?)
            }
        };
        let b = match self.words.word()? {
            0 => Right::Plain(self.matrix()?),
            _ => {
                let data = self.slice()?;
                let (k, n, width) = (self.number()?, self.number()?, self.number()?);
                Right::Packed(PackedBRef::new(k, n, width.max(1), data).ok_or(packed)?)
            }
        };
        let c_row_stride = self.number()?;
        let accumulate = self.words.word()? != 0;
        let alpha = self.float()?;
        let tag = self.words.word()?;
        let bias = self.slice()?;
        let bias = match tag {
            0 => Bias::None,
            1 => Bias::PerColumn(bias),
            _ => Bias::PerRow(bias),
        };
        let epilogue = Epilogue {
            alpha,
            bias,
            residual: self.optional()?,
            activation: self.activation()?,
        };
        let c = elements(output)?;
        gemm::gemm(
            env,
            Gemm {
                a,
                b,
                c,
                c_row_stride,
                accumulate,
                epilogue,
            },
        );
        Ok(())
    }

    fn gemm_batched(&mut self, env: &Env, output: &mut [u8]) -> Result<(), OffloadError> {
        let a = self.matrix()?;
        let a_offsets = self.slice::<u32>()?;
        let b = self.matrix()?;
        let b_offsets = self.slice::<u32>()?;
        let alpha = self.float()?;
        let activation = self.activation()?;
        let c: &mut [f32] = elements(output)?;
        let expected = a_offsets
            .len()
            .checked_mul(a.rows)
            .and_then(|n| n.checked_mul(b.cols));
        if expected != Some(c.len()) {
            return Err(OffloadError::Malformed("an output of another length"));
        }
        let widen = |offsets: &[u32]| -> SmallVec<[usize; 64]> {
            offsets.iter().map(|&offset| offset as usize).collect()
        };
        gemm::gemm_batched(
            env,
            BatchedGemm {
                a,
                a_offsets: &widen(a_offsets),
                b,
                b_offsets: &widen(b_offsets),
                c,
                alpha,
                activation,
            },
        );
        Ok(())
    }

    fn integer_gemm(&mut self, env: &Env, output: &mut [u8]) -> Result<(), OffloadError> {
        let m = self.number()?;
        let data = match self.words.word()? {
            0 => Bytes::Unsigned(self.slice()?),
            _ => Bytes::Signed(self.slice()?),
        };
        let zero_points = self.slice()?;
        let lhs = Lhs {
            m,
            data,
            zero_points,
        };
        let (k, n) = (self.number()?, self.number()?);
        let (steps, sums, zero_points) = (self.slice()?, self.slice()?, self.slice()?);
        let rhs = PackedRhsRef::new(k, n, steps, sums, zero_points).ok_or(
            OffloadError::Malformed("a packed operand of another length"),
        )?;
        let tag = self.words.word()?;
        let zero_point = self.words.word()? as u8;
        let output = match tag {
            0 => Output::Integers(elements(output)?),
            1 => Output::Floats {
                data: elements(output)?,
                scale: self.scale()?,
            },
            2 => Output::Unsigned {
                data: elements(output)?,
                scale: self.scale()?,
                zero_point,
            },
            _ => Output::Signed {
                data: elements(output)?,
                scale: self.scale()?,
                zero_point: zero_point.cast_signed(),
            },
        };
        integer_gemm::gemm_packed(env, lhs, rhs, output);
        Ok(())
    }

    fn sizes<const N: usize>(&mut self) -> Result<[usize; N], OffloadError> {
        let mut sizes = [0; N];
        for size in &mut sizes {
            *size = self.number()?;
        }
        Ok(sizes)
    }

    fn convolve(&mut self, env: &Env, output: &mut [u8]) -> Result<(), OffloadError> {
        let [batch, in_channels, out_channels, groups] = self.sizes()?;
        let [input, kernel, strides]: [[usize; 3]; 3] =
            [self.sizes()?, self.sizes()?, self.sizes()?];
        let [dilations, pads_begin, pads_end]: [[usize; 3]; 3] =
            [self.sizes()?, self.sizes()?, self.sizes()?];
        let window = Window {
            kernel: &kernel,
            strides: &strides,
            dilations: &dilations,
            pads_begin: &pads_begin,
            pads_end: &pads_end,
        };
        let image = [batch, in_channels, input[0], input[1], input[2]];
        let group_channels = in_channels.checked_div(groups).unwrap_or_default();
        let weights = [
            out_channels,
            group_channels,
            kernel[0],
            kernel[1],
            kernel[2],
        ];
        let geometry = Geometry::convolution(&image, &weights, window, groups)
            .map_err(|_| OffloadError::Malformed("sizes that are no convolution"))?;
        convolution::convolve(
            env,
            Convolution {
                geometry: &geometry,
                input: self.slice()?,
                weights: self.slice()?,
                bias: self.optional()?,
                residual: self.optional()?,
                activation: self.activation()?,
                output: elements(output)?,
            },
        );
        Ok(())
    }

    fn head_strides(&mut self) -> Result<HeadStrides, OffloadError> {
        let [batch, head, position] = self.sizes()?;
        Ok(HeadStrides {
            batch,
            head,
            position,
        })
    }

    fn attention(&mut self, env: &Env, output: &mut [u8]) -> Result<(), OffloadError> {
        let output_strides = self.head_strides()?;
        let [batch, heads, kv_heads, queries, keys, width, value_width] = self.sizes()?;
        let sizes = Sizes {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            width,
            value_width,
        };
        let q = (self.slice()?, self.head_strides()?);
        let k = (self.slice()?, self.head_strides()?);
        let v = (self.slice()?, self.head_strides()?);
        let scale = self.float()?;
        let capped = self.words.word()? != 0;
        let softcap = Some(self.float()?).filter(|_| capped);
        let values = match self.words.word()? {
            0 => {
                self.slice::<u8>()?;
                self.sizes::<4>()?;
                None
            }
            1 => Some(MaskValues::Keep(self.slice()?, self.sizes()?)),
            _ => Some(MaskValues::Add(self.slice()?, self.sizes()?)),
        };
        let [behind, ahead] = [self.limit()?, self.limit()?];
        let offset = u64::from(self.words.word()?) | u64::from(self.words.word()?) << 32;
        let lengths: Option<SmallVec<[usize; 16]>> = self
            .optional::<u32>()?
            .map(|lengths| lengths.iter().map(|&length| length as usize).collect());
        let visible = Visible {
            behind,
            ahead,
            // Positions beyond any memory, so that sums of them fit.
            offset: offset.cast_signed().clamp(-(1 << 40), 1 << 40),
            key_lengths: lengths.as_deref(),
        };
        let job = Attention {
            sizes,
            q,
            k,
            v,
            scale,
            softcap,
            mask: Mask { values, visible },
            sinks: self.optional()?,
        };
        attention::attention(env, &job, elements(output)?, output_strides);
        Ok(())
    }

    /// A number that may be absent.
    fn limit(&mut self) -> Result<Option<usize>, OffloadError> {
        let is_there = self.words.word()? != 0;
        Ok(Some(self.number()?).filter(|_| is_there))
    }

    fn scale(&mut self) -> Result<Scale<'a>, OffloadError> {
        let (columns, rows) = (self.slice()?, self.slice()?);
        let tag = self.words.word()?;
        let bias = self.slice()?;
        let bias = match tag {
            0 => integer_gemm::Bias::None,
            1 => integer_gemm::Bias::Columns(bias),
            _ => integer_gemm::Bias::Rows(bias),
        };
        Ok(Scale {
            columns,
            rows,
            bias,
        })
    }
}

fn elements<T: Pod>(output: &mut [u8]) -> Result<&mut [T], OffloadError> {
    bytemuck::try_cast_slice_mut(output)
        .map_err(|_| OffloadError::Malformed("an output that is not aligned"))
}
