//! `lethe bench MODEL`: how long a run takes, and where the time goes.

mod fresh;
mod profile;

use serde_json::json;
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lethe_engine::tensor::element_count;
use lethe_engine::{DataType, Tensor, Value, ValueInfo};

use super::{CommandError, Loaded, Outcome};
use crate::progress;
use crate::runner::Runner;
use crate::settings::RunSettings;
use crate::values::elements::{Number, tensor_of_numbers};
use crate::verification;

/// Measure how long a run takes
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// The ONNX file
    model: PathBuf,
    /// Take the inputs of this data set: a folder, or the name of one beside the model
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Sizes of an input's axes [default: 1 where the model does not say]
    #[arg(long = "shape", value_name = "NAME=1x128")]
    shapes: Vec<String>,
    /// Measure for so long
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Time by node and operator
    #[arg(long)]
    profile: bool,
}

/// Runs before the measurement: the first one lays out memory, and caches and clocks settle.
const WARM_UP_RUNS: usize = 3;
/// Elements of an input that is made up, at most; there are 32 bytes for each while it is.
const MOST_MADE_UP: usize = 1 << 26;

impl Bench {
    /// Runs the command.
    ///
    /// # Errors
    /// When the model or inputs cannot be read or a run fails.
    pub fn run(&self, settings: &RunSettings, json: bool) -> Result<Outcome, CommandError> {
        if !(self.seconds > 0.0 && self.seconds < 1e6) {
            return Err(CommandError::Request(format!(
                "--seconds {} is no time [LETHE-OPTION]",
                self.seconds
            )));
        }
        let loaded = Loaded::open(&self.model, settings)?;
        let inputs = self.inputs(&*loaded.runner)?;
        let borrowed: Vec<(&str, Value)> = inputs
            .iter()
            .map(|(n, v)| (n.as_str(), v.clone()))
            .collect();
        let times = self.measure(&loaded, &borrowed)?;
        let profile = match self.profile {
            true => {
                let runs = times.len().clamp(1, 100);
                Some(profile::measure(&loaded, &borrowed, runs, settings.device)?)
            }
            false => None,
        };
        let fresh = loaded.runner.sandbox();
        let fresh = fresh.map(|sandbox| fresh::measure(sandbox, &inputs, times.len()));
        let fresh = fresh
            .transpose()
            .map_err(|source| super::in_model(&self.model, source.into()))?;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let quantile = |q: f64| ms(times[((times.len() - 1) as f64 * q).round() as usize]);
        let mut out = std::io::stdout().lock();
        if json {
            let mut document = json!({
                "model": self.model.display().to_string(),
                "median_ms": quantile(0.5),
                "p90_ms": quantile(0.9),
                "min_ms": quantile(0.0),
                "runs": times.len(),
                "peak_memory_bytes": peak_memory_bytes(),
                "threads": settings.thread_count(),
                "kernels": settings.level().name(),
                "device": settings.device.to_string(),
            });
            if let Some(fresh) = &fresh {
                document["fresh_sandbox"] = json!(fresh);
            }
            if let Some(profile) = &profile {
                document["profile"] = profile.to_json();
            }
            writeln!(out, "{document:#}")?;
        } else {
            writeln!(
                out,
                "median {:.3} ms, p90 {:.3} ms, min {:.3} ms over {} runs ({} threads, {})",
                quantile(0.5),
                quantile(0.9),
                quantile(0.0),
                times.len(),
                settings.thread_count(),
                settings.level()
            )?;
            if let Some(bytes) = peak_memory_bytes() {
                writeln!(out, "peak memory {:.1} MB", bytes as f64 / 1e6)?;
            }
            if let Some(fresh) = &fresh {
                writeln!(out, "{fresh}")?;
            }
            if let Some(profile) = &profile {
                profile.print(&mut out)?;
            }
        }
        Ok(Outcome::Good)
    }

    /// Times of the runs, shortest first.
    fn measure(
        &self,
        loaded: &Loaded,
        inputs: &[(&str, Value)],
    ) -> Result<Vec<Duration>, CommandError> {
        let once = || -> Result<Duration, CommandError> {
            let start = Instant::now();
            let outputs = loaded.runner.run(inputs);
            let elapsed = start.elapsed();
            outputs.map_err(|source| super::in_model(&self.model, source))?;
            Ok(elapsed)
        };
        for _ in 0..WARM_UP_RUNS {
            once()?;
        }
        let bar = progress::bar((self.seconds * 1e3) as u64, "measuring");
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.is_empty() || start.elapsed().as_secs_f64() < self.seconds {
            times.push(once()?);
            bar.set_position(start.elapsed().as_millis() as u64);
        }
        bar.finish_and_clear();
        times.sort();
        Ok(times)
    }

    /// The inputs of the data set, or made up ones.
    fn inputs(&self, runner: &dyn Runner) -> Result<Vec<(String, Value)>, CommandError> {
        let declared = runner.inputs();
        if let Some(data) = &self.data {
            let beside = self.model.parent().map(|folder| folder.join(data));
            let folder = beside
                .filter(|f| !data.is_dir() && f.is_dir())
                .unwrap_or(data.clone());
            let declared = [declared, runner.optional_inputs()].concat();
            return Ok(verification::read_inputs(&folder, &declared)?);
        }
        let shapes = self
            .shapes
            .iter()
            .map(|s| parse_shape(s, declared))
            .collect::<Result<Vec<_>, _>>()?;
        made_up_inputs(declared, &shapes)
    }
}

/// `NAME=1x128` as a name and sizes.
pub(super) fn parse_shape(
    text: &str,
    declared: &[ValueInfo],
) -> Result<(String, Vec<usize>), CommandError> {
    let parsed = text.rsplit_once('=').and_then(|(name, sizes)| {
        let sizes = sizes.split('x').filter(|s| !s.is_empty()).map(str::parse);
        let sizes = sizes.collect::<Result<Vec<usize>, _>>().ok()?;
        declared
            .iter()
            .any(|d| &*d.name == name)
            .then(|| (name.to_owned(), sizes))
    });
    parsed.ok_or_else(|| {
        let names: Vec<&str> = declared.iter().map(|d| &*d.name).collect();
        let names = names.join(", ");
        CommandError::Request(format!(
            "--shape {text}: expected NAME=1x128 with one of {names} [LETHE-OPTION]"
        ))
    })
}

/// An input as it is made up.
pub(super) struct MadeUp {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) shape: Vec<usize>,
}

/// Types and shapes of inputs: an axis whose size is not given takes that of an axis with the same name,
/// or 1.
pub(super) fn made_up_shapes(
    declared: &[ValueInfo],
    shapes: &[(String, Vec<usize>)],
) -> Result<Vec<MadeUp>, CommandError> {
    let mut given: HashMap<&str, &[usize]> = HashMap::new();
    for (name, shape) in shapes {
        given.entry(name).or_insert(shape);
    }
    let shape_of = |info: &ValueInfo| given.get(&*info.name).copied();
    // Each name once, of the first input that has it and a shape: inputs may be as many as a file takes.
    let mut sizes: HashMap<String, usize> = HashMap::new();
    for info in declared {
        let dims = info.value_type.dims.as_ref();
        let named = shape_of(info).zip(dims).into_iter();
        for (&size, dim) in named.flat_map(|(shape, dims)| shape.iter().zip(dims.iter())) {
            sizes.entry(dim.to_string()).or_insert(size);
        }
    }
    let made = declared.iter().map(|info| {
        let refuse = |what: &str| not_made_up(&info.name, what);
        let data_type = info.value_type.data_type();
        let data_type = data_type.ok_or_else(|| refuse("no such value can be made up"))?;
        let dims = info.value_type.dims.as_ref();
        let shape = match (shape_of(info), dims) {
            (Some(shape), Some(dims)) if shape.len() != dims.len() => {
                return Err(refuse(&format!(
                    "it has {} axes, not {}",
                    dims.len(),
                    shape.len()
                )));
            }
            (Some(shape), _) => shape.to_vec(),
            (None, None) => return Err(refuse("not even the number of its axes is known")),
            (None, Some(dims)) => dims
                .iter()
                .map(|d| {
                    d.known()
                        .or_else(|| sizes.get(&d.to_string()).copied())
                        .unwrap_or(1)
                })
                .collect(),
        };
        Ok(MadeUp {
            name: info.name.to_string(),
            data_type,
            shape,
        })
    });
    made.collect()
}

/// Made-up elements: ones and zeros for integers, which serve as ids, masks and sizes alike, and
/// numbers between -1 and 1 for floats.
fn made_up_inputs(
    declared: &[ValueInfo],
    shapes: &[(String, Vec<usize>)],
) -> Result<Vec<(String, Value)>, CommandError> {
    let made = made_up_shapes(declared, shapes)?.into_iter().map(|input| {
        let refuse = |what: &str| not_made_up(&input.name, what);
        let len = element_count(&input.shape).filter(|&n| n < MOST_MADE_UP);
        let len = len.ok_or_else(|| {
            let shape = &input.shape;
            refuse(&format!("{shape:?} is more than {MOST_MADE_UP} elements"))
        })?;
        let tensor = made_up_tensor(input.data_type, &input.shape, len);
        let tensor = tensor.map_err(|reason| refuse(&reason))?;
        Ok((input.name, Value::Tensor(tensor)))
    });
    made.collect()
}

fn not_made_up(name: &str, what: &str) -> CommandError {
    CommandError::Request(format!(
        "input {name:?}: {what}; give --data [LETHE-OPTION]"
    ))
}

fn made_up_tensor(data_type: DataType, shape: &[usize], len: usize) -> Result<Tensor, String> {
    if data_type == DataType::String {
        return Tensor::from_strings(shape, vec!["lethe".into(); len]).map_err(|e| e.to_string());
    }
    // Marsaglia's xorshift, seeded alike each time: the same inputs in every run of the command.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    };
    let float =
        data_type.is_float() || matches!(data_type, DataType::Complex64 | DataType::Complex128);
    let numbers: Vec<Number> = (0..len)
        .map(|_| match float {
            true => Number::Real(random() as f64 / (1u64 << 52) as f64 - 1.0),
            // The largest value that every integer type has.
            false => Number::Integer(1),
        })
        .collect();
    tensor_of_numbers(data_type, shape, &numbers)
}

/// The most memory that this process had at one time, where the operating system says so.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::{Dim, ValueType};

    #[test]
    fn axes_of_one_name_get_one_size() {
        let dim = |name: &str| Dim::Symbol(name.into());
        let info = |name: &str, data_type, dims: Vec<Dim>| ValueInfo {
            name: name.into(),
            value_type: ValueType::tensor(data_type, Some(dims.into_iter().collect())),
        };
        let declared = [
            info("ids", DataType::Int64, vec![dim("batch"), dim("sequence")]),
            info("mask", DataType::Int64, vec![dim("batch"), dim("sequence")]),
            info("x", DataType::Float16, vec![Dim::Known(2), Dim::Unknown]),
        ];
        let shape = parse_shape("ids=4x7", &declared).unwrap();
        let made = made_up_inputs(&declared, &[shape]).unwrap();
        let shapes: Vec<&[usize]> = made
            .iter()
            .map(|(_, v)| v.as_tensor().unwrap().shape())
            .collect();
        assert_eq!(shapes, [&[4, 7][..], &[4, 7], &[2, 1]]);
        for bad in ["ids", "other=1", "ids=1xa"] {
            assert!(parse_shape(bad, &declared).is_err(), "{bad}");
        }
        let wrong_rank = parse_shape("ids=4", &declared).unwrap();
        assert!(made_up_inputs(&declared, &[wrong_rank]).is_err());
    }
}
