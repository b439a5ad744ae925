// Direct convolution, one thread an element of the output. [N, C, H, W] with [M, C/group, R, S].
// parameters: count, channels, height, width, out channels, out height, out width, kernel height,
// kernel width, stride y, stride x, pad top, pad left, dilation y, dilation x, groups,
// activation's a and b.
override CODE: u32;
override HAS_BIAS: bool;
override HAS_RESIDUAL: bool;
override ROW: u32 = 32768u;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x + id.y * ROW * 64u;
    if i >= parameters[0] {
        return;
    }
    let channels = parameters[1];
    let height = i32(parameters[2]);
    let width = i32(parameters[3]);
    let out_channels = parameters[4];
    let out_width = parameters[6];
    let per_map = parameters[5] * out_width;
    let column = i32(i % out_width * parameters[10]) - i32(parameters[12]);
    let row = i32(i % per_map / out_width * parameters[9]) - i32(parameters[11]);
    let out_channel = i / per_map % out_channels;
    let batch = i / (per_map * out_channels);
    let group_channels = channels / parameters[15];
    let group = out_channel / (out_channels / parameters[15]);
    var sum = 0.0;
    var weight = out_channel * group_channels * parameters[7] * parameters[8];
    for (var c = 0u; c < group_channels; c++) {
        let map = (batch * channels + group * group_channels + c) * parameters[2] * parameters[3];
        for (var ky = 0u; ky < parameters[7]; ky++) {
            let at_y = row + i32(ky * parameters[13]);
            for (var kx = 0u; kx < parameters[8]; kx++) {
                let at_x = column + i32(kx * parameters[14]);
                if at_y >= 0 && at_y < height && at_x >= 0 && at_x < width {
                    sum += x[map + u32(at_y * width + at_x)] * weights[weight];
                }
                weight++;
            }
        }
    }
    if HAS_BIAS {
        sum += bias[out_channel];
    }
    if HAS_RESIDUAL {
        sum += residual[i];
    }
    y[i] = apply(CODE, sum, bitcast<f32>(parameters[16]), bitcast<f32>(parameters[17]));
}
