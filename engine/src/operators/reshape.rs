//! `Reshape` and `Flatten`: the same elements under another shape.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Reshape.html> (opsets 1 to 25; an attribute before
//! 5, `allowzero` since 14), <https://onnx.ai/onnx/operators/onnx__Flatten.html>.
//! Shapes: a 0 in `shape` takes the size of the input's axis (unless `allowzero`), one -1 takes
//! what is left. Types: any.

use super::axes::{IntList, KnownList};
use super::rearrange::copy_input;
use crate::error::OpError;
use crate::graph::dimension::{display_dims, known_dims, known_shape};
use crate::graph::{Attributes, Dim, Dims, Int, Ints};
use crate::operator::{InferContext, InputValue, Operator, OutputInfo, OutputInfos, RunContext};
use crate::tensor::{DataType, element_count};

/// `Reshape`.
#[derive(Debug)]
pub(super) struct Reshape {
    shape: IntList,
    allow_zero: bool,
}

/// `Reshape` before opset 5.
pub(super) struct ReshapeToAttribute;

/// `Flatten` to a matrix.
#[derive(Debug)]
pub(super) struct Flatten {
    axis: i64,
}

impl Reshape {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            shape: IntList::Input(1),
            allow_zero: node.flag_or("allowzero", false)?,
        })
    }

    fn dims(&self, from: Option<&[Dim]>, shape: &Ints) -> Result<Dims, OpError> {
        let invalid = |expected: &str| {
            let parts: Vec<String> = shape.iter().map(|i| format!("{i:?}")).collect();
            OpError::value("shape", expected, format!("[{}]", parts.join(", ")))
        };
        let mut dims = Dims::new();
        let mut rest = None;
        for (axis, int) in shape.iter().enumerate() {
            dims.push(match int {
                Int::Known(0) if !self.allow_zero => match from {
                    Some(from) => from
                        .get(axis)
                        .cloned()
                        .ok_or_else(|| invalid("a 0 only where the input has an axis"))?,
                    None => Dim::Unknown,
                },
                Int::Known(-1) if rest.is_some() => return Err(invalid("at most one -1")),
                Int::Known(-1) => {
                    rest = Some(axis);
                    Dim::Unknown
                }
                Int::Known(n) if *n < 0 => return Err(invalid("sizes of at least -1")),
                other => other.to_dim()?,
            });
        }
        if self.allow_zero && rest.is_some() && dims.contains(&Dim::Known(0)) {
            return Err(invalid("no -1 beside a 0, since allowzero is set"));
        }
        let Some(from) = from else { return Ok(dims) };
        let fits = match rest {
            Some(axis) => {
                let others = dims.iter().enumerate().filter(|(i, _)| *i != axis);
                let left = quotient(from.iter(), others.map(|(_, dim)| dim));
                left.map(|dim| dims[axis] = dim)
            }
            None => {
                let known = known_shape(&dims);
                match (known, known_shape(from)) {
                    (Some(to), Some(from)) => {
                        (element_count(&to) == element_count(&from)).then_some(())
                    }
                    _ => Some(()),
                }
            }
        };
        fits.ok_or_else(|| {
            OpError::shape(
                "data",
                format!("a shape that fits {}", display_dims(Some(&dims))),
                display_dims(Some(from)),
            )
        })?;
        Ok(dims)
    }
}

/// What the sizes `from`, multiplied, are over the sizes `by`; equal symbols cancel. `None` where
/// the division leaves a rest.
fn quotient<'a>(
    from: impl Iterator<Item = &'a Dim>,
    by: impl Iterator<Item = &'a Dim>,
) -> Option<Dim> {
    let mut product = 1usize;
    let mut symbols: Vec<Dim> = Vec::new();
    for dim in from {
        match dim {
            Dim::Known(n) => product = product.checked_mul(*n)?,
            other => symbols.push(other.clone()),
        }
    }
    let mut divisor = 1usize;
    let mut exact = true;
    for dim in by {
        match dim {
            Dim::Known(n) => divisor = divisor.checked_mul(*n)?,
            other => match symbols.iter().position(|s| s.surely_equals(other)) {
                Some(at) => drop(symbols.swap_remove(at)),
                None => exact = false,
            },
        }
    }
    match symbols.as_slice() {
        _ if !exact => Some(Dim::Unknown),
        // Any size fits beside a 0; the other operators then see an empty tensor.
        [] if divisor == 0 => (product == 0).then_some(Dim::Known(0)),
        [] => product
            .is_multiple_of(divisor)
            .then(|| Dim::Known(product / divisor)),
        [symbol] if product == divisor => Some(symbol.clone()),
        _ => Some(Dim::Unknown),
    }
}

impl ReshapeToAttribute {
    pub(super) fn parse(node: &Attributes) -> Result<Reshape, OpError> {
        Ok(Reshape {
            shape: IntList::Attribute(Some(node.optional_ints("shape")?.unwrap_or(&[]).to_vec())),
            allow_zero: false,
        })
    }
}

impl Operator for Reshape {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "data")?;
        let dims = match self.shape.infer(inputs) {
            KnownList::Absent => return Err(OpError::MissingInput { input: "shape" }),
            KnownList::Unknown => None,
            KnownList::Ints(shape) => Some(self.dims(data.dims, &shape)?),
        };
        let ints = data
            .ints
            .filter(|_| dims.as_ref().is_some_and(|d| d.len() <= 1));
        Ok(OutputInfo::maybe(data.data_type()?, dims)
            .with_ints(ints.map(Into::into))
            .into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        reshape_input(ctx, "data", |ctx, from| {
            let shape = self.shape.read(ctx)?.unwrap_or_default();
            let shape = shape.into_iter().map(Int::Known).collect();
            self.dims(Some(from), &shape)
        })
    }

    fn is_alias(&self) -> bool {
        true
    }
}

/// Copies input 0 to output 0. Strings are never planned into the arena, so no memory has the
/// output's shape already and `dims` must say it.
pub(super) fn reshape_input(
    ctx: &mut RunContext<'_>,
    name: &'static str,
    dims: impl FnOnce(&RunContext<'_>, &[Dim]) -> Result<Dims, OpError>,
) -> Result<(), OpError> {
    let InputValue::Tensor(view) = ctx.value(0, name)? else {
        return copy_input(ctx, name);
    };
    if view.data_type() != DataType::String {
        return copy_input(ctx, name);
    }
    let shape = known_shape(&dims(ctx, &known_dims(view.shape()))?);
    let shape = shape.ok_or_else(|| OpError::value("shape", "sizes", "none"))?;
    ctx.set_output(0, view.to_tensor().reshaped(&shape)?)
}

impl Flatten {
    pub(super) fn parse(node: &Attributes) -> Result<Self, OpError> {
        Ok(Self {
            axis: node.int_or("axis", 1)?,
        })
    }

    fn dims(&self, from: &[Dim]) -> Result<Dims, OpError> {
        let rank = from.len() as i64;
        let axis = if self.axis < 0 {
            self.axis.saturating_add(rank)
        } else {
            self.axis
        };
        let split = usize::try_from(axis)
            .ok()
            .and_then(|axis| from.split_at_checked(axis));
        let Some((rows, columns)) = split else {
            let range = format!("a number from -{rank} to {rank}");
            return Err(OpError::value("axis", range, self.axis));
        };
        let one = [Dim::Known(1)];
        let product = |dims: &[Dim]| quotient(dims.iter(), one.iter()).unwrap_or(Dim::Unknown);
        Ok([product(rows), product(columns)].into_iter().collect())
    }
}

impl Operator for Flatten {
    fn infer(&self, inputs: &InferContext<'_>) -> Result<OutputInfos, OpError> {
        let data = inputs.required(0, "input")?;
        let dims = match data.dims {
            Some(from) => self.dims(from)?,
            None => Dims::from_elem(Dim::Unknown, 2),
        };
        Ok(OutputInfo::tensor(data.data_type()?, dims).into())
    }

    fn run(&self, ctx: &mut RunContext<'_>) -> Result<(), OpError> {
        reshape_input(ctx, "input", |_, from| self.dims(from))
    }

    fn is_alias(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, ints, strings, tensor};
    use super::*;

    #[test]
    fn reshape_follows_its_shape() {
        let data = tensor(&[2, 3, 4], &[1u8; 24]);
        let cases: &[(&[i64], Option<&[usize]>)] = &[
            (&[4, 6], Some(&[4, 6])),
            (&[0, -1], Some(&[2, 12])),
            (&[-1], Some(&[24])),
            (&[0, 0, 0, 0], None),
            (&[2, -1, -1], None),
            (&[5, -1], None),
            (&[-2, 12], None),
            (&[24, 0, 0], None),
        ];
        for (shape, expected) in cases {
            let found = Case::of("Reshape", 14).one(&[data.clone(), ints(shape)]);
            assert_eq!(
                found.ok().as_ref().map(|t| t.shape()),
                *expected,
                "{shape:?}"
            );
        }
        let old = Case::of("Reshape", 1).ints("shape", &[3, -1]).one(&[data]);
        assert_eq!(old.expect("fits").shape(), [3, 8]);
    }

    #[test]
    fn zero_is_a_size_where_it_is_allowed() {
        let case = Case::of("Reshape", 14).int("allowzero", 1);
        let empty = tensor::<f32>(&[0, 4], &[]);
        let found = case.one(&[empty.clone(), ints(&[3, 0])]);
        assert_eq!(found.expect("fits").shape(), [3, 0]);
        assert!(case.one(&[empty, ints(&[-1, 0])]).is_err());
    }

    #[test]
    fn equal_symbols_cancel() {
        let reshape = Reshape::parse(&Attributes::new(14, 1)).expect("no attributes");
        let n = Dim::Symbol("n".into());
        let from = [n.clone(), Dim::Known(4), Dim::Known(6)];
        let shape: Ints = [Int::Symbol("n".into()), Int::Known(-1)]
            .into_iter()
            .collect();
        let dims = reshape.dims(Some(&from), &shape).expect("fits");
        assert_eq!(dims[..], [n.clone(), Dim::Known(24)]);
        let shape: Ints = [-1, 24].into_iter().map(Int::Known).collect();
        assert_eq!(reshape.dims(Some(&from), &shape).expect("fits")[0], n);
    }

    #[test]
    fn strings_are_reshaped_too() {
        let text = strings(&[2, 1], &["a", "b"]);
        let found = Case::of("Reshape", 14).one(&[text.clone(), ints(&[2])]);
        assert_eq!(found, Ok(strings(&[2], &["a", "b"])));
        let found = Case::of("Flatten", 13).int("axis", 0).one(&[text]);
        assert_eq!(found, Ok(strings(&[1, 2], &["a", "b"])));
    }

    #[test]
    fn flatten_makes_a_matrix() {
        let data = tensor(&[2, 3, 4], &[1u8; 24]);
        for (axis, expected) in [(0, [1, 24]), (1, [2, 12]), (3, [24, 1]), (-1, [6, 4])] {
            let found = Case::of("Flatten", 13)
                .int("axis", axis)
                .one(&[data.clone()]);
            assert_eq!(found.expect("fits").shape(), expected, "axis {axis}");
        }
        assert!(Case::of("Flatten", 13).int("axis", 4).one(&[data]).is_err());
    }
}
