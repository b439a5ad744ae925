//! Writing the audit log.
//!
//! ```text
//! record ─► room? ─► queue ─► thread: lines ─► file, in batches ─► synchronised ─► "written"
//! ```
//!
//! Entries are written by a thread of the log's own, a batch at a time, each batch synchronised with
//! the disk. When the disk takes nothing the batch is kept and tried again, the log says that it is
//! not healthy, the queue fills, and then requests wait or fail, as the settings say. What cannot be
//! written until the end is counted in the error of [`AuditLog::close`].

mod resume;
mod settings;
mod writer;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

pub use settings::{AuditSettings, WhenFull};
pub(super) use settings::{DEFAULT_CHECKPOINT_LINES, DEFAULT_CHECKPOINT_SECONDS};

use super::chain::Broken;
use super::line::{Change, Content, Entry, Reason, Refusals};
use crate::signing::{PublicKey, SigningKey, SigningKeyError};
use crate::{private_file, timestamp};
use resume::resume;
use writer::{Batch, OpenDisk, Writer, open_file};

/// Why the log cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A file cannot be read or written.
    #[error("audit log {path}: cannot {what}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("audit log {0}: another process writes it")]
    InUse(PathBuf),
    /// What is there is not what was written.
    #[error("audit log {0}; put the log away to begin a new one")]
    Broken(Broken),
    /// What is there lacks signatures.
    #[error(
        "audit log {path}: {reason}: it may have been written without the key; put the log away to begin a new one"
    )]
    Unsigned {
        /// Which file.
        path: PathBuf,
        /// Which signature is missing.
        reason: String,
    },
    /// The key cannot be used.
    #[error("audit log: {0}")]
    Key(#[from] SigningKeyError),
    /// The queue is full.
    #[error("the audit log's queue is full")]
    Full,
    /// The disk takes nothing.
    #[error("the audit log cannot be written: {0}")]
    Unhealthy(String),
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
    /// Entries could not be written before the end.
    #[error("{entries} entries of the audit log could not be written: {reason}")]
    Lost {
        /// How many.
        entries: u64,
        /// What the system said last.
        reason: String,
    },
}

struct Message {
    time: String,
    content: Content,
    /// Given back when the line is written.
    room: Option<OwnedSemaphorePermit>,
    written: Option<oneshot::Sender<()>>,
}

/// An open log. Dropping it closes it; [`AuditLog::close`] also says whether that went well.
#[derive(Debug)]
pub struct AuditLog {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    /// None once the log is closed.
    messages: RwLock<Option<Sender<Message>>>,
    thread: Mutex<Option<JoinHandle<Result<(), u64>>>>,
    when_full: WhenFull,
    wait_for_disk: bool,
    public_key: PublicKey,
}

#[derive(Debug, Default)]
struct Shared {
    /// Why nothing can be written at the moment.
    trouble: Mutex<Option<String>>,
    lines: AtomicU64,
    checkpoint: Mutex<Option<(u64, String)>>,
}

impl Shared {
    fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

impl AuditLog {
    /// Opens a log, or begins one. A last line that has no end, as a killed process leaves it, is
    /// moved to `<file>.torn`; the chain goes on after the line before it.
    ///
    /// # Errors
    /// When the log is broken, lacks signatures or is in use, or the files cannot be read or written.
    pub fn open(settings: &AuditSettings) -> Result<Self, AuditError> {
        Self::open_on(settings, Box::new(open_file))
    }

    fn open_on(settings: &AuditSettings, mut open: OpenDisk) -> Result<Self, AuditError> {
        let path = &settings.file;
        let failed = |what| move |source| io_error(path, what, source);
        let lock_path = private_file::beside(path, ".lock");
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(&lock_path).map_err(failed("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(AuditError::InUse(path.clone())),
            Err(fs::TryLockError::Error(error)) => return Err(failed("lock")(error)),
        }
        let key = SigningKey::open_or_create(&settings.key)?;
        let public_key = key.public_key();
        let (head, len) = resume(path, public_key, settings.apart())?;
        let disk = open(path).map_err(failed("open"))?;
        let shared = Arc::new(Shared::default());
        let mut writer = Writer {
            settings: settings.clone(),
            key,
            open,
            disk,
            len,
            is_torn: false,
            head,
            lines_since: 0,
            checkpoint_at: None,
            batch: Batch::default(),
            shared: shared.clone(),
            _lock: lock,
        };
        // Written now: a disk that takes nothing is better known before the first request.
        let opened = writer.opened();
        writer.add(timestamp::now(), opened);
        // Signed at once, with what an earlier process left: a log that is read with its key has a signature
        // from its first moment on, and never more that is not signed than one process leaves.
        writer.checkpoint(Reason::Periodic);
        writer.flush().map_err(failed("write"))?;
        let (messages, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("audit".into());
        let thread = thread.spawn(move || writer.run(&receiver));
        Ok(Self {
            shared,
            room: Arc::new(Semaphore::new(settings.queue.max(1))),
            messages: RwLock::new(Some(messages)),
            thread: Mutex::new(Some(thread.map_err(failed("start the thread"))?)),
            when_full: settings.when_full,
            wait_for_disk: settings.wait_for_disk,
            public_key,
        })
    }

    /// Writes down a request. With `wait_for_disk` it returns when the line is on the disk, else
    /// when it is queued.
    ///
    /// Called before the answer is sent, so that a request fails whose entry cannot be written.
    ///
    /// # Errors
    /// When the log is closed, or, with [`WhenFull::Fail`], full or not healthy.
    pub async fn record(&self, entry: Entry) -> Result<(), AuditError> {
        let room = match self.when_full {
            WhenFull::Wait => {
                let room = self.room.clone().acquire_owned().await;
                room.map_err(|_| AuditError::Closed)?
            }
            WhenFull::Fail => {
                if let Some(trouble) = self.shared.trouble() {
                    return Err(AuditError::Unhealthy(trouble));
                }
                self.try_room()?
            }
        };
        let (sender, written) = match self.wait_for_disk {
            true => {
                let (sender, written) = oneshot::channel();
                (Some(sender), Some(written))
            }
            false => (None, None),
        };
        self.send(Content::Request(entry), Some(room), sender)?;
        match written {
            Some(written) => written.await.map_err(|_| AuditError::Closed),
            None => Ok(()),
        }
    }

    /// Writes down a request without waiting and without asking for room: for one whose client has
    /// hung up, where nobody is left to wait or to be told. There are no more of these than
    /// requests in flight.
    ///
    /// # Errors
    /// When the log is closed.
    pub fn record_now(&self, entry: Entry) -> Result<(), AuditError> {
        self.send(Content::Request(entry), None, None)
    }

    /// Writes down a request that was turned away, if there is room at once: what costs a client nothing
    /// makes nobody wait, and takes no memory while the disk takes nothing.
    ///
    /// # Errors
    /// When there is no room, or the log is closed.
    pub fn record_refusal(&self, entry: Entry) -> Result<(), AuditError> {
        let room = self.try_room()?;
        self.send(Content::Request(entry), Some(room), None)
    }

    /// Writes down how many more were turned away, if there is room at once.
    ///
    /// # Errors
    /// When there is no room, or the log is closed.
    pub fn record_refusals(&self, refusals: Refusals) -> Result<(), AuditError> {
        let room = self.try_room()?;
        self.send(Content::Refusals(refusals), Some(room), None)
    }

    /// Writes down a change, without waiting: there are few.
    ///
    /// # Errors
    /// When the log is closed.
    pub fn record_change(&self, change: Change) -> Result<(), AuditError> {
        self.send(Content::Change(change), None, None)
    }

    fn try_room(&self) -> Result<OwnedSemaphorePermit, AuditError> {
        self.room
            .clone()
            .try_acquire_owned()
            .map_err(|error| match error {
                TryAcquireError::NoPermits => AuditError::Full,
                TryAcquireError::Closed => AuditError::Closed,
            })
    }

    fn send(
        &self,
        content: Content,
        room: Option<OwnedSemaphorePermit>,
        written: Option<oneshot::Sender<()>>,
    ) -> Result<(), AuditError> {
        let message = Message {
            time: timestamp::now(),
            content,
            room,
            written,
        };
        let messages = self.messages.read();
        let messages = messages.unwrap_or_else(PoisonError::into_inner);
        let sender = messages.as_ref().ok_or(AuditError::Closed)?;
        sender.send(message).map_err(|_| AuditError::Closed)
    }

    /// Whether the last attempt to write went well.
    pub fn is_healthy(&self) -> bool {
        self.trouble().is_none()
    }

    /// What the disk says, while it takes nothing.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    /// Lines that this process has written.
    pub fn lines(&self) -> u64 {
        self.shared.lines.load(Ordering::Relaxed)
    }

    /// Number and hash of the last checkpoint, to be kept elsewhere: a log that was cut back to an
    /// earlier end does not contain it.
    pub fn checkpoint(&self) -> Option<(u64, String)> {
        let checkpoint = self.shared.checkpoint.lock();
        checkpoint.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key that signatures are checked with.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Writes what is queued and a last checkpoint. Later entries are refused.
    ///
    /// # Errors
    /// When entries could not be written.
    pub fn close(&self) -> Result<(), AuditError> {
        self.room.close();
        // Under the lock, so that no entry is accepted that the thread does not see.
        let messages = self.messages.write();
        drop(messages.unwrap_or_else(PoisonError::into_inner).take());
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = thread else { return Ok(()) };
        let lost = |entries| AuditError::Lost {
            entries,
            reason: self.trouble().unwrap_or_default(),
        };
        match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(entries)) => Err(lost(entries)),
            Err(_) => Err(lost(0)),
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!("{error}");
        }
    }
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> AuditError {
    AuditError::Io {
        path: path.into(),
        what,
        source,
    }
}

#[cfg(test)]
mod tests;
