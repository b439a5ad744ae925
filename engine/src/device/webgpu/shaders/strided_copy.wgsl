// Copies words from one arrangement to another: Transpose, Slice, Expand, Concat, Split.
// parameters: count, rank, first word read, first word written, then for each axis, innermost
// first: size, stride read (may be negative), stride written.
override ROW: u32 = 32768u;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x + id.y * ROW * 64u;
    if i >= parameters[0] {
        return;
    }
    var rest = i;
    var read = i32(parameters[2]);
    var write = parameters[3];
    for (var axis = 0u; axis < parameters[1]; axis++) {
        let size = parameters[4u + axis * 3u];
        let at = rest % size;
        rest /= size;
        read += i32(at) * bitcast<i32>(parameters[5u + axis * 3u]);
        write += at * parameters[6u + axis * 3u];
    }
    y[write] = x[u32(read)];
}
