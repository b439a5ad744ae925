//! What is written down when a request ends, however it ends: figures and the audit trail.

use std::borrow::Cow;
use std::sync::Arc;

use lethe_server::Problem;
use lethe_server::message::HttpCall;
use tokio::time::Instant;

use super::Server;
use super::access::Caller;
use super::figures::{Ended, Outcome};
use super::inference::model_in;
use super::loaded::Loaded;
use super::records::Refused;
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
    /// The request, where it is the model that finds out which one it names.
    asked: Option<HttpCall>,
    is_finished: bool,
}

/// How a request ended.
pub(super) struct End {
    pub(super) status: u16,
    /// The code of a problem of ours: one that a guest tells of may be made of the request.
    pub(super) code: Option<Cow<'static, str>>,
    pub(super) answer_bytes: u64,
    pub(super) report: CallReport,
}

impl End {
    /// With this problem.
    pub(super) fn of(problem: &Problem, report: CallReport) -> Self {
        Self {
            status: problem.status,
            code: Some(problem.code.clone()),
            answer_bytes: problem.to_json().len() as u64,
            report,
        }
    }

    /// With an answer, which may be a problem that a guest tells of.
    pub(super) fn answered(status: u16, answer_bytes: u64, report: CallReport) -> Self {
        Self {
            status,
            code: None,
            answer_bytes,
            report,
        }
    }

    /// Whether nothing was run, so that one can ask for the same again at once.
    fn is_refusal(&self) -> bool {
        const OF_TURNS: [&str; 2] = ["LETHE-OVERLOAD", "LETHE-DRAINING"];
        let is_of_turns = |code: &str| OF_TURNS.contains(&code);
        matches!(self.status, 404 | 429) || self.code.as_deref().is_some_and(is_of_turns)
    }
}

impl Ending {
    /// Where the request does not say which model it is for before it runs, it is `asked` then.
    pub(super) fn begin(
        server: &Arc<Server>,
        caller: &Caller,
        model: &Arc<Loaded>,
        request_bytes: u64,
        deadline: Instant,
        asked: Option<HttpCall>,
    ) -> Self {
        Self {
            asked,
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
    pub(super) async fn finish(mut self, end: End) -> Result<(), Problem> {
        self.is_finished = true;
        let model = self.named(end.status);
        self.count(model.as_deref(), &end);
        if end.is_refusal() {
            let code = end.code.unwrap_or(Cow::Borrowed("LETHE-MODEL-UNKNOWN"));
            let refused = Refused {
                model,
                ..Refused::from(&self.caller)
            };
            self.server.records.refuse_with(&refused, end.status, code);
            return Ok(());
        }
        self.server.write_down(self.entry(model, &end)).await
    }

    /// The model that the request named; none where it named none, or one that is not there. Only
    /// what was not answered is looked at: else it was for the model that answered.
    fn named(&self, status: u16) -> Option<String> {
        match &self.asked {
            Some(asked) if status >= 400 => {
                let named = model_in(asked)?;
                self.server
                    .repository
                    .has(&named)
                    .then(|| named.into_owned())
            }
            _ => Some(self.model.info().name.clone()),
        }
    }

    fn count(&self, model: Option<&str>, end: &End) {
        self.server.figures.add(&Ended {
            model: model.unwrap_or_default(),
            tenant: &self.caller.tenant,
            status: end.status,
            latency: self.begun.elapsed(),
            compute: end.report.elapsed,
            request_bytes: self.request_bytes,
            answer_bytes: end.answer_bytes,
            wiped_bytes: end.report.wiped.bytes(),
        });
    }

    fn entry(&self, model: Option<String>, end: &End) -> Entry {
        let is_this = model.as_deref() == Some(&*self.model.info().name);
        let code = end.code.as_deref();
        let code = code.or_else(|| (end.status >= 400).then(|| Outcome::of(end.status).name()));
        Entry {
            model,
            model_sha256: is_this
                .then(|| self.model.sha256().map(Into::into))
                .flatten(),
            request_bytes: self.request_bytes,
            answer_bytes: end.answer_bytes,
            status: end.status,
            code: code.map(str::to_owned),
            duration_us: self.begun.elapsed().as_micros() as u64,
            wiped_bytes: end.report.wiped.bytes(),
            ..self.caller.entry()
        }
    }
}

impl Caller {
    /// What is written down of each of their requests.
    pub(super) fn entry(&self) -> Entry {
        Entry {
            tenant: self.tenant.to_string(),
            key_id: self.key_id.to_string(),
            request_id: self.request_id.to_string(),
            route: self.route.into(),
            ..Entry::default()
        }
    }
}

impl Server {
    /// Writes down how a request ended.
    ///
    /// # Errors
    /// 503 where it cannot be written down.
    pub(super) async fn write_down(&self, entry: Entry) -> Result<(), Problem> {
        let Some(audit) = &self.records.audit else {
            return Ok(());
        };
        audit.record(entry).await.map_err(|error| {
            tracing::error!(%error, "a request failed: it cannot be written down");
            let detail = "the request could not be written down in the audit trail";
            Problem::new(503, "LETHE-AUDIT", detail)
        })
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
    let mut ending = Ending::begin(server, &caller, model, 0, begun, None);
    (ending.begun, ending.is_finished) = (begun, true);
    let (name, tenant) = (&model.info().name, &caller.tenant);
    server.figures.add_wiped(name, tenant, wiped.bytes());
    let report = CallReport {
        wiped,
        ..CallReport::default()
    };
    let entry = ending.entry(Some(name.clone()), &End::answered(200, 0, report));
    // Nobody waits to be told; the log says what is wrong.
    drop(server.write_down(entry).await);
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
        let end = End::answered(status, 0, CallReport::default());
        let model = self.named(status);
        self.count(model.as_deref(), &end);
        if let Some(audit) = &self.server.records.audit
            && let Err(error) = audit.record_now(self.entry(model, &end))
        {
            tracing::error!(%error, "a request that was given up is not written down");
        }
    }
}
