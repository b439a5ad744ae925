//! A loaded model.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lethe_engine::onnx::proto;
use lethe_engine::plan::{Pause, Profile};
use lethe_engine::session::DeviceChoice;
use lethe_engine::{DataType, Dim, InputValue, Numerics, SessionOptions, ValueInfo};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;

use crate::{DecodedModel, ExternalFiles, Failure, Value};

/// The version of Lethe.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// The device of a backend.
async fn device(backend: &str) -> Result<DeviceChoice, Failure> {
    match backend {
        "wasm" => Ok(DeviceChoice::Cpu),
        #[cfg(feature = "webgpu")]
        "webgpu" => {
            let gpu = lethe_engine::device::webgpu::WebGpu::request().await?;
            Ok(DeviceChoice::WebGpu(std::sync::Arc::new(gpu)))
        }
        other => Err(Failure::device(format!(
            "device {other}: this build does not have it"
        ))),
    }
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = warn)]
    fn console_warn(text: &str);
}

/// A model that can be run.
#[wasm_bindgen]
pub struct Session {
    engine: lethe_engine::Session,
    /// The names of axes that the console was warned of.
    warned: RefCell<BTreeSet<Arc<str>>>,
}

#[wasm_bindgen]
impl Session {
    /// Loads a model with the files beside it for `backend`, `wasm` or (in a build that has it)
    /// `webgpu`, with `numerics` `fast` or `reproducible`, the graph rewritten or as it is. Axes of
    /// inputs that are called one of `axes` have its one of `sizes`.
    ///
    /// # Errors
    /// Where the model is invalid or unsupported (the engine's code), the backend is not to be had
    /// (`LETHE-DEVICE`), or a setting has no such value (`LETHE-OPTION`).
    pub async fn load(
        model: DecodedModel,
        files: ExternalFiles,
        backend: String,
        numerics: String,
        rewrite: bool,
        axes: Vec<String>,
        sizes: Vec<f64>,
    ) -> Result<Session, Failure> {
        let numerics = match numerics.as_str() {
            "fast" => Numerics::Fast,
            "reproducible" => Numerics::Reproducible,
            other => {
                return Err(Failure::option(format!(
                    "numerics: expected fast or reproducible, found {other:?}"
                )));
            }
        };
        let options = SessionOptions {
            numerics,
            device: device(&backend).await?,
            rewrite,
            files: &files,
            ..SessionOptions::default()
        };
        let DecodedModel(mut model) = model;
        for (axis, size) in axes.iter().zip(sizes) {
            fix_axis(&mut model, axis, size as i64);
        }
        Ok(Self {
            engine: lethe_engine::Session::from_model(&model, &options)?,
            warned: RefCell::default(),
        })
    }

    /// Runs the model on the inputs `names`, each with its one of `values`, and gives the outputs
    /// named in `wanted` in that order, or all in the model's order. Between two steps `pause`, where
    /// there is one, may give a promise that the run waits for, whose rejection ends it.
    ///
    /// # Errors
    /// Where an input is missing, unknown or wrong, or a node fails.
    pub async fn run(
        &self,
        names: Vec<String>,
        values: Vec<Value>,
        wanted: Option<Vec<String>>,
        pause: Option<js_sys::Function>,
    ) -> Result<Vec<Value>, Failure> {
        let inputs = inputs(&names, values);
        let wanted = strs(&wanted);
        let wanted = wanted.as_deref();
        let outputs = match &pause {
            None => self.engine.run_async(&inputs, wanted).await?,
            Some(pause) => {
                let pause = || pause_of(pause);
                self.engine.run_with_pauses(&inputs, wanted, &pause).await?
            }
        };
        self.warn();
        Ok(outputs.into_iter().map(|(_, value)| Value(value)).collect())
    }

    /// The same on the CPU, by a clock around each step, which gives milliseconds.
    ///
    /// # Errors
    /// As [`Session::run`].
    #[wasm_bindgen(js_name = runTimed)]
    pub fn run_timed(
        &self,
        names: Vec<String>,
        values: Vec<Value>,
        wanted: Option<Vec<String>>,
        clock: js_sys::Function,
    ) -> Result<TimedRun, Failure> {
        // A clock that fails has stopped.
        let now = || clock.call0(&JsValue::UNDEFINED).ok()?.as_f64();
        let nanoseconds = || (now().unwrap_or_default() * 1e6) as u64;
        let mut profile = Profile::default();
        let outputs = self.engine.run_profiled(
            &inputs(&names, values),
            strs(&wanted).as_deref(),
            &mut profile,
            &nanoseconds,
        )?;
        self.warn();
        let steps = self.engine.plan().steps.iter().zip(profile.steps);
        let mut run = TimedRun {
            nodes: Vec::new(),
            operators: Vec::new(),
            ms: Vec::new(),
            outputs: outputs.into_iter().map(|(_, value)| Value(value)).collect(),
        };
        for (step, times) in steps.filter(|(_, times)| times.runs > 0) {
            run.nodes.push(step.name.name.clone());
            run.operators.push(step.name.op_type.clone());
            run.ms.push(times.time as f64 / 1e6);
        }
        Ok(run)
    }

    /// Where each step that runs on data would run for such inputs.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn placement(
        &self,
        names: Vec<String>,
        values: Vec<Value>,
    ) -> Result<Vec<StepPlacement>, Failure> {
        let steps = &self.engine.plan().steps;
        let inputs = inputs(&names, values);
        let inputs: Vec<_> = inputs
            .iter()
            .map(|(name, value)| (*name, InputValue::from_value(value)))
            .collect();
        let devices = self.engine.devices(&inputs)?;
        Ok(devices
            .into_iter()
            .map(|place| StepPlacement {
                node: steps[place.step].name.name.clone(),
                operator: steps[place.step].name.op_type.clone(),
                device: place.device.into(),
                reason: place.reason,
            })
            .collect())
    }

    /// What the inputs must be, in the model's order.
    #[wasm_bindgen(getter)]
    pub fn inputs(&self) -> Vec<ValueDescription> {
        describe(self.engine.inputs())
    }

    /// What the inputs that have defaults are: a run may give them or not.
    #[wasm_bindgen(getter, js_name = optionalInputs)]
    pub fn optional_inputs(&self) -> Vec<ValueDescription> {
        describe(self.engine.optional_inputs())
    }

    /// What the outputs are, in the model's order.
    #[wasm_bindgen(getter)]
    pub fn outputs(&self) -> Vec<ValueDescription> {
        describe(self.engine.outputs())
    }

    /// The tool that wrote the model, with its version.
    #[wasm_bindgen(getter)]
    pub fn producer(&self) -> String {
        self.engine.metadata().producer.clone()
    }

    /// What the file says of itself beyond that: names and texts in turn.
    #[wasm_bindgen(getter)]
    pub fn properties(&self) -> Vec<String> {
        let properties = &self.engine.metadata().properties;
        let flat = properties.iter().flat_map(|(name, text)| [name, text]);
        flat.cloned().collect()
    }

    /// `domain version` for each opset the model imports.
    #[wasm_bindgen(getter)]
    pub fn opsets(&self) -> Vec<String> {
        let opsets = &self.engine.metadata().opsets;
        opsets
            .iter()
            .map(|(domain, version)| format!("{domain} {version}"))
            .collect()
    }

    /// `operator count` for each operator that runs, after the rewrites, subgraphs not counted.
    #[wasm_bindgen(getter)]
    pub fn operators(&self) -> Vec<String> {
        let mut counts = BTreeMap::<&str, usize>::new();
        for step in &self.engine.plan().steps {
            *counts.entry(&step.name.op_type).or_default() += 1;
        }
        counts
            .iter()
            .map(|(operator, count)| format!("{operator} {count}"))
            .collect()
    }

    /// Bytes of the weights that the model runs with, after the rewrites.
    #[wasm_bindgen(getter, js_name = weightBytes)]
    pub fn weight_bytes(&self) -> f64 {
        self.engine.plan().weight_bytes() as f64
    }

    /// Overwrites what runs have left in memory and gives the number of bytes.
    pub fn wipe(&self) -> f64 {
        self.engine.wipe() as f64
    }

    /// Tells the console of names of axes that had several sizes.
    fn warn(&self) {
        for split in self.engine.split_names() {
            if self.warned.borrow_mut().insert(split.name.clone()) {
                console_warn(&format!("lethe: {split}"));
            }
        }
    }
}

/// A run whose steps were measured.
#[wasm_bindgen]
pub struct TimedRun {
    nodes: Vec<String>,
    operators: Vec<String>,
    ms: Vec<f64>,
    outputs: Vec<Value>,
}

#[wasm_bindgen]
impl TimedRun {
    /// The names of the nodes that ran.
    #[wasm_bindgen(getter)]
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.clone()
    }

    /// Their operators' types.
    #[wasm_bindgen(getter)]
    pub fn operators(&self) -> Vec<String> {
        self.operators.clone()
    }

    /// Their times, in milliseconds.
    #[wasm_bindgen(getter)]
    pub fn ms(&self) -> Vec<f64> {
        self.ms.clone()
    }

    /// The outputs, once.
    #[wasm_bindgen(js_name = takeOutputs)]
    pub fn take_outputs(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.outputs)
    }
}

/// What a call of `pause` says a run is to wait for.
fn pause_of(pause: &js_sys::Function) -> Option<Pause> {
    let promise: js_sys::Promise = match pause.call0(&JsValue::UNDEFINED) {
        Ok(value) if value.is_undefined() => return None,
        Ok(value) => js_sys::Promise::resolve(&value),
        Err(thrown) => js_sys::Promise::reject(&thrown),
    };
    Some(Box::pin(async {
        let waited = JsFuture::from(promise).await;
        waited.map(drop).map_err(|_| lethe_engine::Error::Cancelled)
    }))
}

/// Gives the axes of inputs that have a name a size, and says so where there is none: settings are often
/// made for several models.
fn fix_axis(model: &mut proto::Model, name: &str, size: i64) {
    let inputs = model.graph.iter_mut().flat_map(|graph| &mut graph.input);
    let shapes = inputs.filter_map(|input| match &mut input.r#type.as_mut()?.value {
        Some(proto::TypeValue::Tensor(tensor)) => tensor.shape.as_mut(),
        _ => None,
    });
    let mut found = false;
    for dimension in shapes.flat_map(|shape| &mut shape.dim) {
        if matches!(&dimension.value, Some(proto::DimensionValue::Param(p)) if p == name) {
            dimension.value = Some(proto::DimensionValue::Value(size));
            found = true;
        }
    }
    if !found {
        console_warn(&format!(
            "lethe: freeDimensionOverrides: no input has an axis {name:?}"
        ));
    }
}

/// Where a step of the plan runs.
#[wasm_bindgen(getter_with_clone)]
pub struct StepPlacement {
    /// The node's name.
    pub node: String,
    /// The operator's type, such as `Conv`.
    pub operator: String,
    /// The device's name: `cpu` or `webgpu`.
    pub device: String,
    /// Why it runs on the CPU, where another device was asked for.
    pub reason: Option<String>,
}

/// Name and type of an input or output.
#[wasm_bindgen]
pub struct ValueDescription(ValueInfo);

#[wasm_bindgen]
impl ValueDescription {
    /// Its name.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.0.name.to_string()
    }

    /// Its type in ONNX's spelling, such as `tensor(float)` or `seq(tensor(int64))`.
    #[wasm_bindgen(getter)]
    pub fn kind(&self) -> String {
        let kind = self.0.value_type.kind.as_ref();
        kind.map(ToString::to_string).unwrap_or_default()
    }

    /// The code of a tensor's element type; 0 where it is no tensor.
    #[wasm_bindgen(getter, js_name = dataType)]
    pub fn data_type(&self) -> i32 {
        let data_type: Option<DataType> = self.0.value_type.data_type();
        data_type.map_or(0, |t| t as i32)
    }

    /// Sizes of the axes: a number, a name, or `undefined` where anything goes. Empty where even
    /// their number is not known, or for a scalar.
    #[wasm_bindgen(getter)]
    pub fn dims(&self) -> Vec<JsValue> {
        let dims = self.0.value_type.dims.as_deref().unwrap_or_default();
        dims.iter()
            .map(|dim| match dim {
                Dim::Known(size) => JsValue::from_f64(*size as f64),
                Dim::Symbol(name) => JsValue::from_str(name),
                Dim::Unknown => JsValue::UNDEFINED,
            })
            .collect()
    }
}

fn strs(names: &Option<Vec<String>>) -> Option<Vec<&str>> {
    let names = names.as_ref()?;
    Some(names.iter().map(String::as_str).collect())
}

/// The engine's named inputs.
fn inputs(names: &[String], values: Vec<Value>) -> Vec<(&str, lethe_engine::Value)> {
    let values = values.into_iter().map(|v| v.0);
    names.iter().map(String::as_str).zip(values).collect()
}

fn describe(infos: &[ValueInfo]) -> Vec<ValueDescription> {
    infos.iter().cloned().map(ValueDescription).collect()
}
