//! The classical models of the domain `ai.onnx.ml`.
//!
//! Spec: <https://onnx.ai/onnx/operators/index.html#ai-onnx-ml>. Shared here: how inputs of any
//! number type are read as rows of f32, class labels, and what is done to scores.

pub(super) mod linear;
pub(super) mod scaling;
pub(super) mod trees;
pub(super) mod zip_map;

use std::borrow::Cow;

use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::kernels::conversion::{SmallFloatRounding, convert};
use crate::limits;
use crate::operator::{InferContext, OutputInfo, RunContext};
use crate::tensor::{Buffer, DataType, Strings, Tensor, TensorView, TensorViewMut};

/// Types that scores are computed from.
const NUMBERS: &[DataType] = &[
    DataType::Float32,
    DataType::Float64,
    DataType::Int64,
    DataType::Int32,
];

/// Rows and columns of a matrix; a vector is one row.
fn rows_and_columns(shape: &[usize]) -> Result<(usize, usize), OpError> {
    match *shape {
        [columns] => Ok((1, columns)),
        [rows, columns] => Ok((rows, columns)),
        _ => Err(OpError::shape("X", "[N, C] or [C]", format!("{shape:?}"))),
    }
}

/// The number of rows as far as it is known.
fn rows_dim(dims: Option<&[Dim]>) -> Result<Dim, OpError> {
    match dims {
        None => Ok(Dim::Unknown),
        Some([_]) => Ok(Dim::Known(1)),
        Some([rows, _]) => Ok(rows.clone()),
        Some(other) => {
            let found = crate::graph::dimension::display_dims(Some(other));
            Err(OpError::shape("X", "[N, C] or [C]", found))
        }
    }
}

/// The elements of a tensor of numbers as f32.
fn floats(view: TensorView<'_>) -> Result<Vec<f32>, OpError> {
    let mut bytes = Buffer::try_zeroed(view.len() * 4)?;
    let mut wide = TensorViewMut::from_bytes(DataType::Float32, view.shape(), &mut bytes);
    convert(view, &mut wide, SmallFloatRounding::default())?;
    Ok(limits::copied(wide.as_mut_slice::<f32>()?))
}

/// The elements of a tensor of numbers as f64.
fn doubles(view: TensorView<'_>) -> Result<Vec<f64>, OpError> {
    let mut bytes = Buffer::try_zeroed(view.len() * 8)?;
    let mut wide = TensorViewMut::from_bytes(DataType::Float64, view.shape(), &mut bytes);
    convert(view, &mut wide, SmallFloatRounding::default())?;
    Ok(limits::copied(wide.as_mut_slice::<f64>()?))
}

/// The names of classes.
#[derive(Debug, Clone, PartialEq)]
enum Labels {
    Integers(Vec<i64>),
    Strings(Vec<String>),
}

impl Labels {
    /// The labels of whichever attribute is there.
    fn parse(node: &Attributes, integers: &str, strings: &str) -> Result<Self, OpError> {
        if let Some(labels) = node.optional_strings(strings)?
            && !labels.is_empty()
        {
            return Ok(Self::Strings(labels.to_vec()));
        }
        Ok(Self::Integers(
            node.optional_ints(integers)?.unwrap_or(&[]).to_vec(),
        ))
    }

    fn len(&self) -> usize {
        match self {
            Self::Integers(labels) => labels.len(),
            Self::Strings(labels) => labels.len(),
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Integers(_) => DataType::Int64,
            Self::Strings(_) => DataType::String,
        }
    }

    /// What is known of a tensor with a label a row.
    fn info(&self, inputs: &InferContext<'_>) -> Result<OutputInfo, OpError> {
        let rows = rows_dim(inputs.required(0, "X")?.dims)?;
        let dims = [rows].into_iter().collect();
        Ok(OutputInfo::tensor(self.data_type(), dims))
    }

    /// Sets output 0 to the labels of these classes.
    fn write(&self, ctx: &mut RunContext<'_>, classes: &[usize]) -> Result<(), OpError> {
        let unknown =
            |class: usize| OpError::value("class", format!("a number below {}", self.len()), class);
        match self {
            Self::Integers(labels) => {
                // Without labels, classes are called by their numbers.
                let label = |&class: &usize| match labels.is_empty() {
                    true => Ok(class as i64),
                    false => labels.get(class).copied().ok_or_else(|| unknown(class)),
                };
                let chosen: Vec<i64> = classes.iter().map(label).collect::<Result<_, _>>()?;
                ctx.set_elements(0, &[chosen.len()], &chosen)
            }
            Self::Strings(labels) => {
                if let Some(&class) = classes.iter().find(|&&class| class >= labels.len()) {
                    return Err(unknown(class));
                }
                let chosen = classes.iter().map(|&class| Cow::from(&*labels[class]));
                let chosen = Strings::collect(chosen)?;
                ctx.set_output(0, Tensor::of_strings(&[classes.len()], chosen)?)
            }
        }
    }
}

/// What is done to the scores of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PostTransform {
    None,
    Softmax,
    Logistic,
    /// Softmax over the scores that are not 0.
    SoftmaxZero,
    Probit,
}

impl PostTransform {
    fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(match node.string_or("post_transform", "NONE")? {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => {
                return Err(OpError::Attribute {
                    name: "post_transform".into(),
                    expected: "NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT".into(),
                    found: other.into(),
                });
            }
        })
    }

    fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|x| *x = logistic(*x)),
            Self::Probit => scores.iter_mut().for_each(|x| *x = probit(*x)),
            Self::Softmax | Self::SoftmaxZero => {
                let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let counts = |x: f32| self == Self::Softmax || x != 0.0;
                let mut sum = 0.0;
                for x in scores.iter_mut().filter(|x| counts(**x)) {
                    *x = libm::expf(*x - largest);
                    sum += *x;
                }
                scores
                    .iter_mut()
                    .filter(|x| **x != 0.0)
                    .for_each(|x| *x /= sum);
            }
        }
    }
}

fn logistic(x: f32) -> f32 {
    // Written so that no exponential overflows.
    let p = 1.0 / (1.0 + libm::expf(-x.abs()));
    if x < 0.0 { 1.0 - p } else { p }
}

/// The inverse of the normal distribution, by Winitzki's approximation of the inverse error
/// function.
fn probit(p: f32) -> f32 {
    let x = 2.0 * p - 1.0;
    let log = libm::logf((1.0 - x) * (1.0 + x));
    let a = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let root = libm::sqrtf(libm::sqrtf(a * a - log / 0.147) - a);
    std::f32::consts::SQRT_2 * if x < 0.0 { -root } else { root }
}

/// The index of the largest score, the first of equals.
fn largest(scores: &[f32]) -> usize {
    let better = |best: usize, (i, x): (usize, &f32)| if *x > scores[best] { i } else { best };
    scores.iter().enumerate().fold(0, better)
}
