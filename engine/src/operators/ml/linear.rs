//! `LinearClassifier` and `LinearRegressor`: scores that are sums of weighted features.
//!
//! Shapes: `X: [N, C]`, `coefficients: [E, C]`, `intercepts: [E]` → scores `[N, E]`; a classifier
//! with two labels and one score gives the other class the opposite one. Types: numbers → f32.

use super::{
    Labels, NUMBERS, PostTransform, floats, largest, logistic, rows_and_columns, rows_dim,
};
use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// The weights of both.
#[derive(Debug)]
struct Linear {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    scores: usize,
}

impl Linear {
    fn parse(node: &Attributes, scores: usize) -> Result<Self, OpError> {
        Ok(Self {
            coefficients: node
                .optional_floats("coefficients")?
                .unwrap_or(&[])
                .to_vec(),
            intercepts: node.optional_floats("intercepts")?.unwrap_or(&[]).to_vec(),
            scores,
        })
    }

    /// The scores of every row, `[rows, scores]`.
    fn rows(&self, x: &[f32], columns: usize) -> Result<Vec<f32>, OpError> {
        // Some exporters leave more coefficients than there are features; the first ones count.
        if self.coefficients.len() < self.scores * columns {
            let expected = format!("{} coefficients for each score", columns);
            let found = format!("{} for {} scores", self.coefficients.len(), self.scores);
            return Err(OpError::shape("X", expected, found));
        }
        let score = |row: &[f32], i: usize| {
            let weights = &self.coefficients[i * columns..][..columns];
            let sum: f32 = row.iter().zip(weights).map(|(x, w)| x * w).sum();
            sum + self.intercepts.get(i).copied().unwrap_or(0.0)
        };
        let rows = x.chunks_exact(columns.max(1));
        Ok(rows
            .flat_map(|row| (0..self.scores).map(move |i| score(row, i)))
            .collect())
    }
}

/// `LinearClassifier`.
#[derive(Debug)]
pub(in super::super) struct LinearClassifier {
    linear: Linear,
    labels: Labels,
    post_transform: PostTransform,
}

impl LinearClassifier {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let labels = Labels::parse(node, "classlabels_ints", "classlabels_strings")?;
        let intercepts = node.optional_floats("intercepts")?.map_or(0, <[f32]>::len);
        Ok(Self {
            linear: Linear::parse(node, intercepts.max(1))?,
            labels,
            post_transform: PostTransform::parse(node)?,
        })
    }

    /// Whether one score decides between two classes.
    fn is_binary(&self) -> bool {
        self.linear.scores == 1 && self.labels.len() == 2
    }
}

impl Operator for LinearClassifier {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "X", NUMBERS)?;
        let rows = rows_dim(inputs.required(0, "X")?.dims)?;
        let scores = if self.is_binary() {
            2
        } else {
            self.linear.scores
        };
        let dims = [rows, Dim::Known(scores)].into_iter().collect();
        Ok([
            self.labels.info(inputs)?,
            OutputInfo::tensor(DataType::Float32, dims),
        ]
        .into_iter()
        .take(inputs.output_count().max(1))
        .collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let (rows, columns) = rows_and_columns(x.shape())?;
        let mut scores = self.linear.rows(&floats(x)?, columns)?;
        let count = self.linear.scores;
        let classes: Vec<usize> = match count {
            1 => scores.iter().map(|&s| usize::from(s > 0.0)).collect(),
            _ => scores.chunks_exact(count).map(largest).collect(),
        };
        self.labels.write(ctx, &classes)?;
        let mut width = count;
        if self.is_binary() {
            width = 2;
            let both = |&s: &f32| match self.post_transform {
                PostTransform::Logistic => [logistic(-s), logistic(s)],
                PostTransform::None => [1.0 - s, s],
                other => {
                    let mut both = [-s, s];
                    other.apply(&mut both);
                    both
                }
            };
            scores = scores.iter().flat_map(both).collect();
        } else {
            scores
                .chunks_exact_mut(count)
                .for_each(|row| self.post_transform.apply(row));
        }
        ctx.set_elements(1, &[rows, width], &scores)
    }
}

/// `LinearRegressor`.
#[derive(Debug)]
pub(in super::super) struct LinearRegressor {
    linear: Linear,
    post_transform: PostTransform,
}

impl LinearRegressor {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let targets = node.int_or("targets", 1)?;
        let count = usize::try_from(targets)
            .ok()
            .filter(|&n| n > 0 && n < 1 << 24);
        Ok(Self {
            linear: Linear::parse(
                node,
                count.ok_or_else(|| OpError::value("targets", "at least 1", targets))?,
            )?,
            post_transform: PostTransform::parse(node)?,
        })
    }
}

impl Operator for LinearRegressor {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "X", NUMBERS)?;
        let rows = rows_dim(inputs.required(0, "X")?.dims)?;
        let dims = [rows, Dim::Known(self.linear.scores)].into_iter().collect();
        Ok(OutputInfo::tensor(DataType::Float32, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let (rows, columns) = rows_and_columns(x.shape())?;
        let mut scores = self.linear.rows(&floats(x)?, columns)?;
        let count = self.linear.scores;
        scores
            .chunks_exact_mut(count)
            .for_each(|row| self.post_transform.apply(row));
        ctx.set_elements(0, &[rows, count], &scores)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::case::{Case, strings, tensor};
    use crate::graph::attributes::Attribute;

    fn floats(case: Case, name: &str, values: &[f32]) -> Case {
        case.with(name, Attribute::Floats(values.to_vec()))
    }

    #[test]
    fn classifiers_choose_the_highest_score() {
        let case = Case::in_domain("ai.onnx.ml", "LinearClassifier", 1).outputs(2);
        let case = floats(case, "coefficients", &[1., 0., 0., 1., -1., -1.]);
        let case = floats(case, "intercepts", &[0., 0., 1.]);
        let case = case.ints("classlabels_ints", &[10, 20, 30]);
        let x = tensor(&[3, 2], &[3f32, 1., 0., 2., -1., -1.]);
        let found = case.tensors(&[x]).expect("fits");
        assert_eq!(found[0], tensor(&[3], &[10i64, 20, 30]));
        assert_eq!(
            found[1],
            tensor(&[3, 3], &[3f32, 1., -3., 0., 2., -1., -1., -1., 3.])
        );
        assert!(case.tensors(&[tensor(&[1, 3], &[1f32; 3])]).is_err());
    }

    #[test]
    fn one_score_decides_between_two_classes() {
        let case = Case::in_domain("ai.onnx.ml", "LinearClassifier", 1).outputs(2);
        let case = floats(case, "coefficients", &[1.]);
        let case = floats(case, "intercepts", &[0.]).text("post_transform", "LOGISTIC");
        let labels = Attribute::Strings(vec!["no".into(), "yes".into()]);
        let found = case
            .with("classlabels_strings", labels)
            .tensors(&[tensor(&[2, 1], &[0f32, 5.])]);
        let found = found.expect("fits");
        assert_eq!(found[0], strings(&[2], &["no", "yes"]));
        assert_eq!(found[1].as_slice::<f32>().expect("f32")[..2], [0.5, 0.5]);
    }

    #[test]
    fn regressors_sum_integers_too() {
        let case = Case::in_domain("ai.onnx.ml", "LinearRegressor", 1);
        let case = floats(case, "coefficients", &[2., 3.]);
        let found = floats(case, "intercepts", &[1.]).one(&[tensor(&[1, 2], &[10i64, 1])]);
        assert_eq!(found, Ok(tensor(&[1, 1], &[24f32])));
    }
}
