// y = exp(x - max(x)) / sum(exp(x - max(x))) over each row; with LOG its logarithm.
// parameters: rows, len, inner.
override LOG: bool;

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
    var largest = -3.4028234e38;
    for (var i = thread; i < len; i += THREADS) {
        largest = max(largest, x[first + i * inner]);
    }
    largest = max_over_threads(thread, largest);
    var sum = 0.0;
    for (var i = thread; i < len; i += THREADS) {
        sum += exp(x[first + i * inner] - largest);
    }
    sum = sum_over_threads(thread, sum);
    for (var i = thread; i < len; i += THREADS) {
        let at = first + i * inner;
        let shifted = x[at] - largest;
        if LOG {
            y[at] = shifted - log(sum);
        } else {
            y[at] = exp(shifted) / sum;
        }
    }
}
