//! The content of a file that may be large.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::mapping;
use crate::hex;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The bytes of a model's file: mapped, where they are a file's, or in memory.
#[derive(Clone)]
pub struct Content {
    bytes: Bytes,
    file: Option<Arc<File>>,
}

impl Content {
    /// Maps a whole file.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(super) fn map(file: File) -> io::Result<Self> {
        Ok(Self {
            bytes: mapping::read_only(&file)?,
            file: Some(Arc::new(file)),
        })
    }

    /// All of it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its SHA-256, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.for_each_chunk(&mut |chunk| hash.update(chunk));
        hex::encode(hash.finalize())
    }

    /// Visits all bytes in order, some at a time. A file's are read, not looked at in the mapping:
    /// the pages that one looks at count as this process's memory for as long as the mapping lives.
    pub fn for_each_chunk(&self, visit: &mut dyn FnMut(&[u8])) {
        let mut at = 0;
        if let Some(file) = &self.file {
            let mut chunk = vec![0; CHUNK_BYTES.min(self.bytes.len())];
            while at < self.bytes.len() {
                let wanted = CHUNK_BYTES.min(self.bytes.len() - at);
                // What cannot be read is looked at.
                if file.read_exact_at(&mut chunk[..wanted], at as u64).is_err() {
                    break;
                }
                visit(&chunk[..wanted]);
                at += wanted;
            }
        }
        if at < self.bytes.len() {
            visit(&self.bytes[at..]);
        }
    }
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self {
            bytes: bytes.into(),
            file: None,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_visited_whether_they_can_be_read_or_not() {
        let path = std::env::temp_dir().join(format!("lethe-content-{}", std::process::id()));
        for len in [1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 7] {
            let expected: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &expected).unwrap();
            let mapped = Content::map(File::open(&path).unwrap()).unwrap();
            let unreadable = Content {
                file: Some(Arc::new(
                    File::create(path.with_extension("other")).unwrap(),
                )),
                ..mapped.clone()
            };
            for content in [mapped, unreadable, Content::from(expected.clone())] {
                let mut found = Vec::new();
                content.for_each_chunk(&mut |chunk| found.extend_from_slice(chunk));
                assert!(found == expected, "{len} bytes");
            }
        }
        std::fs::remove_file(path.with_extension("other")).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
