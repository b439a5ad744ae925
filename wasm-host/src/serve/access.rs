//! Who asks: API keys, tokens, or nobody where the server needs none.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use lethe_server::Problem;

use crate::tenants::{Authenticated, JwtVerifier, KeyFile, TenantLimits, Tenants};

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
    pub(super) limits: Arc<TenantLimits>,
    /// The request's name and route, for the audit trail.
    pub(super) request_id: Arc<str>,
    pub(super) route: &'static str,
}

/// Keys, tokens and limits, which can be exchanged while the server runs.
pub(super) struct Access {
    keys: Option<KeyFile>,
    tokens: Option<JwtVerifier>,
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
    pub(super) fn new(
        keys: Option<KeyFile>,
        tokens: Option<JwtVerifier>,
        admins: Vec<String>,
        tenants: Tenants,
    ) -> Self {
        Self {
            keys,
            tokens,
            admins,
            tenants: RwLock::new(Arc::new(tenants)),
        }
    }

    /// Whether requests need a key.
    pub(super) fn needs_key(&self) -> bool {
        self.keys.is_some() || self.tokens.is_some()
    }

    /// Exchanges the limits of tenants.
    pub(super) fn set_tenants(&self, tenants: Tenants) {
        *self.tenants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tenants);
    }

    /// Reads the keys again if they changed.
    pub(super) fn refresh(&self) {
        match self.keys.as_ref().map(KeyFile::refresh) {
            Some(Ok(true)) => tracing::info!("keys were read again"),
            Some(Err(error)) => tracing::error!(%error, "the keys read before stay"),
            Some(Ok(false)) | None => {}
        }
        match self.tokens.as_ref().map(JwtVerifier::refresh) {
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
        let limits = |tenant: &str| Arc::new(tenants.limits(tenant).clone());
        if !self.needs_key() {
            return Ok(Caller {
                tenant: ANYBODY.into(),
                key_id: "".into(),
                is_admin: true,
                limits: limits(ANYBODY),
                request_id: request_id.into(),
                route,
            });
        }
        let shown = shown_key(headers).ok_or_else(|| {
            let detail = "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY";
            Problem::new(401, "LETHE-KEY-MISSING", detail)
        })?;
        let found = self.authenticate(shown);
        let found = found
            .ok_or_else(|| Problem::new(401, "LETHE-KEY-UNKNOWN", "the key is not valid here"))?;
        Ok(Caller {
            is_admin: self.admins.contains(&found.tenant),
            limits: limits(&found.tenant),
            tenant: found.tenant.into(),
            key_id: found.key_id.into(),
            request_id: request_id.into(),
            route,
        })
    }

    fn authenticate(&self, shown: &str) -> Option<Authenticated> {
        if let Some(found) = self.keys.as_ref().and_then(|keys| keys.authenticate(shown)) {
            return Some(found);
        }
        match self.tokens.as_ref()?.authenticate(shown) {
            Ok(found) => Some(found),
            Err(reason) => {
                tracing::debug!(%reason, "a token was refused");
                None
            }
        }
    }
}

fn shown_key(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok();
    }
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

impl Caller {
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
