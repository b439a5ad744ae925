//! What the server says of its models.

use std::time::UNIX_EPOCH;

use lethe_server::handler::{MODEL_VERSION, PLATFORM};
use lethe_server::{ModelInfo, TensorInfo};
use serde_json::{Value, json};

use crate::serve::repository::Listed;

/// An entry of `GET /api/v1/models`.
pub(super) fn model(listed: &Listed) -> Value {
    let mut entry = json!({ "name": listed.name, "state": listed.state });
    if let Some(reason) = &listed.reason {
        entry["reason"] = json!(reason);
    }
    if let Some(loaded) = &listed.loaded {
        let (shared, instance) = loaded.memory_bytes();
        let info = loaded.info();
        let since = loaded.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        entry["inputs"] = json!(info.inputs);
        entry["outputs"] = json!(info.outputs);
        entry["size_bytes"] = json!(loaded.file_bytes());
        entry["image_bytes"] = json!(shared);
        entry["instance_bytes"] = json!(instance);
        entry["sha256"] = json!(loaded.sha256());
        entry["isolated"] = json!(loaded.is_isolated());
        entry["loaded_at"] = json!(since.as_secs());
        entry["load_us"] = json!(loaded.load_us);
    }
    entry
}

/// An entry of the repository's index, as Triton writes it.
pub(super) fn index(listed: &Listed) -> Value {
    let state = match &listed.loaded {
        Some(_) => "READY",
        None => "UNAVAILABLE",
    };
    let reason = listed.reason.as_deref().unwrap_or(match listed.loaded {
        Some(_) => "",
        None => "loaded when it is asked for",
    });
    json!({ "name": listed.name, "version": MODEL_VERSION, "state": state, "reason": reason })
}

/// A model's configuration, as far as Triton's has a place for it.
pub(super) fn config(info: &ModelInfo) -> Value {
    let tensor = |tensor: &TensorInfo| {
        let data_type = match tensor.datatype.as_str() {
            "BYTES" => "TYPE_STRING".into(),
            other => format!("TYPE_{other}"),
        };
        json!({ "name": tensor.name, "data_type": data_type, "dims": tensor.shape })
    };
    json!({
        "name": info.name,
        "platform": PLATFORM,
        "backend": "lethe",
        "max_batch_size": 0,
        "input": info.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "output": info.outputs.iter().map(tensor).collect::<Vec<_>>(),
        "version_policy": { "latest": { "num_versions": 1 } },
    })
}
