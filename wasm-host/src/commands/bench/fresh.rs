//! What a fresh sandbox costs a request, against one that is kept.
//!
//! As in the server, the instance of the next request is opened when the last one has its answer;
//! the time that this takes is given beside the overhead.

use std::fmt;
use std::time::{Duration, Instant};

use lethe_engine::Value;
use lethe_server::Problem;
use lethe_server::message::Call;
use serde::Serialize;
use zeroize::Zeroizing;

use lethe_sandbox::Sandbox;

/// Pairs of calls at most: percentiles settle long before.
const MOST_RUNS: usize = 10_000;

/// Times of calls that alternate between a fresh instance each and one that is kept.
#[derive(Debug, Serialize)]
pub(super) struct FreshSandbox {
    runs: usize,
    fresh_p50_us: f64,
    reused_p50_us: f64,
    /// The difference of the two.
    overhead_p50_us: f64,
    /// Opening an instance between two calls.
    opened_ahead_p50_us: f64,
    /// Bytes wiped after a call.
    wiped_bytes: u64,
}

impl fmt::Display for FreshSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fresh sandbox {:.1} us, reused {:.1} us: overhead {:.1} us (p50 of {}), \
             {:.1} us between two to open the next, {} bytes wiped",
            self.fresh_p50_us,
            self.reused_p50_us,
            self.overhead_p50_us,
            self.runs,
            self.opened_ahead_p50_us,
            self.wiped_bytes
        )
    }
}

/// Measures as many pairs of calls as `runs` says.
///
/// # Errors
/// When a call fails, or the two answer differently.
pub(super) fn measure(
    sandbox: &Sandbox,
    inputs: &[(String, Value)],
    runs: usize,
) -> Result<FreshSandbox, Problem> {
    let runs = runs.clamp(1, MOST_RUNS);
    let message = Zeroizing::new(Call::Infer(inputs.to_vec()).encode());
    let mut reused = sandbox.keep()?;
    let (mut fresh_times, mut reused_times, mut ahead_times) = (vec![], vec![], vec![]);
    let mut wiped_bytes = 0;
    for run in 0..runs + runs.div_ceil(10) {
        let begun = Instant::now();
        let (fresh_answer, report) = sandbox.call(&message)?;
        let fresh_time = begun.elapsed();
        let begun = Instant::now();
        sandbox.open_ahead();
        let ahead_time = begun.elapsed();
        let begun = Instant::now();
        let reused_answer = reused.call(&message)?;
        let reused_time = begun.elapsed();
        if *fresh_answer != *reused_answer {
            let detail = "a fresh instance and one that is kept answered differently";
            return Err(Problem::new(500, "LETHE-SANDBOX", detail));
        }
        // The first tenth warms up.
        if run >= runs.div_ceil(10) {
            fresh_times.push(fresh_time);
            reused_times.push(reused_time);
            ahead_times.push(ahead_time);
            wiped_bytes += report.wiped.overwritten_bytes + report.wiped.returned_bytes;
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e6
    };
    let (fresh, reused) = (median(&mut fresh_times), median(&mut reused_times));
    Ok(FreshSandbox {
        runs,
        fresh_p50_us: fresh,
        reused_p50_us: reused,
        overhead_p50_us: fresh - reused,
        opened_ahead_p50_us: median(&mut ahead_times),
        wiped_bytes: wiped_bytes / runs as u64,
    })
}
