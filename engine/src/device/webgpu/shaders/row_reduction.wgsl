// Sums and maxima over rows that a workgroup of 64 threads shares. A row is `len` elements,
// `inner` apart: parameters are rows, len, inner, and what a shader adds after them.
override ROW: u32 = 32768u;

const THREADS = 64u;
var<workgroup> shared_values: array<f32, THREADS>;

fn sum_over_threads(thread: u32, value: f32) -> f32 {
    shared_values[thread] = value;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            shared_values[thread] += shared_values[thread + half];
        }
        workgroupBarrier();
    }
    let sum = shared_values[0];
    workgroupBarrier();
    return sum;
}

fn max_over_threads(thread: u32, value: f32) -> f32 {
    shared_values[thread] = value;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            shared_values[thread] = max(shared_values[thread], shared_values[thread + half]);
        }
        workgroupBarrier();
    }
    let largest = shared_values[0];
    workgroupBarrier();
    return largest;
}
