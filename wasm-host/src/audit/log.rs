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

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use super::chain::{Broken, Chain, SEQ_DIGITS, files_of, split};
use super::line::{Content, Entry, Head, Reason, append};
use crate::signing::{PublicKey, SigningKey, SigningKeyError};
use crate::{hex, private_file, timestamp};

/// What happens to a request while the queue of the log is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It waits.
    Wait,
    /// It fails, and so it does as long as the log is not healthy.
    Fail,
}

/// The section `[audit]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// The log.
    pub file: PathBuf,
    /// The key of its checkpoints; made where there is none.
    pub key: PathBuf,
    /// Lines after which there is a checkpoint.
    #[serde(default = "default_checkpoint_lines")]
    pub checkpoint_lines: u64,
    /// Seconds after which there is a checkpoint, if lines were written.
    #[serde(default = "default_checkpoint_seconds")]
    pub checkpoint_seconds: u64,
    /// Size at which the log goes on in another file.
    #[serde(default = "default_rotate_bytes")]
    pub rotate_bytes: u64,
    /// Entries that may wait to be written.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// What happens when as many wait.
    #[serde(default = "default_when_full")]
    pub when_full: WhenFull,
    /// Whether a request is answered only after its line is on the disk. Otherwise what was queued
    /// when the process is killed, some milliseconds' worth, is lost.
    #[serde(default)]
    pub wait_for_disk: bool,
}

fn default_checkpoint_lines() -> u64 {
    1000
}
fn default_checkpoint_seconds() -> u64 {
    60
}
fn default_rotate_bytes() -> u64 {
    256 << 20
}
fn default_queue() -> usize {
    4096
}
fn default_when_full() -> WhenFull {
    WhenFull::Wait
}

impl AuditSettings {
    /// The usual settings for a log and its key.
    pub fn new(file: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            key: key.into(),
            checkpoint_lines: default_checkpoint_lines(),
            checkpoint_seconds: default_checkpoint_seconds(),
            rotate_bytes: default_rotate_bytes(),
            queue: default_queue(),
            when_full: default_when_full(),
            wait_for_disk: false,
        }
    }
}

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

/// Where lines go: a file, or in tests a disk that is full.
trait Disk: Send {
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

type OpenDisk = Box<dyn FnMut(&Path) -> io::Result<Box<dyn Disk>> + Send>;

fn open_file(path: &Path) -> io::Result<Box<dyn Disk>> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    private_file::sync_folder(path)?;
    Ok(Box::new(file))
}

struct Message {
    time: String,
    entry: Entry,
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
    /// When the log is broken or in use, or the files cannot be read or written.
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
        let (head, len) = resume(path, public_key)?;
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
                match self.room.clone().try_acquire_owned() {
                    Ok(room) => room,
                    Err(TryAcquireError::NoPermits) => return Err(AuditError::Full),
                    Err(TryAcquireError::Closed) => return Err(AuditError::Closed),
                }
            }
        };
        let (sender, written) = match self.wait_for_disk {
            true => {
                let (sender, written) = oneshot::channel();
                (Some(sender), Some(written))
            }
            false => (None, None),
        };
        self.send(entry, Some(room), sender)?;
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
        self.send(entry, None, None)
    }

    fn send(
        &self,
        entry: Entry,
        room: Option<OwnedSemaphorePermit>,
        written: Option<oneshot::Sender<()>>,
    ) -> Result<(), AuditError> {
        let message = Message {
            time: timestamp::now(),
            entry,
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

/// Where the log at `path` has come to, and the length of its file; repairs its end.
fn resume(path: &Path, key: PublicKey) -> Result<(Head, u64), AuditError> {
    let failed = |what| move |source| io_error(path, what, source);
    let files = files_of(path).map_err(failed("list the files of"))?;
    let current = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed("read")(error)),
    };
    let (_, torn) = split(&current);
    let first_seq = match number_of(&current) {
        Some(first_seq) => first_seq,
        // Nothing whole in the file, so the one before it says where to go on.
        None => match files.iter().rev().find(|file| *file != path) {
            Some(last) => {
                let content = fs::read(last).map_err(failed("read the last rotated file of"))?;
                let chain = read(last, number_of(&content).unwrap_or(1), &content, key)?;
                let len = repair(path, &current, torn)?;
                return Ok((chain.head, len));
            }
            None => 1,
        },
    };
    let chain = read(path, first_seq, &current, key)?;
    let len = repair(path, &current, torn)?;
    Ok((chain.head, len))
}

/// The number of the first line.
fn number_of(content: &[u8]) -> Option<u64> {
    let line = content.split(|&byte| byte == b'\n').next()?;
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    let is_whole = content.contains(&b'\n');
    std::str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|_| is_whole)
}

/// Reads the whole lines of a file.
fn read(file: &Path, first_seq: u64, content: &[u8], key: PublicKey) -> Result<Chain, AuditError> {
    let mut chain = Chain::new(first_seq, Some(key));
    for (i, line) in split(content).0.enumerate() {
        chain.push(line).map_err(|reason| {
            AuditError::Broken(Broken {
                file: file.into(),
                line: i + 1,
                reason,
            })
        })?;
    }
    Ok(chain)
}

/// Moves a last line without an end aside, and returns the length of what stays.
fn repair(path: &Path, content: &[u8], torn: &[u8]) -> Result<u64, AuditError> {
    let len = (content.len() - torn.len()) as u64;
    if torn.is_empty() {
        return Ok(len);
    }
    let failed = |what| move |source| io_error(path, what, source);
    let aside = private_file::beside(path, ".torn");
    let mut options = OpenOptions::new();
    let mut kept = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&aside)
        .map_err(failed("move the torn end of"))?;
    kept.write_all(torn)
        .and_then(|()| kept.write_all(b"\n"))
        .and_then(|()| kept.sync_all())
        .map_err(failed("move the torn end of"))?;
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(len).and_then(|()| file.sync_all()))
        .map_err(failed("cut the torn end of"))?;
    tracing::warn!(
        "audit log {}: the last line had no end ({} bytes): moved to {}",
        path.display(),
        torn.len(),
        aside.display()
    );
    Ok(len)
}

/// Lines that are to be written together.
#[derive(Default)]
struct Batch {
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

struct Writer {
    settings: AuditSettings,
    key: SigningKey,
    open: OpenDisk,
    disk: Box<dyn Disk>,
    /// Bytes of the file that are certainly on the disk.
    len: u64,
    /// Whether there is more in the file, of an attempt that failed.
    is_torn: bool,
    /// After the batch.
    head: Head,
    lines_since: u64,
    checkpoint_at: Option<Instant>,
    batch: Batch,
    shared: Arc<Shared>,
    /// Held as long as the file is written.
    _lock: File,
}

impl Writer {
    /// Writes what comes until the end, and returns how many entries could not be written.
    fn run(mut self, messages: &Receiver<Message>) -> Result<(), u64> {
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
        self.add(message.time, Content::Request(message.entry));
        self.batch.entries += 1;
        self.batch.rooms.extend(message.room);
        self.batch.written.extend(message.written);
        if self.lines_since >= self.settings.checkpoint_lines {
            self.checkpoint(Reason::Periodic);
        }
    }

    fn opened(&self) -> Content {
        Content::Open {
            format: 1,
            lethe: env!("CARGO_PKG_VERSION").into(),
            public_key: self.key.public_key(),
        }
    }

    fn add(&mut self, time: String, content: Content) {
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

    fn checkpoint(&mut self, reason: Reason) {
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
    fn flush(&mut self) -> io::Result<()> {
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

/// The number of the first line in a file.
fn first_seq_of(path: &Path) -> io::Result<u64> {
    use std::io::{BufRead, BufReader, Read};
    let mut line = Vec::new();
    let file = File::open(path)?.take(4096);
    BufReader::new(file).read_until(b'\n', &mut line)?;
    number_of(&line).ok_or_else(|| io::Error::other("the first line has no number"))
}

#[cfg(test)]
mod tests;
