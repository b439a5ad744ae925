//! `QuantizeLinear`, `DequantizeLinear`, `DynamicQuantizeLinear`: numbers to small ones and back.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>, opsets 10, 13, 19, 21, 23, 24,
//! 25; <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>, the same opsets;
//! <https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>, opset 11.
//! `com.microsoft` has the first two with more types, which the newer standard has as well.
//!
//! Scales are one for the tensor, one for each index of `axis`, or one for each block of
//! `block_size` along it. `y = saturate(round(x / scale) + zero_point)`; the division is rounded to
//! the type that `precision`, or else the scale, has.

use half::{bf16, f16};

use super::axes::normalize_axis;
use super::widened::{with_f32, with_optional_f32, write_f32};
use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::kernels::integer_gemm::Bytes;
use crate::kernels::quantization::{
    BytesMut, Granularity, Scales, dequantize, dequantize_bytes, for_each_quotient, quantize_bytes,
    range_of,
};
use crate::kernels::scratch;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::packed::pack_codes;
use crate::tensor::{DataType, TensorView, encode_small_float};

/// Types that numbers are quantised to.
const SMALL: &[DataType] = &[
    DataType::Uint8,
    DataType::Int8,
    DataType::Uint16,
    DataType::Int16,
    DataType::Uint4,
    DataType::Int4,
    DataType::Uint2,
    DataType::Int2,
    DataType::Float8E4M3FN,
    DataType::Float8E4M3FNUZ,
    DataType::Float8E5M2,
    DataType::Float8E5M2FNUZ,
    DataType::Float4E2M1,
];

const REAL: &[DataType] = &[
    DataType::Float32,
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Int32,
];

/// Which scale an element has.
#[derive(Debug, Clone, Copy)]
struct Sharing {
    axis: i64,
    block: usize,
}

impl Sharing {
    fn parse(node: &Attributes) -> Result<Self, OpError> {
        let block = node.int_or("block_size", 0)?;
        Ok(Self {
            axis: node.int_or("axis", 1)?,
            block: usize::try_from(block).map_err(|_| OpError::Attribute {
                name: "block_size".into(),
                expected: "at least 0".into(),
                found: block.to_string(),
            })?,
        })
    }

    /// How a tensor of `shape` shares scales of the shape `scale`.
    fn granularity(self, shape: &[usize], scale: &[usize]) -> Result<Granularity, OpError> {
        let scale_len: usize = scale.iter().product();
        if self.block == 0 && scale_len == 1 {
            return Ok(Granularity::Tensor);
        }
        let axis = normalize_axis(self.axis, shape.len())?;
        let inner: usize = shape[axis + 1..].iter().product();
        let fits = match self.block {
            0 => scale == [shape[axis]],
            block => {
                scale.len() == shape.len()
                    && (0..shape.len()).all(|i| {
                        let blocks = if i == axis {
                            shape[i].div_ceil(block)
                        } else {
                            shape[i]
                        };
                        scale[i] == blocks
                    })
            }
        };
        if !fits {
            return Err(OpError::shape(
                "scale",
                format!(
                    "one for the tensor, for each index of axis {axis}, or for blocks of {} along it",
                    self.block
                ),
                format!("{scale:?} for {shape:?}"),
            ));
        }
        Ok(Granularity::Axis {
            inner,
            axis: shape[axis],
            block: self.block,
        })
    }
}

/// Checks that zero points are as many as scales.
fn check_zeros(scale: TensorView<'_>, zero: Option<TensorView<'_>>) -> Result<(), OpError> {
    match zero {
        Some(zero) if zero.len() != scale.len() => Err(OpError::shape(
            "zero_point",
            format!("{:?}", scale.shape()),
            format!("{:?}", zero.shape()),
        )),
        _ => Ok(()),
    }
}

/// `QuantizeLinear`.
#[derive(Debug)]
pub(super) struct QuantizeLinear {
    sharing: Sharing,
    saturate: bool,
    output: Option<DataType>,
    precision: Option<DataType>,
}

/// An attribute that is an element type, or 0 for none.
fn optional_type(node: &Attributes, name: &str) -> Result<Option<DataType>, OpError> {
    match node.int_or(name, 0)? {
        0 => Ok(None),
        _ => node.optional_data_type(name),
    }
}

impl QuantizeLinear {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            sharing: Sharing::parse(node)?,
            saturate: node.flag_or("saturate", true)?,
            output: optional_type(node, "output_dtype")?,
            precision: optional_type(node, "precision")?,
        })
    }
}

impl Operator for QuantizeLinear {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "x", REAL)?;
        let x = inputs.required(0, "x")?;
        inputs.required(1, "y_scale")?;
        let data_type = match (inputs.optional(2), self.output) {
            (Some(_), _) => inputs.data_type_of(2, "y_zero_point", SMALL)?,
            (None, Some(output)) => output,
            (None, None) => DataType::Uint8,
        };
        if !SMALL.contains(&data_type) {
            return Err(OpError::unsupported(format!("quantising to {data_type}")));
        }
        Ok(OutputInfo::maybe(data_type, x.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, x) = (ctx.env, ctx.input(0, "x")?);
        let (scale, zero) = (ctx.input(1, "y_scale")?, ctx.optional_input(2)?);
        check_zeros(scale, zero)?;
        let granularity = self.sharing.granularity(x.shape(), scale.shape())?;
        let precision = self.precision.unwrap_or(scale.data_type());
        let mut output = ctx.output(0)?;
        let data_type = output.data_type();
        with_f32(x, |x| {
            with_f32(scale, |scales| {
                with_optional_f32(zero, |zero_points| {
                    let scales = Scales {
                        scales,
                        zero_points,
                        granularity,
                    };
                    let exact = !matches!(precision, DataType::Float16 | DataType::Bfloat16);
                    match data_type {
                        DataType::Uint8 if exact => {
                            let q = BytesMut::Unsigned(output.as_mut_slice()?);
                            quantize_bytes(env, x, scales, q);
                        }
                        DataType::Int8 if exact => {
                            let q = BytesMut::Signed(output.as_mut_slice()?);
                            quantize_bytes(env, x, scales, q);
                        }
                        _ => {
                            let places = output.bytes_mut();
                            self.quantize_slowly(data_type, precision, x, scales, places);
                        }
                    }
                    Ok(())
                })
            })
        })
    }
}

/// The largest and the smallest number of an integer type.
fn integer_range(data_type: DataType) -> (f32, f32) {
    let bits = data_type.bits() as i32;
    let signed = matches!(
        data_type,
        DataType::Int2 | DataType::Int4 | DataType::Int8 | DataType::Int16
    );
    let count = (1u32 << bits) as f32;
    if signed {
        (-count / 2.0, count / 2.0 - 1.0)
    } else {
        (0.0, count - 1.0)
    }
}

impl QuantizeLinear {
    /// Every type, an element at a time.
    fn quantize_slowly(
        &self,
        data_type: DataType,
        precision: DataType,
        x: &[f32],
        scales: Scales<'_>,
        output: &mut [u8],
    ) {
        let (low, high) = integer_range(data_type);
        let code = |quotient: f32, zero: f32| -> u16 {
            let quotient = match precision {
                DataType::Float16 => f16::from_f32(quotient).to_f32(),
                DataType::Bfloat16 => bf16::from_f32(quotient).to_f32(),
                _ => quotient,
            };
            if data_type.is_small_float() {
                return encode_small_float(data_type, quotient + zero, self.saturate).into();
            }
            let value = (quotient.round_ties_even() + zero).max(low).min(high);
            value as i32 as u16
        };
        match data_type.bits() {
            16 => {
                let output: &mut [[u8; 2]] = bytemuck::cast_slice_mut(output);
                for_each_quotient(x, scales, |i, quotient, zero| {
                    output[i] = code(quotient, zero).to_le_bytes();
                });
            }
            8 => for_each_quotient(x, scales, |i, quotient, zero| {
                output[i] = code(quotient, zero) as u8;
            }),
            _ => scratch::with(x.len(), |codes: &mut [u8]| {
                for_each_quotient(x, scales, |i, quotient, zero| {
                    codes[i] = code(quotient, zero) as u8;
                });
                pack_codes(data_type, codes, output);
            }),
        }
    }
}

/// `DequantizeLinear`.
#[derive(Debug)]
pub(super) struct DequantizeLinear {
    sharing: Sharing,
    output: Option<DataType>,
}

impl DequantizeLinear {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            sharing: Sharing::parse(node)?,
            output: optional_type(node, "output_dtype")?,
        })
    }
}

impl Operator for DequantizeLinear {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let x = inputs.required(0, "x")?;
        let data_type = x.data_type()?;
        if !SMALL.contains(&data_type) && data_type != DataType::Int32 {
            return Err(OpError::InputType {
                input: "x",
                expected: "a small integer or float".into(),
                found: data_type,
            });
        }
        let scale = inputs.required(1, "x_scale")?.data_type()?;
        let data_type = match (self.output, scale) {
            (Some(output), _) => output,
            (None, DataType::Float8E8M0) => DataType::Float32,
            (None, scale) => scale,
        };
        if !data_type.is_float() || data_type.is_small_float() {
            return Err(OpError::unsupported(format!("dequantising to {data_type}")));
        }
        Ok(OutputInfo::maybe(data_type, x.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let (env, q) = (ctx.env, ctx.input(0, "x")?);
        let (scale, zero) = (ctx.input(1, "x_scale")?, ctx.optional_input(2)?);
        check_zeros(scale, zero)?;
        let granularity = self.sharing.granularity(q.shape(), scale.shape())?;
        let mut output = ctx.output(0)?;
        with_f32(scale, |scales| {
            with_optional_f32(zero, |zero_points| {
                let scales = Scales {
                    scales,
                    zero_points,
                    granularity,
                };
                write_f32(&mut output, |x| match q.data_type() {
                    DataType::Uint8 => {
                        dequantize_bytes(env, Bytes::Unsigned(q.as_slice()?), scales, x);
                        Ok(())
                    }
                    DataType::Int8 => {
                        dequantize_bytes(env, Bytes::Signed(q.as_slice()?), scales, x);
                        Ok(())
                    }
                    _ => with_f32(q, |q| {
                        dequantize(env, q, scales, x);
                        Ok(())
                    }),
                })
            })
        })
    }
}

/// `DynamicQuantizeLinear`.
#[derive(Debug)]
pub(super) struct DynamicQuantizeLinear;

impl DynamicQuantizeLinear {
    pub(super) fn parse(_: &Attributes) -> Result<Self, OpError> {
        Ok(Self)
    }
}

impl Operator for DynamicQuantizeLinear {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        inputs.data_type_of(0, "x", &[DataType::Float32])?;
        let x = inputs.required(0, "x")?;
        let scalar = |data_type| OutputInfo::tensor(data_type, std::iter::empty::<Dim>().collect());
        Ok([
            OutputInfo::maybe(DataType::Uint8, x.to_dims()),
            scalar(DataType::Float32),
            scalar(DataType::Uint8),
        ]
        .into_iter()
        .collect())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let x = ctx.input(0, "x")?.as_slice::<f32>()?;
        let (scale, zero) = range_of(ctx.env, x);
        if let Some(mut y) = ctx.optional_output(0) {
            let scales = Scales {
                scales: &[scale],
                zero_points: &[zero.into()],
                granularity: Granularity::Tensor,
            };
            let q = BytesMut::Unsigned(y.as_mut_slice()?);
            quantize_bytes(ctx.env, x, scales, q);
        }
        if let Some(mut y) = ctx.optional_output(1) {
            y.as_mut_slice()?.fill(scale);
        }
        if let Some(mut y) = ctx.optional_output(2) {
            y.as_mut_slice()?.fill(zero);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn the_examples_of_the_specification() {
        let x = tensor(&[6], &[0f32, 2., 3., 1000., -254., -1000.]);
        let (scale, zero) = (tensor(&[], &[2f32]), tensor(&[], &[128u8]));
        let y = tensor(&[6], &[128u8, 129, 130, 255, 1, 0]);
        let found = Case::of("QuantizeLinear", 10).one(&[x, scale.clone(), zero.clone()]);
        assert_eq!(found, Ok(y.clone()));
        let back = Case::of("DequantizeLinear", 10).one(&[y, scale, zero]);
        assert_eq!(back, Ok(tensor(&[6], &[0f32, 2., 4., 254., -254., -256.])));

        let x = tensor(&[6], &[0f32, 2., -3., -2.5, 1.34, 0.5]);
        let outputs = Case::of("DynamicQuantizeLinear", 11)
            .outputs(3)
            .tensors(&[x]);
        let outputs = outputs.expect("quantises");
        assert_eq!(outputs[0], tensor(&[6], &[153u8, 255, 0, 26, 221, 179]));
        assert_eq!(outputs[1], tensor(&[], &[0.019_607_844f32]));
        assert_eq!(outputs[2], tensor(&[], &[153u8]));
    }

    #[test]
    fn every_small_type_comes_back() {
        let x = tensor(&[2, 3], &[0f32, 1., 2., 0., 1., 0.]);
        let scale = tensor(&[], &[1f32]);
        for &data_type in SMALL {
            let case = Case::of("QuantizeLinear", 25).int("output_dtype", data_type as i64);
            let q = case.one(&[x.clone(), scale.clone()]).expect("quantises");
            assert_eq!(q.data_type(), data_type);
            let back = Case::of("DequantizeLinear", 25).one(&[q, scale.clone()]);
            // int2 reaches to 1 only.
            let largest = if data_type == DataType::Int2 { 1. } else { 2. };
            let want = tensor(&[2, 3], &[0f32, 1., largest, 0., 1., 0.]);
            assert_eq!(back, Ok(want), "{data_type}");
        }
    }

    #[test]
    fn blocks_and_axes() {
        let q = tensor(&[2, 4], &[1i8, 2, 3, 4, 5, 6, 7, 8]);
        let blocked = Case::of("DequantizeLinear", 21).int("block_size", 2);
        let scales = tensor(&[2, 2], &[1f32, 10., 100., 1000.]);
        let want = tensor(&[2, 4], &[1f32, 2., 30., 40., 500., 600., 7000., 8000.]);
        assert_eq!(blocked.one(&[q.clone(), scales]), Ok(want));
        let per_row = Case::of("DequantizeLinear", 13).int("axis", 0);
        let scales = tensor(&[2], &[1f32, 2.]);
        let want = tensor(&[2, 4], &[1f32, 2., 3., 4., 10., 12., 14., 16.]);
        assert_eq!(per_row.one(&[q, scales]), Ok(want));
    }

    #[test]
    fn mismatched_scales_are_rejected() {
        let q = tensor(&[2, 4], &[0i8; 8]);
        let cases: [(&[usize], i64, i64); 4] =
            [(&[3], 1, 0), (&[2, 3], 1, 2), (&[4], 5, 0), (&[4], 0, 0)];
        for (shape, axis, block) in cases {
            let scales = Tensor::from_slice(shape, &vec![1f32; shape.iter().product()]);
            let case = Case::of("DequantizeLinear", 21)
                .int("axis", axis)
                .int("block_size", block);
            let found = case.one(&[q.clone(), scales.expect("fits")]);
            assert!(
                matches!(found, Err(OpError::Shape { .. } | OpError::Value { .. })),
                "{shape:?} {axis} {block}: {found:?}"
            );
        }
    }
}
