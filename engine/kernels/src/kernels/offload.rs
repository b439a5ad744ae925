//! Kernels that somebody else computes: the host of a WebAssembly guest.
//!
//! ```text
//! guest                                         host
//! gemm(env, product) ─► words ──── import ────► perform(env, memory, words) ─► gemm(env, product)
//!                                               on slices of the guest's memory
//! ```
//!
//! A call is written down as 32-bit words: what to compute, sizes, numbers by their bits, and
//! slices as address and length. The host reads the words as those of an adversary: every slice
//! must lie in the guest's memory, at its alignment, and outside of the output; sizes are limited
//! so that no product of two of them overflows; whatever a kernel's own checks find is an error.
//! The writing side is in this file, the reading side in `reading`.
//!
//! Operands that are packed by tiles ([`PackedB`](super::gemm::PackedB)) must have the tiles of the machine that
//! reads them: a guest packs for its host's [`Host::tile_shape`].

mod reading;

use std::sync::OnceLock;

use smallvec::SmallVec;

use super::attention::{Attention, HeadStrides, MaskValues};
use super::convolution::Convolution;
use super::gemm::{Activation, BatchedGemm, Bias, Gemm, Left, MatrixRef, Right};
use super::integer_gemm::{self, Bytes, Lhs, Output, PackedRhsRef};
pub use reading::{Constants, perform};

/// Who computes for this guest.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Rows and columns of the register tile that the host packs for.
    pub tile_shape: (usize, usize),
    /// Computes what the words say, on this guest's memory.
    pub compute: fn(&[u32]),
}

static HOST: OnceLock<Host> = OnceLock::new();

/// Hands the kernels of this guest to a host, for good. Natively there is nobody to hand them to,
/// and this does nothing.
pub fn install(host: Host) {
    // A second host would find operands packed for the first one.
    HOST.get_or_init(|| host);
}

/// The host, on WebAssembly, where there is one.
#[inline(always)]
pub fn host() -> Option<&'static Host> {
    if cfg!(target_arch = "wasm32") {
        HOST.get()
    } else {
        None
    }
}

/// Why a host did not compute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The words do not follow the format.
    #[error("malformed kernel call: {0}")]
    Malformed(&'static str),
    /// A slice is not in the guest's memory, overlaps the output, or is not aligned.
    #[error("kernel call with a slice at {address} of {len} elements outside of the memory")]
    Slice {
        /// Where it would begin.
        address: usize,
        /// How many elements it would have.
        len: usize,
    },
}

const GEMM: u32 = 1;
const GEMM_BATCHED: u32 = 2;
const INTEGER_GEMM: u32 = 3;
const CONVOLVE: u32 = 4;
const ATTENTION: u32 = 5;
const COPY_ROWS: u32 = 6;

/// Largest size and stride: sums of two products of two of them fit 64 bits.
const LARGEST: u32 = i32::MAX as u32;

/// A call, word by word.
#[derive(Debug, Default)]
pub(crate) struct Call {
    words: SmallVec<[u32; 64]>,
}

impl Call {
    /// Lets the host compute it.
    pub(crate) fn send(self, host: &Host) {
        (host.compute)(&self.words);
    }

    fn number(&mut self, number: usize) {
        self.words.push(number as u32);
    }

    fn float(&mut self, float: f32) {
        self.words.push(float.to_bits());
    }

    fn slice<T>(&mut self, slice: &[T]) {
        // Addresses in WebAssembly have 32 bits.
        self.words.push(slice.as_ptr().addr() as u32);
        self.number(slice.len());
    }

    fn optional<T>(&mut self, slice: Option<&[T]>) {
        self.number(slice.is_some().into());
        self.slice(slice.unwrap_or_default());
    }

    /// A call whose output is `output`; nothing else may lie there.
    fn new<T>(kernel: u32, output: &[T]) -> Self {
        let mut call = Self::default();
        call.words.push(kernel);
        call.words.push(output.as_ptr().addr() as u32);
        call.number(size_of_val(output));
        call
    }

    fn matrix(&mut self, matrix: MatrixRef<'_>) {
        self.slice(matrix.data);
        for size in [
            matrix.rows,
            matrix.cols,
            matrix.row_stride,
            matrix.col_stride,
        ] {
            self.number(size);
        }
    }

    fn activation(&mut self, activation: Activation) {
        let (tag, a, b) = match activation {
            Activation::None => (0, 0.0, 0.0),
            Activation::Relu => (1, 0.0, 0.0),
            Activation::Clip { min, max } => (2, min, max),
            Activation::LeakyRelu { alpha } => (3, alpha, 0.0),
            Activation::HardSigmoid { alpha, beta } => (4, alpha, beta),
            Activation::HardSwish => (5, 0.0, 0.0),
            Activation::Sigmoid => (6, 0.0, 0.0),
            Activation::Silu => (7, 0.0, 0.0),
            Activation::Tanh => (8, 0.0, 0.0),
            Activation::Gelu => (9, 0.0, 0.0),
            Activation::GeluTanh => (10, 0.0, 0.0),
            Activation::Elu { alpha } => (11, alpha, 0.0),
            Activation::Softplus => (12, 0.0, 0.0),
            Activation::Mish => (13, 0.0, 0.0),
        };
        self.number(tag);
        self.float(a);
        self.float(b);
    }

    /// `C = epilogue(A · B)`.
    pub(crate) fn gemm(product: &Gemm<'_>) -> Self {
        let mut call = Self::new(GEMM, product.c);
        match product.a {
            Left::Plain(a) => {
                call.number(0);
                call.matrix(a);
            }
            Left::Packed(a) => {
                call.number(1);
                call.slice(a.data());
                for size in [a.m(), a.k(), a.height()] {
                    call.number(size);
                }
            }
        }
        match product.b {
            Right::Plain(b) => {
                call.number(0);
                call.matrix(b);
            }
            Right::Packed(b) => {
                call.number(1);
                call.slice(b.data());
                for size in [b.k(), b.n(), b.width()] {
                    call.number(size);
                }
            }
        }
        call.number(product.c_row_stride);
        call.number(product.accumulate.into());
        let epilogue = &product.epilogue;
        call.float(epilogue.alpha);
        let (tag, bias) = match epilogue.bias {
            Bias::None => (0, &[][..]),
            Bias::PerColumn(bias) => (1, bias),
            Bias::PerRow(bias) => (2, bias),
        };
        call.number(tag);
        call.slice(bias);
        call.optional(epilogue.residual);
        call.activation(epilogue.activation);
        call
    }

    /// Many products in the same buffers.
    pub(crate) fn gemm_batched(products: &BatchedGemm<'_>) -> Self {
        let mut call = Self::new(GEMM_BATCHED, products.c);
        call.matrix(products.a);
        call.slice(products.a_offsets);
        call.matrix(products.b);
        call.slice(products.b_offsets);
        call.float(products.alpha);
        call.activation(products.activation);
        call
    }

    /// A product of bytes.
    pub(crate) fn integer_gemm(lhs: &Lhs<'_>, rhs: PackedRhsRef<'_>, output: &Output<'_>) -> Self {
        let mut call = match output {
            Output::Integers(data) => Self::new(INTEGER_GEMM, data),
            Output::Floats { data, .. } => Self::new(INTEGER_GEMM, data),
            Output::Unsigned { data, .. } => Self::new(INTEGER_GEMM, data),
            Output::Signed { data, .. } => Self::new(INTEGER_GEMM, data),
        };
        call.number(lhs.m);
        match lhs.data {
            Bytes::Unsigned(bytes) => {
                call.number(0);
                call.slice(bytes);
            }
            Bytes::Signed(bytes) => {
                call.number(1);
                call.slice(bytes);
            }
        }
        call.slice(lhs.zero_points);
        let (steps, sums, zero_points) = rhs.parts();
        call.number(rhs.k());
        call.number(rhs.n());
        call.slice(steps);
        call.slice(sums);
        call.slice(zero_points);
        let (tag, scale, zero_point) = match output {
            Output::Integers(_) => (0, None, 0),
            Output::Floats { scale, .. } => (1, Some(scale), 0),
            Output::Unsigned {
                scale, zero_point, ..
            } => (2, Some(scale), u32::from(*zero_point)),
            Output::Signed {
                scale, zero_point, ..
            } => (3, Some(scale), u32::from(zero_point.cast_unsigned())),
        };
        call.number(tag);
        call.words.push(zero_point);
        if let Some(scale) = scale {
            call.slice(scale.columns);
            call.slice(scale.rows);
            let (tag, bias) = match scale.bias {
                integer_gemm::Bias::None => (0, &[][..]),
                integer_gemm::Bias::Columns(bias) => (1, bias),
                integer_gemm::Bias::Rows(bias) => (2, bias),
            };
            call.number(tag);
            call.slice(bias);
        }
        call
    }

    /// Rows of a table.
    pub(crate) fn copy_rows(output: &[u8], table: &[u8], row_bytes: usize, rows: &[u32]) -> Self {
        let mut call = Self::new(COPY_ROWS, output);
        call.slice(table);
        call.number(row_bytes);
        call.slice(rows);
        call
    }

    /// A convolution; the geometry goes as what it was made from.
    pub(crate) fn convolve(convolution: &Convolution<'_>) -> Self {
        let mut call = Self::new(CONVOLVE, convolution.output);
        let geometry = convolution.geometry;
        for size in [
            geometry.batch,
            geometry.in_channels,
            geometry.out_channels,
            geometry.groups,
        ] {
            call.number(size);
        }
        for sizes in [
            geometry.input,
            geometry.kernel,
            geometry.strides,
            geometry.dilations,
            geometry.pads_begin,
            geometry.pads_end,
        ] {
            sizes.into_iter().for_each(|size| call.number(size));
        }
        call.slice(convolution.input);
        call.slice(convolution.weights);
        call.optional(convolution.bias);
        call.optional(convolution.residual);
        call.activation(convolution.activation);
        call
    }

    fn head_strides(&mut self, strides: HeadStrides) {
        for stride in [strides.batch, strides.head, strides.position] {
            self.number(stride);
        }
    }

    /// An attention.
    pub(crate) fn attention(job: &Attention<'_>, output: &[f32], strides: HeadStrides) -> Self {
        let mut call = Self::new(ATTENTION, output);
        call.head_strides(strides);
        let s = job.sizes;
        for size in [
            s.batch,
            s.heads,
            s.kv_heads,
            s.queries,
            s.keys,
            s.width,
            s.value_width,
        ] {
            call.number(size);
        }
        for (data, strides) in [job.q, job.k, job.v] {
            call.slice(data);
            call.head_strides(strides);
        }
        call.float(job.scale);
        call.number(job.softcap.is_some().into());
        call.float(job.softcap.unwrap_or_default());
        let strides = match job.mask.values {
            None => {
                call.number(0);
                call.slice::<f32>(&[]);
                [0; 4]
            }
            Some(MaskValues::Keep(keep, strides)) => {
                call.number(1);
                call.slice(keep);
                strides
            }
            Some(MaskValues::Add(add, strides)) => {
                call.number(2);
                call.slice(add);
                strides
            }
        };
        strides.into_iter().for_each(|stride| call.number(stride));
        let visible = job.mask.visible;
        for limit in [visible.behind, visible.ahead] {
            call.number(limit.is_some().into());
            // No keys are farther away.
            call.number(limit.unwrap_or_default().min(LARGEST as usize));
        }
        let offset = visible.offset.cast_unsigned();
        call.words.extend([offset as u32, (offset >> 32) as u32]);
        call.optional(visible.key_lengths);
        call.optional(job.sinks);
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::env::Env;
    use crate::kernels::gemm::Epilogue;
    #[cfg(panic = "unwind")]
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Memory at an address that vectors like, as a guest's is.
    fn memory(floats: &[f32]) -> Vec<u64> {
        let mut memory = vec![0u64; floats.len().div_ceil(2)];
        bytemuck::cast_slice_mut::<_, f32>(&mut memory)[..floats.len()].copy_from_slice(floats);
        memory
    }

    /// Words of `[2, 3] x [3, 2]` at bytes 0 and 24, the product at byte 48.
    fn product() -> (Vec<u64>, Vec<u32>) {
        let memory = memory(&[
            1., 2., 3., 4., 5., 6., 1., 0., 0., 1., 1., 1., 0., 0., 0., 0.,
        ]);
        let a = [0, 0, 6, 2, 3, 3, 1];
        let b = [0, 24, 6, 3, 2, 2, 1];
        let epilogue = [2, 0, 1f32.to_bits(), 0, 0, 0, 0, 0, 0, 1, 0, 0];
        let words = [&[GEMM, 48, 16][..], &a, &b, &epilogue].concat();
        (memory, words)
    }

    #[test]
    fn computes_on_the_memory() {
        let (mut memory, words) = product();
        let bytes = bytemuck::cast_slice_mut(&mut memory);
        perform(&Env::new(), bytes, &(), &words).unwrap();
        let found: &[f32] = bytemuck::cast_slice(&memory);
        assert_eq!(found[12..16], [4., 5., 10., 11.]);
    }

    #[test]
    fn rows_are_copied_on_the_memory_and_must_be_in_the_table() {
        // The rows 2 and 0 of three, each of 8 bytes at 0; their numbers at 24, the output at 32.
        let words = |row_bytes: u32| [COPY_ROWS, 32, 16, 0, 24, row_bytes, 24, 2];
        let mut memory: Vec<u64> = vec![7, 8, 9, 2, 0, 0];
        let on = |memory: &mut [u64], row_bytes| {
            let bytes = bytemuck::cast_slice_mut(memory);
            perform(&Env::new(), bytes, &(), &words(row_bytes))
        };
        on(&mut memory, 8).unwrap();
        assert_eq!(memory[4..], [9, 7]);
        #[cfg(panic = "unwind")]
        for (row, row_bytes) in [(3, 8), (0, 16), (0, 4)] {
            memory[3] = row;
            let outside = catch_unwind(AssertUnwindSafe(|| on(&mut memory, row_bytes)));
            assert!(outside.is_err(), "row {row}, {row_bytes} bytes");
        }
    }

    /// Another second operand than the memory's.
    struct Doubled([f32; 6]);

    impl Constants for Doubled {
        fn find(&self, address: usize, len_bytes: usize) -> Option<&[u8]> {
            ((address, len_bytes) == (24, 24)).then(|| bytemuck::cast_slice(&self.0))
        }
    }

    #[test]
    fn constants_are_read_where_the_host_has_them() {
        let (mut memory, words) = product();
        let bytes = bytemuck::cast_slice_mut(&mut memory);
        let constants = Doubled([2., 0., 0., 2., 2., 2.]);
        perform(&Env::new(), bytes, &constants, &words).unwrap();
        let found: &[f32] = bytemuck::cast_slice(&memory);
        assert_eq!(found[12..16], [8., 10., 20., 22.]);
    }

    #[test]
    fn the_written_call_is_the_one_that_is_read() {
        let (a, b, mut c) = ([1f32; 6], [1f32; 6], [0f32; 4]);
        let written = Call::gemm(&Gemm {
            a: Left::Plain(MatrixRef::new(&a, 2, 3)),
            b: Right::Plain(MatrixRef::new(&b, 3, 2)),
            c: &mut c,
            c_row_stride: 2,
            accumulate: false,
            epilogue: Epilogue {
                activation: Activation::Relu,
                ..Epilogue::default()
            },
        });
        let (_, mut expected) = product();
        // All but addresses: of the output, the operands, the absent bias and residual.
        let mut found = written.words.to_vec();
        for words in [&mut found, &mut expected] {
            for address in [1, 4, 11, 21, 24] {
                words[address] = 0;
            }
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn slices_outside_of_the_memory_or_in_the_output_are_refused() {
        for (place, word) in [
            (1, 64),
            (1, u32::MAX),
            (2, 24),
            (4, 60),
            (4, u32::MAX),
            (5, u32::MAX),
            (4, 44),
            (4, 2),
            (0, 99),
        ] {
            let (mut memory, mut words) = product();
            words[place] = word;
            let done = perform(
                &Env::new(),
                bytemuck::cast_slice_mut(&mut memory),
                &(),
                &words,
            );
            assert!(done.is_err(), "word {place} is {word}");
        }
    }

    // The host catches a kernel's panic, which nothing can where panics abort; no host is built so.
    #[cfg(panic = "unwind")]
    #[test]
    fn hostile_words_are_errors_or_panics_and_change_nothing_else() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let mut refused = 0;
        for _ in 0..5_000 {
            let (mut memory, mut words) = product();
            for _ in 0..1 + random() % 3 {
                let place = random() as usize % words.len();
                words[place] = match random() % 4 {
                    0 => random() as u32,
                    1 => i32::MAX as u32,
                    2 => 0,
                    _ => random() as u32 % 70,
                };
            }
            words[0] = 1 + random() as u32 % 6;
            let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
            let done = catch_unwind(AssertUnwindSafe(|| {
                perform(&Env::new(), memory, &(), &words)
            }));
            refused += !matches!(done, Ok(Ok(()))) as usize;
        }
        std::panic::set_hook(hook);
        assert!(refused > 1_000, "{refused} of 5000");
    }
}
