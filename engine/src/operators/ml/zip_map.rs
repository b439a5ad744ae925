//! `ZipMap`: scores as maps from class to score.
//!
//! Shapes: `X: [N, C]` → a sequence of `N` maps; `[C]` is one row. Types: f32; keys int64 or
//! string.

use super::{Labels, rows_and_columns};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::limits::{self, Watch};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Map, MapKeys, Sequence, Tensor, Value, ValueKind};

/// Bytes of a key beside its text.
const MAP_KEY: usize = size_of::<String>() + 32;

/// The operator with its keys.
#[derive(Debug)]
pub(in super::super) struct ZipMap {
    keys: Labels,
}

impl ZipMap {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let keys = Labels::parse(node, "classlabels_int64s", "classlabels_strings")?;
        Ok(Self { keys })
    }

    fn element(&self) -> ValueKind {
        ValueKind::Map(self.keys.data_type(), DataType::Float32)
    }
}

impl Operator for ZipMap {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "X", &[DataType::Float32])?;
        Ok(OutputInfo::of_kind(ValueKind::Sequence(Box::new(self.element()))).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let (_, columns) = rows_and_columns(x.shape())?;
        if columns != self.keys.len() {
            let expected = format!("{} scores a row", self.keys.len());
            return Err(OpError::shape("X", expected, format!("{:?}", x.shape())));
        }
        // Each map has its own copy of the keys.
        let key_bytes = match &self.keys {
            Labels::Integers(keys) => size_of_val(&keys[..]),
            Labels::Strings(keys) => keys.iter().map(|k| k.len() + MAP_KEY).sum(),
        };
        let mut charge = limits::charge(0)?;
        let mut watch = Watch::begin();
        let mut map = |row: &[f32]| -> Result<Value, OpError> {
            watch.count(1024 + key_bytes);
            charge.add(size_of::<Value>() + key_bytes)?;
            let keys = match &self.keys {
                Labels::Integers(keys) => MapKeys::Integers(DataType::Int64, keys.clone()),
                Labels::Strings(keys) => MapKeys::Strings(keys.clone()),
            };
            let values = Tensor::from_slice(&[columns], row)?;
            Ok(Value::Map(Map { keys, values }))
        };
        let rows = x.as_slice::<f32>()?.chunks_exact(columns.max(1));
        let mut values = limits::with_room(rows.len());
        for row in rows {
            values.push(map(row)?);
        }
        let element = self.element();
        let sequence = Sequence { element, values };
        ctx.set_output(0, Value::Sequence(sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::case::{Case, tensor};
    use super::*;

    #[test]
    fn zip_map_gives_a_map_for_each_row() {
        let case = Case::in_domain("ai.onnx.ml", "ZipMap", 1).ints("classlabels_int64s", &[7, 8]);
        let x = tensor(&[2, 2], &[0.1f32, 0.9, 0.6, 0.4]);
        let found = case.run(&[Some(x.into())]).expect("fits");
        let Value::Sequence(sequence) = &found[0] else {
            panic!("expected a sequence, found {found:?}");
        };
        let Value::Map(map) = &sequence.values[1] else {
            panic!("expected a map, found {:?}", sequence.values);
        };
        assert_eq!(map.keys, MapKeys::Integers(DataType::Int64, vec![7, 8]));
        assert_eq!(map.values, tensor(&[2], &[0.6f32, 0.4]));
        assert!(
            case.run(&[Some(tensor(&[1, 3], &[0f32; 3]).into())])
                .is_err()
        );
    }
}
