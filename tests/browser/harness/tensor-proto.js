import { Tensor } from "/lethe/index.js";

/** Readers of the fields of `TensorProto` that hold elements, by element type code. */
const TYPES = {
  1: ["float32", Float32Array], 2: ["uint8", Uint8Array], 3: ["int8", Int8Array],
  4: ["uint16", Uint16Array], 5: ["int16", Int16Array], 6: ["int32", Int32Array],
  7: ["int64", BigInt64Array], 9: ["bool", Uint8Array], 10: ["float16", Uint16Array],
  11: ["float64", Float64Array], 12: ["uint32", Uint32Array], 13: ["uint64", BigUint64Array],
};

/** The fields of a protobuf message: number, and a bigint or the bytes. */
function* fields(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = view.getUint8(at++);
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const take = (length) => bytes.subarray(at, (at += length));
  while (at < bytes.length) {
    const key = Number(varint());
    const wire = key & 7;
    if (wire === 0) yield [key >> 3, varint()];
    else if (wire === 1) yield [key >> 3, take(8)];
    else if (wire === 2) yield [key >> 3, take(Number(varint()))];
    else if (wire === 5) yield [key >> 3, take(4)];
    else throw new Error(`wire type ${wire}`);
  }
}

function varints(field) {
  if (typeof field === "bigint") return [field];
  const found = [];
  let [value, shift] = [0n, 0n];
  for (const byte of field) {
    value |= BigInt(byte & 127) << shift;
    shift += 7n;
    if (byte >= 128) continue;
    found.push(value);
    [value, shift] = [0n, 0n];
  }
  return found;
}

/** Name and tensor of a serialized `TensorProto`. */
export function readTensor(bytes) {
  const [dims, integers, strings] = [[], [], []];
  let [code, name, raw] = [0, "", undefined];
  for (const [number, value] of fields(bytes)) {
    if (number === 1) dims.push(...varints(value).map(Number));
    else if (number === 2) code = Number(value);
    else if (number === 5 || number === 7 || number === 11) integers.push(...varints(value));
    else if (number === 6) strings.push(new TextDecoder().decode(value));
    else if (number === 8) name = new TextDecoder().decode(value);
    else if (number === 4 || number === 9 || number === 10) raw = concat(raw, value);
  }
  if (code === 8) return { name, tensor: new Tensor("string", strings, dims) };
  if (!TYPES[code]) throw new Error(`element type ${code}`);
  const [type, Elements] = TYPES[code];
  const big = type === "int64" || type === "uint64";
  const data = raw
    ? new Elements(raw.slice().buffer)
    : Elements.from(integers, (n) => (big ? n : Number(BigInt.asIntN(64, n))));
  return { name, tensor: new Tensor(type, data, dims) };
}

function concat(before, bytes) {
  if (!before) return bytes;
  const whole = new Uint8Array(before.length + bytes.length);
  whole.set(before);
  whole.set(bytes, before.length);
  return whole;
}
