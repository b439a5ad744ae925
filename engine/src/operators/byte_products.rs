//! Matrix products of bytes: `MatMulInteger`, `QLinearMatMul`, from `com.microsoft`
//! `MatMulIntegerToFloat` and `DynamicQuantizeMatMul`, and `ai.lethe.QuantizeRowsMatMul`, which is the
//! last one but for a scale and a zero point of each row of `A`.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__MatMulInteger.html>, opset 10;
//! <https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html>, opsets 10 and 21 (of 8-bit integers);
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.
//! Shapes: `A: [.., m, k]`, `B: [k, n]` or `[.., k, n]` with the axes before of `A` → `Y: [.., m, n]`.
//! Scales and zero points of `A` are one or one a row, of `B` one or one a column, of `Y` one.
//! Types: u8 and i8 → i32, f32, u8, i8. Sums are exact; a result is
//! `(sum · scales) + bias`, rounded after each step.

use super::widened::{with_f32, with_optional_f32};
use crate::error::OpError;
use crate::graph::dimension::{display_dims, known_dims};
use crate::graph::{Attributes, Dim, Dims};
use crate::kernels::env::Env;
use crate::kernels::integer_gemm::{Bias, Bytes, Lhs, Output, PackedRhs, Scale, gemm};
use crate::kernels::quantization::{BytesMut, Granularity, Scales, quantize_bytes, range_of};
use crate::kernels::scratch;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, Prepared, RunContext};
use crate::tensor::{DataType, Tensor, TensorView};

/// What `A` is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Bytes,
    /// Floats, quantised by the range of all of them.
    Floats,
    /// Floats, each row quantised by its own range.
    FloatRows,
}

/// Which input is what.
#[derive(Debug, Clone, Copy)]
struct Slots {
    left: Left,
    a: usize,
    b: usize,
    a_scale: Option<usize>,
    b_scale: Option<usize>,
    a_zero: Option<usize>,
    b_zero: Option<usize>,
    bias: Option<usize>,
    /// Scale and zero point of the output, where it is of bytes.
    y: Option<[usize; 2]>,
}

/// Any of the operators.
#[derive(Debug)]
pub(super) struct ByteProduct {
    slots: Slots,
    weights: Option<Weights>,
}

/// A constant right-hand side.
#[derive(Debug)]
struct Weights {
    packed: PackedRhs,
    /// `[k, n]`
    dims: [usize; 2],
}

/// `MatMulInteger`.
pub(super) struct MatMulInteger;
/// `QLinearMatMul`.
pub(super) struct QLinearMatMul;
/// `MatMulIntegerToFloat`.
pub(super) struct MatMulIntegerToFloat;
/// `DynamicQuantizeMatMul`.
pub(super) struct DynamicQuantizeMatMul;
/// `QuantizeRowsMatMul`.
pub(super) struct QuantizeRowsMatMul;

const BYTES: &[DataType] = &[DataType::Uint8, DataType::Int8];

impl MatMulInteger {
    pub(super) fn parse(_: &Attributes) -> Result<ByteProduct, OpError> {
        Ok(ByteProduct::new(Slots {
            left: Left::Bytes,
            a: 0,
            b: 1,
            a_scale: None,
            b_scale: None,
            a_zero: Some(2),
            b_zero: Some(3),
            bias: None,
            y: None,
        }))
    }
}

impl QLinearMatMul {
    pub(super) fn parse(_: &Attributes) -> Result<ByteProduct, OpError> {
        Ok(ByteProduct::new(Slots {
            left: Left::Bytes,
            a: 0,
            b: 3,
            a_scale: Some(1),
            b_scale: Some(4),
            a_zero: Some(2),
            b_zero: Some(5),
            bias: None,
            y: Some([6, 7]),
        }))
    }
}

impl MatMulIntegerToFloat {
    pub(super) fn parse(_: &Attributes) -> Result<ByteProduct, OpError> {
        Ok(ByteProduct::new(Slots {
            left: Left::Bytes,
            a: 0,
            b: 1,
            a_scale: Some(2),
            b_scale: Some(3),
            a_zero: Some(4),
            b_zero: Some(5),
            bias: Some(6),
            y: None,
        }))
    }
}

impl DynamicQuantizeMatMul {
    pub(super) fn parse(_: &Attributes) -> Result<ByteProduct, OpError> {
        Ok(ByteProduct::of_floats(Left::Floats))
    }
}

impl QuantizeRowsMatMul {
    pub(super) fn parse(_: &Attributes) -> Result<ByteProduct, OpError> {
        Ok(ByteProduct::of_floats(Left::FloatRows))
    }
}

/// The bytes of a tensor of u8 or i8.
pub(super) fn bytes_of<'a>(
    view: TensorView<'a>,
    input: &'static str,
) -> Result<Bytes<'a>, OpError> {
    match view.data_type() {
        DataType::Uint8 => Ok(Bytes::Unsigned(view.as_slice()?)),
        DataType::Int8 => Ok(Bytes::Signed(view.as_slice()?)),
        found => Err(OpError::InputType {
            input,
            expected: "uint8 or int8".into(),
            found,
        }),
    }
}

/// Calls `work` with zero points as numbers, of which there may be none, one or `count`.
pub(super) fn with_zeros<R>(
    view: Option<TensorView<'_>>,
    input: &'static str,
    count: usize,
    work: impl FnOnce(&[i32]) -> Result<R, OpError>,
) -> Result<R, OpError> {
    let Some(view) = view else { return work(&[]) };
    if ![1, count].contains(&view.len()) {
        let found = format!("{:?}", view.shape());
        return Err(OpError::shape(
            input,
            format!("1 or {count} elements"),
            found,
        ));
    }
    let bytes = bytes_of(view, input)?;
    scratch::with(bytes.len(), |zeros: &mut [i32]| {
        for (i, zero) in zeros.iter_mut().enumerate() {
            *zero = bytes.get(i);
        }
        work(zeros)
    })
}

/// Checks that there is one scale, or one for each of `count`.
pub(super) fn check_scales(
    scales: &[f32],
    input: &'static str,
    count: usize,
) -> Result<(), OpError> {
    if [1, count].contains(&scales.len()) {
        return Ok(());
    }
    let found = format!("{}", scales.len());
    Err(OpError::shape(
        input,
        format!("1 or {count} elements"),
        found,
    ))
}

/// The left-hand side of all products.
struct Rows<'a> {
    data: Bytes<'a>,
    zeros: &'a [i32],
    /// One or one a row; of 1 where the sums are wanted as they are.
    scales: &'a [f32],
    /// Whether scales are kept apart from those of columns. A row's result must not depend on how many
    /// rows there are, and what is rounded first may change its last bit.
    scales_each: bool,
}

impl ByteProduct {
    fn new(slots: Slots) -> Self {
        Self {
            slots,
            weights: None,
        }
    }

    /// A product of floats with bytes.
    fn of_floats(left: Left) -> Self {
        Self::new(Slots {
            left,
            a: 0,
            b: 1,
            a_scale: None,
            b_scale: Some(2),
            a_zero: None,
            b_zero: Some(3),
            bias: Some(4),
            y: None,
        })
    }

    /// The output's axes.
    fn dims(a: &[Dim], b: &[Dim]) -> Result<Dims, OpError> {
        let mismatch = || {
            OpError::shape(
                "A and B",
                "[.., m, k] and [k, n] or [.., k, n] with the same axes before",
                format!("{} and {}", display_dims(Some(a)), display_dims(Some(b))),
            )
        };
        let ([a_batch @ .., m, k], [b_batch @ .., b_k, n]) = (a, b) else {
            return Err(mismatch());
        };
        let differ = |x: &Dim, y: &Dim| matches!((x, y), (Dim::Known(x), Dim::Known(y)) if x != y);
        let batches_fit = b_batch.is_empty()
            || (b_batch.len() == a_batch.len()
                && !a_batch.iter().zip(b_batch).any(|(x, y)| differ(x, y)));
        if differ(k, b_k) || !batches_fit {
            return Err(mismatch());
        }
        let tail = [m.clone(), n.clone()];
        Ok(a_batch.iter().cloned().chain(tail).collect())
    }

    fn multiply(
        &self,
        ctx: &mut RunContext<'_>,
        shape: &[usize],
        left: &Rows<'_>,
    ) -> Result<(), OpError> {
        let env = ctx.env;
        let optional = |slot: Option<usize>| match slot {
            Some(slot) => ctx.optional_input(slot),
            None => Ok(None),
        };
        let b_zero = optional(self.slots.b_zero)?;
        let (b_scale, bias) = (optional(self.slots.b_scale)?, optional(self.slots.bias)?);
        let y_scale = optional(self.slots.y.map(|[scale, _]| scale))?;
        let y_zero = optional(self.slots.y.map(|[_, zero]| zero))?;
        let b = match &self.weights {
            Some(_) => None,
            None => Some(ctx.input(self.slots.b, "B")?),
        };
        let b_shape = match (&self.weights, b) {
            (Some(weights), _) => &weights.dims[..],
            (None, Some(b)) => b.shape(),
            (None, None) => &[],
        };
        Self::dims(&known_dims(shape), &known_dims(b_shape))?;
        if self.weights.is_some() && b_zero.is_some() {
            return Err(OpError::unsupported(
                "computed zero points of constant weights",
            ));
        }
        let (rank, b_rank) = (shape.len(), b_shape.len());
        let (k, n) = (shape[rank - 1], b_shape[b_rank - 1]);
        let batches: usize = b_shape[..b_rank - 2].iter().product();
        let rows: usize = shape[..rank - 1].iter().product();
        if batches == 0 || rows == 0 || n == 0 {
            return Ok(());
        }
        let m = rows / batches;
        let y_scale = match y_scale {
            Some(scale) => with_f32(scale, |scale| {
                check_scales(scale, "y_scale", 1).map(|()| scale[0])
            })?,
            None => 1.0,
        };
        let y_zero = with_zeros(y_zero, "y_zero_point", 1, |zero| {
            Ok(zero.first().copied().unwrap_or(0))
        })?;
        let mut output = ctx.output(0)?;
        let per_row = left.scales_each;
        with_zeros(b_zero, "b_zero_point", n, |b_zeros| {
            with_optional_f32(b_scale, |b_scales| {
                with_optional_f32(bias, |bias| {
                    if !bias.is_empty() && bias.len() != n {
                        let found = format!("{}", bias.len());
                        return Err(OpError::shape("bias", format!("[{n}]"), found));
                    }
                    if !b_scales.is_empty() {
                        check_scales(b_scales, "b_scale", n)?;
                    }
                    scratch::with(n, |columns: &mut [f32]| {
                        let a_scale = if per_row { 1.0 } else { left.scales[0] };
                        for (j, column) in columns.iter_mut().enumerate() {
                            let own = match b_scales {
                                [] => 1.0,
                                [one] => *one,
                                many => many[j],
                            };
                            *column = a_scale * own / y_scale;
                        }
                        let mut packed_now = PackedRhs::empty();
                        for batch in 0..batches {
                            let packed = match (&self.weights, b) {
                                (Some(weights), _) => &weights.packed,
                                (None, Some(b)) => {
                                    let range = batch * k * n..(batch + 1) * k * n;
                                    packed_now.repack(
                                        bytes_of(b, "B")?.slice(range),
                                        k,
                                        n,
                                        b_zeros,
                                    );
                                    &packed_now
                                }
                                (None, None) => &packed_now,
                            };
                            let part = batch * m..(batch + 1) * m;
                            let of_rows = |len: usize| if len > 1 { part.clone() } else { 0..len };
                            let lhs = Lhs {
                                m,
                                data: left.data.slice(part.start * k..part.end * k),
                                zero_points: &left.zeros[of_rows(left.zeros.len())],
                            };
                            let scale = Scale {
                                columns,
                                rows: if per_row {
                                    &left.scales[part.clone()]
                                } else {
                                    &[]
                                },
                                bias: if bias.is_empty() {
                                    Bias::None
                                } else {
                                    Bias::Columns(bias)
                                },
                            };
                            let place = part.start * n..part.end * n;
                            let to = match output.data_type() {
                                DataType::Int32 => {
                                    Output::Integers(&mut output.as_mut_slice()?[place])
                                }
                                DataType::Uint8 => Output::Unsigned {
                                    data: &mut output.as_mut_slice()?[place],
                                    scale,
                                    zero_point: y_zero as u8,
                                },
                                DataType::Int8 => Output::Signed {
                                    data: &mut output.as_mut_slice()?[place],
                                    scale,
                                    zero_point: y_zero as i8,
                                },
                                _ => Output::Floats {
                                    data: &mut output.as_mut_slice()?[place],
                                    scale,
                                },
                            };
                            gemm(env, lhs, packed, to);
                        }
                        Ok(())
                    })
                })
            })
        })
    }
}

/// Calls `work` with `x` as bytes, by the range of all of it or, where it has rows, of each row.
fn with_quantised<R>(
    env: &Env,
    x: &[f32],
    rows: Option<usize>,
    work: impl FnOnce(&Rows<'_>) -> R,
) -> R {
    let count = rows.unwrap_or(1);
    let width = x.len() / count.max(1);
    scratch::with(count, |scales: &mut [f32]| {
        scratch::with(count, |zeros: &mut [i32]| {
            scratch::with(x.len(), |q: &mut [u8]| {
                for i in 0..count {
                    let part = i * width..(i + 1) * width;
                    let (scale, zero) = range_of(env, &x[part.clone()]);
                    let by_one = Scales {
                        scales: &[scale],
                        zero_points: &[zero.into()],
                        granularity: Granularity::Tensor,
                    };
                    let to = BytesMut::Unsigned(&mut q[part.clone()]);
                    quantize_bytes(env, &x[part], by_one, to);
                    (scales[i], zeros[i]) = (scale, zero.into());
                }
                work(&Rows {
                    data: Bytes::Unsigned(q),
                    zeros,
                    scales,
                    scales_each: rows.is_some(),
                })
            })
        })
    })
}

impl Operator for ByteProduct {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let slots = &self.slots;
        let allowed = match slots.left {
            Left::Bytes => BYTES,
            Left::Floats | Left::FloatRows => &[DataType::Float32],
        };
        inputs.data_type_of(slots.a, "A", allowed)?;
        let constant = self.weights.as_ref().map(|w| known_dims(&w.dims));
        let b = match &constant {
            Some(dims) => Some(&dims[..]),
            None => {
                inputs.data_type_of(slots.b, "B", BYTES)?;
                inputs.required(slots.b, "B")?.dims
            }
        };
        let dims = match (inputs.required(slots.a, "A")?.dims, b) {
            (Some(a), Some(b)) => Some(Self::dims(a, b)?),
            _ => None,
        };
        let data_type = match (slots.y, slots.b_scale) {
            (Some([_, zero]), _) => inputs.data_type_of(zero, "y_zero_point", BYTES)?,
            (None, Some(_)) => DataType::Float32,
            (None, None) => DataType::Int32,
        };
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let a = ctx.input(self.slots.a, "A")?;
        let shape = a.shape();
        let rows = shape[..shape.len().saturating_sub(1)].iter().product();
        if self.slots.left != Left::Bytes {
            let rows = (self.slots.left == Left::FloatRows).then_some(rows);
            return with_quantised(ctx.env, a.as_slice()?, rows, |rows| {
                self.multiply(ctx, shape, rows)
            });
        }
        let optional = |slot: Option<usize>| match slot {
            Some(slot) => ctx.optional_input(slot),
            None => Ok(None),
        };
        let (scale, zero) = (optional(self.slots.a_scale)?, optional(self.slots.a_zero)?);
        with_zeros(zero, "a_zero_point", rows, |zeros| {
            with_optional_f32(scale, |scales| {
                let scales = if scales.is_empty() { &[1.0] } else { scales };
                check_scales(scales, "a_scale", rows)?;
                let rows = Rows {
                    data: bytes_of(a, "A")?,
                    zeros,
                    scales,
                    scales_each: scales.len() > 1,
                };
                self.multiply(ctx, shape, &rows)
            })
        })
    }

    fn prepare(&self, constants: &[Option<&Tensor>], _: &Env) -> Result<Option<Prepared>, OpError> {
        let constant = |i: usize| constants.get(i).copied().flatten();
        let Some(b) = constant(self.slots.b) else {
            return Ok(None);
        };
        let (&[k, n], None) = (b.shape(), &self.weights) else {
            return Ok(None);
        };
        let zeros = self.slots.b_zero.and_then(constant);
        let packed = with_zeros(zeros.map(Tensor::view), "b_zero_point", n, |zeros| {
            Ok(PackedRhs::new(bytes_of(b.view(), "B")?, k, n, zeros))
        })?;
        let mut consumed: smallvec::SmallVec<[usize; 4]> = [self.slots.b].into_iter().collect();
        if zeros.is_some() {
            consumed.extend(self.slots.b_zero);
        }
        Ok(Some(Prepared {
            operator: Box::new(Self {
                slots: self.slots,
                weights: Some(Weights {
                    packed,
                    dims: [k, n],
                }),
            }),
            consumed,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use super::*;
    use crate::operator::run_alone;
    use crate::tensor::Value;

    #[test]
    fn integers_with_zero_points() {
        // The example of the specification.
        let a = tensor(&[4, 3], &[11u8, 7, 3, 10, 6, 2, 9, 5, 1, 8, 4, 0]);
        let b = tensor(&[3, 2], &[1u8, 4, 2, 5, 3, 6]);
        let (za, zb) = (tensor(&[1], &[12u8]), tensor(&[1], &[0u8]));
        let y = Case::of("MatMulInteger", 10).one(&[a.clone(), b.clone(), za, zb]);
        let want = [-38i32, -83, -44, -98, -50, -113, -56, -128];
        assert_eq!(y, Ok(tensor(&[4, 2], &want)));
        // One zero a row and one a column.
        let (za, zb) = (tensor(&[4], &[1u8, 2, 3, 4]), tensor(&[2], &[1u8, 2]));
        let y = Case::of("MatMulInteger", 10)
            .one(&[a, b, za, zb])
            .expect("multiplies");
        // Row 0: (10, 6, 2) · ((0, 1, 2), (2, 3, 4)).
        assert_eq!(y.as_slice::<i32>().expect("i32")[..2], [10, 46]);
    }

    #[test]
    fn batches_on_both_sides() {
        let a = tensor(&[2, 1, 2], &[1i8, 2, 3, 4]);
        let b = tensor(&[2, 2, 1], &[1i8, -1, 2, -2]);
        let case = Case::of("MatMulInteger", 10);
        assert_eq!(
            case.one(&[a.clone(), b]),
            Ok(tensor(&[2, 1, 1], &[-1i32, -2]))
        );
        let wrong = tensor(&[3, 1], &[0i8; 3]);
        assert!(matches!(case.one(&[a, wrong]), Err(OpError::Shape { .. })));
    }

    #[test]
    fn scaled_products_and_constant_weights() {
        let a = tensor(&[2, 2], &[130u8, 128, 126, 132]);
        let b = tensor(&[2, 3], &[1i8, 2, 3, -1, 0, 5]);
        let inputs = [
            a,
            b,
            tensor(&[], &[0.5f32]),
            tensor(&[3], &[1f32, 2., 4.]),
            tensor(&[], &[128u8]),
            tensor(&[3], &[0i8; 3]),
            tensor(&[3], &[10f32, 20., 30.]),
        ];
        // (2, 0) and (-2, 4) times the columns (1, -1), (2, 0), (3, 5).
        let want = tensor(&[2, 3], &[11f32, 24., 42., 7., 16., 58.]);
        let case = Case::in_domain("com.microsoft", "MatMulIntegerToFloat", 1);
        assert_eq!(case.one(&inputs), Ok(want.clone()));

        let operator = MatMulIntegerToFloat::parse(&Attributes::new(1, 1)).expect("valid");
        let constants: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
        let prepared = operator
            .prepare(&constants, &Env::default())
            .expect("packs")
            .expect("constant");
        let left: Vec<Option<Value>> = inputs
            .iter()
            .enumerate()
            .map(|(i, t)| (!prepared.consumed.contains(&i)).then(|| t.clone().into()))
            .collect();
        assert!(left[1].is_none() && left[5].is_none());
        let y = run_alone(&*prepared.operator, &Env::default(), &left, 1).expect("runs");
        assert_eq!(y[0], Some(want.into()));
    }

    #[test]
    fn bytes_from_bytes() {
        let inputs = [
            tensor(&[1, 2], &[130u8, 128]),
            tensor(&[], &[0.5f32]),
            tensor(&[], &[128u8]),
            tensor(&[2, 2], &[10i8, 2, 7, 7]),
            tensor(&[], &[0.25f32]),
            tensor(&[], &[0i8]),
            tensor(&[], &[0.5f32]),
            tensor(&[], &[100u8]),
        ];
        // 2 · 10 · 0.25 = 5, halved and twice: 5 + 100; 2 · 2 · 0.25 = 1.
        let y = Case::of("QLinearMatMul", 21).one(&inputs);
        assert_eq!(y, Ok(tensor(&[1, 2], &[105u8, 101])));
    }

    #[test]
    fn floats_are_quantised_together_or_row_by_row() {
        let b = tensor(&[2, 1], &[100i8, 50]);
        let product = |domain, operator, rows: &[f32]| -> Vec<f32> {
            let a = tensor(&[rows.len() / 2, 2], rows);
            let inputs = [a, b.clone(), tensor(&[], &[0.01f32])];
            let y = Case::in_domain(domain, operator, 1).one(&inputs);
            let y = y.expect("multiplies");
            y.as_slice().expect("f32").to_vec()
        };
        let together = |rows: &[f32]| product("com.microsoft", "DynamicQuantizeMatMul", rows);
        let by_row = |rows: &[f32]| product(super::super::LETHE_DOMAIN, "QuantizeRowsMatMul", rows);
        let close = |y: f32| (y - 0.75).abs() < 0.01;
        let (row, large) = ([1f32, -0.5], [3000f32, 70.]);
        let both = [row, large].concat();
        assert!(close(together(&row)[0]) && close(by_row(&row)[0]));
        // A large neighbour leaves nothing of the small row, unless each has its own scale.
        assert!(!close(together(&both)[0]));
        assert_eq!(by_row(&both), [by_row(&row), by_row(&large)].concat());
        assert_eq!(by_row(&[]), []);
    }

    #[test]
    fn rows_of_nothing_give_the_bias() {
        let inputs = [
            tensor::<f32>(&[3, 0], &[]),
            tensor::<i8>(&[0, 1], &[]),
            tensor(&[1], &[0.5f32]),
            tensor(&[1], &[0i8]),
            tensor(&[1], &[2f32]),
        ];
        for (domain, operator) in [
            ("com.microsoft", "DynamicQuantizeMatMul"),
            (super::super::LETHE_DOMAIN, "QuantizeRowsMatMul"),
        ] {
            let y = Case::in_domain(domain, operator, 1).one(&inputs);
            assert_eq!(y, Ok(tensor(&[3, 1], &[2f32; 3])), "{operator}");
        }
    }
}
