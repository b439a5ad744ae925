//! Who asks: API keys, tokens, or nobody where the server needs none.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use lethe_server::Problem;

use crate::tenants::{
    Authenticated, Authenticator, JwtVerifier, KeyFile, TenantLimits, Tenants, Unauthenticated,
};

/// The tenant of requests where no key is needed.
const ANYBODY: &str = "anonymous";

/// Whom a request comes from, and what they may.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) tenant: Arc<str>,
    /// Which key they showed; empty where none is needed.
    pub(super) key_id: Arc<str>,
    /// Whether they may load models and see everybody's figures.
    pub(super) is_admin: bool,
    /// The limits as they were when the request came.
    tenants: Arc<Tenants>,
    /// The request's name and route, for the audit trail.
    pub(super) request_id: Arc<str>,
    pub(super) route: &'static str,
}

/// Keys, tokens and limits, which can be exchanged while the server runs.
pub(super) struct Access {
    who: Authenticator,
    admins: Vec<String>,
    tenants: RwLock<Arc<Tenants>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("needs_key", &self.needs_key())
            .finish_non_exhaustive()
    }
}

impl Access {
    pub(super) fn new(who: Authenticator, admins: Vec<String>, tenants: Tenants) -> Self {
        Self {
            who,
            admins,
            tenants: RwLock::new(Arc::new(tenants)),
        }
    }

    /// Whether requests need a key.
    pub(super) fn needs_key(&self) -> bool {
        self.who.keys.is_some() || self.who.tokens.is_some()
    }

    /// Exchanges the limits of tenants.
    pub(super) fn set_tenants(&self, tenants: Tenants) {
        *self.tenants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tenants);
    }

    /// Reads the keys again if they changed.
    pub(super) fn refresh(&self) {
        match self.who.keys.as_ref().map(KeyFile::refresh) {
            Some(Ok(true)) => tracing::info!("keys were read again"),
            Some(Err(error)) => tracing::error!(%error, "the keys read before stay"),
            Some(Ok(false)) | None => {}
        }
        match self.who.tokens.as_ref().map(JwtVerifier::refresh) {
            Some(Ok(true)) => tracing::info!("the keys of tokens were read again"),
            Some(Err(error)) => tracing::error!(%error, "the keys of tokens read before stay"),
            Some(Ok(false)) | None => {}
        }
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
    ) -> Result<Caller, Problem> {
        let tenants = self
            .tenants
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if !self.needs_key() {
            return Ok(Caller {
                tenant: ANYBODY.into(),
                key_id: "".into(),
                is_admin: true,
                tenants,
                request_id: request_id.into(),
                route,
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
        Ok(Caller {
            is_admin: self.admins.contains(&found.tenant),
            tenants,
            tenant: found.tenant.into(),
            key_id: found.key_id.into(),
            request_id: request_id.into(),
            route,
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

impl Caller {
    /// What their tenant may use.
    pub(super) fn limits(&self) -> &TenantLimits {
        self.tenants.limits(&self.tenant)
    }

    /// Refuses who may not load models or see everybody's figures.
    ///
    /// # Errors
    /// 403.
    pub(super) fn check_admin(&self) -> Result<(), Problem> {
        if self.is_admin {
            return Ok(());
        }
        let detail = "this tenant may not do that: see the setting admin_tenants";
        Err(Problem::new(403, "LETHE-FORBIDDEN", detail))
    }

    /// The tenant that figures are shown of; all of them for an administrator.
    pub(super) fn sees(&self) -> Option<&str> {
        (!self.is_admin).then_some(&*self.tenant)
    }
}
