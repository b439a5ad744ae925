//! The one table of operators.
//!
//! A row says: domain, type, the opset version since which the implementation holds, and the
//! implementation. Where a type has several rows the newest one not above the model's opset is
//! taken. The rows generate the coverage test, `docs/operators.md` and the message for an operator
//! that is not here.

use crate::error::OpError;
use crate::graph::Attributes;
use crate::operator::Operator;

mod activations;
mod arg_extremum;
mod arithmetic;
mod attention;
mod axes;
mod bias_gelu;
mod binary;
mod blocks;
mod broadcasting;
mod byte_convolution;
mod byte_products;
#[cfg(test)]
mod case;
mod cast;
mod channel_normalization;
mod choose;
mod clip;
mod comparisons;
mod concat;
mod conditional;
mod constant_of_shape;
mod conv;
mod cumulative;
mod dropout;
mod einsum;
mod element_types;
mod expand;
#[cfg(test)]
mod extremes;
mod fused;
mod gather;
mod gemm;
mod grid_sample;
mod grouped_query_attention;
mod identity;
mod layer_normalization;
mod linear_quantization;
mod logic;
mod loops;
mod matmul;
mod matmul_nbits;
mod ml;
mod non_max_suppression;
mod one_hot;
mod pad;
mod pool;
mod pow;
mod predicates;
mod prelu;
mod range;
mod real_functions;
mod rearrange;
mod recurrent;
mod reduce;
mod reshape;
mod resize;
mod rotary_embedding;
mod scatter;
mod select;
mod sequence;
mod shape;
mod shrink;
mod signs;
mod slice;
mod softmax;
mod split;
mod squeeze;
mod top_k;
mod transpose;
mod trilu;
mod variadic;
mod vector_normalization;
mod widened;
mod window;

/// The long name of ONNX's default domain.
pub const ONNX_DOMAIN: &str = "ai.onnx";
/// Operators that rewrites make and no file contains.
pub const LETHE_DOMAIN: &str = "ai.lethe";

/// A row of the table. Its layout is fixed for who reads the table in a compiled module.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
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
        pub static TABLE: [Entry; [$($op_type),*].len()] = [
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
    // -- functions of one element
    ("ai.onnx", "Acos",                7, real_functions::Acos),
    ("ai.onnx", "Asin",                7, real_functions::Asin),
    ("ai.onnx", "Atan",                7, real_functions::Atan),
    ("ai.onnx", "Cos",                 7, real_functions::Cos),
    ("ai.onnx", "Sin",                 7, real_functions::Sin),
    ("ai.onnx", "Tan",                 7, real_functions::Tan),
    ("ai.onnx", "Acosh",               9, real_functions::Acosh),
    ("ai.onnx", "Asinh",               9, real_functions::Asinh),
    ("ai.onnx", "Atanh",               9, real_functions::Atanh),
    ("ai.onnx", "Cosh",                9, real_functions::Cosh),
    ("ai.onnx", "Sinh",                9, real_functions::Sinh),
    ("ai.onnx", "Erf",                 9, real_functions::Erf),
    ("ai.onnx", "Ceil",                1, real_functions::Ceil),
    ("ai.onnx", "Exp",                 1, real_functions::Exp),
    ("ai.onnx", "Floor",               1, real_functions::Floor),
    ("ai.onnx", "Log",                 1, real_functions::Log),
    ("ai.onnx", "Reciprocal",          1, real_functions::Reciprocal),
    ("ai.onnx", "Sigmoid",             1, real_functions::Sigmoid),
    ("ai.onnx", "Softplus",            1, real_functions::Softplus),
    ("ai.onnx", "Softsign",            1, real_functions::Softsign),
    ("ai.onnx", "Sqrt",                1, real_functions::Sqrt),
    ("ai.onnx", "Tanh",                1, real_functions::Tanh),
    ("ai.onnx", "Round",              11, real_functions::Round),
    ("ai.onnx", "HardSwish",          14, real_functions::HardSwish),
    ("ai.onnx", "Mish",               18, real_functions::Mish),
    ("ai.onnx", "Celu",               12, activations::Celu),
    ("ai.onnx", "Elu",                 1, activations::Elu),
    ("ai.onnx", "Gelu",               20, activations::Gelu),
    ("ai.onnx", "HardSigmoid",         1, activations::HardSigmoid),
    ("ai.onnx", "LeakyRelu",           1, activations::LeakyRelu),
    ("ai.onnx", "Selu",                1, activations::Selu),
    ("ai.onnx", "Swish",              24, activations::Swish),
    ("ai.onnx", "ThresholdedRelu",    10, activations::ThresholdedRelu),
    ("com.microsoft", "Gelu",                1, activations::Gelu),
    ("com.microsoft", "QuickGelu",           1, activations::QuickGelu),
    ("com.microsoft", "BiasGelu",            1, bias_gelu::BiasGelu),
    ("com.microsoft", "FastGelu",            1, bias_gelu::FastGelu),
    ("ai.onnx", "Abs",                 1, signs::Abs),
    ("ai.onnx", "BitwiseNot",         18, signs::BitwiseNot),
    ("ai.onnx", "Neg",                 1, signs::Neg),
    ("ai.onnx", "Relu",                1, signs::Relu),
    ("ai.onnx", "Sign",                9, signs::Sign),
    ("ai.onnx", "Clip",                1, clip::Clip),
    ("ai.onnx", "PRelu",               1, prelu::PRelu),
    ("ai.onnx", "Shrink",              9, shrink::Shrink),
    ("ai.onnx", "IsInf",              10, predicates::IsInf),
    ("ai.onnx", "IsNaN",               9, predicates::IsNaN),
    ("ai.onnx", "Not",                 1, predicates::Not),
    ("ai.onnx", "Identity",            1, identity::Identity),
    ("ai.onnx", "Dropout",             1, dropout::Dropout),
    // -- reductions and axes
    ("ai.onnx", "ArgMax",              1, arg_extremum::ArgMax),
    ("ai.onnx", "ArgMin",              1, arg_extremum::ArgMin),
    ("ai.onnx", "CumProd",            26, cumulative::CumProd),
    ("ai.onnx", "CumSum",             11, cumulative::CumSum),
    ("ai.onnx", "ReduceL1",            1, reduce::ReduceL1),
    ("ai.onnx", "ReduceL2",            1, reduce::ReduceL2),
    ("ai.onnx", "ReduceLogSum",        1, reduce::ReduceLogSum),
    ("ai.onnx", "ReduceLogSumExp",     1, reduce::ReduceLogSumExp),
    ("ai.onnx", "ReduceMax",           1, reduce::ReduceMax),
    ("ai.onnx", "ReduceMean",          1, reduce::ReduceMean),
    ("ai.onnx", "ReduceMin",           1, reduce::ReduceMin),
    ("ai.onnx", "ReduceProd",          1, reduce::ReduceProd),
    ("ai.onnx", "ReduceSum",           1, reduce::ReduceSum),
    ("ai.onnx", "ReduceSumSquare",     1, reduce::ReduceSumSquare),
    ("ai.onnx", "Transpose",           1, transpose::Transpose),
    // -- normalisation
    ("ai.onnx", "BatchNormalization",  1, channel_normalization::BatchNormalization),
    ("ai.onnx", "GroupNormalization", 18, channel_normalization::GroupNormalization),
    ("ai.onnx", "Hardmax",             1, softmax::Hardmax),
    ("ai.onnx", "InstanceNormalization",  1, channel_normalization::InstanceNormalization),
    ("ai.onnx", "LRN",                 1, vector_normalization::Lrn),
    // onnxruntime writes it into files of older versions than the standard's, 17.
    ("ai.onnx", "LayerNormalization",  1, layer_normalization::LayerNormalization),
    ("ai.onnx", "LogSoftmax",          1, softmax::LogSoftmax),
    ("ai.onnx", "LpNormalization",     1, vector_normalization::LpNormalization),
    ("ai.onnx", "MeanVarianceNormalization",  9, vector_normalization::MeanVarianceNormalization),
    ("ai.onnx", "RMSNormalization",   23, layer_normalization::RmsNormalization),
    ("ai.onnx", "SimplifiedLayerNormalization",  1, layer_normalization::RmsNormalization),
    ("ai.onnx", "Softmax",             1, softmax::Softmax),
    ("com.microsoft", "SimplifiedLayerNormalization",  1, layer_normalization::RmsNormalization),
    ("com.microsoft", "SkipLayerNormalization",  1, layer_normalization::SkipLayerNormalization),
    ("com.microsoft", "SkipSimplifiedLayerNormalization",  1, layer_normalization::SkipSimplifiedLayerNormalization),
    // -- functions of several elements
    ("ai.onnx", "Add",                 1, arithmetic::Add),
    ("ai.onnx", "Div",                 1, arithmetic::Div),
    ("ai.onnx", "Mod",                10, arithmetic::Mod),
    ("ai.onnx", "Mul",                 1, arithmetic::Mul),
    ("ai.onnx", "Sub",                 1, arithmetic::Sub),
    ("ai.onnx", "Pow",                 1, pow::Pow),
    ("ai.onnx", "Equal",               1, comparisons::Equal),
    ("ai.onnx", "Greater",             1, comparisons::Greater),
    ("ai.onnx", "GreaterOrEqual",     12, comparisons::GreaterOrEqual),
    ("ai.onnx", "Less",                1, comparisons::Less),
    ("ai.onnx", "LessOrEqual",        12, comparisons::LessOrEqual),
    ("ai.onnx", "And",                 1, logic::And),
    ("ai.onnx", "Or",                  1, logic::Or),
    ("ai.onnx", "Xor",                 1, logic::Xor),
    ("ai.onnx", "BitShift",           11, logic::BitShift),
    ("ai.onnx", "BitwiseAnd",         18, logic::BitwiseAnd),
    ("ai.onnx", "BitwiseOr",          18, logic::BitwiseOr),
    ("ai.onnx", "BitwiseXor",         18, logic::BitwiseXor),
    ("ai.onnx", "Max",                 1, variadic::Max),
    ("ai.onnx", "Mean",                1, variadic::Mean),
    ("ai.onnx", "Min",                 1, variadic::Min),
    ("ai.onnx", "Sum",                 1, variadic::Sum),
    // -- generators
    ("ai.onnx", "ConstantOfShape",     9, constant_of_shape::ConstantOfShape),
    // -- classical models
    ("ai.onnx.ml", "ArrayFeatureExtractor", 1, ml::scaling::ArrayFeatureExtractor),
    ("ai.onnx.ml", "Binarizer",        1, ml::scaling::Binarizer),
    ("ai.onnx.ml", "FeatureVectorizer", 1, ml::scaling::FeatureVectorizer),
    ("ai.onnx.ml", "Imputer",          1, ml::scaling::Imputer),
    ("ai.onnx.ml", "LinearClassifier", 1, ml::linear::LinearClassifier),
    ("ai.onnx.ml", "LinearRegressor",  1, ml::linear::LinearRegressor),
    ("ai.onnx.ml", "Normalizer",       1, ml::scaling::Normalizer),
    ("ai.onnx.ml", "Scaler",           1, ml::scaling::Scaler),
    ("ai.onnx.ml", "TreeEnsemble",     5, ml::trees::TreeEnsemble),
    ("ai.onnx.ml", "TreeEnsembleClassifier", 1, ml::trees::TreeEnsembleClassifier),
    ("ai.onnx.ml", "TreeEnsembleRegressor", 1, ml::trees::TreeEnsembleRegressor),
    ("ai.onnx.ml", "ZipMap",           1, ml::zip_map::ZipMap),
    // -- sequences and optionals
    ("ai.onnx", "ConcatFromSequence", 11, sequence::ConcatFromSequence),
    ("ai.onnx", "Optional",           15, sequence::Optional),
    ("ai.onnx", "OptionalGetElement", 15, sequence::OptionalGetElement),
    ("ai.onnx", "OptionalHasElement", 15, sequence::OptionalHasElement),
    ("ai.onnx", "SequenceAt",         11, sequence::SequenceAt),
    ("ai.onnx", "SequenceConstruct",  11, sequence::SequenceConstruct),
    ("ai.onnx", "SequenceEmpty",      11, sequence::SequenceEmpty),
    ("ai.onnx", "SequenceErase",      11, sequence::SequenceErase),
    ("ai.onnx", "SequenceInsert",     11, sequence::SequenceInsert),
    ("ai.onnx", "SequenceLength",     11, sequence::SequenceLength),
    ("ai.onnx", "SplitToSequence",    11, sequence::SplitToSequence),
    // -- images
    ("ai.onnx", "Resize",             10, resize::ResizeByScales),
    ("ai.onnx", "Resize",             11, resize::Resize),
    ("ai.onnx", "Upsample",            7, resize::UpsampleByAttribute),
    ("ai.onnx", "Upsample",            9, resize::Upsample),
    ("ai.onnx", "GridSample",         16, grid_sample::GridSample),
    ("ai.onnx", "NonMaxSuppression",  10, non_max_suppression::NonMaxSuppression),
    // -- control flow
    ("ai.onnx", "If",                  1, conditional::If),
    ("ai.onnx", "Loop",                1, loops::Loop),
    ("ai.onnx", "Scan",                8, loops::ScanBatches),
    ("ai.onnx", "Scan",                9, loops::Scan),
    // -- convolutions and pools
    ("ai.lethe", "FusedConv",          1, conv::FusedConv),
    ("ai.onnx", "AveragePool",         1, pool::AveragePool),
    ("ai.onnx", "Conv",                1, conv::Conv),
    ("ai.onnx", "ConvTranspose",       1, conv::ConvTranspose),
    ("ai.onnx", "GlobalAveragePool",   1, pool::GlobalAveragePool),
    ("ai.onnx", "GlobalLpPool",        1, pool::GlobalLpPool),
    ("ai.onnx", "GlobalMaxPool",       1, pool::GlobalMaxPool),
    ("ai.onnx", "LpPool",              1, pool::LpPool),
    ("ai.onnx", "MaxPool",             1, pool::MaxPool),
    // -- recurrent layers
    ("ai.onnx", "GRU",                 1, recurrent::Gru),
    ("ai.onnx", "LSTM",                1, recurrent::Lstm),
    ("ai.onnx", "RNN",                 1, recurrent::Rnn),
    // -- matrix products
    ("ai.lethe", "FusedGemm",          1, gemm::FusedGemm),
    ("ai.lethe", "FusedMatMul",        1, matmul::FusedMatMul),
    ("ai.onnx", "Einsum",             12, einsum::Einsum),
    ("ai.onnx", "Gemm",                1, gemm::Gemm),
    ("ai.onnx", "MatMul",              1, matmul::MatMul),
    // -- attention
    ("ai.lethe", "FusedAttention",     1, attention::FusedAttention),
    ("ai.onnx", "Attention",          23, attention::Attention),
    ("ai.onnx", "RotaryEmbedding",    23, rotary_embedding::RotaryEmbedding),
    ("com.microsoft", "GroupQueryAttention", 1, grouped_query_attention::GroupQueryAttention),
    ("com.microsoft", "RotaryEmbedding", 1, rotary_embedding::RotaryEmbeddingMicrosoft),
    // -- quantisation
    ("ai.lethe", "QuantizeRowsMatMul", 1, byte_products::QuantizeRowsMatMul),
    ("ai.onnx", "DequantizeLinear",   10, linear_quantization::DequantizeLinear),
    ("ai.onnx", "DynamicQuantizeLinear", 11, linear_quantization::DynamicQuantizeLinear),
    ("ai.onnx", "ConvInteger",        10, byte_convolution::ConvInteger),
    ("ai.onnx", "QLinearConv",        10, byte_convolution::QLinearConv),
    ("ai.onnx", "MatMulInteger",      10, byte_products::MatMulInteger),
    ("ai.onnx", "QLinearMatMul",      10, byte_products::QLinearMatMul),
    ("ai.onnx", "QuantizeLinear",     10, linear_quantization::QuantizeLinear),
    ("com.microsoft", "DequantizeLinear", 1, linear_quantization::DequantizeLinear),
    ("com.microsoft", "DynamicQuantizeMatMul", 1, byte_products::DynamicQuantizeMatMul),
    ("com.microsoft", "MatMulIntegerToFloat", 1, byte_products::MatMulIntegerToFloat),
    ("com.microsoft", "MatMulNBits",   1, matmul_nbits::MatMulNBits),
    ("com.microsoft", "QuantizeLinear", 1, linear_quantization::QuantizeLinear),
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
    ("ai.onnx", "Compress",            9, choose::Compress),
    ("ai.onnx", "DepthToSpace",        1, blocks::DepthToSpace),
    ("ai.onnx", "EyeLike",             9, blocks::EyeLike),
    ("ai.onnx", "NonZero",             9, choose::NonZero),
    ("ai.onnx", "OneHot",              9, one_hot::OneHot),
    ("ai.onnx", "ReverseSequence",    10, blocks::ReverseSequence),
    ("ai.onnx", "Scatter",             9, scatter::ScatterElements),
    ("ai.onnx", "ScatterElements",    11, scatter::ScatterElements),
    ("ai.onnx", "ScatterND",          11, scatter::ScatterNd),
    ("ai.onnx", "SpaceToDepth",        1, blocks::SpaceToDepth),
    ("ai.onnx", "TopK",                1, top_k::TopKAttribute),
    ("ai.onnx", "TopK",               10, top_k::TopK),
    ("ai.onnx", "Unique",             11, choose::Unique),
    ("ai.onnx", "Where",               9, select::Where),
}

/// The row for an operator of a model that imports `opset` of `domain`.
pub fn find(domain: &str, op_type: &str, opset: i64) -> Option<&'static Entry> {
    TABLE
        .iter()
        .filter(|e| e.op_type == op_type && e.domain == domain && e.since <= opset)
        .max_by_key(|e| e.since)
}
