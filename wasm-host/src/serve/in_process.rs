//! What runs without a sandbox keeps the same limits.

use std::sync::atomic::Ordering;
use std::time::Instant;

use lethe_engine::Error;
use lethe_engine::limits::{self, Limits, Stop};
use lethe_sandbox::{CallControl, CallReport, CellError, deadline};
use lethe_server::Problem;

/// Does `work`, which has so much memory and ends when its time is up.
///
/// # Errors
/// Those of the work, and those of a call in a sandbox that was ended.
pub(super) fn in_process<R>(
    control: &CallControl,
    work: impl FnOnce() -> Result<R, Problem>,
) -> (Result<R, Problem>, CallReport) {
    let begun = Instant::now();
    let limits = Limits {
        memory_bytes: control.memory_bytes.map_or(u64::MAX, |bytes| bytes as u64),
        stop: Stop {
            flag: Some(control.stop.clone()),
            ..control.deadline.map(deadline::stop_at).unwrap_or_default()
        },
    };
    let (done, was_ended) = limits::within(limits, || {
        let done = limits::until_ended(work);
        (done, limits::is_stopped())
    });
    // An answer that came all the same is as good as none: it may say that the run was ended.
    let result = match (was_ended, control.deadline) {
        (false, _) => done.unwrap_or_else(|ended| Err(Error::from(ended).into())),
        (true, Some(at)) if !control.stop.load(Ordering::Relaxed) => {
            let limit = at.saturating_duration_since(begun);
            Err(CellError::Deadline { limit }.into())
        }
        (true, _) => Err(CellError::Stopped.into()),
    };
    let report = CallReport {
        elapsed: begun.elapsed(),
        ..CallReport::default()
    };
    (result, report)
}
