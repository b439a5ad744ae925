//! `Cast`, `CastLike` and `BitCast`: the same numbers, or the same bits, as another element type.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Cast.html> (opsets 1 to 25),
//! <https://onnx.ai/onnx/operators/onnx__CastLike.html> and
//! <https://onnx.ai/onnx/operators/onnx__BitCast.html> (26).
//! Shapes: `input: [..]` → `output: [..]`. Types: all but complex.
//! Numbers become text in their shortest form that reads back (`1.5`, `1e-7`, `NaN`, `INF`).

use std::borrow::Cow;

use half::{bf16, f16};

use super::rearrange::copy_input;
use crate::error::OpError;
use crate::graph::Attributes;
use crate::kernels::conversion::{PowerRounding, SmallFloatRounding, convert};
use crate::limits::{self, Watch};
use crate::operator::{InferContext, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{
    Buffer, DataType, Strings, Tensor, TensorView, TensorViewMut, decode_small_float,
};

/// `Cast`: the type is an attribute.
#[derive(Debug)]
pub(super) struct Cast {
    to: DataType,
    rounding: SmallFloatRounding,
}

/// `Cast` before opset 6, where `to` is the type's name.
pub(super) struct CastByName;

/// `CastLike`: the type is that of the second input.
#[derive(Debug)]
pub(super) struct CastLike {
    rounding: SmallFloatRounding,
}

/// `BitCast`.
#[derive(Debug)]
pub(super) struct BitCast {
    to: DataType,
}

fn rounding(node: &Attributes) -> Result<SmallFloatRounding, OpError> {
    let power = match node.string_or("round_mode", "up")? {
        "up" => PowerRounding::Up,
        "down" => PowerRounding::Down,
        "nearest" => PowerRounding::Nearest,
        other => {
            return Err(OpError::Attribute {
                name: "round_mode".into(),
                expected: "up, down or nearest".into(),
                found: other.into(),
            });
        }
    };
    Ok(SmallFloatRounding {
        saturate: node.flag_or("saturate", true)?,
        power,
    })
}

fn target(node: &Attributes) -> Result<DataType, OpError> {
    node.optional_data_type("to")?
        .ok_or_else(|| OpError::MissingAttribute { name: "to".into() })
}

impl Cast {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            to: target(node)?,
            rounding: rounding(node)?,
        })
    }
}

impl CastByName {
    pub(super) fn parse(node: &Attributes) -> Result<Cast, OpError> {
        let name = node.string("to")?;
        let to = match name {
            "FLOAT" => DataType::Float32,
            "DOUBLE" => DataType::Float64,
            other => other
                .to_ascii_lowercase()
                .parse()
                .map_err(|_| OpError::Attribute {
                    name: "to".into(),
                    expected: "the name of an element type".into(),
                    found: other.into(),
                })?,
        };
        Ok(Cast {
            to,
            rounding: SmallFloatRounding::default(),
        })
    }
}

impl CastLike {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            rounding: rounding(node)?,
        })
    }
}

impl BitCast {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self { to: target(node)? })
    }
}

fn infer_cast(inputs: &InferContext<'_>, to: DataType) -> Result<OutputInfos, OpError> {
    let input = inputs.required(0, "input")?;
    let from = input.data_type()?;
    let keeps = |t| matches!(t, DataType::Int64 | DataType::Int32);
    let ints = input.ints.filter(|_| keeps(from) && keeps(to));
    Ok(OutputInfo::maybe(to, input.to_dims())
        .with_ints(ints.map(Into::into))
        .into())
}

impl Operator for Cast {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        infer_cast(inputs, self.to)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        cast(ctx, self.to, self.rounding)
    }
}

impl Operator for CastLike {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let to = inputs.required(1, "target_type")?.data_type()?;
        infer_cast(inputs, to)
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        let to = ctx.input_type(1, "target_type")?;
        cast(ctx, to, self.rounding)
    }
}

impl Operator for BitCast {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let input = inputs.required(0, "input")?;
        let from = input.data_type()?;
        if from.bits() != self.to.bits() || from == DataType::String {
            return Err(OpError::InputType {
                input: "input",
                expected: format!("elements of {} bits", self.to.bits()),
                found: from,
            });
        }
        Ok(OutputInfo::maybe(self.to, input.to_dims()).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        copy_input(ctx, "input")
    }
}

fn cast(
    ctx: &mut RunContext<'_>,
    to: DataType,
    rounding: SmallFloatRounding,
) -> Result<(), OpError> {
    let input = ctx.input(0, "input")?;
    if to == DataType::String {
        let tensor = Tensor::of_strings(input.shape(), to_strings(input)?)?;
        return ctx.set_output(0, tensor);
    }
    let Some(mut output) = ctx.optional_output(0) else {
        return Ok(());
    };
    if input.data_type() != DataType::String {
        return convert(input, &mut output, rounding);
    }
    from_strings(input.as_strings()?, &mut output, rounding)
}

fn from_strings(
    strings: &[String],
    output: &mut TensorViewMut<'_>,
    rounding: SmallFloatRounding,
) -> Result<(), OpError> {
    let not_a_number =
        |text: &String| OpError::value("input", "text that is a number", format!("{text:?}"));
    let shape = [strings.len()];
    if output.data_type().is_integer() {
        let parse = |text: &String| {
            let text = text.trim();
            let integer = text.parse::<i64>();
            let unsigned = || text.parse::<u64>().map(|x| x as i64);
            integer
                .or_else(|_| unsigned())
                .or_else(|_| text.parse::<f64>().map(|x| x as i64))
        };
        let numbers = parsed(strings, |s| parse(s).map_err(|_| not_a_number(s)))?;
        let bytes = bytemuck::cast_slice(&numbers);
        let view = TensorView::from_bytes(DataType::Int64, &shape, bytes);
        return convert(view, output, rounding);
    }
    let numbers = parsed(strings, |s| {
        s.trim().parse::<f64>().map_err(|_| not_a_number(s))
    })?;
    let bytes = bytemuck::cast_slice(&numbers);
    let view = TensorView::from_bytes(DataType::Float64, &shape, bytes);
    convert(view, output, rounding)
}

fn parsed<T>(
    strings: &[String],
    parse: impl Fn(&String) -> Result<T, OpError>,
) -> Result<Vec<T>, OpError> {
    let mut numbers = limits::with_room(strings.len());
    let mut watch = Watch::begin();
    for text in strings {
        watch.count(64 + text.len());
        numbers.push(parse(text)?);
    }
    Ok(numbers)
}

/// Digits of single precision and of narrower types, and of double precision: C's `%.8g` and `%.17g`,
/// by which onnxruntime writes numbers.
const SINGLE_DIGITS: usize = 8;
const DOUBLE_DIGITS: usize = 17;

/// A number in so many significant digits, without zeros at its end: as C's `%g` writes it, but for
/// what is not finite.
fn float_text(x: impl Into<f64>, digits: usize) -> String {
    let x = x.into();
    if x.is_nan() {
        return "NaN".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "INF" } else { "-INF" }.into();
    }
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let scientific = format!("{x:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..digits as i32).contains(&exponent) {
        let decimals = (digits as i32 - 1 - exponent).unsigned_abs() as usize;
        return trimmed(&format!("{x:.decimals$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.unsigned_abs())
}

fn to_strings(input: TensorView<'_>) -> Result<Strings, OpError> {
    use DataType::*;
    macro_rules! texts {
        ($elements:expr, $text:expr) => {
            Strings::collect($elements.iter().map(|&x| Cow::from($text(x))))?
        };
    }
    let single = |x: f32| float_text(x, SINGLE_DIGITS);
    Ok(match input.data_type() {
        String => Strings::copy_of(input.as_strings()?)?,
        Bool => texts!(input.as_slice()?, |b: crate::tensor::Bool| if b.get() {
            "True"
        } else {
            "False"
        }),
        Float64 => texts!(input.as_slice()?, |x: f64| float_text(x, DOUBLE_DIGITS)),
        Float32 => texts!(input.as_slice()?, single),
        Float16 => texts!(input.as_slice()?, |x: f16| single(x.to_f32())),
        Bfloat16 => texts!(input.as_slice()?, |x: bf16| single(x.to_f32())),
        Uint64 => texts!(input.as_slice()?, |x: u64| x.to_string()),
        small if small.is_small_float() => {
            let codes: Vec<u8> = match small.is_sub_byte() {
                true => crate::tensor::packed::unpack_codes(small, input.bytes(), input.len()),
                false => limits::copied(input.bytes()),
            };
            texts!(codes, |code: u8| {
                float_text(decode_small_float(small, code), SINGLE_DIGITS)
            })
        }
        other => {
            let mut buffer = Buffer::try_zeroed(input.len() * 8)?;
            let mut wide = TensorViewMut::from_bytes(Int64, input.shape(), &mut buffer);
            if matches!(other, Complex64 | Complex128) {
                return Err(OpError::unsupported(format!("conversion from {other}")));
            }
            convert(input, &mut wide, SmallFloatRounding::default())?;
            texts!(wide.as_mut_slice()?, |x: i64| x.to_string())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, strings, tensor};
    use super::*;
    use crate::graph::attributes::Attribute;

    fn to(data_type: DataType) -> Case {
        Case::of("Cast", 13).with("to", Attribute::Int(data_type as i64))
    }

    #[test]
    fn numbers_are_written_as_onnxruntime_writes_them() {
        let floats = [
            (0.1, "0.1"),
            (1e20, "1e+20"),
            (123_456.78, "123456.78"),
            (16_777_216.0, "16777216"),
            (123_456_789.0, "1.2345679e+08"),
            (1.220_703_1e-4, "0.00012207031"),
            (1.25e-5, "1.25e-05"),
            (-0.0, "-0"),
            (f32::MAX, "3.4028235e+38"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "-INF"),
        ];
        let (numbers, texts): (Vec<f32>, Vec<&str>) = floats.into_iter().unzip();
        let len = texts.len();
        assert_eq!(
            to(DataType::String).one(&[tensor(&[len], &numbers)]),
            Ok(strings(&[len], &texts))
        );
        assert_eq!(
            to(DataType::String).one(&[tensor(&[2], &[0.1f64, 1e16])]),
            Ok(strings(&[2], &["0.10000000000000001", "10000000000000000"]))
        );
    }

    #[test]
    fn cast_converts_numbers_and_text() {
        let floats = tensor(&[3], &[1.5f32, -2.0, f32::INFINITY]);
        assert_eq!(
            to(DataType::String).one(&[floats.clone()]),
            Ok(strings(&[3], &["1.5", "-2", "INF"]))
        );
        assert_eq!(
            to(DataType::Float32).one(&[strings(&[3], &["1.5", "-2", "+INF"])]),
            Ok(floats)
        );
        assert_eq!(
            to(DataType::Int32).one(&[strings(&[2], &["12", "1E3"])]),
            Ok(tensor(&[2], &[12i32, 1000]))
        );
        assert!(to(DataType::Int32).one(&[strings(&[1], &["x"])]).is_err());
        let halves = tensor(&[1], &[f16::from_f32(0.1)]);
        assert_eq!(
            to(DataType::String).one(&[halves]),
            Ok(strings(&[1], &["0.099975586"]))
        );
    }

    #[test]
    fn the_first_cast_names_its_type() {
        let case = Case::of("Cast", 1).with("to", Attribute::String("FLOAT".into()));
        assert_eq!(
            case.one(&[tensor(&[1], &[3i32])]),
            Ok(tensor(&[1], &[3f32]))
        );
    }

    #[test]
    fn bit_cast_keeps_bits_and_rejects_other_widths() {
        let case = |t: DataType| Case::of("BitCast", 26).with("to", Attribute::Int(t as i64));
        let ones = tensor(&[1], &[1f32]);
        assert_eq!(
            case(DataType::Uint32).one(&[ones.clone()]),
            Ok(tensor(&[1], &[0x3f80_0000u32]))
        );
        assert!(case(DataType::Uint64).one(&[ones]).is_err());
    }
}
