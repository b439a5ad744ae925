//! Bad days of a server: clients that dribble, flood, lie and hang up; disks that are full, power
//! that goes, models that never end. After each of them the next good request gets its answer.
//!
//! And whom it serves, over HTTP: keys and tokens, limits, the audit trail, receipts, certificates.

#![cfg(target_os = "linux")]

#[path = "bad_days/bodies.rs"]
mod bodies;
#[path = "bad_days/certificates.rs"]
mod certificates;
#[path = "bad_days/clocks.rs"]
mod clocks;
#[path = "bad_days/collector.rs"]
mod collector;
#[path = "bad_days/connections.rs"]
mod connections;
#[path = "bad_days/disks.rs"]
mod disks;
#[path = "bad_days/endings.rs"]
mod endings;
#[path = "bad_days/guests.rs"]
mod guests;
#[path = "support/models.rs"]
mod models;
#[path = "bad_days/pages.rs"]
mod pages;
#[path = "bad_days/refusals.rs"]
mod refusals;
#[path = "bad_days/server.rs"]
mod server;
#[path = "support/serving.rs"]
mod serving;
#[path = "bad_days/sessions.rs"]
mod sessions;
#[path = "bad_days/streams.rs"]
mod streams;
#[path = "bad_days/tenancy.rs"]
mod tenancy;
#[path = "bad_days/together.rs"]
mod together;
#[path = "bad_days/traces.rs"]
mod traces;
#[path = "support/websocket.rs"]
mod websocket;
