//! TLS: a certificate and its key, read again when the files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A certificate that can be exchanged while connections are open.
#[derive(Clone)]
pub(super) struct Tls(Arc<Shared>);

struct Shared {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<(Arc<ServerConfig>, Changed)>,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// When a file cannot be read, or they do not fit each other.
    pub(super) fn open(certificate: &Path, key: &Path) -> Result<Self, String> {
        let config = read(certificate, key)?;
        Ok(Self(Arc::new(Shared {
            certificate: certificate.into(),
            key: key.into(),
            current: RwLock::new((config, changed(certificate, key))),
        })))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self
            .0
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.0.clone())
    }

    /// Reads the files again if they changed; what cannot be used changes nothing.
    ///
    /// # Errors
    /// Why the new files are not used.
    pub(super) fn reload(&self) -> Result<bool, String> {
        let Shared {
            certificate,
            key,
            current,
        } = &*self.0;
        let now = changed(certificate, key);
        if now == current.read().unwrap_or_else(PoisonError::into_inner).1 {
            return Ok(false);
        }
        let config = read(certificate, key)?;
        *current.write().unwrap_or_else(PoisonError::into_inner) = (config, now);
        Ok(true)
    }
}

/// When certificate and key were changed. Both: the new one may be older than the other.
type Changed = [Option<SystemTime>; 2];

fn changed(certificate: &Path, key: &Path) -> Changed {
    let time = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|about| about.modified())
            .ok()
    };
    [time(certificate), time(key)]
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .map_err(|error| at(certificate, &error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| at(certificate, &error))?;
    if chain.is_empty() {
        return Err(at(certificate, &"no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| at(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        });
    let mut config = config.map_err(|error| at(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
