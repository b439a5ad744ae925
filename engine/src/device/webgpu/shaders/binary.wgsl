// y = f(a, b) with broadcasting.
// parameters: count, rank, then for each axis, innermost first: size, stride in a, stride in b.
override CODE: u32;
override ROW: u32 = 32768u;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// WGSL's pow has no value for negative bases.
fn power(x: f32, e: f32) -> f32 {
    if e == 2.0 {
        return x * x;
    }
    if x >= 0.0 {
        return pow(x, e);
    }
    let odd = abs(e - 2.0 * floor(e / 2.0)) == 1.0;
    return select(pow(-x, e), -pow(-x, e), odd);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x + id.y * ROW * 64u;
    if i >= parameters[0] {
        return;
    }
    var rest = i;
    var at_a = 0u;
    var at_b = 0u;
    for (var axis = 0u; axis < parameters[1]; axis++) {
        let size = parameters[2u + axis * 3u];
        let at = rest % size;
        rest /= size;
        at_a += at * parameters[3u + axis * 3u];
        at_b += at * parameters[4u + axis * 3u];
    }
    let p = a[at_a];
    let q = b[at_b];
    var r = 0.0;
    switch CODE {
        case 0u: { r = p + q; }
        case 1u: { r = p - q; }
        case 2u: { r = p * q; }
        case 3u: { r = p / q; }
        case 4u: { r = power(p, q); }
        case 5u: { r = max(p, q); }
        default: { r = min(p, q); }
    }
    y[i] = r;
}
