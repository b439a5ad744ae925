//! The thread that writes a log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::resume::first_seq_of;
use super::{AuditSettings, Message, Shared};
use crate::audit::chain::{FORMATS, SEQ_DIGITS};
use crate::audit::line::{Content, Head, Reason, append};
use crate::signing::SigningKey;
use crate::{private_file, timestamp};
use lethe_sandbox::hex;

/// Where lines go: a file, or in tests a disk that is full.
pub(super) trait Disk: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Disk for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

pub(super) type OpenDisk = Box<dyn FnMut(&Path) -> io::Result<Box<dyn Disk>> + Send>;

pub(super) fn open_file(path: &Path) -> io::Result<Box<dyn Disk>> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    private_file::sync_folder(path)?;
    Ok(Box::new(file))
}

/// Lines that are to be written together.
#[derive(Default)]
pub(super) struct Batch {
    text: String,
    lines: u64,
    entries: u64,
    written: Vec<oneshot::Sender<()>>,
    rooms: Vec<OwnedSemaphorePermit>,
    checkpoint: Option<(u64, String)>,
}

/// Bytes of a batch after which it is written, although more is queued.
const BATCH_BYTES: usize = 256 << 10;
/// Between attempts to write to a disk that takes nothing.
const RETRY: Duration = Duration::from_millis(250);

pub(super) struct Writer {
    pub(super) settings: AuditSettings,
    pub(super) key: SigningKey,
    pub(super) open: OpenDisk,
    pub(super) disk: Box<dyn Disk>,
    /// Bytes of the file that are certainly on the disk.
    pub(super) len: u64,
    /// Whether there is more in the file, of an attempt that failed.
    pub(super) is_torn: bool,
    /// After the batch.
    pub(super) head: Head,
    pub(super) lines_since: u64,
    pub(super) checkpoint_at: Option<Instant>,
    pub(super) batch: Batch,
    pub(super) shared: Arc<Shared>,
    /// Held as long as the file is written.
    pub(super) _lock: File,
}

impl Writer {
    /// Writes what comes until the end, and returns how many entries could not be written.
    pub(super) fn run(mut self, messages: &Receiver<Message>) -> Result<(), u64> {
        loop {
            let patience = match (self.batch.text.is_empty(), self.checkpoint_at) {
                (false, _) => RETRY,
                (true, Some(at)) => at.saturating_duration_since(Instant::now()),
                (true, None) => Duration::from_secs(3600),
            };
            match messages.recv_timeout(patience) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                // All that was queued has been taken.
                Err(RecvTimeoutError::Disconnected) => return self.close(),
            }
            while self.batch.text.len() < BATCH_BYTES {
                match messages.try_recv() {
                    Ok(message) => self.take(message),
                    Err(_) => break,
                }
            }
            if self.is_checkpoint_due() {
                self.checkpoint(Reason::Periodic);
            }
            self.try_flush();
        }
    }

    /// Adds a message to the batch.
    fn take(&mut self, message: Message) {
        self.add(message.time, message.content);
        self.batch.entries += 1;
        self.batch.rooms.extend(message.room);
        self.batch.written.extend(message.written);
        if self.lines_since >= self.settings.checkpoint_lines {
            self.checkpoint(Reason::Periodic);
        }
    }

    pub(super) fn opened(&self) -> Content {
        Content::Open {
            format: FORMATS[FORMATS.len() - 1],
            lethe: env!("CARGO_PKG_VERSION").into(),
            public_key: self.key.public_key(),
        }
    }

    pub(super) fn add(&mut self, time: String, content: Content) {
        self.head = append(&mut self.batch.text, self.head, time, content, &self.key);
        self.batch.lines += 1;
        self.lines_since += 1;
        let patience = Duration::from_secs(self.settings.checkpoint_seconds.max(1));
        self.checkpoint_at
            .get_or_insert_with(|| Instant::now() + patience);
    }

    fn is_checkpoint_due(&self) -> bool {
        self.checkpoint_at.is_some_and(|at| at <= Instant::now())
    }

    pub(super) fn checkpoint(&mut self, reason: Reason) {
        self.add(timestamp::now(), Content::Checkpoint { reason });
        self.batch.checkpoint = Some((self.head.seq, hex::encode(self.head.hash)));
        self.lines_since = 0;
        self.checkpoint_at = None;
    }

    fn try_flush(&mut self) {
        let result = self.flush().and_then(|()| self.rotate_if_large());
        let trouble = result.err().map(|error| error.to_string());
        if let Some(trouble) = &trouble
            && self.shared.trouble().is_none()
        {
            tracing::error!(
                "audit log {}: cannot write: {trouble}",
                self.settings.file.display()
            );
        }
        self.shared.set_trouble(trouble);
    }

    /// Writes the batch; all of it, or the file is as it was.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.batch.text.is_empty() {
            return Ok(());
        }
        // Half a batch must not stay in front of the next attempt.
        if self.is_torn {
            self.disk.cut(self.len)?;
            self.is_torn = false;
        }
        let text = self.batch.text.as_bytes();
        let written = self.disk.append(text).and_then(|()| self.disk.sync());
        if let Err(error) = written {
            self.is_torn = self.disk.cut(self.len).is_err();
            return Err(error);
        }
        self.len += text.len() as u64;
        let batch = std::mem::take(&mut self.batch);
        self.shared.lines.fetch_add(batch.lines, Ordering::Relaxed);
        if let Some(checkpoint) = batch.checkpoint {
            let shared = self.shared.checkpoint.lock();
            *shared.unwrap_or_else(PoisonError::into_inner) = Some(checkpoint);
        }
        for written in batch.written {
            // Whoever waited may be gone.
            let _ = written.send(());
        }
        Ok(())
    }

    /// Goes on in a new file where this one is large.
    fn rotate_if_large(&mut self) -> io::Result<()> {
        if self.len < self.settings.rotate_bytes.max(1) {
            return Ok(());
        }
        self.checkpoint(Reason::Rotated);
        self.flush()?;
        let path = self.settings.file.clone();
        // Not there where an attempt was made that got as far as here.
        if path.exists() {
            let first = first_seq_of(&path)?;
            let ending = format!(".{first:0SEQ_DIGITS$}");
            fs::rename(&path, private_file::beside(&path, &ending))?;
        }
        self.disk = (self.open)(&path)?;
        self.len = 0;
        let opened = self.opened();
        self.add(timestamp::now(), opened);
        self.flush()
    }

    /// Writes the last checkpoint, or says how many entries could not be written.
    fn close(mut self) -> Result<(), u64> {
        self.checkpoint(Reason::Closed);
        self.flush().map_err(|error| {
            self.shared.set_trouble(Some(error.to_string()));
            self.batch.entries
        })
    }
}
