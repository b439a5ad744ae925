//! Whom a request comes from, by the key or token that it shows.

use super::{Authenticated, JwtRefusal, JwtVerifier, KeyFile};

/// The ways in which a server knows its tenants.
#[derive(Debug, Default)]
pub struct Authenticator {
    /// API keys.
    pub keys: Option<KeyFile>,
    /// Tokens of an issuer.
    pub tokens: Option<JwtVerifier>,
}

/// Why a request is from nobody: for logs. A client is told 401 and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unauthenticated {
    /// The header is not there.
    #[error("no authorization header")]
    Missing,
    /// It is not of the scheme `Bearer`.
    #[error("the authorization header is not of the scheme Bearer")]
    Scheme,
    /// It is no key of this server, or a revoked one.
    #[error("an unknown or revoked key")]
    Key,
    /// It is a token that is refused.
    #[error(transparent)]
    Token(#[from] JwtRefusal),
}

impl Authenticator {
    /// Whom the value of a header `Authorization` names: `Bearer`, and an API key or a token.
    ///
    /// # Errors
    /// The reason for 401.
    pub fn authenticate(&self, header: Option<&str>) -> Result<Authenticated, Unauthenticated> {
        self.identify(bearer(header)?)
    }

    /// Whom an API key or a token names.
    ///
    /// # Errors
    /// The reason for 401.
    pub fn identify(&self, presented: &str) -> Result<Authenticated, Unauthenticated> {
        match (&self.keys, &self.tokens) {
            // A token has dots, and a key none.
            (_, Some(tokens)) if presented.contains('.') => Ok(tokens.authenticate(presented)?),
            (Some(keys), _) => keys.authenticate(presented).ok_or(Unauthenticated::Key),
            (None, Some(_)) => Err(JwtRefusal::Malformed.into()),
            (None, None) => Err(Unauthenticated::Key),
        }
    }
}

/// What the value of a header `Authorization` shows: `Bearer`, and a secret.
///
/// # Errors
/// The reason for 401.
pub fn bearer(header: Option<&str>) -> Result<&str, Unauthenticated> {
    let header = header.ok_or(Unauthenticated::Missing)?.trim();
    let (scheme, secret) = header.split_once(' ').ok_or(Unauthenticated::Scheme)?;
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Ok(secret.trim()),
        false => Err(Unauthenticated::Scheme),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_a_tenant_or_say_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let new = KeyFile::create(&path, "acme", None).unwrap();
        let authenticator = Authenticator {
            keys: Some(KeyFile::open(&path).unwrap()),
            tokens: None,
        };
        let key = &*new.key;
        let cases = [
            (Some(format!("Bearer {key}")), Ok("acme")),
            (Some(format!(" bearer  {key} ")), Ok("acme")),
            (Some(format!("Bearer {key}x")), Err(Unauthenticated::Key)),
            (Some("Bearer a.b.c".into()), Err(Unauthenticated::Key)),
            (Some("Bearer ".into()), Err(Unauthenticated::Scheme)),
            (Some(key.into()), Err(Unauthenticated::Scheme)),
            (Some(format!("Basic {key}")), Err(Unauthenticated::Scheme)),
            (None, Err(Unauthenticated::Missing)),
        ];
        for (header, expected) in cases {
            let found = authenticator.authenticate(header.as_deref());
            let found = found.as_ref().map(|found| &*found.tenant);
            assert_eq!(found.map_err(|error| *error), expected, "{header:?}");
        }
        // Where there are no keys and no tokens nobody is known.
        let header = format!("Bearer {key}");
        let found = Authenticator::default().authenticate(Some(&header));
        assert_eq!(found, Err(Unauthenticated::Key));
    }
}
