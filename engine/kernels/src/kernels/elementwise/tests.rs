//! Element-wise kernels against plain loops.

use half::{bf16, f16};

use super::binary::Comparison;
use super::*;
use crate::isa::{Level, Numerics};
use crate::kernels::threads::Threads;
use crate::tensor::{Bool, row_major_strides};

fn environments() -> Vec<Env> {
    let mut environments: Vec<Env> = Level::available()
        .map(|level| Env {
            level,
            numerics: Numerics::Fast,
            threads: Threads::single(),
        })
        .collect();
    if let Ok(threads) = Threads::new(3) {
        environments.push(Env {
            threads,
            ..Env::new()
        });
    }
    environments
}

/// The element of `shape` at row-major place `i` of `output`, by coordinates.
fn reference_place(shape: &[usize], output: &[usize], i: usize) -> usize {
    let strides = row_major_strides(shape);
    let output_strides = row_major_strides(output);
    let missing = output.len() - shape.len();
    (0..shape.len())
        .filter(|&axis| shape[axis] != 1)
        .map(|axis| i / output_strides[axis + missing] % output[axis + missing] * strides[axis])
        .sum()
}

const SHAPES: [(&str, &[usize], &[usize]); 12] = [
    ("same", &[2, 3, 4], &[2, 3, 4]),
    ("scalar right", &[5, 7], &[]),
    ("scalar left", &[1], &[5, 7]),
    ("row", &[3, 4, 5], &[5]),
    ("column", &[3, 4, 5], &[3, 4, 1]),
    ("channels", &[2, 3, 4, 5], &[3, 1, 1]),
    ("both", &[4, 1, 5], &[3, 1]),
    ("alternating", &[2, 1, 3, 1, 4], &[1, 5, 3, 2, 1]),
    ("longer than a block", &[3, 2000], &[2000]),
    ("many blocks and threads", &[70, 3000], &[70, 1]),
    ("empty", &[0, 4], &[1, 4]),
    ("scalars", &[], &[]),
];

#[test]
fn broadcast_shape_follows_numpy() {
    let cases: [(&[usize], &[usize], Option<&[usize]>); 5] = [
        (&[2, 3], &[3], Some(&[2, 3])),
        (&[2, 1], &[1, 3], Some(&[2, 3])),
        (&[0, 1], &[1, 3], Some(&[0, 3])),
        (&[2], &[3], None),
        (&[0], &[2], None),
    ];
    for (a, b, want) in cases {
        assert_eq!(broadcast_shape(&[a, b]).as_deref(), want, "{a:?} {b:?}");
    }
}

#[test]
fn zip_broadcasts_like_coordinates_say() {
    for env in environments() {
        for (name, a_shape, b_shape) in SHAPES {
            let output = broadcast_shape(&[a_shape, b_shape]).expect("the shapes fit");
            let values = |shape: &[usize], step: f32| -> Vec<f32> {
                (0..shape.iter().product())
                    .map(|i: usize| i as f32 * step + 1.0)
                    .collect()
            };
            let (a, b) = (values(a_shape, 1.0), values(b_shape, 0.25));
            let want: Vec<f32> = (0..output.iter().product())
                .map(|i| {
                    a[reference_place(a_shape, &output, i)]
                        - b[reference_place(b_shape, &output, i)]
                })
                .collect();
            let a_operand = Operand::Elements(&a, Expansion::new(a_shape, &output));
            let b_operand = Operand::Elements(&b, Expansion::new(b_shape, &output));
            let f = arithmetic::<f32>(Arithmetic::Sub);

            let mut y = vec![0.0; want.len()];
            zip(&env, f, &a_operand, &b_operand, &mut y);
            assert_eq!(y, want, "{name}, {:?}", env.level);

            if a.len() == want.len() {
                let mut y = a.clone();
                zip(&env, f, &Operand::InOutput, &b_operand, &mut y);
                assert_eq!(y, want, "{name} in place of the left, {:?}", env.level);
            }
            if b.len() == want.len() {
                let mut y = b.clone();
                zip(&env, f, &a_operand, &Operand::InOutput, &mut y);
                assert_eq!(y, want, "{name} in place of the right, {:?}", env.level);
            }
        }
    }
}

fn binary<T: bytemuck::Pod + Send + Sync, U: bytemuck::Pod + Send + Sync>(
    f: BinaryFunction<T, U>,
    a: &[T],
    b: &[T],
) -> Vec<U> {
    let shape = [a.len()];
    let operand = |x| Operand::Elements(x, Expansion::new(&shape, &shape));
    let mut y = vec![U::zeroed(); a.len()];
    zip(&Env::new(), f, &operand(a), &operand(b), &mut y);
    y
}

#[test]
fn integers_wrap_and_do_not_trap() {
    use Arithmetic::*;
    let cases: [(Arithmetic, i8, i8, i8); 13] = [
        (Add, 127, 1, -128),
        (Sub, -128, 1, 127),
        (Mul, 64, 4, 0),
        (Div, -7, 2, -3),
        (Div, 5, 0, 0),
        (Div, -128, -1, -128),
        (Mod, -7, 3, 2),
        (Mod, 7, -3, -2),
        (Fmod, -7, 3, -1),
        (Mod, -128, -1, 0),
        (Fmod, 3, 0, 0),
        (Pow, -3, 3, -27),
        (Pow, -1, -3, -1),
    ];
    for (function, a, b, want) in cases {
        assert_eq!(
            binary(arithmetic(function), &[a], &[b]),
            [want],
            "{function:?} {a} {b}"
        );
    }
    assert_eq!(
        binary(arithmetic::<u64>(Pow), &[3, 2], &[40, 64]),
        [3u64.pow(40), 0]
    );
    assert_eq!(binary(arithmetic::<u8>(Mod), &[7], &[4]), [3]);
    assert_eq!(
        binary(bits::<u8>(Bits::ShiftLeft), &[3, 3], &[7, 8]),
        [128, 0]
    );
    assert_eq!(
        binary(bits::<u64>(Bits::ShiftRight), &[u64::MAX], &[63]),
        [1]
    );
}

#[test]
fn minimum_and_maximum_propagate_nan() {
    let (a, b) = ([1.0, f32::NAN, 2.0, -0.5], [2.0, 1.0, f32::NAN, -1.0]);
    for (function, want) in [
        (Arithmetic::Min, [1.0, f32::NAN, f32::NAN, -1.0]),
        (Arithmetic::Max, [2.0, f32::NAN, f32::NAN, -0.5]),
    ] {
        for (y, want) in binary(arithmetic(function), &a, &b).into_iter().zip(want) {
            assert!(
                y == want || y.is_nan() && want.is_nan(),
                "{function:?}: {y}, not {want}"
            );
        }
    }
}

#[test]
fn remainders_follow_their_signs() {
    let (a, b) = ([-7.5f64, 7.5, 6.0], [2.0, -2.0, 2.0]);
    assert_eq!(
        binary(arithmetic(Arithmetic::Mod), &a, &b),
        [0.5, -0.5, 0.0]
    );
    assert_eq!(
        binary(arithmetic(Arithmetic::Fmod), &a, &b),
        [-1.5, 1.5, 0.0]
    );
}

#[test]
fn half_types_compute_in_f32() {
    let a: Vec<f16> = (0..1500).map(|i| f16::from_f32(i as f32 / 16.0)).collect();
    let want: Vec<f16> = a
        .iter()
        .map(|a| f16::from_f32(a.to_f32() * a.to_f32()))
        .collect();
    assert_eq!(binary(arithmetic(Arithmetic::Mul), &a, &a), want);

    let x: Vec<bf16> = (0..1500)
        .map(|i| bf16::from_f32(i as f32 / 100.0 - 7.0))
        .collect();
    let mut y = vec![bf16::ZERO; x.len()];
    map(&Env::new(), Unary::Relu, Some(&x), &mut y);
    let want: Vec<bf16> = x
        .iter()
        .map(|x| bf16::from_f32(x.to_f32().max(0.0)))
        .collect();
    assert_eq!(y, want);
    let mut y = x.clone();
    map(&Env::new(), Unary::Relu, None, &mut y);
    assert_eq!(y, want);
}

#[test]
fn comparisons_are_false_for_nan() {
    let (a, b) = ([1.0, f32::NAN, 3.0, 2.0], [2.0, f32::NAN, 1.0, 2.0]);
    for (comparison, want) in [
        (Comparison::Equal, [false, false, false, true]),
        (Comparison::Greater, [false, false, true, false]),
        (Comparison::GreaterOrEqual, [false, false, true, true]),
        (Comparison::Less, [true, false, false, false]),
        (Comparison::LessOrEqual, [true, false, false, true]),
    ] {
        let want: Vec<Bool> = want.into_iter().map(Bool::from).collect();
        assert_eq!(binary(compare(comparison), &a, &b), want, "{comparison:?}");
    }
}

#[test]
fn any_byte_but_zero_is_true() {
    let (a, b) = (
        [Bool(0), Bool(2), Bool(255), Bool(2)],
        [Bool(1), Bool(1), Bool(0), Bool(4)],
    );
    let bytes = |f| {
        binary(logic(f), &a, &b)
            .into_iter()
            .map(|y| y.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(bytes(Logic::And), [0, 1, 0, 1]);
    assert_eq!(bytes(Logic::Or), [1, 1, 1, 1]);
    assert_eq!(bytes(Logic::Xor), [1, 0, 1, 0]);
    assert_eq!(bytes(Logic::Equal), [0, 1, 0, 1]);
}

/// Functions whose vector form is not among those of `vector_math`, and parameters.
#[test]
fn vector_form_agrees_with_the_double_form() {
    use Unary::*;
    let functions = [
        Abs,
        Neg,
        Sign,
        Floor,
        Ceil,
        Round,
        Reciprocal,
        Relu,
        Clip {
            min: -1.5,
            max: 2.0,
        },
        LeakyRelu { alpha: 0.1 },
        ThresholdedRelu { alpha: 0.7 },
        Elu { alpha: 1.5 },
        Celu { alpha: 2.0 },
        Selu {
            alpha: 1.67,
            gamma: 1.05,
        },
        HardSigmoid {
            alpha: 0.2,
            beta: 0.5,
        },
        HardSwish,
        Swish { alpha: 1.7 },
        Softsign,
        Shrink {
            bias: 0.3,
            lambd: 0.5,
        },
        Tan,
        Asinh,
        Cosh,
        Gelu,
        GeluTanh,
        Pow { exponent: 2.0 },
        Pow { exponent: 3.0 },
        Pow { exponent: 0.5 },
        Pow { exponent: 0.75 },
        Pow { exponent: -2.0 },
    ];
    let x: Vec<f32> = (-300..300)
        .map(|i| i as f32 / 50.0 + 0.003)
        .chain([f32::NAN])
        .collect();
    for env in environments() {
        for function in functions {
            let mut y = vec![0.0; x.len()];
            map(&env, function, Some(&x), &mut y);
            let mut in_place = x.clone();
            map(&env, function, None, &mut in_place);
            for i in 0..x.len() {
                assert_eq!(y[i].to_bits(), in_place[i].to_bits());
                let want = function.double(x[i].into());
                let close = (y[i] as f64 - want).abs() <= 1e-6 * want.abs().max(0.1);
                assert!(
                    close || y[i].is_nan() && want.is_nan(),
                    "{function:?} {:?} of {}: {}, not {want}",
                    env.level,
                    x[i],
                    y[i]
                );
            }
        }
    }
}
