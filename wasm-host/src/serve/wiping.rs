//! A connection whose idle buffers hold nothing.
//!
//! HTTP libraries keep a connection's read buffer, and what the last request wrote there, for the
//! next one. While they wait for bytes they lend this buffer to the connection; then it is zeroed.
//!
//! And a client that takes nothing of its answer for a while is let go: it would hold the answer's
//! memory and a place for as long as it likes.
//!
//! What it gives is counted for who asks for that ([`Inflow`]).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
}

impl<S> Wiping<S> {
    pub(super) fn new(stream: S, inflow: Arc<Inflow>, longest_stall: Duration) -> Self {
        Self {
            stream,
            inflow,
            longest_stall,
            stalled: None,
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
        let written = Pin::new(&mut self.stream).poll_write(context, from);
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, from);
        self.bounded(context, written)
    }
}
