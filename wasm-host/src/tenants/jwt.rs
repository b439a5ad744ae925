//! JSON web tokens that an issuer signed, as said by RFC 7519 and RFC 8725.
//!
//! What is checked: the signature with one of the issuer's public keys, whose algorithm is the
//! *key's* and never chosen by the token; `iss`, `aud`, `exp` (required) and `nbf`; a header that
//! asks for nothing unknown (`crit`); a tenant's name that is one. The token is never part of an
//! error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Authenticated, is_tenant_name};
use crate::private_file::Version;

/// Clocks of issuer and server may differ by so much.
const LEEWAY: Duration = Duration::from_secs(30);
/// Longest token that is looked at.
const TOKEN_BYTES: usize = 16 << 10;

/// The issuer of tokens and what must be in them: the section `[jwt]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be or hold.
    pub audience: String,
    /// A file with the issuer's public keys: a JWK set.
    pub jwks: PathBuf,
    /// The claim that names the tenant. `tenant` where it is none, and `sub` for tokens without
    /// that.
    #[serde(default)]
    pub tenant_claim: Option<String>,
}

/// Why the issuer's keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// The file cannot be read.
    #[error("key set {path}: cannot read: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no JWK set.
    #[error("key set {path} is no JWK set: {reason}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key that is no public key for signatures.
    #[error("key set {path}, key {key}: {reason}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Its `kid`, or its place in the set.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Why a token is refused: for logs; a client is told no more than 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtRefusal {
    /// It is not three pieces of base64url with JSON in them.
    #[error("the token is malformed")]
    Malformed,
    /// Its header asks for an extension.
    #[error("the token's header has critical extensions")]
    Critical,
    /// No key of the issuer has its `kid`, or it names none and there are several.
    #[error("the token was signed with an unknown key")]
    UnknownKey,
    /// Its algorithm is not the key's.
    #[error("the token's algorithm is not that of the key")]
    Algorithm,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim that must be there is missing or has another type.
    #[error("the token's claim {0} is missing or malformed")]
    Claim(&'static str),
    /// Another issuer's.
    #[error("the token has another issuer")]
    Issuer,
    /// For somebody else.
    #[error("the token has another audience")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// The name of the tenant has other characters than letters, digits and `. - _ @`.
    #[error("the token's tenant is no name of a tenant")]
    TenantName,
}

struct VerificationKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Checks tokens of one issuer.
pub struct JwtVerifier {
    settings: JwtSettings,
    keys: RwLock<Arc<Vec<VerificationKey>>>,
    version: Mutex<Option<Version>>,
}

impl std::fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtVerifier")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl JwtVerifier {
    /// Reads the issuer's keys.
    ///
    /// # Errors
    /// When the file cannot be read or holds a key that is no public key for signatures.
    pub fn open(settings: JwtSettings) -> Result<Self, JwksError> {
        let verifier = Self::with(settings, Vec::new());
        verifier.refresh()?;
        Ok(verifier)
    }

    fn with(settings: JwtSettings, keys: Vec<VerificationKey>) -> Self {
        Self {
            settings,
            keys: RwLock::new(Arc::new(keys)),
            version: Mutex::new(None),
        }
    }

    /// Reads the issuer's keys again if the file was replaced, and says whether it was: issuers
    /// change their keys from time to time.
    ///
    /// # Errors
    /// As [`JwtVerifier::open`]; the keys read before stay.
    pub fn refresh(&self) -> Result<bool, JwksError> {
        let path = &self.settings.jwks;
        let failed = |source| JwksError::Io {
            path: path.clone(),
            source,
        };
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Version::of(path).map_err(failed)?;
        if *version == Some(found) {
            return Ok(false);
        }
        let keys = read_keys(path, &fs::read_to_string(path).map_err(failed)?)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        *version = Some(found);
        Ok(true)
    }

    /// Whom a token names.
    ///
    /// # Errors
    /// The reason to refuse it.
    pub fn authenticate(&self, token: &str) -> Result<Authenticated, JwtRefusal> {
        self.authenticate_at(token, SystemTime::now())
    }

    fn authenticate_at(&self, token: &str, now: SystemTime) -> Result<Authenticated, JwtRefusal> {
        if token.len() > TOKEN_BYTES {
            return Err(JwtRefusal::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtRefusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtRefusal::Malformed)?;
        if payload.contains('.') {
            return Err(JwtRefusal::Malformed);
        }
        let header = Header::parse(header)?;
        let keys = self
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let key = choose(&keys, header.kid.as_deref())?;
        if header.alg != name(key.algorithm) {
            return Err(JwtRefusal::Algorithm);
        }
        // The algorithm is the key's: what the header says was only compared.
        let verify = jsonwebtoken::crypto::verify;
        match verify(signature, signed.as_bytes(), &key.key, key.algorithm) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(JwtRefusal::Signature),
        }
        let claims: Map<String, Value> = parse(payload)?;
        self.check(&claims, now)?;
        let key_id = key.id.as_deref().unwrap_or_default();
        // A key's id may be anything; it is the operator's, but it goes into logs.
        let safe = key_id.chars().filter(|c| !c.is_control()).take(64);
        Ok(Authenticated {
            tenant: self.tenant(&claims)?.into(),
            key_id: format!("jwt:{}", safe.collect::<String>()),
        })
    }

    fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<(), JwtRefusal> {
        match claims.get("iss") {
            Some(Value::String(issuer)) if *issuer == self.settings.issuer => {}
            Some(Value::String(_)) => return Err(JwtRefusal::Issuer),
            _ => return Err(JwtRefusal::Claim("iss")),
        }
        let audience = &self.settings.audience;
        let is_meant = match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one == audience),
            _ => return Err(JwtRefusal::Claim("aud")),
        };
        if !is_meant {
            return Err(JwtRefusal::Audience);
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (now, leeway) = (now.as_secs_f64(), LEEWAY.as_secs_f64());
        let expires = seconds(claims, "exp")?.ok_or(JwtRefusal::Claim("exp"))?;
        if now >= expires + leeway {
            return Err(JwtRefusal::Expired);
        }
        match seconds(claims, "nbf")? {
            Some(begins) if now + leeway < begins => Err(JwtRefusal::NotYet),
            _ => Ok(()),
        }
    }

    fn tenant<'a>(&self, claims: &'a Map<String, Value>) -> Result<&'a str, JwtRefusal> {
        let claim = match &self.settings.tenant_claim {
            Some(claim) => claims.get(claim),
            None => claims.get("tenant").or_else(|| claims.get("sub")),
        };
        let tenant = claim.and_then(Value::as_str);
        let tenant = tenant.ok_or(JwtRefusal::Claim("tenant"))?;
        match is_tenant_name(tenant) {
            true => Ok(tenant),
            false => Err(JwtRefusal::TenantName),
        }
    }
}

/// The key that a token names; without a name, the only one.
fn choose<'a>(
    keys: &'a [VerificationKey],
    id: Option<&str>,
) -> Result<&'a VerificationKey, JwtRefusal> {
    let found = match (id, keys) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
    };
    found.ok_or(JwtRefusal::UnknownKey)
}

/// A moment in seconds since 1970; one of another type is not the same as none.
fn seconds(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<f64>, JwtRefusal> {
    match claims.get(claim) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(JwtRefusal::Claim(claim)),
    }
}

struct Header {
    alg: String,
    kid: Option<String>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, JwtRefusal> {
        let header: Map<String, Value> = parse(text)?;
        if header.contains_key("crit") {
            return Err(JwtRefusal::Critical);
        }
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(JwtRefusal::Malformed),
        };
        Ok(Self {
            alg: text("alg")?.ok_or(JwtRefusal::Malformed)?,
            kid: text("kid")?,
        })
    }
}

fn parse(text: &str) -> Result<Map<String, Value>, JwtRefusal> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    let bytes = bytes.map_err(|_| JwtRefusal::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtRefusal::Malformed)
}

/// An algorithm's name in a token's header; only those that [`algorithm`] gives.
fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => "",
    }
}

/// The algorithm of a key: what it says, where that fits its type, or its type's usual one.
fn algorithm(jwk: &Jwk) -> Result<Algorithm, &'static str> {
    use KeyAlgorithm as K;
    let said = jwk.common.key_algorithm;
    let fits = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => match said {
            None | Some(K::RS256) => Algorithm::RS256,
            Some(K::RS384) => Algorithm::RS384,
            Some(K::RS512) => Algorithm::RS512,
            Some(K::PS256) => Algorithm::PS256,
            Some(K::PS384) => Algorithm::PS384,
            Some(K::PS512) => Algorithm::PS512,
            Some(_) => return Err("its algorithm is none of RSA's for signatures"),
        },
        AlgorithmParameters::EllipticCurve(key) => match (&key.curve, said) {
            (EllipticCurve::P256, None | Some(K::ES256)) => Algorithm::ES256,
            (EllipticCurve::P384, None | Some(K::ES384)) => Algorithm::ES384,
            _ => return Err("expected P-256 with ES256, or P-384 with ES384"),
        },
        AlgorithmParameters::OctetKeyPair(key) => match (&key.curve, said) {
            (EllipticCurve::Ed25519, None | Some(K::EdDSA)) => Algorithm::EdDSA,
            _ => return Err("expected Ed25519 with EdDSA"),
        },
        AlgorithmParameters::OctetKey(_) => {
            return Err("it is a shared secret, not a public key");
        }
    };
    Ok(fits)
}

fn read_keys(path: &Path, text: &str) -> Result<Vec<VerificationKey>, JwksError> {
    /// The set with its keys unread, so that one of them can be named.
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let corrupt = |reason: String| JwksError::Corrupt {
        path: path.into(),
        reason,
    };
    let set: Set = serde_json::from_str(text).map_err(|error| corrupt(error.to_string()))?;
    let mut keys: Vec<VerificationKey> = Vec::with_capacity(set.keys.len());
    for (i, value) in set.keys.iter().enumerate() {
        let id = value.get("kid").and_then(Value::as_str);
        let wrong = |reason| JwksError::Key {
            path: path.into(),
            key: id.map_or_else(|| format!("#{i}"), |id| format!("{id:?}")),
            reason,
        };
        if value.get("use").is_some_and(|usage| usage == "enc") {
            continue;
        }
        if value.get("d").is_some() {
            return Err(wrong(
                "it is a private key: the server needs the public one",
            ));
        }
        let jwk = Jwk::deserialize(value).map_err(|_| wrong("it is no JWK that is known here"))?;
        let algorithm = algorithm(&jwk).map_err(wrong)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| wrong("its numbers are malformed"))?;
        if id.is_some() && keys.iter().any(|key| key.id.as_deref() == id) {
            return Err(wrong("another key has the same kid"));
        }
        let id = id.map(Into::into);
        keys.push(VerificationKey { id, algorithm, key });
    }
    match keys.is_empty() {
        true => Err(corrupt("there is no key for signatures in it".into())),
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests;
