//! `LSTM`, `GRU` and `RNN`: layers that carry a state from one step of a sequence to the next.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__LSTM.html>, `GRU` and `RNN`; opsets 1 to 22
//! (`layout` since 14).
//! Shapes, with `D` directions and `G` gates (4, 3, 1): `X: [seq, batch, input]`,
//! `W: [D, G·hidden, input]`, `R: [D, G·hidden, hidden]`, `B: [D, 2·G·hidden]`,
//! `sequence_lens: [batch]`, `initial_h` and `initial_c: [D, batch, hidden]`, `P: [D, 3·hidden]` →
//! `Y: [seq, D, batch, hidden]`, `Y_h` and `Y_c: [D, batch, hidden]`; with `layout` 1 the batch
//! comes first. Types: f32; f16 and bf16, computed in f32.
//!
//! ```text
//! for each direction:
//!     inputs[t, b] = W · X[t, b] + W_bias + R_bias              one matrix product
//!     for each step: gates = inputs[t] + R · H                  a product for each step
//!                    H, C = cell(gates, H, C)
//! ```

mod activation;
mod cell;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

use self::activation::GateActivation;
pub(super) use self::cell::Kind;
use self::cell::{Cell, StepBuffers};
use super::matmul::constant_floats;
use crate::error::OpError;
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::env::Env;
use crate::kernels::gemm::{
    Bias, Epilogue, Gemm as Product, Left, MatrixRef, PackedB, Right, gemm,
};
use crate::kernels::half_precision::Real;
use crate::kernels::scratch;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, Prepared, RunContext};
use crate::tensor::{DataType, Tensor, TensorView};

const TYPES: &[DataType] = &[DataType::Float32, DataType::Float16, DataType::Bfloat16];

/// Which way a direction walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    Forward,
    Reverse,
}

/// A recurrent layer.
#[derive(Debug)]
pub(super) struct Recurrent {
    kind: Kind,
    walks: Vec<Walk>,
    /// Three for each direction.
    activations: Vec<GateActivation>,
    clip: Option<f32>,
    hidden: Option<usize>,
    batch_first: bool,
    input_forget: bool,
    linear_before_reset: bool,
    weights: Option<Vec<PackedDirection>>,
}

/// `LSTM`.
pub(super) struct Lstm;
/// `GRU`.
pub(super) struct Gru;
/// `RNN`.
pub(super) struct Rnn;

/// Constant weights of one direction.
#[derive(Debug)]
struct PackedDirection {
    input: PackedB,
    /// The recurrent weights, in as many pieces as [`Kind::recurrent_pieces`] says.
    recurrent: Vec<PackedB>,
}

impl Recurrent {
    fn parse_kind(node: &Attributes, kind: Kind) -> Result<Self, OpError> {
        let walks = match node.string_or("direction", "forward")? {
            "forward" => vec![Walk::Forward],
            "reverse" => vec![Walk::Reverse],
            "bidirectional" => vec![Walk::Forward, Walk::Reverse],
            other => {
                return Err(OpError::Attribute {
                    name: "direction".into(),
                    expected: "forward, reverse or bidirectional".into(),
                    found: other.into(),
                });
            }
        };
        let hidden = match node.optional_int("hidden_size")? {
            None => None,
            Some(&n) => Some(
                usize::try_from(n).map_err(|_| OpError::value("hidden_size", "at least 0", n))?,
            ),
        };
        Ok(Self {
            kind,
            activations: activation::parse(node, kind, walks.len())?,
            walks,
            clip: node.optional_float("clip")?.copied(),
            hidden,
            batch_first: node.flag_or("layout", false)?,
            input_forget: node.flag_or("input_forget", false)?,
            linear_before_reset: node.flag_or("linear_before_reset", false)?,
            weights: None,
        })
    }
}

impl Lstm {
    pub(super) fn parse(node: &Attributes) -> Result<Recurrent, OpError> {
        Recurrent::parse_kind(node, Kind::Lstm)
    }
}

impl Gru {
    pub(super) fn parse(node: &Attributes) -> Result<Recurrent, OpError> {
        Recurrent::parse_kind(node, Kind::Gru)
    }
}

impl Rnn {
    pub(super) fn parse(node: &Attributes) -> Result<Recurrent, OpError> {
        Recurrent::parse_kind(node, Kind::Rnn)
    }
}

/// The sizes of one run.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    directions: usize,
}

/// The inputs as f32.
struct Inputs<'a> {
    x: &'a [f32],
    w: &'a [f32],
    r: &'a [f32],
    bias: Option<&'a [f32]>,
    initial_h: Option<&'a [f32]>,
    initial_c: Option<&'a [f32]>,
    peepholes: Option<&'a [f32]>,
}

/// The outputs as f32, as far as they are wanted.
struct Outputs<'a> {
    y: Option<&'a mut [f32]>,
    last_h: Option<&'a mut [f32]>,
    last_c: Option<&'a mut [f32]>,
}

impl Recurrent {
    /// Checks every shape against the others.
    fn sizes<'s>(&self, shape: impl Fn(usize) -> Option<&'s [usize]>) -> Result<Sizes, OpError> {
        let directions = self.walks.len();
        let wrong = |name: &str, expected: String, found: &[usize]| {
            OpError::shape(name, expected, format!("{found:?}"))
        };
        let x = shape(0).unwrap_or(&[]);
        let [first, second, input] = *x else {
            return Err(wrong("X", "3 axes".into(), x));
        };
        let (steps, batch) = if self.batch_first {
            (second, first)
        } else {
            (first, second)
        };
        let gates = self.kind.gates();
        let r = shape(2);
        let hidden = match (self.hidden, r) {
            (Some(hidden), _) => hidden,
            (None, Some(&[_, _, hidden])) => hidden,
            _ => return Err(wrong("R", "3 axes".into(), r.unwrap_or(&[]))),
        };
        let sizes = Sizes {
            steps,
            batch,
            input,
            hidden,
            directions,
        };
        let state = match self.batch_first {
            true => vec![batch, directions, hidden],
            false => vec![directions, batch, hidden],
        };
        let rows = gates.saturating_mul(hidden);
        let expected: [(usize, &str, Vec<usize>); 7] = [
            (1, "W", vec![directions, rows, input]),
            (2, "R", vec![directions, rows, hidden]),
            (3, "B", vec![directions, rows.saturating_mul(2)]),
            (4, "sequence_lens", vec![batch]),
            (5, "initial_h", state.clone()),
            (6, "initial_c", state),
            (7, "P", vec![directions, hidden.saturating_mul(3)]),
        ];
        for (i, name, expected) in &expected {
            if *i > 5 && self.kind != Kind::Lstm {
                continue;
            }
            if let Some(found) = shape(*i)
                && found != expected
            {
                return Err(wrong(name, format!("{expected:?}"), found));
            }
        }
        Ok(sizes)
    }

    fn layer(
        &self,
        env: &Env,
        sizes: Sizes,
        inputs: &Inputs<'_>,
        lengths: &[usize],
        mut outputs: Outputs<'_>,
    ) {
        let Sizes {
            steps,
            batch,
            input,
            hidden,
            directions,
        } = sizes;
        let rows = self.kind.gates() * hidden;
        if let Some(y) = &mut outputs.y {
            y.fill(0.0);
        }
        // Where a state of direction d and batch b lies in the tensors of states.
        let state_at = |d: usize, b: usize| match self.batch_first {
            true => (b * directions + d) * hidden,
            false => (d * batch + b) * hidden,
        };
        let x_row = |t: usize, b: usize| {
            if self.batch_first {
                b * steps + t
            } else {
                t * batch + b
            }
        };
        let y_at = |t: usize, d: usize, b: usize| match self.batch_first {
            true => ((b * steps + t) * directions + d) * hidden,
            false => ((t * directions + d) * batch + b) * hidden,
        };
        let lens = [
            steps * batch * rows,
            rows,
            2 * batch * rows,
            3 * batch * hidden,
        ];
        scratch::with(lens.iter().sum(), |memory: &mut [f32]| {
            let (projected, rest) = memory.split_at_mut(lens[0]);
            let (bias, rest) = rest.split_at_mut(lens[1]);
            let (gates, states) = rest.split_at_mut(lens[2]);
            for (d, &walk) in self.walks.iter().enumerate() {
                let direction_bias = inputs.bias.map(|b| &b[d * 2 * rows..][..2 * rows]);
                let cell = Cell {
                    kind: self.kind,
                    activations: &self.activations[3 * d..3 * d + 3],
                    clip: self.clip,
                    input_forget: self.input_forget,
                    linear_before_reset: self.linear_before_reset,
                    hidden,
                    recurrent: self.recurrent(d, rows, hidden, inputs.r),
                    recurrent_bias: direction_bias.map(|b| &b[rows..]),
                    peepholes: inputs.peepholes.map(|p| &p[d * 3 * hidden..][..3 * hidden]),
                };
                cell.input_bias(direction_bias, bias);
                let w = match &self.weights {
                    Some(weights) => Right::Packed(weights[d].input.view()),
                    None => {
                        let w = &inputs.w[d * rows * input..][..rows * input];
                        Right::Plain(MatrixRef::strided(w, input, rows, 1, input))
                    }
                };
                let x = Left::Plain(MatrixRef::new(inputs.x, steps * batch, input));
                let epilogue = Epilogue {
                    bias: Bias::PerColumn(bias),
                    ..Epilogue::default()
                };
                let projection = Product {
                    a: x,
                    b: w,
                    c: &mut *projected,
                    c_row_stride: rows,
                    accumulate: false,
                    epilogue,
                };
                gemm(env, projection);
                let mut buffers = StepBuffers::new(gates, states, batch, rows, hidden);
                for b in 0..batch {
                    let row = b * hidden..(b + 1) * hidden;
                    let initial = |from: Option<&[f32]>, to: &mut [f32]| match from {
                        Some(from) => to.copy_from_slice(&from[state_at(d, b)..][..hidden]),
                        None => to.fill(0.0),
                    };
                    initial(inputs.initial_h, &mut buffers.h[row.clone()]);
                    initial(inputs.initial_c, &mut buffers.c[row]);
                }
                for step in 0..steps {
                    let time = |b: usize| match walk {
                        _ if step >= lengths[b] => None,
                        Walk::Forward => Some(step),
                        Walk::Reverse => Some(lengths[b] - 1 - step),
                    };
                    for b in 0..batch {
                        let row = time(b).map_or(0, |t| x_row(t, b)) * rows;
                        buffers.gates[b * rows..][..rows]
                            .copy_from_slice(&projected[row..row + rows]);
                    }
                    cell.step(env, &mut buffers, |b| time(b).is_some());
                    let Some(y) = &mut outputs.y else { continue };
                    for b in 0..batch {
                        if let Some(t) = time(b) {
                            y[y_at(t, d, b)..][..hidden]
                                .copy_from_slice(&buffers.h[b * hidden..][..hidden]);
                        }
                    }
                }
                for b in 0..batch {
                    let row = b * hidden..(b + 1) * hidden;
                    if let Some(h) = &mut outputs.last_h {
                        h[state_at(d, b)..][..hidden].copy_from_slice(&buffers.h[row.clone()]);
                    }
                    if let Some(c) = &mut outputs.last_c {
                        c[state_at(d, b)..][..hidden].copy_from_slice(&buffers.c[row]);
                    }
                }
            }
        });
    }

    /// The recurrent weights of a direction, transposed, in pieces.
    fn recurrent<'a>(
        &'a self,
        direction: usize,
        rows: usize,
        hidden: usize,
        r: &'a [f32],
    ) -> [Option<Right<'a>>; 2] {
        if let Some(weights) = &self.weights {
            let mut pieces = weights[direction].recurrent.iter();
            return [(); 2].map(|()| pieces.next().map(|p| Right::Packed(p.view())));
        }
        let r = &r[direction * rows * hidden..][..rows * hidden];
        let mut start = 0;
        let mut pieces = self.kind.recurrent_pieces(self.linear_before_reset).iter();
        [(); 2].map(|()| {
            let columns = pieces.next()? * hidden;
            let piece = &r[start * hidden..][..columns * hidden];
            start += columns;
            Some(Right::Plain(MatrixRef::strided(
                piece, hidden, columns, 1, hidden,
            )))
        })
    }

    fn typed<T: Real>(
        &self,
        ctx: &mut RunContext<'_>,
        sizes: Sizes,
        lengths: &[usize],
    ) -> Result<(), OpError> {
        let env = ctx.env;
        let mut views: [Option<TensorView<'_>>; 7] = [None; 7];
        for (view, i) in views.iter_mut().zip([0, 1, 2, 3, 5, 6, 7]) {
            *view = ctx.optional_input(i)?;
        }
        let mut outputs = [0, 1, 2].map(|i| ctx.optional_output(i));
        let mut slices: [Option<&mut [T]>; 3] = [None, None, None];
        for (slice, view) in slices.iter_mut().zip(&mut outputs) {
            *slice = match view {
                Some(view) => Some(view.as_mut_slice()?),
                None => None,
            };
        }
        let input_len: usize = views.iter().flatten().map(|v| v.len()).sum();
        let output_len: usize = slices.iter().flatten().map(|s| s.len()).sum();
        // f32 is read and written where it is.
        let widen = T::as_f32(&[]).is_none();
        scratch::with(
            if widen { input_len + output_len } else { 0 },
            |memory: &mut [f32]| {
                let mut rest = memory;
                let mut floats: [Option<&[f32]>; 7] = [None; 7];
                for (floats, view) in floats.iter_mut().zip(&views) {
                    let Some(view) = view else { continue };
                    let elements = view.as_slice::<T>()?;
                    *floats = Some(match T::as_f32(elements) {
                        Some(elements) => elements,
                        None => {
                            let (part, tail) = rest.split_at_mut(elements.len());
                            T::widen(elements, part);
                            rest = tail;
                            part
                        }
                    });
                }
                let [x, w, r, bias, initial_h, initial_c, peepholes] = floats;
                let inputs = Inputs {
                    x: x.unwrap_or(&[]),
                    w: w.unwrap_or(&[]),
                    r: r.unwrap_or(&[]),
                    bias,
                    initial_h,
                    initial_c,
                    peepholes,
                };
                if !widen {
                    let [y, last_h, last_c] = slices.map(|s| s.and_then(T::as_f32_mut));
                    self.layer(env, sizes, &inputs, lengths, Outputs { y, last_h, last_c });
                    return Ok(());
                }
                let mut wide: [Option<&mut [f32]>; 3] = [None, None, None];
                for (wide, slice) in wide.iter_mut().zip(&slices) {
                    let Some(slice) = slice else { continue };
                    let (part, tail) = rest.split_at_mut(slice.len());
                    *wide = Some(part);
                    rest = tail;
                }
                let [y, last_h, last_c] = &mut wide;
                let outputs = Outputs {
                    y: y.as_deref_mut(),
                    last_h: last_h.as_deref_mut(),
                    last_c: last_c.as_deref_mut(),
                };
                self.layer(env, sizes, &inputs, lengths, outputs);
                for (slice, wide) in slices.iter_mut().zip(&wide) {
                    if let (Some(slice), Some(wide)) = (slice, wide) {
                        T::narrow(wide, slice);
                    }
                }
                Ok(())
            },
        )
    }
}

impl Operator for Recurrent {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", TYPES)?;
        let x = inputs.with_rank(0, "X", 3)?;
        for (i, name) in [(1, "W"), (2, "R")] {
            if self.weights.is_none() {
                inputs.with_rank(i, name, 3)?;
            }
        }
        for i in [1, 2, 3, 5, 6, 7] {
            if inputs.optional(i).is_some() {
                inputs.data_type_of(i, "W, R, B, initial_h, initial_c, P", &[data_type])?;
            }
        }
        if inputs.optional(4).is_some() {
            inputs.data_type_of(4, "sequence_lens", &[DataType::Int32])?;
        }
        let shapes: Vec<_> = (0..8)
            .map(|i| inputs.optional(i).and_then(|v| v.shape()))
            .collect();
        if shapes[0].is_some()
            && (self.weights.is_some() || shapes[1].is_some() && shapes[2].is_some())
        {
            self.sizes(|i| shapes[i].as_deref())?;
        }
        let axis = |i: usize| x.dims.map_or(Dim::Unknown, |d| d[i].clone());
        let (steps, batch) = match self.batch_first {
            true => (axis(1), axis(0)),
            false => (axis(0), axis(1)),
        };
        let r = inputs.optional(2).and_then(|r| r.dims);
        let hidden = match self.hidden {
            Some(hidden) => Dim::Known(hidden),
            None => r.map_or(Dim::Unknown, |d| d[2].clone()),
        };
        let directions = Dim::Known(self.walks.len());
        let (y, state) = match self.batch_first {
            true => (
                vec![batch.clone(), steps, directions.clone(), hidden.clone()],
                vec![batch, directions, hidden],
            ),
            false => (
                vec![steps, directions.clone(), batch.clone(), hidden.clone()],
                vec![directions, batch, hidden],
            ),
        };
        let info = |dims: Vec<Dim>| OutputInfo::tensor(data_type, Dims::from_vec(dims));
        Ok([info(y), info(state.clone()), info(state)]
            .into_iter()
            .take(inputs.output_count().max(1))
            .collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let views: Vec<Option<TensorView<'_>>> = (0..8)
            .map(|i| ctx.optional_input(i))
            .collect::<Result<_, _>>()?;
        let sizes = self.sizes(|i| views[i].map(|v| v.shape()))?;
        let lengths: smallvec::SmallVec<[usize; 8]> = match views[4] {
            None => smallvec::SmallVec::from_elem(sizes.steps, sizes.batch),
            Some(view) => {
                let length = |&n: &i32| usize::try_from(n).ok().filter(|&n| n <= sizes.steps);
                let lengths = view.as_slice::<i32>()?;
                let known: Option<_> = lengths.iter().map(length).collect();
                known.ok_or_else(|| {
                    let expected = format!("lengths from 0 to {}", sizes.steps);
                    OpError::value("sequence_lens", expected, format!("{lengths:?}"))
                })?
            }
        };
        match ctx.input_type(0, "X")? {
            DataType::Float16 => self.typed::<f16>(ctx, sizes, &lengths),
            DataType::Bfloat16 => self.typed::<bf16>(ctx, sizes, &lengths),
            _ => self.typed::<f32>(ctx, sizes, &lengths),
        }
    }

    fn prepare(
        &self,
        constants: &[Option<&Tensor>],
        env: &Env,
    ) -> Result<Option<Prepared>, OpError> {
        let (Some(Some(w)), Some(Some(r))) = (constants.get(1), constants.get(2)) else {
            return Ok(None);
        };
        let directions = self.walks.len();
        let (&[w_directions, rows, input], &[r_directions, r_rows, hidden]) =
            (w.shape(), r.shape())
        else {
            return Ok(None);
        };
        let fits = [w_directions, r_directions] == [directions; 2]
            && rows == r_rows
            && rows == self.kind.gates() * hidden
            && self.hidden.is_none_or(|n| n == hidden)
            && TYPES.contains(&w.data_type())
            && w.data_type() == r.data_type();
        if !fits || self.weights.is_some() {
            // What does not fit is named by `infer`.
            return Ok(None);
        }
        let (w, r) = (constant_floats(w)?, constant_floats(r)?);
        let (w, r): (&[f32], &[f32]) = (bytemuck::cast_slice(&w), bytemuck::cast_slice(&r));
        let transposed = |part: &[f32], k: usize| {
            let columns = part.len() / k.max(1);
            PackedB::pack(env.level, MatrixRef::strided(part, k, columns, 1, k))
        };
        let pack = |d: usize| {
            let r = &r[d * rows * hidden..][..rows * hidden];
            let mut start = 0;
            let piece = |gates: &usize| {
                let part = &r[start..][..gates * hidden * hidden];
                start += part.len();
                transposed(part, hidden)
            };
            PackedDirection {
                input: transposed(&w[d * rows * input..][..rows * input], input),
                recurrent: self
                    .kind
                    .recurrent_pieces(self.linear_before_reset)
                    .iter()
                    .map(piece)
                    .collect(),
            }
        };
        if input == 0 || hidden == 0 {
            return Ok(None);
        }
        let operator = Self {
            weights: Some((0..directions).map(pack).collect()),
            hidden: Some(hidden),
            walks: self.walks.clone(),
            activations: self.activations.clone(),
            ..*self
        };
        Ok(Some(Prepared {
            operator: Box::new(operator),
            consumed: [1, 2].into_iter().collect(),
        }))
    }
}
