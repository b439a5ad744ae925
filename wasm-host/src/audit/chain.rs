//! Is an audit log what was written?

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::line::{Content, Head, Line, LineError, NOTHING_BEFORE, Reason};
use super::unsigned::{Apart, Unsigned};
use crate::signing::PublicKey;
use lethe_sandbox::hex;

/// The forms of a log that are known: the first had lines of requests alone. The last is written.
pub(super) const FORMATS: [u32; 2] = [1, 2];

/// Where and how a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}, line {line}: {reason}", file.display())]
pub struct Broken {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// What was found out about a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The files in the order of the log.
    pub files: Vec<PathBuf>,
    /// How many lines were read and are right.
    pub lines: u64,
    /// The number of the first line.
    pub first_seq: u64,
    /// The number of the last line.
    pub last_seq: u64,
    /// The hash of the last line.
    pub last_hash: String,
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// Up to this line all is certain, as a signed checkpoint says so; 0 for none. What is after it
    /// is chained, and whoever can write the file could have written it.
    pub certain_to: u64,
    /// Whether the log ends as one does that was closed. If not, the process runs, was killed, or
    /// the end was cut off: lines after the last may be missing.
    pub closed: bool,
    /// Bytes of a last line that has no end.
    pub torn_bytes: usize,
    /// The key of the signatures.
    pub public_key: Option<PublicKey>,
    /// Whether that key was given, and not only taken from the log itself.
    pub key_was_given: bool,
    /// What follows the last checkpoint.
    pub unsigned: Unsigned,
    /// Which signature is missing, where the key was given: without it all could have been written anew.
    pub missing: Option<String>,
    /// Where the chain is broken.
    pub broken: Option<Broken>,
}

impl Report {
    /// Whether nothing is wrong as far as can be said.
    pub fn is_good(&self) -> bool {
        self.broken.is_none() && self.missing.is_none()
    }

    /// The number of the last line that can be relied on: where the key was given, of one that is signed.
    pub fn vouched_to(&self) -> u64 {
        match self.key_was_given {
            true => self.certain_to,
            false => self.last_seq,
        }
    }
}

/// A chain that is read line by line.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) head: Head,
    key: Option<PublicKey>,
    is_first: bool,
    pub(super) lines: u64,
    first_seq: u64,
    checkpoints: u64,
    certain_to: u64,
    last_reason: Option<Reason>,
    unsigned: Unsigned,
}

impl Chain {
    /// Which signature a process that wrote this would have left, if one is missing. A first line alone is what
    /// one leaves that was killed as it began; where the file is not the first, those before it have some.
    pub(super) fn missing(&self, apart: Apart) -> Option<String> {
        let is_begun = self.lines <= 1 || self.first_seq > 1;
        self.unsigned
            .missing(self.checkpoints.max(is_begun.into()), apart)
    }

    /// A chain that begins with line `first_seq`, signed with `key` if that is known.
    pub(super) fn new(first_seq: u64, key: Option<PublicKey>) -> Self {
        Self {
            head: Head {
                seq: first_seq.saturating_sub(1),
                hash: NOTHING_BEFORE,
            },
            key,
            is_first: true,
            lines: 0,
            first_seq,
            checkpoints: 0,
            certain_to: 0,
            last_reason: None,
            unsigned: Unsigned::default(),
        }
    }

    /// Adds the next line.
    pub(super) fn push(&mut self, text: &[u8]) -> Result<(), String> {
        let line = Line::read(text).map_err(|error| match error {
            LineError::Malformed => "it is no line of an audit log",
            LineError::Changed => "its content is not what its hash says: it was changed",
        })?;
        let expected = self.head.seq + 1;
        let seq = line.head.seq;
        if seq > expected {
            let missing = if seq - 1 == expected {
                format!("line number {expected} is")
            } else {
                format!("line numbers {expected} to {} are", seq - 1)
            };
            return Err(format!("it has number {seq}, and {missing} missing"));
        }
        if seq < expected {
            return Err(format!(
                "it has number {seq}, where {expected} was expected: it was moved or inserted"
            ));
        }
        // Who begins in the middle takes the first line's word for what was before.
        let is_anchored = !self.is_first || self.first_seq == 1;
        if is_anchored && line.prev != self.head.hash {
            return Err("it does not follow the line before it: one of them was replaced".into());
        }
        self.check_content(&line)?;
        match self.last_reason {
            Some(_) => self.unsigned = Unsigned::default(),
            None => self.unsigned.add(&line),
        }
        self.head = line.head;
        self.is_first = false;
        self.lines += 1;
        Ok(())
    }

    fn check_content(&mut self, line: &Line) -> Result<(), String> {
        self.last_reason = None;
        match &line.body.content {
            Content::Open {
                format, public_key, ..
            } => {
                if !FORMATS.contains(format) {
                    return Err(format!("it has format {format}, which is not known here"));
                }
                let key = *self.key.get_or_insert(*public_key);
                if key != *public_key {
                    return Err(format!("the log has the key {public_key} here, not {key}"));
                }
            }
            _ if self.is_first => {
                return Err("a log begins with a line of the kind open".into());
            }
            Content::Request(_) | Content::Change(_) | Content::Refusals(_) => {}
            Content::Checkpoint { reason } => {
                let is_signed = self.key.is_some_and(|key| line.is_signed_by(&key));
                if !is_signed {
                    return Err("the checkpoint is not signed with the log's key".into());
                }
                self.checkpoints += 1;
                self.certain_to = line.head.seq;
                self.last_reason = Some(*reason);
            }
        }
        Ok(())
    }
}

/// The lines of a file's content, and the bytes after the last end of a line.
pub(super) fn split(content: &[u8]) -> (impl Iterator<Item = &[u8]>, &[u8]) {
    let end = content.iter().rposition(|&byte| byte == b'\n');
    let (whole, torn) = content.split_at(end.map_or(0, |end| end + 1));
    let lines = whole.split_inclusive(|&byte| byte == b'\n');
    (lines.map(|line| &line[..line.len() - 1]), torn)
}

/// The files that a log at `path` was rotated into, and the file itself if it is there, in order.
pub(super) fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let number = found
            .strip_prefix(&*name)
            .and_then(|rest| rest.strip_prefix('.'));
        let is_number =
            |text: &str| text.len() == SEQ_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        if number.is_some_and(is_number) {
            files.push(path.with_file_name(&*found));
        }
    }
    files.sort();
    if path.exists() {
        files.push(path.into());
    }
    Ok(files)
}

/// Digits of the number that a rotated file is named after: that of its first line.
pub(super) const SEQ_DIGITS: usize = 12;

/// Checks the log at `path` with the files it was rotated into.
///
/// `key` is the key that signed it; without one the log's own is taken, which says nothing against
/// somebody who wrote all of it anew. `first_seq` is the number of the first line that is expected:
/// 1, unless older files were put away.
///
/// # Errors
/// When the files cannot be read or there are none.
pub fn verify(path: &Path, key: Option<PublicKey>, first_seq: u64) -> io::Result<Report> {
    verify_apart(path, key, first_seq, Apart::default())
}

/// As [`verify`], of a log whose checkpoints are this far apart.
///
/// # Errors
/// As [`verify`].
pub fn verify_apart(
    path: &Path,
    key: Option<PublicKey>,
    first_seq: u64,
    apart: Apart,
) -> io::Result<Report> {
    let files = files_of(path)?;
    if files.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut chain = Chain::new(first_seq, key);
    let mut broken = None;
    let mut torn_bytes = 0;
    'files: for (i, file) in files.iter().enumerate() {
        let content = read_regular(file)?;
        let (lines, torn) = split(&content);
        let at = |line, reason| {
            Some(Broken {
                file: file.clone(),
                line,
                reason,
            })
        };
        let mut count = 0;
        for line in lines {
            count += 1;
            if let Err(reason) = chain.push(line) {
                broken = at(count, reason);
                break 'files;
            }
        }
        if i + 1 < files.len() {
            if !torn.is_empty() {
                broken = at(count + 1, "the last line has no end".into());
                break;
            }
            if chain.last_reason != Some(Reason::Rotated) {
                let reason = "another file follows, but this one does not end as a file does that \
                     was rotated: its end was cut off";
                broken = at(count, reason.into());
                break;
            }
        }
        torn_bytes = torn.len();
    }
    // Nothing is no log: it is what is left where all was cut off.
    if broken.is_none() && chain.lines == 0 {
        let reason = match torn_bytes {
            0 => {
                "the log is empty: every log begins with a line of the kind open, so all was cut off"
            }
            _ => "the log has no whole line: every log begins with one of the kind open",
        };
        broken = files.first().map(|file| Broken {
            file: file.clone(),
            line: 1,
            reason: reason.into(),
        });
    }
    Ok(Report {
        files,
        lines: chain.lines,
        first_seq,
        last_seq: chain.head.seq,
        last_hash: hex::encode(chain.head.hash),
        checkpoints: chain.checkpoints,
        certain_to: chain.certain_to,
        closed: broken.is_none() && torn_bytes == 0 && chain.last_reason == Some(Reason::Closed),
        torn_bytes,
        public_key: chain.key,
        key_was_given: key.is_some(),
        unsigned: chain.unsigned,
        missing: match key.is_some() && broken.is_none() {
            true => chain.unsigned.missing(chain.checkpoints, apart),
            false => None,
        },
        broken,
    })
}

/// The content of a file; of a pipe or a device nobody knows when it ends.
fn read_regular(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.is_file() {
        fs::read(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

#[cfg(test)]
mod tests;
