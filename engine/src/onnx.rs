//! The ONNX file format: protobuf messages, tensors in them, and data kept outside of them.
//!
//! [`proto`] has the messages as prost structs written by hand. Byte fields are [`bytes::Bytes`],
//! so that decoding from a mapped file borrows every weight instead of copying it.

pub mod external_data;
pub mod proto;
pub mod values;
pub mod writer;

use bytes::Bytes;
use prost::Message;

use crate::error::Error;

/// Decodes a model file.
///
/// # Errors
/// [`Error::Malformed`] where the bytes are not a protobuf `ModelProto` with a graph.
pub fn read_model(bytes: Bytes) -> Result<proto::Model, Error> {
    if bytes.is_empty() {
        return Err(Error::malformed("the file is empty"));
    }
    let model = proto::Model::decode(bytes).map_err(|e| Error::malformed(e.to_string()))?;
    if model.graph.is_none() {
        return Err(Error::malformed("there is no graph in it"));
    }
    if model.opset_import.is_empty() {
        return Err(Error::malformed("it imports no operator set"));
    }
    Ok(model)
}
