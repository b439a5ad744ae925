//! `Dropout`: the input itself; in training, elements zeroed at random and the others scaled.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Dropout.html>, opsets 1, 6, 7, 10, 12, 13, 22.
//! Shapes: `data: [..]`, `ratio: []`, `training_mode: []` → `output: [..]`, `mask: [..]`.
//! Types: f32, f64, f16, bf16. Before opset 12 this is inference always. In training the mask comes
//! from SplitMix64 (Steele, Lea and Flood 2014) over `seed` and the element's index, so that a run
//! can be repeated.

use super::element_types::{FromDouble, REAL, elements_or_in_place, match_type, refused};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{Bool, DataType, TensorView};

/// The operator with its attributes.
#[derive(Debug)]
pub(super) struct Dropout {
    seed: u64,
    /// Whether there is only the first output.
    is_plain: bool,
    /// Whether the mask has the type of the data.
    mask_is_data: bool,
    /// Whether `ratio` and `training_mode` are inputs.
    may_train: bool,
}

impl Dropout {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            seed: node.int_or("seed", 0)? as u64,
            is_plain: node.output_count == 1 && node.opset < 12,
            mask_is_data: node.opset < 10,
            may_train: node.opset >= 12,
        })
    }

    /// The share of elements to drop: none in inference.
    fn ratio(&self, ctx: &RunContext<'_>) -> Result<f64, OpError> {
        let is_training = match ctx.optional_input(2)? {
            Some(view) if self.may_train => view.single::<Bool>()?.get(),
            _ => false,
        };
        let ratio = match ctx.optional_input(1)? {
            _ if !is_training => 0.0,
            None => 0.5,
            Some(view) => real_scalar(view)?,
        };
        if (0.0..1.0).contains(&ratio) {
            Ok(ratio)
        } else {
            Err(OpError::value("ratio", "at least 0 and below 1", ratio))
        }
    }
}

fn real_scalar(view: TensorView<'_>) -> Result<f64, OpError> {
    match_type!(view.data_type(); f32, f64, half::f16, half::bf16 as T =>
        Ok(f64::from(view.single::<T>()?)); other => Err(refused(other)))
}

/// A number of 0..1 that depends on the seed and the index.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

impl Operator for Dropout {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "data", REAL)?;
        let dims = inputs.required(0, "data")?.to_dims();
        let mask_type = if self.mask_is_data {
            data_type
        } else {
            DataType::Bool
        };
        Ok(OutputInfos::from_iter([
            OutputInfo::maybe(data_type, dims.clone()),
            OutputInfo::maybe(mask_type, dims),
        ]))
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let ratio = self.ratio(ctx)?;
        let is_kept = |i: usize| ratio == 0.0 || uniform(self.seed, i as u64) >= ratio;
        let data_type = ctx.input_type(0, "data")?;
        match_type!(data_type; f32, f64, half::f16, half::bf16 as T => {
            let x = elements_or_in_place::<T>(ctx, 0, "data")?;
            if let Some(mut output) = ctx.optional_output(0) {
                let y = output.as_mut_slice::<T>()?;
                if let Some(x) = x {
                    y.copy_from_slice(x);
                }
                if ratio > 0.0 {
                    let scale = 1.0 / (1.0 - ratio);
                    for (i, y) in y.iter_mut().enumerate() {
                        let kept = if is_kept(i) { f64::from(*y) * scale } else { 0.0 };
                        *y = FromDouble::from_double(kept);
                    }
                }
            }
        }; other => return Err(refused(other)));
        let Some(mut mask) = ctx.optional_output(1) else {
            return Ok(());
        };
        if mask.data_type() == DataType::Bool {
            let mask = mask.as_mut_slice::<Bool>()?;
            mask.iter_mut()
                .enumerate()
                .for_each(|(i, m)| *m = is_kept(i).into());
            return Ok(());
        }
        match_type!(data_type; f32, f64, half::f16, half::bf16 as T => {
            mask.as_mut_slice::<T>()?.fill(FromDouble::from_double(1.0));
            Ok(())
        }; other => Err(refused(other)))
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }

    fn is_alias(&self) -> bool {
        self.is_plain
    }
}
