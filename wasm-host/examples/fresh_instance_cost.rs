//! What does a fresh instance per request cost, against one that is reused?
//!
//! ```text
//! cargo run --release -p lethe-host --example fresh_instance_cost -- MODEL.onnx [RUNS] [NAME=1x128 …]
//! ```
//!
//! Calls alternate between a fresh and a reused instance, with zeros as inputs; the answers are
//! compared. Prints medians and 90th percentiles in microseconds, natively, with native kernels and
//! in pure wasm.

use std::path::Path;
use std::time::{Duration, Instant};

use lethe_engine::session::zero_inputs;
use lethe_engine::{Session, SessionOptions};
use lethe_host::model_file::ModelFile;
use lethe_host::sandbox::{ModelSource, Sandbox, SandboxSettings, model_name};
use lethe_server::message::Call;

type Failure = Box<dyn std::error::Error>;

/// Median and 90th percentile, in microseconds.
fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    (at(0.5), at(0.9))
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = Path::new(arguments.first().ok_or("no MODEL")?);
    let runs: usize = arguments.get(1).map_or(Ok(1000), |runs| runs.parse())?;
    let shapes: Vec<(&str, Vec<usize>)> = arguments
        .iter()
        .skip(2)
        .map(|shape| {
            let (name, sizes) = shape.split_once('=').ok_or("NAME=1x128")?;
            let sizes = sizes.split('x').map(str::parse).collect::<Result<_, _>>()?;
            Ok((name, sizes))
        })
        .collect::<Result<_, Failure>>()?;

    let file = ModelFile::open(path)?;
    let options = SessionOptions {
        files: &file,
        ..SessionOptions::default()
    };
    let session = Session::load(file.bytes().clone(), &options)?;
    let size_of = |name: &str, _: &_, axis: usize| {
        let shape = shapes.iter().find(|(named, _)| *named == name)?;
        shape.1.get(axis).copied()
    };
    let inputs = zero_inputs(session.inputs(), &size_of).ok_or("inputs that are no tensors")?;
    let named: Vec<_> = inputs
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    session.run(&named)?;
    let mut native = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        session.run(&named)?;
        native.push(start.elapsed());
    }
    let (median, p90) = percentiles(native);
    println!("native           p50 {median:10.1} us  p90 {p90:10.1} us");

    let message = Call::Infer(inputs.clone()).encode();
    for native_kernels in [true, false] {
        let mut source = ModelSource::of_file(model_name(path), &file)?;
        source.warm_up = inputs.clone();
        let settings = SandboxSettings {
            native_kernels,
            ..SandboxSettings::default()
        };
        let start = Instant::now();
        let sandbox = Sandbox::new(&source, &settings)?;
        let made = start.elapsed();
        let mut reused = sandbox.reused()?;
        let (mut fresh_times, mut reused_times, mut wiped) = (Vec::new(), Vec::new(), 0);
        for i in 0..runs + 10 {
            let start = Instant::now();
            let (fresh_answer, report) = sandbox.call(&message)?;
            let fresh_time = start.elapsed();
            let start = Instant::now();
            let reused_answer = reused.call(&message)?;
            let reused_time = start.elapsed();
            assert!(fresh_answer == reused_answer, "the answers differ");
            if i >= 10 {
                fresh_times.push(fresh_time);
                reused_times.push(reused_time);
                wiped += report.wiped.overwritten_bytes + report.wiped.returned_bytes;
            }
        }
        let name = if native_kernels {
            "native kernels"
        } else {
            "pure wasm"
        };
        let (fresh, fresh_p90) = percentiles(fresh_times);
        let (reused, reused_p90) = percentiles(reused_times);
        println!("{name:16} p50 {fresh:10.1} us  p90 {fresh_p90:10.1} us  fresh");
        println!(
            "{:16} p50 {reused:10.1} us  p90 {reused_p90:10.1} us  reused",
            ""
        );
        let (memory, image) = sandbox.memory_bytes();
        println!(
            "{:16} overhead p50 {:.1} us; wiped {} bytes a call; memory {memory}, image {image} bytes; made in {made:?}",
            "",
            fresh - reused,
            wiped / runs as u64,
        );
    }
    Ok(())
}
