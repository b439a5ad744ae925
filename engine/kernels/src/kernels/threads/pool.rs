//! Threads for loops that last microseconds.
//!
//! One loop at a time is on offer. Whoever offers it works at it at once; helpers that come in time
//! join, helpers that come late find it closed, so nobody ever waits for a thread to wake up. After
//! a loop the helpers spin for a moment, since the next one of a model's run follows soon, and then
//! sleep. A loop that is offered while another is on (from within one, or by another run) is left
//! to its thread alone.
//!
//! ```text
//! offer:  job ← work; gate ← next generation, open; work(); close the gate; wait until it is empty
//! helper: gate open, generation new → enter; work(); leave
//! ```
#![expect(
    unsafe_code,
    reason = "helpers call a closure on the stack of the thread that offers it, which waits for them"
)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often a helper looks for the next loop before it sleeps: some 100 microseconds.
const SPINS: u32 = 4_000;
/// How often one who waits for another thread looks before it lets others run.
const SPINS_BEFORE_YIELD: u32 = 1_000;

/// The bits of the gate: how many helpers are inside, whether more may enter, and which loop it is.
const HELPERS: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const GENERATION: u64 = 1 << 17;

thread_local! {
    static IS_HELPER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is a worker of a pool.
pub(super) fn is_helper() -> bool {
    IS_HELPER.get()
}

/// Worker threads; the threads that call are not among them.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// A closure by its address.
#[derive(Debug, Clone, Copy)]
struct Job {
    call: unsafe fn(*const ()),
    closure: *const (),
}

#[derive(Debug)]
struct Shared {
    /// Whether a loop is on: its thread has `job` and the gate for itself.
    busy: AtomicBool,
    gate: AtomicU64,
    job: UnsafeCell<Job>,
    /// Helpers that are done with the loop that is on.
    finished: AtomicUsize,
    /// What the first helper that panicked said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
    ending: AtomicBool,
}

// SAFETY: `job` is written only by the thread that holds `busy`, while the gate is closed and
// empty, and read only by helpers inside the gate; the closures behind it are `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing is bound to the thread that made it.
unsafe impl Send for Shared {}

// A panic on any thread leaves the gate closed and empty.
impl RefUnwindSafe for Pool {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is valid at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `is_so`, which another thread that is at work will bring about.
fn wait_until(is_so: impl Fn() -> bool) {
    let mut looks = 0u32;
    while !is_so() {
        looks = looks.saturating_add(1);
        if looks < SPINS_BEFORE_YIELD {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

impl Pool {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// What the operating system says when it does not give the threads.
    pub(super) fn start(count: usize) -> std::io::Result<Self> {
        let nothing = Job {
            call: |_| (),
            closure: std::ptr::null(),
        };
        let mut pool = Pool {
            shared: Arc::new(Shared {
                busy: AtomicBool::new(false),
                gate: AtomicU64::new(0),
                job: UnsafeCell::new(nothing),
                finished: AtomicUsize::new(0),
                panic: Mutex::default(),
                sleepers: AtomicUsize::new(0),
                bed: Mutex::default(),
                bell: Condvar::new(),
                ending: AtomicBool::new(false),
            }),
            workers: Vec::new(),
        };
        for i in 0..count {
            let shared = pool.shared.clone();
            let worker = std::thread::Builder::new().name(format!("lethe-{i}"));
            // On failure the drop of the pool ends those that were started.
            pool.workers.push(worker.spawn(move || {
                IS_HELPER.set(true);
                shared.help();
            })?);
        }
        Ok(pool)
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Calls `work` on this thread and on each worker that comes before this call is done with it.
    /// Returns when all of them are done; `false`, without a call, if another loop is on.
    ///
    /// # Panics
    /// If `work` does, on any thread.
    pub(super) fn offer<F: Fn() + Sync>(&self, work: &F) -> bool {
        let Some(turn) = Turn::take(&self.shared) else {
            return false;
        };
        turn.offer(work, 0);
        true
    }

    /// Calls `work` once on this thread and once on every worker. Waits for a loop that is on; must
    /// not be called from within one.
    ///
    /// # Panics
    /// If `work` does, on any thread.
    pub(super) fn broadcast<F: Fn() + Sync>(&self, work: &F) {
        loop {
            if let Some(turn) = Turn::take(&self.shared) {
                return turn.offer(work, self.workers.len());
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.ring();
        for worker in self.workers.drain(..) {
            // Workers catch panics.
            drop(worker.join());
        }
    }
}

/// The right to offer a loop.
struct Turn<'p>(&'p Shared);

impl<'p> Turn<'p> {
    fn take(shared: &'p Shared) -> Option<Self> {
        let taken = shared
            .busy
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        // Only now: a turn that was not taken must not be dropped, which would end another's.
        taken.is_ok().then(|| Turn(shared))
    }

    /// See [`Pool::offer`]; also waits until so many helpers have come and gone.
    fn offer<F: Fn() + Sync>(self, work: &F, helpers: usize) {
        /// # Safety
        /// `closure` is the address of a living `F`.
        unsafe fn call<F: Fn()>(closure: *const ()) {
            // SAFETY: by the contract of this function.
            unsafe { (*closure.cast::<F>())() }
        }
        let shared = self.0;
        // SAFETY: this thread holds `busy`, and the one before it left the gate closed and empty.
        unsafe {
            *shared.job.get() = Job {
                call: call::<F>,
                closure: std::ptr::from_ref(work).cast(),
            };
        }
        // One that a panic on this thread left behind.
        *lock(&shared.panic) = None;
        shared.finished.store(0, Ordering::Relaxed);
        let last = shared.gate.load(Ordering::Relaxed);
        // Ordered before the look at `sleepers`: a worker counts itself, then looks at the gate.
        shared
            .gate
            .store(last.wrapping_add(GENERATION) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            shared.ring();
        }
        work();
        wait_until(|| shared.finished.load(Ordering::Acquire) >= helpers);
        self.close();
        let panic = lock(&shared.panic).take();
        drop(self);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Lets nobody in any more and waits until all are out.
    fn close(&self) {
        self.0.gate.fetch_and(!OPEN, Ordering::AcqRel);
        wait_until(|| self.0.gate.load(Ordering::Acquire) & HELPERS == 0);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Again, for the case that `work` panicked on this thread: the closure goes next.
        self.close();
        self.0.busy.store(false, Ordering::Release);
    }
}

impl Shared {
    /// Wakes all sleepers.
    fn ring(&self) {
        let bed = lock(&self.bed);
        self.bell.notify_all();
        drop(bed);
    }

    /// The life of a worker.
    fn help(&self) {
        // The loop that this worker has been in.
        let mut done = 0;
        let mut looks = 0;
        while !self.ending.load(Ordering::Acquire) {
            if self.is_new(done) {
                looks = 0;
                done = self.join_in().unwrap_or(done);
            } else if looks < SPINS {
                looks += 1;
                std::hint::spin_loop();
            } else {
                looks = 0;
                self.sleep(done);
            }
        }
    }

    /// Whether a loop is on offer that is not generation `done`.
    fn is_new(&self, done: u64) -> bool {
        let gate = self.gate.load(Ordering::SeqCst);
        gate & OPEN != 0 && gate / GENERATION != done
    }

    /// Works at the loop on offer and gives its generation; `None` if it is closed, or if others
    /// entered at the same moment.
    fn join_in(&self) -> Option<u64> {
        let gate = self.gate.load(Ordering::Relaxed);
        if gate & OPEN == 0 {
            return None;
        }
        self.gate
            .compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        let called = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: this helper is inside the gate, so `job` was written before and is not
            // written now, and the thread with its closure waits until the gate is empty.
            unsafe {
                let job = *self.job.get();
                (job.call)(job.closure);
            }
        }));
        if let Err(panic) = called {
            lock(&self.panic).get_or_insert(panic);
        }
        self.finished.fetch_add(1, Ordering::Release);
        self.gate.fetch_sub(1, Ordering::Release);
        Some(gate / GENERATION)
    }

    /// Sleeps until a loop is on offer that is not generation `done`.
    fn sleep(&self, done: u64) {
        let mut bed = lock(&self.bed);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !self.is_new(done) && !self.ending.load(Ordering::SeqCst) {
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        drop(bed);
    }
}
