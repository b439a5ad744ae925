use super::*;

/// Runs a kernel on every level this machine has and under both numerics.
fn on_all<K: Kernel + Clone>(kernel: K) -> Vec<(String, K::Output)> {
    let mut results = Vec::new();
    for level in Level::available() {
        for numerics in [Numerics::Fast, Numerics::Reproducible] {
            let name = format!("{level} {numerics:?}");
            results.push((name, dispatch(level, numerics, kernel.clone())));
        }
    }
    results
}

const SPECIAL: [f32; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.49,
    -3.51,
    1e-40,
    -1e-40,
    1e30,
    -1e30,
    8388607.5,
    -8388609.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN_POSITIVE,
    0.1,
    7.0,
];

type Unary = (&'static str, fn(f32) -> f32);
type Binary = (&'static str, fn(f32, f32) -> f32);

#[derive(Clone)]
struct Arithmetic;

/// All unary results, then all binary ones over every pair, in the order of the tables below.
impl Kernel for Arithmetic {
    type Output = (Vec<Vec<f32>>, Vec<Vec<f32>>);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let mut unary = vec![Vec::new(); 7];
        let mut binary = vec![Vec::new(); 13];
        let keep = |into: &mut Vec<f32>, x: I::F32| {
            let mut lanes = [0.0; 16];
            isa.store(x, &mut lanes);
            into.push(lanes[I::LANES - 1]);
        };
        for a in SPECIAL {
            let x = isa.splat(a);
            let results = [
                isa.neg(x),
                isa.abs(x),
                isa.sqrt(x),
                isa.floor(x),
                isa.ceil(x),
                isa.trunc(x),
                isa.round_even(x),
            ];
            for (into, result) in unary.iter_mut().zip(results) {
                keep(into, result);
            }
            for b in SPECIAL {
                let y = isa.splat(b);
                let (yes, no) = (isa.splat(1.0), isa.splat(0.0));
                let results = [
                    isa.add(x, y),
                    isa.sub(x, y),
                    isa.mul(x, y),
                    isa.div(x, y),
                    isa.min(x, y),
                    isa.max(x, y),
                    isa.select(isa.lt(x, y), yes, no),
                    isa.select(isa.le(x, y), yes, no),
                    isa.select(isa.eq(x, y), yes, no),
                    isa.select(isa.gt(x, y), yes, no),
                    isa.select(isa.ge(x, y), yes, no),
                    isa.select(isa.ne(x, y), yes, no),
                    isa.select(isa.mask_and(isa.lt(x, y), isa.mask_not(isa.eq(y, x))), x, y),
                ];
                for (into, result) in binary.iter_mut().zip(results) {
                    keep(into, result);
                }
            }
        }
        (unary, binary)
    }
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn arithmetic_equals_the_scalar_formulas() {
    fn truth(x: bool) -> f32 {
        f32::from(u8::from(x))
    }
    let unary: [Unary; 7] = [
        ("neg", |a| -a),
        ("abs", f32::abs),
        ("sqrt", f32::sqrt),
        ("floor", f32::floor),
        ("ceil", f32::ceil),
        ("trunc", f32::trunc),
        ("round_even", f32::round_ties_even),
    ];
    let binary: [Binary; 13] = [
        ("add", |a, b| a + b),
        ("sub", |a, b| a - b),
        ("mul", |a, b| a * b),
        ("div", |a, b| a / b),
        ("min", |a, b| if a < b { a } else { b }),
        ("max", |a, b| if a > b { a } else { b }),
        ("lt", |a, b| truth(a < b)),
        ("le", |a, b| truth(a <= b)),
        ("eq", |a, b| truth(a == b)),
        ("gt", |a, b| truth(a > b)),
        ("ge", |a, b| truth(a >= b)),
        ("ne", |a, b| truth(a != b)),
        ("masks", |a, b| if a < b { a } else { b }),
    ];
    for (level, (unary_results, binary_results)) in on_all(Arithmetic) {
        for ((name, formula), results) in unary.iter().zip(unary_results) {
            for (a, found) in SPECIAL.into_iter().zip(results) {
                assert!(same(found, formula(a)), "{level}: {name}({a}) = {found}");
            }
        }
        let pairs = || {
            SPECIAL
                .into_iter()
                .flat_map(|a| SPECIAL.into_iter().map(move |b| (a, b)))
        };
        for ((name, formula), results) in binary.iter().zip(binary_results) {
            for ((a, b), found) in pairs().zip(results) {
                assert!(
                    same(found, formula(a, b)),
                    "{level}: {name}({a}, {b}) = {found}"
                );
            }
        }
    }
}

#[derive(Clone)]
struct Integers(i32, i32);

impl Kernel for Integers {
    type Output = Vec<i32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<i32> {
        let (a, b) = (isa.splat_i32(self.0), isa.splat_i32(self.1));
        let (yes, no) = (isa.splat_i32(1), isa.splat_i32(0));
        let results = [
            isa.add_i32(a, b),
            isa.sub_i32(a, b),
            isa.mul_i32(a, b),
            isa.min_i32(a, b),
            isa.max_i32(a, b),
            isa.and(a, b),
            isa.or(a, b),
            isa.xor(a, b),
            isa.shl(a, 3),
            isa.shr_logical(a, 5),
            isa.shr_arithmetic(a, 5),
            isa.bits(isa.to_f32(a)),
            isa.select_i32(isa.eq_i32(a, b), yes, no),
            isa.select_i32(isa.gt_i32(a, b), yes, no),
        ];
        let mut lanes = [0; 16];
        results
            .into_iter()
            .map(|x| {
                isa.store_i32(x, &mut lanes);
                lanes[I::LANES - 1]
            })
            .collect()
    }
}

#[test]
fn integers_equal_the_scalar_formulas() {
    let values = [
        0,
        1,
        -1,
        7,
        -129,
        65_537,
        i32::MAX,
        i32::MIN,
        123_456_789,
        -987_654_321,
    ];
    for a in values {
        for b in values {
            let expected = vec![
                a.wrapping_add(b),
                a.wrapping_sub(b),
                a.wrapping_mul(b),
                a.min(b),
                a.max(b),
                a & b,
                a | b,
                a ^ b,
                a << 3,
                (a as u32 >> 5) as i32,
                a >> 5,
                (a as f32).to_bits() as i32,
                i32::from(a == b),
                i32::from(a > b),
            ];
            for (level, found) in on_all(Integers(a, b)) {
                assert_eq!(found, expected, "{level}: {a}, {b}");
            }
        }
    }
}

#[derive(Clone)]
struct Conversions;

impl Kernel for Conversions {
    type Output = (Vec<i32>, Vec<i32>, Vec<u8>, Vec<i8>, Vec<f32>);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let source: Vec<f32> = (0..16).map(|i| i as f32 * 37.25 - 300.5).collect();
        let bytes: Vec<u8> = (0..16).map(|i| i * 17).collect();
        let signed: Vec<i8> = bytes.iter().map(|&x| x as i8).collect();
        let (mut truncated, mut rounded) = (vec![0; 16], vec![0; 16]);
        let (mut as_u8, mut as_i8) = (vec![0u8; 16], vec![0i8; 16]);
        let mut widened = vec![0.0; 16];
        for i in (0..16).step_by(I::LANES) {
            let x = isa.load(&source[i..]);
            isa.store_i32(isa.trunc_to_i32(x), &mut truncated[i..]);
            isa.store_i32(isa.round_to_i32(x), &mut rounded[i..]);
            isa.store_u8(isa.round_to_i32(x), &mut as_u8[i..]);
            isa.store_i8(isa.round_to_i32(x), &mut as_i8[i..]);
            let sum = isa.add_i32(isa.load_u8(&bytes[i..]), isa.load_i8(&signed[i..]));
            isa.store(isa.to_f32(sum), &mut widened[i..]);
        }
        (truncated, rounded, as_u8, as_i8, widened)
    }
}

#[test]
fn conversions_round_and_saturate() {
    let source = (0..16).map(|i| i as f32 * 37.25 - 300.5);
    let rounded = || source.clone().map(|x| x.round_ties_even() as i32);
    for (level, (truncated_found, rounded_found, u8_found, i8_found, widened)) in
        on_all(Conversions)
    {
        let truncated: Vec<i32> = source.clone().map(|x| x as i32).collect();
        assert_eq!(truncated_found, truncated, "{level}");
        assert_eq!(rounded_found, rounded().collect::<Vec<_>>(), "{level}");
        let as_u8: Vec<u8> = rounded().map(|x| x.clamp(0, 255) as u8).collect();
        assert_eq!(u8_found, as_u8, "{level}");
        let as_i8: Vec<i8> = rounded().map(|x| x.clamp(-128, 127) as i8).collect();
        assert_eq!(i8_found, as_i8, "{level}");
        let sums: Vec<f32> = (0..16)
            .map(|i| (i32::from(i * 17u8) + i32::from((i * 17u8) as i8)) as f32)
            .collect();
        assert_eq!(widened, sums, "{level}");
    }
}

#[derive(Clone)]
struct WidenHalf<'a>(&'a [u16]);

impl Kernel for WidenHalf<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let mut out = vec![0.0; self.0.len()];
        for (x, y) in self
            .0
            .chunks_exact(I::LANES)
            .zip(out.chunks_exact_mut(I::LANES))
        {
            isa.store(isa.load_f16(x), y);
        }
        out
    }
}

#[test]
fn every_half_precision_number_widens_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for (level, found) in on_all(WidenHalf(&all)) {
        for (&half, found) in all.iter().zip(found) {
            let expected = half::f16::from_bits(half).to_f32();
            assert!(
                same(found, expected),
                "{level}: {half:#x} gave {found}, not {expected}"
            );
        }
    }
}

#[derive(Clone)]
struct MulAdd(f32, f32, f32);

impl Kernel for MulAdd {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (f32, f32) {
        let (a, b, c) = (isa.splat(self.0), isa.splat(self.1), isa.splat(self.2));
        let mut lanes = [0.0; 16];
        isa.store(isa.mul_add(a, b, c), &mut lanes);
        let plus = lanes[0];
        isa.store(isa.neg_mul_add(a, b, c), &mut lanes);
        (plus, lanes[0])
    }
}

#[test]
fn reproducible_multiply_add_rounds_twice() {
    // The product needs 48 bits: fused and unfused results differ.
    let (a, b) = (1.0 + f32::EPSILON, 1.0 + f32::EPSILON);
    let c = -1.0;
    for level in Level::available() {
        let found = dispatch(level, Numerics::Reproducible, MulAdd(a, b, c));
        assert_eq!(found, (a * b + c, c - a * b), "{level}");
    }
}

#[derive(Clone)]
struct Partial<'a>(&'a [f32]);

impl Kernel for Partial<'_> {
    type Output = Vec<(Vec<f32>, Vec<f32>)>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        (0..=I::LANES)
            .map(|lanes| {
                let x = isa.load_partial(&self.0[..lanes]);
                let mut whole = vec![9.0; I::LANES];
                isa.store(x, &mut whole);
                let mut part = vec![9.0; I::LANES + 1];
                isa.store_partial(x, &mut part[..lanes]);
                (whole, part)
            })
            .collect()
    }
}

#[test]
fn partial_loads_fill_with_zeros_and_partial_stores_leave_the_rest() {
    let source: Vec<f32> = (1..=16).map(|i| i as f32).collect();
    for (level, found) in on_all(Partial(&source)) {
        for (lanes, (whole, part)) in found.into_iter().enumerate() {
            for (i, x) in whole.into_iter().enumerate() {
                assert_eq!(
                    x,
                    if i < lanes { source[i] } else { 0.0 },
                    "{level}: {lanes} lanes"
                );
            }
            for (i, x) in part.into_iter().enumerate() {
                assert_eq!(
                    x,
                    if i < lanes { source[i] } else { 9.0 },
                    "{level}: {lanes} lanes"
                );
            }
        }
    }
}

#[derive(Clone)]
struct Deinterleave<'a>(&'a [f32]);

impl Kernel for Deinterleave<'_> {
    type Output = (Vec<f32>, Vec<f32>);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let (mut even, mut odd) = (vec![0.0; I::LANES], vec![0.0; I::LANES]);
        let (a, b) = (isa.load(self.0), isa.load(&self.0[I::LANES..]));
        let (x, y) = isa.deinterleave(a, b);
        isa.store(x, &mut even);
        isa.store(y, &mut odd);
        (even, odd)
    }
}

#[test]
fn deinterleaving_separates_even_and_odd_elements() {
    let source: Vec<f32> = (0..32).map(|i| i as f32).collect();
    for (level, (even, odd)) in on_all(Deinterleave(&source)) {
        for i in 0..even.len() {
            assert_eq!(
                (even[i], odd[i]),
                (2.0 * i as f32, 2.0 * i as f32 + 1.0),
                "{level}"
            );
        }
    }
}

#[derive(Clone)]
struct Transpose<'a>(&'a [f32]);

impl Kernel for Transpose<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let mut rows = [isa.zero(); 16];
        for (row, x) in rows
            .iter_mut()
            .zip(self.0.chunks_exact(I::LANES))
            .take(I::LANES)
        {
            *row = isa.load(x);
        }
        let mut out = vec![0.0; I::LANES * I::LANES];
        for (row, y) in transpose(isa, rows)
            .iter()
            .zip(out.chunks_exact_mut(I::LANES))
        {
            isa.store(*row, y);
        }
        out
    }
}

#[test]
fn blocks_are_transposed() {
    let source: Vec<f32> = (0..256).map(|i| i as f32).collect();
    for (level, found) in on_all(Transpose(&source)) {
        let lanes = found.len().isqrt();
        for (at, &x) in found.iter().enumerate() {
            assert_eq!(x, source[at % lanes * lanes + at / lanes], "{level}: {at}");
        }
    }
}

#[derive(Clone)]
struct Reductions<'a>(&'a [f32], &'a [f32]);

impl Kernel for Reductions<'_> {
    type Output = [f32; 5];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f32; 5] {
        [
            lanes16::sum(isa, self.0),
            lanes16::sum_of_squares(isa, self.0),
            lanes16::max(isa, self.0),
            lanes16::min(isa, self.0),
            lanes16::dot(isa, self.0, self.1),
        ]
    }
}

/// The pseudo-code of [`lanes16`].
fn reference_reduction(x: &[f32], neutral: f32, step: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [neutral; 16];
    for (i, &x) in x.iter().enumerate() {
        lanes[i % 16] = step(lanes[i % 16], x);
    }
    if !x.len().is_multiple_of(16) {
        for lane in &mut lanes[x.len() % 16..] {
            *lane = step(*lane, neutral);
        }
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] = step(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}

#[test]
fn reductions_have_one_order_on_every_instruction_set() {
    for len in [0, 1, 5, 15, 16, 17, 31, 32, 100, 1003] {
        let x: Vec<f32> = (0..len)
            .map(|i| ((i * 7919) % 1013) as f32 / 7.0 - 60.0)
            .collect();
        let y: Vec<f32> = (0..len)
            .map(|i| ((i * 104_729) % 997) as f32 / 11.0 - 40.0)
            .collect();
        let products: Vec<f32> = x.iter().zip(&y).map(|(a, b)| a * b).collect();
        let squares: Vec<f32> = x.iter().map(|a| a * a).collect();
        let add = |a: f32, b: f32| a + b;
        let expected = [
            reference_reduction(&x, 0.0, add),
            reference_reduction(&squares, 0.0, add),
            reference_reduction(&x, f32::NEG_INFINITY, f32::max),
            reference_reduction(&x, f32::INFINITY, f32::min),
            reference_reduction(&products, 0.0, add),
        ];
        for level in Level::available() {
            let found = dispatch(level, Numerics::Reproducible, Reductions(&x, &y));
            assert_eq!(
                found.map(f32::to_bits),
                expected.map(f32::to_bits),
                "{level}: {len}"
            );
            let fast = dispatch(level, Numerics::Fast, Reductions(&x, &y));
            for (fast, expected) in fast.into_iter().zip(expected) {
                let close = (fast - expected).abs() <= 1e-5 * expected.abs().max(1.0) * 100.0;
                assert!(
                    close || fast == expected,
                    "{level}: {len}: {fast} {expected}"
                );
            }
        }
    }
}

#[test]
fn maximum_skips_nan() {
    let x = [f32::NAN, 1.0, f32::NAN, 3.0, -2.0];
    for (level, found) in on_all(Reductions(&x, &x)) {
        assert_eq!((found[2], found[3]), (3.0, -2.0), "{level}");
    }
}

struct DotBytes<'a>(&'a [u8], &'a [i8]);

impl ByteDotKernel for DotBytes<'_> {
    type Output = i32;

    #[inline(always)]
    fn run<D: ByteDot>(self, dot: D) -> i32 {
        let isa = dot.isa();
        let lanes = D::Isa::LANES;
        let words = |bytes: &[u8]| -> Vec<i32> {
            bytes
                .chunks_exact(4)
                .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        };
        let a = words(self.0);
        let b = words(bytemuck::cast_slice(self.1));
        let mut acc = isa.splat_i32(0);
        for (a, b) in a.chunks_exact(lanes).zip(b.chunks_exact(lanes)) {
            acc = dot.dot_u8_i8(acc, isa.load_i32(a), isa.load_i32(b));
        }
        let mut sums = [0; 16];
        isa.store_i32(acc, &mut sums);
        sums.iter().sum()
    }
}

#[test]
fn byte_dot_products_do_not_saturate() {
    let cases: [(&str, Vec<u8>, Vec<i8>); 3] = [
        ("largest products", vec![255; 256], vec![127; 256]),
        ("smallest products", vec![255; 256], vec![-128; 256]),
        (
            "mixed",
            (0..256).map(|i| (i * 31 % 256) as u8).collect(),
            (0..256).map(|i| (i * 57 % 256) as u8 as i8).collect(),
        ),
    ];
    for (name, a, b) in cases {
        let expected: i32 = a
            .iter()
            .zip(&b)
            .map(|(&a, &b)| i32::from(a) * i32::from(b))
            .sum();
        for level in Level::available() {
            assert_eq!(
                dispatch_byte_dot(level, DotBytes(&a, &b)),
                expected,
                "{name}: {level}"
            );
        }
    }
}

#[test]
fn level_names_round_trip_and_errors_name_what_there_is() {
    for level in Level::available() {
        assert_eq!(level.name().parse(), Ok(level));
    }
    let unknown = "sse9".parse::<Level>().unwrap_err();
    assert!(unknown.to_string().contains("sse9"), "{unknown}");
    assert!(
        unknown.to_string().contains(Level::best().name()),
        "{unknown}"
    );
    if let Some(missing) = Level::ALL.into_iter().find(|level| !level.is_available()) {
        assert_eq!(
            missing.name().parse::<Level>(),
            Err(LevelError::Unavailable { found: missing })
        );
    }
}
