// y = condition ? a : b with broadcasting; the condition is bytes, four to a word.
// parameters: count, rank, then for each axis, innermost first: size, stride in condition, a, b.
override ROW: u32 = 32768u;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> condition: array<u32>;
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x + id.y * ROW * 64u;
    if i >= parameters[0] {
        return;
    }
    var rest = i;
    var at_c = 0u;
    var at_a = 0u;
    var at_b = 0u;
    for (var axis = 0u; axis < parameters[1]; axis++) {
        let size = parameters[2u + axis * 4u];
        let at = rest % size;
        rest /= size;
        at_c += at * parameters[3u + axis * 4u];
        at_a += at * parameters[4u + axis * 4u];
        at_b += at * parameters[5u + axis * 4u];
    }
    let byte = (condition[at_c / 4u] >> (8u * (at_c % 4u))) & 0xffu;
    if byte != 0u {
        y[i] = a[at_a];
    } else {
        y[i] = b[at_b];
    }
}
