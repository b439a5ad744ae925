use super::*;
use crate::kernels::gemm::tests::{assert_agree, environments, reference_activation, values};

/// Sizes as an operator gives them.
struct Case {
    name: &'static str,
    image: &'static [usize],
    weights: &'static [usize],
    strides: &'static [usize],
    dilations: &'static [usize],
    pads_begin: &'static [usize],
    pads_end: &'static [usize],
    groups: usize,
}

const CASES: &[Case] = &[
    Case {
        name: "3x3",
        image: &[2, 3, 9, 11],
        weights: &[5, 3, 3, 3],
        strides: &[1, 1],
        dilations: &[1, 1],
        pads_begin: &[1, 1],
        pads_end: &[1, 1],
        groups: 1,
    },
    Case {
        name: "7x7, stride 2, three channels",
        image: &[1, 3, 33, 40],
        weights: &[16, 3, 7, 7],
        strides: &[2, 2],
        dilations: &[1, 1],
        pads_begin: &[3, 3],
        pads_end: &[3, 3],
        groups: 1,
    },
    Case {
        name: "pointwise",
        image: &[2, 20, 6, 7],
        weights: &[30, 20, 1, 1],
        strides: &[1, 1],
        dilations: &[1, 1],
        pads_begin: &[0, 0],
        pads_end: &[0, 0],
        groups: 1,
    },
    Case {
        name: "pointwise, grouped, many rows",
        image: &[1, 8, 13, 13],
        weights: &[160, 4, 1, 1],
        strides: &[1, 1],
        dilations: &[1, 1],
        pads_begin: &[0, 0],
        pads_end: &[0, 0],
        groups: 2,
    },
    Case {
        name: "1x1, stride 2",
        image: &[1, 6, 14, 15],
        weights: &[7, 6, 1, 1],
        strides: &[2, 2],
        dilations: &[1, 1],
        pads_begin: &[0, 0],
        pads_end: &[0, 0],
        groups: 1,
    },
    Case {
        name: "1x1 with padding",
        image: &[1, 2, 3, 3],
        weights: &[2, 2, 1, 1],
        strides: &[1, 1],
        dilations: &[1, 1],
        pads_begin: &[1, 0],
        pads_end: &[0, 2],
        groups: 1,
    },
    Case {
        name: "grouped, asymmetric pads, stride 3 and 2, dilated",
        image: &[2, 4, 17, 19],
        weights: &[6, 2, 3, 2],
        strides: &[2, 3],
        dilations: &[2, 3],
        pads_begin: &[0, 4],
        pads_end: &[3, 1],
        groups: 2,
    },
    Case {
        name: "depthwise 3x3",
        image: &[2, 7, 14, 14],
        weights: &[7, 1, 3, 3],
        strides: &[1, 1],
        dilations: &[1, 1],
        pads_begin: &[1, 1],
        pads_end: &[1, 1],
        groups: 7,
    },
    Case {
        name: "depthwise 5x5, stride 2, wide",
        image: &[1, 3, 20, 75],
        weights: &[3, 1, 5, 5],
        strides: &[2, 2],
        dilations: &[1, 1],
        pads_begin: &[2, 1],
        pads_end: &[2, 2],
        groups: 3,
    },
    Case {
        name: "depthwise, two outputs for each input, dilated",
        image: &[1, 3, 12, 12],
        weights: &[6, 1, 3, 3],
        strides: &[1, 2],
        dilations: &[2, 2],
        pads_begin: &[2, 2],
        pads_end: &[2, 2],
        groups: 3,
    },
    Case {
        name: "deep sums over several blocks",
        image: &[1, 100, 5, 5],
        weights: &[13, 100, 3, 3],
        strides: &[1, 1],
        dilations: &[1, 1],
        pads_begin: &[1, 1],
        pads_end: &[1, 1],
        groups: 1,
    },
    Case {
        name: "more positions than a block of columns",
        image: &[1, 2, 30, 31],
        weights: &[3, 2, 2, 2],
        strides: &[1, 1],
        dilations: &[1, 1],
        pads_begin: &[0, 0],
        pads_end: &[0, 0],
        groups: 1,
    },
    Case {
        name: "one dimension",
        image: &[2, 4, 50],
        weights: &[6, 4, 3],
        strides: &[2],
        dilations: &[1],
        pads_begin: &[1],
        pads_end: &[1],
        groups: 1,
    },
    Case {
        name: "three dimensions",
        image: &[1, 3, 5, 6, 7],
        weights: &[4, 3, 2, 3, 3],
        strides: &[1, 2, 2],
        dilations: &[2, 1, 1],
        pads_begin: &[1, 1, 0],
        pads_end: &[0, 1, 1],
        groups: 1,
    },
    Case {
        name: "padding wider than the image",
        image: &[1, 1, 2, 2],
        weights: &[1, 1, 3, 3],
        strides: &[2, 2],
        dilations: &[1, 1],
        pads_begin: &[4, 5],
        pads_end: &[3, 6],
        groups: 1,
    },
    Case {
        name: "stride beyond the window",
        image: &[1, 2, 11, 13],
        weights: &[2, 2, 2, 2],
        strides: &[4, 5],
        dilations: &[1, 1],
        pads_begin: &[0, 0],
        pads_end: &[0, 0],
        groups: 1,
    },
    Case {
        name: "no images",
        image: &[0, 2, 4, 4],
        weights: &[2, 2, 2, 2],
        strides: &[1, 1],
        dilations: &[1, 1],
        pads_begin: &[0, 0],
        pads_end: &[0, 0],
        groups: 1,
    },
];

impl Case {
    fn window(&self) -> Window<'_> {
        Window {
            kernel: &self.weights[2..],
            strides: self.strides,
            dilations: self.dilations,
            pads_begin: self.pads_begin,
            pads_end: self.pads_end,
        }
    }
}

/// All positions of a box, the last dimension fastest.
fn positions(size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [depth, height, width] = size;
    (0..depth * height * width).map(move |i| [i / (height * width), i / width % height, i % width])
}

fn index(at: [usize; 3], size: [usize; 3]) -> usize {
    (at[0] * size[1] + at[1]) * size[2] + at[2]
}

/// The input position under a tap of the window of an output position, if not in the padding.
fn under_tap(g: &Geometry, out: [usize; 3], tap: [usize; 3]) -> Option<[usize; 3]> {
    let mut at = [0; 3];
    for i in 0..3 {
        at[i] = (out[i] * g.strides[i] + tap[i] * g.dilations[i])
            .checked_sub(g.pads_begin[i])
            .filter(|&x| x < g.input[i])?;
    }
    Some(at)
}

fn reference_convolution(
    g: &Geometry,
    input: &[f32],
    weights: &[f32],
    epilogue: impl Fn(usize, usize, f32) -> f32,
) -> Vec<f32> {
    let mut output = Vec::new();
    for image in 0..g.batch {
        for out_channel in 0..g.out_channels {
            let group = out_channel / g.group_out();
            for out in positions(g.output) {
                let mut sum = 0.0;
                for c in 0..g.group_in() {
                    let plane = image * g.in_channels + group * g.group_in() + c;
                    for (t, tap) in positions(g.kernel).enumerate() {
                        let x = under_tap(g, out, tap)
                            .map_or(0.0, |at| input[plane * g.input_len() + index(at, g.input)]);
                        let w = weights[(out_channel * g.group_in() + c) * g.taps() + t];
                        sum += w * x;
                    }
                }
                output.push(epilogue(out_channel, output.len(), sum));
            }
        }
    }
    output
}

#[test]
fn all_paths_agree_with_the_formula() {
    let environments = environments();
    for case in CASES {
        let geometry =
            Geometry::convolution(case.image, case.weights, case.window(), case.groups).unwrap();
        let input = values(case.image.iter().product(), 1);
        let weights = values(case.weights.iter().product(), 2);
        let output_len = geometry.batch * geometry.out_channels * geometry.output_len();
        let (bias, residual) = (values(geometry.out_channels, 3), values(output_len, 4));
        for (with_bias, with_residual, activation) in [
            (false, false, Activation::None),
            (true, false, Activation::Clip { min: 0.0, max: 0.6 }),
            (true, true, Activation::HardSwish),
        ] {
            let expected =
                reference_convolution(&geometry, &input, &weights, |channel, at, sum| {
                    let sum = if with_bias { sum + bias[channel] } else { sum };
                    let sum = if with_residual {
                        sum + residual[at]
                    } else {
                        sum
                    };
                    reference_activation(activation, sum)
                });
            for env in &environments {
                let mut output = vec![f32::NAN; output_len];
                let convolution = Convolution {
                    geometry: &geometry,
                    input: &input,
                    weights: &weights,
                    bias: with_bias.then_some(&bias),
                    residual: with_residual.then_some(&residual),
                    activation,
                    output: &mut output,
                };
                convolve(env, convolution);
                let depth = geometry.group_in() * geometry.taps();
                let name = format!("{}, {activation:?}", case.name);
                assert_agree(env, &name, depth, &output, &expected);
            }
        }
    }
}

/// The sums over channels first, then over taps in order.
fn reference_transposed(g: &Geometry, input: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; g.batch * g.out_channels * g.output_len()];
    let (group_in, group_out) = (g.group_in(), g.group_out());
    for image in 0..g.batch {
        for out_channel in 0..g.out_channels {
            let (group, channel) = (out_channel / group_out, out_channel % group_out);
            let plane = &mut output[(image * g.out_channels + out_channel) * g.output_len()..]
                [..g.output_len()];
            for (t, tap) in positions(g.kernel).enumerate() {
                for (p, at) in positions(g.input).enumerate() {
                    let mut sum = 0.0;
                    for c in 0..group_in {
                        let c = group * group_in + c;
                        let w = weights[(c * group_out + channel) * g.taps() + t];
                        sum += w * input[(image * g.in_channels + c) * g.input_len() + p];
                    }
                    let target: Option<Vec<usize>> = (0..3)
                        .map(|i| {
                            (at[i] * g.strides[i] + tap[i] * g.dilations[i])
                                .checked_sub(g.pads_begin[i])
                                .filter(|&x| x < g.output[i])
                        })
                        .collect();
                    if let Some(target) = target {
                        plane[index([target[0], target[1], target[2]], g.output)] += sum;
                    }
                }
            }
            plane.iter_mut().for_each(|x| *x += bias[out_channel]);
        }
    }
    output
}

#[test]
fn transposed_convolutions_agree_with_the_formula() {
    type Sizes = &'static [usize];
    let cases: [(&str, Sizes, Sizes, Sizes, Sizes, Sizes, usize, Sizes); 5] = [
        (
            "stride 2",
            &[2, 6, 5, 7],
            &[6, 4, 3, 3],
            &[2, 2],
            &[1, 1],
            &[1, 1],
            1,
            &[10, 14],
        ),
        (
            "stride 1",
            &[1, 20, 9, 40],
            &[20, 5, 3, 3],
            &[1, 1],
            &[1, 1],
            &[0, 1],
            1,
            &[11, 40],
        ),
        (
            "groups",
            &[1, 6, 5, 4],
            &[6, 2, 2, 3],
            &[3, 2],
            &[2, 1],
            &[0, 2],
            3,
            &[15, 6],
        ),
        (
            "one dimension",
            &[1, 3, 8],
            &[3, 2, 4],
            &[2],
            &[1],
            &[5],
            1,
            &[9],
        ),
        (
            "no channels",
            &[1, 0, 4],
            &[0, 2, 3],
            &[1],
            &[1],
            &[0],
            1,
            &[6],
        ),
    ];
    for (name, image, weights_size, strides, dilations, pads, groups, output) in cases {
        let window = Window {
            kernel: &weights_size[2..],
            strides,
            dilations,
            pads_begin: pads,
            pads_end: pads,
        };
        let geometry = Geometry::transposed(image, weights_size, window, groups, output).unwrap();
        let input = values(image.iter().product(), 5);
        let weights = values(weights_size.iter().product(), 6);
        let bias = values(geometry.out_channels, 7);
        let expected = reference_transposed(&geometry, &input, &weights, &bias);
        for env in environments() {
            let mut found = vec![f32::NAN; expected.len()];
            convolve_transposed(
                &env,
                TransposedConvolution {
                    geometry: &geometry,
                    input: &input,
                    weights: &weights,
                    bias: Some(&bias),
                    activation: Activation::None,
                    output: &mut found,
                },
            );
            let depth = geometry.group_in() * geometry.taps();
            assert_agree(&env, name, depth, &found, &expected);
        }
    }
}

#[test]
fn geometry_rejects_what_does_not_fit() {
    let ones: &[usize] = &[1, 1];
    let zeros: &[usize] = &[0, 0];
    let window = |kernel| Window {
        kernel,
        strides: ones,
        dilations: ones,
        pads_begin: zeros,
        pads_end: zeros,
    };
    let geometry = |image: &[usize], weights: &[usize], groups| {
        Geometry::convolution(image, weights, window(&[3, 3]), groups)
    };
    assert!(geometry(&[1, 2, 5, 5], &[1, 2, 3, 3], 1).is_ok());
    let cases = [
        (
            geometry(&[1, 2, 5, 2], &[1, 2, 3, 3], 1),
            "window of 3 elements",
        ),
        (
            geometry(&[1, 2, 5, 5], &[1, 1, 3, 3], 1),
            "2 input and 1 output channels",
        ),
        (geometry(&[1, 2, 5, 5], &[3, 1, 3, 3], 2), "2 groups"),
        (geometry(&[1, 2, 5, 5], &[1, 2, 3, 3], 0), "must not be 0"),
        (geometry(&[1, 2, 5], &[1, 2, 3], 1), "kernel has 2"),
        (geometry(&[1, 2], &[1, 2], 1), "input has 0"),
        (
            geometry(
                &[usize::MAX >> 8, 1 << 20, 1 << 10, 5],
                &[1, 1 << 20, 3, 3],
                1,
            ),
            "overflow",
        ),
        (
            Geometry::pooling(&[1, 1, 4, 4], window(&[0, 3]), false),
            "kernel must not be 0",
        ),
    ];
    for (found, message) in cases {
        let found = found.unwrap_err().to_string();
        assert!(found.contains(message), "{found}: expected {message}");
    }
}
