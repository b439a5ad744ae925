//! `Attention`: `softmax(scale · Q Kᵀ + mask) · V` over heads, with keys and values of the past.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Attention.html>, opsets 23 to 25.
//! Shapes: `Q: [B, H, Sq, D]` or `[B, Sq, H · D]`, `K`, `V` likewise with the key heads, mask:
//! broadcast to `[B, H, Sq, T]` (its last axis may be shorter: the keys beyond are hidden), past:
//! `[B, Hk, P, D]` → `Y` like `Q`, present: `[B, Hk, T = P + Sk, D]`, the scores `[B, H, Sq, T]`.
//! Types: f32; f16, bf16 and f64, computed in f32.
//!
//! Query `i` stands at position `i + offset`: after the past where there is one, at the end of a
//! batch's valid keys where `nonpad_kv_seqlen` counts them, else at `i`. What is causal, and windows
//! (`left_window_size`, `right_window_size`), count from there. A query that sees no key gives zeros.
//!
//! The scores (`qk_matmul_output`) are made only where somebody wants them, and then on their own
//! ([`scores`]): attention itself never has that matrix.

mod scores;
#[cfg(test)]
mod tests;

use super::axes::at_most;
use super::broadcasting::broadcast_strides;
use super::widened::{with_f32, write_f32};
use crate::error::OpError;
use crate::graph::dimension::known_dims;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::attention::{
    Attention as Job, HeadStrides, Mask, MaskValues, Sizes, Visible, attention,
};
use crate::kernels::scratch;
use crate::operator::{InferContext, InputInfo, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, TensorView, TensorViewMut};
use scores::{Scores, write_scores};

/// The operator with its attributes.
#[derive(Debug)]
pub(super) struct Attention {
    heads: Option<usize>,
    kv_heads: Option<usize>,
    scale: Option<f32>,
    softcap: Option<f32>,
    /// How many positions before and after its own a query sees at most.
    behind: Option<usize>,
    ahead: Option<usize>,
    scores: Scores,
}

const TYPES: &[DataType] = &[
    DataType::Float32,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Float64,
];

/// A count of heads given as an attribute.
pub(super) fn head_count(node: &Attributes, name: &str) -> Result<Option<usize>, OpError> {
    let Some(&count) = node.optional_int(name)? else {
        return Ok(None);
    };
    let positive = usize::try_from(count).ok().filter(|&count| count > 0);
    positive.map(Some).ok_or_else(|| OpError::Attribute {
        name: name.into(),
        expected: "at least 1".into(),
        found: count.to_string(),
    })
}

/// A limit of the positions that a query sees on one side.
fn window(node: &Attributes, name: &str) -> Result<Option<usize>, OpError> {
    match node.int_or(name, -1)? {
        -1 => Ok(None),
        limit if limit >= 0 => Ok(Some(at_most(limit))),
        other => Err(OpError::Attribute {
            name: name.into(),
            expected: "-1 or more".into(),
            found: other.to_string(),
        }),
    }
}

/// Softmax is computed in f32, whose rounding every precision that is asked for allows.
fn check_softmax_precision(node: &Attributes) -> Result<(), OpError> {
    match node.optional_data_type("softmax_precision")? {
        None => Ok(()),
        Some(asked) if TYPES.contains(&asked) => Ok(()),
        Some(other) => Err(OpError::Attribute {
            name: "softmax_precision".into(),
            expected: "a type of floats".into(),
            found: other.to_string(),
        }),
    }
}

impl Attention {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        check_softmax_precision(node)?;
        let softcap = node.float_or("softcap", 0.0)?;
        let causal = node.flag_or("is_causal", false)?;
        let ahead = window(node, "right_window_size")?;
        Ok(Self {
            heads: head_count(node, "q_num_heads")?,
            kv_heads: head_count(node, "kv_num_heads")?,
            scale: node.optional_float("scale")?.copied(),
            softcap: (softcap > 0.0).then_some(softcap),
            behind: window(node, "left_window_size")?,
            ahead: if causal { Some(0) } else { ahead },
            scores: Scores::parse(node)?,
        })
    }
}

/// Axes of Q, K or V by their meaning.
#[derive(Debug, Clone)]
struct Axes<T> {
    batch: T,
    heads: T,
    positions: T,
    width: T,
}

impl Attention {
    /// The axes of an operand, of which three are told apart by the number of heads.
    fn axes(
        &self,
        name: &'static str,
        dims: &[Dim],
        heads: Option<usize>,
    ) -> Result<Axes<Dim>, OpError> {
        match (dims, heads) {
            ([batch, heads, positions, width], _) => Ok(Axes {
                batch: batch.clone(),
                heads: heads.clone(),
                positions: positions.clone(),
                width: width.clone(),
            }),
            ([batch, positions, hidden], Some(heads)) => {
                let width = match hidden {
                    Dim::Known(n) if n % heads != 0 => {
                        let expected = format!("a last axis for {heads} heads");
                        return Err(OpError::shape(name, expected, format!("{n}")));
                    }
                    Dim::Known(n) => Dim::Known(n / heads),
                    _ => Dim::Unknown,
                };
                Ok(Axes {
                    batch: batch.clone(),
                    heads: Dim::Known(heads),
                    positions: positions.clone(),
                    width,
                })
            }
            _ => Err(OpError::shape(
                name,
                "4 axes, or 3 with q_num_heads and kv_num_heads",
                format!("{} axes", dims.len()),
            )),
        }
    }

    fn known_axes(
        &self,
        name: &'static str,
        shape: &[usize],
        heads: Option<usize>,
    ) -> Result<(Axes<usize>, HeadStrides), OpError> {
        let axes = self.axes(name, &known_dims(shape), heads)?;
        let known = |dim: &Dim| {
            dim.known().ok_or_else(|| OpError::Internal {
                what: "a known shape with unknown axes".into(),
            })
        };
        let axes = Axes {
            batch: known(&axes.batch)?,
            heads: known(&axes.heads)?,
            positions: known(&axes.positions)?,
            width: known(&axes.width)?,
        };
        let strides = if shape.len() == 3 {
            HeadStrides::positions_first(axes.heads, axes.positions, axes.width)
        } else {
            HeadStrides::heads_first(axes.heads, axes.positions, axes.width)
        };
        Ok((axes, strides))
    }
}

/// `a + b`, where it is known.
fn sum(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(0), other) | (other, Dim::Known(0)) => other.clone(),
        (Dim::Known(a), Dim::Known(b)) => Dim::Known(a + b),
        _ => Dim::Unknown,
    }
}

impl Operator for Attention {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "Q", TYPES)?;
        let value_type = inputs.data_type_of(2, "V", TYPES)?;
        let of = |i: usize, name, heads| -> Result<Option<Axes<Dim>>, OpError> {
            let input: InputInfo<'_> = inputs.required(i, name)?;
            let axes = input.dims.map(|dims| self.axes(name, dims, heads));
            axes.transpose()
        };
        let q = of(0, "Q", self.heads)?;
        let (k, v) = (of(1, "K", self.kv_heads)?, of(2, "V", self.kv_heads)?);
        let three_axes = inputs.required(0, "Q")?.rank() == Some(3);
        let keys = |new: &Dim| -> Option<Dim> {
            match inputs.optional(4) {
                None => Some(new.clone()),
                Some(past) => Some(sum(past.dims?.get(2)?, new)),
            }
        };
        let scores = match (&q, &k) {
            (Some(q), Some(k)) => keys(&k.positions).map(|keys| {
                let dims = [&q.batch, &q.heads, &q.positions, &keys];
                dims.into_iter().cloned().collect::<Dims>()
            }),
            _ => None,
        };
        let y: Option<Dims> = match (q, &v) {
            (Some(q), Some(v)) if three_axes => {
                let hidden = match (q.heads.known(), v.width.known()) {
                    (Some(heads), Some(width)) => Dim::Known(heads * width),
                    _ => Dim::Unknown,
                };
                Some([q.batch, q.positions, hidden].into_iter().collect())
            }
            (Some(q), Some(v)) => {
                let axes = [q.batch, q.heads, q.positions, v.width.clone()];
                Some(axes.into_iter().collect())
            }
            _ => None,
        };
        let present = |new: Option<Axes<Dim>>, past: Option<InputInfo<'_>>| -> Option<Dims> {
            let new = new?;
            let total = match past {
                None => new.positions,
                Some(past) => sum(past.dims?.get(2)?, &new.positions),
            };
            Some(
                [new.batch, new.heads, total, new.width]
                    .into_iter()
                    .collect(),
            )
        };
        let mut outputs: OutputInfos = OutputInfo::maybe(data_type, y).into();
        if inputs.output_count() > 1 {
            outputs.push(OutputInfo::maybe(data_type, present(k, inputs.optional(4))));
        }
        if inputs.output_count() > 2 {
            outputs.push(OutputInfo::maybe(
                value_type,
                present(v, inputs.optional(5)),
            ));
        }
        if inputs.output_count() > 3 {
            outputs.push(OutputInfo::maybe(data_type, scores));
        }
        Ok(outputs)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let env = ctx.env;
        let (q, k, v) = (ctx.input(0, "Q")?, ctx.input(1, "K")?, ctx.input(2, "V")?);
        let (past_key, past_value) = (ctx.optional_input(4)?, ctx.optional_input(5)?);
        let (mask, lengths) = (ctx.optional_input(3)?, ctx.optional_input(6)?);
        if lengths.is_some() && (past_key.is_some() || past_value.is_some()) {
            let (expected, found) = ("nothing beside past_key and past_value", "both");
            return Err(OpError::value("nonpad_kv_seqlen", expected, found));
        }
        let (of_q, q_strides) = self.known_axes("Q", q.shape(), self.heads)?;
        let (of_k, k_strides) = self.known_axes("K", k.shape(), self.kv_heads)?;
        let (of_v, v_strides) = self.known_axes("V", v.shape(), self.kv_heads)?;
        if of_k.width != of_q.width
            || (of_k.batch, of_v.batch) != (of_q.batch, of_q.batch)
            || (of_k.heads, of_k.positions) != (of_v.heads, of_v.positions)
            || of_k.heads == 0
            || !of_q.heads.is_multiple_of(of_k.heads)
        {
            return Err(OpError::shape(
                "Q, K and V",
                "equal batches and widths, keys as many as values, heads a multiple of key heads",
                format!("{:?}, {:?} and {:?}", q.shape(), k.shape(), v.shape()),
            ));
        }
        let mut y = ctx.output(0)?;
        let (key_out, value_out) = (ctx.optional_output(1), ctx.optional_output(2));
        let scores_out = ctx.optional_output(3);
        let new_key = New {
            tensor: k,
            axes: of_k,
            strides: k_strides,
        };
        let new_value = New {
            tensor: v,
            axes: of_v.clone(),
            strides: v_strides,
        };
        new_key.with_past("past_key", past_key, key_out, |k, k_strides, keys| {
            new_value.with_past(
                "past_value",
                past_value,
                value_out,
                |v, v_strides, values| {
                    if keys != values {
                        let found = format!("{keys} keys and {values} values");
                        return Err(OpError::shape("past", "as many keys as values", found));
                    }
                    let mut sizes = Sizes {
                        batch: of_q.batch,
                        heads: of_q.heads,
                        kv_heads: of_v.heads,
                        queries: of_q.positions,
                        keys,
                        width: of_q.width,
                        value_width: of_v.width,
                    };
                    let past = keys - of_v.positions;
                    let y_strides = if q.rank() == 3 {
                        HeadStrides::positions_first(sizes.heads, sizes.queries, sizes.value_width)
                    } else {
                        HeadStrides::heads_first(sizes.heads, sizes.queries, sizes.value_width)
                    };
                    let lengths = lengths.map(|l| key_lengths(l, sizes)).transpose()?;
                    let strides = match mask {
                        Some(mask) => self.mask_strides(mask.shape(), &mut sizes)?,
                        None => [0; 4],
                    };
                    let visible = Visible {
                        behind: self.behind,
                        ahead: self.ahead,
                        offset: past as i64,
                        key_lengths: lengths.as_deref(),
                    };
                    with_mask(mask, strides, |values| {
                        with_f32(q, |q| {
                            let job = Job {
                                sizes,
                                q: (q, q_strides),
                                k: (k, k_strides),
                                v: (v, v_strides),
                                scale: self.scale_for(sizes.width),
                                softcap: self.softcap,
                                mask: Mask { values, visible },
                                sinks: None,
                            };
                            if let Some(mut scores) = scores_out {
                                write_f32(&mut scores, |scores| {
                                    write_scores(env, &job, self.scores, keys, scores);
                                    Ok(())
                                })?;
                            }
                            write_f32(&mut y, |y| {
                                attention(env, &job, y, y_strides);
                                Ok(())
                            })
                        })
                    })
                },
            )
        })
    }
}

impl Attention {
    fn scale_for(&self, width: usize) -> f32 {
        self.scale.unwrap_or(1.0 / (width as f32).sqrt())
    }

    /// Strides of a mask under `[B, H, Sq, T]`; where it has fewer keys, the sizes shrink to them.
    fn mask_strides(&self, shape: &[usize], sizes: &mut Sizes) -> Result<[usize; 4], OpError> {
        if let Some(&last) = shape.last()
            && last < sizes.keys
        {
            sizes.keys = last;
        }
        let full = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
        let fits = shape.len() <= 4
            && shape
                .iter()
                .rev()
                .zip(full.iter().rev())
                .all(|(&own, &full)| own == 1 || own == full);
        if !fits {
            let expected = format!("a shape that broadcasts to {full:?}");
            return Err(OpError::shape("attn_mask", expected, format!("{shape:?}")));
        }
        let strides = broadcast_strides(shape, &full);
        Ok([strides[0], strides[1], strides[2], strides[3]])
    }
}

/// `nonpad_kv_seqlen` as counts.
fn key_lengths(lengths: TensorView<'_>, sizes: Sizes) -> Result<Vec<usize>, OpError> {
    let lengths = lengths.to_i64s()?;
    if lengths.len() != sizes.batch {
        let found = format!("[{}]", lengths.len());
        return Err(OpError::shape(
            "nonpad_kv_seqlen",
            format!("[{}]", sizes.batch),
            found,
        ));
    }
    if let Some(negative) = lengths.iter().find(|&&n| n < 0) {
        return Err(OpError::value("nonpad_kv_seqlen", "at least 0", negative));
    }
    // They stay as they are where there are fewer keys: a query's position counts from them.
    Ok(lengths.iter().map(|&n| at_most(n)).collect())
}

/// Calls `work` with the values of a mask.
fn with_mask<R>(
    mask: Option<TensorView<'_>>,
    strides: [usize; 4],
    work: impl FnOnce(Option<MaskValues<'_>>) -> Result<R, OpError>,
) -> Result<R, OpError> {
    let Some(mask) = mask else { return work(None) };
    match mask.data_type() {
        DataType::Bool => work(Some(MaskValues::Keep(mask.as_slice()?, strides))),
        _ => with_f32(mask, |mask| work(Some(MaskValues::Add(mask, strides)))),
    }
}

/// Keys or values of this step.
struct New<'a> {
    tensor: TensorView<'a>,
    axes: Axes<usize>,
    strides: HeadStrides,
}

impl New<'_> {
    /// Calls `work` with the past and these joined, as f32, with the layout and the number of
    /// positions. `present` takes them in their own type, where it is wanted.
    fn with_past<R>(
        &self,
        name: &'static str,
        past: Option<TensorView<'_>>,
        present: Option<TensorViewMut<'_>>,
        work: impl FnOnce(&[f32], HeadStrides, usize) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        let new = &self.axes;
        if past.is_none() && present.is_none() {
            return with_f32(self.tensor, |x| work(x, self.strides, new.positions));
        }
        let past_positions = past.map_or(0, |past| past.shape().get(2).copied().unwrap_or(0));
        if let Some(past) = past {
            let expected = [new.batch, new.heads, past_positions, new.width];
            if past.shape() != expected || past.data_type() != self.tensor.data_type() {
                let found = format!("{:?} of {}", past.shape(), past.data_type());
                return Err(OpError::shape(name, format!("{expected:?}"), found));
            }
        }
        let total = past_positions + new.positions;
        let shape = [new.batch, new.heads, total, new.width];
        let element = self.tensor.data_type().bits() / 8;
        let strides = HeadStrides::heads_first(new.heads, total, new.width);
        let join = |bytes: &mut [u8]| {
            let past = past.map_or(&[][..], |past| past.bytes());
            let (past_len, row) = (past_positions * new.width * element, new.width * element);
            let head_len = total * row;
            if head_len == 0 {
                return;
            }
            for (i, to) in bytes.chunks_exact_mut(head_len).enumerate() {
                let (before, after) = to.split_at_mut(past_len);
                before.copy_from_slice(&past[i * past_len..][..past_len]);
                let start = i / new.heads * self.strides.batch + i % new.heads * self.strides.head;
                for (s, to) in after.chunks_exact_mut(row).enumerate() {
                    let from = (start + s * self.strides.position) * element;
                    to.copy_from_slice(&self.tensor.bytes()[from..][..row]);
                }
            }
        };
        let data_type = self.tensor.data_type();
        let read = |bytes: &[u8]| {
            let joined = TensorView::from_bytes(data_type, &shape, bytes);
            with_f32(joined, |x| work(x, strides, total))
        };
        match present {
            Some(mut present) => {
                join(present.bytes_mut());
                read(present.bytes_mut())
            }
            None => {
                let len: usize = shape.iter().product::<usize>() * element;
                scratch::with(len, |bytes: &mut [u8]| {
                    join(bytes);
                    read(bytes)
                })
            }
        }
    }
}
