//! Operators on single features: `Normalizer`, `Scaler`, `Imputer`, `Binarizer`,
//! `ArrayFeatureExtractor` and `FeatureVectorizer`.

use super::super::axes::size;
use super::super::rearrange::{Rearrange, rearrange};
use super::{NUMBERS, doubles, floats, rows_and_columns};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Shape};

/// `Normalizer`: each row divided by its norm.
#[derive(Debug)]
pub(in super::super) struct Normalizer {
    norm: Norm,
}

#[derive(Debug, Clone, Copy)]
enum Norm {
    Max,
    L1,
    L2,
}

impl Normalizer {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let norm = match node.string_or("norm", "MAX")? {
            "MAX" => Norm::Max,
            "L1" => Norm::L1,
            "L2" => Norm::L2,
            other => {
                return Err(OpError::Attribute {
                    name: "norm".into(),
                    expected: "MAX, L1 or L2".into(),
                    found: other.into(),
                });
            }
        };
        Ok(Self { norm })
    }
}

/// The shape of the input, as f32.
fn same_shape(inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
    inputs.data_type_of(0, "X", NUMBERS)?;
    let dims = inputs.required(0, "X")?.to_dims();
    Ok(OutputInfo::maybe(DataType::Float32, dims).into())
}

impl Operator for Normalizer {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        same_shape(inputs)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let (_, columns) = rows_and_columns(x.shape())?;
        let mut values = floats(x)?;
        for row in values.chunks_exact_mut(columns.max(1)) {
            let norm = match self.norm {
                Norm::Max => row.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                Norm::L1 => row.iter().map(|x| x.abs()).sum(),
                Norm::L2 => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
            };
            if norm != 0.0 {
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        ctx.set_elements(0, x.shape(), &values)
    }
}

/// `Scaler`: `(x - offset) · scale`, one number each or one a feature.
#[derive(Debug)]
pub(in super::super) struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Scaler {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            offset: node.optional_floats("offset")?.unwrap_or(&[0.0]).to_vec(),
            scale: node.optional_floats("scale")?.unwrap_or(&[1.0]).to_vec(),
        })
    }
}

impl Operator for Scaler {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        same_shape(inputs)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let columns = x.shape().last().copied().unwrap_or(1);
        for (name, list) in [("offset", &self.offset), ("scale", &self.scale)] {
            if list.len() != 1 && list.len() != columns {
                let expected = format!("1 or {columns} numbers");
                return Err(OpError::value(name, expected, list.len()));
            }
        }
        let mut values = floats(x)?;
        for (i, value) in values.iter_mut().enumerate() {
            let feature = i % columns.max(1);
            let of = |list: &[f32]| {
                if list.len() == 1 {
                    list[0]
                } else {
                    list[feature]
                }
            };
            *value = (*value - of(&self.offset)) * of(&self.scale);
        }
        ctx.set_elements(0, x.shape(), &values)
    }
}

/// `Imputer`: another value in the place of a missing one.
#[derive(Debug)]
pub(in super::super) struct Imputer {
    missing: f64,
    imputed: Vec<f64>,
}

impl Imputer {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let floats = node.optional_floats("imputed_value_floats")?.unwrap_or(&[]);
        let ints = node.optional_ints("imputed_value_int64s")?.unwrap_or(&[]);
        let (missing, imputed) = match floats.is_empty() {
            false => (
                node.float_or("replaced_value_float", 0.0)?.into(),
                floats.iter().map(|&x| x.into()).collect(),
            ),
            true => (
                node.int_or("replaced_value_int64", 0)? as f64,
                ints.iter().map(|&x| x as f64).collect(),
            ),
        };
        Ok(Self { missing, imputed })
    }
}

impl Operator for Imputer {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", NUMBERS)?;
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "X")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let columns = x.shape().last().copied().unwrap_or(1);
        if self.imputed.len() != 1 && self.imputed.len() != columns {
            let expected = format!("1 or {columns} numbers");
            return Err(OpError::value(
                "imputed values",
                expected,
                self.imputed.len(),
            ));
        }
        let mut values = doubles(x)?;
        for (i, value) in values.iter_mut().enumerate() {
            if *value == self.missing || value.is_nan() && self.missing.is_nan() {
                let single = self.imputed.len() == 1;
                *value = self.imputed[if single { 0 } else { i % columns.max(1) }];
            }
        }
        write_as(ctx, x.data_type(), x.shape(), &values)
    }
}

/// Sets output 0 to numbers of another type.
fn write_as(
    ctx: &mut RunContext<'_>,
    data_type: DataType,
    shape: &[usize],
    values: &[f64],
) -> Result<(), OpError> {
    match data_type {
        DataType::Float32 => {
            let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
            ctx.set_elements(0, shape, &values)
        }
        DataType::Int32 => {
            let values: Vec<i32> = values.iter().map(|&x| x as i32).collect();
            ctx.set_elements(0, shape, &values)
        }
        DataType::Int64 => {
            let values: Vec<i64> = values.iter().map(|&x| x as i64).collect();
            ctx.set_elements(0, shape, &values)
        }
        _ => ctx.set_elements(0, shape, values),
    }
}

/// `Binarizer`: 1 above a threshold, otherwise 0.
#[derive(Debug)]
pub(in super::super) struct Binarizer {
    threshold: f32,
}

impl Binarizer {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            threshold: node.float_or("threshold", 0.0)?,
        })
    }
}

impl Operator for Binarizer {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", NUMBERS)?;
        Ok(OutputInfo::maybe(data_type, inputs.required(0, "X")?.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let above = |x: &f64| f64::from(u8::from(*x > f64::from(self.threshold)));
        let values: Vec<f64> = doubles(x)?.iter().map(above).collect();
        write_as(ctx, x.data_type(), x.shape(), &values)
    }
}

/// `ArrayFeatureExtractor`: the columns that `Y` lists.
#[derive(Debug)]
pub(in super::super) struct ArrayFeatureExtractor;

impl ArrayFeatureExtractor {
    pub(in super::super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for ArrayFeatureExtractor {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let x = inputs.required(0, "X")?;
        inputs.data_type_of(1, "Y", &[DataType::Int64])?;
        let chosen = inputs.required(1, "Y")?.shape();
        let chosen = chosen.map_or(Dim::Unknown, |s| Dim::Known(s.iter().product()));
        let dims = x.dims.map(|dims| match dims.split_last() {
            None | Some((_, [])) => [Dim::Known(1), chosen].into_iter().collect(),
            Some((_, outer)) => {
                let mut dims = Dims::from(outer);
                dims.push(chosen);
                dims
            }
        });
        Ok(OutputInfo::maybe(x.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let columns = ctx.input(1, "Y")?.as_slice::<i64>()?;
        let width = x.shape().last().copied().unwrap_or(1);
        let mut shape = match x.shape() {
            [] | [_] => Shape::from_slice(&[1]),
            [outer @ .., _] => Shape::from_slice(outer),
        };
        shape.push(columns.len());
        rearrange(ctx, &[x], 0, &shape, Columns { columns, width })
    }
}

struct Columns<'a> {
    columns: &'a [i64],
    width: usize,
}

impl Rearrange for Columns<'_> {
    fn run<T: Clone + Default + Send + Sync>(
        self,
        inputs: &[&[T]],
        output: &mut [T],
    ) -> Result<(), OpError> {
        let place = |column: i64| {
            let at = usize::try_from(column).ok().filter(|&at| at < self.width);
            at.ok_or_else(|| OpError::value("Y", format!("columns below {}", self.width), column))
        };
        let rows = output.chunks_exact_mut(self.columns.len().max(1));
        for (to, from) in rows.zip(inputs[0].chunks_exact(self.width.max(1))) {
            for (to, &column) in to.iter_mut().zip(self.columns) {
                *to = from[place(column)?].clone();
            }
        }
        Ok(())
    }
}

/// `FeatureVectorizer`: the columns of all inputs side by side. Of an input with more columns than
/// `inputdimensions` gives it the first ones are taken; one with fewer is filled with zeros.
#[derive(Debug)]
pub(in super::super) struct FeatureVectorizer {
    columns: Option<Vec<usize>>,
}

impl FeatureVectorizer {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let columns = node.optional_ints("inputdimensions")?.map(|columns| {
            let sizes = columns.iter().map(|&n| size("inputdimensions", n));
            sizes.collect::<Result<Vec<_>, _>>()
        });
        Ok(Self {
            columns: columns.transpose()?,
        })
    }

    /// The columns that input `i` has in the output.
    fn columns_of(&self, i: usize, own: usize) -> Result<usize, OpError> {
        let Some(columns) = &self.columns else {
            return Ok(own);
        };
        columns.get(i).copied().ok_or_else(|| {
            let expected = "a number for each input";
            OpError::value("inputdimensions", expected, format!("{columns:?}"))
        })
    }
}

impl Operator for FeatureVectorizer {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let mut columns = Some(0usize);
        let mut rows = Dim::Unknown;
        for (i, input) in inputs.present().enumerate() {
            let shape = input.shape();
            let sizes = shape.map(|s| rows_and_columns(&s)).transpose()?;
            if let Some((found, _)) = sizes {
                rows = Dim::Known(found);
            }
            let own = sizes.map(|s| self.columns_of(i, s.1)).transpose()?;
            columns = match (columns, own) {
                (Some(sum), Some(own)) => {
                    let sum = sum.checked_add(own);
                    Some(sum.ok_or_else(|| OpError::TooLarge {
                        what: "the columns of all inputs".into(),
                    })?)
                }
                _ => None,
            };
        }
        let dims = [rows, columns.map_or(Dim::Unknown, Dim::Known)];
        Ok(OutputInfo::tensor(DataType::Float32, dims.into_iter().collect()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let mut parts = Vec::new();
        for i in 0..ctx.input_count() {
            let x = ctx.input(i, "X")?;
            let (rows, own) = rows_and_columns(x.shape())?;
            parts.push((rows, own, self.columns_of(i, own)?, floats(x)?));
        }
        let rows = parts.first().map_or(0, |p| p.0);
        if let Some(other) = parts.iter().find(|p| p.0 != rows) {
            return Err(OpError::shape(
                "X",
                format!("{rows} rows"),
                other.0.to_string(),
            ));
        }
        let mut y = ctx.output(0)?;
        let y = y.as_mut_slice::<f32>()?;
        y.fill(0.0);
        let columns: usize = parts.iter().map(|p| p.2).sum();
        for (row, y) in y.chunks_exact_mut(columns.max(1)).enumerate() {
            let mut start = 0;
            for (_, own, columns, part) in &parts {
                let taken = *own.min(columns);
                y[start..start + taken].copy_from_slice(&part[row * own..][..taken]);
                start += columns;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::case::{Case, tensor};
    use crate::graph::attributes::Attribute;

    fn case(op_type: &'static str) -> Case {
        Case::in_domain("ai.onnx.ml", op_type, 1)
    }

    #[test]
    fn normalizer_divides_rows_by_their_norm() {
        let x = tensor(&[2, 2], &[3f32, -4., 0., 0.]);
        let found = |norm| case("Normalizer").text("norm", norm).one(&[x.clone()]);
        assert_eq!(found("L2"), Ok(tensor(&[2, 2], &[0.6f32, -0.8, 0., 0.])));
        assert_eq!(
            found("L1"),
            Ok(tensor(&[2, 2], &[3f32 / 7., -4. / 7., 0., 0.]))
        );
        assert_eq!(found("MAX"), Ok(tensor(&[2, 2], &[1f32, -4. / 3., 0., 0.])));
        assert!(found("L3").is_err());
    }

    #[test]
    fn features_are_scaled_imputed_and_binarized() {
        let scaler = case("Scaler")
            .with("offset", Attribute::Floats(vec![1., 2.]))
            .with("scale", Attribute::Floats(vec![10.]));
        let x = tensor(&[1, 2], &[3i64, 1]);
        assert_eq!(scaler.one(&[x]), Ok(tensor(&[1, 2], &[20f32, -10.])));
        assert!(scaler.one(&[tensor(&[1, 3], &[0f32; 3])]).is_err());
        let imputer = case("Imputer")
            .with("imputed_value_floats", Attribute::Floats(vec![5., 6.]))
            .with("replaced_value_float", Attribute::Float(f32::NAN));
        let x = tensor(&[2, 2], &[1f32, f32::NAN, f32::NAN, 2.]);
        assert_eq!(imputer.one(&[x]), Ok(tensor(&[2, 2], &[1f32, 6., 5., 2.])));
        let x = tensor(&[3], &[-1f64, 0., 1.]);
        assert_eq!(
            case("Binarizer").one(&[x]),
            Ok(tensor(&[3], &[0f64, 0., 1.]))
        );
    }

    #[test]
    fn features_are_chosen_and_joined() {
        let x = tensor(&[2, 3], &[0i32, 1, 2, 3, 4, 5]);
        let found = case("ArrayFeatureExtractor").one(&[x.clone(), tensor(&[2], &[2i64, 0])]);
        assert_eq!(found, Ok(tensor(&[2, 2], &[2, 0, 5, 3])));
        assert!(
            case("ArrayFeatureExtractor")
                .one(&[x.clone(), tensor(&[1], &[3i64])])
                .is_err()
        );
        let found = case("FeatureVectorizer").one(&[x, tensor(&[2, 1], &[9f32, 8.])]);
        assert_eq!(
            found,
            Ok(tensor(&[2, 4], &[0f32, 1., 2., 9., 3., 4., 5., 8.]))
        );
        let x = tensor(&[2, 3], &[0f32, 1., 2., 3., 4., 5.]);
        let other = tensor(&[2, 1], &[9f32, 8.]);
        let sized = case("FeatureVectorizer").ints("inputdimensions", &[2, 3]);
        assert_eq!(
            sized.one(&[x.clone(), other.clone()]),
            Ok(tensor(&[2, 5], &[0f32, 1., 9., 0., 0., 3., 4., 8., 0., 0.]))
        );
        let few = case("FeatureVectorizer").ints("inputdimensions", &[3]);
        let found = few.one(&[x, other]).map_err(|error| error.code());
        assert_eq!(found, Err("LETHE-NODE-VALUE"));
    }
}
