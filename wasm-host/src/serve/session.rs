//! Sessions: the requests of one WebSocket in one instance.
//!
//! ```text
//! WS /api/v1/stream?session=MODEL ─► place ─► instance ─► request, request, … ─► wiped ─► place free
//! ```
//!
//! An instance that is kept has its buffers and its layout for the shapes that it saw; in exchange its
//! client's data stay in it until the socket ends, however it ends. It is one tenant's, of one model,
//! and runs one request at a time, in the order in which they came. Each has its turn and its limits
//! as any other. An instance that was stopped, by a limit or by its client, is wiped at once, and the
//! session is over.
//!
//! Instances that rest take memory from others. So there are places: few for a tenant, and few in
//! all. Runs are admitted one by one, so that a session which rests keeps nobody waiting.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use lethe_server::{Problem, Response as Answer};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::access::Caller;
use super::ending::{self, End, Ending};
use super::inference::{Ask, not_carried_out};
use super::loaded::Loaded;
use super::{Server, refused};
use crate::tenants::Refusal;
use lethe_sandbox::{CallReport, KeptCell, Wiped};

/// How a session's requests are called in the audit trail.
pub(super) const ROUTE: &str = "WS /api/v1/stream?session";

/// The places of a server.
#[derive(Debug)]
pub(super) struct Sessions {
    most: usize,
    open: Mutex<HashMap<Arc<str>, usize>>,
}

impl Sessions {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let open = Mutex::default();
        Arc::new(Self { most, open })
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().sum()
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 429 where there is none for this tenant, or none at all.
    fn enter(self: &Arc<Self>, tenant: &Arc<str>, most_of_tenant: usize) -> Result<Place, Problem> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, all) = (open.get(tenant).copied().unwrap_or(0), open.values().sum());
        let full = |whose, most, found: usize| Problem {
            retry_after_s: Some(1),
            ..Problem::new(
                429,
                "LETHE-SESSIONS",
                format!("sessions {whose}: expected at most {most}, found {found} open"),
            )
        };
        if own >= most_of_tenant {
            return Err(full("of a tenant", most_of_tenant, own));
        }
        if all >= self.most {
            return Err(full("of the server", self.most, all));
        }
        *open.entry(tenant.clone()).or_default() += 1;
        Ok(Place {
            sessions: self.clone(),
            tenant: tenant.clone(),
        })
    }
}

/// A place, free again when dropped.
#[derive(Debug)]
struct Place {
    sessions: Arc<Sessions>,
    tenant: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.sessions.open.lock();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}

/// An instance in its place. They are dropped in this order: first it is wiped.
#[derive(Debug)]
pub(super) struct Kept {
    cell: KeptCell,
    place: Place,
}

/// Whoever holds it runs; it is empty once the session is over.
pub(super) type Turn = OwnedMutexGuard<Option<Kept>>;

/// An open session.
#[derive(Debug, Clone)]
pub(super) struct Session {
    server: Arc<Server>,
    caller: Caller,
    model: Arc<Loaded>,
    begun: Instant,
    kept: Arc<tokio::sync::Mutex<Option<Kept>>>,
}

impl Session {
    /// Takes an instance of the model of this name, if there is a place.
    ///
    /// # Errors
    /// When there is none, the tenant has no such model, or its requests have no instances.
    pub(super) async fn open(
        server: &Arc<Server>,
        caller: Caller,
        model: &str,
    ) -> Result<Self, Problem> {
        if server.draining.load(Ordering::Relaxed) {
            return Err(refused(Refusal::Draining));
        }
        let most_of_tenant = caller.limits().sessions;
        let place = server.sessions.enter(&caller.tenant, most_of_tenant);
        let place = server.checked(&caller, place)?;
        let model = server.model(&caller, Some(model)).await?;
        let keeping = model.clone();
        let cell = tokio::task::spawn_blocking(move || keeping.keep()).await;
        let cell = cell.map_err(|_| not_carried_out())?.ok_or_else(|| {
            let detail =
                "a session is an instance of a sandbox: this server runs without isolation";
            Problem::new(409, "LETHE-SESSION", detail)
        })??;
        Ok(Self {
            server: server.clone(),
            caller,
            model,
            begun: Instant::now(),
            kept: Arc::new(tokio::sync::Mutex::new(Some(Kept { cell, place }))),
        })
    }

    /// Whether its instance is gone.
    pub(super) fn is_over(&self) -> bool {
        self.kept.try_lock().is_ok_and(|kept| kept.is_none())
    }

    /// The turn of a request, after those that asked for one before.
    pub(super) fn turn(&self) -> impl Future<Output = Turn> + Send + 'static {
        let mut turn = Box::pin(self.kept.clone().lock_owned());
        // Asked once, it has its place in the queue, whichever task runs first.
        let now = turn.as_mut().now_or_never();
        async move {
            match now {
                Some(turn) => turn,
                None => turn.await,
            }
        }
    }

    /// Answers a request in the session's instance.
    pub(super) async fn infer(
        &self,
        turn: impl Future<Output = Turn>,
        ask: Ask,
        deadline: Instant,
    ) -> Result<Answer, Problem> {
        let Self {
            server,
            caller,
            model,
            ..
        } = self;
        let (len, asked) = (ask.http.body.len() as u64, Some(ask.http.clone()));
        let ending = Ending::begin(server, caller, model, len, deadline, asked);
        let mut turn = turn.await;
        let ran = server.run(caller, model, deadline, move |_, control| {
            let Some(Kept { cell, place }) = turn.take() else {
                return (Err(over("the session has ended")), CallReport::default());
            };
            let (answer, report) = cell.handle(&ask.http.request(), control);
            let answer = answer.map_err(Problem::from).map(|(cell, answer)| {
                *turn = Some(Kept { cell, place });
                answer
            });
            (answer, report)
        });
        let (answer, report) = match ran.await {
            Ok(ran) => ran,
            Err(problem) => (Err(problem), CallReport::default()),
        };
        let end = match &answer {
            Ok(answer) => End::answered(answer.status, answer.body.len() as u64, report),
            Err(problem) => End::of(problem, report),
        };
        ending.finish(end).await?;
        answer
    }

    /// Wipes the instance, once what ran in it has stopped, and writes that down.
    pub(super) async fn end(self) {
        let kept = self.kept.lock_owned().await.take();
        let wiped = match kept {
            // Off the threads that serve: there may be much to wipe.
            Some(Kept { cell, place }) => tokio::task::spawn_blocking(move || {
                let wiped = cell.end();
                drop(place);
                wiped
            })
            .await
            .unwrap_or_default(),
            None => Wiped::default(),
        };
        ending::session(&self.server, &self.caller, &self.model, self.begun, wiped).await;
    }
}

/// What the client of a session that is over is told.
pub(super) fn over(why: &str) -> Problem {
    Problem::new(410, "LETHE-SESSION-ENDED", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_a_tenant_and_in_all() {
        let sessions = Sessions::new(3);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut places = vec![
            sessions.enter(&a, 2).unwrap(),
            sessions.enter(&a, 2).unwrap(),
        ];
        let refused = sessions.enter(&a, 2).unwrap_err();
        assert_eq!((refused.status, &*refused.code), (429, "LETHE-SESSIONS"));
        assert!(refused.detail.contains("tenant"), "{refused}");
        places.push(sessions.enter(&b, 2).unwrap());
        let refused = sessions.enter(&b, 2).unwrap_err();
        assert!(refused.detail.contains("server"), "{refused}");
        assert_eq!(sessions.count(), 3);
        places.remove(0);
        places.push(sessions.enter(&b, 2).unwrap());
        drop(places);
        assert_eq!(sessions.count(), 0);
    }
}
