//! `RotaryEmbedding`: turns pairs of elements of queries or keys by angles of their position.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>, opset 23, and
//! `com.microsoft` 1, whose inputs come in another order.
//! Shapes: `X: [B, H, S, D]` or `[B, S, H · D]`; caches `[positions, R / 2]` with
//! `position_ids: [B, S]` (or, in `com.microsoft`, `[1]`: the first position), or `[B, S, R / 2]`
//! without → `Y` like `X`. Types: f32; f16 and bf16, computed in f32.

use super::attention::head_count;
use super::matmul::sums_in_f32;
use super::widened::{with_f32, write_f32};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::attention::rotary::{Pairs, rotate};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::TensorView;

/// The operator.
#[derive(Debug)]
pub(super) struct RotaryEmbedding {
    heads: Option<usize>,
    /// Elements of a head that are turned; all where it is absent.
    turned: Option<usize>,
    pairs: Pairs,
    /// Slots of the cosines, the sines and the positions.
    slots: [usize; 3],
}

/// The operator of `com.microsoft`.
pub(super) struct RotaryEmbeddingMicrosoft;

impl RotaryEmbedding {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let positive = |name: &str| match node.int_or(name, 0)? {
            0 => Ok(None),
            _ => head_count(node, name),
        };
        Ok(Self {
            heads: positive("num_heads")?,
            turned: positive("rotary_embedding_dim")?,
            pairs: match node.flag_or("interleaved", false)? {
                true => Pairs::Neighbours,
                false => Pairs::Halves,
            },
            slots: [1, 2, 3],
        })
    }
}

impl RotaryEmbeddingMicrosoft {
    pub(super) fn parse(node: &Attributes) -> Result<RotaryEmbedding, OpError> {
        Ok(RotaryEmbedding {
            slots: [2, 3, 1],
            ..RotaryEmbedding::parse(node)?
        })
    }
}

/// The row of the caches for each position of a batch.
pub(super) struct Positions<'a> {
    /// Given positions, `[B, S]` or the first one alone.
    pub(super) ids: Option<&'a [i64]>,
    /// Rows of the caches.
    pub(super) rows: usize,
    /// Positions of a batch.
    pub(super) sequence: usize,
}

impl Positions<'_> {
    /// The row for position `s` of batch `b`.
    pub(super) fn row(&self, b: usize, s: usize) -> Result<usize, OpError> {
        let row = match self.ids {
            None => Some(b * self.sequence + s),
            Some(&[first]) => usize::try_from(first).ok().map(|first| first + s),
            Some(ids) => usize::try_from(ids[b * self.sequence + s]).ok(),
        };
        row.filter(|&row| row < self.rows).ok_or_else(|| {
            OpError::value(
                "position_ids",
                format!("positions below {}", self.rows),
                row.map_or("a negative one".into(), |row| row.to_string()),
            )
        })
    }
}

impl Operator for RotaryEmbedding {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let x = inputs.required(0, "X")?;
        let data_type = x.data_type()?;
        if !sums_in_f32(data_type) {
            return Err(OpError::InputType {
                input: "X",
                expected: "float, float16 or bfloat16".into(),
                found: data_type,
            });
        }
        Ok(OutputInfo::maybe(data_type, x.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "X")?;
        let cos = ctx.input(self.slots[0], "cos_cache")?;
        let sin = ctx.input(self.slots[1], "sin_cache")?;
        let ids = ctx.optional_input(self.slots[2])?;
        let wrong = |expected: &str, found: TensorView<'_>| {
            OpError::shape("X", expected, format!("{:?}", found.shape()))
        };
        // Heads are next to each other in three axes, positions in four.
        let (batch, heads, sequence, width, heads_first) = match (x.shape(), self.heads) {
            (&[b, h, s, d], _) => (b, h, s, d, true),
            (&[b, s, hidden], Some(h)) if hidden % h == 0 => (b, h, s, hidden / h, false),
            // Without a count of heads the caches tell the width of one.
            (&[b, s, hidden], None) if cos.shape().last().is_some_and(|&n| n > 0) => {
                let width = 2 * cos.shape()[cos.rank() - 1];
                if hidden % width != 0 {
                    return Err(wrong("a multiple of the caches' width", x));
                }
                (b, hidden / width, s, width, false)
            }
            _ => return Err(wrong("4 axes, or 3 with num_heads", x)),
        };
        let turned = self.turned.unwrap_or(width);
        let half = turned / 2;
        let fits = turned <= width
            && turned.is_multiple_of(2)
            && cos.shape() == sin.shape()
            && cos.shape().last() == Some(&half);
        if !fits {
            let found = format!("{:?} and {:?}", cos.shape(), sin.shape());
            return Err(OpError::shape("cos_cache", format!("[.., {half}]"), found));
        }
        let ids = ids.map(|ids| ids.to_i64s()).transpose()?;
        if let Some(ids) = &ids
            && ids.len() != 1
            && ids.len() != batch * sequence
        {
            let found = format!("{} of them", ids.len());
            return Err(OpError::shape(
                "position_ids",
                format!("[{batch}, {sequence}]"),
                found,
            ));
        }
        let positions = Positions {
            ids: ids.as_deref(),
            rows: cos.len() / half.max(1),
            sequence,
        };
        let mut y = ctx.output(0)?;
        with_f32(x, |x| {
            with_f32(cos, |cos| {
                with_f32(sin, |sin| {
                    write_f32(&mut y, |y| {
                        y.copy_from_slice(x);
                        if half == 0 || width == 0 {
                            return Ok(());
                        }
                        for (i, vector) in y.chunks_exact_mut(width).enumerate() {
                            let (b, s) = if heads_first {
                                (i / (heads * sequence), i % sequence)
                            } else {
                                (i / (heads * sequence), i / heads % sequence)
                            };
                            let at = positions.row(b, s)? * half;
                            rotate(vector, &cos[at..][..half], &sin[at..][..half], self.pairs);
                        }
                        Ok(())
                    })
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, tensor};
    use super::*;

    #[test]
    fn layouts_and_sources_of_positions_agree() {
        let angles = [0f32, 0.5, 1.0, 0.3, 0.6, 0.9];
        let cos = tensor(&[3, 2], &angles.map(f32::cos));
        let sin = tensor(&[3, 2], &angles.map(f32::sin));
        let x: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let ids = tensor(&[1, 2], &[2i64, 1]);
        for interleaved in [0, 1] {
            let at = |head: usize, s: usize| {
                let mut v: Vec<f32> = x[(s * 2 + head) * 4..][..4].to_vec();
                for i in 0..2 {
                    let (a, b) = if interleaved == 1 {
                        (2 * i, 2 * i + 1)
                    } else {
                        (i, i + 2)
                    };
                    let angle = angles[[2, 1][s] * 2 + i];
                    let (re, im) = (v[a], v[b]);
                    v[a] = angle.cos() * re - angle.sin() * im;
                    v[b] = angle.sin() * re + angle.cos() * im;
                }
                v
            };
            let flat: Vec<f32> = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)].concat();
            let case = Case::of("RotaryEmbedding", 23)
                .int("num_heads", 2)
                .int("interleaved", interleaved);
            let input = tensor(&[1, 2, 8], &x);
            let found = case.one(&[input.clone(), cos.clone(), sin.clone(), ids.clone()]);
            assert_eq!(found, Ok(tensor(&[1, 2, 8], &flat)));
            let other = Case::in_domain("com.microsoft", "RotaryEmbedding", 1)
                .int("num_heads", 2)
                .int("interleaved", interleaved);
            let found = other.one(&[input, ids.clone(), cos.clone(), sin.clone()]);
            assert_eq!(found, Ok(tensor(&[1, 2, 8], &flat)));
            let split = tensor(
                &[1, 2, 2, 4],
                &[&x[..4], &x[8..12], &x[4..8], &x[12..]].concat(),
            );
            let want: Vec<f32> = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)].concat();
            let case = Case::of("RotaryEmbedding", 23).int("interleaved", interleaved);
            let found = case.one(&[split, cos.clone(), sin.clone(), ids.clone()]);
            assert_eq!(found, Ok(tensor(&[1, 2, 2, 4], &want)));
        }
    }

    #[test]
    fn positions_beyond_the_cache_are_rejected() {
        let cache = tensor(&[2, 1], &[1f32, 1.]);
        let x = tensor(&[1, 1, 1, 2], &[1f32, 2.]);
        for id in [2, -1] {
            let ids = ints(&[id]);
            let found = Case::of("RotaryEmbedding", 23).one(&[
                x.clone(),
                cache.clone(),
                cache.clone(),
                ids,
            ]);
            assert!(
                matches!(found, Err(OpError::Value { .. })),
                "{id}: {found:?}"
            );
        }
    }
}
