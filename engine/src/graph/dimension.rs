//! Sizes and integers that may be known only by name, or not at all.

use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

use crate::error::OpError;
use crate::tensor::Shape;

/// Size of an axis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// A name. What a model declares may give one name to sizes that differ in a run, so equal
    /// names are equal sizes only in what is [proved](super::Graph::proved).
    Symbol(Arc<str>),
    /// Anything.
    Unknown,
}

/// Sizes of a tensor's axes.
pub type Dims = SmallVec<[Dim; 8]>;

impl Dim {
    /// A size that a model or a signature declares: below 0 it is not known, and where this machine
    /// cannot count to it, it is larger than any tensor's.
    pub fn declared(size: i64) -> Self {
        match size {
            ..0 => Self::Unknown,
            _ => Self::Known(usize::try_from(size).unwrap_or(usize::MAX)),
        }
    }

    /// The number, if it is known.
    pub fn known(&self) -> Option<usize> {
        match self {
            Self::Known(n) => Some(*n),
            _ => None,
        }
    }

    /// Whether the two are certainly equal, where equal names are.
    pub fn surely_equals(&self, other: &Self) -> bool {
        self != &Self::Unknown && self == other
    }

    /// Whether the two may well be equal: where nothing is known of one, it is not the 1 that
    /// broadcasts, and a size that is one of several is that of its names.
    pub(crate) fn likely_equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unknown, other) | (other, Self::Unknown) => *other != Self::Known(1),
            (Self::Symbol(a), Self::Symbol(b)) => {
                let among = |a: &str, b: &str| a.split('|').all(|a| b.split('|').any(|b| a == b));
                among(a, b) || among(b, a)
            }
            (a, b) => a == b,
        }
    }

    /// The size that axes of two names broadcast to, `a|b`: the same for the same two names, in
    /// whichever order they come together with others.
    pub(crate) fn either(a: &str, b: &str) -> Self {
        let mut names: SmallVec<[&str; 2 * NAMES_JOINED]> = a.split('|').collect();
        names.extend(b.split('|'));
        names.sort_unstable();
        names.dedup();
        match names.len() {
            0..=NAMES_JOINED => Self::Symbol(names.join("|").into()),
            _ => Self::Unknown,
        }
    }
}

/// Names of which one size may be made: what is known stays small however many a model has.
const NAMES_JOINED: usize = 8;

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Self::Known(n)
    }
}

/// All dimensions as numbers, or `None` where one is not known.
pub fn known_shape(dims: &[Dim]) -> Option<Shape> {
    dims.iter().map(Dim::known).collect()
}

/// Numbers as dimensions.
pub fn known_dims(shape: &[usize]) -> Dims {
    shape.iter().map(|&n| Dim::Known(n)).collect()
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(n) => write!(f, "{n}"),
            Self::Symbol(name) => f.write_str(name),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// `[2, batch, ?]`.
pub fn display_dims(dims: Option<&[Dim]>) -> String {
    let Some(dims) = dims else {
        return "[..]".into();
    };
    let parts: Vec<String> = dims.iter().map(Dim::to_string).collect();
    format!("[{}]", parts.join(", "))
}

/// An element of a small integer tensor (a shape, an axis) as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Int {
    /// A number.
    Known(i64),
    /// The size of a named axis.
    Symbol(Arc<str>),
    /// Anything.
    Unknown,
}

/// Elements of a small integer tensor.
pub type Ints = SmallVec<[Int; 8]>;

impl Int {
    /// The number, if it is known.
    pub fn known(&self) -> Option<i64> {
        match self {
            Self::Known(n) => Some(*n),
            _ => None,
        }
    }

    /// The integer as a size: negative numbers are not one.
    ///
    /// # Errors
    /// Where it is larger than what this machine can count to.
    pub fn to_dim(&self) -> Result<Dim, OpError> {
        Ok(match self {
            Self::Known(..0) | Self::Unknown => Dim::Unknown,
            Self::Known(n) => match usize::try_from(*n) {
                Ok(size) => Dim::Known(size),
                Err(_) => {
                    let what = format!("a size of {n}");
                    return Err(OpError::TooLarge { what });
                }
            },
            Self::Symbol(name) => Dim::Symbol(name.clone()),
        })
    }
}

impl From<&Dim> for Int {
    fn from(dim: &Dim) -> Self {
        match dim {
            Dim::Known(n) => i64::try_from(*n).map_or(Self::Unknown, Self::Known),
            Dim::Symbol(name) => Self::Symbol(name.clone()),
            Dim::Unknown => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_likely_is_less_than_sure() {
        let symbol = |name: &str| Dim::Symbol(name.into());
        let (one, two, n, m) = (Dim::Known(1), Dim::Known(2), symbol("n"), symbol("m"));
        for (a, b, likely) in [
            (&one, &one, true),
            (&two, &one, false),
            (&n, &n, true),
            (&n, &m, false),
            (&n, &symbol("m|n"), true),
            (&symbol("m|n"), &symbol("k|n"), false),
            (&n, &two, false),
            (&Dim::Unknown, &Dim::Unknown, true),
            (&Dim::Unknown, &two, true),
            (&Dim::Unknown, &n, true),
            (&Dim::Unknown, &one, false),
        ] {
            assert_eq!(a.likely_equals(b), likely, "{a} and {b}");
            assert_eq!(b.likely_equals(a), likely, "{b} and {a}");
            assert!(!a.surely_equals(b) || likely, "{a} and {b}");
        }
    }
}
