//! Files that only their owner may read, whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The path with `ending` after its whole name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Replaces the file at `path`: written under another name, synchronised, renamed. Whoever reads it
/// meanwhile reads the old content or the new, never a part.
///
/// Writers must keep each other out (see [`lock`]).
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".new");
    // What a writer left that was killed may have other rights than a new file gets.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// Which content a file has: enough to notice that it was replaced or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    number: u64,
    len: u64,
    modified: (i64, i64),
}

impl Version {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let about = fs::metadata(path)?;
        Ok(Self {
            number: about.ino(),
            len: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
        })
    }
}

/// Makes a file that must not be there yet.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Makes the name of a file, beside its content, outlive a loss of power.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// Waits until no other process holds the lock of the file at `path`, and holds it until dropped.
///
/// The lock is a file of its own: the file itself is replaced, and a lock on it would go with it.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, ".lock"))?;
    file.lock()?;
    Ok(file)
}
