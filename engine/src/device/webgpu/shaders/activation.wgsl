// Functions of one number, by the codes of `Function` in kernels/elementwise.rs.

// The error function, to 1.5e-7: Abramowitz and Stegun, 7.1.26.
fn erf_of(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - p * exp(-x * x));
}

// Beyond 15 the result is 1 in single precision, and exp would overflow on some GPUs.
fn tanh_of(x: f32) -> f32 {
    return tanh(clamp(x, -15.0, 15.0));
}

fn sigmoid_of(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-clamp(x, -80.0, 80.0)));
}

fn apply(code: u32, x: f32, a: f32, b: f32) -> f32 {
    switch code {
        case 1u: { return max(x, 0.0); }
        case 2u: { return select(a * x, x, x >= 0.0); }
        case 3u: { return min(max(x, a), b); }
        case 4u: { return sigmoid_of(x); }
        case 5u: { return clamp(a * x + b, 0.0, 1.0); }
        case 6u: { return x * clamp(x / 6.0 + 0.5, 0.0, 1.0); }
        case 7u: { return tanh_of(x); }
        case 8u: { return 0.5 * x * (1.0 + erf_of(x * 0.70710678)); }
        case 9u: { return 0.5 * x * (1.0 + tanh_of(0.79788456 * (x + 0.044715 * x * x * x))); }
        case 10u: { return x * sigmoid_of(x); }
        case 11u: { return erf_of(x); }
        case 12u: { return sqrt(x); }
        case 13u: { return exp(x); }
        case 14u: { return log(x); }
        case 15u: { return abs(x); }
        case 16u: { return -x; }
        case 17u: { return 1.0 / x; }
        case 18u: { return floor(x); }
        case 19u: { return ceil(x); }
        case 20u: { return sin(x); }
        case 21u: { return cos(x); }
        default: { return x; }
    }
}
