//! `lethe inspect MODEL`: what a model needs and whether it will run, before it does; or what a
//! bundle holds.

mod bundle;
mod operators;

use serde_json::{Value as Json, json};
use std::io::{self, Write};
use std::path::PathBuf;

use lethe_engine::graph::dimension::display_dims;
use lethe_engine::onnx::proto;
use lethe_engine::plan::StepKind;
use lethe_engine::tensor::TensorView;
use lethe_engine::{DataType, Dim, Error, InputValue, Session, ValueInfo};

use super::bench::{MadeUp, made_up_shapes, parse_shape};
use super::{CommandError, Outcome};
use crate::settings::RunSettings;
use lethe_sandbox::model_file::{ModelFile, ModelFileError};
use operators::Usage;

/// Say what a model needs and whether it will run
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The ONNX file, or a bundle
    model: PathBuf,
    /// Sizes of an input's axes, for the memory of a run [default: 1 where the model does not say]
    #[arg(long = "shape", value_name = "NAME=1x128")]
    shapes: Vec<String>,
}

/// All there is to say.
struct Report {
    producer: String,
    opsets: Vec<(String, i64)>,
    operators: Vec<Usage>,
    parameters: u64,
    weight_bytes: u64,
    /// What could be learnt from loading the model, or why it could not be loaded.
    loaded: Result<LoadedReport, Error>,
}

struct LoadedReport {
    inputs: Vec<ValueInfo>,
    /// Those that have defaults.
    optional_inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    nodes_before: usize,
    nodes_after: usize,
    rewrites: Vec<(&'static str, usize)>,
    /// For inputs of these shapes; `None` where no inputs can be made up.
    run: Option<RunMemory>,
    /// What these shapes are at odds with.
    warnings: Vec<String>,
}

struct RunMemory {
    shapes: Vec<(String, Vec<usize>)>,
    arena_bytes: usize,
    weight_bytes: usize,
    /// Nodes whose outputs' sizes depend on data: their memory comes on top.
    dynamic_nodes: usize,
    /// Steps by device.
    devices: Vec<(String, usize)>,
}

impl Inspect {
    /// Runs the command. A model that cannot be loaded is reported, and the outcome is bad.
    ///
    /// # Errors
    /// When the file cannot be read or is neither an ONNX model nor a bundle.
    pub fn run(&self, settings: &RunSettings, json: bool) -> Result<Outcome, CommandError> {
        let file = ModelFile::open(&self.model)?;
        if file.begins_with(b"\0asm") {
            let bundle = file.content().bytes();
            let bundle = bundle.map_err(|source| ModelFileError {
                path: self.model.clone(),
                source,
            })?;
            return bundle::inspect(&self.model, &bundle, json);
        }
        let model = file
            .decode()
            .map_err(|source| super::in_model(&self.model, source.into()))?;
        let options = settings.session_options(&file)?;
        let loaded = Session::from_model(&model, &options);
        let loaded = match loaded {
            Ok(session) => Ok(self.loaded_report(&session)?),
            Err(error) => Err(error),
        };
        let (parameters, weight_bytes) = weights(&model);
        let report = Report {
            producer: format!(
                "{} {}",
                model.producer_name.as_deref().unwrap_or_default(),
                model.producer_version.as_deref().unwrap_or_default()
            ),
            opsets: lethe_engine::graph::opset_versions(&model),
            operators: operators::of_model(&model),
            parameters,
            weight_bytes,
            loaded,
        };
        let mut out = io::stdout().lock();
        match json {
            true => writeln!(out, "{:#}", report.to_json())?,
            false => report.print(&mut out)?,
        }
        Ok(match report.loaded {
            Ok(_) => Outcome::Good,
            Err(_) => Outcome::Bad,
        })
    }

    fn loaded_report(&self, session: &Session) -> Result<LoadedReport, CommandError> {
        let shapes = self.shapes.iter().map(|s| parse_shape(s, session.inputs()));
        let shapes = shapes.collect::<Result<Vec<_>, _>>()?;
        let made = made_up_shapes(session.inputs(), &shapes);
        // Shapes that were asked for must fit; made-up ones need not.
        let run = match (made, self.shapes.is_empty()) {
            (Ok(made), asked) => match run_memory(session, &made) {
                Err(_) if asked => None,
                result => Some(result.map_err(|e| super::in_model(&self.model, e.into()))?),
            },
            (Err(_), true) => None,
            (Err(error), false) => return Err(error),
        };
        let rewrites = session.rewrites();
        Ok(LoadedReport {
            inputs: session.inputs().to_vec(),
            optional_inputs: session.optional_inputs().to_vec(),
            outputs: session.outputs().to_vec(),
            nodes_before: rewrites.nodes_before,
            nodes_after: rewrites.nodes_after,
            rewrites: rewrites.changes.clone(),
            run,
            warnings: session
                .split_names()
                .iter()
                .map(ToString::to_string)
                .collect(),
        })
    }
}

/// What a run on inputs of these shapes takes, learnt from shapes alone.
fn run_memory(session: &Session, inputs: &[MadeUp]) -> Result<RunMemory, Error> {
    let borrowed: Vec<(&str, InputValue<'_>)> = inputs
        .iter()
        .map(|input| {
            let view = TensorView::of_shape(input.data_type, &input.shape);
            (input.name.as_str(), InputValue::Tensor(view))
        })
        .collect();
    let layout = session.layout(&borrowed)?;
    let mut devices: Vec<(String, usize)> = Vec::new();
    for step in session.devices(&borrowed)? {
        match devices.iter_mut().find(|(name, _)| name == step.device) {
            Some((_, count)) => *count += 1,
            None => devices.push((step.device.into(), 1)),
        }
    }
    let shape = |input: &MadeUp| (input.name.clone(), input.shape.clone());
    let dynamic = layout
        .steps
        .iter()
        .filter(|kind| **kind == StepKind::Dynamic);
    Ok(RunMemory {
        shapes: inputs.iter().map(shape).collect(),
        arena_bytes: layout.arena_bytes,
        weight_bytes: session.plan().weight_bytes(),
        dynamic_nodes: dynamic.count(),
        devices,
    })
}

/// Elements and bytes of all initializers, those of subgraphs included.
fn weights(model: &proto::Model) -> (u64, u64) {
    let mut graphs: Vec<&proto::Graph> = model.graph.iter().collect();
    let (mut elements, mut bytes) = (0u64, 0u64);
    while let Some(graph) = graphs.pop() {
        let sparse = graph
            .sparse_initializer
            .iter()
            .filter_map(|s| s.values.as_ref());
        for tensor in graph.initializer.iter().chain(sparse) {
            let count = tensor
                .dims
                .iter()
                .try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?));
            let count = count.unwrap_or(0);
            let data_type = DataType::from_code(tensor.data_type.unwrap_or_default());
            let bits = data_type.map_or(0, |t| t.bits() as u64);
            elements = elements.saturating_add(count);
            bytes = bytes.saturating_add(count.saturating_mul(bits).div_ceil(8));
        }
        let attributes = graph.node.iter().flat_map(|n| &n.attribute);
        graphs.extend(attributes.flat_map(|a| a.g.iter().chain(&a.graphs)));
    }
    (elements, bytes)
}

fn value_json(info: &ValueInfo) -> Json {
    let value_type = &info.value_type;
    let datatype = match (value_type.data_type(), &value_type.kind) {
        (Some(data_type), _) => data_type.protocol_name().to_owned(),
        (None, kind) => kind.as_ref().map_or("unknown".into(), ToString::to_string),
    };
    let size = |dim: &Dim| dim.known().map_or(json!(-1), |n| json!(n));
    let dims = value_type.dims.as_ref();
    let shape: Vec<Json> = dims.into_iter().flatten().map(size).collect();
    let axes: Vec<String> = dims
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    json!({ "name": &*info.name, "datatype": datatype, "shape": shape, "axes": axes })
}

fn value_line(info: &ValueInfo) -> String {
    let value_type = &info.value_type;
    match (value_type.data_type(), &value_type.kind) {
        (Some(data_type), _) => {
            format!(
                "{}: {data_type}{}",
                info.name,
                display_dims(value_type.dims.as_deref())
            )
        }
        (None, Some(kind)) => format!("{}: {kind}", info.name),
        (None, None) => format!("{}: unknown", info.name),
    }
}

impl Report {
    fn to_json(&self) -> Json {
        let opsets: Vec<Json> = self
            .opsets
            .iter()
            .map(|(domain, version)| json!({ "domain": domain, "version": version }))
            .collect();
        let mut memory = json!({ "weights_bytes": self.weight_bytes });
        let mut document = json!({
            "producer": self.producer.trim(),
            "opsets": opsets,
            "operators": self.operators.iter().map(Usage::to_json).collect::<Vec<_>>(),
            "parameters": self.parameters,
            "runs": self.loaded.is_ok(),
        });
        match &self.loaded {
            Ok(loaded) => {
                document["inputs"] = loaded.inputs.iter().map(value_json).collect();
                if !loaded.optional_inputs.is_empty() {
                    let optional = loaded.optional_inputs.iter().map(value_json);
                    document["optional_inputs"] = optional.collect();
                }
                document["outputs"] = loaded.outputs.iter().map(value_json).collect();
                let rewrites = loaded.rewrites.iter();
                let changes: Vec<Json> = rewrites
                    .map(|(name, changes)| json!({ "name": name, "changes": changes }))
                    .collect();
                document["rewrites"] = json!({
                    "nodes_before": loaded.nodes_before,
                    "nodes_after": loaded.nodes_after,
                    "passes": changes,
                });
                document["warnings"] = json!(loaded.warnings);
                if let Some(run) = &loaded.run {
                    memory["arena_bytes"] = json!(run.arena_bytes);
                    memory["run_weights_bytes"] = json!(run.weight_bytes);
                    memory["nodes_sized_by_data"] = json!(run.dynamic_nodes);
                    let shapes = run.shapes.iter().map(|(n, s)| (n.clone(), json!(s)));
                    memory["for_shapes"] = Json::Object(shapes.collect());
                    let devices = run.devices.iter().map(|(n, c)| (n.clone(), json!(c)));
                    document["devices"] = Json::Object(devices.collect());
                }
            }
            Err(error) => {
                document["error"] = json!({ "code": error.code(), "detail": error.to_string() });
            }
        }
        document["memory"] = memory;
        document
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let opsets: Vec<String> = self
            .opsets
            .iter()
            .map(|(d, v)| format!("{d} {v}"))
            .collect();
        writeln!(out, "opsets      {}", opsets.join(", "))?;
        if !self.producer.trim().is_empty() {
            writeln!(out, "producer    {}", self.producer.trim())?;
        }
        writeln!(
            out,
            "parameters  {} ({})",
            self.parameters,
            megabytes(self.weight_bytes)
        )?;
        match &self.loaded {
            Ok(loaded) => loaded.print(out)?,
            Err(error) => writeln!(out, "\ncannot run: {error} [{}]", error.code())?,
        }
        writeln!(out, "\noperators")?;
        self.operators.iter().try_for_each(|usage| usage.print(out))
    }
}

impl LoadedReport {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for (title, infos) in [
            ("inputs", &self.inputs),
            ("inputs with defaults", &self.optional_inputs),
            ("outputs", &self.outputs),
        ] {
            if infos.is_empty() && title == "inputs with defaults" {
                continue;
            }
            writeln!(out, "\n{title}")?;
            infos
                .iter()
                .try_for_each(|info| writeln!(out, "  {}", value_line(info)))?;
        }
        for warning in &self.warnings {
            writeln!(out, "\nwarning: {warning}")?;
        }
        if let Some(run) = &self.run {
            let shapes: Vec<String> = run
                .shapes
                .iter()
                .map(|(n, s)| format!("{n}{s:?}"))
                .collect();
            writeln!(out, "\nmemory of a run with {}", shapes.join(", "))?;
            writeln!(out, "  arena      {}", megabytes(run.arena_bytes as u64))?;
            writeln!(
                out,
                "  weights    {} after the rewrites",
                megabytes(run.weight_bytes as u64)
            )?;
            if run.dynamic_nodes > 0 {
                writeln!(
                    out,
                    "  and what {} nodes make whose sizes depend on data",
                    run.dynamic_nodes
                )?;
            }
            let devices: Vec<String> = run
                .devices
                .iter()
                .map(|(d, n)| format!("{n} on {d}"))
                .collect();
            writeln!(out, "\nsteps       {}", devices.join(", "))?;
        }
        writeln!(
            out,
            "\nrewrites    {} nodes became {}",
            self.nodes_before, self.nodes_after
        )?;
        let changes = self.rewrites.iter().filter(|(_, changes)| *changes > 0);
        changes
            .clone()
            .try_for_each(|(name, changes)| writeln!(out, "  {changes:6}  {name}"))
    }
}

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
