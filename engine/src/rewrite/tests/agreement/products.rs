//! Products and convolutions with what follows them.

use super::case::Expect::{Made, Never};
use super::case::{BASE, Case, check_all};
use crate::tensor::DataType;

#[test]
fn residuals_of_any_shape_are_added() {
    let product = Case {
        constants: "w:4,4",
        nodes: "p=MatMul x w; y=Add p r",
        expect: Made("FusedMatMul"),
        ..BASE
    };
    let convolution = Case {
        inputs: "x:n,3,4,5 r:n,2,4,3",
        constants: "w:2,3,3,3 b:2",
        nodes: "p=Conv x w b pads=1,0,1,0; s=Add r p; y=Relu s",
        runs: "2,3,4,5 2,2,4,3",
        expect: Made("FusedConv"),
        ..BASE
    };
    check_all(&[
        Case {
            name: "one name for two sizes",
            inputs: "x:n,4 r:n,4",
            runs: "5,4 5,4|5,4 1,4|1,4 5,4|0,4 1,4",
            ..product
        },
        Case {
            name: "before an activation",
            inputs: "x:n,4 r:n,4",
            nodes: "p=MatMul x w; s=Add r p; y=Sigmoid s",
            runs: "5,4 5,4|1,4 3,4",
            ..product
        },
        Case {
            name: "with a bias",
            inputs: "x:n,4 r:n,4",
            constants: "w:4,4 b:4",
            nodes: "p=MatMul x w; q=Add p b; s=Add q r; y=LeakyRelu s alpha=0.3",
            runs: "3,4 3,4|1,4 2,4|2,4 1,4",
            ..product
        },
        Case {
            name: "of 16 bits",
            data_type: DataType::Float16,
            inputs: "x:n,4 r:n,4",
            nodes: "p=MatMul x w; s=Add r p; y=Tanh s",
            runs: "2,4 2,4|1,4 2,4",
            ..product
        },
        Case {
            name: "of doubles",
            data_type: DataType::Float64,
            inputs: "x:n,4 r:n,4",
            runs: "2,4 2,4|1,4 2,4",
            ..product
        },
        Case {
            name: "of integers",
            data_type: DataType::Int32,
            inputs: "x:n,4 r:n,4",
            runs: "2,4 2,4|1,4 2,4|2,4 1,4",
            expect: Never("FusedMatMul"),
            ..product
        },
        Case {
            name: "one name within an input",
            inputs: "x:n,n,4 r:n,n,4",
            runs: "2,3,4 2,1,4|1,3,4 2,3,4",
            ..product
        },
        Case {
            name: "a vector times a matrix",
            inputs: "x:4 r:4",
            runs: "4 4",
            ..product
        },
        Case {
            name: "of an image",
            runs: "2,3,4,5 2,2,4,3|2,3,4,5 1,2,4,3|1,3,4,5 2,2,4,3|0,3,4,5 1,2,4,3",
            ..convolution
        },
        Case {
            name: "of an image of 16 bits",
            data_type: DataType::Float16,
            runs: "2,3,4,5 2,2,4,3|2,3,4,5 1,2,4,3|1,3,4,5 2,2,4,3",
            ..convolution
        },
        Case {
            name: "of an image of doubles",
            data_type: DataType::Float64,
            nodes: "p=Conv x w b pads=1,0,1,0; y=Add r p",
            runs: "2,3,4,5 2,2,4,3|1,3,4,5 2,2,4,3",
            ..convolution
        },
    ]);
}

#[test]
fn activations_mean_the_same_after_a_product() {
    let of = |nodes| Case {
        name: nodes,
        inputs: "x:n,4",
        constants: "w:4,6",
        nodes,
        runs: "3,4|0,4",
        expect: Made("FusedMatMul"),
        ..BASE
    };
    let plain = |nodes| Case {
        expect: Never("FusedMatMul"),
        ..of(nodes)
    };
    check_all(&[
        of("p=MatMul x w; y=Relu p"),
        of("p=MatMul x w; y=Clip p"),
        of("p=MatMul x w; y=Clip p 0.5"),
        of("p=MatMul x w; y=Clip p _ 0.5"),
        of("p=MatMul x w; y=Clip p 0.5 -0.5"),
        of("p=MatMul x w; y=HardSigmoid p alpha=0.3 beta=0.1"),
        of("p=MatMul x w; y=HardSwish p"),
        of("p=MatMul x w; y=LeakyRelu p"),
        of("p=MatMul x w; y=Tanh p"),
        Case {
            opset: 20,
            ..of("p=MatMul x w; y=Gelu p approximate=tanh")
        },
        Case {
            opset: 6,
            ..of("p=MatMul x w; y=Clip p min=0.1 max=0.2")
        },
        Case {
            opset: 6,
            ..of("p=MatMul x w; y=Clip p max=0.2")
        },
        Case {
            inputs: "x:n,4",
            nodes: "y=Gemm x w b transB=1 alpha=0.5 beta=2.0; z=Relu y",
            constants: "w:6,4 b:6",
            expect: Made("FusedGemm"),
            ..of("gemm")
        },
        Case {
            name: "doubles have bounds that f32 has not",
            data_type: DataType::Float64,
            ..plain("p=MatMul x w; y=Clip p -0.1 0.1")
        },
        Case {
            name: "integers that f32 cannot count",
            data_type: DataType::Int64,
            ..plain("p=MatMul x w; y=Relu p")
        },
    ]);
}

#[test]
fn biases_lie_along_the_axis_that_old_opsets_name() {
    let case = Case {
        opset: 6,
        inputs: "x:n,4",
        constants: "w:4,4 b:4",
        runs: "4,4",
        ..BASE
    };
    check_all(&[
        Case {
            name: "rows",
            nodes: "p=MatMul x w; y=Add p b broadcast=1 axis=0",
            expect: Never("FusedMatMul"),
            ..case
        },
        Case {
            name: "columns",
            nodes: "p=MatMul x w; y=Add p b broadcast=1",
            expect: Made("FusedMatMul"),
            ..case
        },
    ]);
}

#[test]
fn batch_normalization_is_taken_in_only_where_it_means_the_same() {
    let case = Case {
        inputs: "x:n,3,5",
        constants: "w:2,3,3 s:2 b:2 m:2",
        runs: "2,3,5",
        ..BASE
    };
    check_all(&[
        Case {
            name: "inference",
            nodes: "v=Abs m; p=Conv x w; y=BatchNormalization p s b m v",
            expect: Never("BatchNormalization"),
            ..case
        },
        Case {
            name: "training, of which only Y is wanted",
            nodes: "v=Abs m; p=Conv x w; y=BatchNormalization p s b m v training_mode=1",
            expect: Made("BatchNormalization"),
            ..case
        },
        Case {
            name: "no variance at all",
            nodes: "v=Sub m m; p=Conv x w; y=BatchNormalization p s b m v epsilon=0.0",
            expect: Made("BatchNormalization"),
            ..case
        },
    ]);
}
