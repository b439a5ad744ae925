//! Reductions against sums in double precision over coordinates.

use super::scan::{Extremum, arg_extremum, running};
use super::*;
use crate::isa::{Level, Numerics};
use crate::kernels::threads::Threads;
use crate::tensor::row_major_strides;

const ALL: [Reduction; 10] = [
    Reduction::Sum,
    Reduction::Mean,
    Reduction::Max,
    Reduction::Min,
    Reduction::Prod,
    Reduction::L1,
    Reduction::L2,
    Reduction::SumSquare,
    Reduction::LogSum,
    Reduction::LogSumExp,
];

const CASES: [(&str, &[usize], &[bool]); 11] = [
    ("rows", &[5, 37], &[false, true]),
    ("columns", &[37, 5], &[true, false]),
    ("middle", &[3, 20, 70], &[false, true, false]),
    ("wide columns", &[3, 5000], &[true, false]),
    ("mixed", &[4, 3, 5, 6], &[true, false, true, false]),
    ("mixed, last", &[4, 3, 5, 6], &[true, false, false, true]),
    ("all", &[7, 11], &[true, true]),
    ("nothing", &[7, 11], &[false, false]),
    ("ones", &[1, 6, 1], &[true, false, true]),
    ("scalar", &[], &[]),
    ("empty", &[3, 0, 2], &[false, true, false]),
];

fn rows_of(shape: &[usize], reduced: &[bool], x: &[f32]) -> Vec<Vec<f64>> {
    let strides = row_major_strides(shape);
    let kept: Vec<usize> = (0..shape.len()).filter(|&i| !reduced[i]).collect();
    let sizes: Vec<usize> = kept.iter().map(|&axis| shape[axis]).collect();
    let mut rows = vec![Vec::new(); sizes.iter().product()];
    for (i, &x) in x.iter().enumerate() {
        let row = kept.iter().fold(0, |row, &axis| {
            row * shape[axis] + i / strides[axis] % shape[axis]
        });
        rows[row].push(x.into());
    }
    rows
}

#[test]
fn reductions_agree_with_double_precision() {
    let mut environments: Vec<Env> = Level::available()
        .map(|level| Env {
            level,
            numerics: Numerics::Fast,
            threads: Threads::single(),
        })
        .collect();
    environments.extend(Threads::new(3).map(|threads| Env {
        threads,
        ..Env::new()
    }));
    for env in environments {
        for (name, shape, reduced) in CASES {
            let x: Vec<f32> = (0..shape.iter().product::<usize>())
                .map(|i| ((i * 37 % 101) as f32 / 60.0) + 0.2)
                .collect();
            let rows = rows_of(shape, reduced, &x);
            for reduction in ALL {
                let want: Vec<f64> = rows.iter().map(|row| f64::reduce(reduction, row)).collect();
                let mut y = vec![0.0; want.len()];
                reduce(&env, reduction, shape, reduced, &x, &mut y);
                for (y, want) in y.iter().zip(&want) {
                    let close = (*y as f64 - want).abs() <= 1e-5 * want.abs() + 1e-6;
                    assert!(
                        close || *y as f64 == *want || y.is_nan() && want.is_nan(),
                        "{reduction:?} {name} {:?}: {y}, not {want}",
                        env.level
                    );
                }
            }
        }
    }
}

#[test]
fn reproducible_bits_are_equal_on_every_level() {
    let x: Vec<f32> = (0..3000).map(|i| (i as f32 * 0.37).sin() + 1.5).collect();
    for (shape, reduced) in [([10, 300], [false, true]), ([300, 10], [true, false])] {
        for reduction in ALL {
            let mut results = Level::available().map(|level| {
                let env = Env {
                    level,
                    numerics: Numerics::Reproducible,
                    threads: Threads::single(),
                };
                let mut y = vec![0.0; 10];
                reduce(&env, reduction, &shape, &reduced, &x, &mut y);
                y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            });
            let first = results.next().expect("there is a level");
            assert!(results.all(|bits| bits == first), "{reduction:?} {shape:?}");
        }
    }
}

#[test]
fn extrema_keep_nan_and_sums_do_not_overflow_in_exponentials() {
    let env = Env::new();
    let one = |reduction, x: &[f32]| {
        let mut y = [0.0];
        reduce(&env, reduction, &[x.len()], &[true], x, &mut y);
        y[0]
    };
    for place in [0, 5, 16, 39] {
        let mut x = vec![1.0; 40];
        x[place] = f32::NAN;
        assert!(
            one(Reduction::Max, &x).is_nan() && one(Reduction::Min, &x).is_nan(),
            "{place}"
        );
    }
    assert!((one(Reduction::LogSumExp, &[1000.0, 1000.0]) - 1000.6931).abs() < 1e-3);
    assert_eq!(
        one(Reduction::LogSumExp, &[f32::NEG_INFINITY; 3]),
        f32::NEG_INFINITY
    );
    assert_eq!(
        one(Reduction::LogSumExp, &[1.0, f32::INFINITY]),
        f32::INFINITY
    );
    assert_eq!(one(Reduction::Max, &[]), f32::NEG_INFINITY);
}

#[test]
fn integers_reduce_natively() {
    let cases: [(Reduction, i32); 6] = [
        (Reduction::Sum, 2),
        (Reduction::Mean, 0),
        (Reduction::Max, 4),
        (Reduction::Min, -3),
        (Reduction::L1, 8),
        (Reduction::SumSquare, 26),
    ];
    for (reduction, want) in cases {
        let mut y = [0];
        reduce_scalars(&Env::new(), reduction, &[3], &[true], &[4, -3, 1], &mut y);
        assert_eq!(y, [want], "{reduction:?}");
    }
}

#[test]
fn arg_extremum_knows_ties_and_nan() {
    let x = [1.0f32, 3.0, 3.0, 0.0, 0.0, 2.0];
    let at = |extremum, takes_last, x: &[f32]| {
        let mut y = [0];
        arg_extremum(extremum, takes_last, x.len(), 1, x, &mut y);
        y[0]
    };
    assert_eq!(at(Extremum::Max, false, &x), 1);
    assert_eq!(at(Extremum::Max, true, &x), 2);
    assert_eq!(at(Extremum::Min, false, &x), 3);
    assert_eq!(at(Extremum::Min, true, &x), 4);
    assert_eq!(at(Extremum::Max, false, &[1.0, f32::NAN, 7.0]), 1);
    let mut y = [0; 2];
    arg_extremum(Extremum::Max, false, 3, 2, &[1i8, 9, 5, 2, 3, 9], &mut y);
    assert_eq!(y, [1, 0]);
}

#[test]
fn running_sums_in_both_directions() {
    let x = [1, 2, 3];
    let sums = |exclusive, reverse| {
        let mut y = [0; 3];
        running(0, |a, b| a + b, exclusive, reverse, 3, 1, &x, &mut y);
        y
    };
    assert_eq!(sums(false, false), [1, 3, 6]);
    assert_eq!(sums(true, false), [0, 1, 3]);
    assert_eq!(sums(false, true), [6, 5, 3]);
    assert_eq!(sums(true, true), [5, 3, 0]);
    let mut y = [0; 4];
    running(0, |a, b| a + b, false, false, 2, 2, &[1, 2, 3, 4], &mut y);
    assert_eq!(y, [1, 2, 4, 6]);
}
