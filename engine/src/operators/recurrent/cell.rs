//! One step of each kind of recurrent layer.

use super::activation::GateActivation;
use crate::kernels::env::Env;
use crate::kernels::gemm::{Epilogue, Gemm as Product, Left, MatrixRef, Right, gemm};

/// The kinds of recurrent layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Gates in the order input, output, forget, cell.
    Lstm,
    /// Gates in the order update, reset, hidden.
    Gru,
    /// One gate.
    Rnn,
}

impl Kind {
    /// Number of gates.
    pub(super) fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
            Self::Rnn => 1,
        }
    }

    /// Number of activations of a direction.
    pub(super) fn activations(self) -> usize {
        match self {
            Self::Lstm => 3,
            Self::Gru => 2,
            Self::Rnn => 1,
        }
    }

    /// Gates in each product with the state: a GRU whose reset comes before the product needs two.
    pub(super) fn recurrent_pieces(self, linear_before_reset: bool) -> &'static [usize] {
        match (self, linear_before_reset) {
            (Self::Lstm, _) => &[4],
            (Self::Gru, true) => &[3],
            (Self::Gru, false) => &[2, 1],
            (Self::Rnn, _) => &[1],
        }
    }
}

/// The weights and functions of one direction.
pub(super) struct Cell<'a> {
    pub(super) kind: Kind,
    pub(super) activations: &'a [GateActivation],
    pub(super) clip: Option<f32>,
    pub(super) input_forget: bool,
    pub(super) linear_before_reset: bool,
    pub(super) hidden: usize,
    pub(super) recurrent: [Option<Right<'a>>; 2],
    pub(super) recurrent_bias: Option<&'a [f32]>,
    pub(super) peepholes: Option<&'a [f32]>,
}

/// The states and gates of all sequences of a batch.
pub(super) struct StepBuffers<'a> {
    /// `[batch, gates · hidden]`
    pub(super) gates: &'a mut [f32],
    /// The state's part of the gates where it is kept apart.
    product: &'a mut [f32],
    /// `[batch, hidden]`
    pub(super) h: &'a mut [f32],
    /// `[batch, hidden]`
    pub(super) c: &'a mut [f32],
    /// `[batch, hidden]`
    work: &'a mut [f32],
}

impl<'a> StepBuffers<'a> {
    /// Divides memory for `2 · batch · rows` gates and `3 · batch · hidden` states.
    pub(super) fn new(
        gates: &'a mut [f32],
        states: &'a mut [f32],
        batch: usize,
        rows: usize,
        hidden: usize,
    ) -> Self {
        let (gates, product) = gates.split_at_mut(batch * rows);
        let (h, rest) = states.split_at_mut(batch * hidden);
        let (c, work) = rest.split_at_mut(batch * hidden);
        Self {
            gates,
            product,
            h,
            c,
            work,
        }
    }
}

impl Cell<'_> {
    /// What is added to the gates whatever the state: both biases, but for the hidden gate of a
    /// GRU whose reset scales the recurrent one.
    pub(super) fn input_bias(&self, bias: Option<&[f32]>, sum: &mut [f32]) {
        let Some(bias) = bias else {
            return sum.fill(0.0);
        };
        let rows = sum.len();
        let apart = match self.kind == Kind::Gru && self.linear_before_reset {
            true => 2 * self.hidden,
            false => rows,
        };
        for (i, sum) in sum.iter_mut().enumerate() {
            *sum = bias[i] + if i < apart { bias[rows + i] } else { 0.0 };
        }
    }

    /// Takes one step: `buffers.gates` holds the input's part of the gates. Sequences that are
    /// over keep their states.
    pub(super) fn step(
        &self,
        env: &Env,
        buffers: &mut StepBuffers<'_>,
        goes_on: impl Fn(usize) -> bool,
    ) {
        match self.kind {
            Kind::Lstm => self.lstm(env, buffers, goes_on),
            Kind::Gru => self.gru(env, buffers, goes_on),
            Kind::Rnn => self.rnn(env, buffers, goes_on),
        }
    }

    /// `to += state · piece`, or `to = …`; `to` has rows of `row_stride` elements.
    fn product(
        &self,
        env: &Env,
        piece: usize,
        state: &[f32],
        to: &mut [f32],
        row_stride: usize,
        accumulate: bool,
    ) {
        let Some(weights) = self.recurrent[piece] else {
            return;
        };
        let batch = state.len() / self.hidden.max(1);
        gemm(
            env,
            Product {
                a: Left::Plain(MatrixRef::new(state, batch, self.hidden)),
                b: weights,
                c: to,
                c_row_stride: row_stride,
                accumulate,
                epilogue: Epilogue::default(),
            },
        );
    }

    fn clip(&self, gates: &mut [f32]) {
        if let Some(clip) = self.clip {
            gates.iter_mut().for_each(|x| *x = x.max(-clip).min(clip));
        }
    }

    fn lstm(&self, env: &Env, buffers: &mut StepBuffers<'_>, goes_on: impl Fn(usize) -> bool) {
        let n = self.hidden;
        self.product(env, 0, buffers.h, buffers.gates, 4 * n, true);
        let rows = buffers.gates.chunks_exact_mut((4 * n).max(1));
        let states = buffers
            .h
            .chunks_exact_mut(n.max(1))
            .zip(buffers.c.chunks_exact_mut(n.max(1)));
        for (b, (gates, (h, c))) in rows.zip(states).enumerate() {
            if !goes_on(b) {
                continue;
            }
            let [f, g, last] = [0, 1, 2].map(|i| self.activations[i]);
            let (input, rest) = gates.split_at_mut(n);
            let (output, rest) = rest.split_at_mut(n);
            let (forget, candidate) = rest.split_at_mut(n);
            if let Some(p) = self.peepholes {
                add_product(input, &p[..n], c);
                add_product(forget, &p[2 * n..], c);
            }
            for gate in [&mut *input, &mut *forget, &mut *candidate] {
                self.clip(gate);
            }
            f.apply(env, input);
            match self.input_forget {
                true => forget
                    .iter_mut()
                    .zip(&*input)
                    .for_each(|(f, i)| *f = 1.0 - i),
                false => f.apply(env, forget),
            }
            g.apply(env, candidate);
            for (((c, f), i), g) in c.iter_mut().zip(&*forget).zip(&*input).zip(&*candidate) {
                *c = f * *c + i * g;
            }
            if let Some(p) = self.peepholes {
                add_product(output, &p[n..2 * n], c);
            }
            self.clip(output);
            f.apply(env, output);
            h.copy_from_slice(c);
            last.apply(env, h);
            h.iter_mut().zip(&*output).for_each(|(h, o)| *h *= o);
        }
    }

    fn gru(&self, env: &Env, buffers: &mut StepBuffers<'_>, goes_on: impl Fn(usize) -> bool) {
        let n = self.hidden;
        let [f, g] = [0, 1].map(|i| self.activations[i]);
        let row = (3 * n).max(1);
        match self.linear_before_reset {
            true => self.product(env, 0, buffers.h, buffers.product, 3 * n, false),
            false => self.product(env, 0, buffers.h, buffers.gates, 3 * n, true),
        }
        let rows = buffers
            .gates
            .chunks_exact_mut(row)
            .zip(buffers.product.chunks_exact_mut(row));
        let states = buffers
            .h
            .chunks_exact(n.max(1))
            .zip(buffers.work.chunks_exact_mut(n.max(1)));
        for ((gates, product), (h, reset_h)) in rows.zip(states) {
            let (update_reset, hidden) = gates.split_at_mut(2 * n);
            if self.linear_before_reset {
                update_reset
                    .iter_mut()
                    .zip(&*product)
                    .for_each(|(x, p)| *x += p);
            }
            self.clip(update_reset);
            f.apply(env, update_reset);
            let reset = &update_reset[n..];
            if self.linear_before_reset {
                for i in 0..n {
                    let bias = self.recurrent_bias.map_or(0.0, |b| b[2 * n + i]);
                    hidden[i] += reset[i] * (product[2 * n + i] + bias);
                }
            } else {
                for ((to, r), h) in reset_h.iter_mut().zip(reset).zip(h) {
                    *to = r * h;
                }
            }
        }
        if !self.linear_before_reset && !buffers.gates.is_empty() {
            self.product(
                env,
                1,
                buffers.work,
                &mut buffers.gates[2 * n..],
                3 * n,
                true,
            );
        }
        let rows = buffers.gates.chunks_exact_mut(row);
        for (b, (gates, h)) in rows.zip(buffers.h.chunks_exact_mut(n.max(1))).enumerate() {
            if !goes_on(b) {
                continue;
            }
            let (update_reset, hidden) = gates.split_at_mut(2 * n);
            self.clip(hidden);
            g.apply(env, hidden);
            for ((h, z), new) in h.iter_mut().zip(&update_reset[..n]).zip(&*hidden) {
                *h = (1.0 - z) * new + z * *h;
            }
        }
    }

    fn rnn(&self, env: &Env, buffers: &mut StepBuffers<'_>, goes_on: impl Fn(usize) -> bool) {
        let n = self.hidden;
        self.product(env, 0, buffers.h, buffers.gates, n, true);
        self.clip(buffers.gates);
        self.activations[0].apply(env, buffers.gates);
        let rows = buffers.gates.chunks_exact(n.max(1));
        for (b, (gates, h)) in rows.zip(buffers.h.chunks_exact_mut(n.max(1))).enumerate() {
            if goes_on(b) {
                h.copy_from_slice(gates);
            }
        }
    }
}

/// `to += a · b`, element by element.
fn add_product(to: &mut [f32], a: &[f32], b: &[f32]) {
    for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
        *to += a * b;
    }
}
