//! Requests of one tenant that wait for the same model at the same time, answered by one run.
//!
//! ```text
//! request ─► seat in the tenant's room ─► its turn ─► takes the room with it ─► one instance ─► answers
//!                       ▲                                      │
//!                       └──── others sit here meanwhile ───────┘
//! ```
//!
//! Every request queues for its turn as it would alone, so rates, fairness and deadlines are those
//! of single requests. Whoever's turn comes first takes along who sits in the room, and these leave
//! the queue with an answer in hand. So nobody waits for company: the busier a server is, the more
//! come together. A window in which requests wait for others before they queue can be set besides.
//!
//! Only requests of one tenant share a room, hence an instance.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lethe_server::Problem;
use lethe_server::message::{Answer, Call};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::access::Caller;
use super::inference::{StopOnDrop, control, not_carried_out};
use super::loaded::Loaded;
use super::{Server, refused};
use lethe_sandbox::{CallControl, CallReport};

/// Larger requests run alone: what they take to run is more than what a run takes to begin.
pub(super) const SMALL_BYTES: u64 = 64 << 10;

/// The rooms of one model, by tenant.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    seats: Mutex<HashMap<Arc<str>, VecDeque<Seat>>>,
    next: AtomicU64,
}

/// A request that waits.
#[derive(Debug)]
struct Seat {
    number: u64,
    call: Call,
    deadline: Instant,
    waiting: Waiting,
    sender: oneshot::Sender<(Answer, CallReport)>,
}

/// Whoever waits for the answer holds it. While the run is under way there is in it what stops the
/// run when the last one who waits is gone.
type Waiting = Arc<Mutex<Option<Arc<StopOnDrop>>>>;

/// A seat that is given up when dropped.
struct Seated<'a> {
    rooms: &'a Rooms,
    tenant: &'a str,
    number: u64,
    _waiting: Waiting,
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        self.rooms.leave(self.tenant, self.number);
    }
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, VecDeque<Seat>>> {
        // Seats are pushed and removed whole.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat, and says how many are taken now.
    fn sit<'a>(
        &'a self,
        tenant: &'a Arc<str>,
        call: Call,
        deadline: Instant,
        sender: oneshot::Sender<(Answer, CallReport)>,
    ) -> (Seated<'a>, usize) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting::default();
        let mut seats = self.lock();
        let room = seats.entry(tenant.clone()).or_default();
        room.push_back(Seat {
            number,
            call,
            deadline,
            waiting: waiting.clone(),
            sender,
        });
        let seated = Seated {
            rooms: self,
            tenant,
            number,
            _waiting: waiting,
        };
        (seated, room.len())
    }

    /// Gives up a seat; whether it was still there.
    fn leave(&self, tenant: &str, number: u64) -> bool {
        let mut seats = self.lock();
        let Some(room) = seats.get_mut(tenant) else {
            return false;
        };
        let before = room.len();
        room.retain(|seat| seat.number != number);
        let was_there = room.len() < before;
        if room.is_empty() {
            seats.remove(tenant);
        }
        was_there
    }

    /// The request in this seat and those before and behind it, `most` at most and those first who
    /// sit longest; nothing where it was taken along before.
    fn take(&self, tenant: &str, number: u64, most: usize) -> Vec<Seat> {
        let mut seats = self.lock();
        let Some(room) = seats.get_mut(tenant) else {
            return Vec::new();
        };
        let Some(own) = room.iter().position(|seat| seat.number == number) else {
            return Vec::new();
        };
        let mut taken: Vec<Seat> = room.remove(own).into_iter().collect();
        let others = room.len().min(most.saturating_sub(1));
        taken.extend(room.drain(..others));
        if room.is_empty() {
            seats.remove(tenant);
        }
        taken
    }
}

impl Server {
    /// Answers a call with others of the same tenant, if there are any when its turn comes. If this
    /// future is dropped, and those of all others too, the run is told to stop.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub(super) async fn run_together(
        self: &Arc<Self>,
        caller: &Caller,
        model: &Arc<Loaded>,
        deadline: Instant,
        call: Call,
    ) -> Result<(Answer, CallReport), Problem> {
        let (sender, mut answer) = oneshot::channel();
        let (seated, taken) = model.rooms.sit(&caller.tenant, call, deadline, sender);
        let window = self.settings.batch_window;
        if !window.is_zero() && taken < model.most_together {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.map_err(|_| not_carried_out()),
                () = tokio::time::sleep(window) => {}
            }
        }
        let permit = tokio::select! {
            biased;
            answer = &mut answer => return answer.map_err(|_| not_carried_out()),
            permit = self.admission.enter(&caller.tenant, deadline) => permit,
        };
        match permit {
            Ok(permit) => {
                let seats = model
                    .rooms
                    .take(seated.tenant, seated.number, model.most_together);
                // Where somebody else took this one along, its turn goes to the next.
                if !seats.is_empty() {
                    let run = Run::new(seats, caller, deadline);
                    let model = model.clone();
                    tokio::task::spawn_blocking(move || {
                        let senders = run.senders;
                        let answers = model.answer_calls(run.calls, &run.control);
                        drop(permit);
                        for (sender, answer) in senders.into_iter().zip(answers) {
                            // Nobody may be waiting any more.
                            drop(sender.send(answer));
                        }
                        model.open_ahead();
                    });
                }
            }
            Err(refusal) if model.rooms.leave(seated.tenant, seated.number) => {
                return Err(refused(refusal));
            }
            // It is being run for somebody else's turn.
            Err(_) => {}
        }
        answer.await.map_err(|_| not_carried_out())
    }
}

/// One run for several requests.
struct Run {
    calls: Vec<Call>,
    senders: Vec<oneshot::Sender<(Answer, CallReport)>>,
    control: CallControl,
}

impl Run {
    /// One for these, whose deadlines may be later than that of the one whose turn it is.
    fn new(seats: Vec<Seat>, caller: &Caller, deadline: Instant) -> Self {
        let all = Arc::new(StopOnDrop(Arc::default()));
        let last = seats
            .iter()
            .map(|seat| seat.deadline)
            .fold(deadline, Instant::max);
        let control = control(caller, last, seats.len() as u32, &all);
        let (mut calls, mut senders) = (Vec::new(), Vec::new());
        for seat in seats {
            *seat.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(all.clone());
            calls.push(seat.call);
            senders.push(seat.sender);
        }
        Self {
            calls,
            senders,
            control,
        }
    }
}
