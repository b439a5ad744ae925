//! `lethe run MODEL`: one run, its outputs summed up and, where wanted, written to files.

use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lethe_engine::tensor::MapKeys;
use lethe_engine::{Tensor, Value, ValueInfo};

use super::{CommandError, Loaded, Outcome};
use crate::settings::RunSettings;
use crate::values::{Elements, npy, read_input};

/// Run a model once
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The ONNX file
    model: PathBuf,
    /// An input: a file (.npy .npz .pb .json .png .jpg .wav .txt) or the value itself, as in JSON
    #[arg(long = "input", value_name = "NAME=FILE|VALUE")]
    inputs: Vec<String>,
    /// Folder for the outputs, one NAME.npy each
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Run {
    /// Runs the command.
    ///
    /// # Errors
    /// When the model or an input cannot be read, the run fails, or an output cannot be written.
    pub fn run(&self, settings: &RunSettings, json: bool) -> Result<Outcome, CommandError> {
        let loaded = Loaded::open(&self.model, settings)?;
        let runner = &*loaded.runner;
        let given = read_inputs(runner.inputs(), runner.optional_inputs(), &self.inputs)?;
        let inputs: Vec<(&str, Value)> =
            given.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        let start = Instant::now();
        let outputs = runner
            .run(&inputs)
            .map_err(|source| super::in_model(&self.model, source))?;
        let seconds = start.elapsed().as_secs_f64();
        for note in runner.notes() {
            eprintln!("lethe: {note}");
        }
        if let Some(folder) = &self.output {
            write_outputs(folder, &outputs)?;
        }
        let mut out = std::io::stdout().lock();
        if json {
            let outputs: Vec<_> = outputs.iter().map(describe_json).collect();
            let model = self.model.display().to_string();
            let document = json!({ "model": model, "ms": seconds * 1e3, "outputs": outputs });
            writeln!(out, "{document:#}")?;
        } else {
            for (name, value) in &outputs {
                writeln!(out, "{name}: {}", describe(value))?;
                writeln!(out, "  sha256 {}", digest(value))?;
            }
            writeln!(out, "{:.3} ms", seconds * 1e3)?;
        }
        Ok(Outcome::Good)
    }
}

/// Reads the inputs given as `NAME=FILE|VALUE`. The only input that a model needs has to have no name.
pub(super) fn read_inputs(
    needed: &[ValueInfo],
    optional: &[ValueInfo],
    given: &[String],
) -> Result<Vec<(String, Value)>, CommandError> {
    let declared = || needed.iter().chain(optional);
    let names = || {
        let names: Vec<&str> = declared().map(|info| &*info.name).collect();
        names.join(", ")
    };
    let read = |argument: &String| {
        let named = argument
            .split_once('=')
            .and_then(|(name, text)| Some((declared().find(|d| &*d.name == name)?, text)));
        let (info, text) = match (named, needed) {
            (Some(named), _) => named,
            (None, [only]) if !argument.contains('=') => (only, argument.as_str()),
            _ => {
                let reason = format!(
                    "--input {argument}: expected NAME=FILE|VALUE with one of {} [LETHE-OPTION]",
                    names()
                );
                return Err(CommandError::Request(reason));
            }
        };
        Ok((info.name.to_string(), read_input(info, text)?))
    };
    given.iter().map(read).collect()
}

/// Type, shape and the range of the elements, with the first few.
fn describe(value: &Value) -> String {
    let tensor = match value {
        Value::Tensor(tensor) => tensor,
        Value::Sequence(sequence) => {
            return format!("{}, {} elements", value.kind(), sequence.values.len());
        }
        Value::Map(map) => return format!("{}, {} keys", value.kind(), map.keys.len()),
        Value::Optional(optional) => match &optional.value {
            Some(value) => return describe(value),
            None => return format!("{}, nothing", value.kind()),
        },
    };
    let elements = Elements::of(tensor);
    let shown: Vec<String> = (0..elements.len().min(6))
        .map(|i| elements.show(i).to_string())
        .collect();
    let more = if elements.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    let summary = summary(&elements).map_or(String::new(), |[least, most, mean]| {
        format!("  min {least:.6} max {most:.6} mean {mean:.6}")
    });
    format!(
        "{}{:?}{summary}  [{}{more}]",
        tensor.data_type(),
        tensor.shape(),
        shown.join(", ")
    )
}

/// Least, largest and mean element.
fn summary(elements: &Elements<'_>) -> Option<[f64; 3]> {
    let reals = elements.to_reals().filter(|reals| !reals.is_empty())?;
    let least = reals.iter().copied().fold(f64::INFINITY, f64::min);
    let most = reals.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some([least, most, reals.iter().sum::<f64>() / reals.len() as f64])
}

fn describe_json((name, value): &(String, Value)) -> serde_json::Value {
    let Value::Tensor(tensor) = value else {
        let kind = value.kind().to_string();
        return json!({ "name": name, "datatype": kind, "sha256": digest(value) });
    };
    let mut object = json!({
        "name": name,
        "datatype": tensor.data_type().protocol_name(),
        "shape": tensor.shape(),
        "sha256": digest(value),
    });
    if let Some([least, most, mean]) = summary(&Elements::of(tensor)) {
        object["min"] = json!(least);
        object["max"] = json!(most);
        object["mean"] = json!(mean);
    }
    object
}

/// sha256 of a value's elements: of a tensor's little-endian bytes as they are, of strings with
/// their length before each (64 bits), of other values element by element.
pub fn digest(value: &Value) -> String {
    let mut hash = Sha256::new();
    update(&mut hash, value);
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn update(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Tensor(tensor) => update_tensor(hash, tensor),
        Value::Sequence(sequence) => sequence.values.iter().for_each(|v| update(hash, v)),
        Value::Map(map) => {
            match &map.keys {
                MapKeys::Integers(_, keys) => {
                    keys.iter().for_each(|k| hash.update(k.to_le_bytes()))
                }
                MapKeys::Strings(keys) => update_strings(hash, keys),
            }
            update_tensor(hash, &map.values);
        }
        Value::Optional(optional) => optional.value.iter().for_each(|v| update(hash, v)),
    }
}

fn update_tensor(hash: &mut Sha256, tensor: &Tensor) {
    match tensor.as_strings() {
        Ok(strings) => update_strings(hash, strings),
        Err(_) => hash.update(tensor.bytes()),
    }
}

fn update_strings(hash: &mut Sha256, strings: &[String]) {
    for string in strings {
        hash.update((string.len() as u64).to_le_bytes());
        hash.update(string);
    }
}

/// Writes each tensor as `NAME.npy`; the elements of a sequence as `NAME.<i>.npy`, the keys and
/// values of a map as `NAME.keys.npy` and `NAME.values.npy`.
fn write_outputs(folder: &Path, outputs: &[(String, Value)]) -> Result<(), CommandError> {
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        outputs
            .iter()
            .try_for_each(|(name, value)| write_value(folder, &file_name(name), value))
    };
    write()
        .map_err(|e| CommandError::Request(format!("cannot write into {}: {e}", folder.display())))
}

fn write_value(folder: &Path, name: &str, value: &Value) -> std::io::Result<()> {
    let write = |name: &str, tensor: &Tensor| {
        std::fs::write(folder.join(format!("{name}.npy")), npy::encode(tensor))
    };
    match value {
        Value::Tensor(tensor) => write(name, tensor),
        Value::Sequence(sequence) => {
            let mut values = sequence.values.iter().enumerate();
            values.try_for_each(|(i, value)| write_value(folder, &format!("{name}.{i}"), value))
        }
        Value::Map(map) => {
            let keys = match &map.keys {
                MapKeys::Integers(_, keys) => Tensor::from_slice(&[keys.len()], keys),
                MapKeys::Strings(keys) => Tensor::from_strings(&[keys.len()], keys.clone()),
            };
            write(
                &format!("{name}.keys"),
                &keys.map_err(std::io::Error::other)?,
            )?;
            write(&format!("{name}.values"), &map.values)
        }
        Value::Optional(optional) => match &optional.value {
            Some(value) => write_value(folder, name, value),
            None => Ok(()),
        },
    }
}

/// The name as that of a file in a folder: a model chooses its outputs' names, not where they go.
fn file_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_control() || "/\\:*?\"<>|".contains(c) {
                '_'
            } else {
                c
            }
        })
        .collect();
    match safe.trim_matches('.') {
        "" => "output".into(),
        _ if safe.starts_with('.') => format!("_{safe}"),
        _ => safe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_names_stay_in_the_folder() {
        let cases = [
            ("logits", "logits"),
            (
                "save_infer_model/scale_0.tmp_1",
                "save_infer_model_scale_0.tmp_1",
            ),
            ("../../etc/passwd", "_.._.._etc_passwd"),
            ("..", "output"),
            ("", "output"),
            ("C:\\x", "C__x"),
        ];
        for (name, expected) in cases {
            assert_eq!(file_name(name), expected);
        }
    }

    #[test]
    fn digests_are_those_of_the_elements() {
        let tensor = Tensor::from_slice(&[3], &[97u8, 98, 99]).unwrap();
        assert_eq!(
            digest(&tensor.into()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha256 of \"abc\""
        );
        let strings = |parts: &[&str]| {
            let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
            digest(&Tensor::from_strings(&[parts.len()], parts).unwrap().into())
        };
        assert_ne!(strings(&["ab", "c"]), strings(&["a", "bc"]));
    }
}
