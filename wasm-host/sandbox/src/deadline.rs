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

/// Advances this engine's epoch every [`TICK`], as long as it lives.
pub fn tick(engine: &Engine) {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    engines.push(engine.weak());
    if engines.len() == 1 {
        thread::Builder::new()
            .name("lethe-deadline".into())
            .spawn(tick_all)
            .expect("the system gives one more thread");
    }
}

fn tick_all() {
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
