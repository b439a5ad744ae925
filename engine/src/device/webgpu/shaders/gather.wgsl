// y[o, i, n] = x[o, indices[i], n].
// parameters: count of words, indices, size of the axis, words of an inner block.
// An index may be negative, counted from the end; one out of range raises the flag.
override ROW: u32 = 32768u;
// Words of an index: 1 for int32, 2 for int64.
override INDEX_WORDS: u32;

@group(0) @binding(0) var<storage, read> parameters: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
@group(0) @binding(4) var<storage, read_write> fault: atomic<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let word = id.x + id.y * ROW * 64u;
    if word >= parameters[0] {
        return;
    }
    let count = parameters[1];
    let size = parameters[2];
    let inner = parameters[3];
    let block = word / inner;
    let at = (block % count) * INDEX_WORDS;
    let low = indices[at];
    let negative = bitcast<i32>(indices[at + INDEX_WORDS - 1u]) < 0;
    var index = low;
    if negative {
        index = low + size;
    }
    // For int64 the upper word must be the sign of the lower one.
    let narrow = INDEX_WORDS == 1u || indices[at + 1u] == select(0u, 0xffffffffu, negative);
    if index >= size || !narrow {
        atomicStore(&fault, 1u);
        y[word] = 0u;
        return;
    }
    y[word] = x[((block / count) * size + index) * inner + word % inner];
}
