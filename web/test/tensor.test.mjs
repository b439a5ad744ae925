import assert from "node:assert/strict";
import { test } from "node:test";
import { LetheError, Tensor } from "lethe";

const code = (expected) => (error) => error instanceof LetheError && error.code === expected;

test("a tensor keeps type, shape and data", () => {
  const data = Float32Array.of(1, 2, 3, 4, 5, 6);
  const tensor = new Tensor("float32", data, [2, 3]);
  assert.equal(tensor.type, "float32");
  assert.deepEqual(tensor.dims, [2, 3]);
  assert.equal(tensor.size, 6);
  assert.equal(tensor.data, data, "not copied");
  assert.equal(tensor.location, "cpu");
});

test("the shape defaults to one axis, and a scalar has none", () => {
  assert.deepEqual(new Tensor("int32", Int32Array.of(1, 2)).dims, [2]);
  assert.equal(new Tensor("int32", Int32Array.of(7), []).size, 1);
});

test("the array tells the type where none is given", () => {
  for (const [data, type] of [
    [new Float32Array(1), "float32"],
    [new Float64Array(1), "float64"],
    [new Uint8Array(1), "uint8"],
    [new Uint8ClampedArray(1), "uint8"],
    [new Int8Array(1), "int8"],
    [new Uint16Array(1), "uint16"],
    [new Int16Array(1), "int16"],
    [new Int32Array(1), "int32"],
    [new Uint32Array(1), "uint32"],
    [new BigInt64Array(1), "int64"],
    [new BigUint64Array(1), "uint64"],
    [["a"], "string"],
    [[true], "bool"],
  ]) {
    assert.equal(new Tensor(data).type, type);
  }
});

test("plain arrays are converted", () => {
  assert.deepEqual(new Tensor("int64", [1, -2n], [2]).data, BigInt64Array.of(1n, -2n));
  assert.deepEqual(new Tensor("bool", [true, false]).data, Uint8Array.of(1, 0));
  assert.deepEqual(new Tensor("float32", [0.5]).data, Float32Array.of(0.5));
});

test("types that share bytes and complex ones count their entries", () => {
  assert.equal(new Tensor("uint4", Uint8Array.of(0x21, 0x03), [3]).size, 3);
  assert.equal(new Tensor("complex64", Float32Array.of(1, 2, 3, 4), [2]).size, 2);
  assert.deepEqual(new Tensor("complex64", Float32Array.of(1, 2, 3, 4)).dims, [2]);
});

test("what does not fit is refused", () => {
  for (const make of [
    () => new Tensor("float32", new Float32Array(5), [2, 3]),
    () => new Tensor("float32", new Float64Array(6), [2, 3]),
    () => new Tensor("float32", new Float32Array(1), [-1]),
    () => new Tensor("float32", new Float32Array(1), [0.5]),
    () => new Tensor("float", new Float32Array(1)),
    () => new Tensor("toString", new Float32Array(1)),
    () => new Tensor("int64", [1.5]),
    () => new Tensor("string", [1]),
    () => new Tensor([1, 2]),
    () => new Tensor("float32"),
  ]) {
    assert.throws(make, code("LETHE-TENSOR"), String(make));
  }
  assert.throws(() => new Tensor("double", [1]), /called float64 here/);
});

test("reshape keeps the data", () => {
  const tensor = new Tensor("float32", new Float32Array(6), [2, 3]);
  assert.deepEqual(tensor.reshape([6]).dims, [6]);
  assert.throws(() => tensor.reshape([5]), code("LETHE-TENSOR"));
});

test("half floats are read as numbers where the platform can, and made of numbers anywhere", () => {
  const values = [0, -0, 1, -2, 0.5, 65504, 65519.9, 65520, 1e-8, 6e-8, 2 ** -14, 2 ** -24, 1 + 2 ** -11, 1 + 3 * 2 ** -11, Infinity];
  const bits = [
    0, 0x8000, 0x3c00, 0xc000, 0x3800, 0x7bff, 0x7bff, 0x7c00, 0, 1, 0x400, 1, 0x3c00, 0x3c02, 0x7c00,
  ];
  const { data } = new Tensor("float16", values);
  const found = globalThis.Float16Array ? new Uint16Array(data.buffer) : data;
  assert.deepEqual([...found], bits);
  const given = Uint16Array.of(0x3c00, 0xc000);
  const read = new Tensor("float16", given, [2]).data;
  assert.equal(read.buffer, given.buffer, "not copied");
  assert.deepEqual([...read], globalThis.Float16Array ? [1, -2] : [0x3c00, 0xc000]);
});

test("a tensor may be disposed of, and its shape be set", () => {
  const tensor = new Tensor("float32", new Float32Array(6), [2, 3]);
  tensor.dims = [6];
  assert.deepEqual([tensor.dims, tensor.size], [[6], 6]);
  tensor.dispose();
  assert.equal(tensor.location, "none");
  assert.throws(() => tensor.data, code("LETHE-TENSOR"));
  assert.throws(() => tensor.reshape([6]), code("LETHE-TENSOR"));
});

test("tensors of two copies of the package know each other", async () => {
  const { Tensor: Other } = await import(new URL("../pkg/index.js?copy", import.meta.url));
  assert.notEqual(Other, Tensor);
  assert.ok(new Other("float32", [1]) instanceof Tensor);
  assert.ok(new Tensor("float32", [1]) instanceof Other);
  for (const other of [{}, null, 1, { type: "float32" }]) assert.ok(!(other instanceof Tensor));
});

test("what Lethe has no tensors in is refused by name", () => {
  const tensor = new Tensor("float32", [1]);
  for (const ask of [
    () => tensor.gpuBuffer, () => tensor.texture, () => tensor.mlTensor,
    () => Tensor.fromGpuBuffer({}, { dims: [1] }), () => Tensor.fromTexture({}, { width: 1, height: 1 }),
    () => Tensor.fromMLTensor({}, { dims: [1] }),
  ]) {
    assert.throws(ask, code("LETHE-UNSUPPORTED"));
  }
  assert.deepEqual(Tensor.fromPinnedBuffer("float32", Float32Array.of(1, 2), [2]).dims, [2]);
});
