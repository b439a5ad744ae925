//! The audit log: who asked what, when, and how it ended. Never a payload.
//!
//! One JSON object a line. Each line holds the hash of the line before it and its own, so that no
//! line can be changed, removed, inserted or moved without the rest being written anew; and every
//! so often a *checkpoint* is signed, so that the rest cannot be written anew without the key.
//!
//! ```text
//! {"seq":1,"time":…,"kind":"open","public_key":…,                  "prev":"000…","hash":"a1…"}
//! {"seq":2,"time":…,"kind":"checkpoint","reason":"periodic",       "prev":"a1…", "hash":"b2…","signature":…}
//! {"seq":3,"time":…,"kind":"request","tenant":…,"status":200,…,    "prev":"b2…", "hash":"c3…"}
//! {"seq":4,"time":…,"kind":"refusals","count":40,"codes":{…},…     "prev":"c3…", "hash":"d4…"}
//! {"seq":5,"time":…,"kind":"change","subject":"model",…             "prev":"d4…", "hash":"e5…"}
//! {"seq":6,"time":…,"kind":"checkpoint","reason":"closed",         "prev":"e5…", "hash":"f6…","signature":…}
//! ```
//!
//! `hash` is SHA-256 over the line's bytes before `,"hash":`. A signature is Ed25519 over
//! `lethe-audit-checkpoint-v1`, the line's number and its hash, each on a line.
//!
//! - [`line`](mod@line): the lines.
//! - [`chain`]: checking them.
//! - [`log`]: writing them.
//! - [`unsigned`]: those that are not signed yet.

pub mod chain;
pub mod line;
pub mod log;
pub mod unsigned;

pub use chain::{Report, verify, verify_apart};
pub use line::{Change, Entry, Refusals};
pub use log::{AuditError, AuditLog, AuditSettings, WhenFull};
pub use unsigned::{Apart, Unsigned};
