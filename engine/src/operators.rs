//! The one table of operators.
//!
//! A row says: domain, type, the opset version since which the implementation holds, and the
//! implementation. Where a type has several rows the newest one not above the model's opset is
//! taken. The rows generate the coverage test, `docs/operators.md` and the message for an operator
//! that is not here.

use crate::error::OpError;
use crate::graph::Attributes;
use crate::operator::Operator;

mod axes;
mod broadcasting;
#[cfg(test)]
mod case;
mod cast;
mod concat;
mod constant_of_shape;
mod expand;
mod fused;
mod gather;
mod gemm;
mod identity;
mod matmul;
mod pad;
mod range;
mod rearrange;
mod reshape;
mod select;
mod shape;
mod slice;
mod split;
mod squeeze;
mod trilu;

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
    // -- matrix products
    ("ai.lethe", "FusedGemm",          1, gemm::FusedGemm),
    ("ai.lethe", "FusedMatMul",        1, matmul::FusedMatMul),
    ("ai.onnx", "Gemm",                1, gemm::Gemm),
    ("ai.onnx", "MatMul",              1, matmul::MatMul),
    // -- shapes and movement of elements
    ("ai.onnx", "BitCast",            26, cast::BitCast),
    ("ai.onnx", "Cast",                1, cast::CastByName),
    ("ai.onnx", "Cast",                6, cast::Cast),
    ("ai.onnx", "CastLike",           15, cast::CastLike),
    ("ai.onnx", "Concat",              1, concat::ConcatDefaultAxis),
    ("ai.onnx", "Concat",              4, concat::Concat),
    ("ai.onnx", "Expand",              8, expand::Expand),
    ("ai.onnx", "Flatten",             1, reshape::Flatten),
    ("ai.onnx", "Gather",              1, gather::Gather),
    ("ai.onnx", "GatherElements",     11, gather::GatherElements),
    ("ai.onnx", "GatherND",           11, gather::GatherNd),
    ("ai.onnx", "Identity",            1, identity::Identity),
    ("ai.onnx", "Pad",                 1, pad::PadFirst),
    ("ai.onnx", "Pad",                 2, pad::PadAttributes),
    ("ai.onnx", "Pad",                11, pad::Pad),
    ("ai.onnx", "Range",              11, range::Range),
    ("ai.onnx", "Reshape",             1, reshape::ReshapeToAttribute),
    ("ai.onnx", "Reshape",             5, reshape::Reshape),
    ("ai.onnx", "Shape",               1, shape::Shape),
    ("ai.onnx", "Size",                1, shape::Size),
    ("ai.onnx", "Slice",               1, slice::SliceAttributes),
    ("ai.onnx", "Slice",              10, slice::Slice),
    ("ai.onnx", "Split",               1, split::SplitAttributeLengths),
    ("ai.onnx", "Split",              13, split::Split),
    ("ai.onnx", "Squeeze",             1, squeeze::SqueezeAttributeAxes),
    ("ai.onnx", "Squeeze",            13, squeeze::Squeeze),
    ("ai.onnx", "Tile",                1, expand::TileOneAxis),
    ("ai.onnx", "Tile",                6, expand::Tile),
    ("ai.onnx", "Trilu",              14, trilu::Trilu),
    ("ai.onnx", "Unsqueeze",           1, squeeze::UnsqueezeAttributeAxes),
    ("ai.onnx", "Unsqueeze",          13, squeeze::Unsqueeze),
    ("ai.onnx", "Where",               9, select::Where),
}

/// The row for an operator of a model that imports `opset` of `domain`.
pub fn find(domain: &str, op_type: &str, opset: i64) -> Option<&'static Entry> {
    TABLE
        .iter()
        .filter(|e| e.op_type == op_type && e.domain == domain && e.since <= opset)
        .max_by_key(|e| e.since)
}
