//! Model files: mapped, not read, and with them the files of weights beside them.
//!
//! ```text
//! folder/model.onnx    mapped; weights stay slices of the map
//! folder/weights.bin   mapped when an initializer names it; never a file outside of `folder`
//! ```

mod content;
pub(crate) mod mapping;

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use lethe_engine::Error;
use lethe_engine::onnx::{self, external_data::ExternalData, proto};

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
    /// External files already mapped, by location.
    mapped: Mutex<BTreeMap<String, Content>>,
}

impl ModelFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        let fail = |source| ModelFileError {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(fail)?;
        if file.metadata().map_err(fail)?.is_dir() {
            return Err(fail(std::io::ErrorKind::IsADirectory.into()));
        }
        let content = Content::map(file).map_err(fail)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        Ok(Self {
            content,
            folder: Some(folder.unwrap_or(Path::new(".")).into()),
            mapped: Mutex::default(),
        })
    }

    /// A model that came as bytes, with no folder: it has no external data.
    pub fn of_bytes(bytes: Bytes) -> Self {
        Self {
            content: bytes.into(),
            folder: None,
            mapped: Mutex::default(),
        }
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &Bytes {
        self.content.bytes()
    }

    /// The file's content.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The decoded model, whose weights are slices of the file.
    ///
    /// # Errors
    /// When the bytes are no ONNX model.
    pub fn decode(&self) -> Result<proto::Model, Error> {
        onnx::read_model(self.bytes().clone())
    }

    fn map(&self, location: &str) -> std::io::Result<Content> {
        let Some(folder) = &self.folder else {
            let reason = format!("{location:?} did not come with the model");
            return Err(std::io::Error::other(reason));
        };
        let path = folder.join(location).canonicalize()?;
        // A symbolic link inside of the folder may point out of it.
        if !path.starts_with(folder.canonicalize()?) {
            let reason = format!("{location:?} leads out of the model's folder");
            return Err(std::io::Error::other(reason));
        }
        let file = File::open(path)?;
        match file.metadata()?.is_file() {
            true => Content::map(file),
            false => Err(std::io::Error::other(format!("{location:?} is no file"))),
        }
    }

    /// The content of a file beside it.
    ///
    /// # Errors
    /// A reason, where it cannot be had.
    pub fn beside(&self, location: &str) -> Result<Content, String> {
        let mut mapped = self
            .mapped
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(content) = mapped.get(location) {
            return Ok(content.clone());
        }
        let content = self.map(location).map_err(|e| e.to_string())?;
        mapped.insert(location.into(), content.clone());
        Ok(content)
    }
}

impl ExternalData for ModelFile {
    fn open(&self, location: &str) -> Result<Bytes, String> {
        Ok(self.beside(location)?.bytes().clone())
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
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.join("secret"), folder.join("link")).unwrap();
        let file = ModelFile::open(&folder.join("model.onnx")).unwrap();
        assert_eq!(
            file.open("weights").as_deref(),
            Ok(&b"weights"[..]),
            "a file beside the model"
        );
        #[cfg(unix)]
        assert!(file.open("link").unwrap_err().contains("out of the model"));
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
}
