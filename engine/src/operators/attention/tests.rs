use super::super::case::{Case, tensor};
use crate::error::OpError;
use crate::graph::attributes::Attribute;
use crate::tensor::{Bool, Tensor, Value};

fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 29 + seed * 17) % 23) as f32 / 11.0 - 1.0)
        .collect();
    tensor(shape, &values)
}

fn close(a: &Value, b: &Value) -> bool {
    let (a, b) = (
        a.as_tensor().expect("a tensor"),
        b.as_tensor().expect("a tensor"),
    );
    let pairs = a
        .as_slice::<f32>()
        .expect("f32")
        .iter()
        .zip(b.as_slice::<f32>().expect("f32"));
    a.shape() == b.shape() && pairs.clone().all(|(a, b)| (a - b).abs() < 1e-5)
}

/// Decoding with a cache gives what the last row of the whole sequence gives.
#[test]
fn a_step_with_the_past_is_the_last_row() {
    let (q, k, v) = (
        numbers(&[2, 4, 5, 8], 1),
        numbers(&[2, 2, 5, 8], 2),
        numbers(&[2, 2, 5, 8], 3),
    );
    let part = |t: &Tensor, from: usize, to: usize| {
        let slice = Case::of("Slice", 13);
        let bounds = [from, to, 2].map(|i| tensor(&[1], &[i as i64]));
        slice
            .one(&[vec![t.clone()], bounds.to_vec()].concat())
            .expect("slices")
    };
    let whole = Case::of("Attention", 23).int("is_causal", 1);
    let whole = whole
        .one(&[q.clone(), k.clone(), v.clone()])
        .expect("attends");
    let step = Case::of("Attention", 23).int("is_causal", 1).outputs(3);
    let inputs = [
        Some(part(&q, 4, 5).into()),
        Some(part(&k, 4, 5).into()),
        Some(part(&v, 4, 5).into()),
        None,
        Some(part(&k, 0, 4).into()),
        Some(part(&v, 0, 4).into()),
    ];
    let outputs = step.run(&inputs).expect("attends");
    assert!(close(&outputs[0], &part(&whole, 4, 5).into()));
    assert!(close(&outputs[1], &k.into()));
    assert!(close(&outputs[2], &v.into()));
}

/// The same numbers in three axes and in four.
#[test]
fn layouts_agree() {
    let flat = [
        numbers(&[2, 5, 24], 1),
        numbers(&[2, 7, 24], 2),
        numbers(&[2, 7, 24], 3),
    ];
    let keep: Vec<Bool> = (0..35).map(|i| Bool::from(i % 4 != 1)).collect();
    let mask = tensor(&[5, 7], &keep);
    let three = Case::of("Attention", 24)
        .int("q_num_heads", 3)
        .int("kv_num_heads", 3);
    let three = three
        .one(&[flat.to_vec(), vec![mask.clone()]].concat())
        .expect("attends");
    let split = |t: &Tensor| {
        t.reshaped(&[2, t.shape()[1], 3, 8])
            .expect("as many elements")
    };
    let apart: Vec<Tensor> = flat.iter().map(split).collect();
    let swap = |t: &Tensor| {
        Case::of("Transpose", 13)
            .ints("perm", &[0, 2, 1, 3])
            .one(std::slice::from_ref(t))
    };
    let four: Vec<Tensor> = apart.iter().map(|t| swap(t).expect("transposes")).collect();
    let found = Case::of("Attention", 23)
        .one(&[four, vec![mask]].concat())
        .expect("attends");
    assert!(close(
        &swap(&found).expect("transposes").into(),
        &split(&three).into()
    ));
}

#[test]
fn what_does_not_fit_is_rejected() {
    let q = numbers(&[1, 2, 3, 4], 1);
    let case = Case::of("Attention", 23);
    for other in [&[1, 2, 3, 5][..], &[2, 2, 3, 4], &[1, 3, 3, 4]] {
        let k = numbers(other, 2);
        let found = case.one(&[q.clone(), k.clone(), k]);
        assert!(
            matches!(found, Err(OpError::Shape { .. })),
            "{other:?}: {found:?}"
        );
    }
    let mask = numbers(&[2, 3], 3);
    let found = case.one(&[q.clone(), q.clone(), q, mask]);
    assert!(matches!(found, Err(OpError::Shape { .. })), "{found:?}");
}

/// One attention of the standard, of `[1, H, S, D]` operands but for the batches that lengths tell apart.
#[derive(Debug, Clone, Default)]
struct Formula {
    causal: bool,
    left: Option<i64>,
    right: Option<i64>,
    softcap: f32,
    past: usize,
    lengths: Option<Vec<i64>>,
    /// `[queries, keys]`, of fewer keys than there are or as many.
    mask: Option<(usize, Mask)>,
}

#[derive(Debug, Clone)]
enum Mask {
    Keep(Vec<bool>),
    Add(Vec<f32>),
}

const BATCH: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const WIDTH: usize = 3;

impl Formula {
    /// Whether a key is visible by position, as the standard's text has it.
    fn sees(&self, batch: usize, query: usize, queries: usize, key: usize) -> bool {
        let offset = match &self.lengths {
            Some(lengths) => lengths[batch] - queries as i64,
            None => self.past as i64,
        };
        let (position, key) = (query as i64 + offset, key as i64);
        let valid = self.lengths.as_ref().is_none_or(|l| key < l[batch]);
        let causal = !self.causal || key <= position;
        let left = self.left.is_none_or(|left| position - key <= left);
        let right = self.right.is_none_or(|right| key - position <= right);
        valid && causal && left && right
    }

    fn bias(&self, query: usize, key: usize) -> f64 {
        let hidden = f64::NEG_INFINITY;
        match &self.mask {
            None => 0.0,
            Some((keys, _)) if key >= *keys => hidden,
            Some((keys, Mask::Add(add))) => add[query * keys + key].into(),
            Some((keys, Mask::Keep(keep))) if keep[query * keys + key] => 0.0,
            Some(_) => hidden,
        }
    }

    /// The output and the scores of a mode.
    fn reference(&self, q: &Tensor, k: &Tensor, v: &Tensor, mode: i64) -> (Vec<f32>, Vec<f32>) {
        let (queries, keys) = (q.shape()[2], k.shape()[2]);
        let [q, k, v] = [q, k, v].map(|t| t.as_slice::<f32>().expect("f32"));
        let (mut y, mut all) = (Vec::new(), Vec::new());
        for row in 0..BATCH * HEADS * queries {
            let (b, h, i) = (row / queries / HEADS, row / queries % HEADS, row % queries);
            let of = |s: usize| ((b * KV_HEADS + h / (HEADS / KV_HEADS)) * keys + s) * WIDTH;
            let (mut scores, mut masked) = (Vec::new(), Vec::new());
            let mut any = false;
            for j in 0..keys {
                let dot: f64 = (0..WIDTH)
                    .map(|d| f64::from(q[row * WIDTH + d]) * f64::from(k[of(j) + d]))
                    .sum();
                let product = dot / (WIDTH as f64).sqrt();
                let cap = f64::from(self.softcap);
                let capped = match cap > 0.0 {
                    true => cap * (product / cap).tanh(),
                    false => product,
                };
                let bias = match self.sees(b, i, queries, j) {
                    true => self.bias(i, j),
                    false => f64::NEG_INFINITY,
                };
                any |= bias != f64::NEG_INFINITY;
                masked.push(capped + bias);
                scores.push([product, capped, capped + bias]);
            }
            let max = masked.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = masked.iter().map(|x| (x - max).exp()).sum();
            let weight = |x: f64| if any { (x - max).exp() / sum } else { 0.0 };
            for d in 0..WIDTH {
                let weighted = (0..keys).map(|j| weight(masked[j]) * f64::from(v[of(j) + d]));
                y.push(weighted.sum::<f64>() as f32);
            }
            for (j, score) in scores.iter().enumerate() {
                all.push(match mode {
                    3 => weight(masked[j]),
                    mode => score[mode as usize],
                } as f32);
            }
        }
        (y, all)
    }

    fn check(&self, queries: usize, keys: usize) {
        let q = numbers(&[BATCH, HEADS, queries, WIDTH], 1);
        let k = numbers(&[BATCH, KV_HEADS, keys, WIDTH], 2);
        let v = numbers(&[BATCH, KV_HEADS, keys, WIDTH], 3);
        let slice = |t: &Tensor, from: usize, to: usize| {
            let bounds = [from, to, 2].map(|i| tensor(&[1], &[i as i64]));
            let inputs = [vec![t.clone()], bounds.to_vec()].concat();
            Case::of("Slice", 13).one(&inputs).expect("slices")
        };
        let mask = self.mask.as_ref().map(|(keys, mask)| match mask {
            Mask::Add(add) => tensor(&[queries, *keys], add),
            Mask::Keep(keep) => {
                let keep: Vec<Bool> = keep.iter().map(|&keep| Bool::from(keep)).collect();
                tensor(&[queries, *keys], &keep)
            }
        });
        let past = |t| (self.past > 0).then(|| slice(t, 0, self.past).into());
        let lengths = self.lengths.as_ref().map(|l| tensor(&[l.len()], l));
        let inputs: Vec<Option<Value>> = vec![
            Some(q.clone().into()),
            Some(slice(&k, self.past, keys).into()),
            Some(slice(&v, self.past, keys).into()),
            mask.map(Value::from),
            past(&k),
            past(&v),
            lengths.map(Value::from),
        ];
        for mode in 0..4 {
            let case = Case::of("Attention", 25)
                .int("is_causal", self.causal.into())
                .int("left_window_size", self.left.unwrap_or(-1))
                .int("right_window_size", self.right.unwrap_or(-1))
                .int("qk_matmul_output_mode", mode)
                .with("softcap", Attribute::Float(self.softcap))
                .outputs(4);
            let outputs = case.run_as_it_is(&inputs).expect("attends");
            let (y, scores) = self.reference(&q, &k, &v, mode);
            let expected = tensor(&[BATCH, HEADS, queries, WIDTH], &y);
            assert!(close(&outputs[0], &expected.into()), "{self:?}: {y:?}");
            let found = outputs[3].as_tensor().expect("a tensor");
            assert_eq!(found.shape(), [BATCH, HEADS, queries, keys]);
            let found = found.as_slice::<f32>().expect("f32");
            let alike = |(a, b): (&f32, &f32)| a == b || (a - b).abs() < 1e-5;
            let same = found.iter().zip(&scores).all(alike);
            assert!(same, "{self:?}, mode {mode}: {found:?}, not {scores:?}");
        }
    }
}

/// Causal, windows, lengths, masks and what they are together; several rows and one.
#[test]
fn what_a_query_sees_is_what_the_standard_says() {
    let plain = Formula::default();
    let add = |queries: usize, keys: usize| {
        let add = (0..queries * keys).map(|i| if i % 5 == 1 { f32::NEG_INFINITY } else { 0.3 });
        Some((keys, Mask::Add(add.collect())))
    };
    let keep = |queries: usize, keys: usize| {
        let keep = (0..queries * keys).map(|i| i % 4 != 2 && i >= keys);
        Some((keys, Mask::Keep(keep.collect())))
    };
    for (queries, keys) in [(5, 7), (1, 6), (3, 2)] {
        let ends = [keys as i64 - 1, queries as i64 + 1, 0, keys as i64];
        for causal in [false, true] {
            for (left, right) in [
                (None, None),
                (Some(2), None),
                (None, Some(1)),
                (Some(1), Some(0)),
                (Some(i64::MAX), Some(1 << 32)),
                (Some(0), Some(i64::MAX)),
            ] {
                let seen = Formula {
                    causal,
                    left,
                    right,
                    ..plain.clone()
                };
                seen.check(queries, keys);
                for lengths in [[ends[0], ends[1]], [ends[2], ends[3]], [2, 2]] {
                    let lengths = Some(lengths.map(|n| n.min(keys as i64)).to_vec());
                    Formula {
                        lengths: lengths.clone(),
                        ..seen.clone()
                    }
                    .check(queries, keys);
                    let mask = add(queries, keys);
                    Formula {
                        lengths,
                        mask,
                        ..seen.clone()
                    }
                    .check(queries, keys);
                }
                let past = keys.saturating_sub(queries).min(keys - 1);
                Formula {
                    past,
                    softcap: 0.4,
                    ..seen.clone()
                }
                .check(queries, keys);
                for few in [1, keys - 1, keys] {
                    Formula {
                        mask: keep(queries, few),
                        ..seen.clone()
                    }
                    .check(queries, keys);
                    Formula {
                        mask: add(queries, few),
                        ..seen.clone()
                    }
                    .check(queries, keys);
                }
            }
        }
    }
}

#[test]
fn what_attention_cannot_do_is_refused_by_name() {
    let case = |opset| Case::of("Attention", opset);
    let q: Tensor = numbers(&[1, 2, 3, 4], 1);
    let three = [q.clone(), q.clone(), q.clone()];
    let refused = |case: Case| case.one(&three).expect_err("refused").to_string();
    for (case, expected) in [
        (
            case(25).int("left_window_size", -2),
            "attribute left_window_size: expected -1 or more, found -2",
        ),
        (
            case(24).int("left_window_size", 2),
            "attribute left_window_size is unknown: it is of opset 25 and later (opsets are known up to 28)",
        ),
        (
            case(23).int("qk_matmul_output_mode", 4),
            "attribute qk_matmul_output_mode: expected 0, 1, 2 or 3, found 4",
        ),
        (
            case(23).int("softmax_precision", 7),
            "attribute softmax_precision: expected a type of floats, found int64",
        ),
    ] {
        assert_eq!(refused(case), expected);
    }
    let lengths = tensor(&[1], &[3i64]);
    let inputs = [&three[..], &[numbers(&[2], 1), q.clone(), q, lengths]].concat();
    let found = case(24).one(&inputs).expect_err("refused").to_string();
    assert!(found.contains("nonpad_kv_seqlen"), "{found}");
}
