//! API keys: `lethe_<id>_<secret>`, kept as hashes in a TOML file.
//!
//! ```toml
//! [[key]]
//! id = "5f0c2a9be1d34478"
//! tenant = "acme"
//! sha256 = "9f86d081…"
//! created = "2026-11-21T23:35:04.250Z"
//! revoked = "2026-12-01T08:00:00.000Z"
//! note = "laptop of the ward"
//! ```
//!
//! The secret is 32 random bytes. Slow hashes are for passwords, which can be guessed; 256 random
//! bits cannot, so SHA-256 is enough and costs a request nothing.
//!
//! A key is looked up by its id, which is no secret, and its hash is compared in constant time. For
//! an id that does not exist the same work is done, so that time does not tell which ids do.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Authenticated, is_tenant_name};
use crate::private_file::{self, Version};
use crate::timestamp;
use lethe_sandbox::hex;

const PREFIX: &str = "lethe_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const SECRET_CHARS: usize = 43;
/// Longest note.
const NOTE_BYTES: usize = 256;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Names the key; no secret.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// SHA-256 of the whole key, in hexadecimal digits.
    pub sha256: String,
    /// When it was made.
    pub created: String,
    /// Since when it is not accepted any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
    /// What its owner wrote beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("key file {path}: cannot {what}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// It is none.
    #[error("key file {path} is corrupt: {reason}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Others than its owner may read it.
    #[error("key file {path} has mode {mode:o}: others than its owner may use it; run chmod 600")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// No key has this id.
    #[error("no key has the id {0:?}")]
    UnknownId(String),
    /// The tenant's name has characters that it must not have.
    #[error("tenant {0:?}: expected 1 to 64 letters, digits and . - _ @")]
    TenantName(String),
    /// The note is long or has more than one line.
    #[error("note: expected one line of at most {NOTE_BYTES} bytes")]
    Note,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// A new key: the only time that its secret is seen.
#[derive(Debug)]
pub struct NewKey {
    /// What was written down.
    pub record: KeyRecord,
    /// What the client sends; wiped when dropped.
    pub key: Zeroizing<String>,
}

/// Keys in memory.
#[derive(Debug, Default)]
pub struct Keys {
    by_id: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    tenant: String,
    sha256: [u8; 32],
    revoked: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "key")]
    keys: Vec<KeyRecord>,
}

impl Document {
    fn parse(text: &str) -> Result<Self, String> {
        let document: Self = toml::from_str(text).map_err(|error| {
            // Its own message would quote the file.
            let line = |span: std::ops::Range<usize>| text[..span.start].lines().count().max(1);
            let line = error.span().map_or(0, line);
            format!("line {line}: {}", error.message())
        })?;
        let mut ids = std::collections::HashSet::new();
        for key in &document.keys {
            let wrong = |what: &str| Err(format!("key {:?}: {what}", key.id));
            if hex::decode::<ID_BYTES>(&key.id).is_none() || key.id.to_lowercase() != key.id {
                return wrong("the id is not 16 lower-case hexadecimal digits");
            }
            if hex::decode::<32>(&key.sha256).is_none() {
                return wrong("sha256 is not 64 hexadecimal digits");
            }
            if !is_tenant_name(&key.tenant) {
                return wrong(
                    "the tenant's name has other characters than letters, digits, . - _ @",
                );
            }
            if !ids.insert(&key.id) {
                return wrong("the id is there twice");
            }
        }
        Ok(document)
    }

    fn keys(&self) -> Keys {
        let entry = |record: &KeyRecord| {
            let entry = Entry {
                tenant: record.tenant.clone(),
                sha256: hex::decode(&record.sha256)?,
                revoked: record.revoked.is_some(),
            };
            Some((record.id.clone(), entry))
        };
        Keys {
            by_id: self.keys.iter().filter_map(entry).collect(),
        }
    }
}

impl Keys {
    /// Whom a key belongs to, if it is one and is not revoked.
    pub fn authenticate(&self, presented: &str) -> Option<Authenticated> {
        let (id, _) = split(presented)?;
        let found = self.by_id.get(id);
        let expected = found.map_or([0; 32], |entry| entry.sha256);
        let hash: [u8; 32] = Sha256::digest(presented).into();
        let is_equal = bool::from(hash.ct_eq(&expected));
        let entry = found.filter(|entry| is_equal && !entry.revoked)?;
        Some(Authenticated {
            tenant: entry.tenant.clone(),
            key_id: id.into(),
        })
    }
}

/// Id and secret of what looks like a key.
fn split(presented: &str) -> Option<(&str, &str)> {
    let rest = presented.strip_prefix(PREFIX)?;
    let (id, secret) = rest.split_at_checked(2 * ID_BYTES)?;
    let secret = secret.strip_prefix('_')?;
    (secret.len() == SECRET_CHARS).then_some((id, secret))
}

/// A file of keys, and its content in memory.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    keys: RwLock<Arc<Keys>>,
    version: Mutex<Option<Version>>,
}

impl KeyFile {
    /// Reads the keys in the file at `path`.
    ///
    /// # Errors
    /// When it is not there, cannot be read, is corrupt, or others than its owner may read it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyFileError> {
        let file = Self {
            path: path.into(),
            keys: RwLock::default(),
            version: Mutex::new(None),
        };
        file.refresh()?;
        Ok(file)
    }

    /// Whom a key belongs to, if it is one and is not revoked.
    pub fn authenticate(&self, presented: &str) -> Option<Authenticated> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.authenticate(presented)
    }

    /// Reads the file again if it was replaced, and says whether it was. A server calls this every
    /// second or so: keys that are revoked meanwhile are refused from then on.
    ///
    /// # Errors
    /// As [`KeyFile::open`]; the keys read before stay.
    pub fn refresh(&self) -> Result<bool, KeyFileError> {
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked for before the content is read: a change in between is noticed the next time.
        let found = Version::of(&self.path);
        let found = found.map_err(|source| io_error(&self.path, "read", source))?;
        if *version == Some(found) {
            return Ok(false);
        }
        let keys = Arc::new(read(&self.path)?.keys());
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        *version = Some(found);
        Ok(true)
    }

    /// Makes a key and adds it to the file at `path`, which need not be there yet.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a name cannot be used.
    pub fn create(path: &Path, tenant: &str, note: Option<&str>) -> Result<NewKey, KeyFileError> {
        if !is_tenant_name(tenant) {
            return Err(KeyFileError::TenantName(tenant.into()));
        }
        if note.is_some_and(|note| note.len() > NOTE_BYTES || note.contains(char::is_control)) {
            return Err(KeyFileError::Note);
        }
        let new = new_key(tenant, note)?;
        change(path, |document| {
            document.keys.push(new.record.clone());
            Ok(())
        })?;
        Ok(new)
    }

    /// What is known of the keys in the file at `path`, in the order they were made.
    ///
    /// # Errors
    /// As [`KeyFile::open`].
    pub fn list(path: &Path) -> Result<Vec<KeyRecord>, KeyFileError> {
        read(path).map(|document| document.keys)
    }

    /// Revokes a key; one that is revoked already keeps its moment.
    ///
    /// # Errors
    /// When no key has this id, or the file cannot be read or written.
    pub fn revoke(path: &Path, id: &str) -> Result<KeyRecord, KeyFileError> {
        change(path, |document| {
            let key = document.keys.iter_mut().find(|key| key.id == id);
            let key = key.ok_or_else(|| KeyFileError::UnknownId(id.into()))?;
            key.revoked.get_or_insert_with(timestamp::now);
            Ok(key.clone())
        })
    }
}

fn new_key(tenant: &str, note: Option<&str>) -> Result<NewKey, KeyFileError> {
    let random = SystemRandom::new();
    let mut id = [0; ID_BYTES];
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    random.fill(&mut id).map_err(|_| KeyFileError::Random)?;
    random
        .fill(&mut secret[..])
        .map_err(|_| KeyFileError::Random)?;
    let id = hex::encode(id);
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(&secret[..]));
    let key = Zeroizing::new(format!("{PREFIX}{id}_{}", *secret));
    let record = KeyRecord {
        id,
        tenant: tenant.into(),
        sha256: hex::encode(Sha256::digest(key.as_bytes())),
        created: timestamp::now(),
        revoked: None,
        note: note.map(Into::into),
    };
    Ok(NewKey { record, key })
}

/// Changes a file of keys while no one else does.
fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut Document) -> Result<T, KeyFileError>,
) -> Result<T, KeyFileError> {
    let failed = |what| move |source| io_error(path, what, source);
    let _lock = private_file::lock(path).map_err(failed("lock"))?;
    let mut document = match read(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Document::default()
        }
        document => document?,
    };
    let result = change(&mut document)?;
    let text = toml::to_string(&document).map_err(|error| KeyFileError::Corrupt {
        path: path.into(),
        reason: error.to_string(),
    })?;
    private_file::replace(path, text.as_bytes()).map_err(failed("write"))?;
    Ok(result)
}

fn read(path: &Path) -> Result<Document, KeyFileError> {
    let failed = |source| io_error(path, "read", source);
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.into();
        return Err(KeyFileError::Mode { path, mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Document::parse(&text).map_err(|reason| KeyFileError::Corrupt {
        path: path.into(),
        reason,
    })
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        path: path.into(),
        what,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_tenants_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let acme = KeyFile::create(&path, "acme", Some("the ward's \"laptop\"")).unwrap();
        let other = KeyFile::create(&path, "other", None).unwrap();
        let file = KeyFile::open(&path).unwrap();
        let found = file.authenticate(&acme.key).unwrap();
        assert_eq!((&*found.tenant, &found.key_id), ("acme", &acme.record.id));
        assert_eq!(file.authenticate(&other.key).unwrap().tenant, "other");

        assert!(!file.refresh().unwrap(), "nothing has changed");
        let revoked = KeyFile::revoke(&path, &acme.record.id).unwrap();
        assert!(revoked.revoked.is_some());
        assert_eq!(KeyFile::revoke(&path, &acme.record.id).unwrap(), revoked);
        assert!(file.refresh().unwrap());
        assert_eq!(file.authenticate(&acme.key), None);
        assert!(file.authenticate(&other.key).is_some());
        assert_eq!(KeyFile::list(&path).unwrap(), [revoked, other.record]);
        let unknown = KeyFile::revoke(&path, "0000000000000000").unwrap_err();
        assert!(matches!(unknown, KeyFileError::UnknownId(_)));
    }

    #[test]
    fn only_the_whole_key_is_accepted() {
        let new = new_key("acme", None).unwrap();
        let document = Document {
            keys: vec![new.record.clone()],
        };
        let keys = document.keys();
        assert!(keys.authenticate(&new.key).is_some());
        // Every byte counts.
        for i in 0..new.key.len() {
            let mut changed = new.key.as_bytes().to_vec();
            changed[i] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(keys.authenticate(&changed), None, "byte {i}");
        }
        let (key, id) = (&*new.key, &new.record.id);
        let cases = [
            "".into(),
            "lethe_".into(),
            key[1..].into(),
            key[..key.len() - 1].into(),
            format!("{key} "),
            format!("{key}A"),
            new.record.sha256.clone(),
            format!("lethe_{id}_"),
            format!("lethe_{}_{}", id.to_uppercase(), &key[23..]),
            format!("lethe_{}é_{}", &id[..15], &key[23..]),
        ];
        for wrong in cases {
            assert_eq!(keys.authenticate(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_file_is_private_and_holds_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let new = KeyFile::create(&path, "acme", None).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let (_, secret) = split(&new.key).unwrap();
        assert!(!text.contains(secret));
        assert!(text.contains(&new.record.sha256));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyFile::open(&path).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Mode { mode: 0o640, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_corrupt_file_is_an_error_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let good = new_key("acme", None).unwrap().record;
        let entry = |record: &KeyRecord| {
            let keys = vec![record.clone()];
            toml::to_string(&Document { keys }).unwrap()
        };
        let record = |change: fn(&mut KeyRecord)| {
            let mut record = good.clone();
            change(&mut record);
            entry(&record)
        };
        let cases = [
            ("not TOML", "[[key".into()),
            ("another field", "[[key]]\nname = 1".into()),
            ("half a file", entry(&good)[..60].into()),
            ("short hash", record(|r| r.sha256.truncate(10))),
            ("id", record(|r| r.id = "../x".into())),
            ("tenant", record(|r| r.tenant = "a\nb".into())),
            ("twice", entry(&good) + &entry(&good)),
        ];
        for (name, text) in cases {
            private_file::replace(&path, text.as_bytes()).unwrap();
            let error = KeyFile::open(&path).unwrap_err();
            assert!(
                matches!(error, KeyFileError::Corrupt { .. }),
                "{name}: {error}"
            );
            assert!(KeyFile::create(&path, "acme", None).is_err(), "{name}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "{name}");
        }
    }

    #[test]
    fn names_that_cannot_be_logged_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let long = "x".repeat(65);
        for tenant in ["", "a b", "a\n", "a/b", "é", &long] {
            let error = KeyFile::create(&path, tenant, None).unwrap_err();
            assert!(matches!(error, KeyFileError::TenantName(_)), "{tenant:?}");
        }
        let error = KeyFile::create(&path, "acme", Some("a\nb")).unwrap_err();
        assert!(matches!(error, KeyFileError::Note));
        assert!(!path.exists());
    }

    #[test]
    fn writers_at_the_same_time_lose_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        KeyFile::create(&path, "acme", None).unwrap();
                    }
                });
            }
        });
        assert_eq!(KeyFile::list(&path).unwrap().len(), 40);
    }

    #[test]
    fn a_file_that_breaks_later_leaves_the_keys_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let new = KeyFile::create(&path, "acme", None).unwrap();
        let file = KeyFile::open(&path).unwrap();
        private_file::replace(&path, b"[[key").unwrap();
        assert!(file.refresh().is_err());
        assert!(file.authenticate(&new.key).is_some());
    }
}
