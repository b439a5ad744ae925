//! Norms of rows, and Gelu, which are spelled out alike.

use super::case::Expect::{Made, Never};
use super::case::{BASE, Case, check_all};
use crate::tensor::DataType;

/// `y = (x - mean) / √(variance + ε) · scale + bias`.
const LAYER_NORM: &str = "m=ReduceMean x axes=-1; d=Sub x m; q=Pow d 2.0; v=ReduceMean q axes=-1; \
                          e=Add v 0.00001; r=Sqrt e; n=Div d r; k=Mul n s; y=Add k b";
/// `y = x / √(mean(x²) + ε) · scale`.
const RMS_NORM: &str = "q=Mul x x; v=ReduceMean q axes=-1; e=Add v 0.00001; r=Sqrt e; \
                        i=Reciprocal r; n=Mul x i; y=Mul s n";

#[test]
fn normalizations_keep_the_shape_or_stay() {
    let layer = Case {
        nodes: LAYER_NORM,
        ..BASE
    };
    let rms = Case {
        nodes: RMS_NORM,
        ..BASE
    };
    let (made_layer, made_rms) = (Made("LayerNormalization"), Made("RMSNormalization"));
    let (no_layer, no_rms) = (Never("LayerNormalization"), Never("RMSNormalization"));
    check_all(&[
        Case {
            name: "as exporters write it",
            inputs: "x:n,m,4",
            constants: "s:4 b:4",
            runs: "2,3,4|0,3,4|2,1,4",
            expect: made_layer,
            ..layer
        },
        Case {
            name: "one number for all",
            inputs: "x:n,m",
            constants: "s:1 b:1",
            runs: "2,3|2,1|0,3",
            expect: made_layer,
            ..layer
        },
        Case {
            name: "a scale that lengthens the axis",
            inputs: "x:n,1",
            constants: "s:4 b:4",
            runs: "2,1",
            expect: no_layer,
            ..layer
        },
        Case {
            name: "a scale that may lengthen the axis",
            inputs: "x:n,m",
            constants: "s:4 b:4",
            runs: "2,1|2,4",
            expect: no_layer,
            ..layer
        },
        Case {
            name: "a bias that lengthens the axis",
            inputs: "x:n,1",
            constants: "s:1 b:4",
            runs: "2,1",
            expect: no_layer,
            ..layer
        },
        Case {
            name: "an epsilon with axes of its own",
            inputs: "x:n,4",
            constants: "s:4 b:4",
            nodes: "m=ReduceMean x axes=-1; d=Sub x m; q=Pow d 2.0; v=ReduceMean q axes=-1; \
                    e=Add v [[[0.00001]]]; r=Sqrt e; n=Div d r; k=Mul n s; y=Add k b",
            runs: "2,4",
            expect: no_layer,
            ..layer
        },
        Case {
            name: "an exponent with axes of its own",
            inputs: "x:n,4",
            constants: "s:4 b:4",
            nodes: "m=ReduceMean x axes=-1; d=Sub x m; q=Pow d [[[2.0]]]; v=ReduceMean q axes=-1; \
                    e=Add v 0.00001; r=Sqrt e; n=Div d r; k=Mul n s; y=Add k b",
            runs: "2,4",
            expect: no_layer,
            ..layer
        },
        Case {
            name: "nearly a square",
            inputs: "x:n,4",
            constants: "s:4 b:4",
            nodes: "m=ReduceMean x axes=-1; d=Sub x m; a=Abs d; q=Pow a 2.0015; \
                    v=ReduceMean q axes=-1; e=Add v 0.00001; r=Sqrt e; n=Div a r; k=Mul n s; y=Add k b",
            runs: "2,4",
            expect: no_layer,
            ..layer
        },
        Case {
            name: "doubles",
            data_type: DataType::Float64,
            inputs: "x:n,4",
            constants: "s:4 b:4",
            runs: "2,4",
            expect: no_layer,
            ..layer
        },
        Case {
            name: "16 bits",
            data_type: DataType::Float16,
            inputs: "x:n,4",
            constants: "s:4 b:4",
            // In 16 bits nothing is left of a smaller epsilon.
            nodes: "m=ReduceMean x axes=-1; d=Sub x m; q=Pow d 2.0; v=ReduceMean q axes=-1; \
                    e=Add v 0.25; r=Sqrt e; n=Div d r; k=Mul n s; y=Add k b",
            runs: "2,4",
            expect: made_layer,
            ..layer
        },
        Case {
            name: "root mean square",
            inputs: "x:n,m,4",
            constants: "s:4",
            runs: "2,3,4|0,3,4",
            expect: made_rms,
            ..rms
        },
        Case {
            name: "root mean square, longer scale",
            inputs: "x:n,1",
            constants: "s:4",
            runs: "2,1",
            expect: no_rms,
            ..rms
        },
        Case {
            name: "root mean square, perhaps longer scale",
            inputs: "x:n,m",
            constants: "s:4",
            runs: "2,1|2,4",
            expect: no_rms,
            ..rms
        },
        Case {
            name: "root mean square of doubles",
            data_type: DataType::Float64,
            inputs: "x:n,4",
            constants: "s:4",
            runs: "2,4",
            expect: no_rms,
            ..rms
        },
    ]);
}

#[test]
fn only_gelu_becomes_gelu() {
    let of = |nodes| Case {
        name: nodes,
        inputs: "x:n,4",
        nodes,
        runs: "3,4|0,4",
        expect: Made("Gelu"),
        ..BASE
    };
    let never = |nodes| Case {
        expect: Never("Gelu"),
        ..of(nodes)
    };
    let erf = "d=Div x 1.4142135; e=Erf d; a=Add e 1.0; m=Mul x a; y=Mul m 0.5";
    check_all(&[
        of(erf),
        of("d=Mul x 0.70710677; e=Erf d; a=Add 1.0 e; m=Mul x 0.5; y=Mul a m"),
        of(
            "c=Pow x 3.0; k=Mul c 0.044715; s=Add x k; t=Mul s 0.7978846; h=Tanh t; a=Add h 1.0; \
            m=Mul x 0.5; y=Mul m a",
        ),
        Case {
            name: "constants with an axis that x has",
            ..of("d=Div x [1.4142135]; e=Erf d; a=Add e [1.0]; m=Mul x a; y=Mul m [0.5]")
        },
        Case {
            name: "16 bits",
            data_type: DataType::Float16,
            ..of(erf)
        },
        never("d=Div x [[[1.4142135]]]; e=Erf d; a=Add e 1.0; m=Mul x a; y=Mul m 0.5"),
        never("d=Div x 1.4142135; e=Erf d; a=Add e [[[1.0]]]; m=Mul x a; y=Mul m 0.5"),
        never("d=Div x 1.4142135; e=Erf d; a=Add e 1.0; m=Mul x a; y=Mul m [[[0.5]]]"),
        never("d=Div x 1.4142135; e=Erf d; a=Add e 1.0009; m=Mul x a; y=Mul m 0.5"),
        never("d=Div x 1.415; e=Erf d; a=Add e 1.0; m=Mul x a; y=Mul m 0.5"),
        Case {
            name: "a number with an axis that x has not",
            inputs: "x:_",
            runs: "_",
            ..never("d=Div x 1.4142135; e=Erf d; a=Add e 1.0; m=Mul x a; y=Mul m [0.5]")
        },
    ]);
}
