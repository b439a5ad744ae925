//! What one tenant used, and who of it waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Permit, Refusal, TenantLimits, moved_mean, nanoseconds};

/// Seconds of unused compute time that are saved.
const SAVED_COMPUTE_SECONDS: f64 = 10.0;

/// A request that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
    pub(super) expected_ns: u64,
    pub(super) sender: oneshot::Sender<Result<Permit, Refusal>>,
}

/// A bucket that fills with time and is emptied by use; it may owe.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    capacity: f64,
    level: f64,
}

impl Bucket {
    fn full(per_second: f64, capacity: f64) -> Self {
        Self {
            per_second,
            capacity,
            level: capacity,
        }
    }

    fn refill(&mut self, elapsed: Duration) {
        let filled = self.level + self.per_second * elapsed.as_secs_f64();
        self.level = filled.min(self.capacity);
    }

    /// How long until it holds `amount`.
    fn time_until(&self, amount: f64) -> Duration {
        let missing = (amount - self.level).max(0.0);
        // A rate may be tiny, and durations have an end.
        Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX)
    }

    fn is_full(&self) -> bool {
        self.level >= self.capacity
    }
}

/// What one tenant used, and who of it waits.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Arc<str>,
    pub(super) limits: TenantLimits,
    pub(super) queue: VecDeque<Waiter>,
    /// Compute time, in the order of turns: see [`super`].
    pub(super) used_ns: u64,
    running: usize,
    mean_ns: u64,
    /// When the last run ended.
    rested: Instant,
    requests: Option<Bucket>,
    /// In milliseconds.
    compute: Option<Bucket>,
    refilled: Instant,
}

/// The buckets of these limits, full.
fn buckets(limits: &TenantLimits) -> (Option<Bucket>, Option<Bucket>) {
    let requests = limits.requests_per_second.map(|rate| {
        let burst = limits.burst.map_or(rate.ceil(), f64::from);
        Bucket::full(rate, burst.max(1.0))
    });
    let compute = limits.compute_ms_per_second;
    let compute = compute.map(|rate| Bucket::full(rate, rate * SAVED_COMPUTE_SECONDS));
    (requests, compute)
}

impl Account {
    pub(super) fn new(name: Arc<str>, limits: TenantLimits, now: Instant) -> Self {
        let (requests, compute) = buckets(&limits);
        Self {
            name,
            limits,
            queue: VecDeque::new(),
            used_ns: 0,
            running: 0,
            mean_ns: 0,
            rested: now,
            requests,
            compute,
            refilled: now,
        }
    }

    /// New limits; what was used stays used.
    pub(super) fn set_limits(&mut self, limits: TenantLimits) {
        let keep = |new: Option<Bucket>, old: &Option<Bucket>| {
            new.map(|new| Bucket {
                level: old
                    .as_ref()
                    .map_or(new.level, |old| old.level.min(new.capacity)),
                ..new
            })
        };
        let (requests, compute) = buckets(&limits);
        self.requests = keep(requests, &self.requests);
        self.compute = keep(compute, &self.compute);
        self.limits = limits;
    }

    pub(super) fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled);
        let buckets = self.requests.iter_mut().chain(&mut self.compute);
        buckets.for_each(|bucket| bucket.refill(elapsed));
        self.refilled = self.refilled.max(now);
    }

    /// Whether the rates leave room for a request.
    pub(super) fn check_rates(&self) -> Result<(), Refusal> {
        let waits = |bucket: &Option<Bucket>, amount| {
            let time = bucket.as_ref().map(|bucket| bucket.time_until(amount));
            time.unwrap_or_default()
        };
        // Compute time is known afterwards only, so a run needs no more than that none is owed.
        let none_owed = f64::EPSILON;
        let retry_after = waits(&self.requests, 1.0).max(waits(&self.compute, none_owed));
        match retry_after.is_zero() {
            true => Ok(()),
            false => Err(Refusal::Rate { retry_after }),
        }
    }

    pub(super) fn take_token(&mut self) {
        if let Some(requests) = &mut self.requests {
            requests.level -= 1.0;
        }
    }

    /// What a run of this tenant takes on average, or any tenant's before its first. Never nothing,
    /// so that tenants take turns before any run has ended.
    pub(super) fn mean_ns_or(&self, mean_ns: u64) -> u64 {
        match self.mean_ns {
            0 => mean_ns.max(1),
            own => own,
        }
    }

    /// Expects a little less from now on. Said where a tenant of which nothing runs was refused for
    /// want of time: if none of its requests were run, the average could never be found wrong.
    pub(super) fn doubt(&mut self, expected_ns: u64) {
        self.mean_ns = (expected_ns - expected_ns / 8).max(1);
    }

    pub(super) fn may_run(&self) -> bool {
        let concurrent = self.limits.concurrent;
        concurrent.is_none_or(|most| self.running < most)
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.queue.is_empty() && self.may_run()
    }

    pub(super) fn is_resting(&self) -> bool {
        self.running == 0 && self.queue.is_empty()
    }

    /// Comes back after a rest: not before the others, and what it had used more than they is worn
    /// off by time.
    pub(super) fn join(&mut self, clock_ns: u64, now: Instant) {
        self.used_ns = self.worn_ns(now).max(clock_ns);
    }

    fn worn_ns(&self, now: Instant) -> u64 {
        let rest = now.saturating_duration_since(self.rested);
        self.used_ns.saturating_sub(nanoseconds(rest))
    }

    /// Whether opening the account again would make the same one.
    pub(super) fn can_be_forgotten(&self, clock_ns: u64, now: Instant) -> bool {
        let mut buckets = self.requests.iter().chain(&self.compute);
        self.is_resting() && self.worn_ns(now) <= clock_ns && buckets.all(Bucket::is_full)
    }

    /// A run begins, and is charged what it will probably take.
    pub(super) fn begin(&mut self, charged_ns: u64) {
        self.used_ns += charged_ns;
        self.running += 1;
        if let Some(compute) = &mut self.compute {
            compute.level -= milliseconds(charged_ns);
        }
    }

    /// A run has ended: it pays the difference.
    pub(super) fn end(&mut self, used_ns: u64, charged_ns: u64, now: Instant) {
        self.running -= 1;
        self.rested = now;
        self.used_ns = (self.used_ns + used_ns).saturating_sub(charged_ns);
        self.mean_ns = moved_mean(self.mean_ns, used_ns);
        if let Some(compute) = &mut self.compute {
            let level = compute.level + milliseconds(charged_ns) - milliseconds(used_ns);
            compute.level = level.min(compute.capacity);
        }
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}
