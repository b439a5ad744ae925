//! How a log is written: the section `[audit]` of the settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::audit::unsigned::Apart;

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

/// Lines after which there is a checkpoint, where nothing else is set.
pub(in crate::audit) const DEFAULT_CHECKPOINT_LINES: u64 = 1000;
/// Seconds after which there is one.
pub(in crate::audit) const DEFAULT_CHECKPOINT_SECONDS: u64 = 60;

fn default_checkpoint_lines() -> u64 {
    DEFAULT_CHECKPOINT_LINES
}
fn default_checkpoint_seconds() -> u64 {
    DEFAULT_CHECKPOINT_SECONDS
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
    /// How far checkpoints are apart in a log that is gone on with: it may have been written with other
    /// settings. Of time nothing is said: a server whose clock was set must start all the same.
    pub(super) fn apart(&self) -> Apart {
        Apart {
            lines: self.checkpoint_lines.max(DEFAULT_CHECKPOINT_LINES),
            seconds: u64::MAX,
        }
    }

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
