//! `MatMul`: products of matrices, as numpy's `matmul`.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__MatMul.html>, opsets 1, 9, 13.
//! Shapes: `A: [.., m, k]`, `B: [.., k, n]` → `Y: [.., m, n]`, the axes before broadcast; a vector
//! `A` is a row, a vector `B` a column, and its axis is not in `Y`.
//! Types: f32; f16 and bf16, summed in f32; f64, int32, int64, uint32, uint64.
//!
//! `ai.lethe.FusedMatMul` computes `activation(alpha · A · B + bias + residual)` with
//! `bias: [n]`, `residual` of the product's shape or one that broadcasts with it, and `transA`,
//! `transB`, which exchange the last two axes.

use half::{bf16, f16};

use super::broadcasting::{broadcast_dims, broadcast_strides};
use super::fused::{AfterSum, RESIDUAL, add_apart, other_residual, with_residual};
use crate::error::OpError;
use crate::graph::dimension::{display_dims, known_dims, known_shape};
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::conversion::{SmallFloatRounding, convert};
use crate::kernels::env::Env;
use crate::kernels::gemm::{
    Activation, BatchedGemm, Bias, Epilogue, Gemm, Left, MatrixRef, PackedB, Right, gemm,
    gemm_batched,
};
use crate::kernels::half_precision::Real;
use crate::kernels::plain_product::{self, Factor};
use crate::kernels::scratch;
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, Prepared, RunContext};
use crate::tensor::{Buffer, DataType, Shape, Tensor, TensorView, TensorViewMut};

/// The operator and its fused form.
#[derive(Debug)]
pub(super) struct MatMul {
    transposed: (bool, bool),
    alpha: f32,
    after: AfterSum,
    weights: Option<Weights>,
}

/// `ai.lethe.FusedMatMul`.
pub(super) struct FusedMatMul;

/// A constant right-hand side.
#[derive(Debug)]
struct Weights {
    packed: PackedB,
    /// `[k, n]`
    dims: [usize; 2],
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

impl MatMul {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            transposed: (false, false),
            alpha: 1.0,
            after: AfterSum::default(),
            weights: None,
        })
    }
}

impl FusedMatMul {
    pub(super) fn parse(node: &Attributes) -> Result<MatMul, OpError> {
        Ok(MatMul {
            transposed: (
                node.flag_or("transA", false)?,
                node.flag_or("transB", false)?,
            ),
            alpha: node.float_or("alpha", 1.0)?,
            after: AfterSum::parse(node)?,
            weights: None,
        })
    }
}

/// The elements of a constant f32, f16 or bf16 tensor as f32, whatever their alignment.
pub(super) fn constant_floats(tensor: &Tensor) -> Result<Buffer, OpError> {
    let mut floats = Buffer::try_zeroed(tensor.len() * 4)?;
    let aligned = tensor.clone().aligned();
    let mut view = TensorViewMut::from_bytes(DataType::Float32, tensor.shape(), &mut floats);
    convert(aligned.view(), &mut view, SmallFloatRounding::default())?;
    Ok(floats)
}

/// Whether products of this type are summed in f32.
pub(super) fn sums_in_f32(data_type: DataType) -> bool {
    matches!(
        data_type,
        DataType::Float32 | DataType::Float16 | DataType::Bfloat16
    )
}

/// Packs a constant matrix `[k, n]`, given as `[n, k]` where `transposed`.
pub(super) fn pack(tensor: &Tensor, transposed: bool, env: &Env) -> Result<PackedB, OpError> {
    let [rows, columns] = *tensor.shape() else {
        return Err(OpError::shape(
            "B",
            "2 axes",
            format!("{:?}", tensor.shape()),
        ));
    };
    let (k, n, strides) = match transposed {
        false => (rows, columns, (columns, 1)),
        true => (columns, rows, (1, columns)),
    };
    let pack = |bytes: &[u8]| PackedB::pack_bytes(env.level, bytes, k, n, strides.0, strides.1);
    Ok(match tensor.data_type() {
        DataType::Float32 => pack(tensor.bytes()),
        _ => pack(&constant_floats(tensor)?),
    })
}

/// The sizes of a product.
#[derive(Debug)]
struct Sizes {
    m: usize,
    k: usize,
    n: usize,
    /// Axes before the matrices, broadcast.
    batch: Shape,
    /// Strides of the operands along these, in matrices.
    batch_strides: [Shape; 2],
}

/// A shape with the matrix axes exchanged, and vectors made matrices.
fn as_matrices<T: Clone>(
    shape: &[T],
    transposed: bool,
    one: T,
    vector_is_row: bool,
) -> smallvec::SmallVec<[T; 8]> {
    let mut axes: smallvec::SmallVec<[T; 8]> = shape.iter().cloned().collect();
    match (axes.len(), vector_is_row) {
        (1, true) => axes.insert(0, one),
        (1, false) => axes.push(one),
        (rank, _) if transposed && rank > 1 => axes.swap(rank - 1, rank - 2),
        _ => {}
    }
    axes
}

impl MatMul {
    fn mismatch(a: &[Dim], b: &[Dim]) -> OpError {
        OpError::shape(
            "A and B",
            "[.., m, k] and [.., k, n] with equal k and axes before that broadcast",
            format!("{} and {}", display_dims(Some(a)), display_dims(Some(b))),
        )
    }

    /// The output's axes.
    fn dims(&self, a: &[Dim], b: &[Dim]) -> Result<Dims, OpError> {
        if a.is_empty() || b.is_empty() {
            return Err(Self::mismatch(a, b));
        }
        let left = as_matrices(a, self.transposed.0, Dim::Known(1), true);
        let right = as_matrices(b, self.transposed.1, Dim::Known(1), false);
        let (a_batch, a_matrix) = left.split_at(left.len() - 2);
        let (b_batch, b_matrix) = right.split_at(right.len() - 2);
        if let (Dim::Known(x), Dim::Known(y)) = (&a_matrix[1], &b_matrix[0])
            && x != y
        {
            return Err(Self::mismatch(a, b));
        }
        let mut dims = broadcast_dims(&[a_batch, b_batch]).map_err(|_| Self::mismatch(a, b))?;
        if a.len() > 1 {
            dims.push(a_matrix[0].clone());
        }
        if b.len() > 1 {
            dims.push(b_matrix[1].clone());
        }
        Ok(dims)
    }

    fn sizes(&self, a: &[usize], b: &[usize]) -> Result<Sizes, OpError> {
        let (a_dims, b_dims) = (known_dims(a), known_dims(b));
        self.dims(&a_dims, &b_dims)?;
        let left = as_matrices(a, self.transposed.0, 1, true);
        let right = as_matrices(b, self.transposed.1, 1, false);
        let (a_batch, a_matrix) = left.split_at(left.len() - 2);
        let (b_batch, b_matrix) = right.split_at(right.len() - 2);
        let batch = broadcast_dims(&[&known_dims(a_batch), &known_dims(b_batch)])?;
        let batch = known_shape(&batch).ok_or_else(|| Self::mismatch(&a_dims, &b_dims))?;
        Ok(Sizes {
            m: a_matrix[0],
            k: a_matrix[1],
            n: b_matrix[1],
            batch_strides: [
                broadcast_strides(a_batch, &batch),
                broadcast_strides(b_batch, &batch),
            ],
            batch,
        })
    }

    fn floats(
        &self,
        env: &Env,
        sizes: &Sizes,
        [a, b]: [&[f32]; 2],
        (bias, residual): (Option<&[f32]>, Option<&[f32]>),
        activation: Activation,
        c: &mut [f32],
    ) {
        if c.is_empty() {
            return;
        }
        let Sizes {
            m,
            k,
            n,
            ref batch,
            ref batch_strides,
        } = *sizes;
        let epilogue = Epilogue {
            alpha: self.alpha,
            bias: bias.map_or(Bias::None, Bias::PerColumn),
            residual,
            activation,
        };
        let left = |data: &'_ [f32], rows: usize| -> (usize, usize, usize) {
            debug_assert!(data.len() >= rows * k);
            if self.transposed.0 {
                (rows, 1, rows)
            } else {
                (rows, k, 1)
            }
        };
        let count: usize = batch.iter().product();
        let one_right = batch_strides[1]
            .iter()
            .zip(batch)
            .all(|(&s, &size)| s == 0 || size == 1);
        let one_left_after_another = !self.transposed.0
            && crate::tensor::row_major_strides(batch)
                .iter()
                .zip(&batch_strides[0])
                .zip(batch)
                .all(|((whole, own), &size)| whole == own || size == 1);
        let right = |b| match self.transposed.1 {
            false => MatrixRef::strided(b, k, n, n, 1),
            true => MatrixRef::strided(b, k, n, 1, k),
        };
        if one_right && (one_left_after_another || count == 1) {
            // One matrix on the right: everything on the left is one tall matrix.
            let (rows, row_stride, column_stride) = left(a, count * m);
            let b = match &self.weights {
                Some(weights) => Right::Packed(weights.packed.view()),
                None => Right::Plain(right(b)),
            };
            let a = Left::Plain(MatrixRef::strided(a, rows, k, row_stride, column_stride));
            gemm(
                env,
                Gemm {
                    a,
                    b,
                    c,
                    c_row_stride: n,
                    accumulate: false,
                    epilogue,
                },
            );
            return;
        }
        let (rows, row_stride, column_stride) = left(a, m);
        scratch::with(2 * count, |offsets: &mut [usize]| {
            let (a_offsets, b_offsets) = offsets.split_at_mut(count);
            fill_offsets(a_offsets, batch, &batch_strides[0], m * k);
            fill_offsets(b_offsets, batch, &batch_strides[1], k * n);
            let matrix = |a| MatrixRef::strided(a, rows, k, row_stride, column_stride);
            if bias.is_none() && residual.is_none() && self.weights.is_none() {
                let products = BatchedGemm {
                    a: matrix(a),
                    a_offsets,
                    b: right(b),
                    b_offsets,
                    c,
                    alpha: self.alpha,
                    activation,
                };
                return gemm_batched(env, products);
            }
            for (i, c) in c.chunks_exact_mut((m * n).max(1)).enumerate() {
                let residual = residual.map(|r| &r[i * m * n..][..m * n]);
                let b = match &self.weights {
                    Some(weights) => Right::Packed(weights.packed.view()),
                    None => Right::Plain(right(&b[b_offsets[i]..])),
                };
                let a = Left::Plain(matrix(&a[a_offsets[i]..]));
                let epilogue = Epilogue {
                    residual,
                    ..epilogue
                };
                gemm(
                    env,
                    Gemm {
                        a,
                        b,
                        c,
                        c_row_stride: n,
                        accumulate: false,
                        epilogue,
                    },
                );
            }
        });
    }

    fn plain<T: Factor>(
        &self,
        sizes: &Sizes,
        ctx: &RunContext<'_>,
        after: AfterSum,
        c: &mut TensorViewMut<'_>,
    ) -> Result<(), OpError> {
        let (a, b) = (
            ctx.input(0, "A")?.as_slice::<T>()?,
            ctx.input(1, "B")?.as_slice::<T>()?,
        );
        let bias = ctx
            .optional_input(2)?
            .map(|v| v.as_slice::<T>())
            .transpose()?;
        let residual = ctx
            .optional_input(RESIDUAL)?
            .map(|v| v.as_slice::<T>())
            .transpose()?;
        let Sizes {
            m,
            k,
            n,
            ref batch,
            ref batch_strides,
        } = *sizes;
        let count: usize = batch.iter().product();
        let c = c.as_mut_slice::<T>()?;
        scratch::with(2 * count, |offsets: &mut [usize]| {
            let (a_offsets, b_offsets) = offsets.split_at_mut(count);
            fill_offsets(a_offsets, batch, &batch_strides[0], m * k);
            fill_offsets(b_offsets, batch, &batch_strides[1], k * n);
            for (i, c) in c.chunks_exact_mut((m * n).max(1)).enumerate() {
                let strides = |t, rows, columns| if t { (1, rows) } else { (columns, 1) };
                let a = plain_product::Matrix {
                    data: &a[a_offsets[i]..],
                    strides: strides(self.transposed.0, m, k),
                };
                let b = plain_product::Matrix {
                    data: &b[b_offsets[i]..],
                    strides: strides(self.transposed.1, k, n),
                };
                plain_product::multiply(a, b, k, n, c);
            }
        });
        let alpha = f64::from(self.alpha);
        for (i, c) in c.iter_mut().enumerate() {
            if self.alpha != 1.0 {
                *c = c.through_double(|x| alpha * x);
            }
            if let Some(bias) = bias {
                *c = c.plus(bias[i % n]);
            }
            if let Some(residual) = residual {
                *c = c.plus(residual[i]);
            }
            if !after.is_none() {
                *c = c.through_double(|x| after.double(x));
            }
        }
        Ok(())
    }

    fn halves<T: Real>(
        &self,
        ctx: &mut RunContext<'_>,
        sizes: &Sizes,
        activation: Activation,
    ) -> Result<(), OpError> {
        let env = ctx.env;
        let a = ctx.input(0, "A")?.as_slice::<T>()?;
        let b: &[T] = match &self.weights {
            Some(_) => &[],
            None => ctx.input(1, "B")?.as_slice()?,
        };
        let optional = |view: Option<TensorView<'_>>| -> Result<Vec<f32>, OpError> {
            let Some(view) = view else {
                return Ok(Vec::new());
            };
            let mut floats = limits::zeroed(view.len());
            T::widen(view.as_slice()?, &mut floats);
            Ok(floats)
        };
        let bias = ctx.optional_input(2)?;
        let residual = ctx.optional_input(RESIDUAL)?;
        let (bias_floats, residual_floats) = (optional(bias)?, optional(residual)?);
        let after = (
            bias.map(|_| bias_floats.as_slice()),
            residual.map(|_| residual_floats.as_slice()),
        );
        let mut output = ctx.output(0)?;
        let c = output.as_mut_slice::<T>()?;
        scratch::with(a.len() + b.len() + c.len(), |floats: &mut [f32]| {
            let (wide_a, rest) = floats.split_at_mut(a.len());
            let (wide_b, wide_c) = rest.split_at_mut(b.len());
            T::widen(a, wide_a);
            T::widen(b, wide_b);
            self.floats(env, sizes, [wide_a, wide_b], after, activation, wide_c);
            T::narrow(wide_c, c);
        });
        Ok(())
    }
}

impl MatMul {
    /// The product with all that comes after it.
    fn product(
        &self,
        ctx: &mut RunContext<'_>,
        sizes: &Sizes,
        after: AfterSum,
    ) -> Result<(), OpError> {
        match ctx.input_type(0, "A")? {
            DataType::Float32 => {
                let a = ctx.input(0, "A")?.as_slice()?;
                let b = match &self.weights {
                    Some(_) => &[][..],
                    None => ctx.input(1, "B")?.as_slice()?,
                };
                let bias = ctx.optional_input(2)?;
                let residual = ctx.optional_input(RESIDUAL)?;
                let added = (
                    bias.map(|v| v.as_slice()).transpose()?,
                    residual.map(|v| v.as_slice()).transpose()?,
                );
                let mut output = ctx.output(0)?;
                let y = output.as_mut_slice()?;
                self.floats(ctx.env, sizes, [a, b], added, after.inline, y);
                Ok(())
            }
            DataType::Float16 => self.halves::<f16>(ctx, sizes, after.inline),
            DataType::Bfloat16 => self.halves::<bf16>(ctx, sizes, after.inline),
            other => {
                let mut output = ctx.output(0)?;
                match other {
                    DataType::Float64 => self.plain::<f64>(sizes, ctx, after, &mut output),
                    DataType::Int32 => self.plain::<i32>(sizes, ctx, after, &mut output),
                    DataType::Uint32 => self.plain::<u32>(sizes, ctx, after, &mut output),
                    DataType::Uint64 => self.plain::<u64>(sizes, ctx, after, &mut output),
                    _ => self.plain::<i64>(sizes, ctx, after, &mut output),
                }
            }
        }
    }
}

/// Where each matrix of a batch starts: `size` elements a matrix.
fn fill_offsets(offsets: &mut [usize], batch: &[usize], strides: &[usize], size: usize) {
    for (i, offset) in offsets.iter_mut().enumerate() {
        let (mut rest, mut matrix) = (i, 0);
        for (&n, &stride) in batch.iter().zip(strides).rev() {
            matrix += rest % n * stride;
            rest /= n;
        }
        *offset = matrix * size;
    }
}

impl Operator for MatMul {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "A", TYPES)?;
        let a = inputs.required(0, "A")?;
        let constant = self.weights.as_ref().map(|w| known_dims(&w.dims));
        let b = match &constant {
            Some(dims) => Some(&dims[..]),
            None => {
                inputs.data_type_of(1, "B", &[data_type])?;
                inputs.required(1, "B")?.dims
            }
        };
        let dims = match (a.dims, b) {
            (Some(a), Some(b)) => Some(self.dims(a, b)?),
            _ => None,
        };
        if let (Some(bias), Some(dims)) = (inputs.optional(2).and_then(|b| b.shape()), &dims)
            && let Some(n) = dims.last().and_then(Dim::known)
            && bias[..] != [n]
        {
            return Err(OpError::shape(
                "bias",
                format!("[{n}]"),
                format!("{bias:?}"),
            ));
        }
        let dims = with_residual(inputs, data_type, dims)?;
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let a_shape = ctx.input_shape(0, "A")?;
        let b_shape = match &self.weights {
            Some(weights) => &weights.dims[..],
            None => ctx.input_shape(1, "B")?,
        };
        let sizes = self.sizes(a_shape, b_shape)?;
        if ctx.input_count() > RESIDUAL {
            let dims = self.dims(&known_dims(a_shape), &known_dims(b_shape))?;
            let shape = known_shape(&dims).unwrap_or_default();
            if let Some(residual) = other_residual(ctx, &shape)? {
                return add_apart(ctx, &shape, residual, self.after, |ctx| {
                    self.product(ctx, &sizes, AfterSum::default())
                });
            }
        }
        self.product(ctx, &sizes, self.after)
    }

    fn prepare(
        &self,
        constants: &[Option<&Tensor>],
        env: &Env,
    ) -> Result<Option<Prepared>, OpError> {
        let Some(Some(b)) = constants.get(1) else {
            return Ok(None);
        };
        let [rows, columns] = *b.shape() else {
            return Ok(None);
        };
        if !sums_in_f32(b.data_type()) || self.weights.is_some() {
            return Ok(None);
        }
        let dims = if self.transposed.1 {
            [columns, rows]
        } else {
            [rows, columns]
        };
        let operator = Self {
            // The packed matrix is the right way round.
            transposed: (self.transposed.0, false),
            weights: Some(Weights {
                packed: pack(b, self.transposed.1, env)?,
                dims,
            }),
            ..*self
        };
        Ok(Some(Prepared {
            operator: Box::new(operator),
            consumed: [1].into_iter().collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use super::*;
    use crate::operator::run_alone;

    fn numbers(shape: &[usize], seed: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|i| ((i * 7 + seed) % 11) as f32 - 5.0)
            .collect();
        tensor(shape, &values)
    }

    /// The formula, for shapes with at least two axes.
    fn reference_matmul(a: &Tensor, b: &Tensor) -> Vec<f64> {
        let (rank_a, rank_b) = (a.shape().len(), b.shape().len());
        let (m, k) = (a.shape()[rank_a - 2], a.shape()[rank_a - 1]);
        let n = b.shape()[rank_b - 1];
        let batch_a = &a.shape()[..rank_a - 2];
        let batch_b = &b.shape()[..rank_b - 2];
        let batch =
            crate::kernels::elementwise::broadcast_shape(&[batch_a, batch_b]).expect("broadcasts");
        let (sa, sb) = (
            broadcast_strides(batch_a, &batch),
            broadcast_strides(batch_b, &batch),
        );
        let count: usize = batch.iter().product();
        let (mut oa, mut ob) = (vec![0; count], vec![0; count]);
        fill_offsets(&mut oa, &batch, &sa, m * k);
        fill_offsets(&mut ob, &batch, &sb, k * n);
        let (a, b) = (
            a.as_slice::<f32>().expect("f32"),
            b.as_slice::<f32>().expect("f32"),
        );
        let mut sums = Vec::new();
        for i in 0..count * m * n {
            let (matrix, row, column) = (i / (m * n), i / n % m, i % n);
            let product = |p: usize| {
                a[oa[matrix] + row * k + p] as f64 * b[ob[matrix] + p * n + column] as f64
            };
            sums.push((0..k).map(product).fold(0.0, |sum, x| sum + x));
        }
        sums
    }

    #[test]
    fn matmul_broadcasts_its_batches() {
        let cases: &[(&[usize], &[usize], &[usize])] = &[
            (&[2, 3], &[3, 4], &[2, 4]),
            (&[5, 2, 3], &[3, 4], &[5, 2, 4]),
            (&[2, 3], &[5, 3, 4], &[5, 2, 4]),
            (&[2, 1, 2, 3], &[4, 3, 5], &[2, 4, 2, 5]),
            (&[1, 2, 3], &[1, 3, 4], &[1, 2, 4]),
            (&[3, 0], &[0, 2], &[3, 2]),
            (&[0, 3], &[3, 2], &[0, 2]),
        ];
        for (a, b, shape) in cases {
            let (a, b) = (numbers(a, 1), numbers(b, 4));
            let expected: Vec<f32> = reference_matmul(&a, &b).iter().map(|&x| x as f32).collect();
            let found = Case::of("MatMul", 13).one(&[a.clone(), b.clone()]);
            assert_eq!(
                found,
                Ok(tensor(shape, &expected)),
                "{:?} x {:?}",
                a.shape(),
                b.shape()
            );
            for data_type in TYPES {
                let to = |t: &Tensor| {
                    Case::of("Cast", 13)
                        .int("to", *data_type as i64)
                        .one(std::slice::from_ref(t))
                };
                let found =
                    Case::of("MatMul", 13).one(&[to(&a).expect("casts"), to(&b).expect("casts")]);
                let back = Case::of("Cast", 13)
                    .int("to", 1)
                    .one(&[found.expect("multiplies")]);
                if !matches!(data_type, DataType::Uint32 | DataType::Uint64) {
                    assert_eq!(back, Ok(tensor(shape, &expected)), "{data_type}");
                }
            }
        }
    }

    #[test]
    fn vectors_are_rows_on_the_left_and_columns_on_the_right() {
        let row = tensor(&[2], &[1f32, 2.]);
        let matrix = tensor(&[2, 2], &[1f32, 2., 3., 4.]);
        let case = Case::of("MatMul", 13);
        assert_eq!(
            case.one(&[row.clone(), matrix.clone()]),
            Ok(tensor(&[2], &[7f32, 10.]))
        );
        assert_eq!(
            case.one(&[matrix, row.clone()]),
            Ok(tensor(&[2], &[5f32, 11.]))
        );
        assert_eq!(
            case.one(&[row.clone(), row.clone()]),
            Ok(tensor(&[], &[5f32]))
        );
        assert!(case.one(&[row, tensor(&[3], &[1f32; 3])]).is_err());
    }

    #[test]
    fn constant_weights_give_the_same() {
        let env = Env::default();
        for (transposed, shape) in [(false, [3, 4]), (true, [4, 3])] {
            let (a, b) = (numbers(&[2, 5, 3], 2), numbers(&shape, 3));
            let mut node = Attributes::new(1, 1);
            node.insert(
                "transB",
                crate::graph::attributes::Attribute::Int(transposed.into()),
            );
            let operator = FusedMatMul::parse(&node).expect("valid");
            let prepared = operator
                .prepare(&[None, Some(&b)], &env)
                .expect("packs")
                .expect("a constant");
            let input = Some(a.into());
            let plain = run_alone(&operator, &env, &[input.clone(), Some(b.into())], 1);
            let packed = run_alone(&*prepared.operator, &env, &[input, None], 1);
            assert_eq!(plain, packed, "transB {transposed}");
        }
    }

    #[test]
    fn fused_products_add_and_activate() {
        let case = Case::in_domain("ai.lethe", "FusedMatMul", 1).text("activation", "Relu");
        let inputs = [
            tensor(&[1, 2], &[1f32, 2.]),
            tensor(&[2, 2], &[1f32, 0., 0., 1.]),
            tensor(&[2], &[10f32, -10.]),
            tensor(&[1, 2], &[1f32, 1.]),
        ];
        assert_eq!(case.one(&inputs), Ok(tensor(&[1, 2], &[12f32, 0.])));
    }
}
