//! Matrix products.

use super::elementwise::Function;
use super::{reason, require_f32, residual_of};
use crate::device::webgpu::shader::{Dispatch, Source, shader};
use crate::device::{Meta, Request};
use crate::tensor::row_major_strides;

/// Side of a workgroup's tile in `matrix_product.wgsl`.
const TILE: usize = 16;

/// A product's sizes, and how it goes through A and B.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    /// Row and column strides of A, then of B.
    strides: [usize; 4],
    /// Up to three axes of products, outermost first: size, stride in A, stride in B.
    batch: Vec<[usize; 3]>,
    alpha: f32,
}

impl Product {
    fn dispatch(
        &self,
        request: &Request<'_>,
        bias: Option<usize>,
        residual: Option<usize>,
    ) -> Result<Vec<Dispatch>, String> {
        if self.batch.len() > 3 {
            return Err("more than three axes of products".into());
        }
        let activation = Function::activation(request.attributes)?;
        let mut parameters: Vec<u32> = [self.m, self.n, self.k].map(|v| v as u32).into();
        parameters.extend(self.strides.map(|s| s as u32));
        let floats = [self.alpha, activation.a, activation.b];
        parameters.extend(floats.map(f32::to_bits));
        for _ in self.batch.len()..3 {
            parameters.extend([1, 0, 0]);
        }
        parameters.extend(self.batch.iter().flatten().map(|&v| v as u32));
        let source = |input: Option<usize>| input.map_or(Source::Absent, Source::Input);
        let products: usize = self.batch.iter().map(|b| b[0]).product();
        Ok(vec![Dispatch {
            shader: shader!("matrix_product", ["activation"], false),
            constants: vec![
                ("CODE", activation.code.into()),
                ("HAS_BIAS", f64::from(u8::from(bias.is_some()))),
                ("HAS_RESIDUAL", f64::from(u8::from(residual.is_some()))),
            ],
            parameters,
            inputs: vec![
                Source::Input(0),
                Source::Input(1),
                source(bias),
                source(residual),
            ],
            output: 0,
            workgroups: [
                self.n.div_ceil(TILE) as u32,
                self.m.div_ceil(TILE) as u32,
                products as u32,
            ],
        }])
    }
}

pub(super) fn matmul(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs)?;
    let (a, b) = (request.input(0)?, request.input(1)?);
    if a.shape.len() < 2 || b.shape.len() < 2 {
        return Err("no kernel for vectors".into());
    }
    let flag = |name| request.attributes.flag_or(name, false).map_err(reason);
    let (m, k, a_strides) = matrix(a, flag("transA")?);
    let (_, n, b_strides) = matrix(b, flag("transB")?);
    let y = request.output(0)?;
    let residual = residual_of(request, y.shape)?;
    if !y.shape.ends_with(&[m, n]) {
        return Err("no kernel for a product that broadcasts".into());
    }
    let product = Product {
        m,
        n,
        k,
        strides: [a_strides.0, a_strides.1, b_strides.0, b_strides.1],
        batch: batch(y.shape, a, b)?,
        alpha: request.attributes.float_or("alpha", 1.0).map_err(reason)?,
    };
    let bias = request.optional_input(2).map(|_| 2);
    product.dispatch(request, bias, residual)
}

/// Rows, columns, and row and column strides of a tensor's innermost matrices.
fn matrix(meta: Meta<'_>, transposed: bool) -> (usize, usize, (usize, usize)) {
    let (rows, columns) = (
        meta.shape[meta.shape.len() - 2],
        meta.shape[meta.shape.len() - 1],
    );
    match transposed {
        false => (rows, columns, (columns, 1)),
        true => (columns, rows, (1, columns)),
    }
}

/// Axes around the matrices, neighbours merged where both inputs allow it.
fn batch(output: &[usize], a: Meta<'_>, b: Meta<'_>) -> Result<Vec<[usize; 3]>, String> {
    let rank = output.len() - 2;
    let strides = |meta: Meta<'_>| -> Vec<usize> {
        let own = row_major_strides(meta.shape);
        let before = rank - (meta.shape.len() - 2);
        (0..rank)
            .map(|i| match i.checked_sub(before) {
                Some(axis) if meta.shape[axis] != 1 => own[axis],
                _ => 0,
            })
            .collect()
    };
    let (a, b) = (strides(a), strides(b));
    let mut merged: Vec<[usize; 3]> = Vec::new();
    for i in (0..rank).filter(|&i| output[i] != 1) {
        let axis = [output[i], a[i], b[i]];
        match merged.last_mut() {
            Some(last) if last[1] == axis[1] * axis[0] && last[2] == axis[2] * axis[0] => {
                *last = [last[0] * axis[0], axis[1], axis[2]];
            }
            _ => merged.push(axis),
        }
    }
    Ok(merged)
}

pub(super) fn gemm(request: &Request<'_>) -> Result<Vec<Dispatch>, String> {
    require_f32(&request.inputs)?;
    let (a, b) = (request.input(0)?, request.input(1)?);
    let flag = |name| request.attributes.flag_or(name, false).map_err(reason);
    let beta = request.attributes.float_or("beta", 1.0).map_err(reason)?;
    let (m, k, a_strides) = matrix(a, flag("transA")?);
    let (_, n, b_strides) = matrix(b, flag("transB")?);
    let c = request.optional_input(2);
    let (bias, residual) = match c.map(|c| c.shape) {
        None => (None, None),
        Some(_) if beta != 1.0 => return Err("no kernel for a scaled C".into()),
        Some([columns]) if *columns == n => (Some(2), None),
        Some([1, columns]) if *columns == n && m != 1 => (Some(2), None),
        Some([rows, columns]) if (*rows, *columns) == (m, n) => (None, Some(2)),
        Some(other) => return Err(format!("no kernel for C of shape {other:?}")),
    };
    let product = Product {
        m,
        n,
        k,
        strides: [a_strides.0, a_strides.1, b_strides.0, b_strides.1],
        batch: Vec::new(),
        alpha: request.attributes.float_or("alpha", 1.0).map_err(reason)?,
    };
    product.dispatch(request, bias, residual)
}
