//! Rows of a table, one after the other: what an embedding looks up.

use super::offload;

/// Tables from this size on are read by the host, where there is one: it has the weights of all
/// guests once, and each guest would have its own view of the pages that it reads.
const LARGE_BYTES: usize = 1 << 20;

/// Copies rows of `table`, of `row_bytes` each, to `output`.
///
/// # Panics
/// When a row is not in the table, or `output` has not as many bytes as the rows.
pub fn copy_rows(output: &mut [u8], table: &[u8], row_bytes: usize, rows: &[u32]) {
    assert_eq!(
        Some(output.len()),
        row_bytes.checked_mul(rows.len()),
        "bytes of rows"
    );
    if table.len() >= LARGE_BYTES
        && let Some(host) = offload::host()
    {
        return offload::Call::copy_rows(output, table, row_bytes, rows).send(host);
    }
    if row_bytes == 0 {
        return;
    }
    for (to, &row) in output.chunks_exact_mut(row_bytes).zip(rows) {
        let start = row as usize * row_bytes;
        to.copy_from_slice(&table[start..start + row_bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_asked_for() {
        let table: Vec<u8> = (0..12).collect();
        let mut output = [0; 9];
        copy_rows(&mut output, &table, 3, &[3, 0, 3]);
        assert_eq!(output, [9, 10, 11, 0, 1, 2, 9, 10, 11]);
        copy_rows(&mut [], &table, 0, &[7]);
    }

    #[test]
    #[should_panic(expected = "bytes of rows")]
    fn an_output_of_another_size_is_refused() {
        copy_rows(&mut [0; 4], &[0; 12], 3, &[1]);
    }
}
