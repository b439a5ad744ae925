// y[i] = f(x[i]).  parameters: count, a, b.
override CODE: u32;
override ROW: u32 = 32768u;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x + id.y * ROW * 64u;
    if i >= parameters[0] {
        return;
    }
    y[i] = apply(CODE, x[i], bitcast<f32>(parameters[1]), bitcast<f32>(parameters[2]));
}
