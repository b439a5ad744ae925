//! The clock that ends runs: wasmtime's epochs, one step every [`TICK`].
//!
//! Compiled code looks at a counter in every loop and function; a thread raises it. One thread
//! serves all engines, and ends when there is none.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// How often running guests look whether their time is up.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The engines that are ticked; the thread runs while there are any.
static ENGINES: Mutex<Vec<EngineWeak>> = Mutex::new(Vec::new());

/// Shows that an engine's epochs advance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticker(());

impl Ticker {
    /// Advances this engine's epoch every [`TICK`], as long as it lives.
    pub(super) fn start(engine: &Engine) -> Self {
        let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push(engine.weak());
        if engines.len() == 1 {
            thread::Builder::new()
                .name("lethe-deadline".into())
                .spawn(tick)
                .expect("the system gives one more thread");
        }
        Self(())
    }

    /// Ticks until `time` has passed for sure.
    pub(super) fn ticks(self, time: Duration) -> u64 {
        time.as_millis().div_ceil(TICK.as_millis()) as u64 + 1
    }
}

fn tick() {
    loop {
        thread::sleep(TICK);
        let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|engine| match engine.upgrade() {
            Some(engine) => {
                engine.increment_epoch();
                true
            }
            None => false,
        });
        if engines.is_empty() {
            return;
        }
    }
}
