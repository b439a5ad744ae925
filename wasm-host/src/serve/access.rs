//! Who asks: API keys, tokens, or nobody where the server needs none.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lethe_server::Problem;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::tenants::{
    Authenticated, Authenticator, JwtVerifier, KeyFile, TenantLimits, Tenants, Unauthenticated,
    bearer,
};

/// The tenant of requests where no key is needed.
const ANYBODY: &str = "anonymous";

/// Whom a request comes from, and what they may.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) tenant: Arc<str>,
    /// Which key they showed; empty where none is needed.
    pub(super) key_id: Arc<str>,
    /// Whether they see everybody's figures.
    pub(super) is_admin: bool,
    /// Whether they may load and unload models.
    control: Control,
    /// The limits as they were when the request came.
    tenants: Arc<Tenants>,
    /// The request's name and route, for the audit trail.
    pub(super) request_id: Arc<str>,
    pub(super) route: &'static str,
    /// Where the request came from; a Unix socket has no address.
    pub(super) peer: Option<IpAddr>,
}

/// Whether somebody may load and unload models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    May,
    /// Not this tenant.
    MayNot,
    /// Where no key is needed: the control token was not shown.
    NoToken,
    /// Another one was.
    WrongToken,
}

/// The secret by which models are loaded and unloaded where no keys are set: a page of somebody
/// else's, which anybody's browser may run, does not know it.
pub struct ControlToken(Zeroizing<String>);

impl ControlToken {
    const PREFIX: &str = "lethe-control-";

    /// A new one.
    ///
    /// # Errors
    /// A sentence, where the system has no randomness.
    fn draw() -> Result<Self, String> {
        let mut secret = Zeroizing::new([0; 32]);
        SystemRandom::new()
            .fill(&mut secret[..])
            .map_err(|_| "the system has no randomness")?;
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(&secret[..]));
        Ok(Self(Zeroizing::new(format!("{}{}", Self::PREFIX, *secret))))
    }

    /// The token as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(&self, shown: Option<&str>) -> Control {
        match shown {
            None => Control::NoToken,
            Some(shown) if bool::from(shown.as_bytes().ct_eq(self.0.as_bytes())) => Control::May,
            Some(_) => Control::WrongToken,
        }
    }
}

/// How the control token's bearer is called where a key has an id.
const TOKEN_ID: &str = "control-token";

/// Keys, tokens and limits, which can be exchanged while the server runs.
pub(super) struct Access {
    who: Authenticator,
    admins: Vec<String>,
    tenants: RwLock<Arc<Tenants>>,
    /// Where no keys are set.
    token: Option<ControlToken>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("needs_key", &self.needs_key())
            .finish_non_exhaustive()
    }
}

impl Access {
    /// # Errors
    /// A sentence, where the system has no randomness.
    pub(super) fn new(
        who: Authenticator,
        admins: Vec<String>,
        tenants: Tenants,
    ) -> Result<Self, String> {
        let needs_key = who.keys.is_some() || who.tokens.is_some();
        Ok(Self {
            who,
            admins,
            tenants: RwLock::new(Arc::new(tenants)),
            token: (!needs_key).then(ControlToken::draw).transpose()?,
        })
    }

    /// Whether requests need a key.
    pub(super) fn needs_key(&self) -> bool {
        self.token.is_none()
    }

    /// The token of who loads and unloads models, where no keys are set.
    pub(super) fn control_token(&self) -> Option<&ControlToken> {
        self.token.as_ref()
    }

    /// Exchanges the limits of tenants.
    pub(super) fn set_tenants(&self, tenants: Tenants) {
        *self.tenants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tenants);
    }

    /// Reads the keys again if they changed, and says which did.
    pub(super) fn refresh(&self) -> impl Iterator<Item = &'static str> + use<> {
        fn read<E: std::fmt::Display>(
            what: &'static str,
            read: Option<Result<bool, E>>,
        ) -> Option<&'static str> {
            match read? {
                Ok(is_new) => is_new.then_some(what),
                Err(error) => {
                    tracing::error!(%error, "the {what} read before stay");
                    None
                }
            }
        }
        let Authenticator { keys, tokens } = &self.who;
        let keys = read("keys", keys.as_ref().map(KeyFile::refresh));
        let tokens = read("tokens", tokens.as_ref().map(JwtVerifier::refresh));
        keys.into_iter().chain(tokens)
    }

    /// Whom a request comes from.
    ///
    /// # Errors
    /// 401 without a key, or with one that is not known; it does not say which.
    pub(super) fn caller(
        &self,
        headers: &HeaderMap,
        request_id: &str,
        route: &'static str,
        peer: Option<IpAddr>,
    ) -> Result<Caller, Problem> {
        let tenants = self
            .tenants
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(token) = &self.token {
            let control = token.check(shown(headers));
            return Ok(Caller {
                tenant: ANYBODY.into(),
                key_id: match control {
                    Control::May => TOKEN_ID.into(),
                    _ => "".into(),
                },
                is_admin: true,
                control,
                tenants,
                request_id: request_id.into(),
                route,
                peer,
            });
        }
        let found = self.authenticate(headers).map_err(|reason| {
            tracing::debug!(%reason, "a request is from nobody");
            match reason {
                Unauthenticated::Missing | Unauthenticated::Scheme => {
                    let detail = "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY";
                    Problem::new(401, "LETHE-KEY-MISSING", detail)
                }
                Unauthenticated::Key | Unauthenticated::Token(_) => {
                    Problem::new(401, "LETHE-KEY-UNKNOWN", "the key is not valid here")
                }
            }
        })?;
        let is_admin = self.admins.contains(&found.tenant);
        Ok(Caller {
            is_admin,
            control: match is_admin {
                true => Control::May,
                false => Control::MayNot,
            },
            tenants,
            tenant: found.tenant.into(),
            key_id: found.key_id.into(),
            request_id: request_id.into(),
            route,
            peer,
        })
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, Unauthenticated> {
        if let Some(key) = headers.get("x-api-key") {
            let key = key.to_str().map_err(|_| Unauthenticated::Missing)?;
            return self.who.identify(key);
        }
        let value = headers.get(AUTHORIZATION);
        self.who
            .authenticate(value.and_then(|value| value.to_str().ok()))
    }
}

/// The secret that a request shows, in either header.
fn shown(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok();
    }
    bearer(headers.get(AUTHORIZATION)?.to_str().ok()).ok()
}

impl Caller {
    /// What their tenant may use.
    pub(super) fn limits(&self) -> &TenantLimits {
        self.tenants.limits(&self.tenant)
    }

    /// Refuses who may not see everybody's figures.
    ///
    /// # Errors
    /// 403.
    pub(super) fn check_admin(&self) -> Result<(), Problem> {
        match self.is_admin {
            true => Ok(()),
            false => Err(forbidden()),
        }
    }

    /// Refuses who may not load and unload models.
    ///
    /// # Errors
    /// 403 for tenants that may not, 401 without the control token where no keys are set.
    pub(super) fn check_control(&self) -> Result<(), Problem> {
        match self.control {
            Control::May => Ok(()),
            Control::MayNot => Err(forbidden()),
            Control::NoToken => {
                let detail = "a token is needed: Authorization: Bearer TOKEN, with the one that this \
                              server printed at its start";
                Err(Problem::new(401, "LETHE-KEY-MISSING", detail))
            }
            Control::WrongToken => {
                let detail = "the token is not the one that this server printed at its start";
                Err(Problem::new(401, "LETHE-KEY-UNKNOWN", detail))
            }
        }
    }

    /// The tenant that figures are shown of; all of them for an administrator.
    pub(super) fn sees(&self) -> Option<&str> {
        (!self.is_admin).then_some(&*self.tenant)
    }
}

fn forbidden() -> Problem {
    let detail = "this tenant may not do that: see the setting admin_tenants";
    Problem::new(403, "LETHE-FORBIDDEN", detail)
}
