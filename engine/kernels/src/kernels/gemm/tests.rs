use super::*;
use crate::isa::{Isa, Kernel, Level, Numerics, dispatch};
use crate::kernels::threads::Threads;

/// Reproducible values in about -1..1, different for each seed.
pub(crate) fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state as i32 as f32) / (1u32 << 31) as f32
        })
        .collect()
}

pub(crate) fn reference_activation(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::None => x,
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Clip { min, max } => x.clamp(min, max),
        Activation::LeakyRelu { alpha } => {
            if x < 0.0 {
                alpha * x
            } else {
                x
            }
        }
        Activation::HardSigmoid { alpha, beta } => (x * alpha + beta).clamp(0.0, 1.0),
        Activation::HardSwish => x * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0),
        // Tested in `vector_math`; here only that they are reached.
        other => {
            let mut x = [x];
            dispatch(Level::Scalar, Numerics::Reproducible, Apply(other, &mut x));
            x[0]
        }
    }
}

struct Apply<'a>(Activation, &'a mut [f32]);

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.apply_slice(isa, self.1);
    }
}

/// The formula, each element summed in the order of `p` and rounded after every step.
fn reference_gemm(
    a: MatrixRef<'_>,
    b: MatrixRef<'_>,
    c: &mut [f32],
    c_row_stride: usize,
    accumulate: bool,
    epilogue: &Epilogue<'_>,
) {
    for i in 0..a.rows {
        for j in 0..b.cols {
            let at = i * c_row_stride + j;
            let mut sum = if accumulate { c[at] } else { 0.0 };
            for p in 0..a.cols {
                let x = a.data[i * a.row_stride + p * a.col_stride];
                let y = b.data[p * b.row_stride + j * b.col_stride];
                sum += x * y;
            }
            if epilogue.alpha != 1.0 {
                sum *= epilogue.alpha;
            }
            match epilogue.bias {
                Bias::None => {}
                Bias::PerColumn(bias) => sum += bias[j],
                Bias::PerRow(bias) => sum += bias[i],
            }
            if let Some(residual) = epilogue.residual {
                sum += residual[at];
            }
            c[at] = reference_activation(epilogue.activation, sum);
        }
    }
}

/// All environments this machine has: levels, numerics, thread counts.
pub(crate) fn environments() -> Vec<Env> {
    let mut threads = vec![Threads::single()];
    threads.extend(Threads::new(3).ok());
    let mut environments = Vec::new();
    for level in Level::available() {
        for numerics in [Numerics::Fast, Numerics::Reproducible] {
            for threads in &threads {
                environments.push(Env {
                    level,
                    numerics,
                    threads: threads.clone(),
                });
            }
        }
    }
    environments
}

/// Bits in reproducible numerics, closeness for sums of `k` terms in fast ones.
pub(crate) fn assert_agree(env: &Env, case: &str, k: usize, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let good = match env.numerics {
            Numerics::Reproducible => found.to_bits() == expected.to_bits(),
            Numerics::Fast => (found - expected).abs() <= 2e-6 * (k as f32 + 4.0).sqrt() * 4.0,
        };
        assert!(
            good,
            "{case}, {} {:?}, {} threads: element {i} is {found}, expected {expected}",
            env.level,
            env.numerics,
            env.threads.count()
        );
    }
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    RowMajor,
    Transposed,
    Gaps,
}

/// A matrix in one of the layouts, and the elements it needs.
fn matrix(data: &[f32], rows: usize, cols: usize, layout: Layout) -> MatrixRef<'_> {
    match layout {
        Layout::RowMajor => MatrixRef::new(&data[..rows * cols], rows, cols),
        Layout::Transposed => MatrixRef::new(&data[..rows * cols], cols, rows).transposed(),
        Layout::Gaps => MatrixRef::strided(data, rows, cols, 2 * cols + 1, 2),
    }
}

#[test]
fn all_paths_agree_with_the_formula() {
    let shapes = [
        (1, 1, 1),
        (1, 5, 3),
        (1, 64, 300),
        (1, 33, 2100),
        (2, 7, 17),
        (7, 50, 1),
        (9, 33, 2),
        (130, 16, 3),
        (6, 400, 4),
        (3, 16, 32),
        (5, 400, 40),
        (12, 3, 31),
        (13, 10, 33),
        (17, 64, 65),
        (25, 800, 50),
        (100, 20, 100),
        (250, 9, 530),
        (4, 0, 5),
        (0, 4, 5),
        (4, 5, 0),
    ];
    let layouts = [Layout::RowMajor, Layout::Transposed, Layout::Gaps];
    let environments = environments();
    for (m, k, n) in shapes {
        let (a_data, b_data) = (
            values(3 * (m + 1) * (k + 1), 1),
            values(3 * (k + 1) * (n + 1), 2),
        );
        for a_layout in layouts {
            for b_layout in layouts {
                let a = matrix(&a_data, m, k, a_layout);
                let b = matrix(&b_data, k, n, b_layout);
                let mut expected = vec![0.0; m * n];
                reference_gemm(a, b, &mut expected, n, false, &Epilogue::default());
                for env in &environments {
                    let case = format!("[{m}, {k}] {a_layout:?} x [{k}, {n}] {b_layout:?}");
                    let packed_a = PackedA::pack(env.level, a);
                    let packed_b = PackedB::pack(env.level, b);
                    let lefts = [Left::Plain(a), Left::Packed(packed_a.view())];
                    let rights = [Right::Plain(b), Right::Packed(packed_b.view())];
                    for a in lefts {
                        for b in rights {
                            let mut c = vec![f32::NAN; m * n];
                            gemm(
                                env,
                                Gemm {
                                    a,
                                    b,
                                    c: &mut c,
                                    c_row_stride: n,
                                    accumulate: false,
                                    epilogue: Epilogue::default(),
                                },
                            );
                            assert_agree(env, &case, k, &c, &expected);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn epilogues_and_gaps_agree_with_the_formula() {
    let activations = [
        Activation::None,
        Activation::Relu,
        Activation::Clip {
            min: -0.25,
            max: 0.5,
        },
        Activation::LeakyRelu { alpha: 0.1 },
        Activation::HardSigmoid {
            alpha: 0.2,
            beta: 0.5,
        },
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::Silu,
        Activation::Tanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Elu { alpha: 0.7 },
        Activation::Softplus,
        Activation::Mish,
    ];
    for (m, k, n) in [(1, 9, 70), (7, 500, 37), (30, 11, 33)] {
        let (a_data, b_data) = (values(m * k, 3), values(k * n, 4));
        let (a, b) = (MatrixRef::new(&a_data, m, k), MatrixRef::new(&b_data, k, n));
        let stride = n + 3;
        let (per_column, per_row) = (values(n, 5), values(m, 6));
        let residual = values(m * stride, 7);
        let start = values(m * stride, 8);
        for (i, activation) in activations.into_iter().enumerate() {
            let epilogue = Epilogue {
                alpha: if i % 2 == 0 { 1.0 } else { 0.3 },
                bias: match i % 3 {
                    0 => Bias::PerColumn(&per_column),
                    1 => Bias::PerRow(&per_row),
                    _ => Bias::None,
                },
                residual: (i % 2 == 0).then_some(&residual),
                activation,
            };
            for accumulate in [false, true] {
                let mut expected = start.clone();
                reference_gemm(a, b, &mut expected, stride, accumulate, &epilogue);
                for env in environments() {
                    let case = format!("[{m}, {k}, {n}] {activation:?} accumulate {accumulate}");
                    let packed = PackedB::pack(env.level, b);
                    for b in [Right::Plain(b), Right::Packed(packed.view())] {
                        let mut c = start.clone();
                        gemm(
                            &env,
                            Gemm {
                                a: Left::Plain(a),
                                b,
                                c: &mut c,
                                c_row_stride: stride,
                                accumulate,
                                epilogue,
                            },
                        );
                        assert_agree(&env, &case, k, &c, &expected);
                    }
                }
            }
        }
    }
}

#[test]
fn batched_products_follow_their_offsets() {
    // Attention-like: 5 products, queries in rows with gaps, keys transposed, one key shared.
    let (m, k, n) = (9, 20, 33);
    let (a_data, b_data) = (values(5 * m * 2 * k, 10), values(4 * k * n, 11));
    let a = MatrixRef::strided(&a_data, m, k, 2 * k, 1);
    let b = MatrixRef::strided(&b_data, k, n, 1, k);
    let a_offsets = [0, k, 2 * m * k, 4 * m * k, 8 * m * k];
    let b_offsets = [0, k * n, 2 * k * n, 3 * k * n, 0];
    let mut expected = vec![0.0; 5 * m * n];
    let epilogue = Epilogue {
        alpha: 0.25,
        activation: Activation::Relu,
        ..Epilogue::default()
    };
    for (i, c) in expected.chunks_exact_mut(m * n).enumerate() {
        let (a, b) = (a.moved(a_offsets[i]), b.moved(b_offsets[i]));
        reference_gemm(a, b, c, n, false, &epilogue);
    }
    for env in environments() {
        let mut c = vec![f32::NAN; 5 * m * n];
        let products = BatchedGemm {
            a,
            a_offsets: &a_offsets,
            b,
            b_offsets: &b_offsets,
            c: &mut c,
            alpha: 0.25,
            activation: Activation::Relu,
        };
        gemm_batched(&env, products);
        assert_agree(&env, "batch of 5", k, &c, &expected);
    }
}

#[test]
fn packing_reads_unaligned_bytes() {
    let data = values(37 * 50, 9);
    let mut bytes = vec![0xaa];
    bytes.extend(data.iter().flat_map(|x| x.to_le_bytes()));
    for level in Level::available() {
        for (rows, cols, transposed) in [(37, 50, false), (50, 37, true)] {
            let matrix = MatrixRef::new(&data, 37, 50);
            let matrix = if transposed {
                matrix.transposed()
            } else {
                matrix
            };
            let expected = PackedB::pack(level, matrix);
            let (row_stride, col_stride) = (matrix.row_stride, matrix.col_stride);
            let found = PackedB::pack_bytes(level, &bytes[1..], rows, cols, row_stride, col_stride);
            assert_eq!(found.view().data(), expected.view().data());
            assert_eq!(found.view().data().as_ptr().addr() % 64, 0);
        }
    }
}

#[test]
fn packed_views_reject_wrong_lengths() {
    assert!(PackedBRef::new(3, 17, 16, &[0.0; 96]).is_some());
    assert!(PackedBRef::new(3, 17, 16, &[0.0; 95]).is_none());
    assert!(PackedBRef::new(3, usize::MAX, 16, &[]).is_none());
    assert!(PackedARef::new(13, 2, 12, &[0.0; 48]).is_some());
    assert!(PackedARef::new(13, 2, 12, &[0.0; 26]).is_none());
}

#[test]
#[should_panic(expected = "[2, 3] x [4, 2]")]
fn mismatched_shapes_panic() {
    let a = [0.0; 8];
    gemm(
        &Env::new(),
        Gemm {
            a: Left::Plain(MatrixRef::new(&a[..6], 2, 3)),
            b: Right::Plain(MatrixRef::new(&a, 4, 2)),
            c: &mut [0.0; 4],
            c_row_stride: 2,
            accumulate: false,
            epilogue: Epilogue::default(),
        },
    );
}
