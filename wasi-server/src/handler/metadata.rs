//! What a server and its models say of themselves: the same text at every door.

use lethe_engine::{DataType, Dim, ValueInfo, ValueKind, ValueType};
use serde::{Deserialize, Serialize};

use super::http::Response;
use crate::problem::Problem;

/// The one version that every model has: a server that is given a changed model serves it instead.
pub const MODEL_VERSION: &str = "1";

/// What the Open Inference Protocol calls an ONNX model's platform.
pub const PLATFORM: &str = "onnx_onnxv1";

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name that requests use.
    pub name: String,
    /// What it takes.
    pub inputs: Vec<TensorInfo>,
    /// What it takes too, and has defaults for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optional_inputs: Vec<TensorInfo>,
    /// What it gives.
    pub outputs: Vec<TensorInfo>,
    /// Whether weights of its products are kept as bytes, so that its answers are approximate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quantized: bool,
}

/// An input or output, as the Open Inference Protocol describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its datatype, such as `FP32`; ONNX's spelling for what is not a tensor.
    pub datatype: String,
    /// Sizes of its axes, -1 where any will do; empty where not even their number is known.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    pub(super) fn of(info: &ValueInfo) -> Self {
        let datatype = match (info.value_type.data_type(), &info.value_type.kind) {
            (Some(data_type), _) => data_type.protocol_name().into(),
            (None, Some(kind)) => kind.to_string(),
            (None, None) => "unknown".into(),
        };
        let size = |dim: &Dim| match dim {
            Dim::Known(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Symbol(_) | Dim::Unknown => -1,
        };
        let shape = info.value_type.dims.iter().flatten().map(size).collect();
        Self {
            name: info.name.to_string(),
            datatype,
            shape,
        }
    }

    /// The engine's form of this description; sizes that are not known have no names any more.
    pub fn value_info(&self) -> ValueInfo {
        let data_type = DataType::from_protocol_name(&self.datatype);
        let dim = |&size: &i64| Dim::declared(size);
        let dims = data_type.map(|_| self.shape.iter().map(dim).collect());
        let kind = match data_type {
            Some(data_type) => Some(ValueKind::Tensor(data_type)),
            None => self.datatype.parse().ok(),
        };
        ValueInfo {
            name: self.name.as_str().into(),
            value_type: ValueType { kind, dims },
        }
    }
}

/// The answer to a health check.
pub fn health() -> Response {
    Response::json(concat!(
        "{\"status\":\"ok\",\"version\":\"",
        env!("CARGO_PKG_VERSION"),
        "\"}"
    ))
}

/// The list of models.
pub fn list<'a>(models: impl Iterator<Item = &'a ModelInfo>) -> Response {
    #[derive(Serialize)]
    struct List<'a> {
        models: Vec<&'a ModelInfo>,
    }
    of(&List {
        models: models.collect(),
    })
}

/// The Open Inference Protocol's answer on whether the server answers at all.
pub fn live() -> Response {
    Response::json("{\"live\":true}")
}

/// The Open Inference Protocol's answer on whether the server takes inferences; 503 where it does
/// not.
pub fn ready(is_ready: bool) -> Response {
    Response {
        status: if is_ready { 200 } else { 503 },
        ..Response::json(format!("{{\"ready\":{is_ready}}}"))
    }
}

/// The Open Inference Protocol's answer on whether a model can be asked.
pub fn model_ready(name: &str) -> Response {
    #[derive(Serialize)]
    struct Ready<'a> {
        name: &'a str,
        ready: bool,
    }
    of(&Ready { name, ready: true })
}

/// What the server is; `extensions` are those of the Open Inference Protocol that this door has,
/// such as `binary_tensor_data`.
pub fn server_metadata(extensions: &[&str]) -> Response {
    #[derive(Serialize)]
    struct Metadata<'a> {
        name: &'a str,
        version: &'a str,
        extensions: &'a [&'a str],
    }
    of(&Metadata {
        name: "lethe",
        version: env!("CARGO_PKG_VERSION"),
        extensions,
    })
}

/// What a model takes and gives, as the Open Inference Protocol has it.
pub fn model_metadata(model: &ModelInfo) -> Response {
    #[derive(Serialize)]
    struct Metadata<'a> {
        versions: [&'a str; 1],
        platform: &'a str,
        #[serde(flatten)]
        model: &'a ModelInfo,
    }
    of(&Metadata {
        versions: [MODEL_VERSION],
        platform: PLATFORM,
        model,
    })
}

/// Checks that a model has the version that a path names.
///
/// # Errors
/// 404 where it does not.
pub fn check_version(model: &str, version: Option<&str>) -> Result<(), Problem> {
    match version {
        None | Some(MODEL_VERSION) => Ok(()),
        Some(found) => {
            let detail = format!("model {model:?} has version {MODEL_VERSION:?}, not {found:?}");
            Err(Problem::new(404, "LETHE-MODEL-UNKNOWN", detail))
        }
    }
}

fn of(metadata: &impl Serialize) -> Response {
    Response::json(serde_json::to_vec(metadata).expect("descriptions are JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body(response: &Response) -> Value {
        serde_json::from_slice(&response.body).unwrap()
    }

    #[test]
    fn descriptions_are_those_of_the_protocol() {
        let tensor = |name: &str| TensorInfo {
            name: name.into(),
            datatype: "FP32".into(),
            shape: vec![-1, 2],
        };
        let model = ModelInfo {
            name: "m".into(),
            inputs: vec![tensor("x")],
            optional_inputs: Vec::new(),
            outputs: vec![tensor("y")],
            quantized: false,
        };
        let of_tensor = |name| json!({"name": name, "datatype": "FP32", "shape": [-1, 2]});
        assert_eq!(
            body(&model_metadata(&model)),
            json!({
                "name": "m",
                "versions": ["1"],
                "platform": "onnx_onnxv1",
                "inputs": [of_tensor("x")],
                "outputs": [of_tensor("y")],
            })
        );
        assert_eq!(
            body(&server_metadata(&["binary_tensor_data"])),
            json!({
                "name": "lethe",
                "version": env!("CARGO_PKG_VERSION"),
                "extensions": ["binary_tensor_data"],
            })
        );
        assert_eq!(body(&live()), json!({"live": true}));
        assert_eq!(
            body(&model_ready("\"")),
            json!({"name": "\"", "ready": true})
        );
        let draining = ready(false);
        assert_eq!(
            (draining.status, body(&draining)),
            (503, json!({"ready": false}))
        );
        assert_eq!(ready(true).status, 200);
    }

    #[test]
    fn only_version_1_exists() {
        for (version, good) in [
            (None, true),
            (Some("1"), true),
            (Some("2"), false),
            (Some(""), false),
        ] {
            let found = check_version("m", version).map_err(|problem| problem.status);
            assert_eq!(found, if good { Ok(()) } else { Err(404) }, "{version:?}");
        }
    }
}
