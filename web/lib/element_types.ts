/** Element types of tensors: their names, codes, arrays, and how plain numbers become them. */

import { LetheError } from "./errors.js";

/** Arrays that hold a tensor's elements. */
export type TensorData =
  | Float32Array | Float64Array | Uint8Array | Int8Array | Uint16Array | Int16Array
  | Uint32Array | Int32Array | BigInt64Array | BigUint64Array | readonly string[];

/** Those of numbers. */
export type NumberArray = Exclude<TensorData, readonly string[]>;

interface ArrayClass {
  readonly name: string;
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): NumberArray;
  from(source: unknown[]): NumberArray;
}

interface ElementType {
  /** The code of `TensorProto.DataType`. */
  code: number;
  /** ONNX's name, as in `tensor(float)`. */
  onnx: string;
  /** The class of the data; `undefined` for strings. */
  array: ArrayClass | undefined;
  /** Array entries an element takes: 2 for complex numbers, a part where elements share a byte. */
  entries: number;
}

const type = (code: number, onnx: string, array: unknown, entries = 1): ElementType => ({
  code, onnx, array: array as ArrayClass | undefined, entries,
});

/** The platform's array of half floats, where it has one: ECMAScript 2025. */
const Float16 = (globalThis as { Float16Array?: unknown }).Float16Array as ArrayClass | undefined;

/**
 * The element types. Names are those of onnxruntime-web, and in their manner for the types that it
 * does not have. Half floats are in a `Float16Array` where the platform has one, and otherwise bit
 * patterns in a `Uint16Array`; types of fewer than 8 bits are packed, the first element in the low bits.
 */
const TYPES = {
  float32: type(1, "float", Float32Array),
  uint8: type(2, "uint8", Uint8Array),
  int8: type(3, "int8", Int8Array),
  uint16: type(4, "uint16", Uint16Array),
  int16: type(5, "int16", Int16Array),
  int32: type(6, "int32", Int32Array),
  int64: type(7, "int64", BigInt64Array),
  string: type(8, "string", undefined),
  bool: type(9, "bool", Uint8Array),
  float16: type(10, "float16", Float16 ?? Uint16Array),
  float64: type(11, "double", Float64Array),
  uint32: type(12, "uint32", Uint32Array),
  uint64: type(13, "uint64", BigUint64Array),
  complex64: type(14, "complex64", Float32Array, 2),
  complex128: type(15, "complex128", Float64Array, 2),
  bfloat16: type(16, "bfloat16", Uint16Array),
  float8e4m3fn: type(17, "float8e4m3fn", Uint8Array),
  float8e4m3fnuz: type(18, "float8e4m3fnuz", Uint8Array),
  float8e5m2: type(19, "float8e5m2", Uint8Array),
  float8e5m2fnuz: type(20, "float8e5m2fnuz", Uint8Array),
  uint4: type(21, "uint4", Uint8Array, 1 / 2),
  int4: type(22, "int4", Int8Array, 1 / 2),
  float4e2m1: type(23, "float4e2m1", Uint8Array, 1 / 2),
  float8e8m0: type(24, "float8e8m0", Uint8Array),
  uint2: type(25, "uint2", Uint8Array, 1 / 4),
  int2: type(26, "int2", Int8Array, 1 / 4),
} as const satisfies Record<string, ElementType>;

/** The name of an element type. */
export type TensorType = keyof typeof TYPES;

/** What a tensor is made of: the array itself, or plain numbers to convert. */
export type TensorInput = TensorData | readonly number[] | readonly bigint[] | readonly boolean[];

const ALL = Object.keys(TYPES) as TensorType[];
const NAMES = new Map(ALL.map((name) => [TYPES[name].code, name]));

/** The type with this code of `TensorProto.DataType`. */
export function typeOfCode(code: number): TensorType {
  const name = NAMES.get(code);
  if (!name) throw new LetheError("LETHE-TENSOR", `element type ${code} is unknown`);
  return name;
}

/** The code of `TensorProto.DataType`. */
export function codeOfType(name: TensorType): number {
  return TYPES[name].code;
}

/** A name, if it is that of a type. */
export function knownType(name: string): TensorType {
  if (Object.hasOwn(TYPES, name)) return name as TensorType;
  const onnx = ALL.find((other) => TYPES[other].onnx === name);
  throw new LetheError(
    "LETHE-TENSOR",
    `unknown type ${JSON.stringify(name)}` + (onnx ? `; it is called ${onnx} here` : ""),
  );
}

/** Whether these can be a tensor's data. */
export function isArray(data: unknown): data is TensorInput {
  return Array.isArray(data) || (ArrayBuffer.isView(data) && !(data instanceof DataView));
}

/** The type of data that come without one. */
export function inferType(data: TensorInput): TensorType {
  if (Array.isArray(data)) {
    if (typeof data[0] === "string") return "string";
    if (typeof data[0] === "boolean") return "bool";
    throw new LetheError("LETHE-TENSOR", "a plain array of numbers needs a type, such as float32");
  }
  const name = data.constructor.name;
  if (name === "Float16Array") return "float16";
  // A clamped array holds the same bytes.
  if (name === "Uint8ClampedArray") return "uint8";
  const same = ALL.find((other) => TYPES[other].array?.name === name);
  if (!same) throw new LetheError("LETHE-TENSOR", `no element type is held in a ${name}`);
  return same;
}

/** Array entries that a tensor of a shape takes. */
export function entriesOf(type: TensorType, size: number): number {
  return Math.ceil(size * TYPES[type].entries);
}

/** Elements in so many array entries. */
export function elementsIn(type: TensorType, entries: number): number {
  return entries / TYPES[type].entries;
}

/** The array over bytes that begin a buffer of their own. */
export function arrayOfBytes(type: TensorType, bytes: Uint8Array): NumberArray {
  const array = TYPES[type].array as ArrayClass;
  return new array(bytes.buffer);
}

/** So many array entries of nothing. */
export function zeros(type: TensorType, entries: number): TensorData {
  const array = TYPES[type].array as unknown as (new (entries: number) => NumberArray) | undefined;
  return array ? new array(entries) : new Array<string>(entries).fill("");
}

/** The data in the array class of the type: the same memory where it already holds those bits. */
export function convert(type: TensorType, data: TensorInput): TensorData {
  const { array } = TYPES[type];
  if (!array) {
    if (Array.isArray(data) && data.every((text) => typeof text === "string")) return data as string[];
    throw new LetheError("LETHE-TENSOR", "data of a string tensor: expected an array of strings");
  }
  if (!Array.isArray(data)) {
    const view = data as NumberArray;
    // By name, so that an array of another page (an iframe's) is what it is called.
    const name = view.constructor.name;
    if (name === array.name) return view;
    if (holdsTheBits(type, name)) return new array(view.buffer, view.byteOffset, view.length);
    throw new LetheError("LETHE-TENSOR", `data of a ${type} tensor: expected a ${array.name}, found a ${name}`);
  }
  try {
    if (type === "bfloat16" || TYPES[type].entries !== 1 || type.startsWith("float8")) {
      throw new TypeError(`expected a ${array.name} of bit patterns, found an array of numbers`);
    }
    if (type === "int64" || type === "uint64") return array.from(data.map((n) => BigInt(n)));
    const numbers = data.map((n) => Number(n));
    if (type === "float16" && !Float16) return Uint16Array.from(numbers, halfBits);
    return array.from(numbers);
  } catch (thrown) {
    throw new LetheError("LETHE-TENSOR", `data of a ${type} tensor: ${(thrown as Error).message}`);
  }
}

/** Whether an array of this name holds a type's elements, though it is not the type's own class. */
function holdsTheBits(type: TensorType, name: string): boolean {
  if (type === "float16") return name === "Uint16Array" || name === "Float16Array";
  return TYPES[type].array === (Uint8Array as unknown) && name === "Uint8ClampedArray";
}

/**
 * A number as the bits of an IEEE 754 half float, rounded once, to nearest and to even: what
 * `Float16Array` does where there is one.
 */
export function halfBits(x: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const size = Math.abs(x);
  if (Number.isNaN(x)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  let exponent = Math.max(-14, Math.floor(Math.log2(size || 1)));
  // The logarithm may be off beside a power of two.
  if (2 ** exponent > size && exponent > -14) exponent -= 1;
  if (2 ** (exponent + 1) <= size) exponent += 1;
  if (size === 0) return sign;
  // Exact: a division by a power of two.
  const scaled = size / 2 ** (exponent - 10);
  const below = Math.floor(scaled);
  const rest = scaled - below;
  const up = rest > 0.5 || (rest === 0.5 && below % 2 === 1);
  const mantissa = below + (up ? 1 : 0);
  // What rounds up to the next power of two carries into the exponent by itself.
  return sign | (exponent === -14 ? mantissa : ((exponent + 14) << 10) + mantissa);
}
