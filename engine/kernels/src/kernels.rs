//! The fast loops: plain functions over slices, generic over the instruction set.
//!
//! Every kernel takes an [`Env`](env::Env), which says with which instructions, how exactly and on
//! how many threads to compute, and enters its vector code through
//! [`isa::dispatch`](crate::isa::dispatch).

pub mod attention;
pub mod block_quantized;
pub mod conversion;
pub mod convolution;
pub mod elementwise;
pub mod env;
pub mod gemm;
pub mod half_precision;
pub mod integer_gemm;
pub mod normalization;
pub mod offload;
pub mod plain_product;
pub mod pooling;
pub mod quantization;
pub mod reduction;
pub mod rows;
pub mod scratch;
pub mod softmax;
pub mod threads;
pub mod transpose;
pub mod vector_math;
