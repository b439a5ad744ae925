//! Who asks, what they may use, and whose turn it is.
//!
//! ```text
//! header ─► keys or jwt ─► tenant ─► limits ─► admission ─► permit ─► run
//! ```
//!
//! - [`authenticator`]: the key or token of a request.
//! - [`keys`]: API keys, kept as hashes in a file.
//! - [`jwt`]: tokens that another party signed.
//! - [`limits`]: what each tenant may use.
//! - [`admission`]: rates, queues and fairness in front of the runs.

pub mod admission;
pub mod authenticator;
pub mod jwt;
pub mod keys;
pub mod limits;

pub use admission::{Admission, AdmissionSettings, AdmissionStats, Permit, Refusal};
pub use authenticator::{Authenticator, Unauthenticated, bearer};
pub use jwt::{JwtRefusal, JwtSettings, JwtVerifier};
pub use keys::KeyFile;
pub use limits::{TenantLimits, Tenants};

/// Whom a request comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authenticated {
    /// The tenant.
    pub tenant: String,
    /// Which key it showed: an API key's id, or `jwt:` and the id of the key that signed the token.
    pub key_id: String,
}

/// Longest name of a tenant.
pub const TENANT_NAME_BYTES: usize = 64;

/// Whether `name` can be a tenant's: letters, digits, `.`, `-`, `_` and `@`, at most
/// [`TENANT_NAME_BYTES`].
///
/// Names go into logs, metrics and the audit log; with these characters none of them can be
/// mistaken for something else there.
pub fn is_tenant_name(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b".-_@".contains(&c);
    (1..=TENANT_NAME_BYTES).contains(&name.len()) && name.bytes().all(fits)
}
