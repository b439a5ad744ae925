//! Whose turn it is: rates, queues and fairness in front of the runs.
//!
//! ```text
//! enter ─► draining? ─► rates ─► room in the queues? ─► can it be done in time? ─► wait ─► permit
//!             │           │             │                        │                 │
//!          Draining      Rate       QueueFull                Overloaded        Overloaded
//! ```
//!
//! **Fairness.** Each tenant has an account of the compute time it used. When a run ends, the next
//! is of the waiting tenant that used least; so one that floods takes the turns that others leave,
//! and delays them by no more than the runs that have begun. A tenant that comes back after a pause
//! begins where the others are: time that it did not use is not saved. (Start-time fair queueing,
//! Goyal, Vin and Cheng 1996, with measured instead of announced lengths: a run is charged what the
//! tenant's runs took on average when it starts, and the difference when it ends.)
//!
//! **Load shedding.** A request is refused at once when the runs before it leave it too little time
//! until its deadline, going by moving averages; and a request whose time has become too short while
//! it waited is not run for nothing.
//!
//! All of it is one mutex, held for well under a microsecond. Only the monotonic clock is asked.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::limits::{TenantLimits, Tenants};

mod account;
use account::{Account, Waiter};

/// How many runs and how many waiting requests there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionSettings {
    /// Runs at the same time, of all tenants.
    pub permits: usize,
    /// Waiting requests of one tenant.
    pub queue_per_tenant: usize,
    /// Waiting requests of all tenants.
    pub queue: usize,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self {
            permits: std::thread::available_parallelism().map_or(1, usize::from),
            queue_per_tenant: 256,
            queue: 1024,
        }
    }
}

/// Why a request is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The tenant asks more often, or uses more compute time, than it may.
    #[error("the tenant's rate is used up")]
    Rate {
        /// When to ask again.
        retry_after: Duration,
    },
    /// As many requests wait as may.
    #[error("the queue is full")]
    QueueFull {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The request could not be answered before its deadline.
    #[error("the server is overloaded: the request would not be answered in time")]
    Overloaded {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The server is about to end.
    #[error("the server is draining")]
    Draining,
}

impl Refusal {
    /// When to ask again, where that is known; at least a second, as `Retry-After` counts.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Rate { retry_after }
            | Self::QueueFull { retry_after }
            | Self::Overloaded { retry_after } => {
                Some((retry_after.as_secs_f64().ceil() as u64).max(1))
            }
            Self::Draining => None,
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Rate { .. } | Self::QueueFull { .. } => 429,
            Self::Overloaded { .. } | Self::Draining => 503,
        }
    }

    /// A name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rate { .. } => "rate",
            Self::QueueFull { .. } => "queue_full",
            Self::Overloaded { .. } => "overloaded",
            Self::Draining => "draining",
        }
    }
}

/// How busy the gate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AdmissionStats {
    /// Runs that have begun.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Tenants that are remembered.
    pub tenants: usize,
    /// What a run takes, going by a moving average.
    pub mean_run_us: u64,
    /// Whether new requests are refused since the server is about to end.
    pub draining: bool,
}

/// The gate in front of the runs. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    state: Mutex<State>,
    /// Told whenever nothing runs and nothing waits.
    idle: Notify,
}

#[derive(Debug)]
struct State {
    settings: AdmissionSettings,
    limits: Tenants,
    accounts: HashMap<Arc<str>, Account>,
    /// Tenants with a waiting request that they may run now, the one who used least first.
    ready: BTreeSet<(u64, Arc<str>)>,
    /// Tenants that run or wait.
    active: usize,
    running: usize,
    waiting: usize,
    /// Nanoseconds that the waiting requests will take, going by averages.
    waiting_ns: u64,
    /// The account of the tenant that had its turn last: where newcomers begin.
    clock_ns: u64,
    mean_ns: u64,
    next_ticket: u64,
    /// Accounts at which those who do nothing are forgotten.
    most_accounts: usize,
    draining: bool,
}

/// Accounts that are kept without looking for some to forget.
const ACCOUNTS: usize = 1024;

/// The right to run, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    tenant: Arc<str>,
    started: Instant,
    waited: Duration,
    charged_ns: u64,
}

impl Permit {
    /// How long the request waited.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        let used_ns = nanoseconds(now - self.started);
        let granted = {
            let mut state = self.gate.lock();
            state.finish(&self.tenant, used_ns, self.charged_ns, now);
            state.grant(now)
        };
        self.gate.hand_out(granted, now);
    }
}

/// A waiter whose turn has come, or for whom it is too late.
struct Granted {
    waiter: Waiter,
    tenant: Arc<str>,
    charged_ns: u64,
    refused: Option<Refusal>,
}

impl Admission {
    /// A gate for tenants with these limits.
    pub fn new(limits: Tenants, settings: AdmissionSettings) -> Self {
        Self(Arc::new(Gate {
            state: Mutex::new(State {
                settings: AdmissionSettings {
                    permits: settings.permits.max(1),
                    ..settings
                },
                limits,
                accounts: HashMap::new(),
                ready: BTreeSet::new(),
                active: 0,
                running: 0,
                waiting: 0,
                waiting_ns: 0,
                clock_ns: 0,
                mean_ns: 0,
                next_ticket: 0,
                most_accounts: ACCOUNTS,
                draining: false,
            }),
            idle: Notify::new(),
        }))
    }

    /// Waits for a turn. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// When the request will not be run; it has used nothing but its place in the tenant's rate.
    pub async fn enter(&self, tenant: &str, deadline: Instant) -> Result<Permit, Refusal> {
        let arrived = Instant::now();
        let (ticket, receiver) = {
            let mut state = self.0.lock();
            match state.arrive(tenant, arrived, deadline)? {
                Arrival::Run { tenant, charged_ns } => {
                    drop(state);
                    return Ok(self.0.permit(tenant, arrived, arrived, charged_ns));
                }
                Arrival::Wait(ticket, receiver) => (ticket, receiver),
            }
        };
        // Dropped before the receiver: a turn that came meanwhile lies in the receiver then, and is
        // given back with it.
        let mut receiver = pin!(receiver);
        let _leaver = Leaver {
            gate: &self.0,
            tenant,
            ticket,
        };
        let late = Refusal::Overloaded {
            retry_after: Duration::from_secs(1),
        };
        match tokio::time::timeout_at(deadline, &mut receiver).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => Err(late),
        }
    }

    /// Refuses whoever comes from now on; those who wait have their turn.
    pub fn drain(&self) {
        self.0.lock().draining = true;
    }

    /// Ready when nothing runs and nothing waits. After [`Admission::drain`] it stays so.
    pub async fn idle(&self) {
        loop {
            let mut told = pin!(self.0.idle.notified());
            // From here on nothing is missed.
            told.as_mut().enable();
            if self.0.lock().is_idle() {
                return;
            }
            told.await;
        }
    }

    /// Changes the limits for all that come from now on.
    pub fn set_limits(&self, limits: Tenants) {
        let now = Instant::now();
        let granted = {
            let mut state = self.0.lock();
            state.set_limits(limits, now);
            state.grant(now)
        };
        self.0.hand_out(granted, now);
    }

    /// How busy the gate is.
    pub fn stats(&self) -> AdmissionStats {
        let state = self.0.lock();
        AdmissionStats {
            running: state.running,
            waiting: state.waiting,
            tenants: state.accounts.len(),
            mean_run_us: state.mean_ns / 1000,
            draining: state.draining,
        }
    }
}

/// Takes a waiting request out of its queue when whoever waited is gone.
struct Leaver<'a> {
    gate: &'a Gate,
    tenant: &'a str,
    ticket: u64,
}

impl Drop for Leaver<'_> {
    fn drop(&mut self) {
        let is_idle = {
            let mut state = self.gate.lock();
            state.leave(self.tenant, self.ticket) && state.is_idle()
        };
        if is_idle {
            self.gate.idle.notify_waiters();
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(
        self: &Arc<Self>,
        tenant: Arc<str>,
        arrived: Instant,
        now: Instant,
        charged_ns: u64,
    ) -> Permit {
        Permit {
            gate: self.clone(),
            tenant,
            started: now,
            waited: now - arrived,
            charged_ns,
        }
    }

    /// Wakes those whose turn has come. Not under the lock: where one is gone meanwhile, its permit
    /// is dropped here and asks for the lock itself.
    fn hand_out(self: &Arc<Self>, granted: Vec<Granted>, now: Instant) {
        for turn in granted {
            let result = match turn.refused {
                Some(refusal) => Err(refusal),
                None => Ok(self.permit(turn.tenant, turn.waiter.arrived, now, turn.charged_ns)),
            };
            drop(turn.waiter.sender.send(result));
        }
        if self.lock().is_idle() {
            self.idle.notify_waiters();
        }
    }
}

enum Arrival {
    Run { tenant: Arc<str>, charged_ns: u64 },
    Wait(u64, oneshot::Receiver<Result<Permit, Refusal>>),
}

impl State {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }

    fn arrive(&mut self, name: &str, now: Instant, deadline: Instant) -> Result<Arrival, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        if !self.accounts.contains_key(name) {
            self.make_room(now);
        }
        let (permits, mean_ns) = (self.settings.permits as u64, self.mean_ns);
        let account = match self.accounts.get_mut(name) {
            Some(account) => account,
            None => {
                let name: Arc<str> = name.into();
                let limits = self.limits.limits(&name).clone();
                let account = Account::new(name.clone(), limits, now);
                self.accounts.entry(name).or_insert(account)
            }
        };
        let tenant = account.name.clone();
        account.refill(now);
        account.check_rates()?;

        let own_ns = account.mean_ns_or(mean_ns);
        let is_first = account.queue.is_empty();
        let has_room = self.running < self.settings.permits;
        if is_first && has_room && account.may_run() && self.ready.is_empty() {
            account.take_token();
            if account.is_resting() {
                self.active += 1;
                account.join(self.clock_ns, now);
            }
            self.clock_ns = self.clock_ns.max(account.used_ns);
            account.begin(own_ns);
            self.running += 1;
            return Ok(Arrival::Run {
                tenant,
                charged_ns: own_ns,
            });
        }

        // What is before the request: its tenant's queue, and as much of the others' as the tenant
        // itself will have used by then.
        let own_before_ns = own_ns * account.queue.len() as u64;
        let fair_ns = (own_before_ns + own_ns).saturating_mul(self.active.max(1) as u64);
        let all_ns = self.waiting_ns.min(fair_ns) + mean_ns;
        let mut wait_ns = all_ns / permits;
        if let Some(concurrent) = account.limits.concurrent {
            let at_once = concurrent.min(self.settings.permits) as u64;
            wait_ns = wait_ns.max((own_before_ns + own_ns) / at_once);
        }
        let wait = Duration::from_nanos(wait_ns);
        if self.waiting >= self.settings.queue
            || account.queue.len() >= self.settings.queue_per_tenant
        {
            return Err(Refusal::QueueFull { retry_after: wait });
        }
        let left = deadline.saturating_duration_since(now);
        let needed = wait + Duration::from_nanos(own_ns);
        if needed > left {
            // No run is under way that would correct the average if it is wrong.
            if account.is_resting() {
                account.doubt(own_ns);
            }
            let retry_after = needed - left;
            return Err(Refusal::Overloaded { retry_after });
        }
        account.take_token();

        let (sender, receiver) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if account.is_resting() {
            self.active += 1;
            account.join(self.clock_ns, now);
        }
        account.queue.push_back(Waiter {
            ticket,
            arrived: now,
            deadline,
            expected_ns: own_ns,
            sender,
        });
        if account.is_ready() {
            self.ready.insert((account.used_ns, tenant));
        }
        self.waiting += 1;
        self.waiting_ns += own_ns;
        Ok(Arrival::Wait(ticket, receiver))
    }

    /// Takes the free permits for those whose turn it is.
    fn grant(&mut self, now: Instant) -> Vec<Granted> {
        let mut granted = Vec::new();
        while self.running < self.settings.permits {
            let Some((used_ns, tenant)) = self.ready.pop_first() else {
                break;
            };
            let mean_ns = self.mean_ns;
            let Some(account) = self.accounts.get_mut(&tenant) else {
                continue;
            };
            let Some(waiter) = account.queue.pop_front() else {
                continue;
            };
            self.waiting -= 1;
            self.waiting_ns -= waiter.expected_ns;
            let charged_ns = account.mean_ns_or(mean_ns);
            let left = waiter.deadline.saturating_duration_since(now);
            // Too late: there is no use in running what nobody will wait for.
            let needed = Duration::from_nanos(charged_ns);
            let refused = (left.is_zero() || needed > left).then(|| Refusal::Overloaded {
                retry_after: needed.saturating_sub(left),
            });
            if refused.is_none() {
                self.clock_ns = self.clock_ns.max(used_ns);
                account.begin(charged_ns);
                self.running += 1;
            } else {
                if account.is_resting() {
                    account.doubt(charged_ns);
                    self.active -= 1;
                }
            }
            if account.is_ready() {
                self.ready.insert((account.used_ns, tenant.clone()));
            }
            granted.push(Granted {
                waiter,
                tenant,
                charged_ns,
                refused,
            });
        }
        granted
    }

    /// Notes what a run took.
    fn finish(&mut self, tenant: &Arc<str>, used_ns: u64, charged_ns: u64, now: Instant) {
        self.running -= 1;
        self.mean_ns = moved_mean(self.mean_ns, used_ns);
        let Some(account) = self.accounts.get_mut(tenant) else {
            return;
        };
        if account.is_ready() {
            self.ready.remove(&(account.used_ns, tenant.clone()));
        }
        account.refill(now);
        account.end(used_ns, charged_ns, now);
        if account.is_ready() {
            self.ready.insert((account.used_ns, tenant.clone()));
        }
        if account.is_resting() {
            self.active -= 1;
        }
    }

    /// Takes a waiting request out of its queue, and says whether it was still there.
    fn leave(&mut self, name: &str, ticket: u64) -> bool {
        let Some(account) = self.accounts.get_mut(name) else {
            return false;
        };
        let place = account.queue.binary_search_by_key(&ticket, |w| w.ticket);
        let Some(waiter) = place.ok().and_then(|place| account.queue.remove(place)) else {
            return false;
        };
        self.waiting -= 1;
        self.waiting_ns -= waiter.expected_ns;
        if account.queue.is_empty() {
            self.ready.remove(&(account.used_ns, name.into()));
        }
        if account.is_resting() {
            self.active -= 1;
        }
        true
    }

    /// Forgets tenants that would be the same if they were new, once there are many.
    fn make_room(&mut self, now: Instant) {
        if self.accounts.len() < self.most_accounts {
            return;
        }
        let clock_ns = self.clock_ns;
        self.accounts.retain(|_, account| {
            account.refill(now);
            !account.can_be_forgotten(clock_ns, now)
        });
        // So that looking through them all costs little, spread over those who come.
        self.most_accounts = (2 * self.accounts.len()).max(ACCOUNTS);
    }

    fn set_limits(&mut self, limits: Tenants, now: Instant) {
        self.limits = limits;
        for (tenant, account) in &mut self.accounts {
            account.refill(now);
            account.set_limits(self.limits.limits(tenant).clone());
            let entry = (account.used_ns, tenant.clone());
            match account.is_ready() {
                true => self.ready.insert(entry),
                false => self.ready.remove(&entry),
            };
        }
    }
}

/// A moving average: the first value, and then an eighth of each that comes.
fn moved_mean(mean_ns: u64, new_ns: u64) -> u64 {
    // None yet: zero is no run's length.
    if mean_ns == 0 {
        return new_ns.max(1);
    }
    (mean_ns - mean_ns / 8 + new_ns / 8).max(1)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests;
