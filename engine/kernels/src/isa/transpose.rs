//! Transposing square blocks of vectors.

use super::Isa;

/// Transposes the block whose rows are the first [`Isa::LANES`] vectors; the others stay.
///
/// Seen as one sequence, element `(i, j)` is at position `i · LANES + j`. Separating the elements
/// with even and odd position moves the lowest bit of the position to the top; after as many
/// times as `j` has bits, `j` and `i` have changed places.
#[inline(always)]
pub fn transpose<I: Isa>(isa: I, rows: [I::F32; 16]) -> [I::F32; 16] {
    let mut rows = rows;
    for _ in 0..I::LANES.ilog2() {
        let mut separated = rows;
        for i in 0..I::LANES / 2 {
            let (even, odd) = isa.deinterleave(rows[2 * i], rows[2 * i + 1]);
            separated[i] = even;
            separated[i + I::LANES / 2] = odd;
        }
        rows = separated;
    }
    rows
}
