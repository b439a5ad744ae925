//! The one table of operators.
//!
//! A row says: domain, type, the opset version since which the implementation holds, the
//! implementation, and which inputs, outputs and attributes a node may have ([`Signature`]). Where a
//! type has several rows the newest one not above the model's opset is taken. The rows generate the
//! coverage test, `docs/operators.md` and the message for an operator that is not here.

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
#[cfg(test)]
mod endings;
mod expand;
#[cfg(test)]
mod extremes;
mod fused;
mod fused_attention;
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
mod signature;
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

pub(crate) use signature::{CONSTANT, newest_opset};
pub use signature::{NEWEST_OPSETS, Signature};

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
    /// What a node may have: inputs, outputs and attributes, with the opsets that have them.
    pub signature: Signature,
}

macro_rules! operators {
    ($(($domain:literal, $op_type:literal, $since:literal, $($path:ident)::+, $signature:literal),)*) => {
        /// Every operator that this build has.
        pub static TABLE: [Entry; [$($op_type),*].len()] = [
            $(Entry {
                domain: $domain,
                op_type: $op_type,
                since: $since,
                parse: |attributes| Ok(Box::new($($path)::+::parse(attributes)?)),
                signature: Signature($signature),
            },)*
        ];
    };
}

// Sorted by domain and type within each family.
#[rustfmt::skip]
operators! {
    // domain    type               since  implementation, inputs -> outputs : attributes
    // -- functions of one element
    ("ai.onnx", "Acos",                7, real_functions::Acos, "input -> output"),
    ("ai.onnx", "Asin",                7, real_functions::Asin, "input -> output"),
    ("ai.onnx", "Atan",                7, real_functions::Atan, "input -> output"),
    ("ai.onnx", "Cos",                 7, real_functions::Cos, "input -> output"),
    ("ai.onnx", "Sin",                 7, real_functions::Sin, "input -> output"),
    ("ai.onnx", "Tan",                 7, real_functions::Tan, "input -> output"),
    ("ai.onnx", "Acosh",               9, real_functions::Acosh, "input -> output"),
    ("ai.onnx", "Asinh",               9, real_functions::Asinh, "input -> output"),
    ("ai.onnx", "Atanh",               9, real_functions::Atanh, "input -> output"),
    ("ai.onnx", "Cosh",                9, real_functions::Cosh, "input -> output"),
    ("ai.onnx", "Sinh",                9, real_functions::Sinh, "input -> output"),
    ("ai.onnx", "Erf",                 9, real_functions::Erf, "input -> output"),
    ("ai.onnx", "Ceil",                1, real_functions::Ceil, "X -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "Exp",                 1, real_functions::Exp, "input -> output : consumed_inputs~@..6"),
    ("ai.onnx", "Floor",               1, real_functions::Floor, "X -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "Log",                 1, real_functions::Log, "input -> output : consumed_inputs~@..6"),
    ("ai.onnx", "Reciprocal",          1, real_functions::Reciprocal, "X -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "Sigmoid",             1, real_functions::Sigmoid, "X -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "Softplus",            1, real_functions::Softplus, "X -> Y"),
    ("ai.onnx", "Softsign",            1, real_functions::Softsign, "input -> output"),
    ("ai.onnx", "Sqrt",                1, real_functions::Sqrt, "X -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "Tanh",                1, real_functions::Tanh, "input -> output : consumed_inputs~@..6"),
    ("ai.onnx", "Round",              11, real_functions::Round, "X -> Y"),
    ("ai.onnx", "HardSwish",          14, real_functions::HardSwish, "X -> Y"),
    ("ai.onnx", "Mish",               18, real_functions::Mish, "X -> Y"),
    ("ai.onnx", "Celu",               12, activations::Celu, "X -> Y : alpha"),
    ("ai.onnx", "Elu",                 1, activations::Elu, "X -> Y : alpha consumed_inputs~@..6"),
    ("ai.onnx", "Gelu",               20, activations::Gelu, "X -> Y : approximate"),
    ("ai.onnx", "HardSigmoid",         1, activations::HardSigmoid, "X -> Y : alpha beta consumed_inputs~@..6"),
    ("ai.onnx", "LeakyRelu",           1, activations::LeakyRelu, "X -> Y : alpha consumed_inputs~@..6"),
    ("ai.onnx", "Selu",                1, activations::Selu, "X -> Y : alpha consumed_inputs~@..6 gamma"),
    ("ai.onnx", "Swish",              24, activations::Swish, "X -> Y : alpha"),
    ("ai.onnx", "ThresholdedRelu",    10, activations::ThresholdedRelu, "X -> Y : alpha"),
    ("com.microsoft", "Gelu",                1, activations::Gelu, "X -> Y"),
    ("com.microsoft", "QuickGelu",           1, activations::QuickGelu, "X -> Y : alpha"),
    ("com.microsoft", "BiasGelu",            1, bias_gelu::BiasGelu, "A B -> C"),
    ("com.microsoft", "FastGelu",            1, bias_gelu::FastGelu, "X bias? -> Y"),
    ("ai.onnx", "Abs",                 1, signs::Abs, "X -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "BitwiseNot",         18, signs::BitwiseNot, "X -> Y"),
    ("ai.onnx", "Neg",                 1, signs::Neg, "X -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "Relu",                1, signs::Relu, "X -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "Sign",                9, signs::Sign, "input -> output"),
    ("ai.onnx", "Clip",                1, clip::Clip,
        "input min?@11.. max?@11.. -> output : consumed_inputs~@..6 max@..11 min@..11"),
    ("ai.onnx", "PRelu",               1, prelu::PRelu, "X slope -> Y : consumed_inputs~@..6"),
    ("ai.onnx", "Shrink",              9, shrink::Shrink, "input -> output : bias lambd"),
    ("ai.onnx", "IsInf",              10, predicates::IsInf, "X -> Y : detect_negative detect_positive"),
    ("ai.onnx", "IsNaN",               9, predicates::IsNaN, "X -> Y"),
    ("ai.onnx", "Not",                 1, predicates::Not, "X -> Y"),
    ("ai.onnx", "Identity",            1, identity::Identity, "input -> output"),
    ("ai.onnx", "Dropout",             1, dropout::Dropout,
        "data ratio?@12.. training_mode?@12.. -> output mask? : consumed_inputs~@..6 is_test~@..7 ratio@..12 \
         seed@12.."),
    // -- reductions and axes
    ("ai.onnx", "ArgMax",              1, arg_extremum::ArgMax,
        "data -> reduced : axis keepdims select_last_index@12.."),
    ("ai.onnx", "ArgMin",              1, arg_extremum::ArgMin,
        "data -> reduced : axis keepdims select_last_index@12.."),
    ("ai.onnx", "CumProd",            26, cumulative::CumProd, "x axis -> y : exclusive reverse"),
    ("ai.onnx", "CumSum",             11, cumulative::CumSum, "x axis -> y : exclusive reverse"),
    ("ai.onnx", "ReduceL1",            1, reduce::ReduceL1,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "ReduceL2",            1, reduce::ReduceL2,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "ReduceLogSum",        1, reduce::ReduceLogSum,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "ReduceLogSumExp",     1, reduce::ReduceLogSumExp,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "ReduceMax",           1, reduce::ReduceMax,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "ReduceMean",          1, reduce::ReduceMean,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "ReduceMin",           1, reduce::ReduceMin,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "ReduceProd",          1, reduce::ReduceProd,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "ReduceSum",           1, reduce::ReduceSum,
        "data axes?@13.. -> reduced : axes@..13 keepdims noop_with_empty_axes@13.."),
    ("ai.onnx", "ReduceSumSquare",     1, reduce::ReduceSumSquare,
        "data axes?@18.. -> reduced : axes@..18 keepdims noop_with_empty_axes@18.."),
    ("ai.onnx", "Transpose",           1, transpose::Transpose, "data -> transposed : perm"),
    // -- normalisation
    ("ai.onnx", "BatchNormalization",  1, channel_normalization::BatchNormalization,
        "X scale B mean@..14 var@..14 input_mean@14.. input_var@14.. -> Y mean?@..14 var?@..14 saved_mean?@..14 \
         saved_var?@..14 running_mean?@14.. running_var?@14.. : consumed_inputs~@..6 epsilon is_test~@..7 momentum \
         spatial@..9 training_mode@14.."),
    ("ai.onnx", "GroupNormalization", 18, channel_normalization::GroupNormalization,
        "X scale bias -> Y : epsilon num_groups stash_type~"),
    ("ai.onnx", "Hardmax",             1, softmax::Hardmax, "input -> output : axis"),
    ("ai.onnx", "InstanceNormalization",  1, channel_normalization::InstanceNormalization,
        "input scale B -> output : consumed_inputs~@..6 epsilon"),
    ("ai.onnx", "LRN",                 1, vector_normalization::Lrn, "X -> Y : alpha beta bias size"),
    // onnxruntime writes it into files of older versions than the standard's, 17.
    ("ai.onnx", "LayerNormalization",  1, layer_normalization::LayerNormalization,
        "X Scale B? -> Y Mean? InvStdDev? : axis epsilon stash_type"),
    ("ai.onnx", "LogSoftmax",          1, softmax::LogSoftmax, "input -> output : axis"),
    ("ai.onnx", "LpNormalization",     1, vector_normalization::LpNormalization, "input -> output : axis p"),
    ("ai.onnx", "MeanVarianceNormalization",  9, vector_normalization::MeanVarianceNormalization, "X -> Y : axes"),
    ("ai.onnx", "RMSNormalization",   23, layer_normalization::RmsNormalization,
        "X scale -> Y : axis epsilon stash_type"),
    ("ai.onnx", "SimplifiedLayerNormalization",  1, layer_normalization::RmsNormalization,
        "X scale -> Y inv_std_var? : axis epsilon stash_type"),
    ("ai.onnx", "Softmax",             1, softmax::Softmax, "input -> output : axis"),
    ("com.microsoft", "SimplifiedLayerNormalization",  1, layer_normalization::RmsNormalization,
        "X scale -> Y inv_std_var? : axis epsilon stash_type"),
    ("com.microsoft", "SkipLayerNormalization",  1, layer_normalization::SkipLayerNormalization,
        "input skip gamma beta? bias? -> output mean? inv_std_var? input_skip_bias_sum? : epsilon"),
    ("com.microsoft", "SkipSimplifiedLayerNormalization",  1, layer_normalization::SkipSimplifiedLayerNormalization,
        "input skip gamma bias? -> output mean? inv_std_var? input_skip_bias_sum? : epsilon"),
    // -- functions of several elements
    ("ai.onnx", "Add",                 1, arithmetic::Add, "A B -> C : axis@..7 broadcast@..7 consumed_inputs~@..6"),
    ("ai.onnx", "Div",                 1, arithmetic::Div, "A B -> C : axis@..7 broadcast@..7 consumed_inputs~@..6"),
    ("ai.onnx", "Mod",                10, arithmetic::Mod, "A B -> C : fmod"),
    ("ai.onnx", "Mul",                 1, arithmetic::Mul, "A B -> C : axis@..7 broadcast@..7 consumed_inputs~@..6"),
    ("ai.onnx", "Sub",                 1, arithmetic::Sub, "A B -> C : axis@..7 broadcast@..7 consumed_inputs~@..6"),
    ("ai.onnx", "Pow",                 1, pow::Pow, "X Y -> Z : axis@..7 broadcast@..7"),
    ("ai.onnx", "Equal",               1, comparisons::Equal, "A B -> C : axis@..7 broadcast@..7"),
    ("ai.onnx", "Greater",             1, comparisons::Greater, "A B -> C : axis@..7 broadcast@..7"),
    ("ai.onnx", "GreaterOrEqual",     12, comparisons::GreaterOrEqual, "A B -> C"),
    ("ai.onnx", "Less",                1, comparisons::Less, "A B -> C : axis@..7 broadcast@..7"),
    ("ai.onnx", "LessOrEqual",        12, comparisons::LessOrEqual, "A B -> C"),
    ("ai.onnx", "And",                 1, logic::And, "A B -> C : axis@..7 broadcast@..7"),
    ("ai.onnx", "Or",                  1, logic::Or, "A B -> C : axis@..7 broadcast@..7"),
    ("ai.onnx", "Xor",                 1, logic::Xor, "A B -> C : axis@..7 broadcast@..7"),
    ("ai.onnx", "BitShift",           11, logic::BitShift, "X Y -> Z : direction"),
    ("ai.onnx", "BitwiseAnd",         18, logic::BitwiseAnd, "A B -> C"),
    ("ai.onnx", "BitwiseOr",          18, logic::BitwiseOr, "A B -> C"),
    ("ai.onnx", "BitwiseXor",         18, logic::BitwiseXor, "A B -> C"),
    ("ai.onnx", "Max",                 1, variadic::Max, "data_0+ -> max : consumed_inputs~@..6"),
    ("ai.onnx", "Mean",                1, variadic::Mean, "data_0+ -> mean : consumed_inputs~@..6"),
    ("ai.onnx", "Min",                 1, variadic::Min, "data_0+ -> min : consumed_inputs~@..6"),
    ("ai.onnx", "Sum",                 1, variadic::Sum, "data_0+ -> sum : consumed_inputs~@..6"),
    // -- generators
    ("ai.onnx", "ConstantOfShape",     9, constant_of_shape::ConstantOfShape, "input -> output : value"),
    // -- classical models
    ("ai.onnx.ml", "ArrayFeatureExtractor", 1, ml::scaling::ArrayFeatureExtractor, "X Y -> Z"),
    ("ai.onnx.ml", "Binarizer",        1, ml::scaling::Binarizer, "X -> Y : threshold"),
    ("ai.onnx.ml", "FeatureVectorizer", 1, ml::scaling::FeatureVectorizer, "X+ -> Y : inputdimensions"),
    ("ai.onnx.ml", "Imputer",          1, ml::scaling::Imputer,
        "X -> Y : imputed_value_floats imputed_value_int64s replaced_value_float replaced_value_int64"),
    ("ai.onnx.ml", "LinearClassifier", 1, ml::linear::LinearClassifier,
        "X -> Y Z : classlabels_ints classlabels_strings coefficients intercepts multi_class~ post_transform"),
    ("ai.onnx.ml", "LinearRegressor",  1, ml::linear::LinearRegressor,
        "X -> Y : coefficients intercepts post_transform targets"),
    ("ai.onnx.ml", "Normalizer",       1, ml::scaling::Normalizer, "X -> Y : norm"),
    ("ai.onnx.ml", "Scaler",           1, ml::scaling::Scaler, "X -> Y : offset scale"),
    ("ai.onnx.ml", "TreeEnsemble",     5, ml::trees::TreeEnsemble,
        "X -> Y : aggregate_function leaf_targetids leaf_weights membership_values n_targets nodes_falseleafs \
         nodes_falsenodeids nodes_featureids nodes_hitrates~ nodes_missing_value_tracks_true nodes_modes \
         nodes_splits nodes_trueleafs nodes_truenodeids post_transform tree_roots"),
    ("ai.onnx.ml", "TreeEnsembleClassifier", 1, ml::trees::TreeEnsembleClassifier,
        "X -> Y Z : base_values base_values_as_tensor@3.. class_ids class_nodeids class_treeids class_weights \
         class_weights_as_tensor@3.. classlabels_int64s classlabels_strings nodes_falsenodeids nodes_featureids \
         nodes_hitrates~ nodes_hitrates_as_tensor~@3.. nodes_missing_value_tracks_true nodes_modes nodes_nodeids \
         nodes_treeids nodes_truenodeids nodes_values nodes_values_as_tensor@3.. post_transform"),
    ("ai.onnx.ml", "TreeEnsembleRegressor", 1, ml::trees::TreeEnsembleRegressor,
        "X -> Y : aggregate_function base_values base_values_as_tensor@3.. n_targets nodes_falsenodeids \
         nodes_featureids nodes_hitrates~ nodes_hitrates_as_tensor~@3.. nodes_missing_value_tracks_true nodes_modes \
         nodes_nodeids nodes_treeids nodes_truenodeids nodes_values nodes_values_as_tensor@3.. post_transform \
         target_ids target_nodeids target_treeids target_weights target_weights_as_tensor@3.."),
    ("ai.onnx.ml", "ZipMap",           1, ml::zip_map::ZipMap, "X -> Z : classlabels_int64s classlabels_strings"),
    // -- sequences and optionals
    ("ai.onnx", "ConcatFromSequence", 11, sequence::ConcatFromSequence,
        "input_sequence -> concat_result : axis new_axis"),
    ("ai.onnx", "Optional",           15, sequence::Optional, "input? -> output : type"),
    ("ai.onnx", "OptionalGetElement", 15, sequence::OptionalGetElement, "input -> output"),
    ("ai.onnx", "OptionalHasElement", 15, sequence::OptionalHasElement, "input@..18 input?@18.. -> output"),
    ("ai.onnx", "SequenceAt",         11, sequence::SequenceAt, "input_sequence position -> tensor"),
    ("ai.onnx", "SequenceConstruct",  11, sequence::SequenceConstruct, "inputs+ -> output_sequence"),
    ("ai.onnx", "SequenceEmpty",      11, sequence::SequenceEmpty, "-> output : dtype"),
    ("ai.onnx", "SequenceErase",      11, sequence::SequenceErase, "input_sequence position? -> output_sequence"),
    ("ai.onnx", "SequenceInsert",     11, sequence::SequenceInsert,
        "input_sequence tensor position? -> output_sequence"),
    ("ai.onnx", "SequenceLength",     11, sequence::SequenceLength, "input_sequence -> length"),
    ("ai.onnx", "SplitToSequence",    11, sequence::SplitToSequence,
        "input split? -> output_sequence : axis keepdims"),
    // -- images
    ("ai.onnx", "Resize",             10, resize::ResizeByScales, "X scales -> Y : mode"),
    ("ai.onnx", "Resize",             11, resize::Resize,
        "X roi@..13 scales@..13 roi?@13.. scales?@13.. sizes? -> Y : antialias@18.. axes@18.. \
         coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value \
         keep_aspect_ratio_policy@18.. mode nearest_mode"),
    ("ai.onnx", "Upsample",            7, resize::UpsampleByAttribute, "X -> Y : mode scales"),
    ("ai.onnx", "Upsample",            9, resize::Upsample, "X scales -> Y : mode"),
    ("ai.onnx", "GridSample",         16, grid_sample::GridSample, "X grid -> Y : align_corners mode padding_mode"),
    ("ai.onnx", "NonMaxSuppression",  10, non_max_suppression::NonMaxSuppression,
        "boxes scores max_output_boxes_per_class? iou_threshold? score_threshold? -> selected_indices : \
         center_point_box"),
    // -- control flow
    ("ai.onnx", "If",                  1, conditional::If, "cond -> outputs+ : else_branch then_branch"),
    ("ai.onnx", "Loop",                1, loops::Loop,
        "M? cond? v_initial+@..11 v_initial*@11.. -> v_final_and_scan_outputs+ : body"),
    ("ai.onnx", "Scan",                8, loops::ScanBatches,
        "sequence_lens? initial_state_and_scan_inputs+ -> final_state_and_scan_outputs+ : body directions \
         num_scan_inputs"),
    ("ai.onnx", "Scan",                9, loops::Scan,
        "initial_state_and_scan_inputs+ -> final_state_and_scan_outputs+ : body num_scan_inputs scan_input_axes \
         scan_input_directions scan_output_axes scan_output_directions"),
    // -- convolutions and pools
    ("ai.lethe", "FusedConv",          1, conv::FusedConv,
        "X W B? residual? -> Y : activation activation_params auto_pad dilations group kernel_shape pads strides"),
    ("ai.onnx", "AveragePool",         1, pool::AveragePool,
        "X -> Y : auto_pad ceil_mode@10.. count_include_pad@7.. dilations@19.. kernel_shape pads strides"),
    ("ai.onnx", "Conv",                1, conv::Conv,
        "X W B? -> Y : auto_pad dilations group kernel_shape pads strides"),
    ("ai.onnx", "ConvTranspose",       1, conv::ConvTranspose,
        "X W B? -> Y : auto_pad dilations group kernel_shape output_padding output_shape pads strides"),
    ("ai.onnx", "GlobalAveragePool",   1, pool::GlobalAveragePool, "X -> Y"),
    ("ai.onnx", "GlobalLpPool",        1, pool::GlobalLpPool, "X -> Y : p"),
    ("ai.onnx", "GlobalMaxPool",       1, pool::GlobalMaxPool, "X -> Y"),
    ("ai.onnx", "LpPool",              1, pool::LpPool,
        "X -> Y : auto_pad ceil_mode@18.. dilations@18.. kernel_shape p pads strides"),
    ("ai.onnx", "MaxPool",             1, pool::MaxPool,
        "X -> Y Indices?@8.. : auto_pad ceil_mode@10.. dilations@10.. kernel_shape pads storage_order@8.. strides"),
    // -- recurrent layers
    ("ai.onnx", "GRU",                 1, recurrent::Gru,
        "X W R B? sequence_lens? initial_h? -> Y? Y_h@..3 Y_h?@3.. : activation_alpha activation_beta activations \
         clip direction hidden_size layout@14.. linear_before_reset@3.. output_sequence~@..7"),
    ("ai.onnx", "LSTM",                1, recurrent::Lstm,
        "X W R B? sequence_lens? initial_h? initial_c? P? -> Y? Y_h? Y_c? : activation_alpha activation_beta \
         activations clip direction hidden_size input_forget layout@14.. output_sequence~@..7"),
    ("ai.onnx", "RNN",                 1, recurrent::Rnn,
        "X W R B? sequence_lens? initial_h? -> Y? Y_h? : activation_alpha activation_beta activations clip \
         direction hidden_size layout@14.. output_sequence~@..7"),
    // -- matrix products
    ("ai.lethe", "FusedGemm",          1, gemm::FusedGemm,
        "A B C? residual? -> Y : activation activation_params alpha beta transA transB"),
    ("ai.lethe", "FusedMatMul",        1, matmul::FusedMatMul,
        "A B bias? residual? -> Y : activation activation_params alpha transA transB"),
    ("ai.onnx", "Einsum",             12, einsum::Einsum, "Inputs+ -> Output : equation"),
    ("ai.onnx", "Gemm",                1, gemm::Gemm,
        "A B C@..11 C?@11.. -> Y : alpha beta broadcast~@..7 transA transB"),
    ("ai.onnx", "MatMul",              1, matmul::MatMul, "A B -> Y"),
    // -- attention
    ("ai.lethe", "FusedAttention",     1, fused_attention::FusedAttention,
        "Q K V mask? -> Y : nan_as_zero positions_first scale"),
    ("ai.onnx", "Attention",          23, attention::Attention,
        "Q K V attn_mask? past_key? past_value? nonpad_kv_seqlen?@24.. -> Y present_key? present_value? \
         qk_matmul_output? : is_causal kv_num_heads left_window_size@25.. q_num_heads qk_matmul_output_mode \
         right_window_size@25.. scale softcap softmax_precision"),
    ("ai.onnx", "RotaryEmbedding",    23, rotary_embedding::RotaryEmbedding,
        "X cos_cache sin_cache position_ids? -> Y : interleaved num_heads rotary_embedding_dim"),
    ("com.microsoft", "GroupQueryAttention", 1, grouped_query_attention::GroupQueryAttention,
        "query key? value? past_key? past_value? seqlens_k total_sequence_length cos_cache? sin_cache? \
         position_ids? attention_bias? head_sink? k_scale?! v_scale?! q_norm_weight?! k_norm_weight?! -> output \
         present_key? present_value? output_qk?! : causal=1 do_rotary k_quant_type kv_cache_bit_width=0 \
         kv_num_heads local_window_size num_heads qk_norm_epsilon~ qk_output=0 rotary_interleaved scale \
         sliding_window_cache=0 smooth_softmax softcap v_quant_type"),
    ("com.microsoft", "RotaryEmbedding", 1, rotary_embedding::RotaryEmbeddingMicrosoft,
        "input position_ids cos_cache sin_cache -> output : interleaved is_packed_batching=0 num_heads \
         rotary_embedding_dim scale=1"),
    // -- quantisation
    ("ai.lethe", "QuantizeRowsMatMul", 1, byte_products::QuantizeRowsMatMul, "A B b_scale b_zero_point? bias? -> Y"),
    ("ai.onnx", "DequantizeLinear",   10, linear_quantization::DequantizeLinear,
        "x x_scale x_zero_point? -> y : axis@13.. block_size@21.. output_dtype@23.."),
    ("ai.onnx", "DynamicQuantizeLinear", 11, linear_quantization::DynamicQuantizeLinear,
        "x -> y y_scale y_zero_point"),
    ("ai.onnx", "ConvInteger",        10, byte_convolution::ConvInteger,
        "x w x_zero_point? w_zero_point? -> y : auto_pad dilations group kernel_shape pads strides"),
    ("ai.onnx", "QLinearConv",        10, byte_convolution::QLinearConv,
        "x x_scale x_zero_point w w_scale w_zero_point y_scale y_zero_point B? -> y : auto_pad dilations group \
         kernel_shape pads strides"),
    ("ai.onnx", "MatMulInteger",      10, byte_products::MatMulInteger, "A B a_zero_point? b_zero_point? -> Y"),
    ("ai.onnx", "QLinearMatMul",      10, byte_products::QLinearMatMul,
        "a a_scale a_zero_point b b_scale b_zero_point y_scale y_zero_point -> y"),
    ("ai.onnx", "QuantizeLinear",     10, linear_quantization::QuantizeLinear,
        "x y_scale y_zero_point? -> y : axis@13.. block_size@21.. output_dtype@21.. precision@23.. saturate@19.."),
    ("com.microsoft", "DequantizeLinear", 1, linear_quantization::DequantizeLinear,
        "x x_scale x_zero_point? -> y : axis"),
    ("com.microsoft", "DynamicQuantizeMatMul", 1, byte_products::DynamicQuantizeMatMul,
        "A B b_scale b_zero_point? bias? -> Y"),
    ("com.microsoft", "MatMulIntegerToFloat", 1, byte_products::MatMulIntegerToFloat,
        "A B a_scale b_scale a_zero_point? b_zero_point? bias? -> Y"),
    ("com.microsoft", "MatMulNBits",   1, matmul_nbits::MatMulNBits,
        "A B scales zero_points? g_idx? bias? -> Y : K N accuracy_level~ bits block_size weight_prepacked=0"),
    ("com.microsoft", "QuantizeLinear", 1, linear_quantization::QuantizeLinear,
        "x y_scale y_zero_point? -> y : axis"),
    // -- shapes and movement of elements
    ("ai.onnx", "BitCast",            26, cast::BitCast, "input -> output : to"),
    ("ai.onnx", "Cast",                1, cast::CastByName, "input -> output : to"),
    ("ai.onnx", "Cast",                6, cast::Cast, "input -> output : round_mode@24.. saturate@19.. to"),
    ("ai.onnx", "CastLike",           15, cast::CastLike,
        "input target_type -> output : round_mode@24.. saturate@19.."),
    ("ai.onnx", "Concat",              1, concat::ConcatDefaultAxis, "inputs+ -> concat_result : axis"),
    ("ai.onnx", "Concat",              4, concat::Concat, "inputs+ -> concat_result : axis"),
    ("ai.onnx", "Expand",              8, expand::Expand, "input shape -> output"),
    ("ai.onnx", "Flatten",             1, reshape::Flatten, "input -> output : axis"),
    ("ai.onnx", "Gather",              1, gather::Gather, "data indices -> output : axis"),
    ("ai.onnx", "GatherElements",     11, gather::GatherElements, "data indices -> output : axis"),
    ("ai.onnx", "GatherND",           11, gather::GatherNd, "data indices -> output : batch_dims@12.."),
    ("ai.onnx", "Pad",                 1, pad::PadFirst, "data -> output : mode paddings value"),
    ("ai.onnx", "Pad",                 2, pad::PadAttributes, "data -> output : mode pads value"),
    ("ai.onnx", "Pad",                11, pad::Pad, "data pads constant_value? axes?@18.. -> output : mode"),
    ("ai.onnx", "Range",              11, range::Range, "start limit delta -> output : stash_type=1@27.."),
    ("ai.onnx", "Reshape",             1, reshape::ReshapeToAttribute, "data -> reshaped : consumed_inputs~ shape"),
    ("ai.onnx", "Reshape",             5, reshape::Reshape, "data shape -> reshaped : allowzero@14.."),
    ("ai.onnx", "Shape",               1, shape::Shape, "data -> shape : end@15.. start@15.."),
    ("ai.onnx", "Size",                1, shape::Size, "data -> size"),
    ("ai.onnx", "Slice",               1, slice::SliceAttributes, "data -> output : axes ends starts"),
    ("ai.onnx", "Slice",              10, slice::Slice, "data starts ends axes? steps? -> output"),
    ("ai.onnx", "Split",               1, split::SplitAttributeLengths,
        "input split?@..2 -> outputs+@..2 outputs+@2.. : axis split"),
    ("ai.onnx", "Split",              13, split::Split, "input split? -> outputs+ : axis num_outputs@18.."),
    ("ai.onnx", "Squeeze",             1, squeeze::SqueezeAttributeAxes, "data -> squeezed : axes"),
    ("ai.onnx", "Squeeze",            13, squeeze::Squeeze, "data axes? -> squeezed"),
    ("ai.onnx", "Tile",                1, expand::TileOneAxis, "input tiles axis -> output"),
    ("ai.onnx", "Tile",                6, expand::Tile, "input repeats -> output"),
    ("ai.onnx", "Trilu",              14, trilu::Trilu, "input k? -> output : upper"),
    ("ai.onnx", "Unsqueeze",           1, squeeze::UnsqueezeAttributeAxes, "data -> expanded : axes"),
    ("ai.onnx", "Unsqueeze",          13, squeeze::Unsqueeze, "data axes -> expanded"),
    ("ai.onnx", "Compress",            9, choose::Compress, "input condition -> output : axis"),
    ("ai.onnx", "DepthToSpace",        1, blocks::DepthToSpace, "input -> output : blocksize mode@11.."),
    ("ai.onnx", "EyeLike",             9, blocks::EyeLike, "input -> output : dtype k"),
    ("ai.onnx", "NonZero",             9, choose::NonZero, "X -> Y"),
    ("ai.onnx", "OneHot",              9, one_hot::OneHot, "indices depth values -> output : axis"),
    ("ai.onnx", "ReverseSequence",    10, blocks::ReverseSequence, "input sequence_lens -> Y : batch_axis time_axis"),
    ("ai.onnx", "Scatter",             9, scatter::ScatterElements, "data indices updates -> output : axis"),
    ("ai.onnx", "ScatterElements",    11, scatter::ScatterElements,
        "data indices updates -> output : axis reduction@16.."),
    ("ai.onnx", "ScatterND",          11, scatter::ScatterNd, "data indices updates -> output : reduction@16.."),
    ("ai.onnx", "SpaceToDepth",        1, blocks::SpaceToDepth, "input -> output : blocksize mode@28.."),
    ("ai.onnx", "TopK",                1, top_k::TopKAttribute, "X -> Values Indices : axis k"),
    ("ai.onnx", "TopK",               10, top_k::TopK, "X K -> Values Indices : axis largest@11.. sorted~@11.."),
    ("ai.onnx", "Unique",             11, choose::Unique, "X -> Y indices? inverse_indices? counts? : axis sorted"),
    ("ai.onnx", "Where",               9, select::Where, "condition X Y -> output"),
}

/// The row for an operator of a model that imports `opset` of `domain`.
pub fn find(domain: &str, op_type: &str, opset: i64) -> Option<&'static Entry> {
    TABLE
        .iter()
        .filter(|e| e.op_type == op_type && e.domain == domain && e.since <= opset)
        .max_by_key(|e| e.since)
}
