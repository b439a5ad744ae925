//! Copies of matrices in the order in which the micro-kernel reads them.
//!
//! ```text
//! PackedB, width w (the columns of a register tile):
//!     panel 0: B[0][0..w], B[1][0..w], …, B[k-1][0..w]
//!     panel 1: B[0][w..2w], …
//! PackedA, height h (the rows of a register tile):
//!     panel 0: A[0..h][0], A[0..h][1], …, A[0..h][k-1]
//!     panel 1: A[h..2h][0], …
//! ```
//!
//! The last panel is filled up with zeros. The layout does not depend on the cache blocking.

use std::ops::Range;
use std::sync::Arc;

use super::MatrixRef;
use crate::isa::{Isa, Kernel, Level, Numerics, dispatch, transpose};
use crate::kernels::offload;
use crate::kernels::scratch::Line;
use crate::limits::{self, Charge};

/// Rows and columns of the register tile of a level: the heights of [`PackedA`] panels and the
/// widths of [`PackedB`] panels.
pub fn tile_shape(level: Level) -> (usize, usize) {
    struct Shape;
    impl Kernel for Shape {
        type Output = (usize, usize);
        #[inline(always)]
        fn run<I: Isa>(self, _: I) -> (usize, usize) {
            (I::TILE_ROWS, I::TILE_VECTORS * I::LANES)
        }
    }
    dispatch(level, Numerics::Fast, Shape)
}

/// The tile of whoever computes with what is packed now: this machine, or a guest's host.
fn packing_shape(level: Level) -> (usize, usize) {
    offload::host().map_or_else(|| tile_shape(level), |host| host.tile_shape)
}

/// Elements of a packed matrix of `k` × `n` with panels of `width`.
pub fn packed_len(k: usize, n: usize, width: usize) -> usize {
    n.div_ceil(width) * width * k
}

/// Elements aligned to cache lines.
#[derive(Clone)]
struct AlignedElements {
    lines: Vec<Line>,
    len: usize,
    #[expect(dead_code, reason = "held")]
    charge: Arc<Charge>,
}

impl AlignedElements {
    fn zeroed(len: usize) -> Self {
        let count = (len * size_of::<f32>()).div_ceil(size_of::<Line>());
        let charge = limits::charge(count * size_of::<Line>());
        AlignedElements {
            lines: limits::zeroed(count),
            len,
            charge: Arc::new(charge.unwrap_or_else(|shortage| shortage.raise())),
        }
    }

    fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl std::fmt::Debug for AlignedElements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} elements", self.len)
    }
}

/// Where packing reads from.
trait Source {
    /// The element at an index.
    fn at(&self, index: usize) -> f32;
    /// Copies consecutive elements.
    fn copy(&self, start: usize, target: &mut [f32]);
}

impl Source for &[f32] {
    #[inline(always)]
    fn at(&self, index: usize) -> f32 {
        self[index]
    }

    #[inline(always)]
    fn copy(&self, start: usize, target: &mut [f32]) {
        target.copy_from_slice(&self[start..][..target.len()]);
    }
}

/// Little-endian elements at any address.
struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    #[inline(always)]
    fn at(&self, index: usize) -> f32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[4 * index..][..4]);
        f32::from_le_bytes(bytes)
    }

    #[inline(always)]
    fn copy(&self, start: usize, target: &mut [f32]) {
        let bytes = &self.0[4 * start..][..4 * target.len()];
        for (x, bytes) in target.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *x = f32::from_le_bytes(*bytes);
        }
    }
}

/// A right-hand side `[k, n]` kept for many products: a constant weight.
#[derive(Debug, Clone)]
pub struct PackedB {
    k: usize,
    n: usize,
    width: usize,
    data: AlignedElements,
}

impl PackedB {
    /// Packs a matrix for the micro-kernel of `level`.
    pub fn pack(level: Level, b: MatrixRef<'_>) -> PackedB {
        let (k, n) = (b.rows, b.cols);
        Self::pack_from(level, b.data, k, n, b.row_stride, b.col_stride)
    }

    /// Packs a matrix of little-endian `f32` at any alignment, such as a slice of a mapped file.
    ///
    /// Element `[p, j]` is at byte `4 * (p * row_stride + j * col_stride)`.
    ///
    /// # Panics
    /// If the bytes end before the last element.
    pub fn pack_bytes(
        level: Level,
        bytes: &[u8],
        k: usize,
        n: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> PackedB {
        if k > 0 && n > 0 {
            let last = (k - 1) * row_stride + (n - 1) * col_stride;
            assert!(
                bytes.len() / 4 > last,
                "matrix of {k} x {n} in {} bytes",
                bytes.len()
            );
        }
        Self::pack_from(level, Bytes(bytes), k, n, row_stride, col_stride)
    }

    fn pack_from(
        level: Level,
        source: impl Source,
        k: usize,
        n: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> PackedB {
        let width = packing_shape(level).1;
        let mut data = AlignedElements::zeroed(packed_len(k, n, width));
        pack_columns(
            &source,
            (row_stride, col_stride),
            width,
            0..k,
            0..n,
            data.as_mut_slice(),
        );
        PackedB { k, n, width, data }
    }

    /// The packed matrix as gemm takes it.
    pub fn view(&self) -> PackedBRef<'_> {
        PackedBRef {
            k: self.k,
            n: self.n,
            width: self.width,
            data: self.data.as_slice(),
        }
    }

    /// Bytes of memory.
    pub fn len_bytes(&self) -> usize {
        self.data.lines.len() * size_of::<Line>()
    }
}

/// A packed right-hand side that lies somewhere else, such as in a guest's memory.
#[derive(Debug, Clone, Copy)]
pub struct PackedBRef<'a> {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) width: usize,
    pub(super) data: &'a [f32],
}

impl<'a> PackedBRef<'a> {
    /// A matrix `[k, n]` in panels of `width` columns, or `None` if `data` has another length than
    /// [`packed_len`].
    pub fn new(k: usize, n: usize, width: usize, data: &'a [f32]) -> Option<Self> {
        let panels = n.checked_next_multiple_of(width)?;
        (panels.checked_mul(k)? == data.len()).then_some(PackedBRef { k, n, width, data })
    }

    /// Rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of a panel.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The panels.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }
}

/// A left-hand side `[m, k]` kept for many products, such as the filters of a convolution.
#[derive(Debug, Clone)]
pub struct PackedA {
    m: usize,
    k: usize,
    height: usize,
    data: AlignedElements,
}

impl PackedA {
    /// Packs a matrix for the micro-kernel of `level`.
    pub fn pack(level: Level, a: MatrixRef<'_>) -> PackedA {
        let (m, k) = (a.rows, a.cols);
        let height = packing_shape(level).0;
        let mut data = AlignedElements::zeroed(packed_len(k, m, height));
        // The rows of A are the columns of its transpose.
        let strides = (a.col_stride, a.row_stride);
        pack_columns(&a.data, strides, height, 0..k, 0..m, data.as_mut_slice());
        PackedA { m, k, height, data }
    }

    /// The packed matrix as gemm takes it.
    pub fn view(&self) -> PackedARef<'_> {
        PackedARef {
            m: self.m,
            k: self.k,
            height: self.height,
            data: self.data.as_slice(),
        }
    }

    /// Bytes of memory.
    pub fn len_bytes(&self) -> usize {
        self.data.lines.len() * size_of::<Line>()
    }
}

/// A packed left-hand side that lies somewhere else.
#[derive(Debug, Clone, Copy)]
pub struct PackedARef<'a> {
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) height: usize,
    pub(super) data: &'a [f32],
}

impl<'a> PackedARef<'a> {
    /// A matrix `[m, k]` in panels of `height` rows, or `None` if `data` has another length than
    /// [`packed_len`].
    pub fn new(m: usize, k: usize, height: usize, data: &'a [f32]) -> Option<Self> {
        let panels = m.checked_next_multiple_of(height)?;
        (panels.checked_mul(k)? == data.len()).then_some(PackedARef { m, k, height, data })
    }

    /// Rows of a panel.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The panels.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Columns.
    pub fn k(&self) -> usize {
        self.k
    }
}

/// Packs columns of a matrix with strides `(row, column)` into panels, each of `depth.len()` rows.
#[inline(always)]
fn pack_columns(
    source: &impl Source,
    (row_stride, col_stride): (usize, usize),
    width: usize,
    depth: Range<usize>,
    cols: Range<usize>,
    target: &mut [f32],
) {
    /// Rows that a transposing copy reads at a time: a cache line of the source.
    const RUN: usize = 16;
    let panel_len = width * depth.len();
    if panel_len == 0 {
        return;
    }
    for (panel, first) in target
        .chunks_exact_mut(panel_len)
        .zip(cols.clone().step_by(width))
    {
        let used = width.min(cols.end - first);
        if col_stride == 1 {
            for (row, p) in panel.chunks_exact_mut(width).zip(depth.clone()) {
                source.copy(p * row_stride + first, &mut row[..used]);
                row[used..].fill(0.0);
            }
            continue;
        }
        for start in depth.clone().step_by(RUN) {
            let end = depth.end.min(start + RUN);
            let rows = &mut panel[(start - depth.start) * width..(end - depth.start) * width];
            for j in 0..used {
                let column = (first + j) * col_stride;
                for (row, p) in rows.chunks_exact_mut(width).zip(start..end) {
                    row[j] = source.at(column + p * row_stride);
                }
            }
            for row in rows.chunks_exact_mut(width) {
                row[used..].fill(0.0);
            }
        }
    }
}

/// Packs a block of a right-hand side into scratch memory.
#[inline(always)]
pub(super) fn pack_b_block<I: Isa>(
    isa: I,
    b: MatrixRef<'_>,
    width: usize,
    depth: Range<usize>,
    cols: Range<usize>,
    target: &mut [f32],
) {
    if b.row_stride == 1 && b.col_stride != 1 {
        pack_transposed(isa, b.data, b.col_stride, width, depth, cols, target);
    } else {
        pack_columns(
            &b.data,
            (b.row_stride, b.col_stride),
            width,
            depth,
            cols,
            target,
        );
    }
}

/// Packs columns that are contiguous, in square blocks of vectors.
#[inline(always)]
fn pack_transposed<I: Isa>(
    isa: I,
    source: &[f32],
    col_stride: usize,
    width: usize,
    depth: Range<usize>,
    cols: Range<usize>,
    target: &mut [f32],
) {
    let panel_len = width * depth.len();
    if panel_len == 0 {
        return;
    }
    for (panel, first) in target
        .chunks_exact_mut(panel_len)
        .zip(cols.clone().step_by(width))
    {
        for start in (0..width).step_by(I::LANES) {
            let lanes = I::LANES.min(width - start);
            for p in depth.clone().step_by(I::LANES) {
                let len = I::LANES.min(depth.end - p);
                let mut block = [isa.zero(); 16];
                for i in 0..I::LANES {
                    let col = first + start + i;
                    if i < lanes && col < cols.end {
                        block[i] = isa.load_partial(&source[col * col_stride + p..][..len]);
                    }
                }
                let block = transpose(isa, block);
                for i in 0..I::LANES {
                    if i < len {
                        let row = (p - depth.start + i) * width + start;
                        isa.store_partial(block[i], &mut panel[row..row + lanes]);
                    }
                }
            }
        }
    }
}

/// Packs a block of a left-hand side into scratch memory.
#[inline(always)]
pub(super) fn pack_a_block(
    a: MatrixRef<'_>,
    height: usize,
    rows: Range<usize>,
    depth: Range<usize>,
    target: &mut [f32],
) {
    pack_columns(
        &a.data,
        (a.col_stride, a.row_stride),
        height,
        depth,
        rows,
        target,
    );
}
