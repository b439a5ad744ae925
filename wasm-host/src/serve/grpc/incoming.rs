//! What clients send over gRPC: counted message by message as it comes, and given up where it comes
//! too slowly.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use lethe_server::Problem;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::status;
use crate::serve::body::{Part, Room};

/// What precedes each message: whether it is compressed, and its length, big end first. Source: gRPC
/// over HTTP2, "Length-Prefixed-Message".
const PREFIX_BYTES: usize = 5;

/// Parts of the room for all bodies, of the messages that are complete and not yet taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts(Arc<Mutex<VecDeque<Part>>>);

impl Parts {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of the next message.
    pub(super) fn next(&self) -> Option<Part> {
        self.lock().pop_front()
    }
}

/// A request's body, whose messages take their part of the room for all bodies.
pub(super) struct Incoming {
    body: Body,
    room: Room,
    complete: Parts,
    unfinished: Option<Unfinished>,
    pace: Pace,
    /// How long may still be waited, and the wait. While nobody reads, no time passes.
    left: Duration,
    wait: Option<Pin<Box<Sleep>>>,
}

/// What must have come after how long.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// The whole body.
    Whole(Duration),
    /// Each message of a stream, from its first byte on; between them it may rest.
    Each(Duration),
}

/// A message of which some bytes have come.
struct Unfinished {
    part: Part,
    prefix: Vec<u8>,
    /// Bytes that are to come, where the prefix is complete.
    rest: usize,
}

impl Incoming {
    pub(super) fn new(body: Body, room: Room, complete: Parts, pace: Pace) -> Self {
        let (Pace::Whole(left) | Pace::Each(left)) = pace;
        Self {
            body,
            room,
            complete,
            unfinished: None,
            pace,
            left,
            wait: None,
        }
    }

    /// Counts bytes that have come. Lengths that a prefix announces are not believed.
    fn count(&mut self, mut data: &[u8]) -> Result<(), Problem> {
        while !data.is_empty() {
            let message = match &mut self.unfinished {
                Some(message) => message,
                None => {
                    if let Pace::Each(longest) = self.pace {
                        self.left = longest;
                    }
                    self.unfinished.insert(Unfinished {
                        part: self.room.take(0)?,
                        prefix: Vec::with_capacity(PREFIX_BYTES),
                        rest: 0,
                    })
                }
            };
            let missing = (PREFIX_BYTES - message.prefix.len()).min(data.len());
            let (prefix, rest) = data.split_at(missing);
            message.prefix.extend_from_slice(prefix);
            data = rest;
            if missing > 0
                && let Ok([_, length @ ..]) = <[u8; PREFIX_BYTES]>::try_from(&message.prefix[..])
            {
                message.rest = u32::from_be_bytes(length) as usize;
            }
            let len = message.rest.min(data.len());
            message.rest -= len;
            data = &data[len..];
            message.part.grow(missing + len)?;
            if message.prefix.len() == PREFIX_BYTES && message.rest == 0 {
                let complete = self.unfinished.take();
                self.complete
                    .lock()
                    .extend(complete.map(|message| message.part));
            }
        }
        Ok(())
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let longest = match self.pace {
                Pace::Each(_) if self.unfinished.is_none() => return Poll::Pending,
                Pace::Each(longest) | Pace::Whole(longest) => longest,
            };
            let left = self.left;
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(left)));
            ready!(wait.as_mut().poll(context));
            let detail = format!("a message did not come within {longest:?}");
            let late = Problem::new(504, "LETHE-DEADLINE", detail);
            return Poll::Ready(Some(Err(status(late))));
        };
        if let Some(wait) = self.wait.take() {
            self.left = wait.deadline().saturating_duration_since(Instant::now());
        }
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => return Poll::Ready(None),
        };
        let counted = frame.data_ref().map_or(Ok(()), |data| self.count(data));
        Poll::Ready(Some(counted.map(|()| frame).map_err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;
    use tonic::Code;

    /// A body of these frames, after which nothing comes.
    fn incoming(frames: Vec<Vec<u8>>, room: &Room, pace: Pace) -> (Incoming, Parts) {
        let frames = stream::iter(frames.into_iter().map(Ok::<_, std::io::Error>));
        let body = Body::from_stream(frames.chain(stream::pending()));
        let parts = Parts::default();
        (
            Incoming::new(body, room.clone(), parts.clone(), pace),
            parts,
        )
    }

    const PACE: Duration = Duration::from_secs(7);

    fn message(len: u32) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(len.to_be_bytes());
        message.resize(PREFIX_BYTES + len as usize, 7);
        message
    }

    #[tokio::test]
    async fn each_message_has_its_part_however_it_is_cut() {
        let messages = [message(100), message(0), message(300)].concat();
        for piece in [1, 3, 6, 104, 105, 111, messages.len()] {
            let room = Room::new(500);
            let frames: Vec<_> = messages.chunks(piece).map(<[u8]>::to_vec).collect();
            let (mut body, parts) = incoming(frames.clone(), &room, Pace::Each(PACE));
            for _ in &frames {
                body.frame().await.expect("a frame").expect("room");
            }
            let mut free = 500 - messages.len();
            for len in [105, 5, 305] {
                assert!(room.take(free + 1).is_err(), "{piece}: {len}");
                assert!(parts.next().is_some(), "{piece}: {len}");
                free += len;
                assert!(room.take(free).is_ok(), "{piece}: {len}");
            }
            assert!(parts.next().is_none() && free == 500, "{piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_and_what_comes_too_slowly_is_refused() {
        let room = Room::new(200);
        let (mut body, _) = incoming(vec![message(100), message(100)], &room, Pace::Each(PACE));
        body.frame().await.expect("a frame").expect("room");
        let refused = body.frame().await.expect("a frame").expect_err("no room");
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("LETHE-BODIES"), "{refused}");
        drop(body);

        let half = message(100)[..50].to_vec();
        let cases = [
            ("half a message", Pace::Each(PACE), vec![message(10), half]),
            ("nothing", Pace::Whole(PACE), vec![]),
            ("a message and no end", Pace::Whole(PACE), vec![message(10)]),
        ];
        for (case, pace, frames) in cases {
            let len = frames.len();
            let (mut body, _) = incoming(frames, &room, pace);
            for _ in 0..len {
                body.frame().await.expect("a frame").expect("room");
            }
            let begun = Instant::now();
            let late = body.frame().await.expect("a frame").expect_err(case);
            assert_eq!(late.code(), Code::DeadlineExceeded, "{case}");
            assert_eq!(begun.elapsed().as_secs(), PACE.as_secs(), "{case}");
        }
        assert!(room.take(200).is_ok());
        // Between the messages of a stream there may be any time.
        let (mut body, _) = incoming(vec![message(10)], &room, Pace::Each(PACE));
        body.frame().await.expect("a frame").expect("room");
        let rest = tokio::time::timeout(100 * PACE, body.frame());
        assert!(rest.await.is_err());
    }
}
