//! Checking a model against expected outputs in the layout of the ONNX backend tests:
//!
//! ```text
//! folder/model.onnx
//! folder/data.json                        rtol, atol, atol_rms, outliers; all optional
//! folder/test_data_set_<k>/input_<i>.pb
//! folder/test_data_set_<k>/output_<i>.pb  or .json: a sample of a large output
//! ```
//!
//! A folder is one test: it passes when every output of every data set is as expected. Files are
//! matched to inputs and outputs by the name in them, or by their number where they have none.

pub mod comparison;
mod randomness;
mod sample;

use bytes::Bytes;
use std::path::{Path, PathBuf};

use lethe_engine::onnx::proto;
use lethe_engine::{Value, ValueInfo, ValueKind};

use crate::runner::{Runner, RunnerError};
use crate::values::protobuf;
use comparison::Tolerance;

/// Why a test could not be carried out or did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file of the test cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing to compare with.
    #[error("no test_data_set_* folder")]
    NoDataSets,
    /// The run failed.
    #[error("{data_set}: {source} [{}]", source.code())]
    Run {
        /// Name of the data set.
        data_set: String,
        /// What happened.
        source: RunnerError,
    },
    /// An output is not as expected.
    #[error("{data_set}: output {output:?}: {difference}")]
    Output {
        /// Name of the data set.
        data_set: String,
        /// Name of the output.
        output: String,
        /// How it differs.
        difference: String,
    },
}

/// A test folder with its model decoded.
pub struct TestFolder {
    path: PathBuf,
    tolerance: Tolerance,
    /// By output of the model: whether it depends on random operators.
    random: Vec<bool>,
}

impl TestFolder {
    /// Reads what a folder says besides its data sets.
    ///
    /// # Errors
    /// When `data.json` is malformed.
    pub fn open(path: &Path, model: &proto::Model) -> Result<Self, Failure> {
        Ok(Self {
            path: path.into(),
            tolerance: tolerance(&path.join("data.json"))?,
            random: randomness::random_outputs(model),
        })
    }

    /// Runs every data set and gives every failure.
    ///
    /// # Errors
    /// When there are no data sets or files cannot be read.
    pub fn check(&self, runner: &dyn Runner) -> Result<Vec<Failure>, Failure> {
        let data_sets = data_sets(&self.path)?;
        if data_sets.is_empty() {
            return Err(Failure::NoDataSets);
        }
        let mut failures = Vec::new();
        for data_set in &data_sets {
            self.check_data_set(data_set, runner, &mut failures)?;
        }
        Ok(failures)
    }

    fn check_data_set(
        &self,
        folder: &Path,
        runner: &dyn Runner,
        failures: &mut Vec<Failure>,
    ) -> Result<(), Failure> {
        let data_set = file_name(folder);
        let declared = [runner.inputs(), runner.optional_inputs()].concat();
        let inputs = read_inputs(folder, &declared)?;
        let borrowed: Vec<(&str, Value)> = inputs
            .iter()
            .map(|(n, v)| (n.as_str(), v.clone()))
            .collect();
        let found = match runner.run(&borrowed) {
            Ok(found) => found,
            Err(source) => {
                failures.push(Failure::Run { data_set, source });
                return Ok(());
            }
        };
        let outputs = runner.outputs();
        for (i, path) in numbered_files(folder, "output_")? {
            let expected = read_expected(&path, outputs.get(i))?;
            let at = outputs.iter().position(|o| *o.name == *expected.name);
            let at = at.unwrap_or(i);
            let Some((name, found)) = found.get(at) else {
                let reason = format!("the model has {} outputs", outputs.len());
                return Err(Failure::File { path, reason });
            };
            let random = self.random.get(at).copied().unwrap_or(false);
            let result = match &expected.content {
                Expectation::Value(value) if random => comparison::compare_range(value, found),
                Expectation::Value(value) => comparison::compare(value, found, &self.tolerance),
                Expectation::Sample(sample) => sample.compare(found, &self.tolerance),
            };
            if let Err(difference) = result {
                failures.push(Failure::Output {
                    data_set: data_set.clone(),
                    output: name.clone(),
                    difference: difference.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// The data sets of a test folder, by number.
///
/// # Errors
/// When the folder cannot be read.
pub fn data_sets(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let sets = numbered(folder, "test_data_set_")?;
    Ok(sets.into_iter().map(|(_, path)| path).collect())
}

/// Reads the `input_<i>.pb` of a data set for a model with these inputs.
///
/// # Errors
/// When a file cannot be read or decoded, or the model has no such input.
pub fn read_inputs(folder: &Path, inputs: &[ValueInfo]) -> Result<Vec<(String, Value)>, Failure> {
    let mut read = Vec::new();
    for (i, path) in numbered_files(folder, "input_")? {
        let declared = inputs.get(i).and_then(|info| info.value_type.kind.as_ref());
        let (name, value) = read_message(&path, declared)?;
        let known = inputs.iter().any(|info| *info.name == *name);
        let name = match inputs.get(i) {
            _ if known => name,
            Some(info) => info.name.to_string(),
            None => {
                let reason = format!(
                    "the model has {} inputs and none named {name:?}",
                    inputs.len()
                );
                return Err(Failure::File { path, reason });
            }
        };
        read.push((name, as_declared(declared, value)));
    }
    Ok(read)
}

/// A test may give the plain value where an optional is declared.
fn as_declared(declared: Option<&ValueKind>, value: Value) -> Value {
    match declared {
        Some(ValueKind::Optional(element)) if !matches!(value, Value::Optional(_)) => {
            Value::Optional(lethe_engine::tensor::OptionalValue {
                element: (**element).clone(),
                value: Some(Box::new(value)),
            })
        }
        _ => value,
    }
}

struct Expected {
    name: String,
    content: Expectation,
}

enum Expectation {
    Value(Value),
    Sample(sample::Sample),
}

fn read_expected(path: &Path, declared: Option<&ValueInfo>) -> Result<Expected, Failure> {
    if path.extension().is_some_and(|e| e == "json") {
        let sample = sample::Sample::parse(&read(path)?).map_err(|reason| Failure::File {
            path: path.into(),
            reason,
        })?;
        return Ok(Expected {
            name: sample.name.clone(),
            content: Expectation::Sample(sample),
        });
    }
    let kind = declared.and_then(|info| info.value_type.kind.as_ref());
    let (name, value) = read_message(path, kind)?;
    Ok(Expected {
        name,
        content: Expectation::Value(value),
    })
}

fn read_message(path: &Path, kind: Option<&ValueKind>) -> Result<(String, Value), Failure> {
    protobuf::decode(kind, read(path)?).map_err(|e| Failure::File {
        path: path.into(),
        reason: e.to_string(),
    })
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    std::fs::read(path)
        .map(Bytes::from)
        .map_err(|e| Failure::File {
            path: path.into(),
            reason: e.to_string(),
        })
}

fn tolerance(path: &Path) -> Result<Tolerance, Failure> {
    if !path.exists() {
        return Ok(Tolerance::default());
    }
    serde_json::from_slice(&read(path)?).map_err(|e| Failure::File {
        path: path.into(),
        reason: e.to_string(),
    })
}

/// The `.pb` and `.json` files `<prefix><i>`, by number; where there are both, the `.pb`, which is
/// complete.
fn numbered_files(folder: &Path, prefix: &str) -> Result<Vec<(usize, PathBuf)>, Failure> {
    let mut files = numbered(folder, prefix)?;
    files.retain(|(_, path)| path.extension().is_some_and(|e| e == "pb" || e == "json"));
    files.sort_by_key(|(i, path)| (*i, path.extension().is_some_and(|e| e == "json")));
    files.dedup_by_key(|(i, _)| *i);
    Ok(files)
}

/// Entries of a folder named `<prefix><number>` with or without an ending, by number.
fn numbered(folder: &Path, prefix: &str) -> Result<Vec<(usize, PathBuf)>, Failure> {
    let fail = |e: std::io::Error| Failure::File {
        path: folder.into(),
        reason: e.to_string(),
    };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let stem = path
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default();
        if let Some(number) = stem.strip_prefix(prefix).and_then(|s| s.parse().ok()) {
            entries.push((number, path));
        }
    }
    entries.sort();
    Ok(entries)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into()
}
