//! Owned, aligned memory, and bytes that several values share.

use bytemuck::{Pod, Zeroable};
use bytes::Bytes;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A cache line: the alignment that the widest vectors want.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zero-initialised bytes, aligned to 64.
#[derive(Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self {
            lines: bytemuck::allocation::zeroed_vec(len.div_ceil(64)),
            len,
        }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// Makes the buffer `len` bytes long, keeping its memory where it is large enough; what the
    /// bytes are afterwards is unspecified (old content or zero).
    pub fn resize_for_overwrite(&mut self, len: usize) {
        let lines = len.div_ceil(64);
        if lines > self.lines.len() {
            self.lines = bytemuck::allocation::zeroed_vec(lines);
        }
        self.len = len;
    }

    /// Bytes that the memory could hold without growing.
    pub fn capacity(&self) -> usize {
        self.lines.len() * 64
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl std::fmt::Debug for Buffer {
    /// The length only: contents may be somebody's data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

/// Immutable shared bytes: a piece of a mapped file or memory of our own.
#[derive(Clone)]
pub enum SharedBytes {
    /// A slice of memory that something else manages, such as a mapped file.
    Borrowed(Bytes),
    /// Our own aligned memory.
    Owned(Arc<Buffer>),
}

impl Deref for SharedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(buffer) => buffer,
        }
    }
}

impl From<Bytes> for SharedBytes {
    fn from(bytes: Bytes) -> Self {
        Self::Borrowed(bytes)
    }
}

impl From<Buffer> for SharedBytes {
    fn from(buffer: Buffer) -> Self {
        Self::Owned(Arc::new(buffer))
    }
}

impl From<Vec<u8>> for SharedBytes {
    /// Copies: a `Vec<u8>` promises no alignment.
    fn from(bytes: Vec<u8>) -> Self {
        Buffer::copy_of(&bytes).into()
    }
}

impl std::fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Borrowed(_) => "borrowed",
            Self::Owned(_) => "owned",
        };
        write!(f, "{} bytes, {kind}", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_keep_their_memory() {
        let mut buffer = Buffer::copy_of(&[1, 2, 3]);
        assert_eq!(&buffer[..], &[1, 2, 3]);
        assert_eq!(buffer.as_ptr().addr() % 64, 0);
        let before = buffer.as_ptr();
        buffer.resize_for_overwrite(64);
        assert_eq!(buffer.as_ptr(), before);
        buffer.resize_for_overwrite(65);
        assert_eq!((buffer.len(), buffer.capacity()), (65, 128));
    }
}
