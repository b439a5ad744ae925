//! `MatMulNBits`: a product with weights of 2, 4 or 8 bits in blocks.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>,
//! `com.microsoft` 1.
//! Shapes: `A: [.., K]`, `B: [N, ceil(K / block_size), block_size · bits / 8]`,
//! `scales: [N · blocks]`, `zero_points`: packed like `B`, rows padded to bytes, or of the scales'
//! type, one a block; `g_idx: [K]`, the block of each column; `bias: [N]` → `Y: [.., N]`.
//! Types: f32, f16, bf16. Products are of f32 (`accuracy_level` only allows less).

use super::matmul::{constant_floats, sums_in_f32};
use super::widened::{with_f32, with_optional_f32, write_f32};
use crate::error::OpError;
use crate::graph::{Attributes, Dim};
use crate::kernels::block_quantized::{Nibbles, multiply};
use crate::kernels::env::Env;
use crate::kernels::gemm::{Bias, Epilogue, Gemm, Left, MatrixRef, PackedB, Right, gemm};
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, Prepared, RunContext};
use crate::tensor::{Buffer, DataType, Tensor};

/// The operator with its weights, once they are known.
#[derive(Debug, Clone, Copy)]
pub(super) struct MatMulNBits {
    k: usize,
    n: usize,
    bits: usize,
    block: usize,
}

/// The operator with constant weights.
#[derive(Debug)]
struct Prepacked {
    operator: MatMulNBits,
    weights: Weights,
}

/// Weights in the form that is multiplied with.
#[derive(Debug)]
enum Weights {
    /// 4 bits in blocks that the kernel reads directly.
    Nibbles {
        bytes: Buffer,
        scales: Vec<f32>,
        zero_points: Vec<f32>,
    },
    /// Anything else, widened.
    Floats(PackedB),
}

impl MatMulNBits {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        let size = |name: &str, default: Option<i64>, allowed: &dyn Fn(i64) -> bool| {
            let value = match default {
                Some(default) => node.int_or(name, default)?,
                None => *node.int(name)?,
            };
            usize::try_from(value)
                .ok()
                .filter(|_| allowed(value))
                .ok_or_else(|| OpError::Attribute {
                    name: name.into(),
                    expected: "a size that the operator knows".into(),
                    found: value.to_string(),
                })
        };
        Ok(Self {
            k: size("K", None, &|k| k > 0)?,
            n: size("N", None, &|n| n > 0)?,
            bits: size("bits", Some(4), &|bits| [2, 4, 8].contains(&bits))?,
            block: size("block_size", None, &|b| b >= 16 && b & (b - 1) == 0)?,
        })
    }

    fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// The code of column `k` of row `n`, of rows of `row_bytes` bytes.
    fn code(&self, bytes: &[u8], row_bytes: usize, n: usize, k: usize) -> u8 {
        let per_byte = 8 / self.bits;
        let byte = bytes[n * row_bytes + k / per_byte];
        let mask = ((1u16 << self.bits) - 1) as u8;
        byte >> (k % per_byte * self.bits) & mask
    }

    fn weights(
        &self,
        env: &Env,
        b: &Tensor,
        scales: &Tensor,
        zero_points: Option<&Tensor>,
        g_idx: Option<&Tensor>,
    ) -> Result<Weights, OpError> {
        let (n, k, blocks) = (self.n, self.k, self.blocks());
        // Sizes of attributes may be any; those of tensors are what there is.
        let expect = |name: &str, sizes: [usize; 2], tensor: &Tensor| {
            let len = sizes[0].checked_mul(sizes[1]);
            if len == Some(tensor.len()) {
                return Ok(());
            }
            let expected = format!("{} times {} elements", sizes[0], sizes[1]);
            let found = format!("shape {:?}", tensor.shape());
            Err(OpError::shape(name, expected, found))
        };
        let row_bytes = blocks
            .checked_mul(self.block)
            .and_then(|codes| codes.checked_mul(self.bits))
            .ok_or_else(|| OpError::TooLarge {
                what: format!("rows of {k} elements"),
            })?
            / 8;
        if b.data_type() != DataType::Uint8 {
            return Err(OpError::InputType {
                input: "B",
                expected: "uint8".into(),
                found: b.data_type(),
            });
        }
        expect("B", [n, row_bytes], b)?;
        expect("scales", [n, blocks], scales)?;
        let floats = |tensor: &Tensor| -> Result<Vec<f32>, OpError> {
            Ok(limits::copied(bytemuck::cast_slice(&constant_floats(
                tensor,
            )?)))
        };
        let scales = floats(scales)?;
        let zero_points = match zero_points {
            None => limits::filled((1u32 << (self.bits - 1)) as f32, n * blocks),
            Some(zeros) if zeros.data_type() == DataType::Uint8 => {
                let zero_bytes = (blocks * self.bits).div_ceil(8);
                expect("zero_points", [n, zero_bytes], zeros)?;
                let zero = |i| self.code(zeros.bytes(), zero_bytes, i / blocks, i % blocks);
                (0..n * blocks).map(|i| f32::from(zero(i))).collect()
            }
            Some(zeros) => {
                expect("zero_points", [n, blocks], zeros)?;
                floats(zeros)?
            }
        };
        if self.bits == 4 && self.block >= 32 && g_idx.is_none() {
            return Ok(Weights::Nibbles {
                bytes: Buffer::copy_of(b.bytes()),
                scales,
                zero_points,
            });
        }
        let groups = match g_idx {
            None => (0..k).map(|k| k / self.block).collect::<Vec<_>>(),
            Some(groups) => {
                expect("g_idx", [1, k], groups)?;
                let groups = groups.clone().aligned();
                let groups = groups.view().to_i64s()?;
                let known = |&g: &i64| usize::try_from(g).ok().filter(|&g| g < blocks);
                groups
                    .iter()
                    .map(|g| {
                        known(g).ok_or_else(|| {
                            OpError::value("g_idx", format!("blocks below {blocks}"), g)
                        })
                    })
                    .collect::<Result<_, _>>()?
            }
        };
        let mut wide = limits::zeroed(n * k);
        for (i, wide) in wide.iter_mut().enumerate() {
            let (n, k) = (i / k, i % k);
            let at = n * blocks + groups[k];
            let code = f32::from(self.code(b.bytes(), row_bytes, n, k));
            *wide = (code - zero_points[at]) * scales[at];
        }
        let bytes = bytemuck::cast_slice(&wide);
        Ok(Weights::Floats(PackedB::pack_bytes(
            env.level, bytes, k, n, 1, k,
        )))
    }

    fn multiply(&self, ctx: &mut RunContext<'_>, weights: &Weights) -> Result<(), OpError> {
        let (env, n, k) = (ctx.env, self.n, self.k);
        let (a, bias) = (ctx.input(0, "A")?, ctx.optional_input(5)?);
        if let Some(bias) = bias
            && bias.len() != n
        {
            let found = format!("{:?}", bias.shape());
            return Err(OpError::shape("bias", format!("[{n}]"), found));
        }
        let mut output = ctx.output(0)?;
        with_f32(a, |a| {
            with_optional_f32(bias, |bias| {
                write_f32(&mut output, |y| {
                    match weights {
                        Weights::Nibbles {
                            bytes,
                            scales,
                            zero_points,
                        } => {
                            let weights = Nibbles {
                                n,
                                k,
                                block: self.block,
                                bytes,
                                scales,
                                zero_points,
                            };
                            multiply(env, a, weights, bias, y);
                        }
                        Weights::Floats(packed) => gemm(
                            env,
                            Gemm {
                                a: Left::Plain(MatrixRef::new(a, a.len() / k, k)),
                                b: Right::Packed(packed.view()),
                                c: y,
                                c_row_stride: n,
                                accumulate: false,
                                epilogue: Epilogue {
                                    bias: match bias {
                                        [] => Bias::None,
                                        bias => Bias::PerColumn(bias),
                                    },
                                    ..Epilogue::default()
                                },
                            },
                        ),
                    }
                    Ok(())
                })
            })
        })
    }
}

impl Operator for MatMulNBits {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let a = inputs.required(0, "A")?;
        let data_type = a.data_type()?;
        if !sums_in_f32(data_type) {
            return Err(OpError::InputType {
                input: "A",
                expected: "float, float16 or bfloat16".into(),
                found: data_type,
            });
        }
        let mut dims = a.to_dims();
        if let Some(dims) = &mut dims {
            let last = dims.last_mut();
            match last {
                Some(Dim::Known(k)) if *k != self.k => {
                    let found = format!("{k}");
                    return Err(OpError::shape("A", format!("[.., {}]", self.k), found));
                }
                Some(last) => *last = Dim::Known(self.n),
                None => return Err(OpError::shape("A", "at least one axis", "a scalar")),
            }
        }
        Ok(OutputInfo::maybe(data_type, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let b = ctx.input(1, "B")?.to_tensor();
        let scales = ctx.input(2, "scales")?.to_tensor();
        let zero_points = ctx.optional_input(3)?.map(|t| t.to_tensor());
        let g_idx = ctx.optional_input(4)?.map(|t| t.to_tensor());
        let weights = self.weights(ctx.env, &b, &scales, zero_points.as_ref(), g_idx.as_ref())?;
        self.multiply(ctx, &weights)
    }

    fn prepare(
        &self,
        constants: &[Option<&Tensor>],
        env: &Env,
    ) -> Result<Option<Prepared>, OpError> {
        let constant = |i: usize| constants.get(i).copied().flatten();
        let (Some(b), Some(scales)) = (constant(1), constant(2)) else {
            return Ok(None);
        };
        // Constants and absent inputs look alike here; the slots tell them apart only by use, so
        // zero points and indices that are computed are refused in `run` of the prepared form.
        let weights = self.weights(env, b, scales, constant(3), constant(4))?;
        let operator = *self;
        Ok(Some(Prepared {
            operator: Box::new(Prepacked { operator, weights }),
            consumed: (1..constants.len().min(5))
                .filter(|&i| constant(i).is_some())
                .collect(),
        }))
    }
}

impl Operator for Prepacked {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        self.operator.infer(inputs)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        if ctx.optional_input(3)?.is_some() || ctx.optional_input(4)?.is_some() {
            return Err(OpError::unsupported(
                "computed zero points or indices with constant weights",
            ));
        }
        self.operator.multiply(ctx, &self.weights)
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, tensor};
    use super::*;
    use crate::kernels::env::Env;
    use crate::operator::run_alone;
    use crate::tensor::Value;

    /// Each bit width, with packed and float zero points and permuted groups, against the formula.
    #[test]
    fn all_widths_and_zero_points() {
        for (bits, block, k) in [
            (2usize, 16usize, 40usize),
            (4, 16, 32),
            (4, 32, 70),
            (8, 32, 64),
        ] {
            let (m, n) = (3, 5);
            let blocks = usize::div_ceil(k, block);
            let per_byte = 8 / bits;
            let bytes: Vec<u8> = (0..n * blocks * block / per_byte)
                .map(|i| (i * 89 % 251) as u8)
                .collect();
            let scales: Vec<f32> = (0..n * blocks).map(|i| 0.5 + i as f32 / 8.0).collect();
            let zero_bytes = (blocks * bits).div_ceil(8);
            let packed: Vec<u8> = (0..n * zero_bytes).map(|i| (i * 53 % 256) as u8).collect();
            let float_zeros: Vec<f32> = (0..n * blocks).map(|i| i as f32 / 4.0).collect();
            let groups: Vec<i32> = (0..k).map(|i| ((i * 7) % blocks) as i32).collect();
            let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let code = |bytes: &[u8], row: usize, n: usize, i: usize| {
                let byte = bytes[n * row + i / per_byte] as usize;
                (byte >> (i % per_byte * bits) & ((1 << bits) - 1)) as f32
            };
            for (zeros, grouped) in [(0, false), (1, false), (2, false), (1, true)] {
                let mut want = vec![0f32; m * n];
                for (at, want) in want.iter_mut().enumerate() {
                    let (i, j) = (at / n, at % n);
                    let sum: f64 = (0..k)
                        .map(|l| {
                            let group = if grouped {
                                groups[l] as usize
                            } else {
                                l / block
                            };
                            let zero = match zeros {
                                0 => (1 << (bits - 1)) as f32,
                                1 => code(&packed, zero_bytes, j, group),
                                _ => float_zeros[j * blocks + group],
                            };
                            let q = code(&bytes, blocks * block / per_byte, j, l);
                            a[i * k + l] as f64 * ((q - zero) * scales[j * blocks + group]) as f64
                        })
                        .sum();
                    *want = sum as f32;
                }
                let case = Case::in_domain("com.microsoft", "MatMulNBits", 1)
                    .int("K", k as i64)
                    .int("N", n as i64)
                    .int("bits", bits as i64)
                    .int("block_size", block as i64);
                let inputs: Vec<Option<Value>> = vec![
                    Some(tensor(&[m, k], &a).into()),
                    Some(tensor(&[n, blocks, block / per_byte], &bytes).into()),
                    Some(tensor(&[n * blocks], &scales).into()),
                    match zeros {
                        0 => None,
                        1 => Some(tensor(&[n * zero_bytes], &packed).into()),
                        _ => Some(tensor(&[n, blocks], &float_zeros).into()),
                    },
                    grouped.then(|| tensor(&[k], &groups).into()),
                ];
                let found = case.run(&inputs).expect("multiplies").swap_remove(0);
                let found = found.as_tensor().expect("a tensor").clone();
                assert_eq!(found.shape(), [m, n]);
                let close = |found: &Tensor| {
                    let found = found.as_slice::<f32>().expect("f32");
                    found
                        .iter()
                        .zip(&want)
                        .all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs().max(10.0))
                };
                assert!(
                    close(&found),
                    "{bits} bits, zeros {zeros}: {found:?} {want:?}"
                );

                let operator = MatMulNBits { k, n, bits, block };
                let tensors: Vec<Option<Tensor>> = inputs[1..]
                    .iter()
                    .map(|v| v.as_ref().and_then(|v| v.as_tensor().ok().cloned()))
                    .collect();
                let mut constants = vec![None];
                constants.extend(tensors.iter().map(Option::as_ref));
                let env = Env::default();
                let prepared = operator
                    .prepare(&constants, &env)
                    .expect("packs")
                    .expect("constant");
                let outputs = run_alone(&*prepared.operator, &env, &inputs[..1], 1).expect("runs");
                let found = outputs[0]
                    .as_ref()
                    .expect("an output")
                    .as_tensor()
                    .expect("a tensor");
                assert!(close(found), "{bits} bits, zeros {zeros}, prepared");
            }
        }
    }

    #[test]
    fn wrong_sizes_are_rejected() {
        let case = Case::in_domain("com.microsoft", "MatMulNBits", 1)
            .int("K", 32)
            .int("N", 2)
            .int("block_size", 32);
        let run = |a: usize, b: usize, scales: usize| {
            case.one(&[
                tensor(&[1, a], &vec![0f32; a]),
                tensor(&[b], &vec![0u8; b]),
                tensor(&[scales], &vec![0f32; scales]),
            ])
        };
        assert!(run(32, 32, 2).is_ok());
        for (a, b, scales) in [(31, 32, 2), (32, 31, 2), (32, 32, 3)] {
            assert!(
                matches!(run(a, b, scales), Err(OpError::Shape { .. })),
                "{a} {b} {scales}"
            );
        }
        let odd = Case::in_domain("com.microsoft", "MatMulNBits", 1)
            .int("K", 32)
            .int("N", 2)
            .int("block_size", 24);
        let operands = [1usize; 3].map(|n| tensor(&[n], &vec![0f32; n]));
        let found = odd.one(&operands);
        assert!(matches!(found, Err(OpError::Attribute { .. })), "{found:?}");
    }
}
