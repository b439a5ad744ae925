//! The clock that ends runs, one step every [`TICK`].
//!
//! Compiled code looks at wasmtime's epochs in every loop and function, and kernels outside of guests at a
//! counter: nobody asks the time while it computes. One thread advances both, once somebody wants it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lethe_engine::limits::Stop;
use wasmtime::{Engine, EngineWeak};

/// How often running guests look whether their time is up.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The engines that are ticked.
static ENGINES: Mutex<Vec<EngineWeak>> = Mutex::new(Vec::new());

/// How often the clock has ticked.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// What ends a run outside of guests at its deadline, or a tick or two later.
pub fn stop_at(deadline: Instant) -> Stop {
    start();
    let left = deadline.saturating_duration_since(Instant::now());
    let ticks = u64::try_from(left.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX);
    // The next tick may come at once.
    let now = TICKS.load(Ordering::Relaxed).saturating_add(1);
    Stop {
        flag: None,
        at: Some((&TICKS, now.saturating_add(ticks))),
    }
}

/// Advances this engine's epoch every [`TICK`], as long as it lives.
pub fn tick(engine: &Engine) {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    engines.push(engine.weak());
    start();
}

fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        thread::Builder::new()
            .name("lethe-deadline".into())
            .spawn(tick_all)
            .expect("the system gives one more thread");
    });
}

fn tick_all() {
    loop {
        thread::sleep(TICK);
        TICKS.fetch_add(1, Ordering::Relaxed);
        let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|engine| match engine.upgrade() {
            Some(engine) => {
                engine.increment_epoch();
                true
            }
            None => false,
        });
    }
}
