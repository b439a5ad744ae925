//! What a server counts: requests, latencies, bytes; by model and tenant. Never what was in them.

mod latencies;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use lethe_server::handler::MODEL_VERSION;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use self::latencies::Latencies;
use super::access::Caller;
use super::repository::{ModelChange, Repository};
use super::session::Sessions;
use crate::tenants::Admission;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered.
    Good,
    /// The request was wrong.
    Wrong,
    /// It was turned away: limits, overload.
    Refused,
    /// The server failed.
    Failed,
}

impl Outcome {
    pub(super) fn of(status: u16) -> Self {
        match status {
            0..400 => Self::Good,
            429 | 503 => Self::Refused,
            400..500 => Self::Wrong,
            _ => Self::Failed,
        }
    }

    /// Its name in the audit trail and the metrics.
    pub(super) fn name(self) -> &'static str {
        ["good", "wrong", "refused", "failed"][self as usize]
    }
}

const OUTCOMES: [Outcome; 4] = [
    Outcome::Good,
    Outcome::Wrong,
    Outcome::Refused,
    Outcome::Failed,
];

/// One request that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    pub(super) model: &'a str,
    pub(super) tenant: &'a str,
    pub(super) status: u16,
    /// From its head to its answer.
    pub(super) latency: Duration,
    /// In the engine or the sandbox.
    pub(super) compute: Duration,
    pub(super) request_bytes: u64,
    pub(super) answer_bytes: u64,
    pub(super) wiped_bytes: u64,
}

#[derive(Debug, Default)]
struct Counts {
    outcomes: [AtomicU64; 4],
    latency: Latencies,
    compute: Latencies,
    request_bytes: AtomicU64,
    answer_bytes: AtomicU64,
    wiped_bytes: AtomicU64,
}

impl Counts {
    fn add(&self, ended: &Ended<'_>) {
        let add = |to: &AtomicU64, count| to.fetch_add(count, Ordering::Relaxed);
        add(&self.outcomes[Outcome::of(ended.status) as usize], 1);
        self.latency.add(ended.latency);
        self.compute.add(ended.compute);
        add(&self.request_bytes, ended.request_bytes);
        add(&self.answer_bytes, ended.answer_bytes);
        add(&self.wiped_bytes, ended.wiped_bytes);
    }

    fn json(&self) -> Value {
        let read = |from: &AtomicU64| from.load(Ordering::Relaxed);
        let outcomes = OUTCOMES.map(|o| (o.name(), read(&self.outcomes[o as usize])));
        json!({
            "requests": outcomes.into_iter().collect::<HashMap<_, _>>(),
            "latency_us": self.latency.json(),
            "compute_us": self.compute.json(),
            "request_bytes": read(&self.request_bytes),
            "answer_bytes": read(&self.answer_bytes),
            "wiped_bytes": read(&self.wiped_bytes),
        })
    }
}

/// Model and tenant.
type Pair = (Box<str>, Box<str>);

/// What happened beside the requests that ran.
#[derive(Debug, Default)]
struct Events {
    loads: AtomicU64,
    failed_loads: AtomicU64,
    evictions: AtomicU64,
    unloads: AtomicU64,
    /// Requests that were turned away, by the code that they were given: these are ours, and few.
    refusals: RwLock<BTreeMap<Box<str>, AtomicU64>>,
}

impl Events {
    fn refusals(&self) -> Vec<(Box<str>, u64)> {
        let refusals = self.refusals.read().unwrap_or_else(PoisonError::into_inner);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let all = refusals.iter().map(|(code, n)| (code.clone(), count(n)));
        all.collect()
    }

    /// Loads, loads that failed, evictions and unloads.
    fn of_models(&self) -> [(&'static str, u64); 4] {
        [
            ("loaded", &self.loads),
            ("failed", &self.failed_loads),
            ("evicted", &self.evictions),
            ("unloaded", &self.unloads),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// The figures of a server since it started.
#[derive(Debug)]
pub(super) struct Figures {
    started: Instant,
    total: Counts,
    pairs: RwLock<Pairs>,
    events: Events,
}

/// Counts by model and tenant, found without a copy of either name.
#[derive(Debug, Default)]
struct Pairs {
    by_model: HashMap<Box<str>, HashMap<Box<str>, Arc<Counts>>>,
    count: usize,
}

impl Pairs {
    fn get(&self, model: &str, tenant: &str) -> Option<&Arc<Counts>> {
        self.by_model.get(model)?.get(tenant)
    }

    /// The counts of a pair, which is made if there is none.
    fn get_or_add(&mut self, model: &str, tenant: &str) -> &Arc<Counts> {
        let tenants = self.by_model.entry(model.into()).or_default();
        tenants.entry(tenant.into()).or_insert_with(|| {
            self.count += 1;
            Arc::default()
        })
    }
}

/// More pairs of model and tenant than are counted one by one: names come from requests only once
/// they are known, but tenants of tokens are as many as their issuer likes.
const MOST_PAIRS: usize = 4096;

impl Figures {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            total: Counts::default(),
            pairs: RwLock::default(),
            events: Events::default(),
        }
    }

    /// Counts what became of a model.
    pub(super) fn count_model(&self, change: &ModelChange<'_>) {
        let events = &self.events;
        let count = match change {
            ModelChange::Loaded(_) => &events.loads,
            ModelChange::Failed(..) => &events.failed_loads,
            ModelChange::Evicted(_) => &events.evictions,
            ModelChange::Unloaded(_) => &events.unloads,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was turned away.
    pub(super) fn count_refusal(&self, code: &str) {
        let refusals = &self.events.refusals;
        let known = refusals.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known.get(code) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(known);
        let mut all = refusals.write().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(code.into()).or_default();
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts a request that has ended.
    pub(super) fn add(&self, ended: &Ended<'_>) {
        self.total.add(ended);
        self.with_counts(ended.model, ended.tenant, |counts| counts.add(ended));
    }

    /// Counts bytes that were wiped after several requests.
    pub(super) fn add_wiped(&self, model: &str, tenant: &str, bytes: u64) {
        let add = |counts: &Counts| {
            counts.wiped_bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        add(&self.total);
        self.with_counts(model, tenant, add);
    }

    fn with_counts(&self, model: &str, tenant: &str, add: impl FnOnce(&Counts)) {
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = pairs.get(model, tenant) {
            return add(counts);
        }
        drop(pairs);
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        let (model, tenant) = match pairs.count < MOST_PAIRS {
            true => (model, tenant),
            false => ("other", "other"),
        };
        add(pairs.get_or_add(model, tenant));
    }

    /// Pairs of model and tenant, in the order of their names.
    fn pairs(&self) -> Vec<(Pair, Arc<Counts>)> {
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::with_capacity(pairs.count);
        for (model, tenants) in &pairs.by_model {
            let of_model = tenants.iter();
            all.extend(of_model.map(|(tenant, c)| ((model.clone(), tenant.clone()), c.clone())));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// The statistics of Triton's protocol: of one model or of all, as far as a caller sees them.
    pub(super) fn model_stats(&self, model: Option<&str>, caller: &Caller) -> Value {
        let mut by_model: BTreeMap<Box<str>, [u64; 4]> = BTreeMap::new();
        for ((name, tenant), counts) in self.pairs() {
            let is_wanted = model.is_none_or(|model| *model == *name)
                && caller.sees().is_none_or(|seen| *seen == *tenant);
            if is_wanted {
                let read = |from: &AtomicU64| from.load(Ordering::Relaxed);
                let all: u64 = counts.outcomes.iter().map(read).sum();
                let good = read(&counts.outcomes[Outcome::Good as usize]);
                let sums = by_model.entry(name).or_default();
                let more = [
                    good,
                    all - good,
                    counts.latency.sum_us(),
                    counts.compute.sum_us(),
                ];
                for (sum, more) in sums.iter_mut().zip(more) {
                    *sum += more;
                }
            }
        }
        let stats = by_model
            .iter()
            .map(|(name, [good, bad, latency_us, compute_us])| {
                let time = |count: &u64, us: &u64| json!({ "count": count, "ns": us * 1000 });
                json!({
                    "name": name, "version": MODEL_VERSION, "inference_count": good, "execution_count": good,
                    "inference_stats": {
                        "success": time(good, latency_us), "fail": time(bad, &0),
                        "queue": time(good, &latency_us.saturating_sub(*compute_us)),
                        "compute_infer": time(good, compute_us),
                        "compute_input": time(good, &0), "compute_output": time(good, &0),
                    },
                })
            });
        json!({ "model_stats": stats.collect::<Vec<_>>() })
    }

    /// The figures as JSON: all of them, or those of one tenant.
    pub(super) fn json(
        &self,
        tenant: Option<&str>,
        repository: &Repository,
        admission: &Admission,
        sessions: &Sessions,
    ) -> Value {
        let pairs: Vec<Value> = self
            .pairs()
            .iter()
            .filter(|((_, of), _)| tenant.is_none_or(|tenant| tenant == &**of))
            .map(|((model, tenant), counts)| {
                let mut entry = counts.json();
                entry["model"] = json!(model);
                entry["tenant"] = json!(tenant);
                entry
            })
            .collect();
        let mut all = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": self.uptime().as_secs_f64(),
            "by_model_and_tenant": pairs,
        });
        if tenant.is_none() {
            let models = repository.list().into_iter().map(|listed| {
                let (shared, instance) =
                    listed.loaded.as_ref().map_or((0, 0), |l| l.memory_bytes());
                json!({
                    "name": listed.name, "state": listed.state,
                    "image_bytes": shared, "instance_bytes": instance,
                })
            });
            let gate = admission.stats();
            let (resident, peak) = resident_bytes();
            all["total"] = self.total.json();
            all["models"] = models.collect();
            all["pool"] = json!({
                "running": gate.running, "waiting": gate.waiting, "sessions": sessions.count(),
            });
            all["memory"] = json!({ "resident_bytes": resident, "peak_bytes": peak });
            all["model_changes"] = self.events.of_models().into_iter().collect();
            all["refusals"] = self
                .events
                .refusals()
                .into_iter()
                .map(|(code, count)| (String::from(code), Value::from(count)))
                .collect();
        }
        all
    }
}

/// Memory of this process that is resident, now and at its most.
fn resident_bytes() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// The figures in Prometheus' text form.
pub(super) fn prometheus(
    figures: &Arc<Figures>,
    repository: &Repository,
    admission: &Admission,
    sessions: &Sessions,
) -> String {
    let mut registry = Registry::with_prefix("lethe");
    let gate = admission.stats();
    let loaded = repository
        .list()
        .iter()
        .filter(|listed| listed.loaded.is_some())
        .count();
    registry.register_collector(Box::new(Exported {
        figures: figures.clone(),
        gauges: [
            ("running_requests", "Requests that run", gate.running as u64),
            (
                "waiting_requests",
                "Requests that wait for their turn",
                gate.waiting as u64,
            ),
            (
                "sessions",
                "Sessions that are open",
                sessions.count() as u64,
            ),
            ("loaded_models", "Models that are loaded", loaded as u64),
            (
                "resident_memory_bytes",
                "Memory that is resident",
                resident_bytes().0,
            ),
            (
                "uptime_seconds",
                "Time since the start",
                figures.uptime().as_secs(),
            ),
        ],
    }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .expect("writing to memory succeeds");
    text
}

#[derive(Debug)]
struct Exported {
    figures: Arc<Figures>,
    gauges: [(&'static str, &'static str, u64); 6],
}

impl Collector for Exported {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, value) in self.gauges {
            to.encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&value)?;
        }
        let pairs = self.figures.pairs();
        let labels =
            |(model, tenant): &Pair| [("model", model.to_string()), ("tenant", tenant.to_string())];
        let mut requests = to.encode_descriptor(
            "requests",
            "Requests that have ended",
            None,
            MetricType::Counter,
        )?;
        for (pair, counts) in &pairs {
            for outcome in OUTCOMES {
                let [model, tenant] = labels(pair);
                let labels = [model, tenant, ("outcome", outcome.name().into())];
                let count = counts.outcomes[outcome as usize].load(Ordering::Relaxed);
                requests
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
            }
        }
        let mut changes = to.encode_descriptor(
            "model_changes",
            "Models that were loaded, could not be, were evicted or unloaded",
            None,
            MetricType::Counter,
        )?;
        for (change, count) in self.figures.events.of_models() {
            changes
                .encode_family(&[("change", change)])?
                .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let mut refusals = to.encode_descriptor(
            "refusals",
            "Requests that were turned away",
            None,
            MetricType::Counter,
        )?;
        for (code, count) in self.figures.events.refusals() {
            refusals
                .encode_family(&[("code", &*code)])?
                .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let bytes: [(&str, &str, fn(&Counts) -> &AtomicU64); 3] = [
            ("request_bytes", "Bytes of bodies of requests", |c| {
                &c.request_bytes
            }),
            ("answer_bytes", "Bytes of bodies of answers", |c| {
                &c.answer_bytes
            }),
            ("wiped_bytes", "Bytes of instances that were wiped", |c| {
                &c.wiped_bytes
            }),
        ];
        for (name, help, of) in bytes {
            let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (pair, counts) in &pairs {
                let count = of(counts).load(Ordering::Relaxed);
                metric
                    .encode_family(&labels(pair))?
                    .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
            }
        }
        let times: [(&str, &str, fn(&Counts) -> &Latencies); 2] = [
            (
                "request_seconds",
                "From the head of a request to its answer",
                |c| &c.latency,
            ),
            ("compute_seconds", "In the engine or the sandbox", |c| {
                &c.compute
            }),
        ];
        for (name, help, of) in times {
            let mut metric = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (pair, counts) in &pairs {
                let (sum, count, buckets) = of(counts).prometheus();
                metric
                    .encode_family(&labels(pair))?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_beyond_the_most_are_counted_together() {
        let figures = Figures::new();
        let add = |tenant: &str| {
            figures.add(&Ended {
                model: "m",
                tenant,
                status: 200,
                latency: Duration::ZERO,
                compute: Duration::ZERO,
                request_bytes: 1,
                answer_bytes: 2,
                wiped_bytes: 3,
            });
        };
        (0..MOST_PAIRS + 10).for_each(|tenant| add(&tenant.to_string()));
        add("7");
        let pairs = figures.pairs();
        assert_eq!(pairs.len(), MOST_PAIRS + 1);
        let bytes = |model: &str, tenant: &str| {
            let mut pairs = pairs.iter();
            let found = pairs.find(|((m, t), _)| (&**m, &**t) == (model, tenant));
            found.map(|(_, counts)| counts.request_bytes.load(Ordering::Relaxed))
        };
        assert_eq!(bytes("m", "7"), Some(2));
        assert_eq!(bytes("other", "other"), Some(10));
    }
}
