//! The content of a file that may be large.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use lethe_engine::tensor::{Buffer, SharedBytes};
use sha2::{Digest, Sha256};

use super::outline;
use crate::hex;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The bytes of a model's file: in the file, until somebody wants them, or in memory.
///
/// A file is read and never mapped: one that is cut short under a mapping ends the process. Each reading
/// ends with a look whether the file is still the one that was opened.
#[derive(Clone)]
pub struct Content(Place);

#[derive(Clone)]
enum Place {
    File(Arc<Opened>),
    Memory(Bytes),
}

struct Opened {
    file: File,
    len: u64,
    modified: Option<SystemTime>,
    /// When nobody waits for its bytes any more.
    until: Option<Instant>,
}

impl Content {
    /// The content of a file as it is now, which is read until then.
    ///
    /// # Errors
    /// When the system does not say how long it is.
    pub(super) fn of(file: File, until: Option<Instant>) -> io::Result<Self> {
        let about = file.metadata()?;
        Ok(Self(Place::File(Arc::new(Opened {
            len: about.len(),
            modified: about.modified().ok(),
            until,
            file,
        }))))
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Place::File(opened) => opened.len,
            Place::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it in memory.
    ///
    /// # Errors
    /// When it cannot be read, has changed, or there is no memory for it; [`ErrorKind::TimedOut`] where
    /// the time for reading it is over.
    pub fn bytes(&self) -> io::Result<Bytes> {
        match &self.0 {
            Place::Memory(bytes) => Ok(bytes.clone()),
            Place::File(opened) => {
                let len = usize::try_from(opened.len).map_err(|_| ErrorKind::OutOfMemory)?;
                let mut bytes = Vec::new();
                bytes
                    .try_reserve_exact(len)
                    .map_err(|_| ErrorKind::OutOfMemory)?;
                bytes.resize(len, 0);
                opened.read(0, &mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// A piece in memory that counts as the run's; it must be within the content.
    ///
    /// # Errors
    /// As [`Content::bytes`].
    pub(super) fn piece(&self, offset: u64, len: u64) -> io::Result<SharedBytes> {
        let len = usize::try_from(len).map_err(|_| ErrorKind::OutOfMemory)?;
        match &self.0 {
            Place::Memory(bytes) => {
                let piece = usize::try_from(offset)
                    .ok()
                    .and_then(|at| bytes.get(at..)?.get(..len));
                let piece = piece.ok_or(ErrorKind::UnexpectedEof)?;
                Ok(bytes.slice_ref(piece).into())
            }
            Place::File(opened) => {
                let mut buffer = Buffer::try_zeroed(len).map_err(io::Error::other)?;
                opened.read(offset, &mut buffer)?;
                Ok(buffer.into())
            }
        }
    }

    /// The model in it, with references in the place of long weights where they are in a file.
    ///
    /// # Errors
    /// As [`Content::bytes`], and [`ErrorKind::InvalidData`] where a file is not written as models are.
    pub fn outline(&self) -> io::Result<Bytes> {
        let Place::File(opened) = &self.0 else {
            return self.bytes();
        };
        let outline = outline::read(&opened.file, opened.len);
        opened.check()?;
        Ok(outline?.into())
    }

    /// Its SHA-256, in hexadecimal digits.
    ///
    /// # Errors
    /// When it cannot be read or has changed.
    pub fn sha256(&self) -> io::Result<String> {
        let mut hash = Sha256::new();
        self.for_each_chunk(&mut |chunk| hash.update(chunk))?;
        Ok(hex::encode(hash.finalize()))
    }

    /// Visits all bytes in order, some at a time.
    ///
    /// # Errors
    /// When they cannot be read or have changed; some were visited then.
    pub fn for_each_chunk(&self, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let opened = match &self.0 {
            Place::Memory(bytes) => {
                visit(bytes);
                return Ok(());
            }
            Place::File(opened) => opened,
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < opened.len {
            let some = usize::try_from(opened.len - at).map_or(CHUNK_BYTES, |n| n.min(CHUNK_BYTES));
            opened.in_time()?;
            opened.file.read_exact_at(&mut chunk[..some], at)?;
            visit(&chunk[..some]);
            at += some as u64;
        }
        opened.check()
    }
}

impl Opened {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        for chunk in into.chunks_mut(CHUNK_BYTES) {
            self.in_time()?;
            self.file.read_exact_at(chunk, at)?;
            at += chunk.len() as u64;
        }
        self.check()
    }

    /// [`ErrorKind::TimedOut`] where nobody waits any more: a large file takes its time.
    fn in_time(&self) -> io::Result<()> {
        match self.until {
            Some(until) if Instant::now() >= until => Err(io::Error::new(
                ErrorKind::TimedOut,
                "the time to read it is over",
            )),
            _ => Ok(()),
        }
    }

    /// Whether the file is still what it was when it was opened. One that is replaced by another of its
    /// name is; one that is written to is not.
    fn check(&self) -> io::Result<()> {
        let about: Metadata = self.file.metadata()?;
        match about.len() == self.len && about.modified().ok() == self.modified {
            true => Ok(()),
            false => Err(io::Error::other("it was changed while it was read")),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self(Place::Memory(bytes.into()))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_visited_in_order_and_a_change_is_found() {
        let path = std::env::temp_dir().join(format!("lethe-content-{}", std::process::id()));
        for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 7] {
            let expected: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &expected).unwrap();
            let opened = Content::of(File::open(&path).unwrap(), None).unwrap();
            for content in [&opened, &Content::from(expected.clone())] {
                let mut found = Vec::new();
                content
                    .for_each_chunk(&mut |chunk| found.extend_from_slice(chunk))
                    .unwrap();
                assert!(found == expected, "{len} bytes");
                assert!(content.bytes().unwrap() == expected, "{len} bytes");
            }
            let hash = opened.sha256().unwrap();
            std::fs::write(path.with_extension("new"), "another").unwrap();
            std::fs::rename(path.with_extension("new"), &path).unwrap();
            assert_eq!(opened.sha256().unwrap(), hash, "the one that was opened");
            let opened = Content::of(File::open(&path).unwrap(), None).unwrap();
            for changed in ["short", "longer than before", ""] {
                std::fs::write(&path, changed).unwrap();
                assert!(opened.bytes().is_err(), "{changed:?}");
                assert!(opened.piece(0, 1).is_err(), "{changed:?}");
                assert!(opened.outline().is_err(), "{changed:?}");
                assert!(opened.sha256().is_err(), "{changed:?}");
            }
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn nothing_is_read_when_the_time_is_over() {
        let path = std::env::temp_dir().join(format!("lethe-late-{}", std::process::id()));
        std::fs::write(&path, "content").unwrap();
        let late = Content::of(File::open(&path).unwrap(), Some(Instant::now())).unwrap();
        let errors = [
            late.sha256().map(drop),
            late.bytes().map(drop),
            late.piece(0, 1).map(drop),
        ];
        for error in errors {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
        }
        std::fs::remove_file(path).unwrap();
    }
}
