//! Files as memory.
#![expect(unsafe_code, reason = "a mapped file changes when the file does")]

use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::io;

/// Maps a whole file of Lethe's own cache for reading. No other: under a mapping a file that somebody cuts
/// short ends the process.
///
/// # Errors
/// When it cannot be mapped.
pub(crate) fn read_only(file: &File) -> io::Result<Bytes> {
    // SAFETY: the map is only read, and only as bytes, for which every bit pattern is valid.
    // Files of the cache are replaced and never changed, in a folder of the user's own.
    let map = unsafe { Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}
