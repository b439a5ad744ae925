use super::*;
use crate::isa::{Level, Numerics};
use crate::kernels::threads::Threads;

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        // Extremes often: they are where saturation would show.
        (0..len)
            .map(|_| match self.next() % 4 {
                0 => 0,
                1 => 255,
                2 => 128,
                _ => (self.next() & 0xff) as u8,
            })
            .collect()
    }
}

fn of_sign(bytes: &[u8], signed: bool) -> Bytes<'_> {
    if signed {
        Bytes::Signed(bytemuck::cast_slice(bytes))
    } else {
        Bytes::Unsigned(bytes)
    }
}

fn reference(
    a: Bytes<'_>,
    b: Bytes<'_>,
    m: usize,
    k: usize,
    n: usize,
    za: &[i32],
    zb: &[i32],
) -> Vec<i32> {
    let zero = |zeros: &[i32], i: usize| match zeros {
        [] => 0,
        [one] => *one,
        many => many[i],
    };
    let mut c = vec![0i32; m * n];
    for i in 0..m {
        for j in 0..n {
            for l in 0..k {
                let product = (a.get(i * k + l) - zero(za, i)) * (b.get(l * n + j) - zero(zb, j));
                c[i * n + j] = c[i * n + j].wrapping_add(product);
            }
        }
    }
    c
}

fn environments() -> Vec<Env> {
    let mut environments = Vec::new();
    for level in Level::available() {
        for threads in [1, 3] {
            let Ok(threads) = Threads::new(threads) else {
                eprintln!("skipped: no threads in this build");
                continue;
            };
            environments.push(Env {
                level,
                numerics: Numerics::Fast,
                threads,
            });
        }
    }
    environments
}

const SIZES: &[(usize, usize, usize)] = &[
    (1, 1, 1),
    (1, 64, 32),
    (1, 65, 33),
    (3, 5, 17),
    (4, 0, 7),
    (0, 8, 8),
    (5, 8, 0),
    (12, 96, 64),
    (13, 31, 48),
    (27, 130, 100),
    (64, 100, 200),
];

#[test]
fn sums_are_exact_on_every_level() {
    let mut random = Random(1);
    for &(m, k, n) in SIZES {
        for signs in 0..4 {
            let (a, b) = (random.bytes(m * k), random.bytes(k * n));
            let (a, b) = (of_sign(&a, signs & 1 != 0), of_sign(&b, signs & 2 != 0));
            let mut zeros = |signed: bool, len: usize| -> Vec<i32> {
                let shift = if signed { 128 } else { 0 };
                (0..len)
                    .map(|_| (random.next() & 0xff) as i32 - shift)
                    .collect()
            };
            for (za, zb) in [(0, 0), (1, 1), (m, n), (1, 0), (0, n)] {
                let za = zeros(signs & 1 != 0, za);
                let zb = zeros(signs & 2 != 0, zb);
                let want = reference(a, b, m, k, n, &za, &zb);
                let packed = PackedRhs::new(b, k, n, &zb);
                for env in environments() {
                    let mut c = vec![-1i32; m * n];
                    let lhs = Lhs {
                        m,
                        data: a,
                        zero_points: &za,
                    };
                    gemm(&env, lhs, &packed, Output::Integers(&mut c));
                    assert_eq!(
                        c,
                        want,
                        "{m}x{k}x{n} signs {signs} zeros {} {} on {} with {} threads",
                        za.len(),
                        zb.len(),
                        env.level,
                        env.threads.count()
                    );
                }
            }
        }
    }
}

#[test]
fn transposed_packing_is_the_same_matrix() {
    let mut random = Random(2);
    for &(_, k, n) in SIZES {
        let b = random.bytes(k * n);
        let mut transposed = vec![0u8; k * n];
        for i in 0..k {
            for j in 0..n {
                transposed[j * k + i] = b[i * n + j];
            }
        }
        for signed in [false, true] {
            let one = PackedRhs::new(of_sign(&b, signed), k, n, &[3]);
            let two = PackedRhs::transposed(of_sign(&transposed, signed), k, n, &[3]);
            assert_eq!(one.view().sums(), two.view().sums(), "{k}x{n}");
            let bytes = |packed: &PackedRhs| {
                bytemuck::cast_slice::<_, u8>(packed.view().steps_from(0)).to_vec()
            };
            assert_eq!(bytes(&one), bytes(&two), "{k}x{n}");
        }
    }
}

#[test]
fn outputs_are_scaled_rounded_and_clamped() {
    let mut random = Random(3);
    for &(m, k, n) in SIZES {
        let (a, b) = (random.bytes(m * k), random.bytes(k * n));
        let (a, b) = (of_sign(&a, false), of_sign(&b, true));
        let sums = reference(a, b, m, k, n, &[7], &[]);
        let packed = PackedRhs::new(b, k, n, &[]);
        let columns: Vec<f32> = (0..n).map(|i| 0.001 + 0.0001 * i as f32).collect();
        let rows: Vec<f32> = (0..m).map(|i| 1.0 + i as f32).collect();
        let bias: Vec<f32> = (0..n.max(m)).map(|i| i as f32 - 3.25).collect();
        let scales = [
            Scale {
                columns: &[0.0078125],
                rows: &[],
                bias: Bias::None,
            },
            Scale {
                columns: &columns,
                rows: &[],
                bias: Bias::Columns(&bias[..n]),
            },
            Scale {
                columns: &columns,
                rows: &rows,
                bias: Bias::Rows(&bias[..m]),
            },
        ];
        for (case, scale) in scales.into_iter().enumerate() {
            if ![1, n].contains(&scale.columns.len()) {
                continue;
            }
            let value = |i: usize| {
                let (row, column) = (i / n, i % n);
                let factor = if scale.columns.len() == 1 {
                    scale.columns[0]
                } else {
                    columns[column]
                };
                let mut value = sums[i] as f32 * factor;
                if !scale.rows.is_empty() {
                    value *= rows[row];
                }
                match scale.bias {
                    Bias::None => value,
                    Bias::Columns(bias) => value + bias[column],
                    Bias::Rows(bias) => value + bias[row],
                }
            };
            let floats: Vec<f32> = (0..m * n).map(value).collect();
            for env in environments() {
                let lhs = Lhs {
                    m,
                    data: a,
                    zero_points: &[7],
                };
                let what = format!("{m}x{k}x{n} case {case} on {}", env.level);
                let mut c = vec![0f32; m * n];
                gemm(
                    &env,
                    lhs,
                    &packed,
                    Output::Floats {
                        data: &mut c,
                        scale,
                    },
                );
                assert_eq!(c, floats, "{what}");
                let mut c = vec![0u8; m * n];
                gemm(
                    &env,
                    lhs,
                    &packed,
                    Output::Unsigned {
                        data: &mut c,
                        scale,
                        zero_point: 100,
                    },
                );
                let want: Vec<u8> = floats
                    .iter()
                    .map(|x| (x.round_ties_even() + 100.0).clamp(0.0, 255.0) as u8)
                    .collect();
                assert_eq!(c, want, "{what}");
                let mut c = vec![0i8; m * n];
                gemm(
                    &env,
                    lhs,
                    &packed,
                    Output::Signed {
                        data: &mut c,
                        scale,
                        zero_point: -5,
                    },
                );
                let want: Vec<i8> = floats
                    .iter()
                    .map(|x| (x.round_ties_even() - 5.0).clamp(-128.0, 127.0) as i8)
                    .collect();
                assert_eq!(c, want, "{what}");
            }
        }
    }
}
