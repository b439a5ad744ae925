// Maximum or average over a window, one thread an element of the output.
// parameters: count, height, width, out height, out width, kernel height, kernel width, stride y,
// stride x, pad top, pad left, dilation y, dilation x, padded height, padded width (from the
// image's corner; what lies beyond them is not counted even with padding).
override AVERAGE: bool;
override COUNT_PAD: bool;
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
    let height = i32(parameters[1]);
    let width = i32(parameters[2]);
    let out_width = parameters[4];
    let per_map = parameters[3] * out_width;
    let column = i32(i % out_width * parameters[8]) - i32(parameters[10]);
    let row = i32(i % per_map / out_width * parameters[7]) - i32(parameters[9]);
    let map = i / per_map * parameters[1] * parameters[2];
    var sum = 0.0;
    var largest = -3.4028234e38;
    var count = 0u;
    for (var ky = 0u; ky < parameters[5]; ky++) {
        let at_y = row + i32(ky * parameters[11]);
        for (var kx = 0u; kx < parameters[6]; kx++) {
            let at_x = column + i32(kx * parameters[12]);
            if at_y >= 0 && at_y < height && at_x >= 0 && at_x < width {
                let value = x[map + u32(at_y * width + at_x)];
                sum += value;
                largest = max(largest, value);
                count++;
            } else if COUNT_PAD && at_y < i32(parameters[13]) && at_x < i32(parameters[14]) {
                count++;
            }
        }
    }
    if AVERAGE {
        y[i] = sum / f32(max(count, 1u));
    } else {
        y[i] = largest;
    }
}
