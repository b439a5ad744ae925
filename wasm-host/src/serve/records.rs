//! What is written down beside the requests that run: models that come and go, keys and settings that
//! are read again, and who was turned away. Each is counted, a line of the log and one of the audit
//! trail.
//!
//! To be turned away costs nothing, and one can ask again at once. So that nobody fills a disk, the
//! first refusal of a source is a line, and what follows is counted into one line a second:
//!
//! ```text
//! refusal ─► source seen within a second? ─ no ─► line
//!                        └ yes ─► counted ─► (every second) one line for all
//! ```
//!
//! A source is a tenant, where requests show a key, or else an address; of IPv6 the network, of which
//! a client has as many addresses as it likes. Beyond [`MOST_SOURCES`] at a time they are counted
//! together.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lethe_server::Problem;
use tokio::time::Instant;

use super::access::Caller;
use super::figures::Figures;
use super::repository::ModelChange;
use crate::audit::{AuditError, AuditLog, Change, Entry, Refusals};

/// Sources that have lines of their own at the same time.
const MOST_SOURCES: usize = 32;
/// How long what a source is refused is counted before it is a line.
const WINDOW: Duration = Duration::from_secs(1);

/// What is written down beside the requests that run.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) audit: Option<AuditLog>,
    figures: Arc<Figures>,
    sources: Mutex<Sources>,
}

/// A request that was turned away.
#[derive(Debug, Clone, Default)]
pub(super) struct Refused {
    /// Whose it is, where a key was shown.
    pub(super) tenant: Arc<str>,
    pub(super) key_id: Arc<str>,
    pub(super) request_id: Arc<str>,
    pub(super) route: &'static str,
    /// Where it came from; a Unix socket has no address.
    pub(super) peer: Option<IpAddr>,
    /// The model that it named, if there is one of this name.
    pub(super) model: Option<String>,
}

impl From<&Caller> for Refused {
    fn from(caller: &Caller) -> Self {
        Self {
            tenant: caller.tenant.clone(),
            key_id: caller.key_id.clone(),
            request_id: caller.request_id.clone(),
            route: caller.route,
            peer: caller.peer,
            model: None,
        }
    }
}

impl Refused {
    fn source(&self) -> Source {
        match &*self.key_id {
            "" => Source::Address(self.peer.map(network)),
            _ => Source::Tenant(self.tenant.clone()),
        }
    }

    fn entry(&self, status: u16, code: &str) -> Entry {
        Entry {
            tenant: self.tenant.to_string(),
            key_id: self.key_id.to_string(),
            request_id: self.request_id.to_string(),
            route: self.route.into(),
            source: Some(address(self.peer)),
            model: self.model.clone(),
            status,
            code: Some(code.into()),
            ..Entry::default()
        }
    }
}

/// By whom refusals are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    Tenant(Arc<str>),
    Address(Option<IpAddr>),
    /// All that are more than can be counted one by one.
    Others,
}

/// The address, or of IPv6 the network that one client has at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

fn address(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "unix".into(), |peer| peer.to_canonical().to_string())
}

/// What was refused lately.
#[derive(Debug, Default)]
struct Sources(HashMap<Source, Window>);

/// What a source was refused since its last line.
#[derive(Debug)]
struct Window {
    since: Instant,
    count: u64,
    codes: BTreeMap<Cow<'static, str>, u64>,
}

impl Window {
    fn new(since: Instant) -> Self {
        Self {
            since,
            count: 0,
            codes: BTreeMap::new(),
        }
    }

    fn add(&mut self, code: Cow<'static, str>) {
        self.count += 1;
        *self.codes.entry(code).or_default() += 1;
    }
}

impl Sources {
    /// Counts a refusal, unless it is the source's first and has a line of its own: then it says so.
    fn add(&mut self, source: Source, code: Cow<'static, str>, now: Instant) -> bool {
        if let Some(window) = self.0.get_mut(&source) {
            window.add(code);
            return false;
        }
        if self.0.len() < MOST_SOURCES {
            self.0.insert(source, Window::new(now));
            return true;
        }
        let others = self.0.entry(Source::Others);
        others.or_insert_with(|| Window::new(now)).add(code);
        false
    }

    /// The windows that end now: what was counted in them, or of all that there are.
    fn ended(&mut self, now: Instant, all: bool) -> Vec<(Source, Window)> {
        let is_over = |window: &Window| all || now.duration_since(window.since) >= WINDOW;
        self.0
            .retain(|_, window| window.count > 0 || !is_over(window));
        let windows = self.0.iter_mut().filter(|(_, window)| is_over(window));
        let ended = windows.filter(|(_, window)| window.count > 0);
        ended
            .map(|(source, window)| {
                // Who goes on is counted on.
                let window = std::mem::replace(window, Window::new(now));
                (source.clone(), window)
            })
            .collect()
    }

    /// Takes back what could not be written down, to be counted with what follows.
    fn put_back(&mut self, source: Source, window: Window) {
        let into = self.0.entry(source);
        let into = into.or_insert_with(|| Window::new(window.since));
        into.since = window.since;
        into.count += window.count;
        for (code, count) in window.codes {
            *into.codes.entry(code).or_default() += count;
        }
    }
}

impl Records {
    pub(super) fn new(audit: Option<AuditLog>, figures: Arc<Figures>) -> Self {
        Self {
            audit,
            figures,
            sources: Mutex::default(),
        }
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        // Windows are changed as a whole.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down that a request was turned away.
    pub(super) fn refuse(&self, refused: &Refused, problem: &Problem) {
        self.refuse_with(refused, problem.status, problem.code.clone());
    }

    /// As [`Records::refuse`], of a problem whose status and code are known.
    pub(super) fn refuse_with(&self, refused: &Refused, status: u16, code: Cow<'static, str>) {
        self.figures.count_refusal(&code);
        let source = refused.source();
        let now = Instant::now();
        if !self.sources().add(source.clone(), code.clone(), now) {
            return;
        }
        tracing::info!(
            status,
            %code,
            reason = reason(&code),
            route = refused.route,
            model = refused.model,
            tenant = &*refused.tenant,
            source = address(refused.peer),
            "a request was turned away",
        );
        let written = self
            .audit
            .as_ref()
            .map(|audit| audit.record_refusal(refused.entry(status, &code)));
        if let Some(Err(AuditError::Full)) = written {
            self.sources().add(source, code, now);
        }
    }

    /// Writes down what was counted for a second, or all that there is.
    pub(super) fn write_refusals(&self, all: bool) {
        let now = Instant::now();
        let ended = self.sources().ended(now, all);
        for (source, window) in ended {
            let (tenant, from) = match &source {
                Source::Tenant(tenant) => (&**tenant, None),
                Source::Address(peer) => ("", Some(address(*peer))),
                Source::Others => ("", Some("others".to_owned())),
            };
            let refusals = Refusals {
                tenant: tenant.into(),
                source: from.clone(),
                count: window.count,
                codes: window.codes.clone(),
                within_ms: now.duration_since(window.since).as_millis() as u64,
            };
            let written = self
                .audit
                .as_ref()
                .map(|audit| audit.record_refusals(refusals));
            if let Some(Err(AuditError::Full)) = written {
                self.sources().put_back(source, window);
                continue;
            }
            tracing::info!(
                count = window.count,
                codes = ?window.codes,
                tenant,
                source = from,
                "more requests were turned away",
            );
        }
    }

    /// Writes down that keys, settings or a certificate were read.
    pub(super) fn read(&self, subject: &'static str, sha256: Option<String>) {
        tracing::info!("{subject}: read");
        self.write_change(Change {
            subject: subject.into(),
            change: "read".into(),
            sha256,
            ..Change::default()
        });
    }

    /// Writes down what became of a model.
    pub(super) fn model(&self, change: &ModelChange<'_>) {
        self.figures.count_model(change);
        let of_model = |name: &str, change: &str| Change {
            subject: "model".into(),
            change: change.into(),
            model: Some(name.into()),
            ..Change::default()
        };
        let change = match change {
            ModelChange::Loaded(loaded) => {
                let (model, load_us) = (&loaded.info().name, loaded.load_us);
                tracing::info!(model, load_us, "a model was loaded");
                Change {
                    sha256: loaded.sha256().map(Into::into),
                    duration_us: Some(load_us),
                    ..of_model(model, "loaded")
                }
            }
            ModelChange::Failed(model, problem) => {
                let (code, reason) = (&problem.code, &problem.detail);
                tracing::info!(model, %code, reason, "a model cannot be loaded");
                Change {
                    code: Some(code.to_string()),
                    ..of_model(model, "failed")
                }
            }
            ModelChange::Evicted(model) => {
                tracing::info!(model, "a model was unloaded to make room for another");
                of_model(model, "evicted")
            }
            ModelChange::Unloaded(model) => {
                tracing::info!(model, "a model was unloaded");
                of_model(model, "unloaded")
            }
        };
        self.write_change(change);
    }

    fn write_change(&self, change: Change) {
        let written = self.audit.as_ref().map(|audit| audit.record_change(change));
        if let Some(Err(error)) = written {
            tracing::error!(%error, "a change is not written down");
        }
    }
}

/// Why requests are turned away, in words of ours: a problem's detail may repeat the client's.
fn reason(code: &str) -> &'static str {
    match code {
        "LETHE-KEY-MISSING" => "no key",
        "LETHE-KEY-UNKNOWN" => "the key is not valid here",
        "LETHE-FORBIDDEN" => "the tenant may not do that",
        "LETHE-HOST" => "it calls by no name of this server",
        "LETHE-ORIGIN" => "a web page of another server asks",
        "LETHE-MODEL-UNKNOWN" => "the tenant has no such model",
        "LETHE-MODEL-UNLOADED" => "the model is unloaded",
        "LETHE-RATE" => "the tenant's rate is used up",
        "LETHE-QUEUE" => "the queue is full",
        "LETHE-SESSIONS" => "as many sessions are open as may be",
        "LETHE-OVERLOAD" => "the answer would come too late",
        "LETHE-DRAINING" => "the server is about to end",
        _ => "the model cannot be used",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> (Sources, Instant) {
        (Sources::default(), Instant::now())
    }

    fn of(address: &str) -> Source {
        Source::Address(Some(network(address.parse().unwrap())))
    }

    const CODE: Cow<'static, str> = Cow::Borrowed("LETHE-KEY-UNKNOWN");

    #[test]
    fn a_source_has_one_line_and_then_one_a_second() {
        let (mut sources, begun) = sources();
        let (a, b) = (of("192.0.2.1"), of("192.0.2.2"));
        assert!(sources.add(a.clone(), CODE, begun));
        assert!(sources.add(b.clone(), CODE, begun));
        let mut lines = 2;
        // Ten seconds of a flood from `a`; `b` is silent.
        for ms in 0..10_000 {
            let now = begun + Duration::from_millis(ms);
            lines += usize::from(sources.add(a.clone(), CODE, now));
            if ms % 250 == 0 {
                lines += sources.ended(now, false).len();
            }
        }
        let end = begun + Duration::from_secs(10);
        let last = sources.ended(end, true);
        assert_eq!(last.len(), 1);
        assert!((11..=12).contains(&(lines + 1)), "{lines}");
        // Both are forgotten after a second without one.
        let later = end + 2 * WINDOW;
        assert!(sources.ended(later, false).is_empty() && sources.0.is_empty());
        assert!(sources.add(a, CODE, later), "a line again");
    }

    #[test]
    fn nothing_is_counted_twice_or_lost() {
        let (mut sources, begun) = sources();
        let other = Cow::Borrowed("LETHE-ORIGIN");
        let mut counted = 0;
        for i in 0..1000u32 {
            let code = if i % 3 == 0 { CODE } else { other.clone() };
            let lines = sources.add(of(&format!("192.0.{}.{}", i % 50, i % 7)), code, begun);
            counted += u64::from(lines);
        }
        assert_eq!(counted, MOST_SOURCES as u64, "others are counted together");
        assert_eq!(sources.0.len(), MOST_SOURCES + 1);
        let ended = sources.ended(begun + WINDOW, false);
        for (source, window) in ended {
            assert_eq!(window.codes.values().sum::<u64>(), window.count);
            counted += window.count;
            // A disk that takes nothing: the next line has these, too.
            sources.put_back(source, window);
        }
        assert_eq!(counted, 1000);
        let again = sources.ended(begun + WINDOW, false);
        assert_eq!(
            again.iter().map(|(_, window)| window.count).sum::<u64>() + 32,
            1000
        );
    }

    #[test]
    fn a_client_has_one_network_and_a_tenant_no_address() {
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        let from = |key: &str, peer: &str| Refused {
            tenant: "acme".into(),
            key_id: key.into(),
            peer: Some(peer.parse().unwrap()),
            ..Refused::default()
        };
        let (a, b) = (from("1", "192.0.2.1"), from("2", "192.0.2.2"));
        assert_eq!(a.source(), b.source());
        assert_ne!(
            from("", "192.0.2.1").source(),
            from("", "192.0.2.2").source()
        );
    }
}
