// C = f(alpha · A × B + bias + residual), by tiles of 16 × 16 that a workgroup shares.
// parameters: m, n, k, row and column strides of A and of B, alpha, activation's a and b, then
// for three batch axes, outermost first: size, stride in A, stride in B.
override CODE: u32;
override HAS_BIAS: bool;
override HAS_RESIDUAL: bool;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> c: array<f32>;

const TILE = 16u;
var<workgroup> tile_a: array<array<f32, TILE>, TILE>;
var<workgroup> tile_b: array<array<f32, TILE>, TILE>;

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let m = parameters[0];
    let n = parameters[1];
    let k = parameters[2];
    var rest = group.z;
    var first_a = 0u;
    var first_b = 0u;
    for (var axis = 3u; axis > 0u; axis--) {
        let at = 10u + (axis - 1u) * 3u;
        let index = rest % parameters[at];
        rest /= parameters[at];
        first_a += index * parameters[at + 1u];
        first_b += index * parameters[at + 2u];
    }
    let row = group.y * TILE + local.y;
    let column = group.x * TILE + local.x;
    var sum = 0.0;
    for (var from_k = 0u; from_k < k; from_k += TILE) {
        let ka = from_k + local.x;
        let kb = from_k + local.y;
        tile_a[local.y][local.x] = 0.0;
        if row < m && ka < k {
            tile_a[local.y][local.x] = a[first_a + row * parameters[3] + ka * parameters[4]];
        }
        tile_b[local.y][local.x] = 0.0;
        if column < n && kb < k {
            tile_b[local.y][local.x] = b[first_b + kb * parameters[5] + column * parameters[6]];
        }
        workgroupBarrier();
        for (var i = 0u; i < TILE; i++) {
            sum += tile_a[local.y][i] * tile_b[i][local.x];
        }
        workgroupBarrier();
    }
    if row >= m || column >= n {
        return;
    }
    let at = (group.z * m + row) * n + column;
    var value = sum * bitcast<f32>(parameters[7]);
    if HAS_BIAS {
        value += bias[column];
    }
    if HAS_RESIDUAL {
        value += residual[at];
    }
    c[at] = apply(CODE, value, bitcast<f32>(parameters[8]), bitcast<f32>(parameters[9]));
}
