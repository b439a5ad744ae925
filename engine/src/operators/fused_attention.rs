//! `ai.lethe.FusedAttention`: attention as exporters spell it out, of which rewrites make one node.
//!
//! ```text
//! scores = scale · Q Kᵀ + mask       weights = softmax(scores)       Y = weights · V
//! ```
//! Shapes: `Q: [B, H, Sq, D]`, `K: [B, H, T, D]`, `V: [B, H, T, E]`, each `[B, S, H, ..]` where
//! `positions_first` says so for it, `mask` of up to four axes → `Y: [B, H, Sq, E]`, or likewise.
//! As products and sums that are spelled out do, batches, heads, queries and what is added to the
//! keys broadcast, whichever operand has the 1. Types: f32; f16 and bf16, computed in f32.
//!
//! A query whose scores are no basis for weights (all of them −∞, one of them NaN or ∞) gets what
//! the softmax has there, NaN; with `nan_as_zero` it gets weights of zero, as from
//! `Where(IsNaN(weights), 0, weights)`.

use super::broadcasting::{broadcast_dims, broadcast_strides};
use super::element_types::F32_LIKE;
use super::widened::{with_f32, with_optional_f32, write_f32};
use crate::error::OpError;
use crate::graph::dimension::{display_dims, known_dims, known_shape};
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::attention::{
    Attention as Job, HeadStrides, Mask, MaskValues, Sizes, Visible, attention,
};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};

/// The operator with its attributes.
#[derive(Debug)]
pub(super) struct FusedAttention {
    scale: f32,
    /// Of Q, K, V and Y.
    positions_first: [bool; 4],
    nan_as_zero: bool,
}

/// The sizes that operands broadcast to.
struct Shapes {
    /// `[B, H, Sq, T]`
    scores: Dims,
    /// The size of a value.
    value_width: Dim,
}

impl FusedAttention {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let mut positions_first = [false; 4];
        let layouts = node.optional_ints("positions_first")?.unwrap_or(&[]);
        for (to, from) in positions_first.iter_mut().zip(layouts) {
            *to = *from != 0;
        }
        Ok(Self {
            scale: node.float_or("scale", 1.0)?,
            positions_first,
            nan_as_zero: node.flag_or("nan_as_zero", false)?,
        })
    }

    /// Axes of Q, K or V with the heads before the positions.
    fn heads_first(&self, i: usize, dims: &[Dim]) -> Result<[Dim; 4], OpError> {
        const NAMES: [&str; 3] = ["Q", "K", "V"];
        let [batch, a, b, width] = dims else {
            let found = display_dims(Some(dims));
            return Err(OpError::shape(NAMES[i], "4 axes", found));
        };
        let (heads, positions) = match self.positions_first[i] {
            true => (b, a),
            false => (a, b),
        };
        Ok([batch, heads, positions, width].map(Clone::clone))
    }

    fn shapes(&self, operands: [&[Dim]; 3], mask: Option<&[Dim]>) -> Result<Shapes, OpError> {
        let fail = || {
            let expected = "one width of queries and keys, as many values as scores of a query, and \
                            other axes that broadcast";
            let all = operands.into_iter().chain(mask);
            let found: Vec<String> = all.map(|dims| display_dims(Some(dims))).collect();
            OpError::shape("Q, K, V and mask", expected, found.join(", "))
        };
        let differ =
            |a: &Dim, b: &Dim| matches!((a.known(), b.known()), (Some(a), Some(b)) if a != b);
        let [qb, qh, queries, width] = self.heads_first(0, operands[0])?;
        let [kb, kh, keys, key_width] = self.heads_first(1, operands[1])?;
        let [vb, vh, values, value_width] = self.heads_first(2, operands[2])?;
        let one = Dim::Known(1);
        let q = [qb, qh, queries, one.clone()];
        let k = [kb, kh, one.clone(), keys];
        let scores = broadcast_dims(&[&q, &k, mask.unwrap_or(&[])]).map_err(|_| fail())?;
        if scores.len() != 4 || differ(&width, &key_width) || differ(&scores[3], &values) {
            return Err(fail());
        }
        let v = [vb, vh, one.clone(), one];
        let scores = broadcast_dims(&[&scores, &v]).map_err(|_| fail())?;
        Ok(Shapes {
            scores,
            value_width,
        })
    }

    /// Strides of Q, K, V or Y, zero along the axes on which it broadcasts.
    fn strides(&self, i: usize, [batch, heads, positions, width]: [usize; 4]) -> HeadStrides {
        let full = match self.positions_first[i] {
            true => HeadStrides::positions_first(heads, positions, width),
            false => HeadStrides::heads_first(heads, positions, width),
        };
        let unless_one = |size, stride| if size == 1 { 0 } else { stride };
        HeadStrides {
            batch: unless_one(batch, full.batch),
            head: unless_one(heads, full.head),
            position: unless_one(positions, full.position),
        }
    }
}

impl Operator for FusedAttention {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "Q", F32_LIKE)?;
        for (i, name) in [(1, "K"), (2, "V")] {
            inputs.data_type_of(i, name, &[data_type])?;
        }
        if inputs.optional(3).is_some() {
            inputs.data_type_of(3, "mask", &[data_type])?;
        }
        let dims = |i, name| Ok::<_, OpError>(inputs.required(i, name)?.dims);
        let mask = inputs.optional(3).map(|mask| mask.dims);
        let (Some(q), Some(k), Some(v), true) = (
            dims(0, "Q")?,
            dims(1, "K")?,
            dims(2, "V")?,
            mask != Some(None),
        ) else {
            let dims = Dims::from_elem(Dim::Unknown, 4);
            return Ok(OutputInfo::tensor(data_type, dims).into());
        };
        let Shapes {
            mut scores,
            value_width,
        } = self.shapes([q, k, v], mask.flatten())?;
        scores[3] = value_width;
        if self.positions_first[3] {
            scores.swap(1, 2);
        }
        Ok(OutputInfo::tensor(data_type, scores).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, mask) = (ctx.env, ctx.optional_input(3)?);
        let operands = [ctx.input(0, "Q")?, ctx.input(1, "K")?, ctx.input(2, "V")?];
        let [q, k, v] = operands.map(|view| known_dims(view.shape()));
        let mask_dims = mask.map(|mask| known_dims(mask.shape()));
        let Shapes { scores, .. } = self.shapes([&q, &k, &v], mask_dims.as_deref())?;
        let own = |i: usize, dims: &Dims| -> Result<[usize; 4], OpError> {
            let sizes = self.heads_first(i, dims)?;
            Ok(sizes.map(|size| size.known().unwrap_or(0)))
        };
        let (of_q, of_k, of_v) = (own(0, &q)?, own(1, &k)?, own(2, &v)?);
        let full = known_shape(&scores).unwrap_or_default();
        let sizes = Sizes {
            batch: full[0],
            heads: full[1],
            // Heads that are one for all queries are read once.
            kv_heads: if of_k[1] == 1 && of_v[1] == 1 {
                1
            } else {
                full[1]
            },
            queries: full[2],
            keys: full[3],
            width: of_q[3],
            value_width: of_v[3],
        };
        let mut y = ctx.output(0)?;
        if y.shape().contains(&0) {
            return Ok(());
        }
        let of_y = [sizes.batch, sizes.heads, sizes.queries, sizes.value_width];
        let y_strides = self.strides(3, of_y);
        let mask_strides = mask.map(|mask| {
            let strides = broadcast_strides(mask.shape(), &full);
            [strides[0], strides[1], strides[2], strides[3]]
        });
        let [q, k, v] = operands;
        with_f32(q, |q| {
            with_f32(k, |k| {
                with_f32(v, |v| {
                    with_optional_f32(mask, |mask| {
                        write_f32(&mut y, |y| {
                            let values = mask_strides.map(|s| MaskValues::Add(mask, s));
                            let job = Job {
                                sizes,
                                q: (q, self.strides(0, of_q)),
                                k: (k, self.strides(1, of_k)),
                                v: (v, self.strides(2, of_v)),
                                scale: self.scale,
                                softcap: None,
                                mask: Mask {
                                    values,
                                    visible: Visible::default(),
                                },
                                sinks: None,
                            };
                            attention(env, &job, y, y_strides);
                            self.finish(&Rows(&job), y, y_strides);
                            Ok(())
                        })
                    })
                })
            })
        })
    }
}

impl FusedAttention {
    /// Gives the queries without weights what is theirs: the kernel gives zeros where all scores are
    /// −∞, and NaN where one is none.
    fn finish(&self, rows: &Rows<'_>, y: &mut [f32], strides: HeadStrides) {
        let s = rows.0.sizes;
        for batch in 0..s.batch {
            for head in 0..s.heads {
                for query in 0..s.queries {
                    let at = at(strides, batch, head, query);
                    let y = &mut y[at..at + s.value_width];
                    if self.nan_as_zero {
                        if y.iter().any(|y| y.is_nan()) && rows.have_no_weights(batch, head, query)
                        {
                            rows.values_times_zero(batch, head, y);
                        }
                    } else if y.iter().all(|&y| y == 0.0 || y.is_nan())
                        && rows.is_hidden(batch, head, query)
                    {
                        y.fill(f32::NAN);
                    }
                }
            }
        }
    }
}

/// The rows of scores, one number after the other: for the few that are out of the ordinary.
struct Rows<'a>(&'a Job<'a>);

impl Rows<'_> {
    fn scores(&self, batch: usize, head: usize, query: usize) -> impl Iterator<Item = f32> {
        let job = self.0;
        let s = job.sizes;
        let q = &job.q.0[at(job.q.1, batch, head, query)..][..s.width];
        (0..s.keys).map(move |key| {
            let k = &job.k.0[at(job.k.1, batch, self.kv_head(head), key)..][..s.width];
            let product: f32 = q.iter().zip(k).map(|(q, k)| q * job.scale * k).sum();
            match job.mask.values {
                Some(MaskValues::Add(mask, strides)) => {
                    let [b, h, q, k] = strides;
                    product + mask[batch * b + head * h + query * q + key * k]
                }
                _ => product,
            }
        })
    }

    fn kv_head(&self, head: usize) -> usize {
        head / (self.0.sizes.heads / self.0.sizes.kv_heads)
    }

    /// Whether there are keys and every score is −∞.
    fn is_hidden(&self, batch: usize, head: usize, query: usize) -> bool {
        let mut scores = self.scores(batch, head, query).peekable();
        scores.peek().is_some() && scores.all(|score| score == f32::NEG_INFINITY)
    }

    /// Whether the softmax of the scores is NaN.
    fn have_no_weights(&self, batch: usize, head: usize, query: usize) -> bool {
        let mut scores = self.scores(batch, head, query);
        scores.any(|score| score.is_nan() || score == f32::INFINITY)
            || self.is_hidden(batch, head, query)
    }

    /// What weights of zero give: zeros, and NaN where a value is not finite.
    fn values_times_zero(&self, batch: usize, head: usize, y: &mut [f32]) {
        let (v, strides) = self.0.v;
        y.fill(0.0);
        for key in 0..self.0.sizes.keys {
            let v = &v[at(strides, batch, self.kv_head(head), key)..];
            y.iter_mut().zip(v).for_each(|(y, v)| *y += 0.0 * v);
        }
    }
}

/// Where the vector of a position begins.
fn at(strides: HeadStrides, batch: usize, head: usize, position: usize) -> usize {
    batch * strides.batch + head * strides.head + position * strides.position
}
