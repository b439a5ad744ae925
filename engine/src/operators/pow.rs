//! `Pow`: `Z = X^Y`.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Pow.html>, opsets 1, 7, 12, 13, 15.
//! Shapes: `X` and `Y` broadcast to each other → `Z`. Types: numbers; since opset 12 the exponent
//! may have another type than the base, which the result has. Integer powers wrap; a real power of
//! an integer is computed in f64 and truncated.

use smallvec::SmallVec;

use super::binary::Broadcasting;
use super::element_types::{
    FromDouble, NUMBERS, elements_or_in_place, match_f32_like, match_integer, match_type, refused,
};
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::elementwise::{
    Arithmetic, BinaryFunction, Expansion, Number, Operand, Unary, arithmetic, broadcast_shape,
    map, zip,
};
use crate::limits;
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, Element, TensorView};

/// The operator.
#[derive(Debug)]
pub(super) struct Pow {
    broadcasting: Broadcasting,
}

impl Pow {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            broadcasting: Broadcasting::parse(node)?,
        })
    }
}

impl Operator for Pow {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data_type = inputs.data_type_of(0, "X", NUMBERS)?;
        inputs.data_type_of(1, "Y", NUMBERS)?;
        Ok(OutputInfo::maybe(data_type, self.broadcasting.infer(inputs)?).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let exponent = ctx.input(1, "Y")?;
        let base_type = ctx.input_type(0, "X")?;
        let base_rank = ctx.input_shape(0, "X")?.len();
        if let (true, true) = (exponent.len() == 1, exponent.rank() <= base_rank) {
            let exponent = doubles(exponent)?[0];
            return match_f32_like!(base_type; T => {
                let function = Unary::Pow { exponent: exponent as f32 };
                let x = elements_or_in_place::<T>(ctx, 0, "X")?;
                map(ctx.env, function, x, ctx.output(0)?.as_mut_slice()?);
                Ok(())
            }; _ => self.run_pairs(ctx, base_type));
        }
        self.run_pairs(ctx, base_type)
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }
}

impl Pow {
    fn run_pairs(&self, ctx: &mut RunContext<'_>, base_type: DataType) -> Result<(), OpError> {
        let exponent = ctx.input(1, "Y")?;
        if exponent.data_type() == base_type {
            return match_type!(base_type; f32, f64, half::f16, half::bf16 as T =>
                self.broadcasting.run(ctx, arithmetic::<T>(Arithmetic::Pow));
                other => match_integer!(other; T =>
                    self.broadcasting.run(ctx, arithmetic::<T>(Arithmetic::Pow));
                    other => Err(refused(other))));
        }
        // Types differ: both as f64, which is exact but for large 64-bit integers.
        let exponents = doubles(exponent)?;
        match_type!(base_type; f32, f64, half::f16, half::bf16 as T =>
            power_of_doubles::<T>(ctx, &exponents, |x| x.into(), FromDouble::from_double);
            other => match_integer!(other; T =>
                power_of_doubles::<T>(ctx, &exponents, |x| x as f64, |y| y as T);
                other => Err(refused(other))))
    }
}

/// All elements as f64.
fn doubles(view: TensorView<'_>) -> Result<SmallVec<[f64; 1]>, OpError> {
    match_type!(view.data_type(); f32, f64, half::f16, half::bf16 as T =>
        Ok(view.as_slice::<T>()?.iter().map(|&x| x.into()).collect());
        other => match_integer!(other; T =>
            Ok(view.as_slice::<T>()?.iter().map(|&x| x as f64).collect());
            other => Err(refused(other))))
}

fn power_of_doubles<T: Element>(
    ctx: &mut RunContext<'_>,
    exponents: &[f64],
    widen: impl Fn(T) -> f64,
    narrow: impl Fn(f64) -> T,
) -> Result<(), OpError> {
    let (base_shape, exponent_shape) = (ctx.input_shape(0, "X")?, ctx.input_shape(1, "Y")?);
    let mut output = ctx.output(0)?;
    let y = output.as_mut_slice::<T>()?;
    let bases: Vec<f64> = match ctx.is_in_place(0) {
        true => y.iter().map(|&x| widen(x)).collect(),
        false => ctx
            .input(0, "X")?
            .as_slice::<T>()?
            .iter()
            .map(|&x| widen(x))
            .collect(),
    };
    let shape = broadcast_shape(&[base_shape, exponent_shape]).ok_or_else(|| {
        OpError::shape(
            "Y",
            format!("{base_shape:?}"),
            format!("{exponent_shape:?}"),
        )
    })?;
    let power: BinaryFunction<f64, f64> = <f64 as Number>::function(Arithmetic::Pow);
    let operand =
        |elements, shape_of| Operand::Elements(elements, Expansion::new(shape_of, &shape));
    let mut powers = limits::zeroed(y.len());
    zip(
        ctx.env,
        power,
        &operand(&bases, base_shape),
        &operand(exponents, exponent_shape),
        &mut powers,
    );
    for (y, power) in y.iter_mut().zip(powers) {
        *y = narrow(power);
    }
    Ok(())
}
