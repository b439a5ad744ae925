//! `GroupQueryAttention`: causal attention with a cache, rotary embedding inside, and fewer heads
//! of keys than of queries.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>,
//! `com.microsoft` 1.
//! Shapes: `query: [B, S, H · D]` (or all three packed, `[B, S, (H + 2 Hk) · D]`),
//! `key`, `value: [B, S, Hk · D]`, past: `[B, Hk, P, D]`, `seqlens_k: [B]` (lengths with this step,
//! less one), `total_sequence_length: []`, caches of the rotation `[positions, R / 2]`,
//! `attention_bias: [1 or B, 1 or H, S, T]`, `head_sink: [H]` → `output: [B, S, H · D]`, present:
//! `[B, Hk, max(P, T), D]`. Types: f32; f16 and bf16, computed in f32.
//!
//! A step as long as all positions is the first one: it starts at position 0, and shorter texts are
//! padded at their end. Otherwise the new positions of batch `b` are the last of its length.

use super::attention::head_count;
use super::axes::{at_most, size};
use super::broadcasting::broadcast_strides;
use super::matmul::sums_in_f32;
use super::rotary_embedding::Positions;
use super::widened::{with_f32, with_optional_f32, write_f32};
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::attention::rotary::{Pairs, rotate};
use crate::kernels::attention::{
    Attention, HeadStrides, Mask, MaskValues, Sizes, Visible, attention,
};
use crate::kernels::scratch;
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::TensorView;

/// The operator.
#[derive(Debug)]
pub(super) struct GroupQueryAttention {
    heads: usize,
    kv_heads: usize,
    scale: Option<f32>,
    softcap: Option<f32>,
    window: Option<usize>,
    /// How queries and keys are turned, where the operator does it.
    rotary: Option<Pairs>,
    /// Whether a score of zero without a value takes part.
    smooth: bool,
}

impl GroupQueryAttention {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let heads = |name: &str| {
            let missing = || OpError::MissingAttribute { name: name.into() };
            head_count(node, name)?.ok_or_else(missing)
        };
        for name in ["k_quant_type", "v_quant_type"] {
            if node.string_or(name, "NONE")? != "NONE" {
                return Err(OpError::unsupported("a quantised cache"));
            }
        }
        if node.output_count > 3 {
            return Err(OpError::unsupported("the output output_qk"));
        }
        let scale = node.float_or("scale", 0.0)?;
        let softcap = node.float_or("softcap", 0.0)?;
        let window = node.int_or("local_window_size", -1)?;
        let (heads, kv_heads) = (heads("num_heads")?, heads("kv_num_heads")?);
        if heads % kv_heads != 0 {
            return Err(OpError::Attribute {
                name: "num_heads".into(),
                expected: format!("a multiple of kv_num_heads, {kv_heads}"),
                found: heads.to_string(),
            });
        }
        Ok(Self {
            heads,
            kv_heads,
            scale: (scale != 0.0).then_some(scale),
            softcap: (softcap > 0.0).then_some(softcap),
            window: (window > 0).then(|| at_most(window)),
            rotary: match (
                node.flag_or("do_rotary", false)?,
                node.flag_or("rotary_interleaved", false)?,
            ) {
                (false, _) => None,
                (true, false) => Some(Pairs::Halves),
                (true, true) => Some(Pairs::Neighbours),
            },
            smooth: node.int_or("smooth_softmax", 0)? > 0,
        })
    }
}

impl Operator for GroupQueryAttention {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let query = inputs.with_rank(0, "query", 3)?;
        let data_type = query.data_type()?;
        if !sums_in_f32(data_type) {
            return Err(OpError::InputType {
                input: "query",
                expected: "float, float16 or bfloat16".into(),
                found: data_type,
            });
        }
        let packed = inputs.optional(1).is_none();
        let parts = self.heads + if packed { 2 * self.kv_heads } else { 0 };
        let width = match query.dims.map(|dims| &dims[2]) {
            Some(Dim::Known(hidden)) if hidden % parts != 0 => {
                let expected = format!("[.., .., {parts} · width]");
                return Err(OpError::shape("query", expected, format!("{hidden}")));
            }
            Some(Dim::Known(hidden)) => Dim::Known(hidden / parts),
            _ => Dim::Unknown,
        };
        let output: Option<Dims> = query.dims.map(|dims| {
            let hidden = match &width {
                Dim::Known(width) => Dim::Known(width * self.heads),
                _ => Dim::Unknown,
            };
            [dims[0].clone(), dims[1].clone(), hidden]
                .into_iter()
                .collect()
        });
        let total = inputs.required(6, "total_sequence_length")?.known_ints();
        let past = inputs.optional(3).map_or(Some(Dim::Known(0)), |past| {
            past.dims.and_then(|dims| dims.get(2).cloned())
        });
        let positions = match (total.as_deref(), past) {
            (Some(&[total]), Some(Dim::Known(past))) => {
                Dim::Known(past.max(size("total_sequence_length", total.max(0))?))
            }
            _ => Dim::Unknown,
        };
        let present: Option<Dims> = query.dims.map(|dims| {
            let heads = Dim::Known(self.kv_heads);
            [dims[0].clone(), heads, positions, width]
                .into_iter()
                .collect()
        });
        Ok([
            OutputInfo::maybe(data_type, output),
            OutputInfo::maybe(data_type, present.clone()),
            OutputInfo::maybe(data_type, present),
        ]
        .into_iter()
        .take(inputs.output_count().max(1))
        .collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let query = ctx.input(0, "query")?;
        let [batch, sequence, hidden] = *query.shape() else {
            let found = format!("{:?}", query.shape());
            return Err(OpError::shape("query", "3 axes", found));
        };
        let (key, value) = (ctx.optional_input(1)?, ctx.optional_input(2)?);
        let parts = self.heads + if key.is_none() { 2 * self.kv_heads } else { 0 };
        let step = Step {
            operator: self,
            batch,
            sequence,
            width: hidden / parts,
            packed: key.is_none(),
            total: total_length(ctx.input(6, "total_sequence_length")?)?,
            lengths: lengths(ctx.input(5, "seqlens_k")?, batch)?,
        };
        step.check(key, value)?;
        let pasts = [ctx.optional_input(3)?, ctx.optional_input(4)?];
        let past_positions = pasts[0].map_or(0, |past| past.shape().get(2).copied().unwrap_or(0));
        let past_shape = [batch, self.kv_heads, past_positions, step.width];
        for past in pasts.into_iter().flatten() {
            if past.shape() != past_shape {
                let found = format!("{:?}", past.shape());
                return Err(OpError::shape("past", format!("{past_shape:?}"), found));
            }
        }
        if pasts[0].is_some() != pasts[1].is_some() {
            return Err(OpError::MissingInput {
                input: "past_key or past_value",
            });
        }
        let positions = past_positions.max(step.total);
        if step
            .lengths
            .iter()
            .any(|&n| n > positions || n > past_positions + sequence)
            || (0..batch).any(|b| step.start(b) + sequence > positions)
        {
            let expected = format!("lengths within {positions}");
            return Err(OpError::value(
                "seqlens_k",
                expected,
                format!("{:?}", step.lengths),
            ));
        }
        let caches = [ctx.optional_input(7)?, ctx.optional_input(8)?];
        let ids = ctx
            .optional_input(9)?
            .map(|ids| ids.to_i64s())
            .transpose()?;
        let (bias, sinks) = (ctx.optional_input(10)?, ctx.optional_input(11)?);
        if let Some(sinks) = sinks
            && sinks.len() != self.heads
        {
            let found = format!("{:?}", sinks.shape());
            return Err(OpError::shape(
                "head_sink",
                format!("[{}]", self.heads),
                found,
            ));
        }
        let env = ctx.env;
        let mut output = ctx.output(0)?;
        let presents = [ctx.optional_output(1), ctx.optional_output(2)];
        let cache_len = batch * self.kv_heads * positions * step.width;
        let rows = batch * sequence * step.width;
        let memory = 2 * cache_len + rows * (self.heads + 2 * self.kv_heads);
        scratch::with(memory, |memory: &mut [f32]| {
            let (keys, memory) = memory.split_at_mut(cache_len);
            let (values, memory) = memory.split_at_mut(cache_len);
            let (q, memory) = memory.split_at_mut(rows * self.heads);
            let (k, v) = memory.split_at_mut(rows * self.kv_heads);
            step.split(query, key, value, [&mut *q, &mut *k, &mut *v])?;
            if let Some(pairs) = self.rotary {
                let [Some(cos), Some(sin)] = caches else {
                    return Err(OpError::MissingInput {
                        input: "cos_cache or sin_cache",
                    });
                };
                with_f32(cos, |cos_data| {
                    with_f32(sin, |sin_data| {
                        let half = cos.shape().last().copied().unwrap_or(0);
                        let turn = Turn {
                            cos: cos_data,
                            sin: sin_data,
                            half,
                            pairs,
                            ids: ids.as_deref(),
                        };
                        step.rotate(q, self.heads, &turn)?;
                        step.rotate(k, self.kv_heads, &turn)
                    })
                })?;
            }
            for (past, (new, all)) in pasts
                .into_iter()
                .zip([(&*k, &mut *keys), (&*v, &mut *values)])
            {
                with_optional_f32(past, |past| {
                    step.append(past, past_positions, new, positions, all);
                    Ok(())
                })?;
            }
            for (present, all) in presents.into_iter().zip([&*keys, &*values]) {
                if let Some(mut present) = present {
                    write_f32(&mut present, |to| {
                        to.copy_from_slice(all);
                        Ok(())
                    })?;
                }
            }
            let sizes = Sizes {
                batch,
                heads: self.heads,
                kv_heads: self.kv_heads,
                queries: sequence,
                keys: step.total.min(positions),
                width: step.width,
                value_width: step.width,
            };
            let first = step.is_first();
            let visible = Visible {
                // A window counts the query's own position too.
                behind: self.window.map(|window| window - 1),
                ahead: Some(0),
                offset: 0,
                key_lengths: (!first).then_some(&step.lengths[..]),
            };
            let cache = HeadStrides::heads_first(self.kv_heads, positions, step.width);
            let rows = HeadStrides::positions_first(self.heads, sequence, step.width);
            let zeros = limits::zeroed::<f32>(if self.smooth { self.heads } else { 0 });
            with_bias(bias, sizes, |values_of_mask| {
                with_optional_f32(sinks, |sinks| {
                    let sinks = if sinks.is_empty() { &zeros[..] } else { sinks };
                    let job = Attention {
                        sizes,
                        q: (q, rows),
                        k: (keys, cache),
                        v: (values, cache),
                        scale: self.scale.unwrap_or(1.0 / (step.width as f32).sqrt()),
                        softcap: self.softcap,
                        mask: Mask {
                            values: values_of_mask,
                            visible,
                        },
                        sinks: (!sinks.is_empty()).then_some(sinks),
                    };
                    write_f32(&mut output, |y| {
                        attention(env, &job, y, rows);
                        Ok(())
                    })
                })
            })
        })
    }
}

fn total_length(tensor: TensorView<'_>) -> Result<usize, OpError> {
    match tensor.to_i64s()?[..] {
        [total] => size("total_sequence_length", total),
        ref other => Err(OpError::value(
            "total_sequence_length",
            "one number",
            format!("{other:?}"),
        )),
    }
}

/// Lengths with this step, of each batch.
fn lengths(tensor: TensorView<'_>, batch: usize) -> Result<Vec<usize>, OpError> {
    let lengths = tensor.to_i64s()?;
    let count = |&n: &i64| usize::try_from(n.checked_add(1)?).ok();
    let counts: Option<Vec<usize>> = lengths.iter().map(count).collect();
    counts
        .filter(|counts| counts.len() == batch)
        .ok_or_else(|| {
            let expected = format!("{batch} lengths of at least 0");
            OpError::value("seqlens_k", expected, format!("{lengths:?}"))
        })
}

/// Calls `work` with the bias as mask values, broadcast to the scores.
fn with_bias<R>(
    bias: Option<TensorView<'_>>,
    sizes: Sizes,
    work: impl FnOnce(Option<MaskValues<'_>>) -> Result<R, OpError>,
) -> Result<R, OpError> {
    let Some(bias) = bias else { return work(None) };
    let full = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
    let fits = bias.rank() == 4
        && bias
            .shape()
            .iter()
            .zip(full)
            .all(|(&n, full)| n == 1 || n == full);
    if !fits {
        let found = format!("{:?}", bias.shape());
        return Err(OpError::shape("attention_bias", format!("{full:?}"), found));
    }
    let s = broadcast_strides(bias.shape(), &full);
    with_f32(bias, |bias| {
        work(Some(MaskValues::Add(bias, [s[0], s[1], s[2], s[3]])))
    })
}

/// The tables of a rotation.
struct Turn<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    half: usize,
    pairs: Pairs,
    ids: Option<&'a [i64]>,
}

/// One run of the operator.
struct Step<'a> {
    operator: &'a GroupQueryAttention,
    batch: usize,
    sequence: usize,
    width: usize,
    packed: bool,
    total: usize,
    lengths: Vec<usize>,
}

impl Step<'_> {
    fn is_first(&self) -> bool {
        self.sequence == self.total
    }

    /// Where the new positions of a batch begin.
    fn start(&self, batch: usize) -> usize {
        if self.is_first() {
            0
        } else {
            self.lengths[batch].saturating_sub(self.sequence)
        }
    }

    fn check(
        &self,
        key: Option<TensorView<'_>>,
        value: Option<TensorView<'_>>,
    ) -> Result<(), OpError> {
        if key.is_some() != value.is_some() {
            return Err(OpError::MissingInput {
                input: "key or value",
            });
        }
        let expected = [
            self.batch,
            self.sequence,
            self.operator.kv_heads * self.width,
        ];
        match [key, value]
            .into_iter()
            .flatten()
            .find(|t| t.shape() != expected)
        {
            Some(wrong) => {
                let found = format!("{:?}", wrong.shape());
                Err(OpError::shape(
                    "key and value",
                    format!("{expected:?}"),
                    found,
                ))
            }
            None => Ok(()),
        }
    }

    /// Queries, keys and values of the step as f32, each without gaps.
    fn split(
        &self,
        query: TensorView<'_>,
        key: Option<TensorView<'_>>,
        value: Option<TensorView<'_>>,
        to: [&mut [f32]; 3],
    ) -> Result<(), OpError> {
        let [q, k, v] = to;
        let (Some(key), Some(value)) = (key, value) else {
            debug_assert!(self.packed);
            return with_f32(query, |all| {
                let (q_len, kv_len) = (
                    self.operator.heads * self.width,
                    self.operator.kv_heads * self.width,
                );
                for (i, row) in all.chunks_exact((q_len + 2 * kv_len).max(1)).enumerate() {
                    q[i * q_len..][..q_len].copy_from_slice(&row[..q_len]);
                    k[i * kv_len..][..kv_len].copy_from_slice(&row[q_len..][..kv_len]);
                    v[i * kv_len..][..kv_len].copy_from_slice(&row[q_len + kv_len..]);
                }
                Ok(())
            });
        };
        for (from, to) in [(query, q), (key, k), (value, v)] {
            with_f32(from, |from| {
                to.copy_from_slice(from);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Turns the vectors of all heads, `[B, S, heads, width]`.
    fn rotate(&self, x: &mut [f32], heads: usize, turn: &Turn<'_>) -> Result<(), OpError> {
        let half = turn.half;
        if 2 * half > self.width || turn.sin.len() != turn.cos.len() {
            let expected = format!("at most {} columns, as many as sin_cache", self.width / 2);
            return Err(OpError::shape("cos_cache", expected, half.to_string()));
        }
        if half == 0 {
            return Ok(());
        }
        if let Some(ids) = turn.ids
            && ids.len() != self.batch * self.sequence
        {
            let expected = format!("[{}, {}]", self.batch, self.sequence);
            return Err(OpError::shape(
                "position_ids",
                expected,
                format!("{}", ids.len()),
            ));
        }
        let rows = turn.cos.len() / half;
        for (i, vector) in x.chunks_exact_mut(self.width).enumerate() {
            let (b, s) = (i / (heads * self.sequence), i / heads % self.sequence);
            let first = [self.start(b) as i64];
            let positions = match turn.ids {
                Some(ids) => Positions {
                    ids: Some(&ids[b * self.sequence + s..][..1]),
                    rows,
                    sequence: 1,
                },
                None => Positions {
                    ids: Some(&first),
                    rows,
                    sequence: self.sequence,
                },
            };
            let s = if turn.ids.is_some() { 0 } else { s };
            let at = positions.row(0, s)? * half;
            rotate(
                vector,
                &turn.cos[at..][..half],
                &turn.sin[at..][..half],
                turn.pairs,
            );
        }
        Ok(())
    }

    /// The cache `[B, Hk, positions, D]` with the past and the new vectors `[B, S, Hk, D]`.
    fn append(
        &self,
        past: &[f32],
        past_positions: usize,
        new: &[f32],
        positions: usize,
        all: &mut [f32],
    ) {
        let (heads, width) = (self.operator.kv_heads, self.width);
        let (past_len, head_len) = (past_positions * width, positions * width);
        if head_len == 0 {
            return;
        }
        for (i, all) in all.chunks_exact_mut(head_len).enumerate() {
            let (b, h) = (i / heads, i % heads);
            let kept = past.len().min(past_len);
            all[kept..].fill(0.0);
            if kept > 0 {
                all[..past_len].copy_from_slice(&past[i * past_len..][..past_len]);
            }
            let start = self.start(b);
            for s in 0..self.sequence {
                let from = ((b * self.sequence + s) * heads + h) * width;
                all[(start + s) * width..][..width].copy_from_slice(&new[from..][..width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use super::*;
    use crate::tensor::{Tensor, Value};

    fn numbers(shape: &[usize], seed: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|i| ((i * 31 + seed * 13) % 19) as f32 / 9.0 - 1.0)
            .collect();
        tensor(shape, &values)
    }

    fn rows(t: &Tensor, from: usize, to: usize) -> Tensor {
        let width = t.shape()[2];
        let data = t.as_slice::<f32>().expect("f32");
        tensor(&[1, to - from, width], &data[from * width..to * width])
    }

    /// A prompt and a step give what the whole text gives at once, with rotation and a window, and
    /// with queries, keys and values packed.
    #[test]
    fn steps_agree_with_the_whole() {
        let (q, k, v) = (
            numbers(&[1, 6, 16], 1),
            numbers(&[1, 6, 8], 2),
            numbers(&[1, 6, 8], 3),
        );
        let cos = numbers(&[8, 2], 4);
        let sin = numbers(&[8, 2], 5);
        for window in [-1, 3] {
            let case = Case::in_domain("com.microsoft", "GroupQueryAttention", 1)
                .int("num_heads", 4)
                .int("kv_num_heads", 2)
                .int("do_rotary", 1)
                .int("local_window_size", window)
                .outputs(3);
            let run = |q: Tensor,
                       kv: Option<(Tensor, Tensor)>,
                       past: Option<(Value, Value)>,
                       total: i32| {
                let (k, v) = kv.unzip();
                let (past_k, past_v) = past.unzip();
                case.run(&[
                    Some(q.into()),
                    k.map(Value::from),
                    v.map(Value::from),
                    past_k,
                    past_v,
                    Some(tensor(&[1], &[total - 1]).into()),
                    Some(tensor(&[], &[total]).into()),
                    Some(cos.clone().into()),
                    Some(sin.clone().into()),
                ])
                .expect("attends")
            };
            let whole = run(q.clone(), Some((k.clone(), v.clone())), None, 6);
            let prompt = run(
                rows(&q, 0, 4),
                Some((rows(&k, 0, 4), rows(&v, 0, 4))),
                None,
                4,
            );
            let past = (prompt[1].clone(), prompt[2].clone());
            let step = run(
                rows(&q, 4, 6),
                Some((rows(&k, 4, 6), rows(&v, 4, 6))),
                Some(past),
                6,
            );
            let close = |a: &[f32], b: &[f32]| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
            };
            let data = |v: &Value| {
                v.as_tensor()
                    .expect("a tensor")
                    .as_slice::<f32>()
                    .expect("f32")
                    .to_vec()
            };
            assert!(
                close(&data(&whole[0])[..4 * 16], &data(&prompt[0])),
                "window {window}"
            );
            assert!(
                close(&data(&whole[0])[4 * 16..], &data(&step[0])),
                "window {window}"
            );
            assert!(close(&data(&whole[1]), &data(&step[1])));
            assert!(close(&data(&whole[2]), &data(&step[2])));
            let concat = Case::of("Concat", 13).int("axis", 2);
            let packed = concat
                .one(&[q.clone(), k.clone(), v.clone()])
                .expect("joins");
            let packed = run(packed, None, None, 6);
            assert!(close(&data(&whole[0]), &data(&packed[0])));
        }
    }

    #[test]
    fn lengths_beyond_the_cache_are_rejected() {
        let case = Case::in_domain("com.microsoft", "GroupQueryAttention", 1)
            .int("num_heads", 2)
            .int("kv_num_heads", 1);
        for length in [-2, 5, 100] {
            let found = case.run(&[
                Some(numbers(&[1, 1, 8], 1).into()),
                Some(numbers(&[1, 1, 4], 2).into()),
                Some(numbers(&[1, 1, 4], 3).into()),
                Some(numbers(&[1, 1, 2, 4], 4).into()),
                Some(numbers(&[1, 1, 2, 4], 5).into()),
                Some(tensor(&[1], &[length]).into()),
                Some(tensor(&[], &[3i32]).into()),
            ]);
            assert!(
                matches!(found, Err(OpError::Value { .. })),
                "{length}: {found:?}"
            );
        }
    }
}
