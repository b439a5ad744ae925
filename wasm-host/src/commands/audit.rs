//! `lethe audit verify FILE…`: is an audit log what was written?

use std::io::{self, Write};
use std::path::PathBuf;

use super::{CommandError, Outcome};
use crate::audit::{Apart, Report, verify_apart};
use crate::signing::PublicKey;

/// Look at the audit log of a server
#[derive(Debug, clap::Args)]
pub struct Audit {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check that no line was changed, removed, inserted or moved
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// Logs; the files that a log was rotated into are found beside it
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The key of the signatures, or the file that holds it [default: what the log itself says]
    #[arg(long, allow_hyphen_values = true, value_name = "KEY")]
    public_key: Option<String>,
    /// Number of the first line, where older files were put away
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// A log that was not closed is not good
    #[arg(long)]
    closed: bool,
    /// The log has at least this many lines, as was noted elsewhere; with --public-key, signed ones
    #[arg(long, value_name = "N")]
    at_least: Option<u64>,
    /// Lines between signed checkpoints at most, as the server's settings say; for --public-key
    #[arg(long, value_name = "N", default_value_t = Apart::default().lines)]
    checkpoint_lines: u64,
    /// Seconds between signed checkpoints at most, as the server's settings say; for --public-key
    #[arg(long, value_name = "S", default_value_t = Apart::default().seconds)]
    checkpoint_seconds: u64,
}

impl Audit {
    /// Runs the command.
    ///
    /// # Errors
    /// When a log or the key cannot be read.
    pub fn run(&self, json: bool) -> Result<Outcome, CommandError> {
        let Action::Verify(verify) = &self.action;
        verify.run(json)
    }
}

impl Verify {
    fn run(&self, json: bool) -> Result<Outcome, CommandError> {
        let key = self.public_key.as_deref();
        let key = key.map(PublicKey::from_text_or_file).transpose();
        let key = key.map_err(|error| CommandError::Request(error.to_string()))?;
        let apart = Apart {
            lines: self.checkpoint_lines,
            seconds: self.checkpoint_seconds,
        };
        let mut out = io::stdout().lock();
        let mut reports = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let report = verify_apart(file, key, self.from, apart).map_err(|error| {
                CommandError::Request(format!("cannot read {}: {error}", file.display()))
            })?;
            if !json {
                writeln!(out, "{}", self.describe(file.display(), &report))?;
            }
            reports.push(report);
        }
        if json {
            let text = serde_json::to_string_pretty(&reports).map_err(io::Error::from)?;
            writeln!(out, "{text}")?;
        }
        match reports.iter().all(|report| self.is_good(report)) {
            true => Ok(Outcome::Good),
            false => Ok(Outcome::Bad),
        }
    }

    fn is_good(&self, report: &Report) -> bool {
        report.is_good()
            && (report.closed || !self.closed)
            && self
                .at_least
                .is_none_or(|least| report.vouched_to() >= least)
    }

    fn describe(&self, file: std::path::Display<'_>, report: &Report) -> String {
        let Report {
            lines,
            first_seq,
            last_seq,
            certain_to,
            torn_bytes,
            ..
        } = report;
        if let Some(broken) = &report.broken {
            return format!("{file}: BROKEN at {broken}; certain up to line number {certain_to}");
        }
        let mut text = format!("{file}: {lines} lines, numbers {first_seq} to {last_seq}");
        if report.closed {
            text += ": complete, it ends as a log does that was closed";
        } else {
            let rest = last_seq.saturating_sub(*certain_to);
            text += &format!(
                ": not closed. Certain up to number {certain_to}; {rest} lines after it fit but are \
                 not signed; later lines may be missing"
            );
        }
        if *torn_bytes > 0 {
            text += &format!("; the last line has no end ({torn_bytes} bytes)");
        }
        if let Some(missing) = &report.missing {
            text += &format!("; MISSING: {missing}");
        }
        if let Some(least) = self.at_least.filter(|&least| report.vouched_to() < least) {
            text += &match report.key_was_given {
                true => {
                    format!("; MISSING: it had {least} lines, {certain_to} of these are certain")
                }
                false => format!("; MISSING: it had {least} lines"),
            };
        }
        match &report.public_key {
            // Nothing was checked with it.
            Some(_) if report.checkpoints == 0 => text += "; not signed",
            Some(key) if report.key_was_given => text += &format!("; signed with {key}, as given"),
            Some(key) => {
                text += &format!("; signed with {key}, as the log itself says: give --public-key");
            }
            None => {}
        }
        text
    }
}
