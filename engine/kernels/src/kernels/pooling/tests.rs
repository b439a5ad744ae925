use super::*;
use crate::kernels::convolution::Window;
use crate::kernels::gemm::tests::{assert_agree, environments, values};

type Sizes = &'static [usize];

/// Name, image, kernel, strides, dilations, pads before, pads after, round up.
const CASES: &[(&str, Sizes, Sizes, Sizes, Sizes, Sizes, Sizes, bool)] = &[
    (
        "2x2",
        &[2, 3, 8, 10],
        &[2, 2],
        &[2, 2],
        &[1, 1],
        &[0, 0],
        &[0, 0],
        false,
    ),
    (
        "3x3, padded",
        &[1, 2, 7, 40],
        &[3, 3],
        &[1, 1],
        &[1, 1],
        &[1, 1],
        &[1, 1],
        false,
    ),
    (
        "3x3, stride 2, up",
        &[1, 2, 112, 8],
        &[3, 3],
        &[2, 2],
        &[1, 1],
        &[0, 0],
        &[0, 0],
        true,
    ),
    (
        "dilated",
        &[1, 1, 9, 9],
        &[2, 3],
        &[1, 2],
        &[3, 2],
        &[1, 0],
        &[0, 2],
        true,
    ),
    (
        "odd padding, stride 2",
        &[1, 2, 9, 37],
        &[5, 5],
        &[2, 2],
        &[1, 1],
        &[1, 3],
        &[2, 2],
        false,
    ),
    (
        "one dimension",
        &[1, 4, 33],
        &[4],
        &[3],
        &[1],
        &[1],
        &[2],
        false,
    ),
    (
        "three dimensions",
        &[1, 2, 4, 5, 6],
        &[2, 2, 3],
        &[2, 1, 2],
        &[1, 1, 1],
        &[1, 0, 1],
        &[0, 1, 1],
        true,
    ),
    (
        "last window beyond the input",
        &[1, 1, 2, 2],
        &[1, 1],
        &[3, 3],
        &[1, 1],
        &[0, 1],
        &[1, 1],
        true,
    ),
];

fn geometry(case: &(&str, Sizes, Sizes, Sizes, Sizes, Sizes, Sizes, bool)) -> Geometry {
    let &(_, image, kernel, strides, dilations, pads_begin, pads_end, round_up) = case;
    let window = Window {
        kernel,
        strides,
        dilations,
        pads_begin,
        pads_end,
    };
    Geometry::pooling(image, window, round_up).unwrap()
}

/// The elements of a window in the order of taps: `Some(None)` for padding that counts, nothing
/// for positions beyond the padded input.
fn window(g: &Geometry, at: usize) -> Vec<Option<usize>> {
    let (channel, p) = (at / g.output_len(), at % g.output_len());
    let [_, oh, ow] = g.output;
    let out = [p / (oh * ow), p / ow % oh, p % ow];
    let [kd, kh, kw] = g.kernel;
    (0..kd * kh * kw)
        .filter_map(|t| {
            let tap = [t / (kh * kw), t / kw % kh, t % kw];
            let padded: Vec<usize> = (0..3)
                .map(|i| out[i] * g.strides[i] + tap[i] * g.dilations[i])
                .collect();
            let beyond = |i: usize| padded[i] >= g.pads_begin[i] + g.input[i] + g.pads_end[i];
            if (0..3).any(beyond) {
                return None;
            }
            let inside = |i: usize| {
                padded[i]
                    .checked_sub(g.pads_begin[i])
                    .filter(|&x| x < g.input[i])
            };
            let position = inside(0).zip(inside(1)).zip(inside(2));
            Some(
                position.map(|((d, h), w)| {
                    channel * g.input_len() + (d * g.input[1] + h) * g.input[2] + w
                }),
            )
        })
        .collect()
}

fn reference(g: &Geometry, pooling: Pooling, input: &[f32]) -> Vec<f32> {
    let len = g.batch * g.in_channels * g.output_len();
    (0..len)
        .map(|at| {
            let window = window(g, at);
            let inside = window.iter().flatten().map(|&i| input[i]);
            match pooling {
                Pooling::Max => inside.fold(f32::NEG_INFINITY, |a, x| if x > a { x } else { a }),
                Pooling::Average { count_include_pad } => {
                    let count = if count_include_pad {
                        window.len()
                    } else {
                        inside.clone().count()
                    };
                    inside.fold(0.0, |a, x| a + x) / count.max(1) as f32
                }
                Pooling::Lp { p: 1.0 } => inside.fold(0.0, |a, x| a + x.abs()),
                Pooling::Lp { p: 2.0 } => inside.fold(0.0, |a, x| a + x * x).sqrt(),
                Pooling::Lp { p } => {
                    let sum = inside
                        .map(|x| f64::from(x.abs()).powf(p.into()))
                        .sum::<f64>();
                    sum.powf(1.0 / f64::from(p)) as f32
                }
            }
        })
        .collect()
}

#[test]
fn windows_agree_with_the_formula() {
    let poolings = [
        Pooling::Max,
        Pooling::Average {
            count_include_pad: false,
        },
        Pooling::Average {
            count_include_pad: true,
        },
        Pooling::Lp { p: 1.0 },
        Pooling::Lp { p: 2.0 },
    ];
    for case in CASES {
        let geometry = geometry(case);
        let input = values(case.1.iter().product(), 1);
        for pooling in poolings {
            let expected = reference(&geometry, pooling, &input);
            for env in environments() {
                let mut output = vec![f32::NAN; expected.len()];
                pool(&env, &geometry, pooling, &input, &mut output);
                // Differences of two infinities are not numbers.
                let finite = |x: &f32| if x.is_finite() { *x } else { -9.0 };
                let (found, expected): (Vec<_>, Vec<_>) = (
                    output.iter().map(finite).collect(),
                    expected.iter().map(finite).collect(),
                );
                let name = format!("{}, {pooling:?}", case.0);
                assert_agree(&env, &name, geometry.taps(), &found, &expected);
            }
        }
    }
}

#[test]
fn any_norm_agrees_with_the_formula() {
    let geometry = geometry(&CASES[1]);
    let input = values(CASES[1].1.iter().product(), 2);
    let expected = reference(&geometry, Pooling::Lp { p: 3.0 }, &input);
    let mut bits = Vec::new();
    for env in environments() {
        let mut output = vec![f32::NAN; expected.len()];
        pool(&env, &geometry, Pooling::Lp { p: 3.0 }, &input, &mut output);
        for (found, expected) in output.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < 1e-5,
                "{}: {found} {expected}",
                env.level
            );
        }
        if env.numerics == crate::isa::Numerics::Reproducible {
            bits.push(output.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        }
    }
    assert!(bits.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn whole_channels_are_reduced() {
    let input = values(5 * 49, 4);
    for env in environments() {
        for (pooling, formula) in [
            (
                Pooling::Max,
                (|x: &[f32]| x.iter().copied().fold(f32::MIN, f32::max)) as fn(&[f32]) -> f32,
            ),
            (
                Pooling::Average {
                    count_include_pad: true,
                },
                |x| x.iter().sum::<f32>() / 49.0,
            ),
            (Pooling::Lp { p: 2.0 }, |x| {
                x.iter().map(|x| x * x).sum::<f32>().sqrt()
            }),
        ] {
            let mut output = [0.0; 5];
            pool_global(&env, pooling, 49, &input, &mut output);
            for (x, y) in input.chunks_exact(49).zip(output) {
                assert!((formula(x) - y).abs() < 1e-5, "{pooling:?} {}", env.level);
            }
        }
    }
}
