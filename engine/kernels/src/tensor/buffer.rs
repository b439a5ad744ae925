//! Owned, aligned memory, and bytes that several values share.

use bytemuck::{Pod, Zeroable};
use bytes::Bytes;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::limits::{self, Charge, Shortage};

/// A cache line: the alignment that the widest vectors want.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zero-initialised bytes, aligned to 64. They count as memory of the run that they were made in.
#[derive(Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
    charge: Charge,
}

impl Buffer {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn try_zeroed(len: usize) -> Result<Self, Shortage> {
        let lines = len.div_ceil(64);
        let charge = limits::charge(lines.saturating_mul(64))?;
        Ok(Self {
            lines: limits::try_zeroed(lines)?,
            len,
            charge,
        })
    }

    /// `len` zero bytes; without memory for them the run [ends](crate::limits::until_ended).
    pub fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|shortage| shortage.raise())
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// Makes the buffer `len` bytes long, keeping its memory where it is large enough; what the
    /// bytes are afterwards is unspecified (old content or zero). It counts as this run's then,
    /// whosever it was.
    ///
    /// # Errors
    /// When there is no memory for it; the buffer is empty then, or what it was.
    pub fn resize_for_overwrite(&mut self, len: usize) -> Result<(), Shortage> {
        if len.div_ceil(64) > self.lines.len() {
            // Not both at the same time.
            *self = Self::default();
            *self = Self::try_zeroed(len)?;
        } else if self.charge.is_foreign() {
            self.charge = limits::charge(self.capacity())?;
        }
        self.len = len;
        Ok(())
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

impl From<SharedBytes> for Bytes {
    fn from(bytes: SharedBytes) -> Self {
        match bytes {
            SharedBytes::Borrowed(bytes) => bytes,
            owned @ SharedBytes::Owned(_) => Self::from_owner(owned),
        }
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
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
        buffer.resize_for_overwrite(64).expect("memory");
        assert_eq!(buffer.as_ptr(), before);
        buffer.resize_for_overwrite(65).expect("memory");
        assert_eq!((buffer.len(), buffer.capacity()), (65, 128));
    }
}
