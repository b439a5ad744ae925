//! `make demo`: a drawn digit is read in this process and in sandboxes, and forgotten.
//!
//! The picture of the sandboxed request carries a mark that is too faint to see. While an instance
//! lives the mark is in its memory; afterwards the whole process is searched for it. The exit
//! status is 0 if both read the same digit and the mark is gone. What is being done is said on the
//! standard error, what was found on the standard output.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lethe_engine::{Session, SessionOptions, Tensor, Threads, Value};
use lethe_sandbox::residue::Canary;
use lethe_sandbox::{ModelSource, Sandbox, SandboxSettings, outputs_of};
use lethe_server::message::Call;
use zeroize::Zeroizing;

const MODEL: &[u8] = include_bytes!("../../../models/digits/model.onnx");
const PICTURE: &[u8] = include_bytes!("../../../models/digits/samples/5.npy");
const SIDE: usize = 28;
const RUNS: usize = 1000;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut steps = Steps::default();
    let pixels = pixels_of(PICTURE).ok_or("the sample is no picture")?;
    let picture = Tensor::from_slice(&[1, 1, SIDE, SIDE], &pixels)?;
    print_picture(&pixels);

    steps.begin("reading it in this process");
    let options = SessionOptions {
        threads: Threads::new(1)?,
        ..SessionOptions::default()
    };
    let session = Session::load(MODEL, &options)?;
    let inputs = [("input", Value::Tensor(picture.clone()))];
    let native = Reading::of(&session.run(&inputs)?)?;
    let [native_time] = medians([&mut || session.run(&inputs).map(drop)])?;

    steps.begin("making a sandbox (a first one on this machine compiles the engine's WebAssembly)");
    let sandbox = Sandbox::new(
        &ModelSource::new("digits", MODEL),
        &SandboxSettings::default(),
    )?;
    steps.begin("reading it with a mark in a sandbox");
    let canary = Canary::new(5);
    let message = marked_request(&picture, &canary)?;
    let mut marks_inside = 0;
    let mut look = |memory: &[u8]| marks_inside = canary.count(memory);
    let (answer, report) = sandbox.call_inspected(&message, &mut look)?;
    let sandboxed = Reading::of(&outputs_of(answer)?)?;
    steps.begin("reading it a thousand times, each in a fresh instance");
    let mut reused = sandbox.keep()?;
    let [sandbox_time, reused_time] =
        medians([&mut || sandbox.call(&message).map(drop), &mut || {
            reused.call(&message).map(drop)
        }])?;
    drop((reused, message));
    steps.begin("searching this process for the mark");
    let marks_left = canary.places_in_process()?;
    steps.end();

    println!("natively     reads {native}, in {}", show(native_time));
    println!(
        "in a sandbox reads {sandboxed}, in {}, each time in a fresh instance",
        show(sandbox_time)
    );
    println!(
        "overhead     {} for making and wiping an instance (in a reused one: {})",
        show(sandbox_time.saturating_sub(reused_time)),
        show(reused_time)
    );
    println!(
        "forgotten    the picture's mark was in the instance's memory {marks_inside} times; \
         afterwards it is in the process {} times",
        marks_left.len()
    );
    println!(
        "wiped        {} bytes overwritten, {} bytes given back to the system, after each request",
        report.wiped.overwritten_bytes, report.wiped.returned_bytes
    );
    let good = native.digit == sandboxed.digit && marks_inside > 0 && marks_left.is_empty();
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Says on the standard error what is done and how long it took.
#[derive(Default)]
struct Steps {
    number: usize,
    start: Option<Instant>,
}

impl Steps {
    const ALL: usize = 5;

    fn begin(&mut self, what: &str) {
        self.end();
        self.number += 1;
        self.start = Some(Instant::now());
        eprint!("[{}/{}] {what}: ", self.number, Self::ALL);
    }

    fn end(&mut self) {
        if let Some(start) = self.start.take() {
            eprintln!("{:.2} s", start.elapsed().as_secs_f64());
        }
    }
}

/// The pixels of an `.npy` file of floats, which ends with them.
fn pixels_of(file: &[u8]) -> Option<Vec<f32>> {
    let start = file.len().checked_sub(SIDE * SIDE * size_of::<f32>())?;
    let floats = file[start..].chunks_exact(size_of::<f32>());
    floats
        .map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)))
        .collect()
}

/// Which digit, and how sure.
struct Reading {
    digit: usize,
    probability: f32,
}

impl Reading {
    fn of(outputs: &[(String, Value)]) -> Result<Self, Box<dyn Error>> {
        let (_, logits) = outputs.first().ok_or("no output")?;
        let logits = logits.as_tensor()?.as_slice::<f32>()?;
        let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        let (digit, logit) = best.ok_or("no logits")?;
        Ok(Self {
            digit,
            probability: logit.exp() / total,
        })
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:.1} %)", self.digit, 100.0 * self.probability)
    }
}

fn print_picture(pixels: &[f32]) {
    const INK: &[u8] = b" .:-=+*#%@";
    for row in pixels.chunks_exact(SIDE) {
        // Twice, since characters are twice as high as wide.
        let ink = |&ink: &f32| [INK[(ink * (INK.len() - 1) as f32).round() as usize] as char; 2];
        let line: String = row.iter().flat_map(ink).collect();
        println!("    {}", line.trim_end());
    }
}

/// A request to read the picture, in whose first row, where there is no ink, stands the mark.
fn marked_request(picture: &Tensor, canary: &Canary) -> Result<Zeroizing<Vec<u8>>, Box<dyn Error>> {
    const PLACE: f32 = 0.123_456_79;
    let mut pixels = picture.as_slice::<f32>()?.to_vec();
    pixels[..Canary::BYTES / 4].fill(PLACE);
    let marked = Value::Tensor(Tensor::from_slice(picture.shape(), &pixels)?);
    let mut message = Zeroizing::new(Call::Infer(vec![("input".into(), marked)]).encode());
    let place = PLACE.to_le_bytes().repeat(Canary::BYTES / 4);
    let mut windows = message.windows(Canary::BYTES);
    let start = windows.position(|window| window == place);
    let start = start.ok_or("the message holds no picture")?;
    canary.write(&mut message[start..][..Canary::BYTES]);
    Ok(message)
}

/// The median times of calls that are made in turns, so that the machine's moods meet them all.
fn medians<E, const N: usize>(
    mut calls: [&mut dyn FnMut() -> Result<(), E>; N],
) -> Result<[Duration; N], E> {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..RUNS {
        for (call, times) in calls.iter_mut().zip(&mut times) {
            let start = Instant::now();
            call()?;
            times.push(start.elapsed());
        }
    }
    Ok(times.map(|mut times| {
        times.sort();
        times[RUNS / 2]
    }))
}

fn show(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}
