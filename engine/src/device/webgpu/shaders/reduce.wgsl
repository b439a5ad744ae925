// One number for each row: its sum, mean or maximum. parameters: rows, len, inner.
override CODE: u32;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.x + group.y * ROW;
    if row >= parameters[0] {
        return;
    }
    let len = parameters[1];
    let inner = parameters[2];
    let first = (row / inner) * len * inner + row % inner;
    var sum = 0.0;
    var largest = -3.4028234e38;
    for (var i = thread; i < len; i += THREADS) {
        let value = x[first + i * inner];
        sum += value;
        largest = max(largest, value);
    }
    sum = sum_over_threads(thread, sum);
    largest = max_over_threads(thread, largest);
    if thread == 0u {
        switch CODE {
            case 0u: { y[row] = sum; }
            case 1u: { y[row] = sum / f32(len); }
            default: { y[row] = largest; }
        }
    }
}
