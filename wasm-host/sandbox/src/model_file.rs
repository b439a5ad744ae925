//! Model files, and with them the files of weights beside them.
//!
//! ```text
//! folder/model.onnx    read without its weights, which are read one by one when they are wanted
//! folder/weights.bin   opened when a tensor names it; never a file outside of `folder`
//! ```
//!
//! Only files are opened: a FIFO would be waited for, a device does something when it is opened. Weights
//! that have another name somewhere (a hard link) are refused as symbolic links out of the folder are: whoever
//! may put a name into the folder could so have any file read that lies on the same disk.

mod content;
mod outline;

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use lethe_engine::Error;
use lethe_engine::onnx::external_data::{ExternalData, ITSELF, piece_of};
use lethe_engine::onnx::{self, proto};
use lethe_engine::tensor::SharedBytes;
use rustix::fs::OFlags;

pub use content::Content;

/// A model file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct ModelFileError {
    /// The file.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: std::io::Error,
}

/// A model's bytes and the folder it may take external data from.
#[derive(Debug)]
pub struct ModelFile {
    content: Content,
    /// `None` for a model that came without one.
    folder: Option<PathBuf>,
    /// When nobody waits for what is in it any more.
    until: Option<Instant>,
    /// External files already opened, by location.
    opened: Mutex<BTreeMap<String, Content>>,
}

impl ModelFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        Self::open_until(path, None)
    }

    /// As [`ModelFile::open`]; it and the files beside it are read until then, and no longer.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_until(path: &Path, until: Option<Instant>) -> Result<Self, ModelFileError> {
        let fail = |source| ModelFileError {
            path: path.into(),
            source,
        };
        let file = open_file(path, OFlags::empty()).map_err(fail)?;
        let content = Content::of(file, until).map_err(fail)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        Ok(Self {
            content,
            folder: Some(folder.unwrap_or(Path::new(".")).into()),
            until,
            opened: Mutex::default(),
        })
    }

    /// A model that came as bytes, with no folder: it has no external data.
    pub fn of_bytes(bytes: Bytes) -> Self {
        Self {
            content: bytes.into(),
            folder: None,
            until: None,
            opened: Mutex::default(),
        }
    }

    /// Whether the file begins so.
    pub fn begins_with(&self, bytes: &[u8]) -> bool {
        let piece = self.content.piece(0, bytes.len() as u64);
        piece.is_ok_and(|piece| *piece == *bytes)
    }

    /// The file's content.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The decoded model. Its long weights are still in the file, from where loading it takes them: it
    /// needs this [`ExternalData`].
    ///
    /// # Errors
    /// When the file cannot be read or is no ONNX model.
    pub fn decode(&self) -> Result<proto::Model, Error> {
        let outline = self.content.outline().map_err(|error| {
            Error::malformed(match error.kind() {
                ErrorKind::InvalidData => error.to_string(),
                _ => format!("the file cannot be read: {error}"),
            })
        })?;
        onnx::read_model(outline)
    }

    fn open_beside(&self, location: &str) -> io::Result<Content> {
        let Some(folder) = &self.folder else {
            let reason = format!("{location:?} did not come with the model");
            return Err(io::Error::other(reason));
        };
        let path = folder.join(location).canonicalize()?;
        // A symbolic link inside of the folder may point out of it.
        if !path.starts_with(folder.canonicalize()?) {
            let reason = format!("{location:?} leads out of the model's folder");
            return Err(io::Error::other(reason));
        }
        // Nor is one followed that was put there since.
        let file = open_file(&path, OFlags::NOFOLLOW)?;
        let names = file.metadata()?.nlink();
        if names > 1 {
            let reason = format!(
                "{location:?} is a hard link, a file of {names} names, which may be outside of the \
                 model's folder: put a copy there"
            );
            return Err(io::Error::other(reason));
        }
        Content::of(file, self.until)
    }

    /// The content of a file beside it.
    ///
    /// # Errors
    /// A reason, where it cannot be had.
    pub fn beside(&self, location: &str) -> Result<Content, String> {
        let mut opened = self
            .opened
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(content) = opened.get(location) {
            return Ok(content.clone());
        }
        let content = self.open_beside(location).map_err(|e| e.to_string())?;
        opened.insert(location.into(), content.clone());
        Ok(content)
    }
}

/// Opens what is a file, without waiting for anybody at the other end of what is none.
fn open_file(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | more).bits();
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags.cast_signed());
    let file = file.open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    match kind.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(
            "expected a file, found a pipe, socket or device",
        )),
    }
}

impl ExternalData for ModelFile {
    fn open(&self, location: &str) -> Result<Bytes, String> {
        self.beside(location)?.bytes().map_err(|e| e.to_string())
    }

    fn read(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<SharedBytes, String> {
        let content = match location {
            ITSELF => self.content.clone(),
            beside => self.beside(beside)?,
        };
        let range = piece_of(location, content.len(), offset, length)?;
        let piece = content.piece(range.start, range.end - range.start);
        piece.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_data_stays_in_the_folder() {
        let root = std::env::temp_dir().join(format!("lethe-model-file-{}", std::process::id()));
        let folder = root.join("model");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(root.join("secret"), "secret").unwrap();
        std::fs::write(folder.join("model.onnx"), "m").unwrap();
        std::fs::write(folder.join("weights"), "weights").unwrap();
        std::os::unix::fs::symlink(root.join("secret"), folder.join("link")).unwrap();
        let file = ModelFile::open(&folder.join("model.onnx")).unwrap();
        assert_eq!(
            file.open("weights").as_deref(),
            Ok(&b"weights"[..]),
            "a file beside the model"
        );
        assert!(file.open("link").unwrap_err().contains("out of the model"));
        std::fs::hard_link(root.join("secret"), folder.join("hard")).unwrap();
        let refused = file.open("hard").unwrap_err();
        assert!(
            refused.contains("hard link") && refused.contains("2 names"),
            "{refused}"
        );
        assert!(file.open("absent").is_err());
        assert!(ModelFile::open(&folder).is_err(), "a folder is no model");
        let alone = ModelFile::of_bytes(Bytes::from_static(b"m"));
        let absolute = folder.join("weights").display().to_string();
        assert!(
            alone.open("weights").is_err() && alone.open(&absolute).is_err(),
            "a model without a folder has no files"
        );
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn nobody_is_waited_for_at_the_other_end_of_a_pipe() {
        let folder = std::env::temp_dir().join(format!("lethe-fifo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("model.onnx"), "m").unwrap();
        let fifo = folder.join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        // On a thread of its own, which waits for ever where it should not.
        let (sender, refusals) = std::sync::mpsc::channel();
        let opened = (folder.join("model.onnx"), fifo);
        std::thread::spawn(move || {
            let (model, fifo) = opened;
            let as_model = ModelFile::open(&fifo).map(drop).map_err(|e| e.to_string());
            sender.send(as_model).unwrap();
            let as_weights = ModelFile::open(&model).unwrap().open("fifo").map(drop);
            sender.send(as_weights).unwrap();
        });
        for what in ["a model", "weights"] {
            let refused = refusals.recv_timeout(std::time::Duration::from_secs(20));
            let refused = refused
                .unwrap_or_else(|_| panic!("{what}: it waits"))
                .unwrap_err();
            assert!(refused.contains("expected a file"), "{what}: {refused}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
