//! `TreeEnsembleClassifier`, `TreeEnsembleRegressor` and `TreeEnsemble`: sums over the leaves that
//! a row of features reaches in each of many trees.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html> and the two that it
//! replaces since opset 5 of the domain. Shapes: `X: [N, C]` → scores `[N, targets]`.
//! Types: numbers → f32; `TreeEnsemble` f32, f64 and f16 → the same. Comparisons are exact, sums
//! are taken in f64.

mod attributes;

use std::collections::HashMap;

use super::{
    Labels, NUMBERS, PostTransform, doubles, largest, logistic, rows_and_columns, rows_dim,
};
use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// How a branch compares a feature with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    /// Whether the feature is in a set.
    Member,
}

/// A node of a tree.
#[derive(Debug, Clone)]
enum TreeNode {
    Branch {
        feature: usize,
        comparison: Comparison,
        value: f64,
        /// For `Member`: the set.
        members: Vec<f64>,
        /// Nodes to go to.
        yes: usize,
        no: usize,
        missing_is_yes: bool,
    },
    /// Targets with their weights.
    Leaf(Vec<(usize, f64)>),
}

/// How the leaves of all trees become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// All trees.
#[derive(Debug)]
struct Forest {
    nodes: Vec<TreeNode>,
    roots: Vec<usize>,
    targets: usize,
    base: Vec<f64>,
    aggregate: Aggregate,
}

fn broken(what: impl Into<String>) -> OpError {
    OpError::Attribute {
        name: "nodes".into(),
        expected: "trees".into(),
        found: what.into(),
    }
}

impl Forest {
    /// Checks that every index lies within its list.
    fn checked(self) -> Result<Self, OpError> {
        let count = self.nodes.len();
        for node in &self.nodes {
            match node {
                TreeNode::Branch { yes, no, .. } if *yes >= count || *no >= count => {
                    return Err(broken("a branch to a node that does not exist"));
                }
                TreeNode::Leaf(weights) if weights.iter().any(|w| w.0 >= self.targets) => {
                    return Err(broken("a weight for a target that does not exist"));
                }
                _ => {}
            }
        }
        // Where every node is the child of another, there is a cycle.
        if self.roots.is_empty() && count > 0 {
            return Err(broken("no root"));
        }
        match self.roots.iter().all(|&root| root < count) {
            true => Ok(self),
            false => Err(broken("a root that does not exist")),
        }
    }

    /// The leaf that a row reaches from a root.
    fn leaf(&self, row: &[f64], root: usize) -> Result<&[(usize, f64)], OpError> {
        let mut at = root;
        // A path visits no node twice, or it is a cycle.
        for _ in 0..=self.nodes.len() {
            match &self.nodes[at] {
                TreeNode::Leaf(weights) => return Ok(weights),
                TreeNode::Branch {
                    feature,
                    comparison,
                    value,
                    members,
                    yes,
                    no,
                    missing_is_yes,
                } => {
                    let x = *row.get(*feature).ok_or_else(|| {
                        let expected = format!("at least {} features", feature + 1);
                        OpError::shape("X", expected, row.len().to_string())
                    })?;
                    let holds = match comparison {
                        Comparison::LessOrEqual => x <= *value,
                        Comparison::Less => x < *value,
                        Comparison::GreaterOrEqual => x >= *value,
                        Comparison::Greater => x > *value,
                        Comparison::Equal => x == *value,
                        Comparison::NotEqual => x != *value,
                        Comparison::Member => members.contains(&x),
                    };
                    at = if holds || x.is_nan() && *missing_is_yes {
                        *yes
                    } else {
                        *no
                    };
                }
            }
        }
        Err(broken("a cycle"))
    }

    /// Scores of one row, and which targets any leaf had a weight for.
    fn scores(&self, row: &[f64]) -> Result<Vec<Option<f64>>, OpError> {
        let mut scores: Vec<Option<f64>> = limits::filled(None, self.targets);
        for &root in &self.roots {
            for &(target, weight) in self.leaf(row, root)? {
                let score = &mut scores[target];
                *score = Some(match (*score, self.aggregate) {
                    (None, _) => weight,
                    (Some(sum), Aggregate::Sum | Aggregate::Average) => sum + weight,
                    (Some(best), Aggregate::Min) => best.min(weight),
                    (Some(best), Aggregate::Max) => best.max(weight),
                });
            }
        }
        if self.aggregate == Aggregate::Average {
            let count = self.roots.len().max(1) as f64;
            scores.iter_mut().flatten().for_each(|s| *s /= count);
        }
        Ok(scores)
    }

    /// Scores with base values, 0 where no leaf had a weight.
    fn totals(&self, row: &[f64]) -> Result<Vec<f32>, OpError> {
        let base = |i: usize| self.base.get(i).copied().unwrap_or(0.0);
        let scores = self.scores(row)?;
        let total = |(i, s): (usize, &Option<f64>)| (s.unwrap_or(0.0) + base(i)) as f32;
        Ok(scores.iter().enumerate().map(total).collect())
    }
}

/// `TreeEnsembleRegressor` and `TreeEnsemble`.
#[derive(Debug)]
pub(in super::super) struct TreeEnsemble {
    forest: Forest,
    post_transform: PostTransform,
    /// Whether the output is f32 whatever the input.
    to_float: bool,
}

/// `TreeEnsembleRegressor`.
pub(in super::super) struct TreeEnsembleRegressor;

impl TreeEnsembleRegressor {
    pub(in super::super) fn parse(node: &Attributes) -> Result<TreeEnsemble, OpError> {
        let targets = attributes::count(node, "n_targets", 1)?;
        Ok(TreeEnsemble {
            forest: attributes::by_node_ids(node, "target", targets)?,
            post_transform: PostTransform::parse(node)?,
            to_float: true,
        })
    }
}

impl TreeEnsemble {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let post_transform = match node.int_or("post_transform", 0)? {
            0 => PostTransform::None,
            1 => PostTransform::Softmax,
            2 => PostTransform::Logistic,
            3 => PostTransform::SoftmaxZero,
            4 => PostTransform::Probit,
            other => return Err(OpError::value("post_transform", "0 to 4", other)),
        };
        Ok(Self {
            forest: attributes::by_position(node)?,
            post_transform,
            to_float: false,
        })
    }
}

const ENSEMBLE_TYPES: &[DataType] = &[DataType::Float32, DataType::Float64, DataType::Float16];

impl Operator for TreeEnsemble {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let allowed = if self.to_float {
            NUMBERS
        } else {
            ENSEMBLE_TYPES
        };
        let from = inputs.data_type_of(0, "X", allowed)?;
        let to = if self.to_float {
            DataType::Float32
        } else {
            from
        };
        let rows = rows_dim(inputs.required(0, "X")?.dims)?;
        let dims = [rows, Dim::Known(self.forest.targets)]
            .into_iter()
            .collect();
        Ok(OutputInfo::tensor(to, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let (rows, columns) = rows_and_columns(x.shape())?;
        let values = doubles(x)?;
        let shape = [rows, self.forest.targets];
        let mut all = limits::with_room(rows * self.forest.targets);
        let is_double = !self.to_float && x.data_type() == DataType::Float64;
        for row in values.chunks_exact(columns.max(1)) {
            limits::end_if_stopped();
            if is_double && self.post_transform == PostTransform::None {
                let scores = self.forest.scores(row)?;
                let base = |i: usize| self.forest.base.get(i).copied().unwrap_or(0.0);
                all.extend(
                    scores
                        .iter()
                        .enumerate()
                        .map(|(i, s)| s.unwrap_or(0.0) + base(i)),
                );
                continue;
            }
            let mut scores = self.forest.totals(row)?;
            self.post_transform.apply(&mut scores);
            all.extend(scores.into_iter().map(f64::from));
        }
        let Some(mut output) = ctx.optional_output(0) else {
            return Ok(());
        };
        let bytes = bytemuck::cast_slice(&all);
        let view = crate::tensor::TensorView::from_bytes(DataType::Float64, &shape, bytes);
        crate::kernels::conversion::convert(view, &mut output, Default::default())
    }
}

/// `TreeEnsembleClassifier`.
#[derive(Debug)]
pub(in super::super) struct TreeEnsembleClassifier {
    forest: Forest,
    labels: Labels,
    post_transform: PostTransform,
    /// The only class that leaves have weights for, where there are two classes.
    only_class: Option<usize>,
    weights_are_positive: bool,
}

impl TreeEnsembleClassifier {
    pub(in super::super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let labels = Labels::parse(node, "classlabels_int64s", "classlabels_strings")?;
        let forest = attributes::by_node_ids(node, "class", labels.len().max(1))?;
        let mut weights = HashMap::new();
        let mut weights_are_positive = true;
        for node in &forest.nodes {
            let TreeNode::Leaf(leaf) = node else { continue };
            for &(class, weight) in leaf {
                *weights.entry(class).or_insert(0) += 1;
                weights_are_positive &= weight >= 0.0;
            }
        }
        let only_class = match weights.len() {
            1 if labels.len() == 2 => weights.keys().next().copied(),
            _ => None,
        };
        Ok(Self {
            forest,
            post_transform: PostTransform::parse(node)?,
            labels,
            only_class,
            weights_are_positive,
        })
    }

    /// The class of a row and its scores.
    fn classify(&self, row: &[f64]) -> Result<(usize, Vec<f32>), OpError> {
        let Some(only) = self.only_class else {
            let mut scores = self.forest.totals(row)?;
            let class = largest(&scores);
            self.post_transform.apply(&mut scores);
            return Ok((class, scores));
        };
        let base = self.forest.base.last().copied().unwrap_or(0.0);
        let score = (self.forest.scores(row)?[only].unwrap_or(0.0) + base) as f32;
        // Positive weights are probabilities, others are distances from the border.
        let border = if self.weights_are_positive { 0.5 } else { 0.0 };
        let scores = match self.post_transform {
            PostTransform::Logistic => vec![logistic(-score), logistic(score)],
            PostTransform::None if self.weights_are_positive => vec![1.0 - score, score],
            PostTransform::None => vec![-score, score],
            other => {
                let mut scores = vec![-score, score];
                other.apply(&mut scores);
                scores
            }
        };
        Ok((usize::from(score > border), scores))
    }
}

impl Operator for TreeEnsembleClassifier {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "X", NUMBERS)?;
        let rows = rows_dim(inputs.required(0, "X")?.dims)?;
        let dims = [rows, Dim::Known(self.forest.targets)]
            .into_iter()
            .collect();
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
        let values = doubles(x)?;
        let (mut classes, mut all) = (Vec::new(), Vec::new());
        for row in values.chunks_exact(columns.max(1)) {
            let (class, scores) = self.classify(row)?;
            classes.push(class);
            all.extend(scores);
        }
        self.labels.write(ctx, &classes)?;
        ctx.set_elements(1, &[rows, self.forest.targets], &all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::case::{Case, tensor};
    use crate::graph::attributes::Attribute;

    /// One tree: `x0 <= 1 ? leaf 1 : (x1 < 5 ? leaf 3 : leaf 4)`.
    fn tree(op_type: &'static str, prefix: &str) -> Case {
        let modes = ["BRANCH_LEQ", "LEAF", "BRANCH_LT", "LEAF", "LEAF"];
        let modes = modes.map(String::from).to_vec();
        Case::in_domain("ai.onnx.ml", op_type, 3)
            .ints("nodes_treeids", &[0; 5])
            .ints("nodes_nodeids", &[0, 1, 2, 3, 4])
            .ints("nodes_featureids", &[0, 0, 1, 0, 0])
            .with("nodes_values", Attribute::Floats(vec![1., 0., 5., 0., 0.]))
            .with("nodes_modes", Attribute::Strings(modes))
            .ints("nodes_truenodeids", &[1, 0, 3, 0, 0])
            .ints("nodes_falsenodeids", &[2, 0, 4, 0, 0])
            .ints("nodes_missing_value_tracks_true", &[1, 0, 0, 0, 0])
            .ints(&format!("{prefix}_treeids"), &[0, 0, 0])
            .ints(&format!("{prefix}_nodeids"), &[1, 3, 4])
            .ints(&format!("{prefix}_ids"), &[0, 1, 1])
            .with(
                &format!("{prefix}_weights"),
                Attribute::Floats(vec![10., 20., 30.]),
            )
    }

    fn rows() -> crate::tensor::Tensor {
        tensor(&[4, 2], &[1f32, 0., 2., 4., 2., 5., f32::NAN, 0.])
    }

    #[test]
    fn regressors_sum_the_leaves_that_are_reached() {
        let case = tree("TreeEnsembleRegressor", "target").int("n_targets", 2);
        let expected = [10f32, 0., 0., 20., 0., 30., 10., 0.];
        assert_eq!(case.one(&[rows()]), Ok(tensor(&[4, 2], &expected)));
        let base = Attribute::Floats(vec![1., 2.]);
        let found = case.with("base_values", base).one(&[rows()]).expect("fits");
        assert_eq!(found.as_slice::<f32>().expect("f32")[..2], [11., 2.]);
    }

    #[test]
    fn classifiers_choose_the_heaviest_class() {
        let case = tree("TreeEnsembleClassifier", "class").ints("classlabels_int64s", &[7, 8]);
        let found = case.outputs(2).tensors(&[rows()]).expect("fits");
        assert_eq!(found[0], tensor(&[4], &[7i64, 8, 8, 7]));
    }

    #[test]
    fn broken_trees_are_errors() {
        let case = tree("TreeEnsembleRegressor", "target").int("n_targets", 2);
        assert!(
            case.clone()
                .ints("nodes_truenodeids", &[9, 0, 3, 0, 0])
                .one(&[rows()])
                .is_err()
        );
        assert!(
            case.clone()
                .ints("nodes_falsenodeids", &[2, 0, 2, 0, 0])
                .one(&[rows()])
                .is_err()
        );
        assert!(
            case.clone()
                .ints("nodes_featureids", &[5, 0, 1, 0, 0])
                .one(&[rows()])
                .is_err()
        );
        assert!(
            case.clone()
                .ints("target_ids", &[0, 1, 2])
                .one(&[rows()])
                .is_err()
        );
        assert!(
            case.clone()
                .ints("nodes_nodeids", &[0, 1])
                .one(&[rows()])
                .is_err()
        );
        assert!(case.int("n_targets", i64::MAX).one(&[rows()]).is_err());
    }
}
