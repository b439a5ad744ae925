//! Ed25519 keys of the server: they sign the audit log's checkpoints and receipts.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::private_file;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningKeyError {
    /// The file cannot be read or written.
    #[error("signing key {path}: cannot {what}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no PKCS#8 document of an Ed25519 key.
    #[error("signing key {path}: no Ed25519 key in PKCS#8")]
    Corrupt {
        /// Which file.
        path: PathBuf,
    },
    /// Others than its owner may read the file.
    #[error(
        "signing key {path} has mode {mode:o}: others than its owner may use it; run chmod 600"
    )]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// A key that signs.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public_key())
    }
}

impl SigningKey {
    /// Reads the key in the file at `path`, or makes one where there is none: PKCS#8, readable for
    /// its owner only. The public key is written beside it, in `<path>.pub`.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is no key.
    pub fn open_or_create(path: &Path) -> Result<Self, SigningKeyError> {
        match Self::open(path) {
            Err(SigningKeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            }
            found => return found,
        }
        let failed = |what| move |source| io_error(path, what, source);
        let _lock = private_file::lock(path).map_err(failed("lock"))?;
        if path.exists() {
            // Another process was faster.
            return Self::open(path);
        }
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let document = document.map_err(|_| SigningKeyError::Random)?;
        private_file::replace(path, document.as_ref()).map_err(failed("write"))?;
        let key = Self::open(path)?;
        let public = format!("{}\n", key.public_key());
        fs::write(private_file::beside(path, ".pub"), public).map_err(failed("export"))?;
        Ok(key)
    }

    /// Reads the key in the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, is no key, or others may read it.
    pub fn open(path: &Path) -> Result<Self, SigningKeyError> {
        let failed = |source| io_error(path, "read", source);
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.into();
            return Err(SigningKeyError::Mode { path, mode });
        }
        let document = Zeroizing::new(fs::read(path).map_err(failed)?);
        let key = Ed25519KeyPair::from_pkcs8(&document);
        key.map(Self)
            .map_err(|_| SigningKeyError::Corrupt { path: path.into() })
    }

    /// A key that is kept nowhere.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn ephemeral() -> Result<Self, SigningKeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let document = document.map_err(|_| SigningKeyError::Random)?;
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref());
        key.map(Self).map_err(|_| SigningKeyError::Random)
    }

    /// What others check signatures with.
    pub fn public_key(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref().try_into();
        PublicKey(bytes.expect("an Ed25519 key has 32 bytes"))
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.0.sign(message);
        let bytes = signature.as_ref().try_into();
        bytes.expect("an Ed25519 signature has 64 bytes")
    }
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> SigningKeyError {
    SigningKeyError::Io {
        path: path.into(),
        what,
        source,
    }
}

/// A public key; as text, base64url of its 32 bytes, like `x` in a JWK.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }

    /// A key from its text, or from the file of that name that holds it.
    ///
    /// # Errors
    /// When it is neither.
    pub fn from_text_or_file(text: &str) -> Result<Self, PublicKeyError> {
        text.parse().or_else(|_| {
            let content = fs::read_to_string(text).map_err(|_| PublicKeyError)?;
            content.trim().parse()
        })
    }
}

/// What is given as a public key is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("public key: expected 43 characters of base64url, or a file that holds them")]
pub struct PublicKeyError;

impl FromStr for PublicKey {
    type Err = PublicKeyError;
    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| PublicKeyError)?;
        bytes.try_into().map(Self).map_err(|_| PublicKeyError)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let key = SigningKey::open_or_create(&path).unwrap();
        let again = SigningKey::open_or_create(&path).unwrap();
        assert_eq!(key.public_key(), again.public_key());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let exported = folder.path().join("audit.key.pub");
        let exported = PublicKey::from_text_or_file(exported.to_str().unwrap());
        assert_eq!(exported, Ok(key.public_key()));
        assert!(!format!("{key:?}").contains("seed"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = SigningKey::open_or_create(&path).unwrap_err();
        assert!(matches!(error, SigningKeyError::Mode { mode: 0o644, .. }));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"no key").unwrap();
        let error = SigningKey::open_or_create(&path).unwrap_err();
        assert!(matches!(error, SigningKeyError::Corrupt { .. }));
    }

    #[test]
    fn signatures_are_of_one_key_and_one_message() {
        let [key, other] = [(); 2].map(|()| SigningKey::ephemeral().unwrap());
        let signature = key.sign(b"message");
        let public = key.public_key();
        assert_eq!(public.to_string().parse(), Ok(public));
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"another", &signature));
        assert!(!public.verifies(b"message", &signature[1..]));
        assert!(!public.verifies(b"message", b""));
        assert!(!other.public_key().verifies(b"message", &signature));
    }
}
