//! Where a log that is there has come to, its end repaired.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{AuditError, io_error};
use crate::audit::chain::{Broken, Chain, files_of, split};
use crate::audit::line::Head;
use crate::audit::unsigned::Apart;
use crate::private_file;
use crate::signing::PublicKey;

/// Where the log at `path` has come to, and the length of its file; repairs its end.
///
/// A log is signed as it is opened. One that lacks signatures that whoever wrote it would have left may have been
/// written anew without the key, and is not signed.
pub(super) fn resume(path: &Path, key: PublicKey, apart: Apart) -> Result<(Head, u64), AuditError> {
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
                check_signed(last, &chain, apart)?;
                let len = repair(path, &current, torn)?;
                return Ok((chain.head, len));
            }
            None => 1,
        },
    };
    let chain = read(path, first_seq, &current, key)?;
    check_signed(path, &chain, apart)?;
    let len = repair(path, &current, torn)?;
    Ok((chain.head, len))
}

fn check_signed(file: &Path, chain: &Chain, apart: Apart) -> Result<(), AuditError> {
    match chain.missing(apart) {
        None => Ok(()),
        Some(reason) => Err(AuditError::Unsigned {
            path: file.into(),
            reason,
        }),
    }
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

/// The number of the first line in a file.
pub(super) fn first_seq_of(path: &Path) -> io::Result<u64> {
    use std::io::{BufRead, BufReader, Read};
    let mut line = Vec::new();
    let file = File::open(path)?.take(4096);
    BufReader::new(file).read_until(b'\n', &mut line)?;
    number_of(&line).ok_or_else(|| io::Error::other("the first line has no number"))
}
