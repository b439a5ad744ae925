// y = (x - mean) / sqrt(mean((x - mean)²) + epsilon) · scale + bias over each row; with RMS the
// mean taken off is 0. parameters: rows, len, inner (1), epsilon.
override RMS: bool;
override HAS_BIAS: bool;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

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
    let first = row * len;
    var mean = 0.0;
    if !RMS {
        var sum = 0.0;
        for (var i = thread; i < len; i += THREADS) {
            sum += x[first + i];
        }
        mean = sum_over_threads(thread, sum) / f32(len);
    }
    var squares = 0.0;
    for (var i = thread; i < len; i += THREADS) {
        let d = x[first + i] - mean;
        squares += d * d;
    }
    squares = sum_over_threads(thread, squares) / f32(len);
    let factor = 1.0 / sqrt(squares + bitcast<f32>(parameters[3]));
    for (var i = thread; i < len; i += THREADS) {
        var value = (x[first + i] - mean) * factor * scale[i];
        if HAS_BIAS {
            value += bias[i];
        }
        y[first + i] = value;
    }
}
