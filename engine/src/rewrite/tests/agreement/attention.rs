//! Attention as exporters spell it out.

use super::case::Expect::{Made, Never};
use super::case::{BASE, Case, check_all};
use crate::tensor::DataType;

/// Attention of `q: [B, H, Sq, D]`, `k` and `v` likewise, with a mask.
const ATTENTION: &str = "t=Transpose k perm=0,1,3,2; p=MatMul q t; s=Mul p 0.5; m=Add s mask; \
                         w=Softmax m axis=-1; y=MatMul w v";
const PLAIN_ATTENTION: &str = "t=Transpose k perm=0,1,3,2; p=MatMul q t; s=Div p 2.0; \
                               w=Softmax s axis=-1; y=MatMul w v";
const NAN_ATTENTION: &str = "t=Transpose k perm=0,1,3,2; p=MatMul q t; m=Add p mask; \
                             w=Softmax m axis=-1; i=IsNaN w; c=Where i 0.0 w; y=MatMul c v";
/// The same of `[B, S, H, D]`.
const TRANSPOSED_ATTENTION: &str = "a=Transpose q perm=0,2,1,3; t=Transpose k perm=0,2,3,1; c=Transpose v perm=0,2,1,3; \
     p=MatMul a t; s=Mul p 0.5; m=Add s mask; w=Softmax m axis=3; o=MatMul w c; \
     y=Transpose o perm=0,2,1,3";

#[test]
fn attention_broadcasts_whatever_has_a_one() {
    let all = "q:b,h,s,d k:b,h,t,d v:b,h,t,e mask:b,h,s,t";
    let case = Case {
        inputs: all,
        nodes: ATTENTION,
        expect: Made("FusedAttention"),
        ..BASE
    };
    let runs = "2,3,4,5 2,3,6,5 2,3,6,7 2,1,1,6|2,3,4,5 1,3,6,5 1,3,6,7 2,1,1,6|\
                1,3,4,5 2,3,6,5 2,3,6,7 1,1,1,6|2,1,4,5 2,3,6,5 2,3,6,7 1,1,1,6|\
                2,3,4,5 2,1,6,5 2,3,6,7 1,1,1,6|2,3,4,5 2,3,6,5 2,1,6,7 1,1,1,6|\
                2,3,4,5 2,1,6,5 2,1,6,7 2,3,4,6|1,1,4,5 1,1,6,5 1,1,6,7 2,3,4,6|\
                2,3,1,5 2,3,6,5 2,3,6,7 2,3,4,6|2,3,4,5 2,3,1,5 2,3,6,7 2,3,4,6|\
                2,1,4,5 2,1,6,5 2,3,6,7 2,1,4,6|4,2,1,5 1,2,6,5 1,2,6,7 1,1,1,6|\
                1,2,40,5 1,2,200,5 1,2,200,7 1,1,40,200|2,3,4,5 2,3,6,5 2,3,6,7 2,3,4,1|\
                0,3,4,5 0,3,6,5 0,3,6,7 1,1,1,6|2,3,0,5 2,3,6,5 2,3,6,7 1,1,1,6|\
                2,3,4,5 2,3,0,5 2,3,0,7 1,1,1,1|2,3,4,0 2,3,6,0 2,3,6,7 1,1,1,6|\
                2,0,4,5 2,0,6,5 2,0,6,7 1,1,1,6|2,3,4,5 2,3,6,5 2,3,6,0 1,1,1,6";
    check_all(&[
        Case {
            name: "with a mask",
            runs,
            ..case
        },
        Case {
            name: "with zeros for NaN",
            nodes: NAN_ATTENTION,
            runs,
            ..case
        },
        Case {
            name: "without a mask",
            inputs: "q:b,h,s,d k:b,h,t,d v:b,h,t,e",
            nodes: PLAIN_ATTENTION,
            runs: "2,3,4,5 2,3,6,5 2,3,6,7|2,3,4,5 1,3,6,5 1,3,6,7|1,1,4,5 2,3,6,5 2,3,6,7|\
                   2,3,4,5 1,1,6,5 2,3,6,7",
            ..case
        },
        Case {
            name: "with the positions first",
            inputs: "q:b,s,h,d k:b,t,h,d v:b,t,h,e mask:b,1,s,t",
            nodes: TRANSPOSED_ATTENTION,
            runs: "2,4,3,5 2,6,3,5 2,6,3,7 2,1,4,6|2,4,1,5 1,6,3,5 1,6,3,7 2,1,4,6|\
                   1,1,3,5 1,6,1,5 1,6,1,7 3,1,4,6|1,4,3,5 1,1,3,5 1,6,3,7 1,1,1,6",
            ..case
        },
        Case {
            name: "with a mask of fewer axes",
            inputs: "q:b,h,s,d k:b,h,t,d v:b,h,t,e mask:s,t",
            runs: "2,3,4,5 2,3,6,5 2,3,6,7 4,6|2,3,4,5 2,3,6,5 2,3,6,7 1,6",
            ..case
        },
        Case {
            name: "with a mask of more axes",
            inputs: "q:b,h,s,d k:b,h,t,d v:b,h,t,e mask:1,b,h,s,t",
            runs: "2,3,4,5 2,3,6,5 2,3,6,7 1,1,1,4,6",
            expect: Never("FusedAttention"),
            ..case
        },
        Case {
            name: "scaled by a number with more axes",
            inputs: "q:b,h,s,d k:b,h,t,d v:b,h,t,e",
            nodes: "t=Transpose k perm=0,1,3,2; p=MatMul q t; s=Div p [[[[[2.0]]]]]; \
                    w=Softmax s axis=-1; y=MatMul w v",
            runs: "2,3,4,5 2,3,6,5 2,3,6,7",
            expect: Never("FusedAttention"),
            ..case
        },
        Case {
            name: "of 16 bits",
            data_type: DataType::Float16,
            runs: "2,3,4,5 2,3,6,5 2,3,6,7 2,1,1,6|2,3,4,5 1,3,6,5 1,3,6,7 2,1,1,6",
            ..case
        },
        Case {
            name: "of doubles",
            data_type: DataType::Float64,
            runs: "2,3,4,5 2,3,6,5 2,3,6,7 2,1,1,6",
            expect: Never("FusedAttention"),
            ..case
        },
        Case {
            name: "along another axis",
            inputs: "q:b,h,s,d k:b,h,t,d v:b,h,t,e",
            nodes: "t=Transpose k perm=0,1,3,2; p=MatMul q t; w=Softmax p axis=2; y=MatMul w v",
            runs: "2,3,4,5 2,3,6,5 2,3,6,7",
            expect: Never("FusedAttention"),
            ..case
        },
    ]);
}

/// Masks of −∞, and rows that they hide altogether.
#[test]
fn hidden_queries_are_what_the_softmax_makes_of_them() {
    let case = Case {
        inputs: "q:b,h,s,d k:b,h,t,d v:b,h,t,e limit:1,1,s,t",
        runs: "1,2,6,4 1,2,5,4 1,2,5,3 1,1,6,5|1,1,3,4 1,1,200,4 1,1,200,3 1,1,3,1",
        expect: Made("FusedAttention"),
        ..BASE
    };
    check_all(&[
        Case {
            name: "NaN",
            // Log of what is below 0 is NaN, of 0 it is -inf; rows of either and of both.
            nodes: "z=Relu limit; mask=Log z; t=Transpose k perm=0,1,3,2; p=MatMul q t; m=Add p mask; \
                    w=Softmax m axis=-1; y=MatMul w v",
            ..case
        },
        Case {
            name: "zero",
            nodes: "z=Relu limit; mask=Log z; t=Transpose k perm=0,1,3,2; p=MatMul q t; m=Add p mask; \
                    w=Softmax m axis=-1; i=IsNaN w; c=Where i 0.0 w; y=MatMul c v",
            ..case
        },
    ]);
}

/// Keys through a shape of three axes are the same only where positions stay positions.
#[test]
fn keys_are_followed_through_reshapes_that_join_heads_only() {
    let of = |name, nodes, expect| Case {
        name,
        inputs: "q:1,2,4,6 k:1,2,4,6 v:1,2,4,6",
        nodes,
        runs: "1,2,4,6 1,2,4,6 1,2,4,6",
        expect,
        ..BASE
    };
    check_all(&[
        of(
            "heads",
            "a=Constant value_ints=2,4,6; b=Constant value_ints=1,2,6,4; j=Reshape k a; \
             u=Transpose j perm=0,2,1; t=Reshape u b; p=MatMul q t; w=Softmax p axis=-1; y=MatMul w v",
            Made("FusedAttention"),
        ),
        of(
            "heads and positions",
            "a=Constant value_ints=1,8,6; b=Constant value_ints=1,2,6,4; j=Reshape k a; \
             u=Transpose j perm=0,2,1; t=Reshape u b; p=MatMul q t; w=Softmax p axis=-1; y=MatMul w v",
            Never("FusedAttention"),
        ),
    ]);
}
