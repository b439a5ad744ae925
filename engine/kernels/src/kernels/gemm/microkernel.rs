//! The innermost loop: one register tile of the output.
//!
//! ```text
//! acc[i][v] = 0 or C[i][v]                       i < ROWS, v < VECTORS
//! for p in 0..depth:
//!     for v: b[v] = B[p][v·LANES ..]             one row of a panel of B
//!     for i: a = broadcast A[i][p]
//!         for v: acc[i][v] = a · b[v] + acc[i][v]
//! C = epilogue(acc)
//! ```
//!
//! Each element is summed in the order of `p` with one accumulator, so that neither the tile shape
//! nor the blocking around it changes a bit when `mul_add` rounds twice.
//!
//! This module also owns the two things that need `unsafe`: pointers within a tile, whose bounds
//! are checked once per tile, and the splitting of an output matrix into rectangles that threads
//! write at the same time.
#![expect(
    unsafe_code,
    reason = "tiles go through pointers checked once per tile; threads write disjoint rectangles"
)]

use std::marker::PhantomData;

use super::epilogue::{Activation, Bias, Epilogue};
use crate::isa::{Isa, Kernel};
use crate::kernels::threads::Threads;

/// Exclusive access to a rectangle of a row-major matrix.
#[derive(Debug)]
pub(crate) struct OutputBlock<'a> {
    /// The rectangle's first element.
    data: *mut f32,
    row_stride: usize,
    /// Position of the rectangle in the whole matrix.
    pub(crate) row: usize,
    pub(crate) col: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: the block has its elements for itself, like a `&mut [f32]`.
unsafe impl Send for OutputBlock<'_> {}

/// The pointer of an output that [`OutputBlock::for_each_block`] hands out in disjoint pieces.
struct SharedPointer(*mut f32);

// SAFETY: the pointer is only used to make blocks that do not overlap.
unsafe impl Sync for SharedPointer {}

impl SharedPointer {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

impl<'a> OutputBlock<'a> {
    /// The whole matrix `[rows, cols]`.
    ///
    /// # Panics
    /// If the slice is too short or rows overlap.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        if rows > 0 {
            assert!(
                rows == 1 || cols <= row_stride,
                "rows of {cols} with stride {row_stride}"
            );
            let needed = (rows - 1) * row_stride + cols;
            assert!(
                data.len() >= needed,
                "output of {} elements, needs {needed}",
                data.len()
            );
        }
        OutputBlock {
            data: data.as_mut_ptr(),
            row_stride,
            row: 0,
            col: 0,
            rows,
            cols,
            matrix: PhantomData,
        }
    }

    /// Splits into rectangles of `row_step` × `col_step` (smaller at the end) and calls `work` for
    /// each, several at a time.
    pub(crate) fn for_each_block(
        self,
        threads: &Threads,
        row_step: usize,
        col_step: usize,
        work: impl Fn(OutputBlock<'_>) + Sync,
    ) {
        if self.rows == 0 || self.cols == 0 {
            return;
        }
        let (down, across) = (self.rows.div_ceil(row_step), self.cols.div_ceil(col_step));
        let (row_stride, base_row, base_col) = (self.row_stride, self.row, self.col);
        let (all_rows, all_cols) = (self.rows, self.cols);
        let base = SharedPointer(self.data);
        threads.for_each(down * across, |i| {
            let (row, col) = ((i / across) * row_step, (i % across) * col_step);
            work(OutputBlock {
                // SAFETY: the offset is that of an element of this matrix.
                data: unsafe { base.get().add(row * row_stride + col) },
                row_stride,
                row: base_row + row,
                col: base_col + col,
                rows: row_step.min(all_rows - row),
                cols: col_step.min(all_cols - col),
                matrix: PhantomData,
            });
        });
    }

    /// Distance of two rows of the matrix.
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Part of a row of the block.
    ///
    /// # Panics
    /// If the row or the columns are not in the block.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize, col: usize, len: usize) -> &mut [f32] {
        assert!(row < self.rows && col <= self.cols && len <= self.cols - col);
        // SAFETY: the elements are within the block, which has them for itself.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.row_stride + col), len) }
    }
}

/// The rows of A that a tile multiplies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TileRows<'a> {
    /// `A[i][p]` is `data[p * stride + i]`: a packed panel, or a transposed matrix.
    Interleaved {
        /// From the first element on.
        data: &'a [f32],
        /// Distance of two values of `p`; at least the rows of the tile.
        stride: usize,
    },
    /// `A[i][p]` is `data[i * stride + p]`: a row-major matrix.
    Rows {
        /// From the first element on.
        data: &'a [f32],
        /// Distance of two rows.
        stride: usize,
    },
}

/// One tile to be computed.
pub(crate) struct Tile<'t, 'a> {
    /// Terms of the sums.
    pub(crate) depth: usize,
    /// The rows of A.
    pub(crate) a: TileRows<'a>,
    /// `B[p][j]` is `b[p * b_stride + j]`, readable up to the next whole vector of columns.
    pub(crate) b: &'a [f32],
    /// Distance of two rows of B.
    pub(crate) b_stride: usize,
    /// Position of the tile in the block.
    pub(crate) row: usize,
    /// Position of the tile in the block.
    pub(crate) col: usize,
    /// At most the rows of the register tile.
    pub(crate) rows: usize,
    /// At most the columns of the register tile.
    pub(crate) cols: usize,
    /// Whether the sums start from what C holds.
    pub(crate) from_c: bool,
    /// Present for the last block of `p`.
    pub(crate) epilogue: Option<&'t Epilogue<'a>>,
}

impl Tile<'_, '_> {
    /// Computes the tile with the smallest micro-kernel that covers it.
    ///
    /// # Panics
    /// If an operand is too short or the tile is not within the block.
    #[inline(always)]
    pub(crate) fn compute<I: Isa, const ROWS: usize, const VECTORS: usize>(
        &self,
        isa: I,
        block: &mut OutputBlock<'_>,
    ) {
        assert!(self.rows >= 1 && self.rows <= ROWS && self.row + self.rows <= block.rows);
        assert!(self.cols >= 1 && self.col + self.cols <= block.cols);
        assert!(self.cols <= VECTORS * I::LANES);
        isa.outline(ChooseTile::<ROWS, VECTORS> { tile: self, block });
    }

    #[inline(always)]
    fn choose_rows<I: Isa, const ROWS: usize, const VECTORS: usize>(
        &self,
        isa: I,
        block: &mut OutputBlock<'_>,
    ) {
        match self.rows {
            1 => self.choose_layout::<I, 1, VECTORS>(isa, block),
            2..=4 => self.choose_layout::<I, 4, VECTORS>(isa, block),
            5..=8 if ROWS > 8 => self.choose_layout::<I, 8, VECTORS>(isa, block),
            _ => self.choose_layout::<I, ROWS, VECTORS>(isa, block),
        }
    }

    #[inline(always)]
    fn choose_layout<I: Isa, const ROWS: usize, const VECTORS: usize>(
        &self,
        isa: I,
        block: &mut OutputBlock<'_>,
    ) {
        if self.depth > 0 {
            let last = self.depth - 1;
            assert!(self.b.len() >= last * self.b_stride + VECTORS * I::LANES);
            match self.a {
                TileRows::Interleaved { data, stride } => {
                    assert!(data.len() >= last * stride + ROWS);
                }
                TileRows::Rows { data, stride } => {
                    assert!(data.len() > (self.rows - 1) * stride + last);
                }
            }
        }
        // SAFETY: `compute` checked that the tile is within the block.
        let c = unsafe { block.data.add(self.row * block.row_stride + self.col) };
        let place = TilePlace {
            c,
            c_stride: block.row_stride,
            row: block.row + self.row,
            col: block.col + self.col,
        };
        match self.a {
            TileRows::Interleaved { data, stride } => {
                let a = Interleaved {
                    data: data.as_ptr(),
                    stride,
                };
                isa.outline(Registers::<_, ROWS, VECTORS> {
                    tile: self,
                    place,
                    a,
                });
            }
            TileRows::Rows { data, stride } => {
                // Rows past the last one repeat it; their sums are not stored.
                let rows = std::array::from_fn(|i| data[i.min(self.rows - 1) * stride..].as_ptr());
                let a = Rows::<ROWS> { rows };
                isa.outline(Registers::<_, ROWS, VECTORS> {
                    tile: self,
                    place,
                    a,
                });
            }
        }
    }
}

/// One function for all loop nests around the micro-kernels.
struct ChooseTile<'r, 't, 'a, 'c, const ROWS: usize, const VECTORS: usize> {
    tile: &'r Tile<'t, 'a>,
    block: &'r mut OutputBlock<'c>,
}

impl<const ROWS: usize, const VECTORS: usize> Kernel for ChooseTile<'_, '_, '_, '_, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // Few tiles are this narrow, but where all are (small images, few columns), computing
        // empty vectors would double the work.
        if VECTORS > 1 && self.tile.cols <= I::LANES {
            self.tile.choose_rows::<I, ROWS, 1>(isa, self.block);
        } else {
            self.tile.choose_rows::<I, ROWS, VECTORS>(isa, self.block);
        }
    }
}

/// Where a tile lies.
struct TilePlace {
    /// Its first element.
    c: *mut f32,
    c_stride: usize,
    /// Its position in the whole matrix.
    row: usize,
    col: usize,
}

/// Reads one element of A.
trait Operand {
    /// # Safety
    /// `row` and `p` must be within what [`Tile::choose_layout`] checked.
    unsafe fn at(&self, row: usize, p: usize) -> f32;
}

struct Interleaved {
    data: *const f32,
    stride: usize,
}

impl Operand for Interleaved {
    #[inline(always)]
    unsafe fn at(&self, row: usize, p: usize) -> f32 {
        // SAFETY: the caller keeps to the checked range.
        unsafe { *self.data.add(p * self.stride + row) }
    }
}

struct Rows<const ROWS: usize> {
    rows: [*const f32; ROWS],
}

impl<const ROWS: usize> Operand for Rows<ROWS> {
    #[inline(always)]
    unsafe fn at(&self, row: usize, p: usize) -> f32 {
        // SAFETY: the caller keeps to the checked range.
        unsafe { *self.rows[row].add(p) }
    }
}

/// A tile with its operands' bounds checked, about to be held in registers.
struct Registers<'r, 't, 'a, A, const ROWS: usize, const VECTORS: usize> {
    tile: &'r Tile<'t, 'a>,
    place: TilePlace,
    a: A,
}

impl<A: Operand, const ROWS: usize, const VECTORS: usize> Kernel
    for Registers<'_, '_, '_, A, ROWS, VECTORS>
{
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Registers { tile, place, a } = self;
        // SAFETY: `choose_layout` checked the operands and that the tile is within the block.
        let sums = unsafe {
            if tile.from_c {
                let mut start = [[isa.zero(); VECTORS]; ROWS];
                for (i, row) in start.iter_mut().enumerate().take(tile.rows) {
                    *row = load_row(isa, place.c.add(i * place.c_stride), tile.cols);
                }
                multiply(isa, tile.depth, &a, tile.b.as_ptr(), tile.b_stride, start)
            } else {
                let start = [[isa.zero(); VECTORS]; ROWS];
                multiply(isa, tile.depth, &a, tile.b.as_ptr(), tile.b_stride, start)
            }
        };
        // A copy: the loops below index it at run time, which would keep the sums of the loop
        // above in memory.
        let mut acc = sums;
        let mut pass_over_memory = Activation::None;
        if let Some(epilogue) = tile.epilogue {
            pass_over_memory = finish(isa, &mut acc, tile, &place, epilogue);
        }
        for (i, row) in acc.iter().enumerate() {
            if i < tile.rows {
                // SAFETY: row `i` of the tile is within the block.
                unsafe { store_row(isa, row, place.c.add(i * place.c_stride), tile.cols) };
            }
        }
        if pass_over_memory != Activation::None {
            for i in 0..tile.rows {
                // SAFETY: row `i` of the tile is within the block, which has it for itself.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(place.c.add(i * place.c_stride), tile.cols)
                };
                isa.outline(ApplyActivation {
                    activation: pass_over_memory,
                    row,
                });
            }
        }
    }
}

/// One function for all micro-kernels, which it would bloat.
struct ApplyActivation<'r> {
    activation: Activation,
    row: &'r mut [f32],
}

impl Kernel for ApplyActivation<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.activation.apply_slice(isa, self.row);
    }
}

/// The sums of a tile, added to `start`.
///
/// # Safety
/// `a` must be readable for `ROWS` × `depth` elements and `b` for `depth` rows of `VECTORS`
/// vectors.
#[inline(always)]
unsafe fn multiply<I: Isa, A: Operand, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    depth: usize,
    a: &A,
    mut b: *const f32,
    b_stride: usize,
    start: [[I::F32; VECTORS]; ROWS],
) -> [[I::F32; VECTORS]; ROWS] {
    let mut acc = start;
    for p in 0..depth {
        let mut columns = [isa.zero(); VECTORS];
        for (v, vector) in columns.iter_mut().enumerate() {
            // SAFETY: the caller promises whole vectors.
            *vector = unsafe { isa.load_ptr(b.add(v * I::LANES)) };
        }
        for i in 0..ROWS {
            // SAFETY: the caller promises these elements.
            let x = isa.splat(unsafe { a.at(i, p) });
            for v in 0..VECTORS {
                acc[i][v] = isa.mul_add(x, columns[v], acc[i][v]);
            }
        }
        b = b.wrapping_add(b_stride);
    }
    acc
}

/// Applies the epilogue to the sums and returns the activation that is left to do in memory: all
/// but the shortest would only bloat the micro-kernel.
#[inline(always)]
fn finish<I: Isa, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    acc: &mut [[I::F32; VECTORS]; ROWS],
    tile: &Tile<'_, '_>,
    place: &TilePlace,
    epilogue: &Epilogue<'_>,
) -> Activation {
    if epilogue.alpha != 1.0 {
        let alpha = isa.splat(epilogue.alpha);
        for sum in acc.as_flattened_mut() {
            *sum = isa.mul(*sum, alpha);
        }
    }
    match epilogue.bias {
        Bias::None => {}
        Bias::PerColumn(bias) => {
            let bias = &bias[place.col..][..tile.cols];
            // SAFETY: the slice has `cols` elements.
            let bias: [I::F32; VECTORS] = unsafe { load_row(isa, bias.as_ptr(), tile.cols) };
            for row in acc.iter_mut() {
                for (sum, bias) in row.iter_mut().zip(bias) {
                    *sum = isa.add(*sum, bias);
                }
            }
        }
        Bias::PerRow(bias) => {
            let bias = &bias[place.row..][..tile.rows];
            for (row, &bias) in acc.iter_mut().zip(bias) {
                for sum in row {
                    *sum = isa.add(*sum, isa.splat(bias));
                }
            }
        }
    }
    if let Some(residual) = epilogue.residual {
        for (i, row) in acc.iter_mut().enumerate() {
            if i < tile.rows {
                let start = (place.row + i) * place.c_stride + place.col;
                let residual = &residual[start..][..tile.cols];
                // SAFETY: the slice has `cols` elements.
                let residual: [I::F32; VECTORS] =
                    unsafe { load_row(isa, residual.as_ptr(), tile.cols) };
                for (sum, x) in row.iter_mut().zip(residual) {
                    *sum = isa.add(*sum, x);
                }
            }
        }
    }
    match epilogue.activation {
        Activation::Relu => {
            for sum in acc.as_flattened_mut() {
                *sum = Activation::Relu.apply(isa, *sum);
            }
            Activation::None
        }
        Activation::Clip { min, max } => {
            for sum in acc.as_flattened_mut() {
                *sum = Activation::Clip { min, max }.apply(isa, *sum);
            }
            Activation::None
        }
        other => other,
    }
}

/// Reads a row of `cols` elements; zeros past its end.
///
/// # Safety
/// `source` must be valid for reading `cols` elements.
#[inline(always)]
unsafe fn load_row<I: Isa, const VECTORS: usize>(
    isa: I,
    source: *const f32,
    cols: usize,
) -> [I::F32; VECTORS] {
    let mut row = [isa.zero(); VECTORS];
    for (v, vector) in row.iter_mut().enumerate() {
        let start = v * I::LANES;
        // SAFETY: only elements below `cols` are read.
        *vector = unsafe {
            if cols >= start + I::LANES {
                isa.load_ptr(source.add(start))
            } else if cols > start {
                isa.load_partial_ptr(source.add(start), cols - start)
            } else {
                isa.zero()
            }
        };
    }
    row
}

/// Writes the first `cols` elements of a row.
///
/// # Safety
/// `target` must be valid for writing `cols` elements.
#[inline(always)]
unsafe fn store_row<I: Isa, const VECTORS: usize>(
    isa: I,
    row: &[I::F32; VECTORS],
    target: *mut f32,
    cols: usize,
) {
    for (v, &vector) in row.iter().enumerate() {
        let start = v * I::LANES;
        // SAFETY: only elements below `cols` are written.
        unsafe {
            if cols >= start + I::LANES {
                isa.store_ptr(vector, target.add(start));
            } else if cols > start {
                isa.store_partial_ptr(vector, target.add(start), cols - start);
            }
        }
    }
}
