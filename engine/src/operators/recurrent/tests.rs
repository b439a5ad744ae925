use super::super::case::{Case, tensor};
use super::*;
use crate::operator::run_alone;
use crate::tensor::Value;

fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 37 + seed * 11) % 19) as f32 / 19.0 - 0.5)
        .collect();
    tensor(shape, &values)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn row(t: &Tensor, i: usize) -> &[f32] {
    let n = *t.shape().last().expect("a row");
    &t.as_slice::<f32>().expect("f32")[i * n..][..n]
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The formulas of the specification for one forward direction of one sequence: the state after
/// the last step.
fn reference_state(
    kind: Kind,
    x: &Tensor,
    w: &Tensor,
    r: &Tensor,
    b: &Tensor,
    reset_after: bool,
) -> Vec<f32> {
    let n = r.shape()[2];
    let gates = kind.gates();
    let bias = b.as_slice::<f32>().expect("f32");
    let (mut h, mut c) = (vec![0.0; n], vec![0.0; n]);
    for t in 0..x.shape()[0] {
        let input = |g: usize, i: usize| dot(row(w, g * n + i), row(x, t)) + bias[g * n + i];
        let state =
            |g: usize, i: usize, h: &[f32]| dot(row(r, g * n + i), h) + bias[(gates + g) * n + i];
        let before = h.clone();
        let sum = |g: usize, i: usize| input(g, i) + state(g, i, &before);
        for i in 0..n {
            match kind {
                Kind::Rnn => h[i] = sum(0, i).tanh(),
                Kind::Lstm => {
                    c[i] = sigmoid(sum(2, i)) * c[i] + sigmoid(sum(0, i)) * sum(3, i).tanh();
                    h[i] = sigmoid(sum(1, i)) * c[i].tanh();
                }
                Kind::Gru => {
                    let z = sigmoid(sum(0, i));
                    let new = match reset_after {
                        true => input(2, i) + sigmoid(sum(1, i)) * state(2, i, &before),
                        false => {
                            let reset: Vec<f32> =
                                (0..n).map(|j| sigmoid(sum(1, j)) * before[j]).collect();
                            input(2, i) + state(2, i, &reset)
                        }
                    };
                    h[i] = (1.0 - z) * new.tanh() + z * before[i];
                }
            }
        }
    }
    h
}

fn close(found: &[f32], expected: &[f32], case: &str) {
    assert_eq!(found.len(), expected.len(), "{case}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 1e-5, "{case}: {found:?} and {expected:?}");
    }
}

#[test]
fn layers_follow_their_formulas_with_and_without_packed_weights() {
    let env = Env::default();
    for (kind, reset_after) in [
        (Kind::Lstm, false),
        (Kind::Gru, false),
        (Kind::Gru, true),
        (Kind::Rnn, false),
    ] {
        let (steps, input, n, gates) = (4, 3, 5, kind.gates());
        let x = numbers(&[steps, 1, input], 1);
        let w = numbers(&[1, gates * n, input], 2);
        let r = numbers(&[1, gates * n, n], 3);
        let b = numbers(&[1, 2 * gates * n], 4);
        let mut node = Attributes::new(14, 2);
        node.insert(
            "linear_before_reset",
            crate::graph::attributes::Attribute::Int(reset_after.into()),
        );
        let layer = Recurrent::parse_kind(&node, kind).expect("valid");
        let expected = reference_state(kind, &x, &w, &r, &b, reset_after);
        let inputs: Vec<Option<Value>> = [&x, &w, &r, &b].map(|t| Some(t.clone().into())).to_vec();
        let found = run_alone(&layer, &env, &inputs, 2).expect("fits");
        let last = |found: &[Option<Value>]| {
            let h = found[1]
                .as_ref()
                .expect("wanted")
                .as_tensor()
                .expect("a tensor")
                .clone();
            h.as_slice::<f32>().expect("f32").to_vec()
        };
        close(&last(&found), &expected, &format!("{kind:?} {reset_after}"));
        let prepared = layer
            .prepare(&[None, Some(&w), Some(&r)], &env)
            .expect("packs")
            .expect("constants");
        let mut left = inputs;
        (left[1], left[2]) = (None, None);
        let packed = run_alone(&*prepared.operator, &env, &left, 2).expect("fits");
        close(
            &last(&packed),
            &expected,
            &format!("packed {kind:?} {reset_after}"),
        );
    }
}

#[test]
fn reverse_walks_each_sequence_from_its_end() {
    let (input, n) = (2, 3);
    let (w, r) = (numbers(&[1, n, input], 2), numbers(&[1, n, n], 3));
    let x = numbers(&[4, 1, input], 5);
    // A sequence of length 2, reversed by hand.
    let values = x.as_slice::<f32>().expect("f32");
    let turned = tensor(&[2, 1, input], &[&values[2..4], &values[..2]].concat());
    let forward = Case::of("RNN", 14)
        .outputs(2)
        .tensors(&[turned, w.clone(), r.clone()])
        .expect("fits");
    let inputs = [
        Some(x.into()),
        Some(w.into()),
        Some(r.into()),
        None,
        Some(tensor(&[1], &[2i32]).into()),
    ];
    let reverse = Case::of("RNN", 14)
        .text("direction", "reverse")
        .outputs(2)
        .run(&inputs)
        .expect("fits");
    let tensors: Vec<&Tensor> = reverse
        .iter()
        .map(|v| v.as_tensor().expect("a tensor"))
        .collect();
    assert_eq!(tensors[1], &forward[1]);
    assert_eq!(row(tensors[0], 0), row(&forward[0], 1));
    assert_eq!(row(tensors[0], 1), row(&forward[0], 0));
    assert_eq!(row(tensors[0], 2), [0.0; 3], "beyond the end");
}

#[test]
fn hostile_shapes_and_lengths_are_errors() {
    let case = Case::of("LSTM", 14).int("hidden_size", 2);
    let x = numbers(&[1, 1, 3], 1);
    let (w, r) = (numbers(&[1, 8, 3], 2), numbers(&[1, 8, 2], 3));
    assert!(case.one(&[x.clone(), w.clone(), r.clone()]).is_ok());
    assert!(case.one(&[x.clone(), r.clone(), w.clone()]).is_err());
    assert!(
        case.clone()
            .int("hidden_size", i64::MAX)
            .one(&[x.clone(), w.clone(), r.clone()])
            .is_err()
    );
    for length in [-1, 2] {
        let lens = tensor(&[1], &[length]);
        let inputs = [
            Some(x.clone().into()),
            Some(w.clone().into()),
            Some(r.clone().into()),
            None,
            Some(lens.into()),
        ];
        assert!(case.run(&inputs).is_err(), "length {length}");
    }
    assert!(
        case.clone()
            .text("direction", "sideways")
            .one(&[x, w, r])
            .is_err()
    );
}
