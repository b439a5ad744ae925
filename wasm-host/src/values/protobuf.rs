//! `.pb` files of the ONNX backend tests: one message each, whose kind the model's declaration of
//! the input or output tells.

use bytes::Bytes;
use prost::Message;

use lethe_engine::onnx::external_data::NoExternalData;
use lethe_engine::onnx::{proto, values};
use lethe_engine::{Error, Value, ValueKind};

/// Decodes a value of the given kind, with the name that the message has.
///
/// # Errors
/// When the bytes are no such message.
pub fn decode(kind: Option<&ValueKind>, bytes: Bytes) -> Result<(String, Value), Error> {
    fn message<M: Message + Default>(bytes: Bytes) -> Result<M, Error> {
        M::decode(bytes).map_err(|e| Error::Malformed {
            reason: e.to_string(),
        })
    }
    let files = &NoExternalData;
    let (name, value) = match kind {
        Some(ValueKind::Sequence(element)) => {
            let message: proto::Sequence = message(bytes)?;
            let mut sequence = values::sequence_from_proto(&message, files)?;
            if sequence.values.is_empty() {
                sequence.element = (**element).clone();
            }
            (message.name, Value::Sequence(sequence))
        }
        Some(ValueKind::Map(..)) => {
            let message: proto::Map = message(bytes)?;
            let map = values::map_from_proto(&message, files)?;
            (message.name, Value::Map(map))
        }
        Some(ValueKind::Optional(element)) => {
            let message: proto::Optional = message(bytes)?;
            let mut optional = values::optional_from_proto(&message, files)?;
            if optional.value.is_none() {
                optional.element = (**element).clone();
            }
            (message.name, Value::Optional(optional))
        }
        Some(ValueKind::Tensor(_)) | None => {
            let message: proto::Tensor = message(bytes)?;
            let tensor = values::tensor_from_proto(&message, files)?.aligned();
            (message.name, Value::Tensor(tensor))
        }
    };
    Ok((name.unwrap_or_default(), value))
}
