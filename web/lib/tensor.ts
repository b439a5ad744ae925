import { LetheError } from "./errors.js";

/** Arrays that hold a tensor's elements. */
export type TensorData =
  | Float32Array | Float64Array | Uint8Array | Int8Array | Uint16Array | Int16Array
  | Uint32Array | Int32Array | BigInt64Array | BigUint64Array | readonly string[];

type NumberArray = Exclude<TensorData, readonly string[]>;
type ArrayClass = new (buffer: ArrayBuffer) => NumberArray;

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

const type = (code: number, onnx: string, array: ArrayClass | undefined, entries = 1): ElementType => ({
  code, onnx, array, entries,
});

/**
 * The element types. Names are those of onnxruntime-web, and in their manner for the types that it
 * does not have. 16-bit floats are bit patterns in a `Uint16Array`; types of fewer than 8 bits are
 * packed, the first element in the low bits.
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
  float16: type(10, "float16", Uint16Array),
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

/** What the constructor takes as data for a type: the array itself, or plain numbers to convert. */
export type TensorInput = TensorData | readonly number[] | readonly bigint[] | readonly boolean[];

const NAMES = new Map(
  (Object.keys(TYPES) as TensorType[]).map((name) => [TYPES[name].code, name]),
);

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

/**
 * A tensor: type, shape, and elements in row-major order.
 *
 * ```js
 * new Tensor("float32", new Float32Array(784), [1, 1, 28, 28]);
 * new Tensor("int64", [7592, 2088], [1, 2]);   // converted to a BigInt64Array
 * new Tensor(new Float32Array(3));             // the array tells the type; shape [3]
 * ```
 *
 * The data are not copied: what you change afterwards, a later `run` sees.
 */
export class Tensor {
  /** The element type. */
  readonly type: TensorType;
  /** The shape. */
  readonly dims: readonly number[];
  /** Number of elements. */
  readonly size: number;
  readonly #data: TensorData;

  constructor(type: TensorType, data: TensorInput, dims?: readonly number[]);
  constructor(data: TensorData | readonly boolean[], dims?: readonly number[]);
  constructor(
    first: TensorType | TensorInput,
    second?: TensorInput | readonly number[],
    third?: readonly number[],
  ) {
    const typed = typeof first === "string";
    const data = (typed ? second : first) as TensorInput | undefined;
    if (!isArray(data)) {
      throw new LetheError("LETHE-TENSOR", `data: expected an array, found ${typeof data}`);
    }
    this.type = typed ? knownType(first) : inferType(data);
    this.#data = convert(this.type, data);
    const { entries } = TYPES[this.type];
    const dims = (typed ? third : second) as readonly number[] | undefined;
    this.dims = Object.freeze([...(dims ?? [this.#data.length / entries])]);
    for (const dim of this.dims) {
      if (!Number.isInteger(dim) || dim < 0 || dim > 0xffffffff) {
        throw new LetheError("LETHE-TENSOR", `dims: expected sizes, found [${this.dims.join(", ")}]`);
      }
    }
    this.size = this.dims.reduce((product, dim) => product * dim, 1);
    const expected = Math.ceil(this.size * entries);
    if (this.#data.length !== expected) {
      throw new LetheError(
        "LETHE-TENSOR",
        `a ${this.type} tensor of shape [${this.dims.join(", ")}] takes ${expected} entries, ` +
          `found ${this.#data.length}`,
      );
    }
  }

  /** The elements. */
  get data(): TensorData {
    return this.#data;
  }

  /** Where the elements are; always in JavaScript's memory. */
  get location(): "cpu" {
    return "cpu";
  }

  /** The elements, for code that expects a tensor on a GPU. */
  async getData(): Promise<TensorData> {
    return this.#data;
  }

  /** The same elements in another shape of as many. */
  reshape(dims: readonly number[]): Tensor {
    return new Tensor(this.type, this.#data, dims);
  }

  /** Does nothing: the memory is JavaScript's. */
  dispose(): void {}
}

/** A tensor's elements as bytes; not for strings. */
export function bytesOf(tensor: Tensor): Uint8Array {
  const data = tensor.data as NumberArray;
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** A tensor over bytes that begin a buffer of their own. */
export function tensorOfBytes(type: TensorType, bytes: Uint8Array, dims: readonly number[]): Tensor {
  const array = TYPES[type].array as ArrayClass;
  return new Tensor(type, new array(bytes.buffer as ArrayBuffer), dims);
}

function knownType(name: string): TensorType {
  if (Object.hasOwn(TYPES, name)) return name as TensorType;
  const onnx = (Object.keys(TYPES) as TensorType[]).find((other) => TYPES[other].onnx === name);
  throw new LetheError(
    "LETHE-TENSOR",
    `unknown type ${JSON.stringify(name)}` + (onnx ? `; it is called ${onnx} here` : ""),
  );
}

function isArray(data: unknown): data is TensorInput {
  return Array.isArray(data) || (ArrayBuffer.isView(data) && !(data instanceof DataView));
}

function inferType(data: TensorInput): TensorType {
  if (Array.isArray(data)) {
    if (typeof data[0] === "string") return "string";
    if (typeof data[0] === "boolean") return "bool";
    throw new LetheError("LETHE-TENSOR", "a plain array of numbers needs a type, such as float32");
  }
  const name = data.constructor.name;
  // Half floats where the platform has an array for them; otherwise a Uint16Array is just that.
  if (name === "Float16Array") return "float16";
  const same = (Object.keys(TYPES) as TensorType[]).find((other) => TYPES[other].array?.name === name);
  // A clamped array holds the same bytes.
  if (name === "Uint8ClampedArray") return "uint8";
  if (!same) throw new LetheError("LETHE-TENSOR", `no element type is held in a ${name}`);
  return same;
}

/** The data in the array class of the type. */
function convert(type: TensorType, data: TensorInput): TensorData {
  const { array } = TYPES[type];
  if (!array) {
    if (Array.isArray(data) && data.every((text) => typeof text === "string")) return data as string[];
    throw new LetheError("LETHE-TENSOR", "data of a string tensor: expected an array of strings");
  }
  if (data instanceof array) return data;
  const name = data.constructor.name;
  const sameBits =
    (type === "float16" && name === "Float16Array") ||
    (array === (Uint8Array as ArrayClass) && name === "Uint8ClampedArray");
  if (sameBits) {
    const view = data as Uint16Array;
    return new (array as unknown as new (b: ArrayBufferLike, o: number, n: number) => NumberArray)(
      view.buffer, view.byteOffset, view.length,
    );
  }
  if (!Array.isArray(data) || type === "float16" || type === "bfloat16") {
    throw new LetheError("LETHE-TENSOR", `data of a ${type} tensor: expected a ${array.name}, found a ${name}`);
  }
  try {
    const big = type === "int64" || type === "uint64";
    const from = (array as unknown as { from(source: unknown[]): NumberArray }).from;
    return from.call(array, big ? data.map((n) => BigInt(n)) : data.map((n) => Number(n)));
  } catch (thrown) {
    throw new LetheError("LETHE-TENSOR", `data of a ${type} tensor: ${(thrown as Error).message}`);
  }
}
