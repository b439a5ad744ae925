use super::*;
use crate::audit::line::{Entry, append};
use crate::audit::{AuditLog, AuditSettings};
use crate::signing::SigningKey;
use tempfile::TempDir;

/// A closed log in several files, and the edits that are tried on it.
struct Sample {
    folder: TempDir,
    key: PublicKey,
    /// Names and lines of the files, in order.
    files: Vec<(PathBuf, Vec<String>)>,
}

impl Sample {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = AuditSettings {
            rotate_bytes: 3500,
            checkpoint_lines: 4,
            wait_for_disk: true,
            ..AuditSettings::new(
                folder.path().join("audit.jsonl"),
                folder.path().join("audit.key"),
            )
        };
        let log = AuditLog::open(&settings).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for i in 0..18 {
            let entry = Entry {
                tenant: format!("tenant-{i}"),
                route: "POST /api/v1/infer".into(),
                status: 200,
                ..Entry::default()
            };
            runtime.block_on(log.record(entry)).unwrap();
        }
        log.close().unwrap();
        let key = log.public_key();
        let files = files_of(&settings.file).unwrap().into_iter().map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text.lines().map(Into::into).collect())
        });
        let files = files.collect();
        let sample = Self { folder, key, files };
        assert_eq!(sample.files.len(), 3);
        sample
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    /// The report on these files.
    fn report(&self, files: &[(PathBuf, Vec<String>)]) -> Report {
        for (path, _) in &self.files {
            drop(fs::remove_file(path));
        }
        for (path, lines) in files {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(path, text).unwrap();
        }
        verify(&self.path(), Some(self.key), 1).unwrap()
    }

    /// Each place: a file and a line in it.
    fn places(&self) -> Vec<(usize, usize)> {
        let files = self.files.iter().enumerate();
        let places = files.flat_map(|(f, (_, lines))| (0..lines.len()).map(move |l| (f, l)));
        places.collect()
    }

    /// Edits the log at each place; each time it must be found broken, there or at the line after.
    fn check(&self, name: &str, edit: impl Fn(&mut Vec<String>, usize) -> Option<()>) {
        let mut tried = 0;
        for (f, l) in self.places() {
            let mut files = self.files.clone();
            if edit(&mut files[f].1, l).is_none() {
                continue;
            }
            tried += 1;
            let report = self.report(&files);
            let place = format!("{name} at line {} of file {f}: {report:?}", l + 1);
            let broken = report.broken.as_ref().unwrap_or_else(|| panic!("{place}"));
            assert!(!report.closed && !report.is_good(), "{place}");
            let found = files.iter().position(|(path, _)| *path == broken.file);
            let (found, line) = (found.unwrap(), broken.line - 1);
            let is_near =
                (found == f && (l..=l + 1).contains(&line)) || (found == f + 1 && line == 0);
            assert!(is_near, "{place}");
            assert!(report.certain_to <= report.last_seq, "{place}");
        }
        assert!(tried > 10, "{name}: {tried} places");
    }
}

/// The line with another content and the hash that belongs to it, as somebody writes it who has not
/// got the key.
fn forge(line: &str, from: &str, to: &str) -> Option<String> {
    let changed = line.replacen(from, to, 1);
    let (content, rest) = changed.split_once(",\"hash\":\"")?;
    if changed == line {
        return None;
    }
    use sha2::Digest;
    let hash = hex::encode(sha2::Sha256::digest(content));
    Some(format!("{content},\"hash\":\"{hash}{}", &rest[64..]))
}

#[test]
fn a_log_as_it_was_written_is_good() {
    let sample = Sample::new();
    let report = sample.report(&sample.files);
    assert!(
        report.is_good() && report.closed && report.key_was_given,
        "{report:?}"
    );
    assert_eq!(report.certain_to, report.last_seq);
    assert_eq!(report.lines as usize, sample.places().len());
    let other = SigningKey::ephemeral().unwrap().public_key();
    let report = verify(&sample.path(), Some(other), 1).unwrap();
    assert_eq!((report.broken.unwrap().line, report.lines), (1, 0));
}

#[test]
fn a_changed_byte_is_found() {
    let sample = Sample::new();
    for step in [0, 1, 7, 20, 33, 40] {
        sample.check("change", |lines, l| {
            let line = &mut lines[l];
            // From both ends, so that hashes and signatures are changed too.
            let at = if step % 2 == 0 {
                step * 3
            } else {
                line.len() - 1 - step * 3
            };
            let mut bytes = line.clone().into_bytes();
            bytes[at] = if bytes[at] == b'7' { b'3' } else { b'7' };
            *line = String::from_utf8(bytes).unwrap();
            Some(())
        });
    }
}

#[test]
fn a_removed_inserted_or_moved_line_is_found() {
    let sample = Sample::new();
    sample.check("remove", |lines, l| {
        // Without its last line a file is cut off: another test.
        (l + 1 < lines.len()).then(|| drop(lines.remove(l)))
    });
    sample.check("repeat", |lines, l| {
        let line = lines[l].clone();
        lines.insert(l + 1, line);
        Some(())
    });
    sample.check("swap", |lines, l| {
        (l + 1 < lines.len()).then(|| lines.swap(l, l + 1))
    });
    sample.check("empty line", |lines, l| {
        lines.insert(l, String::new());
        Some(())
    });
    let stranger = sample.files[1].1[2].clone();
    sample.check("line from elsewhere", |lines, l| {
        let is_other = lines[l] != stranger && lines.get(l + 1) != Some(&stranger);
        is_other.then(|| lines.insert(l + 1, stranger.clone()))
    });
}

#[test]
fn a_forged_line_with_its_own_hash_is_found() {
    let sample = Sample::new();
    sample.check("another status", |lines, l| {
        lines[l] = forge(&lines[l], "\"status\":200", "\"status\":403")?;
        Some(())
    });
    sample.check("another time", |lines, l| {
        lines[l] = forge(&lines[l], "\"time\":\"2", "\"time\":\"1")?;
        Some(())
    });
}

#[test]
fn a_chain_written_anew_without_the_key_is_found() {
    let sample = Sample::new();
    let forger = SigningKey::ephemeral().unwrap();
    for (f, l) in sample.places() {
        // All lines from this one on, with hashes that fit, and signatures of another key.
        let mut chain = Chain::new(1, Some(sample.key));
        let mut files = sample.files.clone();
        let mut has_begun = false;
        for (g, (_, lines)) in files.iter_mut().enumerate() {
            for (m, line) in lines.iter_mut().enumerate() {
                let read = Line::read(line.as_bytes()).unwrap();
                if (g, m) == (f, l) {
                    has_begun = true;
                    chain.head = Head {
                        seq: read.head.seq - 1,
                        hash: read.prev,
                    };
                }
                if has_begun {
                    let mut text = String::new();
                    let time = "2026-01-01T00:00:00.000Z".into();
                    let content = read.body.content;
                    chain.head = append(&mut text, chain.head, time, content, &forger);
                    *line = text.trim_end().into();
                }
            }
        }
        let report = sample.report(&files);
        let broken = report
            .broken
            .unwrap_or_else(|| panic!("from line {} of {f}", l + 1));
        assert!(broken.reason.contains("not signed"), "{broken}");
        // The lie is not among what is called certain.
        let before: usize = sample.files[..f].iter().map(|(_, lines)| lines.len()).sum();
        assert!(report.certain_to <= (before + l) as u64);
    }
}

#[test]
fn a_cut_tail_is_not_called_closed() {
    let sample = Sample::new();
    for (f, l) in sample.places() {
        let mut files = sample.files.clone();
        files[f].1.truncate(l);
        let report = sample.report(&files);
        let place = format!("file {f} cut to {l} lines: {report:?}");
        assert!(!report.closed, "{place}");
        // In a file that was rotated the end cannot be missing.
        assert_eq!(report.broken.is_some(), f + 1 < files.len(), "{place}");
    }
    // Within the last line.
    let whole = fs::read(&sample.files[2].0);
    drop(whole);
    sample.report(&sample.files);
    let content = fs::read(sample.path()).unwrap();
    for cut in 1..100 {
        fs::write(sample.path(), &content[..content.len() - cut]).unwrap();
        let report = verify(&sample.path(), Some(sample.key), 1).unwrap();
        assert!(!report.closed && report.torn_bytes > 0, "{cut}: {report:?}");
    }
}

#[test]
fn a_missing_file_is_found() {
    let sample = Sample::new();
    let without = |f: usize| {
        let mut files = sample.files.clone();
        files.remove(f);
        sample.report(&files)
    };
    assert!(without(0).broken.unwrap().reason.contains("missing"));
    assert!(without(1).broken.unwrap().reason.contains("missing"));
    let last = without(2);
    assert!(last.broken.is_none() && !last.closed);
    // Older files may have been put away, if that is said.
    let rest = without(0);
    let first = Line::read(sample.files[1].1[0].as_bytes())
        .unwrap()
        .head
        .seq;
    assert_eq!(rest.lines, 0);
    let rest = verify(&sample.path(), Some(sample.key), first).unwrap();
    assert!(rest.is_good() && rest.closed, "{rest:?}");
}

#[test]
fn what_is_no_log_is_malformed() {
    let cases: [&[u8]; 7] = [
        b"\n",
        b"{}\n",
        b"\"}\n",
        b"\xff\xfe\n",
        b"{\"seq\":1,\"hash\":\"00\"}\n",
        b"\xc3\xa9\",\"signature\":\"\"}\n",
        b"\0\0\0\0\n",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    assert!(verify(&path, None, 1).is_err());
    for case in cases {
        fs::write(&path, case).unwrap();
        let report = verify(&path, None, 1).unwrap();
        let broken = report.broken.unwrap_or_else(|| panic!("{case:?}"));
        assert!(
            broken.reason.contains("no line of an audit log"),
            "{broken}"
        );
    }
    // Every log has a first line: where there is none, all was cut off.
    for (rest, expected) in [(&b""[..], "empty"), (b"{\"seq\":1", "no whole line")] {
        fs::write(&path, rest).unwrap();
        let report = verify(&path, None, 1).unwrap();
        assert!(!report.is_good() && !report.closed && report.certain_to == 0);
        let broken = report.broken.unwrap();
        assert!(broken.reason.contains(expected), "{broken}");
    }
}
