//! What a server keeps when it gives up its rights.

use std::path::{Path, PathBuf};

use crate::harden::{self, Confinement, Dumpable};
use crate::serve::settings::Given;
use lethe_sandbox::default_cache_folder;

/// Gives up what `lethe serve` with these settings and models does not need: files beside its own,
/// starting programs, looking into others, core dumps. To be called before threads are started.
///
/// # Errors
/// A sentence that says what the system refuses.
pub(super) fn confine(
    given: &Given,
    models: &[PathBuf],
    config: Option<&Path>,
) -> Result<harden::Hardening, String> {
    lethe_sandbox::prepare();
    let parent = |path: &Path| -> PathBuf {
        match path.parent() {
            Some(parent) if parent != Path::new("") => parent.into(),
            _ => ".".into(),
        }
    };
    // Files that are replaced are other files then: their folders are kept.
    let files = [
        &given.keys,
        &given.jwt_jwks,
        &given.tls_cert,
        &given.tls_key,
    ];
    let files = files
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .chain(config);
    let read = files.chain(models.iter().map(PathBuf::as_path)).map(parent);
    let mut read: Vec<PathBuf> = read.chain(given.models.clone()).collect();
    let written = [&given.audit, &given.signing_key, &given.unix_socket];
    let mut write: Vec<PathBuf> = written
        .into_iter()
        .flatten()
        .map(|path| parent(path))
        .collect();
    if let Some(cache) = default_cache_folder() {
        // Made now: what is not there cannot be kept.
        if std::fs::create_dir_all(&cache).is_ok() {
            write.push(cache);
        }
    }
    if given.enable_upload == Some(true) {
        write.extend(given.models.clone());
    }
    for paths in [&mut read, &mut write] {
        paths.sort();
        paths.dedup();
        paths.retain(|path| path.exists());
    }
    harden::no_core_dumps(Dumpable::No).map_err(|error| format!("core dumps: {error}"))?;
    let port = given.port.unwrap_or(8080);
    let keep = Confinement {
        read,
        write,
        tcp_bind: (port != 0).then(|| vec![port]),
        tcp_connect: given.otlp_endpoint.is_none().then(Vec::new),
    };
    harden::confine(&keep).map_err(|error| error.to_string())
}
