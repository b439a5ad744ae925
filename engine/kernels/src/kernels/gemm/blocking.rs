//! The loops around the micro-kernel: which part of the operands is in which cache.
//!
//! ```text
//! for each block of columns (COLUMNS wide):
//!     for each block of depth (DEPTH deep):            panels of B: 2nd-level cache
//!         B panels ← packed, in place, or packed now
//!         for each block of rows (ROWS high):          block of A: 2nd-level cache
//!             for each panel of B:                     1st-level cache
//!                 for each tile of rows: micro-kernel
//! ```
//!
//! After K. Goto and R. van de Geijn, "Anatomy of high-performance matrix multiplication" (2008),
//! and the BLIS project. Sums over several blocks of depth pass through C.

use std::ops::Range;

use super::MatrixRef;
use super::epilogue::Epilogue;
use super::microkernel::{OutputBlock, Tile, TileRows};
use super::packing::{PackedARef, PackedBRef, pack_a_block, pack_b_block};
use crate::isa::{Isa, Kernel, TileKernel};
use crate::limits;

/// Terms of a sum between two visits to C.
pub(crate) const DEPTH: usize = 384;
/// Rows of A packed at a time: a multiple of all tile heights.
const ROWS: usize = 240;
/// Columns of B packed at a time: a multiple of all tile widths.
pub(crate) const COLUMNS: usize = 512;

/// The left-hand side of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lhs<'a> {
    /// Packed in advance.
    Packed(PackedARef<'a>),
    /// Read where it is (rows contiguous, or columns contiguous).
    InPlace(MatrixRef<'a>),
    /// Packed block by block.
    Strided(MatrixRef<'a>),
}

/// Panels of a block of the right-hand side.
pub(crate) struct Panels<'s> {
    /// All panels but perhaps the last.
    pub(crate) data: &'s [f32],
    /// Distance of two panels.
    pub(crate) panel_stride: usize,
    /// Distance of two rows of a panel.
    pub(crate) row_stride: usize,
    /// The last panel where it is kept apart: its index, and rows of one panel width each.
    pub(crate) last: Option<(usize, &'s [f32])>,
}

/// The right-hand side of a product, in panels as wide as a register tile.
pub(crate) trait Rhs: Sync {
    /// Elements of scratch that [`Self::panels`] needs for a block.
    fn scratch_len(&self, width: usize, depth: usize, cols: usize) -> usize;

    /// The panels of a block; `cols` starts at a multiple of `width`.
    fn panels<'s, I: Isa>(
        &'s self,
        isa: I,
        width: usize,
        depth: Range<usize>,
        cols: Range<usize>,
        scratch: &'s mut [f32],
    ) -> Panels<'s>;
}

impl Rhs for PackedBRef<'_> {
    fn scratch_len(&self, _: usize, _: usize, _: usize) -> usize {
        0
    }

    #[inline(always)]
    fn panels<'s, I: Isa>(
        &'s self,
        _: I,
        width: usize,
        depth: Range<usize>,
        cols: Range<usize>,
        _: &'s mut [f32],
    ) -> Panels<'s> {
        debug_assert_eq!(width, self.width);
        Panels {
            data: &self.data[(cols.start * self.k + depth.start * width).min(self.data.len())..],
            panel_stride: width * self.k,
            row_stride: width,
            last: None,
        }
    }
}

/// A plain matrix that is packed block by block.
pub(crate) struct PackedNow<'a>(pub(crate) MatrixRef<'a>);

impl Rhs for PackedNow<'_> {
    fn scratch_len(&self, width: usize, depth: usize, cols: usize) -> usize {
        depth * cols.next_multiple_of(width)
    }

    #[inline(always)]
    fn panels<'s, I: Isa>(
        &'s self,
        isa: I,
        width: usize,
        depth: Range<usize>,
        cols: Range<usize>,
        scratch: &'s mut [f32],
    ) -> Panels<'s> {
        let panel_stride = width * depth.len();
        pack_b_block(isa, self.0, width, depth, cols, scratch);
        Panels {
            data: scratch,
            panel_stride,
            row_stride: width,
            last: None,
        }
    }
}

/// A plain matrix with contiguous rows that is read where it is, except for the columns that do
/// not fill a panel.
pub(crate) struct InPlace<'a>(pub(crate) MatrixRef<'a>);

impl Rhs for InPlace<'_> {
    fn scratch_len(&self, width: usize, depth: usize, cols: usize) -> usize {
        if cols.is_multiple_of(width) {
            0
        } else {
            depth * width
        }
    }

    #[inline(always)]
    fn panels<'s, I: Isa>(
        &'s self,
        isa: I,
        width: usize,
        depth: Range<usize>,
        cols: Range<usize>,
        scratch: &'s mut [f32],
    ) -> Panels<'s> {
        let b = self.0;
        let whole = cols.len() / width;
        let start = depth.start * b.row_stride + cols.start;
        let mut last = None;
        if !cols.len().is_multiple_of(width) {
            pack_b_block(
                isa,
                b,
                width,
                depth,
                cols.start + whole * width..cols.end,
                scratch,
            );
            last = Some((whole, &*scratch));
        }
        Panels {
            data: &b.data[start.min(b.data.len())..],
            panel_stride: width,
            row_stride: b.row_stride,
            last,
        }
    }
}

/// A product, apart from its output.
pub(crate) struct Product<'a, R> {
    /// Terms of each sum.
    pub(crate) depth: usize,
    /// `[m, depth]`
    pub(crate) a: Lhs<'a>,
    /// `[depth, n]`
    pub(crate) b: R,
    /// Whether the sums start from what the output holds.
    pub(crate) accumulate: bool,
    /// What follows the sums.
    pub(crate) epilogue: Epilogue<'a>,
}

impl<R: Rhs> Product<'_, R> {
    /// Elements of scratch for an output block of this size: for A and for B.
    pub(crate) fn scratch_len(
        &self,
        (height, width): (usize, usize),
        rows: usize,
        cols: usize,
    ) -> (usize, usize) {
        let depth = self.depth.min(DEPTH);
        let a = match self.a {
            Lhs::Strided(_) => depth * rows.min(ROWS).next_multiple_of(height),
            // The last panel of a matrix with contiguous columns is copied.
            Lhs::InPlace(a) if a.col_stride != 1 => depth * height,
            Lhs::Packed(_) | Lhs::InPlace(_) => 0,
        };
        // A remainder of columns may need scratch where whole blocks do not.
        let b = self.b.scratch_len(width, depth, cols.min(COLUMNS));
        (a, b.max(self.b.scratch_len(width, depth, cols % COLUMNS)))
    }
}

/// Computes one block of the output on the calling thread.
pub(crate) struct BlockKernel<'p, 'a, 'c, R> {
    /// What to compute.
    pub(crate) product: &'p Product<'a, R>,
    /// Where to put it; starts at a multiple of the tile in both directions.
    pub(crate) block: OutputBlock<'c>,
    /// See [`Product::scratch_len`].
    pub(crate) a_scratch: &'p mut [f32],
    /// See [`Product::scratch_len`].
    pub(crate) b_scratch: &'p mut [f32],
}

impl<R: Rhs> Kernel for BlockKernel<'_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.with_tile(self);
    }
}

impl<R: Rhs> TileKernel for BlockKernel<'_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const TILE_ROWS: usize, const TILE_VECTORS: usize>(self, isa: I) {
        let BlockKernel {
            product,
            mut block,
            a_scratch,
            b_scratch,
        } = self;
        let width = TILE_VECTORS * I::LANES;
        let (first_row, first_col) = (block.row, block.col);
        let (rows, cols) = (block.rows, block.cols);
        for col in (0..cols).step_by(COLUMNS) {
            let block_cols = COLUMNS.min(cols - col);
            let mut start = 0;
            loop {
                let depth = start..product.depth.min(start + DEPTH);
                let is_last = depth.end == product.depth;
                let b_cols = first_col + col..first_col + col + block_cols;
                let panels = product
                    .b
                    .panels(isa, width, depth.clone(), b_cols, b_scratch);
                for row in (0..rows).step_by(ROWS) {
                    limits::end_if_stopped();
                    let block_rows = ROWS.min(rows - row);
                    let a_rows = first_row + row..first_row + row + block_rows;
                    let a = RowPanels::new(product.a, TILE_ROWS, a_rows, depth.clone(), a_scratch);
                    for (panel, tile_col) in (0..block_cols).step_by(width).enumerate() {
                        let (b, b_stride) = match panels.last {
                            Some((index, data)) if index == panel => (data, width),
                            _ => (
                                &panels.data[panel * panels.panel_stride..],
                                panels.row_stride,
                            ),
                        };
                        for tile_row in (0..block_rows).step_by(TILE_ROWS) {
                            let tile = Tile {
                                depth: depth.len(),
                                a: a.tile(tile_row),
                                b,
                                b_stride,
                                row: row + tile_row,
                                col: col + tile_col,
                                rows: TILE_ROWS.min(block_rows - tile_row),
                                cols: width.min(block_cols - tile_col),
                                from_c: product.accumulate || start > 0,
                                epilogue: is_last.then_some(&product.epilogue),
                            };
                            tile.compute::<I, TILE_ROWS, TILE_VECTORS>(isa, &mut block);
                        }
                    }
                }
                if is_last {
                    break;
                }
                start = depth.end;
            }
        }
    }
}

/// A block of A as the micro-kernel reads it.
struct RowPanels<'s> {
    data: TileRows<'s>,
    /// Distance of the rows of two tiles, divided by their number of rows.
    per_row: usize,
    /// The last tile where it is kept apart: its first row, and its panel.
    last: Option<(usize, &'s [f32])>,
    height: usize,
}

impl<'s> RowPanels<'s> {
    #[inline(always)]
    fn new(
        a: Lhs<'s>,
        height: usize,
        rows: Range<usize>,
        depth: Range<usize>,
        scratch: &'s mut [f32],
    ) -> Self {
        match a {
            Lhs::Packed(a) => {
                let start = rows.start * a.k + depth.start * height;
                let data = &a.data[start.min(a.data.len())..];
                let data = TileRows::Interleaved {
                    data,
                    stride: height,
                };
                RowPanels {
                    data,
                    per_row: a.k,
                    last: None,
                    height,
                }
            }
            Lhs::Strided(a) => {
                pack_a_block(a, height, rows, depth.clone(), scratch);
                let data = TileRows::Interleaved {
                    data: scratch,
                    stride: height,
                };
                RowPanels {
                    data,
                    per_row: depth.len(),
                    last: None,
                    height,
                }
            }
            Lhs::InPlace(a) => {
                let start = rows.start * a.row_stride + depth.start * a.col_stride;
                let data = &a.data[start.min(a.data.len())..];
                if a.col_stride == 1 {
                    let data = TileRows::Rows {
                        data,
                        stride: a.row_stride,
                    };
                    return RowPanels {
                        data,
                        per_row: a.row_stride,
                        last: None,
                        height,
                    };
                }
                let whole = rows.len() / height * height;
                let mut last = None;
                if whole < rows.len() {
                    pack_a_block(a, height, rows.start + whole..rows.end, depth, scratch);
                    last = Some((whole, &*scratch));
                }
                let data = TileRows::Interleaved {
                    data,
                    stride: a.col_stride,
                };
                RowPanels {
                    data,
                    per_row: 1,
                    last,
                    height,
                }
            }
        }
    }

    /// The rows from `row` on.
    #[inline(always)]
    fn tile(&self, row: usize) -> TileRows<'s> {
        if let Some((first, data)) = self.last
            && first == row
        {
            return TileRows::Interleaved {
                data,
                stride: self.height,
            };
        }
        match self.data {
            TileRows::Interleaved { data, stride } => TileRows::Interleaved {
                data: &data[row * self.per_row..],
                stride,
            },
            TileRows::Rows { data, stride } => TileRows::Rows {
                data: &data[row * self.per_row..],
                stride,
            },
        }
    }
}
