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
    /// A name: equal names within a model are equal sizes.
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

    /// Whether the two are certainly equal.
    pub fn surely_equals(&self, other: &Self) -> bool {
        self != &Self::Unknown && self == other
    }
}

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
