//! Tensors and other values between JavaScript and the engine.

use js_sys::Uint8Array;
use lethe_engine::tensor::{Buffer, MapKeys, Sequence, Storage};
use lethe_engine::{DataType, Tensor, ValueKind};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::Failure;

/// A value of the engine. JavaScript makes one for each input, and takes each output apart, by
/// [`kind`](Value::kind); element types are the codes of ONNX's `TensorProto.DataType`.
#[wasm_bindgen]
#[derive(Debug, Clone)]
pub struct Value(pub(crate) lethe_engine::Value);

#[wasm_bindgen]
impl Value {
    /// A tensor of fixed-size elements; `bytes` little-endian, row-major.
    ///
    /// # Errors
    /// Where the type is unknown or the bytes do not fit type and shape.
    pub fn tensor(data_type: i32, dims: &[u32], bytes: &Uint8Array) -> Result<Value, Failure> {
        let data_type = DataType::from_code(data_type)
            .ok_or_else(|| Failure::option(format!("unknown element type {data_type}")))?;
        let mut buffer = Buffer::zeroed(bytes.length() as usize);
        bytes.copy_to(&mut buffer);
        let tensor = Tensor::from_bytes(data_type, &shape(dims), buffer)?;
        Ok(Self(lethe_engine::Value::Tensor(tensor)))
    }

    /// A tensor of strings.
    ///
    /// # Errors
    /// Where their number is not that of the shape.
    #[wasm_bindgen(js_name = stringTensor)]
    pub fn string_tensor(dims: &[u32], strings: Vec<String>) -> Result<Value, Failure> {
        let tensor = Tensor::from_strings(&shape(dims), strings)?;
        Ok(Self(lethe_engine::Value::Tensor(tensor)))
    }

    /// A sequence of values of one kind; an empty one is of float tensors, as the engine lets it
    /// stand for any.
    pub fn sequence(values: Vec<Value>) -> Value {
        let element = values
            .first()
            .map_or(ValueKind::Tensor(DataType::Float32), |v| v.0.kind());
        let values = values.into_iter().map(|v| v.0).collect();
        Self(lethe_engine::Value::Sequence(Sequence { element, values }))
    }

    /// `tensor`, `sequence`, `map` or `none` (an optional without value; with one, its value's
    /// kind).
    #[wasm_bindgen(getter)]
    pub fn kind(&self) -> String {
        match self.inner() {
            None => "none",
            Some(lethe_engine::Value::Sequence(_)) => "sequence",
            Some(lethe_engine::Value::Map(_)) => "map",
            Some(_) => "tensor",
        }
        .into()
    }

    /// The element type's code; 0 where this is no tensor.
    #[wasm_bindgen(getter, js_name = dataType)]
    pub fn data_type(&self) -> i32 {
        self.as_tensor().map_or(0, |t| t.data_type() as i32)
    }

    /// The tensor's shape.
    #[wasm_bindgen(getter)]
    pub fn dims(&self) -> Vec<u32> {
        let shape = self.as_tensor().map_or(&[][..], Tensor::shape);
        shape.iter().map(|&n| n as u32).collect()
    }

    /// A copy of the tensor's bytes; none for strings.
    #[wasm_bindgen(getter)]
    pub fn bytes(&self) -> Uint8Array {
        Uint8Array::from(self.as_tensor().map_or(&[][..], Tensor::bytes))
    }

    /// The tensor's strings; none for other types.
    #[wasm_bindgen(getter)]
    pub fn strings(&self) -> Vec<String> {
        match self.as_tensor().map(Tensor::storage) {
            Some(Storage::Strings(strings)) => strings.to_vec(),
            _ => Vec::new(),
        }
    }

    /// What it is made of: a sequence's elements; a map's keys and values, two tensors.
    #[wasm_bindgen(getter)]
    pub fn parts(&self) -> Vec<Value> {
        match self.inner() {
            Some(lethe_engine::Value::Sequence(sequence)) => {
                sequence.values.iter().cloned().map(Self).collect()
            }
            Some(lethe_engine::Value::Map(map)) => [keys(&map.keys), map.values.clone()]
                .map(|tensor| Self(lethe_engine::Value::Tensor(tensor)))
                .into(),
            _ => Vec::new(),
        }
    }
}

impl Value {
    /// The value itself, or what an optional holds.
    fn inner(&self) -> Option<&lethe_engine::Value> {
        let mut value = &self.0;
        while let lethe_engine::Value::Optional(optional) = value {
            value = optional.value.as_deref()?;
        }
        Some(value)
    }

    fn as_tensor(&self) -> Option<&Tensor> {
        self.inner()?.as_tensor().ok()
    }
}

fn shape(dims: &[u32]) -> Vec<usize> {
    dims.iter().map(|&n| n as usize).collect()
}

/// A map's keys as a tensor: strings, or int64 whatever their width was.
fn keys(keys: &MapKeys) -> Tensor {
    let tensor = match keys {
        MapKeys::Integers(_, integers) => Tensor::from_slice(&[integers.len()], integers),
        MapKeys::Strings(strings) => Tensor::from_strings(&[strings.len()], strings.clone()),
    };
    tensor.expect("the shape is the number of keys")
}
