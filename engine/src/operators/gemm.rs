//! `Gemm`: `Y = alpha · A · B + beta · C`.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Gemm.html>, opsets 1 to 13 (`C` optional since 11).
//! Shapes: `A: [M, K]` (`[K, M]` where `transA`), `B: [K, N]` (`[N, K]` where `transB`), `C`
//! broadcasts to `[M, N]` → `Y: [M, N]`. Types: as `MatMul`.
//!
//! `ai.lethe.FusedGemm` adds a `residual: [M, N]` as fourth input and an activation.

use half::{bf16, f16};

use super::broadcasting::broadcast_strides;
use super::fused::AfterSum;
use super::matmul::{constant_floats, pack, sums_in_f32};
use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::isa::{Isa, Kernel};
use crate::kernels::env::Env;
use crate::kernels::gemm::{
    Activation, Bias, Epilogue, Gemm as Product, Left, MatrixRef, PackedB, Right, gemm,
};
use crate::kernels::half_precision::Real;
use crate::kernels::plain_product::{self, Factor};
use crate::kernels::scratch;
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, Prepared, RunContext};
use crate::tensor::{DataType, Tensor, TensorView, TensorViewMut};

/// The operator and its fused form.
#[derive(Debug)]
pub(super) struct Gemm {
    transposed: (bool, bool),
    alpha: f32,
    beta: f32,
    after: AfterSum,
    weights: Option<Weights>,
}

/// `ai.lethe.FusedGemm`.
pub(super) struct FusedGemm;

/// Constant inputs.
#[derive(Debug)]
struct Weights {
    packed: PackedB,
    /// `beta · C`, where that is one number a column.
    bias: Option<Box<[f32]>>,
}

const TYPES: &[DataType] = &[
    DataType::Float32,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Float64,
    DataType::Int32,
    DataType::Int64,
    DataType::Uint32,
    DataType::Uint64,
];

impl Gemm {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            transposed: (
                node.flag_or("transA", false)?,
                node.flag_or("transB", false)?,
            ),
            alpha: node.float_or("alpha", 1.0)?,
            beta: node.float_or("beta", 1.0)?,
            after: AfterSum::default(),
            weights: None,
        })
    }

    /// `[M, N]` and K of the operands' shapes; checks C.
    fn sizes(&self, a: &[usize], b: Option<&[usize]>) -> Result<(usize, usize, usize), OpError> {
        let b_rows_columns = match (&self.weights, b) {
            (Some(weights), _) => Some((weights.packed.view().k(), weights.packed.view().n())),
            (None, Some(&[rows, columns])) if self.transposed.1 => Some((columns, rows)),
            (None, Some(&[rows, columns])) => Some((rows, columns)),
            _ => None,
        };
        let a_rows_columns = match *a {
            [rows, columns] if self.transposed.0 => Some((columns, rows)),
            [rows, columns] => Some((rows, columns)),
            _ => None,
        };
        match (a_rows_columns, b_rows_columns) {
            (Some((m, k)), Some((b_k, n))) if k == b_k => Ok((m, k, n)),
            (_, b_sizes) => Err(OpError::shape(
                "A and B",
                "two matrices with one K",
                format!("{a:?} and {:?}, transposed {:?}", b_sizes, self.transposed),
            )),
        }
    }
}

impl FusedGemm {
    pub(super) fn parse(node: &Attributes) -> Result<Gemm, OpError> {
        Ok(Gemm {
            after: AfterSum::parse(node)?,
            ..Gemm::parse(node)?
        })
    }
}

/// Checks that a shape broadcasts to `[m, n]` and gives its strides.
fn addend_strides(shape: &[usize], m: usize, n: usize) -> Result<(usize, usize), OpError> {
    let to = [m, n];
    let fits = shape.len() <= 2
        && shape
            .iter()
            .rev()
            .zip(to.iter().rev())
            .all(|(&s, &t)| s == 1 || s == t);
    if !fits {
        let expected = format!("a shape that broadcasts to [{m}, {n}]");
        return Err(OpError::shape("C", expected, format!("{shape:?}")));
    }
    let strides = broadcast_strides(shape, &to);
    Ok((strides[0], strides[1]))
}

/// The addend as f32 with its strides.
type Addend<'a> = (&'a [f32], (usize, usize));

impl Gemm {
    fn floats(
        &self,
        env: &Env,
        (m, k, n): (usize, usize, usize),
        a: &[f32],
        b: &[f32],
        addend: Option<Addend<'_>>,
        residual: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let a = match self.transposed.0 {
            false => MatrixRef::strided(a, m, k, k, 1),
            true => MatrixRef::strided(a, m, k, 1, m),
        };
        let b = match (&self.weights, self.transposed.1) {
            (Some(weights), _) => Right::Packed(weights.packed.view()),
            (None, false) => Right::Plain(MatrixRef::strided(b, k, n, n, 1)),
            (None, true) => Right::Plain(MatrixRef::strided(b, k, n, 1, k)),
        };
        let addend = addend.filter(|_| self.beta != 0.0);
        let mut epilogue = Epilogue {
            alpha: self.alpha,
            bias: Bias::None,
            residual,
            activation: self.after.inline,
        };
        let mut later = None;
        match (
            self.weights.as_ref().and_then(|w| w.bias.as_deref()),
            addend,
        ) {
            (Some(bias), _) => epilogue.bias = Bias::PerColumn(bias),
            (None, None) => {}
            (None, Some((c, (0, 1)))) if self.beta == 1.0 => epilogue.bias = Bias::PerColumn(c),
            (None, Some((c, (1, 0)))) if self.beta == 1.0 => epilogue.bias = Bias::PerRow(c),
            (None, Some(addend)) => {
                // Added in a pass of its own, and what follows comes after it.
                epilogue.residual = None;
                epilogue.activation = Activation::None;
                later = Some(addend);
            }
        }
        let a = Left::Plain(a);
        gemm(
            env,
            Product {
                a,
                b,
                c: y,
                c_row_stride: n,
                accumulate: false,
                epilogue,
            },
        );
        let Some((c, strides)) = later else {
            return;
        };
        for (i, y) in y.iter_mut().enumerate() {
            *y += self.beta * c[i / n * strides.0 + i % n * strides.1];
        }
        if let Some(residual) = residual {
            y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
        }
        if self.after.inline != Activation::None {
            env.dispatch(Activate(self.after.inline, y));
        }
    }

    fn halves<T: Real>(
        &self,
        ctx: &mut RunContext<'_>,
        sizes: (usize, usize, usize),
    ) -> Result<(), OpError> {
        let widened = |view: Option<TensorView<'_>>| -> Result<Vec<f32>, OpError> {
            let Some(view) = view else {
                return Ok(Vec::new());
            };
            let mut floats = limits::zeroed(view.len());
            T::widen(view.as_slice()?, &mut floats);
            Ok(floats)
        };
        let a = ctx.input(0, "A")?.as_slice::<T>()?;
        let b: &[T] = match &self.weights {
            Some(_) => &[],
            None => ctx.input(1, "B")?.as_slice()?,
        };
        let (c, residual) = (ctx.optional_input(2)?, ctx.optional_input(3)?);
        let (c_floats, residual_floats) = (widened(c)?, widened(residual)?);
        let strides = c
            .map(|c| addend_strides(c.shape(), sizes.0, sizes.2))
            .transpose()?;
        let addend = strides.map(|strides| (c_floats.as_slice(), strides));
        let residual = residual.map(|_| residual_floats.as_slice());
        let env = ctx.env;
        let mut output = ctx.output(0)?;
        let y = output.as_mut_slice::<T>()?;
        scratch::with(a.len() + b.len() + y.len(), |floats: &mut [f32]| {
            let (wide_a, rest) = floats.split_at_mut(a.len());
            let (wide_b, wide_y) = rest.split_at_mut(b.len());
            T::widen(a, wide_a);
            T::widen(b, wide_b);
            self.floats(env, sizes, wide_a, wide_b, addend, residual, wide_y);
            T::narrow(wide_y, y);
        });
        Ok(())
    }

    fn plain<T: Factor>(
        &self,
        (m, k, n): (usize, usize, usize),
        ctx: &RunContext<'_>,
        output: &mut TensorViewMut<'_>,
        scaled: impl Fn(T, T) -> T,
    ) -> Result<(), OpError> {
        let strides = |t, rows, columns| if t { (1, rows) } else { (columns, 1) };
        let a = plain_product::Matrix {
            data: ctx.input(0, "A")?.as_slice::<T>()?,
            strides: strides(self.transposed.0, m, k),
        };
        let b = plain_product::Matrix {
            data: ctx.input(1, "B")?.as_slice::<T>()?,
            strides: strides(self.transposed.1, k, n),
        };
        let y = output.as_mut_slice::<T>()?;
        plain_product::multiply(a, b, k, n, y);
        let c = ctx.optional_input(2)?;
        let residual = ctx.optional_input(3)?;
        let residual = residual.map(|r| r.as_slice::<T>()).transpose()?;
        let strides = c.map(|c| addend_strides(c.shape(), m, n)).transpose()?;
        let addend = match (c, strides) {
            (Some(c), Some(strides)) => Some((c.as_slice::<T>()?, strides)),
            _ => None,
        };
        for (i, y) in y.iter_mut().enumerate() {
            let c = addend.map_or(T::default(), |(c, s)| c[i / n * s.0 + i % n * s.1]);
            *y = scaled(*y, c);
            if let Some(residual) = residual {
                *y = y.plus(residual[i]);
            }
            if !self.after.is_none() {
                *y = y.through_double(|x| self.after.double(x));
            }
        }
        Ok(())
    }
}

/// Applies an activation to every element.
struct Activate<'a>(Activation, &'a mut [f32]);

impl Kernel for Activate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.apply_slice(isa, self.1);
    }
}

impl Operator for Gemm {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "A", TYPES)?;
        let a = inputs.with_rank(0, "A", 2)?;
        let b = match &self.weights {
            Some(_) => None,
            None => {
                inputs.data_type_of(1, "B", &[data_type])?;
                inputs.with_rank(1, "B", 2)?.dims
            }
        };
        let pick = |dims: Option<&[Dim]>, i: usize| match dims {
            Some(dims) => dims.get(i).cloned().unwrap_or(Dim::Unknown),
            None => Dim::Unknown,
        };
        let m = pick(a.dims, usize::from(self.transposed.0));
        let n = match &self.weights {
            Some(weights) => Dim::Known(weights.packed.view().n()),
            None => pick(b, usize::from(!self.transposed.1)),
        };
        let b_shape = b.and_then(crate::graph::dimension::known_shape);
        if let Some(a) = a.shape()
            && (self.weights.is_some() || b_shape.is_some())
        {
            self.sizes(&a, b_shape.as_deref())?;
        }
        if let (Some(c), Dim::Known(m), Dim::Known(n)) =
            (inputs.optional(2).and_then(|c| c.shape()), &m, &n)
        {
            addend_strides(&c, *m, *n)?;
        }
        if let (Some(residual), Dim::Known(m), Dim::Known(n)) =
            (inputs.optional(3).and_then(|r| r.shape()), &m, &n)
            && residual[..] != [*m, *n]
        {
            return Err(OpError::shape(
                "residual",
                format!("[{m}, {n}]"),
                format!("{residual:?}"),
            ));
        }
        Ok(OutputInfo::tensor(data_type, [m, n].into_iter().collect()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let data_type = ctx.input_type(0, "A")?;
        let b_shape = match &self.weights {
            Some(_) => None,
            None => Some(ctx.input_shape(1, "B")?),
        };
        let sizes = self.sizes(ctx.input_shape(0, "A")?, b_shape)?;
        match data_type {
            DataType::Float32 => {
                let a = ctx.input(0, "A")?.as_slice()?;
                let b = match &self.weights {
                    Some(_) => &[][..],
                    None => ctx.input(1, "B")?.as_slice()?,
                };
                let addend = match ctx.optional_input(2)? {
                    Some(c) => Some((c.as_slice()?, addend_strides(c.shape(), sizes.0, sizes.2)?)),
                    None => None,
                };
                let residual = ctx.optional_input(3)?.map(|r| r.as_slice()).transpose()?;
                let mut output = ctx.output(0)?;
                self.floats(
                    ctx.env,
                    sizes,
                    a,
                    b,
                    addend,
                    residual,
                    output.as_mut_slice()?,
                );
                Ok(())
            }
            DataType::Float16 => self.halves::<f16>(ctx, sizes),
            DataType::Bfloat16 => self.halves::<bf16>(ctx, sizes),
            other => {
                let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
                let mut y = ctx.output(0)?;
                macro_rules! integers {
                    ($t:ty) => {{
                        let scale = |x: $t, by: f64| match by == 1.0 {
                            true => x,
                            false => (x as f64 * by) as $t,
                        };
                        let scaled = |y, c| scale(y, alpha).wrapping_add(scale(c, beta));
                        self.plain::<$t>(sizes, ctx, &mut y, scaled)
                    }};
                }
                match other {
                    DataType::Float64 => {
                        self.plain::<f64>(sizes, ctx, &mut y, |y, c| alpha * y + beta * c)
                    }
                    DataType::Int32 => integers!(i32),
                    DataType::Uint32 => integers!(u32),
                    DataType::Uint64 => integers!(u64),
                    _ => integers!(i64),
                }
            }
        }
    }

    fn prepare(
        &self,
        constants: &[Option<&Tensor>],
        env: &Env,
    ) -> Result<Option<Prepared>, OpError> {
        let Some(Some(b)) = constants.get(1) else {
            return Ok(None);
        };
        if self.weights.is_some() || b.shape().len() != 2 || !sums_in_f32(b.data_type()) {
            return Ok(None);
        }
        let packed = pack(b, self.transposed.1, env)?;
        let mut consumed: smallvec::SmallVec<[usize; 4]> = [1].into_iter().collect();
        let per_column =
            |c: &Tensor| c.shape() == [packed.view().n()] || c.shape() == [1, packed.view().n()];
        let bias = match constants.get(2) {
            Some(Some(c)) if sums_in_f32(c.data_type()) && per_column(c) => {
                consumed.push(2);
                let floats = constant_floats(c)?;
                let floats: &[f32] = bytemuck::cast_slice(&floats);
                Some(floats.iter().map(|c| self.beta * c).collect())
            }
            _ => None,
        };
        let operator = Self {
            transposed: (self.transposed.0, false),
            weights: Some(Weights { packed, bias }),
            ..*self
        };
        Ok(Some(Prepared {
            operator: Box::new(operator),
            consumed,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use super::*;
    use crate::graph::attributes::Attribute;
    use crate::operator::run_alone;

    fn numbers(shape: &[usize], seed: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|i| ((i * 5 + seed) % 9) as f32 - 4.0)
            .collect();
        tensor(shape, &values)
    }

    fn reference_gemm(a: &Tensor, b: &Tensor, c: Option<&Tensor>, node: &Gemm) -> Vec<f32> {
        let at = |t: &Tensor, transposed: bool, i: usize, j: usize| {
            let columns = t.shape()[1];
            let place = if transposed {
                j * columns + i
            } else {
                i * columns + j
            };
            t.as_slice::<f32>().expect("f32")[place]
        };
        let (m, k, n) = node.sizes(a.shape(), Some(b.shape())).expect("fits");
        let mut y = Vec::new();
        for i in 0..m {
            for j in 0..n {
                let sum: f32 = (0..k)
                    .map(|p| at(a, node.transposed.0, i, p) * at(b, node.transposed.1, p, j))
                    .sum();
                let addend = c.map_or(0.0, |c| {
                    let (row, column) = addend_strides(c.shape(), m, n).expect("broadcasts");
                    c.as_slice::<f32>().expect("f32")[i * row + j * column]
                });
                y.push(node.alpha * sum + node.beta * addend);
            }
        }
        y
    }

    #[test]
    fn gemm_follows_its_formula() {
        let env = Env::default();
        let addends: [Option<&[usize]>; 7] = [
            None,
            Some(&[5]),
            Some(&[3, 1]),
            Some(&[3, 5]),
            Some(&[]),
            Some(&[1]),
            Some(&[1, 5]),
        ];
        for (trans_a, trans_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for c_shape in addends {
                for (alpha, beta) in [(1.0, 1.0), (0.5, 2.0), (1.0, 0.0)] {
                    let a = numbers(if trans_a == 0 { &[3, 4] } else { &[4, 3] }, 1);
                    let b = numbers(if trans_b == 0 { &[4, 5] } else { &[5, 4] }, 2);
                    let c = c_shape.map(|s| numbers(s, 3));
                    let node = Attributes::new(13, 1)
                        .with("transA", Attribute::Int(trans_a))
                        .with("transB", Attribute::Int(trans_b))
                        .with("alpha", Attribute::Float(alpha))
                        .with("beta", Attribute::Float(beta));
                    let operator = Gemm::parse(&node).expect("valid");
                    let expected = tensor(&[3, 5], &reference_gemm(&a, &b, c.as_ref(), &operator));
                    let expected = Ok(vec![Some(expected.into())]);
                    let inputs = [
                        Some(a.into()),
                        Some(b.clone().into()),
                        c.clone().map(Into::into),
                    ];
                    let case = format!("{trans_a} {trans_b} {c_shape:?} {alpha} {beta}");
                    assert_eq!(run_alone(&operator, &env, &inputs, 1), expected, "{case}");
                    let prepared = operator.prepare(&[None, Some(&b), c.as_ref()], &env);
                    let prepared = prepared.expect("packs").expect("constants");
                    let mut left = inputs.clone();
                    prepared.consumed.iter().for_each(|&i| left[i] = None);
                    let found = run_alone(&*prepared.operator, &env, &left, 1);
                    assert_eq!(found, expected, "packed {case}");
                }
            }
        }
    }

    #[test]
    fn gemm_rejects_shapes_that_do_not_fit() {
        let case = Case::of("Gemm", 13);
        let a = tensor(&[2, 3], &[1f32; 6]);
        assert!(case.one(&[a.clone(), a.clone()]).is_err());
        let b = tensor(&[3, 2], &[1f32; 6]);
        assert!(
            case.one(&[a.clone(), b.clone(), tensor(&[3], &[1f32; 3])])
                .is_err()
        );
        assert!(case.one(&[a, b, tensor(&[1, 2, 2], &[1f32; 4])]).is_err());
    }

    #[test]
    fn integers_are_multiplied_too() {
        let a = tensor(&[1, 2], &[3i64, 4]);
        let b = tensor(&[2, 1], &[5i64, 6]);
        assert_eq!(
            Case::of("Gemm", 13).one(&[a, b, tensor(&[1], &[1i64])]),
            Ok(tensor(&[1, 1], &[40i64]))
        );
    }
}
