//! What is written down when a request ends, however it ends: figures and the audit trail.

use std::sync::Arc;

use lethe_server::Problem;
use tokio::time::Instant;

use super::Server;
use super::access::Caller;
use super::figures::{Ended, Outcome};
use super::loaded::Loaded;
use crate::audit::Entry;
use lethe_sandbox::{CallReport, Wiped};

/// The status of a request whose client was gone before its answer.
const GONE: u16 = 499;
/// The status of a request that was not answered in time.
const LATE: u16 = 504;

/// A request that runs. Dropped without an answer, its time is over or its client is gone.
pub(super) struct Ending {
    server: Arc<Server>,
    caller: Caller,
    model: Arc<Loaded>,
    begun: Instant,
    deadline: Instant,
    request_bytes: u64,
    is_finished: bool,
}

impl Ending {
    pub(super) fn begin(
        server: &Arc<Server>,
        caller: &Caller,
        model: &Arc<Loaded>,
        request_bytes: u64,
        deadline: Instant,
    ) -> Self {
        Self {
            server: server.clone(),
            caller: caller.clone(),
            model: model.clone(),
            begun: Instant::now(),
            deadline,
            request_bytes,
            is_finished: false,
        }
    }

    /// Counts the request and writes it down; the answer is sent only after this.
    ///
    /// # Errors
    /// 503 where it cannot be written down.
    pub(super) async fn finish(
        mut self,
        status: u16,
        answer_bytes: u64,
        report: CallReport,
    ) -> Result<(), Problem> {
        self.is_finished = true;
        self.count(status, answer_bytes, report);
        self.write(status, answer_bytes, report.wiped.bytes()).await
    }

    async fn write(&self, status: u16, answer_bytes: u64, wiped_bytes: u64) -> Result<(), Problem> {
        let Some(audit) = &self.server.audit else {
            return Ok(());
        };
        let entry = self.entry(status, answer_bytes, wiped_bytes);
        audit.record(entry).await.map_err(|error| {
            tracing::error!(%error, "a request failed: it cannot be written down");
            let detail = "the request could not be written down in the audit trail";
            Problem::new(503, "LETHE-AUDIT", detail)
        })
    }

    fn count(&self, status: u16, answer_bytes: u64, report: CallReport) {
        self.server.figures.add(&Ended {
            model: &self.model.info().name,
            tenant: &self.caller.tenant,
            status,
            latency: self.begun.elapsed(),
            compute: report.elapsed,
            request_bytes: self.request_bytes,
            answer_bytes,
            wiped_bytes: report.wiped.bytes(),
        });
    }

    fn entry(&self, status: u16, answer_bytes: u64, wiped_bytes: u64) -> Entry {
        Entry {
            tenant: self.caller.tenant.to_string(),
            key_id: self.caller.key_id.to_string(),
            request_id: self.caller.request_id.to_string(),
            route: self.caller.route.into(),
            model: Some(self.model.info().name.clone()),
            model_sha256: Some(self.model.sha256().into()),
            request_bytes: self.request_bytes,
            answer_bytes,
            status,
            code: (status >= 400).then(|| Outcome::of(status).name().to_owned()),
            duration_us: self.begun.elapsed().as_micros() as u64,
            wiped_bytes,
        }
    }
}

/// Counts and writes down what was wiped when a session ended, which is no request.
pub(super) async fn session(
    server: &Arc<Server>,
    caller: &Caller,
    model: &Arc<Loaded>,
    begun: Instant,
    wiped: Wiped,
) {
    let mut caller = caller.clone();
    caller.route = "WS /api/v1/stream?session, end";
    let mut ending = Ending::begin(server, &caller, model, 0, begun);
    (ending.begun, ending.is_finished) = (begun, true);
    let (model, tenant) = (&model.info().name, &caller.tenant);
    server.figures.add_wiped(model, tenant, wiped.bytes());
    // Nobody waits to be told; the log says what is wrong.
    drop(ending.write(200, 0, wiped.bytes()).await);
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let status = match Instant::now() < self.deadline {
            true => GONE,
            false => LATE,
        };
        self.count(status, 0, CallReport::default());
        if let Some(audit) = &self.server.audit
            && let Err(error) = audit.record_now(self.entry(status, 0, 0))
        {
            tracing::error!(%error, "a request that was given up is not written down");
        }
    }
}
