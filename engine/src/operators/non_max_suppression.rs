//! `NonMaxSuppression`: the boxes with the highest scores that do not overlap each other much.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>, opsets 10, 11.
//! Shapes: `boxes: [batches, boxes, 4]`, `scores: [batches, classes, boxes]` → `[n, 3]`: batch,
//! class and box of each that is kept, batches and classes in order, scores falling.

use super::axes::at_most;
use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::limits::Watch;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::DataType;

/// The operator.
#[derive(Debug)]
pub(super) struct NonMaxSuppression {
    /// Boxes are centre, width and height rather than two corners.
    centered: bool,
}

impl NonMaxSuppression {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            centered: node.flag_or("center_point_box", false)?,
        })
    }

    /// The corners of a box: lowest, then highest coordinates.
    fn corners(&self, b: &[f32]) -> [f32; 4] {
        match self.centered {
            true => {
                let (half_width, half_height) = (b[2] / 2.0, b[3] / 2.0);
                [
                    b[0] - half_width,
                    b[1] - half_height,
                    b[0] + half_width,
                    b[1] + half_height,
                ]
            }
            false => [
                b[0].min(b[2]),
                b[1].min(b[3]),
                b[0].max(b[2]),
                b[1].max(b[3]),
            ],
        }
    }
}

/// The area that two boxes share over the area that they cover.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |c: &[f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    let covered = area(a) + area(b) - shared;
    if covered > 0.0 { shared / covered } else { 0.0 }
}

impl Operator for NonMaxSuppression {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "boxes", &[DataType::Float32])?;
        inputs.data_type_of(1, "scores", &[DataType::Float32])?;
        inputs.with_rank(0, "boxes", 3)?;
        inputs.with_rank(1, "scores", 3)?;
        let dims = [Dim::Unknown, Dim::Known(3)].into_iter().collect();
        Ok(OutputInfo::tensor(DataType::Int64, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (boxes, scores) = (ctx.input(0, "boxes")?, ctx.input(1, "scores")?);
        let (&[batches, count, four], &[score_batches, classes, score_count]) =
            (boxes.shape(), scores.shape())
        else {
            return Err(OpError::shape(
                "boxes and scores",
                "3 axes each",
                "another number",
            ));
        };
        if four != 4 || batches != score_batches || count != score_count {
            let found = format!("{:?} and {:?}", boxes.shape(), scores.shape());
            let expected = "[batches, boxes, 4] and [batches, classes, boxes]";
            return Err(OpError::shape("boxes and scores", expected, found));
        }
        let limit = match ctx.optional_input(2)? {
            Some(limit) => at_most(limit.single::<i64>()?),
            None => 0,
        };
        let float = |i: usize, name| -> Result<Option<f32>, OpError> {
            let view = ctx.optional_input(i)?;
            view.map(|v| v.single::<f32>())
                .transpose()
                .map_err(|_| OpError::value(name, "one number", "others"))
        };
        let overlap_limit = float(3, "iou_threshold")?.unwrap_or(0.0);
        let score_limit = float(4, "score_threshold")?;
        let (boxes, scores) = (boxes.as_slice::<f32>()?, scores.as_slice::<f32>()?);
        let mut selected: Vec<i64> = Vec::new();
        let mut watch = Watch::begin();
        for batch in 0..batches {
            let corners: Vec<[f32; 4]> = boxes[batch * count * 4..][..count * 4]
                .chunks_exact(4)
                .map(|b| self.corners(b))
                .collect();
            for class in 0..classes {
                let scores = &scores[(batch * classes + class) * count..][..count];
                let mut order: Vec<usize> = (0..count)
                    .filter(|&i| score_limit.is_none_or(|limit| scores[i] > limit))
                    .collect();
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                let mut kept: Vec<usize> = Vec::new();
                for i in order {
                    if kept.len() >= limit {
                        break;
                    }
                    watch.count(kept.len());
                    if kept
                        .iter()
                        .all(|&k| overlap(&corners[i], &corners[k]) <= overlap_limit)
                    {
                        kept.push(i);
                        selected.extend([batch as i64, class as i64, i as i64]);
                    }
                }
            }
        }
        ctx.set_elements(0, &[selected.len() / 3, 3], &selected)
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};

    #[test]
    fn overlapping_boxes_are_suppressed() {
        let boxes = [0f32, 0., 1., 1., 0., 0.1, 1., 1.1, 0., 10., 1., 11.];
        let inputs = |limit: i64| {
            [
                tensor(&[1, 3, 4], &boxes),
                tensor(&[1, 1, 3], &[0.9f32, 0.75, 0.95]),
                tensor(&[1], &[limit]),
                tensor(&[1], &[0.5f32]),
                tensor(&[1], &[0.0f32]),
            ]
        };
        let case = Case::of("NonMaxSuppression", 11);
        assert_eq!(
            case.one(&inputs(3)),
            Ok(tensor(&[2, 3], &[0i64, 0, 2, 0, 0, 0]))
        );
        assert_eq!(case.one(&inputs(1)), Ok(tensor(&[1, 3], &[0i64, 0, 2])));
        assert_eq!(case.one(&inputs(0)), Ok(tensor(&[0, 3], &[] as &[i64])));
    }
}
