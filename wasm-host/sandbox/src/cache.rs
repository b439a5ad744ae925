//! Images and compiled guests on disk, found by the hash of all they depend on.
//!
//! A file that does not match its hash is reported on standard error and made again. Files are
//! written under another name and renamed, so several processes may share a cache. The folder is
//! the user's alone (mode 700): machine code in it is run.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lethe_server::ModelInfo;

use super::image::{Image, ImageError};
use crate::model_file::Content;

/// Images beyond so many bytes in all are removed, those first that were not used longest.
const MOST_BYTES: u64 = 8 << 30;

/// The user's cache: `LETHE_CACHE_DIR`, or `lethe` in `XDG_CACHE_HOME` or `~/.cache`.
pub fn default_cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    folder("LETHE_CACHE_DIR")
        .or_else(|| folder("XDG_CACHE_HOME").map(|f| f.join("lethe")))
        .or_else(|| folder("HOME").map(|f| f.join(".cache/lethe")))
}

/// A folder of images and code, or nothing.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The cache in `folder`, which is made if need be; without one nothing is kept.
    pub fn new(folder: Option<&Path>) -> Self {
        let made = |folder: &&Path| {
            let result = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder);
            if let Err(error) = &result {
                eprintln!("lethe: no cache in {}: {error}", folder.display());
            }
            result.is_ok()
        };
        Self {
            folder: folder.filter(made).map(Path::to_path_buf),
        }
    }

    pub(super) fn is_on_disk(&self) -> bool {
        self.folder.is_some()
    }

    fn path(&self, key: &str, ending: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{key}.{ending}")))
    }

    /// The image with this key, if it is there and whole.
    pub(super) fn image(&self, key: &str) -> Option<Image> {
        let path = self.path(key, "image")?;
        match Image::open(&path) {
            Ok(image) => {
                // The time of its last use; where it cannot be noted, it is removed earlier.
                drop(fs::File::open(&path).map(|file| file.set_modified(SystemTime::now())));
                Some(image)
            }
            Err(ImageError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                eprintln!(
                    "lethe: cached image {}: {error}; making it again",
                    path.display()
                );
                None
            }
        }
    }

    /// Keeps an image, in memory where there is no disk for it.
    pub(super) fn keep_image(
        &self,
        key: &str,
        memory: &[u8],
        models: &[ModelInfo],
    ) -> Result<Image, ImageError> {
        if let Some(path) = self.path(key, "image") {
            match Image::save(&path, memory, models) {
                Ok(image) => {
                    self.trim();
                    return Ok(image);
                }
                Err(error) => eprintln!("lethe: cannot keep {}: {error}", path.display()),
            }
        }
        Ok(Image::in_memory(memory, models)?)
    }

    /// Removes the images that were not used for the longest time while all of them are more than
    /// [`MOST_BYTES`]. Whoever has one mapped keeps it.
    fn trim(&self) {
        let Some(folder) = &self.folder else { return };
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        let mut images: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let about = fs::metadata(&path).ok()?;
                let is_image = path.extension().is_some_and(|ending| ending == "image");
                is_image.then(|| Some((about.modified().ok()?, about.len(), path)))?
            })
            .collect();
        images.sort();
        let mut total: u64 = images.iter().map(|(_, len, _)| len).sum();
        // The newest one stays, however large it is.
        images.pop();
        for (_, len, path) in images {
            if total <= MOST_BYTES {
                break;
            }
            // Somebody else may have removed it meanwhile.
            drop(fs::remove_file(path));
            total -= len;
        }
    }

    /// The file of the code with this key, and the hash that it had.
    pub(super) fn code(&self, key: &str) -> Option<(PathBuf, [u8; 32])> {
        let hash = fs::read(self.path(key, "sha256")?).ok()?;
        Some((self.path(key, "cwasm")?, hash.try_into().ok()?))
    }

    /// Keeps code; a cache that cannot is slower, not wrong.
    pub(super) fn keep_code(&self, key: &str, code: &[u8], hash: &[u8; 32]) {
        let keep = |ending: &str, content: &[u8]| {
            let Some(path) = self.path(key, ending) else {
                return Ok(());
            };
            let temporary = path.with_extension(format!("{ending}.{}.tmp", std::process::id()));
            fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &path))
        };
        if let Err(error) = keep("cwasm", code).and_then(|()| keep("sha256", hash)) {
            eprintln!("lethe: cannot keep compiled code: {error}");
        }
    }
}

/// A name for what depends on its parts and on this version of Lethe. BLAKE3, since a model's whole
/// file is among them: SHA-256 would take most of a start.
pub(super) struct Key(blake3::Hasher);

impl Default for Key {
    fn default() -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(env!("CARGO_PKG_VERSION").as_bytes());
        Self(hash)
    }
}

impl Key {
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    pub(super) fn add_content(&mut self, part: &Content) -> io::Result<()> {
        self.0.update(&part.len().to_le_bytes());
        part.for_each_chunk(&mut |chunk| {
            self.0.update(chunk);
        })
    }

    pub(super) fn finish(self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}
