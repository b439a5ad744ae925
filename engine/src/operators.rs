//! The one table of operators.
//!
//! A row says: domain, type, the opset version since which the implementation holds, and the
//! implementation. Where a type has several rows the newest one not above the model's opset is
//! taken. The rows generate the coverage test, `docs/operators.md` and the message for an operator
//! that is not here.

use crate::error::OpError;
use crate::graph::Attributes;
use crate::operator::Operator;

mod constant_of_shape;

/// The long name of ONNX's default domain.
pub const ONNX_DOMAIN: &str = "ai.onnx";
/// Operators that rewrites make and no file contains.
pub const LETHE_DOMAIN: &str = "ai.lethe";

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The domain, the default one as `ai.onnx`.
    pub domain: &'static str,
    /// The operator's type, such as `Conv`.
    pub op_type: &'static str,
    /// The first opset version that this row implements.
    pub since: i64,
    /// Makes the operator from a node's attributes.
    pub parse: fn(&Attributes) -> Result<Box<dyn Operator>, OpError>,
}

macro_rules! operators {
    ($(($domain:literal, $op_type:literal, $since:literal, $($path:ident)::+),)*) => {
        /// Every operator that this build has.
        pub const TABLE: &[Entry] = &[
            $(Entry {
                domain: $domain,
                op_type: $op_type,
                since: $since,
                parse: |attributes| Ok(Box::new($($path)::+::parse(attributes)?)),
            },)*
        ];
    };
}

// One row a line, sorted by domain and type within each family.
#[rustfmt::skip]
operators! {
    // domain    type               since  implementation
    // -- generators
    ("ai.onnx", "ConstantOfShape",     9, constant_of_shape::ConstantOfShape),
}

/// The row for an operator of a model that imports `opset` of `domain`.
pub fn find(domain: &str, op_type: &str, opset: i64) -> Option<&'static Entry> {
    TABLE
        .iter()
        .filter(|e| e.op_type == op_type && e.domain == domain && e.since <= opset)
        .max_by_key(|e| e.since)
}
