use super::*;
use crate::isa::Numerics;
use crate::kernels::threads::Threads;
use crate::tensor::Bool;

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2654435761).wrapping_add(12345);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// The formula, in double precision, without blocks.
fn reference(job: &Attention<'_>, out_strides: HeadStrides, len: usize) -> Vec<f32> {
    let s = job.sizes;
    let mut out = vec![0f32; len];
    for b in 0..s.batch {
        for h in 0..s.heads {
            let kv = h / (s.heads / s.kv_heads);
            for i in 0..s.queries {
                let (first, end) = job.mask.visible.range(s, b, i);
                let q = &job.q.0[job.q.1.at(b, h, i)..][..s.width];
                let scores: Vec<f64> = (0..s.keys)
                    .map(|j| {
                        if j < first || j >= end {
                            return f64::NEG_INFINITY;
                        }
                        let k = &job.k.0[job.k.1.at(b, kv, j)..][..s.width];
                        let dot: f64 = q.iter().zip(k).map(|(a, b)| *a as f64 * *b as f64).sum();
                        let mut score = dot * job.scale as f64;
                        if let Some(cap) = job.softcap {
                            score = cap as f64 * (score / cap as f64).tanh();
                        }
                        match job.mask.values {
                            None => score,
                            Some(MaskValues::Keep(m, t)) => {
                                let at = b * t[0] + h * t[1] + i * t[2] + j * t[3];
                                if m[at].get() {
                                    score
                                } else {
                                    f64::NEG_INFINITY
                                }
                            }
                            Some(MaskValues::Add(m, t)) => {
                                score + m[b * t[0] + h * t[1] + i * t[2] + j * t[3]] as f64
                            }
                        }
                    })
                    .collect();
                let sink = job.sinks.map_or(f64::NEG_INFINITY, |s| s[h] as f64);
                let max = scores.iter().copied().fold(sink, f64::max);
                if max == f64::NEG_INFINITY {
                    continue;
                }
                let weights: Vec<f64> = scores.iter().map(|x| (x - max).exp()).collect();
                let sum: f64 = weights.iter().sum::<f64>() + (sink - max).exp();
                for d in 0..s.value_width {
                    let value: f64 = (0..s.keys)
                        .map(|j| weights[j] * job.v.0[job.v.1.at(b, kv, j) + d] as f64)
                        .sum();
                    out[out_strides.at(b, h, i) + d] = (value / sum) as f32;
                }
            }
        }
    }
    out
}

fn sizes(
    batch: usize,
    heads: [usize; 2],
    queries: usize,
    keys: usize,
    widths: [usize; 2],
) -> Sizes {
    Sizes {
        batch,
        heads: heads[0],
        kv_heads: heads[1],
        queries,
        keys,
        width: widths[0],
        value_width: widths[1],
    }
}

/// Runs the cases on every level, in both numerics and with threads; in reproducible mode all must
/// give the same bits.
fn check(name: &str, job: &Attention<'_>) {
    let s = job.sizes;
    let strides = HeadStrides::positions_first(s.heads, s.queries, s.value_width);
    let len = s.batch * s.heads * s.queries * s.value_width;
    let want = reference(job, strides, len);
    let mut bits: Option<Vec<f32>> = None;
    for level in Level::available() {
        for numerics in [Numerics::Fast, Numerics::Reproducible] {
            for threads in [1, 3] {
                let Ok(threads) = Threads::new(threads) else {
                    continue;
                };
                let env = Env {
                    level,
                    numerics,
                    threads,
                };
                let mut out = vec![f32::NAN; len];
                attention(&env, job, &mut out, strides);
                for (i, (x, want)) in out.iter().zip(&want).enumerate() {
                    assert!(
                        (x - want).abs() <= 2e-5,
                        "{name} {s:?} on {level} {numerics:?}: element {i} is {x}, not {want}"
                    );
                }
                if numerics == Numerics::Reproducible {
                    let first = bits.get_or_insert_with(|| out.clone());
                    let same = first
                        .iter()
                        .zip(&out)
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{name} {s:?}: other bits on {level}");
                }
            }
        }
    }
}

#[test]
fn attention_is_the_formula() {
    let cases = [
        sizes(1, [1, 1], 1, 1, [1, 1]),
        sizes(2, [3, 3], 5, 7, [8, 8]),
        sizes(1, [2, 1], 1, 300, [16, 24]),
        sizes(1, [4, 4], 33, 129, [20, 12]),
        sizes(2, [6, 2], 40, 260, [32, 32]),
        sizes(1, [8, 2], 2, 130, [8, 8]),
        sizes(1, [2, 2], 3, 0, [8, 8]),
        sizes(0, [2, 2], 3, 4, [8, 8]),
    ];
    for (n, s) in cases.into_iter().enumerate() {
        let q = numbers(s.batch * s.heads * s.queries * s.width, 1);
        let k = numbers(s.batch * s.kv_heads * s.keys * s.width, 2);
        let v = numbers(s.batch * s.kv_heads * s.keys * s.value_width, 3);
        let keep: Vec<Bool> = numbers(s.batch * s.queries * s.keys, 4)
            .into_iter()
            .map(|x| Bool::from(x > -0.5))
            .collect();
        let add = numbers(s.heads * s.queries * s.keys, 5);
        let padding: Vec<f32> = (0..s.batch * s.keys)
            .map(|i| if i % 5 == 1 { -1e4 } else { 0.0 })
            .collect();
        let lengths: Vec<usize> = (0..s.batch).map(|b| s.keys.saturating_sub(b)).collect();
        let sinks = numbers(s.heads, 6);
        let plain = Attention {
            sizes: s,
            q: (
                &q,
                HeadStrides::positions_first(s.heads, s.queries, s.width),
            ),
            k: (
                &k,
                HeadStrides::positions_first(s.kv_heads, s.keys, s.width),
            ),
            v: (
                &v,
                HeadStrides::heads_first(s.kv_heads, s.keys, s.value_width),
            ),
            scale: 0.7,
            softcap: None,
            mask: Mask::default(),
            sinks: None,
        };
        check("plain", &plain);
        let offset = s.keys as i64 - s.queries as i64;
        let visible = |ahead, behind, key_lengths| Visible {
            behind,
            ahead,
            offset,
            key_lengths,
        };
        let masks = [
            ("causal", visible(Some(0), None, None), None),
            ("window", visible(Some(0), Some(2), None), None),
            ("both sides", visible(Some(1), Some(2), None), None),
            (
                "any window",
                visible(Some(usize::MAX), Some(usize::MAX), None),
                None,
            ),
            (
                "lengths and a mask",
                visible(Some(1), Some(2), Some(&lengths[..])),
                Some(MaskValues::Add(&add, [0, s.queries * s.keys, s.keys, 1])),
            ),
            (
                "lengths",
                visible(Some(0), Some(139), Some(&lengths[..])),
                None,
            ),
            (
                "keep",
                visible(None, None, None),
                Some(MaskValues::Keep(&keep, [s.queries * s.keys, 0, s.keys, 1])),
            ),
            (
                "add",
                visible(Some(0), None, None),
                Some(MaskValues::Add(&add, [0, s.queries * s.keys, s.keys, 1])),
            ),
            (
                "padding",
                visible(None, None, None),
                Some(MaskValues::Add(&padding, [s.keys, 0, 0, 1])),
            ),
        ];
        for (name, visible, values) in masks {
            let mask = Mask { values, visible };
            check(name, &Attention { mask, ..plain });
            check(
                &format!("{name} with soft cap and sinks {n}"),
                &Attention {
                    mask,
                    softcap: Some(0.5),
                    sinks: Some(&sinks),
                    ..plain
                },
            );
        }
    }
}

#[test]
fn rows_that_see_nothing_are_zero() {
    let s = sizes(1, [1, 1], 6, 4, [4, 4]);
    let x = numbers(24, 7);
    let hidden = [Bool::from(false); 4];
    let layout = |n| HeadStrides::heads_first(1, n, 4);
    let job = Attention {
        sizes: s,
        q: (&x, layout(6)),
        k: (&x, layout(4)),
        v: (&x, layout(4)),
        scale: 1.0,
        softcap: None,
        mask: Mask {
            values: Some(MaskValues::Keep(&hidden, [0, 0, 0, 1])),
            visible: Visible::default(),
        },
        sinks: None,
    };
    check("nothing visible", &job);
}
