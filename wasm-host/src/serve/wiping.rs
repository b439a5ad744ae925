//! A connection whose idle buffers hold nothing.
//!
//! HTTP libraries keep a connection's read buffer, and what the last request wrote there, for the
//! next one. While they wait for bytes they lend this buffer to the connection; then it is zeroed.
//!
//! And a client that takes nothing of its answer for a while is let go: it would hold the answer's
//! memory and a place for as long as it likes.
//!
//! What it gives is counted for who asks for that ([`Inflow`]).
//!
//! What is no HTTP at all the library refuses by itself, with a status and nothing else. As long as no
//! request of the connection was understood, such an answer gets its problem here; later it cannot be
//! told from an answer's body for certain.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lethe_server::Problem;
use lethe_server::problem::PROBLEM_JSON;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::body::Inflow;

/// A connection that zeroes the memory it is lent whenever there is nothing to put into it.
pub(super) struct Wiping<S> {
    stream: S,
    /// Counts what it gives, where that is asked for.
    inflow: Arc<Inflow>,
    /// How long a client may take nothing.
    longest_stall: Duration,
    /// While it takes nothing: when that is too long.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether a request of it was understood.
    understood: Arc<AtomicBool>,
    /// What is written instead of an answer without a body.
    explained: Option<Explained>,
}

/// An answer of the library's, with its problem.
struct Explained {
    text: Vec<u8>,
    written: usize,
    /// Bytes of the library's own.
    instead_of: usize,
}

impl Explained {
    /// The answer to a head that is not understood; `None` for any other bytes.
    fn of(head: &[u8]) -> Option<Self> {
        const NO_BODY: &str = "\r\ncontent-length: 0\r\n";
        let text = str::from_utf8(head).ok()?;
        let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let is_head = text.find("\r\n\r\n")? + 4 == text.len();
        let at = text.find(NO_BODY).filter(|_| is_head)?;
        let detail = match status {
            400 => "not HTTP as it is understood here",
            408 => "the request's head did not come in time",
            414 => "the request's target is too long",
            431 => "the request has too many headers, or too large ones",
            _ => return None,
        };
        let body = Problem::new(status, "LETHE-HTTP", detail).to_json();
        let (before, after) = (&text[..at], &text[at + NO_BODY.len()..]);
        let len = body.len();
        let head = format!(
            "{before}\r\ncontent-length: {len}\r\ncontent-type: {PROBLEM_JSON}\r\n\
             cache-control: no-store\r\n{after}"
        );
        Some(Self {
            text: [head.as_bytes(), &body].concat(),
            written: 0,
            instead_of: text.len(),
        })
    }
}

impl<S> Wiping<S> {
    pub(super) fn new(
        stream: S,
        inflow: Arc<Inflow>,
        longest_stall: Duration,
        understood: Arc<AtomicBool>,
    ) -> Self {
        Self {
            stream,
            inflow,
            longest_stall,
            stalled: None,
            understood,
            explained: None,
        }
    }

    /// What became of a write, or an error where it waits for too long.
    fn bounded(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let longest = self.longest_stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(longest)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> Wiping<S> {
    /// Writes what explains an answer; `None` where these bytes are none that needs it.
    fn explain(
        &mut self,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        if self.understood.load(Ordering::Relaxed) {
            return None;
        }
        let mut explained = self.explained.take().or_else(|| Explained::of(from))?;
        loop {
            let rest = &explained.text[explained.written..];
            if rest.is_empty() {
                return Some(Poll::Ready(Ok(explained.instead_of)));
            }
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(len)) if len > 0 => explained.written += len,
                Poll::Pending => {
                    self.explained = Some(explained);
                    return Some(Poll::Pending);
                }
                failed => return Some(failed),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wiping<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, to);
        if read.is_pending() {
            to.initialize_unfilled().fill(0);
        }
        ready!(read)?;
        Poll::Ready(self.inflow.add(to.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wiping<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match self.explain(context, from) {
            Some(written) => written,
            None => Pin::new(&mut self.stream).poll_write(context, from),
        };
        self.bounded(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = from.iter().filter(|piece| !piece.is_empty());
        let only = filled.next().filter(|_| filled.next().is_none());
        let written = match only.and_then(|only| self.explain(context, only)) {
            Some(written) => written,
            None => Pin::new(&mut self.stream).poll_write_vectored(context, from),
        };
        self.bounded(context, written)
    }
}
