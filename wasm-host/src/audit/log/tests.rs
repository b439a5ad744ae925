use super::writer::Disk;
use super::*;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::audit::verify;

fn entry(i: u64) -> Entry {
    Entry {
        tenant: "acme".into(),
        key_id: "5f0c2a9be1d34478".into(),
        request_id: format!("r{i}"),
        route: "POST /api/v1/infer".into(),
        model: Some("digits".into()),
        status: 200,
        request_bytes: i,
        ..Entry::default()
    }
}

fn settings(folder: &TempDir) -> AuditSettings {
    AuditSettings::new(
        folder.path().join("audit.jsonl"),
        folder.path().join("audit.key"),
    )
}

/// Lets a log be written without a runtime.
fn record(log: &AuditLog, entry: Entry) -> Result<(), AuditError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(log.record(entry))
}

#[test]
fn what_was_recorded_is_in_the_log_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings {
        checkpoint_lines: 10,
        ..settings(&folder)
    };
    for process in 0..3 {
        let log = AuditLog::open(&settings).unwrap();
        for i in 0..25 {
            record(&log, entry(100 * process + i)).unwrap();
        }
        log.close().unwrap();
        assert_eq!(
            log.lines(),
            2 + 25 + 2 + 1,
            "with open and its checkpoint, two more and closed"
        );
        assert!(matches!(record(&log, entry(0)), Err(AuditError::Closed)));
        assert!(matches!(log.record_now(entry(0)), Err(AuditError::Closed)));
    }
    let report = verify(&settings.file, None, 1).unwrap();
    assert_eq!(report.broken, None);
    assert_eq!((report.lines, report.checkpoints), (90, 12));
    assert!(report.closed && report.certain_to == 90);
    let text = fs::read_to_string(&settings.file).unwrap();
    for process in 0..3 {
        for i in 0..25 {
            let id = format!("\"r{}\"", 100 * process + i);
            assert_eq!(text.matches(&id).count(), 1, "{id}");
        }
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&settings.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn texts_cannot_make_lines_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    let log = AuditLog::open(&settings).unwrap();
    let evil = Entry {
        model: Some("a\"}\n{\"seq\":9,\"hash\":\"00\",\u{1}é".into()),
        tenant: "é".repeat(10_000),
        ..entry(1)
    };
    record(&log, evil).unwrap();
    log.close().unwrap();
    let report = verify(&settings.file, None, 1).unwrap();
    assert_eq!((report.broken, report.lines), (None, 4));
    assert!(fs::metadata(&settings.file).unwrap().len() < 4096);
}

#[test]
fn a_log_that_is_large_goes_on_in_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings {
        rotate_bytes: 3000,
        wait_for_disk: true,
        ..settings(&folder)
    };
    for _ in 0..2 {
        let log = AuditLog::open(&settings).unwrap();
        for i in 0..30 {
            record(&log, entry(i)).unwrap();
        }
        log.close().unwrap();
    }
    let report = verify(&settings.file, None, 1).unwrap();
    assert_eq!(report.broken, None);
    assert!(report.files.len() > 4 && report.closed, "{report:?}");
    // Killed between the renaming and the new file: the chain goes on.
    let last = report.files.last().unwrap();
    fs::rename(last, folder.path().join("audit.jsonl.999999999999")).unwrap();
    drop(AuditLog::open(&settings).unwrap());
    let again = verify(&settings.file, None, 1).unwrap();
    // The file that was renamed by hand ends in `closed`, not in `rotated`.
    let broken = again.broken.unwrap();
    assert!(broken.reason.contains("another file follows"), "{broken}");
    assert_eq!(again.lines, report.lines);
}

#[test]
fn a_killed_log_is_repaired_wherever_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    let log = AuditLog::open(&settings).unwrap();
    for i in 0..3 {
        record(&log, entry(i)).unwrap();
    }
    log.close().unwrap();
    let whole = fs::read(&settings.file).unwrap();
    let torn_path = folder.path().join("audit.jsonl.torn");
    for cut in (0..whole.len()).step_by(7).chain([1, whole.len() - 1]) {
        fs::write(&settings.file, &whole[..cut]).unwrap();
        drop(fs::remove_file(&torn_path));
        let log = AuditLog::open(&settings).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        record(&log, entry(9)).unwrap();
        log.close().unwrap();
        let report = verify(&settings.file, None, 1).unwrap();
        assert!(
            report.broken.is_none() && report.closed,
            "cut at {cut}: {report:?}"
        );
        let lines = whole[..cut].iter().filter(|&&byte| byte == b'\n').count();
        let kept = whole[..cut].iter().rposition(|&byte| byte == b'\n');
        let kept = kept.map_or(0, |at| at + 1);
        assert_eq!(report.lines as usize, lines + 4, "cut at {cut}");
        // Nothing was thrown away.
        let torn = fs::read(&torn_path).unwrap_or_default();
        let expected = match kept < cut {
            true => [&whole[kept..cut], b"\n"].concat(),
            false => Vec::new(),
        };
        assert_eq!(torn, expected, "cut at {cut}");
    }
}

#[test]
fn a_broken_log_is_not_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    let log = AuditLog::open(&settings).unwrap();
    record(&log, entry(1)).unwrap();
    assert!(matches!(
        AuditLog::open(&settings),
        Err(AuditError::InUse(_))
    ));
    log.close().unwrap();
    drop(log);
    let text = fs::read_to_string(&settings.file).unwrap();
    fs::write(&settings.file, text.replacen("acme", "acne", 1)).unwrap();
    let error = AuditLog::open(&settings).unwrap_err().to_string();
    assert!(
        error.contains("line 3") && error.contains("changed"),
        "{error}"
    );
    // Nor with another key.
    fs::write(&settings.file, &text).unwrap();
    fs::remove_file(&settings.key).unwrap();
    let error = AuditLog::open(&settings).unwrap_err().to_string();
    assert!(error.contains("the log has the key"), "{error}");
    assert_eq!(fs::read_to_string(&settings.file).unwrap(), text);
}

/// A file on a disk that can be full: then it takes half of what it is given, and every other time
/// it cannot even be cut.
struct SmallDisk {
    file: File,
    cuts: u32,
    is_full: Arc<AtomicBool>,
}

impl Disk for SmallDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_full.load(Ordering::SeqCst) {
            self.file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.cuts += 1;
        if self.cuts % 2 == 1 {
            return Err(io::ErrorKind::Other.into());
        }
        self.file.cut(len)
    }
}

fn open_small(settings: &AuditSettings) -> (AuditLog, Arc<AtomicBool>) {
    let is_full = Arc::new(AtomicBool::new(false));
    let full = is_full.clone();
    let open: OpenDisk = Box::new(move |path| {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(path)?;
        let is_full = full.clone();
        let cuts = 0;
        Ok(Box::new(SmallDisk {
            file,
            cuts,
            is_full,
        }))
    });
    (AuditLog::open_on(settings, open).unwrap(), is_full)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "waited for: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_when_it_has_room_again() {
    for when_full in [WhenFull::Wait, WhenFull::Fail] {
        let folder = tempfile::tempdir().unwrap();
        let settings = AuditSettings {
            queue: 4,
            when_full,
            ..settings(&folder)
        };
        let (log, is_full) = open_small(&settings);
        record(&log, entry(0)).unwrap();
        wait_until("the first entry", || log.lines() == 3);
        is_full.store(true, Ordering::SeqCst);
        record(&log, entry(1)).unwrap();
        wait_until("the trouble", || !log.is_healthy());
        assert!(
            log.trouble().unwrap().contains("space"),
            "{:?}",
            log.trouble()
        );
        log.record_now(entry(2)).unwrap();
        std::thread::scope(|scope| {
            let more = scope.spawn(|| {
                let all: Vec<_> = (3..13).map(|i| record(&log, entry(i))).collect();
                all
            });
            if when_full == WhenFull::Wait {
                std::thread::sleep(Duration::from_millis(50));
                assert!(!more.is_finished(), "there is room for four only");
                is_full.store(false, Ordering::SeqCst);
            }
            for result in more.join().unwrap() {
                match (when_full, result) {
                    (WhenFull::Wait, Ok(())) | (WhenFull::Fail, Err(AuditError::Unhealthy(_))) => {}
                    (_, result) => panic!("{when_full:?}: {result:?}"),
                }
            }
        });
        is_full.store(false, Ordering::SeqCst);
        wait_until("health", || log.is_healthy());
        record(&log, entry(13)).unwrap();
        log.close().unwrap();
        let report = verify(&settings.file, None, 1).unwrap();
        assert!(report.broken.is_none() && report.closed, "{report:?}");
        let text = fs::read_to_string(&settings.file).unwrap();
        let found: Vec<u64> = (0..14)
            .filter(|i| text.contains(&format!("\"r{i}\"")))
            .collect();
        match when_full {
            WhenFull::Wait => assert_eq!(found, (0..14).collect::<Vec<_>>()),
            WhenFull::Fail => assert_eq!(found, [0, 1, 2, 13]),
        }
    }
}

#[test]
fn what_could_not_be_written_until_the_end_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder);
    let (log, is_full) = open_small(&settings);
    is_full.store(true, Ordering::SeqCst);
    for i in 0..3 {
        log.record_now(entry(i)).unwrap();
    }
    let error = log.close().unwrap_err();
    assert!(
        matches!(error, AuditError::Lost { entries: 3, .. }),
        "{error}"
    );
    // What is there is whole.
    let report = verify(&settings.file, None, 1).unwrap();
    assert!(report.broken.is_none() && !report.closed, "{report:?}");
    // Open with its checkpoint, and at most what was half of the last attempt.
    assert!((2..=4).contains(&report.lines), "{report:?}");
}

#[test]
fn the_disk_is_waited_for_where_that_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings {
        wait_for_disk: true,
        ..settings(&folder)
    };
    let log = AuditLog::open(&settings).unwrap();
    for i in 0..5 {
        record(&log, entry(i)).unwrap();
        let text = fs::read_to_string(&settings.file).unwrap();
        assert!(text.contains(&format!("\"r{i}\"")));
    }
}

#[test]
fn a_quiet_log_gets_its_checkpoint_too() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings {
        checkpoint_seconds: 1,
        ..settings(&folder)
    };
    let log = AuditLog::open(&settings).unwrap();
    record(&log, entry(1)).unwrap();
    // The first is that of the opening.
    let is_later = |(seq, _): (u64, String)| seq > 2;
    wait_until("a checkpoint", || log.checkpoint().is_some_and(is_later));
    let report = verify(&settings.file, Some(log.public_key()), 1).unwrap();
    let head = Some((report.last_seq, report.last_hash.clone()));
    assert_eq!((log.checkpoint(), report.certain_to), (head, 4));
    assert!(!report.closed, "the log is open");
}
