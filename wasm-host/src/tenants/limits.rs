//! What each tenant may use: the section `[tenants]` of the settings.
//!
//! ```toml
//! [tenants.default]
//! requests_per_second = 50
//! burst = 100
//! concurrent = 4
//!
//! [tenants.overrides.acme]
//! requests_per_second = 500
//! models = ["digits"]
//! ```
//!
//! An override says what differs; the rest is the default's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_tenant_name;

/// What one tenant may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimits {
    /// Requests a second over time; none for as many as there is room for.
    pub requests_per_second: Option<f64>,
    /// Requests that may come at once after a pause; as many as a second's where it is none.
    pub burst: Option<u32>,
    /// Runs at the same time; further requests wait.
    pub concurrent: Option<usize>,
    /// Largest body of a request.
    pub body_bytes: u64,
    /// Longest run of a request: others wait for as long at most where every permit is taken.
    pub compute_ms: u64,
    /// Milliseconds of runs for each second that passes, over all requests; 1000 is one processor
    /// where runs have one thread.
    pub compute_ms_per_second: Option<f64>,
    /// Memory of one run.
    pub memory_bytes: u64,
    /// Sessions at the same time.
    pub sessions: usize,
    /// Names of the models it may use; none for all.
    pub models: Option<Vec<String>>,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            requests_per_second: None,
            burst: None,
            concurrent: None,
            body_bytes: 64 << 20,
            compute_ms: 10_000,
            compute_ms_per_second: None,
            memory_bytes: 4 << 30,
            sessions: 4,
            models: None,
        }
    }
}

impl TenantLimits {
    /// Whether the tenant may use a model.
    pub fn allows_model(&self, name: &str) -> bool {
        let allowed = self.models.as_ref();
        allowed.is_none_or(|models| models.iter().any(|model| model == name))
    }

    fn check(&self, whose: &str) -> Result<(), LimitsError> {
        let wrong = |field, expected| {
            Err(LimitsError::Value {
                whose: whose.into(),
                field,
                expected,
            })
        };
        let is_rate = |rate: Option<f64>| rate.is_none_or(|rate| rate.is_finite() && rate > 0.0);
        if !is_rate(self.requests_per_second) {
            return wrong("requests_per_second", "a number above 0");
        }
        if !is_rate(self.compute_ms_per_second) {
            return wrong("compute_ms_per_second", "a number above 0");
        }
        if self.burst == Some(0) {
            return wrong("burst", "at least 1");
        }
        if self.burst.is_some() && self.requests_per_second.is_none() {
            return wrong("burst", "requests_per_second beside it");
        }
        if self.concurrent == Some(0) {
            return wrong("concurrent", "at least 1");
        }
        Ok(())
    }
}

/// Limits that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A number that makes no sense.
    #[error("limits of {whose}: {field}: expected {expected}")]
    Value {
        /// `default`, or the tenant's name.
        whose: String,
        /// Which number.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// A tenant's name that no key or token can have.
    #[error("limits of {0:?}: a tenant's name has 1 to 64 letters, digits and . - _ @")]
    TenantName(String),
}

/// The limits of all tenants.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Section")]
pub struct Tenants {
    default: TenantLimits,
    overrides: BTreeMap<String, TenantLimits>,
}

impl Tenants {
    /// Limits for tenants that have none of their own, and for those that have.
    ///
    /// # Errors
    /// When a limit makes no sense.
    pub fn new(
        default: TenantLimits,
        overrides: BTreeMap<String, TenantLimits>,
    ) -> Result<Self, LimitsError> {
        default.check("default")?;
        for (tenant, limits) in &overrides {
            if !is_tenant_name(tenant) {
                return Err(LimitsError::TenantName(tenant.clone()));
            }
            limits.check(tenant)?;
        }
        Ok(Self { default, overrides })
    }

    /// The limits of a server whose requests are all of one: none on the time of a run but the
    /// request's own.
    pub fn alone() -> Self {
        Self {
            default: TenantLimits {
                compute_ms: u64::MAX,
                ..TenantLimits::default()
            },
            ..Self::default()
        }
    }

    /// The limits of a tenant.
    pub fn limits(&self, tenant: &str) -> &TenantLimits {
        self.overrides.get(tenant).unwrap_or(&self.default)
    }

    /// The largest body that any tenant may send.
    pub fn largest_body_bytes(&self) -> u64 {
        let overrides = self.overrides.values().map(|limits| limits.body_bytes);
        overrides.fold(self.default.body_bytes, u64::max)
    }
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default)]
    default: TenantLimits,
    #[serde(default)]
    overrides: BTreeMap<String, Override>,
}

/// What differs from the default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    requests_per_second: Option<f64>,
    burst: Option<u32>,
    concurrent: Option<usize>,
    body_bytes: Option<u64>,
    compute_ms: Option<u64>,
    compute_ms_per_second: Option<f64>,
    memory_bytes: Option<u64>,
    sessions: Option<usize>,
    models: Option<Vec<String>>,
}

impl TryFrom<Section> for Tenants {
    type Error = LimitsError;

    fn try_from(section: Section) -> Result<Self, LimitsError> {
        let Section { default, overrides } = section;
        let merge = |(tenant, own): (String, Override)| {
            let d = default.clone();
            // The default's burst belongs to the default's rate.
            let burst = match own.requests_per_second {
                Some(_) => own.burst,
                None => own.burst.or(d.burst),
            };
            let limits = TenantLimits {
                requests_per_second: own.requests_per_second.or(d.requests_per_second),
                burst,
                concurrent: own.concurrent.or(d.concurrent),
                body_bytes: own.body_bytes.unwrap_or(d.body_bytes),
                compute_ms: own.compute_ms.unwrap_or(d.compute_ms),
                compute_ms_per_second: own.compute_ms_per_second.or(d.compute_ms_per_second),
                memory_bytes: own.memory_bytes.unwrap_or(d.memory_bytes),
                sessions: own.sessions.unwrap_or(d.sessions),
                models: own.models.or(d.models),
            };
            (tenant, limits)
        };
        let overrides = overrides.into_iter().map(merge).collect();
        Self::new(default, overrides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_say_what_differs() {
        let tenants: Tenants = toml::from_str(
            "[default]\nrequests_per_second = 5\nburst = 9\nconcurrent = 2\n\
             [overrides.acme]\nrequests_per_second = 50\nmodels = ['digits']\n\
             [overrides.other]\nburst = 20\nsessions = 9\n",
        )
        .unwrap();
        let default = tenants.limits("anyone");
        assert_eq!((default.burst, default.concurrent), (Some(9), Some(2)));
        assert!(default.allows_model("vibration"));
        let acme = tenants.limits("acme");
        assert_eq!(acme.requests_per_second, Some(50.0));
        assert_eq!((acme.burst, acme.concurrent), (None, Some(2)));
        assert!(acme.allows_model("digits") && !acme.allows_model("vibration"));
        let other = tenants.limits("other");
        assert_eq!(
            (other.requests_per_second, other.burst),
            (Some(5.0), Some(20))
        );
        assert_eq!((default.sessions, other.sessions), (4, 9));
        assert_eq!(toml::from_str::<Tenants>("").unwrap(), Tenants::default());
    }

    #[test]
    fn limits_that_make_no_sense_are_named() {
        let cases = [
            ("[default]\nrequests_per_second = 0", "requests_per_second"),
            (
                "[default]\nrequests_per_second = nan",
                "requests_per_second",
            ),
            (
                "[default]\ncompute_ms_per_second = -1",
                "compute_ms_per_second",
            ),
            ("[default]\nconcurrent = 0", "concurrent"),
            ("[default]\nrequests_per_second = 1\nburst = 0", "burst"),
            ("[default]\nburst = 5", "requests_per_second beside it"),
            ("[default]\nrequest_per_second = 5", "request_per_second"),
            ("[overrides.acme]\nmodel = 'x'", "model"),
            ("[overrides.acme]\nconcurrent = 0", "acme"),
            ("[overrides.'a b']\nconcurrent = 1", "a b"),
            ("[acme]\nconcurrent = 1", "acme"),
        ];
        for (text, named) in cases {
            let error = toml::from_str::<Tenants>(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
