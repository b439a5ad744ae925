//! Tensors, sequences, maps and optionals to and from their protobuf messages.

use bytes::Bytes;

use super::external_data::{self, ExternalData};
use super::proto;
use crate::error::Error;
use crate::tensor::{
    Buffer, DataType, Map, MapKeys, OptionalValue, Sequence, Shape, SharedBytes, Tensor, Value,
    ValueKind, element_count,
};

/// The tensor of a `TensorProto`. Raw data is borrowed, not copied.
///
/// # Errors
/// Where type, dimensions and data do not fit together.
pub fn tensor_from_proto(proto: &proto::Tensor, files: &dyn ExternalData) -> Result<Tensor, Error> {
    let name = proto.name.as_deref().unwrap_or_default();
    let code = proto.data_type.unwrap_or_default();
    let data_type = DataType::from_code(code).ok_or_else(|| {
        Error::malformed(format!(
            "tensor {name:?} has the unknown element type {code}"
        ))
    })?;
    let shape = shape_of(name, &proto.dims)?;
    let fail = |e: crate::error::OpError| Error::malformed(format!("tensor {name:?}: {e}"));
    if data_type == DataType::String {
        let strings: Result<Vec<String>, _> = proto
            .string_data
            .iter()
            .map(|s| String::from_utf8(s.to_vec()))
            .collect();
        let strings = strings
            .map_err(|e| Error::malformed(format!("tensor {name:?}: {}", e.utf8_error())))?;
        return Tensor::from_strings(&shape, strings).map_err(fail);
    }
    let too_large = |&&n: &&u64| n > u32::MAX.into();
    if let Some(n) = proto.uint64_data.iter().find(too_large)
        && data_type == DataType::Uint32
    {
        let reason = format!("tensor {name:?} of {data_type} has the element {n}");
        return Err(Error::malformed(reason));
    }
    let bytes: SharedBytes = if proto.data_location == Some(1) {
        external_data::resolve(name, &proto.external_data, files)?
    } else if let Some(raw) = &proto.raw_data {
        raw.clone().into()
    } else {
        typed_data(proto, data_type, element_count(&shape).unwrap_or(0)).into()
    };
    Tensor::from_bytes(data_type, &shape, bytes).map_err(fail)
}

fn shape_of(name: &str, dims: &[i64]) -> Result<Shape, Error> {
    dims.iter()
        .map(|&d| usize::try_from(d))
        .collect::<Result<Shape, _>>()
        .map_err(|_| Error::malformed(format!("tensor {name:?} has the dimensions {dims:?}")))
}

/// The bytes of a tensor stored in one of the typed fields: small types travel in `int32_data`.
fn typed_data(proto: &proto::Tensor, data_type: DataType, len: usize) -> Buffer {
    use DataType::*;
    fn copy<T: bytemuck::Pod>(elements: impl Iterator<Item = T>) -> Buffer {
        Buffer::copy_of(bytemuck::cast_slice(&elements.collect::<Vec<T>>()))
    }
    let ints = proto.int32_data.iter();
    match data_type {
        Float32 | Complex64 => copy(proto.float_data.iter().copied()),
        Float64 | Complex128 => copy(proto.double_data.iter().copied()),
        Int64 => copy(proto.int64_data.iter().copied()),
        Uint64 => copy(proto.uint64_data.iter().copied()),
        // Those beyond are refused before.
        Uint32 => copy(
            proto
                .uint64_data
                .iter()
                .filter_map(|&v| u32::try_from(v).ok()),
        ),
        Int32 => copy(ints.copied()),
        Float16 | Bfloat16 | Int16 | Uint16 => copy(ints.map(|&v| v as u16)),
        // Sub-byte types: each int32 holds a byte of packed elements.
        Uint4 | Int4 | Float4E2M1 | Uint2 | Int2 => {
            let take = data_type.size_bytes(len).unwrap_or(0);
            copy(ints.take(take).map(|&v| v as u8))
        }
        _ => copy(ints.map(|&v| v as u8)),
    }
}

/// A dense tensor with the elements of a `SparseTensorProto` (linear or coordinate indices).
///
/// # Errors
/// Where values, indices and dimensions do not fit together, or it would exceed `limit_bytes`.
pub fn tensor_from_sparse(
    proto: &proto::SparseTensor,
    files: &dyn ExternalData,
    limit_bytes: u64,
) -> Result<Tensor, Error> {
    let (Some(values), Some(indices)) = (&proto.values, &proto.indices) else {
        return Err(Error::malformed(
            "a sparse tensor without values or indices",
        ));
    };
    let name = values.name.as_deref().unwrap_or_default();
    let bad = |what: &str| Error::malformed(format!("sparse tensor {name:?}: {what}"));
    let shape = shape_of(name, &proto.dims)?;
    let values = tensor_from_proto(values, files)?;
    let indices = tensor_from_proto(indices, files)?.aligned();
    let width = values.data_type().bits() / 8;
    if width == 0 {
        return Err(bad("strings and packed types cannot be sparse"));
    }
    let len = element_count(&shape).ok_or_else(|| bad("its dimensions overflow"))?;
    let needed = len
        .checked_mul(width)
        .ok_or_else(|| bad("its dimensions overflow"))?;
    if needed as u64 > limit_bytes {
        return Err(Error::Budget {
            what: "sparse tensor bytes",
            needed: needed as u64,
            limit: limit_bytes,
        });
    }
    let coordinates = indices
        .as_slice::<i64>()
        .map_err(|_| bad("its indices are not int64"))?;
    let per_value = if indices.shape().len() == 2 {
        shape.len()
    } else {
        1
    };
    if coordinates.len() != values.len() * per_value {
        return Err(bad("it has not one index for each value"));
    }
    let strides = crate::tensor::row_major_strides(&shape);
    let mut dense = Buffer::try_zeroed(needed)?;
    for (i, value) in values.bytes().chunks_exact(width).enumerate() {
        let at = &coordinates[i * per_value..][..per_value];
        let linear = if per_value == 1 && shape.len() != 1 {
            usize::try_from(at[0]).ok()
        } else {
            at.iter()
                .zip(&shape)
                .zip(&strides)
                .try_fold(0usize, |sum, ((&c, &d), &s)| {
                    usize::try_from(c)
                        .ok()
                        .filter(|&c| c < d)
                        .map(|c| sum + c * s)
                })
        };
        let linear = linear
            .filter(|&l| l < len)
            .ok_or_else(|| bad("an index is out of range"))?;
        dense[linear * width..][..width].copy_from_slice(value);
    }
    Tensor::from_bytes(values.data_type(), &shape, dense).map_err(|e| bad(&e.to_string()))
}

/// The `TensorProto` of a tensor, with raw data.
pub fn tensor_to_proto(name: &str, tensor: &Tensor) -> proto::Tensor {
    let mut message = proto::Tensor {
        name: (!name.is_empty()).then(|| name.into()),
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_type: Some(tensor.data_type() as i32),
        ..Default::default()
    };
    match tensor.as_strings() {
        Ok(strings) => {
            message.string_data = strings.iter().map(|s| Bytes::from(s.clone())).collect();
        }
        Err(_) => message.raw_data = Some(Bytes::copy_from_slice(tensor.bytes())),
    }
    message
}

/// The tensor of a value: unlike a weight, which keeps its place in the file and is aligned where it is
/// used, it has memory that it can be read from in place.
fn own_tensor(proto: &proto::Tensor, files: &dyn ExternalData) -> Result<Tensor, Error> {
    Ok(tensor_from_proto(proto, files)?.aligned())
}

/// The value of a `SequenceProto`.
///
/// # Errors
/// Where its elements are malformed or of several kinds.
pub fn sequence_from_proto(
    proto: &proto::Sequence,
    files: &dyn ExternalData,
) -> Result<Sequence, Error> {
    let values: Vec<Value> = match proto.elem_type.unwrap_or_default() {
        0 | 1 => proto
            .tensor_values
            .iter()
            .map(|t| own_tensor(t, files).map(Value::Tensor))
            .collect::<Result<_, _>>()?,
        3 => proto
            .sequence_values
            .iter()
            .map(|s| sequence_from_proto(s, files).map(Value::Sequence))
            .collect::<Result<_, _>>()?,
        4 => proto
            .map_values
            .iter()
            .map(|m| map_from_proto(m, files).map(Value::Map))
            .collect::<Result<_, _>>()?,
        5 => proto
            .optional_values
            .iter()
            .map(|o| optional_from_proto(o, files).map(Value::Optional))
            .collect::<Result<_, _>>()?,
        other => {
            return Err(Error::malformed(format!(
                "a sequence of the unknown kind {other}"
            )));
        }
    };
    let element = values
        .first()
        .map_or(ValueKind::Tensor(DataType::Float32), Value::kind);
    if values.iter().any(|v| v.kind() != element) {
        return Err(Error::malformed("a sequence of values of several kinds"));
    }
    Ok(Sequence { element, values })
}

/// The value of a `MapProto`, whose values must be scalars of one type.
///
/// # Errors
/// Where keys and values do not fit together.
pub fn map_from_proto(proto: &proto::Map, files: &dyn ExternalData) -> Result<Map, Error> {
    let empty = proto::Sequence::default();
    let values = proto.values.as_ref().unwrap_or(&empty).tensor_values.iter();
    let values: Vec<Tensor> = values
        .map(|t| own_tensor(t, files))
        .collect::<Result<_, _>>()?;
    let key_type = proto
        .key_type
        .and_then(DataType::from_code)
        .unwrap_or(DataType::Int64);
    let keys = if key_type == DataType::String {
        let text = |k: &Bytes| String::from_utf8(k.to_vec());
        let keys: Result<_, _> = proto.string_keys.iter().map(text).collect();
        MapKeys::Strings(keys.map_err(|e| Error::malformed(e.utf8_error().to_string()))?)
    } else {
        MapKeys::Integers(key_type, proto.keys.clone())
    };
    let data_type = values.first().map_or(DataType::Float32, Tensor::data_type);
    if values.len() != keys.len()
        || values
            .iter()
            .any(|v| v.data_type() != data_type || v.len() != 1)
    {
        return Err(Error::malformed(
            "a map whose values are not one scalar a key",
        ));
    }
    let fail = |e: crate::error::OpError| Error::malformed(e.to_string());
    let tensor = if data_type == DataType::String {
        let strings = values
            .iter()
            .flat_map(|v| v.as_strings().unwrap_or_default().to_vec());
        Tensor::from_strings(&[keys.len()], strings.collect()).map_err(fail)?
    } else {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.bytes().to_vec()).collect();
        Tensor::from_bytes(data_type, &[keys.len()], bytes).map_err(fail)?
    };
    Ok(Map {
        keys,
        values: tensor,
    })
}

/// The value of an `OptionalProto`.
///
/// # Errors
/// Where the element is malformed.
pub fn optional_from_proto(
    proto: &proto::Optional,
    files: &dyn ExternalData,
) -> Result<OptionalValue, Error> {
    let value = if let Some(t) = &proto.tensor_value {
        Some(Value::Tensor(own_tensor(t, files)?))
    } else if let Some(s) = &proto.sequence_value {
        Some(Value::Sequence(sequence_from_proto(s, files)?))
    } else if let Some(m) = &proto.map_value {
        Some(Value::Map(map_from_proto(m, files)?))
    } else if let Some(o) = &proto.optional_value {
        Some(Value::Optional(optional_from_proto(o, files)?))
    } else {
        None
    };
    let element = value
        .as_ref()
        .map_or(ValueKind::Tensor(DataType::Float32), Value::kind);
    Ok(OptionalValue {
        element,
        value: value.map(Box::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::external_data::NoExternalData;
    use prost::Message;

    #[test]
    fn tensors_of_a_sequence_are_read_in_place_wherever_they_lie_in_the_file() {
        let tensor = |name: &str| proto::Tensor {
            name: Some(name.into()),
            data_type: Some(DataType::Float32 as i32),
            dims: vec![2],
            raw_data: Some(Bytes::from_static(&[0, 0, 128, 63, 0, 0, 0, 64])),
            ..Default::default()
        };
        let sequence = proto::Sequence {
            elem_type: Some(1),
            tensor_values: ["", "a", "ab", "abc"].map(tensor).to_vec(),
            ..Default::default()
        };
        let file = Bytes::from(sequence.encode_to_vec());
        let read = proto::Sequence::decode(file).expect("well-formed");
        let read = sequence_from_proto(&read, &NoExternalData).expect("well-formed");
        for value in read.values {
            let tensor = value.as_tensor().expect("a tensor");
            assert_eq!(tensor.as_slice::<f32>(), Ok(&[1f32, 2.][..]));
        }
    }

    #[test]
    fn typed_fields_and_raw_data_agree() {
        let cases: Vec<(proto::Tensor, Vec<u8>)> = vec![
            (
                proto::Tensor {
                    data_type: Some(10),
                    int32_data: vec![0x3c00],
                    ..Default::default()
                },
                vec![0x00, 0x3c],
            ),
            (
                proto::Tensor {
                    data_type: Some(3),
                    int32_data: vec![-1],
                    ..Default::default()
                },
                vec![0xff],
            ),
            (
                proto::Tensor {
                    data_type: Some(12),
                    uint64_data: vec![7],
                    ..Default::default()
                },
                vec![7, 0, 0, 0],
            ),
            (
                proto::Tensor {
                    data_type: Some(22),
                    int32_data: vec![0x21],
                    dims: vec![2],
                    ..Default::default()
                },
                vec![0x21],
            ),
        ];
        for (message, bytes) in cases {
            let tensor = tensor_from_proto(&message, &NoExternalData).expect("well-formed");
            assert_eq!(tensor.bytes(), bytes);
            let again = tensor_from_proto(&tensor_to_proto("t", &tensor), &NoExternalData);
            assert_eq!(again, Ok(tensor));
        }
    }

    #[test]
    fn mismatched_sizes_are_refused() {
        for (dims, raw) in [(vec![2], 4), (vec![-1], 4), (vec![i64::MAX, i64::MAX], 4)] {
            let message = proto::Tensor {
                data_type: Some(1),
                dims,
                raw_data: Some(Bytes::from(vec![0; raw])),
                ..Default::default()
            };
            assert!(matches!(
                tensor_from_proto(&message, &NoExternalData),
                Err(Error::Malformed { .. })
            ));
        }
    }
}
