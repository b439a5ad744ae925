//! Whether a value is the expected one, and if not, where it first differs.
//!
//! Floating-point elements pass where
//! `|found - expected| <= atol + atol_rms * rms(expected) + rtol * |expected|`; a share of
//! `outliers` may lie outside. Integers, truth values and strings must be equal.

use lethe_engine::tensor::{Map, MapKeys};
use lethe_engine::{Tensor, Value};

use crate::values::Elements;

/// How far floating-point elements may be off. The defaults are those of the ONNX backend tests.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Tolerance {
    /// Relative to the expected element.
    pub rtol: f64,
    /// Absolute.
    pub atol: f64,
    /// Relative to the root of the mean square of the expected elements.
    pub atol_rms: f64,
    /// Share of elements that may be off by more.
    pub outliers: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            rtol: 1e-3,
            atol: 1e-7,
            atol_rms: 0.0,
            outliers: 0.0,
        }
    }
}

/// How a value differs from the expected one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Difference {
    /// Another kind of value or element type.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// The expected kind.
        expected: String,
        /// The kind found.
        found: String,
    },
    /// Another shape.
    #[error("expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The expected shape.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Other elements.
    #[error(
        "{count} of {total} elements differ, first {index:?}: expected {expected}, found {found}{largest}"
    )]
    Elements {
        /// How many elements are off.
        count: usize,
        /// How many there are.
        total: usize,
        /// Index of the first one.
        index: Vec<usize>,
        /// The expected element.
        expected: String,
        /// The element found.
        found: String,
        /// The largest difference, where there is such a thing.
        largest: String,
    },
    /// An element of a sequence, map or optional differs.
    #[error("{place}: {source}")]
    Inside {
        /// Which element.
        place: String,
        /// How it differs.
        source: Box<Difference>,
    },
    /// Something else is not as expected.
    #[error("{what}: expected {expected}, found {found}")]
    Fact {
        /// What is compared.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
}

impl Tolerance {
    /// How far an element may be off when the expected elements have this root mean square.
    pub(super) fn allows(&self, expected: f64, found: f64, rms: f64) -> bool {
        // An infinity has no neighbourhood: only equality will do.
        expected == found
            || (expected.is_nan() && found.is_nan())
            || expected.is_finite()
                && (found - expected).abs()
                    <= self.atol + self.atol_rms * rms + self.rtol * expected.abs()
    }

    /// Whether so many of so many elements may be off.
    pub(super) fn allows_outliers(&self, count: usize, total: usize) -> bool {
        count as f64 <= self.outliers * total as f64
    }
}

/// Compares a value with the expected one.
///
/// # Errors
/// How it differs.
pub fn compare(expected: &Value, found: &Value, tolerance: &Tolerance) -> Result<(), Difference> {
    match (expected, found) {
        (Value::Tensor(expected), Value::Tensor(found)) => {
            compare_tensors(expected, found, tolerance)
        }
        (Value::Sequence(expected), Value::Sequence(found)) => {
            compare_facts("length", expected.values.len(), found.values.len())?;
            let pairs = expected.values.iter().zip(&found.values);
            pairs.enumerate().try_for_each(|(i, (expected, found))| {
                compare(expected, found, tolerance).map_err(|e| inside(format!("element {i}"), e))
            })
        }
        (Value::Map(expected), Value::Map(found)) => compare_maps(expected, found, tolerance),
        (Value::Optional(expected), Value::Optional(found)) => {
            match (&expected.value, &found.value) {
                (None, None) => Ok(()),
                (Some(expected), Some(found)) => compare(expected, found, tolerance),
                (expected, found) => {
                    compare_facts("has a value", expected.is_some(), found.is_some())
                }
            }
        }
        // A present optional and what is in it are written alike.
        (expected, Value::Optional(found)) if found.value.is_some() => match &found.value {
            Some(found) => compare(expected, found, tolerance),
            None => Ok(()),
        },
        (Value::Optional(expected), found) if expected.value.is_some() => match &expected.value {
            Some(expected) => compare(expected, found, tolerance),
            None => Ok(()),
        },
        _ => Err(Difference::Kind {
            expected: expected.kind().to_string(),
            found: found.kind().to_string(),
        }),
    }
}

fn inside(place: String, source: Difference) -> Difference {
    Difference::Inside {
        place,
        source: Box::new(source),
    }
}

fn compare_facts<T: PartialEq + ToString>(
    what: &'static str,
    expected: T,
    found: T,
) -> Result<(), Difference> {
    match expected == found {
        true => Ok(()),
        false => Err(Difference::Fact {
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

/// Maps have no order.
fn compare_maps(expected: &Map, found: &Map, tolerance: &Tolerance) -> Result<(), Difference> {
    let keys = |map: &Map| -> Vec<String> {
        match &map.keys {
            MapKeys::Integers(_, keys) => keys.iter().map(ToString::to_string).collect(),
            MapKeys::Strings(keys) => keys.clone(),
        }
    };
    let (expected_keys, found_keys) = (keys(expected), keys(found));
    compare_facts("keys", expected_keys.len(), found_keys.len())?;
    compare_types(&expected.values, &found.values)?;
    let (wanted, got) = (Elements::of(&expected.values), Elements::of(&found.values));
    for (i, key) in expected_keys.iter().enumerate() {
        let Some(at) = found_keys.iter().position(|k| k == key) else {
            return Err(Difference::Fact {
                what: "keys",
                expected: expected_keys.join(", "),
                found: found_keys.join(", "),
            });
        };
        if !element_passes(&wanted, i, &got, at, tolerance, 0.0) {
            let place = format!("key {key}");
            let difference = Difference::Fact {
                what: "value",
                expected: wanted.show(i).to_string(),
                found: got.show(at).to_string(),
            };
            return Err(inside(place, difference));
        }
    }
    Ok(())
}

fn compare_types(expected: &Tensor, found: &Tensor) -> Result<(), Difference> {
    match expected.data_type() == found.data_type() {
        true => Ok(()),
        false => Err(Difference::Kind {
            expected: format!("a tensor of {}", expected.data_type()),
            found: format!("one of {}", found.data_type()),
        }),
    }
}

fn compare_types_and_shapes(expected: &Tensor, found: &Tensor) -> Result<(), Difference> {
    compare_types(expected, found)?;
    match expected.shape() == found.shape() {
        true => Ok(()),
        false => Err(Difference::Shape {
            expected: expected.shape().into(),
            found: found.shape().into(),
        }),
    }
}

/// Compares a tensor with the expected one.
///
/// # Errors
/// How it differs.
pub fn compare_tensors(
    expected: &Tensor,
    found: &Tensor,
    tolerance: &Tolerance,
) -> Result<(), Difference> {
    compare_types_and_shapes(expected, found)?;
    let (wanted, got) = (Elements::of(expected), Elements::of(found));
    let rms = root_mean_square(&wanted);
    let off: Vec<usize> = (0..wanted.len())
        .filter(|&i| !element_passes(&wanted, i, &got, i, tolerance, rms))
        .collect();
    match off.first() {
        Some(&first) if !tolerance.allows_outliers(off.len(), wanted.len()) => {
            Err(Difference::Elements {
                count: off.len(),
                total: wanted.len(),
                index: index_of(first, expected.shape()),
                expected: wanted.show(first).to_string(),
                found: got.show(first).to_string(),
                largest: largest_difference(&wanted, &got),
            })
        }
        _ => Ok(()),
    }
}

fn element_passes(
    expected: &Elements<'_>,
    i: usize,
    found: &Elements<'_>,
    j: usize,
    tolerance: &Tolerance,
    rms: f64,
) -> bool {
    match (expected, found) {
        (Elements::Reals(e), Elements::Reals(f)) => tolerance.allows(e[i], f[j], rms),
        (Elements::Complexes(e), Elements::Complexes(f)) => {
            tolerance.allows(e[i].0, f[j].0, rms) && tolerance.allows(e[i].1, f[j].1, rms)
        }
        (Elements::Integers(e), Elements::Integers(f)) => e[i] == f[j],
        (Elements::Bools(e), Elements::Bools(f)) => e[i] == f[j],
        (Elements::Strings(e), Elements::Strings(f)) => e[i] == f[j],
        _ => false,
    }
}

fn root_mean_square(elements: &Elements<'_>) -> f64 {
    let squares: Vec<f64> = match elements {
        Elements::Reals(v) => v.iter().map(|x| x * x).collect(),
        Elements::Complexes(v) => v.iter().map(|(re, im)| re * re + im * im).collect(),
        _ => return 0.0,
    };
    let finite = squares.iter().filter(|s| s.is_finite());
    (finite.sum::<f64>() / squares.len().max(1) as f64).sqrt()
}

fn largest_difference(expected: &Elements<'_>, found: &Elements<'_>) -> String {
    let (Elements::Reals(expected), Elements::Reals(found)) = (expected, found) else {
        return String::new();
    };
    let differences = expected.iter().zip(found).map(|(e, f)| (e - f).abs());
    let largest = differences.filter(|d| !d.is_nan()).fold(0.0, f64::max);
    format!("; largest difference {largest:.3e}")
}

/// Compares what can be compared of random outputs: type, shape, and that the elements lie in the
/// range of the expected ones, widened by its width on both sides.
///
/// # Errors
/// How they differ.
pub fn compare_range(expected: &Value, found: &Value) -> Result<(), Difference> {
    let (Value::Tensor(expected), Value::Tensor(found)) = (expected, found) else {
        return compare_facts(
            "kind",
            expected.kind().to_string(),
            found.kind().to_string(),
        );
    };
    compare_types_and_shapes(expected, found)?;
    let reals = |tensor: &Tensor| Elements::of(tensor).to_reals();
    let (Some(wanted), Some(got)) = (reals(expected), reals(found)) else {
        return Ok(());
    };
    let least = wanted.iter().copied().fold(f64::INFINITY, f64::min);
    let most = wanted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let width = (most - least).max(least.abs()).max(1.0);
    match got
        .iter()
        .find(|x| !(least - width..=most + width).contains(x))
    {
        None => Ok(()),
        Some(outside) => Err(Difference::Fact {
            what: "range",
            expected: format!("about {least} to {most}"),
            found: outside.to_string(),
        }),
    }
}

/// Index along each axis of the `linear`-th element.
pub(super) fn index_of(mut linear: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let at = linear % size;
            linear /= size;
            at
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_engine::DataType;

    fn floats(elements: &[f32]) -> Value {
        Tensor::from_slice(&[elements.len()], elements)
            .unwrap()
            .into()
    }

    #[test]
    fn tolerances_are_those_of_the_formula() {
        let exact = Tolerance {
            rtol: 0.0,
            atol: 0.0,
            ..Tolerance::default()
        };
        let cases = [
            ("equal", exact, [1.0, -2.0], [1.0, -2.0], true),
            ("off", exact, [1.0, -2.0], [1.0, -2.1], false),
            (
                "rtol",
                Tolerance { rtol: 0.1, ..exact },
                [1.0, -2.0],
                [1.0, -2.1],
                true,
            ),
            (
                "rtol of the other",
                Tolerance { rtol: 0.1, ..exact },
                [0.5, -2.0],
                [0.6, -2.0],
                false,
            ),
            (
                "atol",
                Tolerance { atol: 0.2, ..exact },
                [0.0, 0.0],
                [0.1, -0.1],
                true,
            ),
            (
                "rms",
                Tolerance {
                    atol_rms: 0.1,
                    ..exact
                },
                [3.0, 4.0],
                [3.3, 4.0],
                true,
            ),
            (
                "above rms",
                Tolerance {
                    atol_rms: 0.1,
                    ..exact
                },
                [3.0, 4.0],
                [3.4, 4.0],
                false,
            ),
            (
                "an outlier",
                Tolerance {
                    outliers: 0.5,
                    ..exact
                },
                [3.0, 4.0],
                [9.0, 4.0],
                true,
            ),
            (
                "two outliers",
                Tolerance {
                    outliers: 0.5,
                    ..exact
                },
                [3.0, 4.0],
                [9.0, 9.0],
                false,
            ),
            ("NaN", exact, [f32::NAN, 1.0], [f32::NAN, 1.0], true),
            (
                "NaN for a number",
                exact,
                [1.0, 1.0],
                [f32::NAN, 1.0],
                false,
            ),
            (
                "infinity",
                exact,
                [f32::INFINITY, 1.0],
                [f32::INFINITY, 1.0],
                true,
            ),
            (
                "the other infinity",
                Tolerance::default(),
                [f32::INFINITY, 1.0],
                [f32::NEG_INFINITY, 1.0],
                false,
            ),
        ];
        for (name, tolerance, expected, found, passes) in cases {
            let result = compare(&floats(&expected), &floats(&found), &tolerance);
            assert_eq!(result.is_ok(), passes, "{name}: {result:?}");
        }
    }

    #[test]
    fn the_first_difference_is_told() {
        let expected = Tensor::from_slice(&[2, 3], &[0i64, 1, 2, 3, 4, 5]).unwrap();
        let found = Tensor::from_slice(&[2, 3], &[0i64, 1, 2, 9, 4, 9]).unwrap();
        let difference = compare(&expected.into(), &found.into(), &Tolerance::default());
        assert_eq!(
            difference.unwrap_err().to_string(),
            "2 of 6 elements differ, first [1, 0]: expected 3, found 9"
        );
    }

    #[test]
    fn other_types_and_shapes_differ() {
        let tolerance = Tolerance::default();
        let one = floats(&[1.0]);
        let scalar: Value = Tensor::scalar(1.0f32).into();
        let double: Value = Tensor::from_slice(&[1], &[1.0f64]).unwrap().into();
        for other in [scalar, double] {
            assert!(compare(&one, &other, &tolerance).is_err(), "{other:?}");
            assert!(compare_range(&one, &other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn maps_are_compared_by_key() {
        let map = |keys: &[&str], values: &[f32]| {
            Value::Map(Map {
                keys: MapKeys::Strings(keys.iter().map(ToString::to_string).collect()),
                values: Tensor::from_slice(&[values.len()], values).unwrap(),
            })
        };
        let expected = map(&["a", "b"], &[1.0, 2.0]);
        let tolerance = Tolerance::default();
        assert_eq!(
            compare(&expected, &map(&["b", "a"], &[2.0, 1.0]), &tolerance),
            Ok(())
        );
        for other in [map(&["b", "a"], &[1.0, 2.0]), map(&["a", "c"], &[1.0, 2.0])] {
            assert!(compare(&expected, &other, &tolerance).is_err());
        }
    }

    #[test]
    fn random_outputs_keep_their_range() {
        let expected = floats(&[0.0, 0.5, 1.0]);
        assert_eq!(compare_range(&expected, &floats(&[0.9, 0.1, -0.2])), Ok(()));
        assert!(compare_range(&expected, &floats(&[0.9, 0.1, 7.0])).is_err());
        assert!(compare_range(&expected, &floats(&[0.9, 0.1, f32::NAN])).is_err());
        let text = Tensor::from_strings(&[3], vec![String::new(); 3]).unwrap();
        assert_eq!(text.data_type(), DataType::String);
        assert!(compare_range(&expected, &text.into()).is_err());
    }
}
