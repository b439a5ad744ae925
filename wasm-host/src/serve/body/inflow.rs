//! Bytes of messages that a connection receives into memory of its protocol's library, until a
//! message is complete: they take their part of the room for all bodies as they come.

use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lethe_server::Problem;
use tokio::time::Instant;

use super::held::{Part, Room};

/// What a connection has received of a message that is not complete. It counts nothing before it
/// is told to.
#[derive(Debug, Default)]
pub(in crate::serve) struct Inflow(OnceLock<Mutex<Unfinished>>);

#[derive(Debug)]
struct Unfinished {
    room: Room,
    part: Option<Part>,
    /// When its first byte came, or when the connection was read again after a rest.
    since: Instant,
    refused: Option<Problem>,
}

impl Inflow {
    /// Counts from now on.
    pub(in crate::serve) fn begin(&self, room: &Room) {
        self.0.get_or_init(|| {
            Mutex::new(Unfinished {
                room: room.clone(),
                part: None,
                since: Instant::now(),
                refused: None,
            })
        });
    }

    fn unfinished(&self) -> Option<MutexGuard<'_, Unfinished>> {
        let unfinished = self.0.get()?;
        Some(unfinished.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts bytes that have come.
    ///
    /// # Errors
    /// Where there is no room for them; [`Self::refusal`] says why.
    pub(in crate::serve) fn add(&self, len: usize) -> io::Result<()> {
        let Some(mut unfinished) = self.unfinished().filter(|_| len > 0) else {
            return Ok(());
        };
        let grown = match &mut unfinished.part {
            Some(part) => part.grow(len),
            None => unfinished.room.take(len).map(|part| {
                unfinished.since = Instant::now();
                unfinished.part = Some(part);
            }),
        };
        grown.map_err(|problem| {
            unfinished.refused = Some(problem);
            io::ErrorKind::OutOfMemory.into()
        })
    }

    /// The part of the message that is complete now: what was counted since the last one. It may
    /// hold the first bytes of the next one, of the same read.
    pub(in crate::serve) fn message(&self) -> Option<Part> {
        self.unfinished()?.part.take()
    }

    /// Forgets bytes that were part of no message, such as those of a ping between its pieces.
    pub(in crate::serve) fn forget(&self, len: usize) {
        if let Some(mut unfinished) = self.unfinished() {
            unfinished.part.take_if(|part| !part.shrink(len));
        }
    }

    /// For how long a message has been unfinished.
    pub(in crate::serve) fn unfinished_for(&self) -> Option<Duration> {
        let unfinished = self.unfinished()?;
        unfinished.part.as_ref().map(|_| unfinished.since.elapsed())
    }

    /// Nothing is read for now, so that the client is not to blame for what is unfinished.
    pub(in crate::serve) fn rest(&self) {
        if let Some(mut unfinished) = self.unfinished() {
            unfinished.since = Instant::now();
        }
    }

    /// Why there was no room.
    pub(in crate::serve) fn refusal(&self) -> Option<Problem> {
        self.unfinished()?.refused.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_counted_until_its_message_is_complete() {
        let room = Room::new(1000);
        let inflow = Inflow::default();
        inflow.add(5000).expect("nothing is counted yet");
        assert!(inflow.message().is_none() && inflow.unfinished_for().is_none());
        inflow.begin(&room);
        inflow.add(600).unwrap();
        tokio::time::advance(Duration::from_secs(3)).await;
        inflow.add(300).unwrap();
        assert_eq!(inflow.unfinished_for(), Some(Duration::from_secs(3)));
        inflow.rest();
        assert_eq!(inflow.unfinished_for(), Some(Duration::ZERO));
        // A ping of 100 bytes was among them.
        inflow.forget(100);
        assert!(room.take(201).is_err() && room.take(200).is_ok());
        let message = inflow.message().expect("800 bytes");
        assert!(inflow.unfinished_for().is_none());
        // The message is held while it is answered, and another does not fit beside it.
        assert!(inflow.refusal().is_none());
        assert!(inflow.add(201).is_err());
        assert_eq!(inflow.refusal().map(|p| p.status), Some(503));
        drop(message);
        inflow.add(201).unwrap();
        // Only a ping, which may be counted with the message before it.
        inflow.forget(300);
        assert!(inflow.unfinished_for().is_none() && room.take(1000).is_ok());
    }
}
