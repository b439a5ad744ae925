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
    () => new Tensor("float16", [1.5]),
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
