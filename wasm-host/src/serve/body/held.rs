//! The bodies that are held at the same time, and the room that there is for all of them.
//!
//! A limit on each body is none on memory: many connections may each send the largest. What would
//! not fit is refused before it is held.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lethe_server::Problem;
use zeroize::Zeroizing;

/// Room for all bodies.
#[derive(Debug, Clone)]
pub(in crate::serve) struct Room(Arc<Places>);

#[derive(Debug)]
struct Places {
    most_bytes: u64,
    held_bytes: AtomicU64,
}

impl Room {
    pub(in crate::serve) fn new(most_bytes: u64) -> Self {
        Self(Arc::new(Places {
            most_bytes,
            held_bytes: AtomicU64::new(0),
        }))
    }

    /// An empty body with memory for so many bytes.
    ///
    /// # Errors
    /// 503 where there is no room for them.
    pub(super) fn hold(&self, capacity: usize) -> Result<Held, Problem> {
        Ok(Held {
            part: self.take(capacity)?,
            bytes: Zeroizing::new(Vec::with_capacity(capacity)),
        })
    }

    /// A part of so many bytes.
    ///
    /// # Errors
    /// 503 where they are not there.
    pub(in crate::serve) fn take(&self, len: usize) -> Result<Part, Problem> {
        let mut part = Part {
            room: self.clone(),
            len_bytes: 0,
        };
        part.grow(len)?;
        Ok(part)
    }

    fn take_bytes(&self, len_bytes: u64) -> Result<(), Problem> {
        let most_bytes = self.0.most_bytes;
        let with_it = |held: u64| held.checked_add(len_bytes).filter(|all| *all <= most_bytes);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        match self.0.held_bytes.fetch_update(set, fetch, with_it) {
            Ok(_) => Ok(()),
            Err(held_bytes) => Err(Problem {
                retry_after_s: Some(1),
                ..Problem::new(
                    503,
                    "LETHE-BODIES",
                    format!(
                        "the bodies of requests take {held_bytes} bytes, and {len_bytes} more are \
                         beyond the {most_bytes} that there are for all"
                    ),
                )
            }),
        }
    }

    fn give_back(&self, len_bytes: u64) {
        self.0.held_bytes.fetch_sub(len_bytes, Ordering::Relaxed);
    }
}

/// A part of the room, free again when dropped.
#[derive(Debug)]
pub(in crate::serve) struct Part {
    room: Room,
    len_bytes: u64,
}

impl Part {
    /// Takes more of the room.
    ///
    /// # Errors
    /// 503 where it is not there; then the part is as before.
    pub(in crate::serve) fn grow(&mut self, more: usize) -> Result<(), Problem> {
        self.room.take_bytes(more as u64)?;
        self.len_bytes += more as u64;
        Ok(())
    }

    /// These bytes, which keep the part until the last piece of them is dropped.
    pub(in crate::serve) fn keep(self, bytes: Bytes) -> Bytes {
        struct Kept {
            bytes: Bytes,
            _part: Part,
        }
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Kept { bytes, _part: self })
    }

    /// Gives so many bytes back, or all where it has no more; whether any are left.
    pub(super) fn shrink(&mut self, less: usize) -> bool {
        let less = self.len_bytes.min(less as u64);
        self.room.give_back(less);
        self.len_bytes -= less;
        self.len_bytes > 0
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.room.give_back(self.len_bytes);
    }
}

/// A body: wiped when dropped, and its room free again.
#[derive(Debug)]
pub(in crate::serve) struct Held {
    part: Part,
    bytes: Zeroizing<Vec<u8>>,
}

impl Held {
    /// Appends, wiping the old memory where the body must move.
    ///
    /// # Errors
    /// 503 where there is no room.
    pub(super) fn append(&mut self, data: &[u8]) -> Result<(), Problem> {
        let len = self.bytes.len() + data.len();
        if self.bytes.capacity() < len {
            let mut larger = self.part.room.hold(len.max(2 * self.bytes.capacity()))?;
            larger.bytes.extend_from_slice(&self.bytes);
            *self = larger;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// The same, to be shared.
    pub(in crate::serve) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_back() {
        let room = Room::new(1000);
        let held = || room.0.held_bytes.load(Ordering::Relaxed);
        let mut body = room.hold(100).unwrap();
        body.append(&[7; 100]).unwrap();
        assert_eq!((held(), &body[..]), (100, &[7; 100][..]));
        body.append(&[8; 50]).unwrap();
        assert_eq!((held(), body.len(), body[149]), (200, 150, 8));
        let other = room.hold(700).unwrap();
        // Growing needs the old memory and the new: 200 and 400 beside 700.
        let refused = body.append(&[9; 100]).unwrap_err();
        assert_eq!((refused.status, &*refused.code), (503, "LETHE-BODIES"));
        assert_eq!((held(), body.len()), (900, 150), "nothing is lost");
        drop(other);
        let shared = body.into_bytes();
        let piece = shared.slice(..10);
        drop(shared);
        assert_eq!(held(), 200, "a piece holds it");
        drop(piece);
        assert_eq!(held(), 0);
        assert!(room.hold(1001).is_err() && room.hold(1000).is_ok());
        let kept = room.take(7).unwrap().keep(Bytes::from_static(b"answers"));
        assert_eq!((held(), &kept[..]), (7, &b"answers"[..]));
        drop(kept);
        assert_eq!(held(), 0);
    }
}
