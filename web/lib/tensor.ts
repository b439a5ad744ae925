import {
  convert, elementsIn, entriesOf, inferType, isArray, knownType, type NumberArray,
  type TensorData, type TensorType,
} from "./element_types.js";
import { LetheError } from "./errors.js";
import type { Global } from "./global.js";
import {
  fromImage, toDataURL, toImageData, type ImageSource, type TensorFromBitmapOptions,
  type TensorFromImageOptions, type TensorFromUrlOptions, type TensorToImageOptions,
} from "./tensor_image.js";

/** Names as in onnxruntime-common. */
export declare namespace Tensor {
  /** What holds the elements of each type. */
  interface DataTypeMap {
    float32: Float32Array;
    uint8: Uint8Array;
    int8: Int8Array;
    uint16: Uint16Array;
    int16: Int16Array;
    int32: Int32Array;
    int64: BigInt64Array;
    string: string[];
    bool: Uint8Array;
    /** A `Float16Array` where the platform has one: the declarations of TypeScript's ES2023 do not. */
    float16: Uint16Array;
    float64: Float64Array;
    uint32: Uint32Array;
    uint64: BigUint64Array;
    uint4: Uint8Array;
    int4: Int8Array;
  }
  /** What an element of each type is. */
  interface ElementTypeMap {
    float32: number;
    uint8: number;
    int8: number;
    uint16: number;
    int16: number;
    int32: number;
    int64: bigint;
    string: string;
    bool: boolean;
    float16: number;
    float64: number;
    uint32: number;
    uint64: bigint;
    uint4: number;
    int4: number;
  }
  /** The same for the types that onnxruntime-web does not have; complex numbers take two entries. */
  interface MoreDataTypeMap {
    complex64: Float32Array;
    complex128: Float64Array;
    bfloat16: Uint16Array;
    float8e4m3fn: Uint8Array;
    float8e4m3fnuz: Uint8Array;
    float8e5m2: Uint8Array;
    float8e5m2fnuz: Uint8Array;
    float4e2m1: Uint8Array;
    float8e8m0: Uint8Array;
    uint2: Uint8Array;
    int2: Int8Array;
  }
  type Type = keyof DataTypeMap;
  type MoreTypes = keyof MoreDataTypeMap;
  type DataType = DataTypeMap[Type];
  type ElementType = ElementTypeMap[Type];
  type DataLocation = "none" | "cpu" | "cpu-pinned" | "texture" | "gpu-buffer" | "ml-tensor";
  type CpuPinnedDataTypes = Exclude<Type, "string">;
  type TextureType = WebGLTexture;
  type TextureDataTypes = "float32";
  type GpuBufferTypeFallback = { size: number; mapState: "unmapped" | "pending" | "mapped" };
  type GpuBufferType = Global<"GPUBuffer", GpuBufferTypeFallback>;
  type GpuBufferDataTypes = "float32" | "float16" | "int32" | "int64" | "uint32" | "uint8" | "bool";
  type MLTensorTypeFallback = { destroy(): void };
  type MLTensorType = Global<"MLTensor", MLTensorTypeFallback>;
  type MLTensorDataTypes =
    | "float32" | "float16" | "int8" | "uint8" | "int32" | "uint32" | "int64" | "uint64" | "bool"
    | "uint4" | "int4";
}

/** What all tensors have, by their types and data. */
interface AnyTensor<Type, Data> {
  /** The shape. */
  readonly dims: readonly number[];
  /** The element type. */
  readonly type: Type;
  /** The elements, in row-major order; throws `LETHE-TENSOR` after `dispose`. */
  readonly data: Data;
  /** Where the elements are: `cpu`, and `none` after `dispose`. */
  readonly location: Tensor.DataLocation;
  /** Throws: Lethe's tensors are in JavaScript's memory. */
  readonly texture: Tensor.TextureType;
  /** Throws: Lethe's tensors are in JavaScript's memory. */
  readonly gpuBuffer: Tensor.GpuBufferType;
  /** Throws: Lethe's tensors are in JavaScript's memory. */
  readonly mlTensor: Tensor.MLTensorType;
  /** The elements, for code that expects a tensor on a GPU. */
  getData(releaseData?: boolean): Promise<Data>;
  /** Lets go of the elements. */
  dispose(): void;
}

interface TypedTensorBase<T extends Tensor.Type> extends AnyTensor<T, Tensor.DataTypeMap[T]> {}

/** How pixels become elements: each is `(pixel + bias) / mean`, and back. */
export interface ConversionUtils {
  /** The tensor `[1, 1, 3 or 4, …]` as the address of a picture; on a page only. */
  toDataURL(options?: TensorToImageOptions): string;
  /** The same as pixels. */
  toImageData(options?: TensorToImageOptions): ImageData;
}

export interface TypedShapeUtils<T extends Tensor.Type> {
  /** The same elements in another shape of as many. */
  reshape(dims: readonly number[]): TypedTensor<T>;
}

export interface TensorUtils extends ConversionUtils {
  /** Number of elements. */
  readonly size: number;
}

export interface TypedTensorUtils<T extends Tensor.Type> extends TensorUtils, TypedShapeUtils<T> {}

/** A tensor whose element type is known to the compiler. */
export interface TypedTensor<T extends Tensor.Type> extends TypedTensorBase<T>, TypedTensorUtils<T> {}

/** The same of a type that onnxruntime-web does not have. */
export interface MoreTypedTensor<T extends Tensor.MoreTypes>
  extends AnyTensor<T, Tensor.MoreDataTypeMap[T]>, TensorUtils {
  /** The same elements in another shape of as many. */
  reshape(dims: readonly number[]): MoreTypedTensor<T>;
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
export interface Tensor extends TypedTensorBase<Tensor.Type>, TypedTensorUtils<Tensor.Type> {}

interface CommonParameters<T> {
  readonly dims: readonly number[];
  readonly type: T;
}

interface GpuParameters<T extends Tensor.Type> {
  download?(): Promise<Tensor.DataTypeMap[T]>;
  dispose?(): void;
}

export interface CpuPinnedConstructorParameters<
  T extends Tensor.CpuPinnedDataTypes = Tensor.CpuPinnedDataTypes,
> extends CommonParameters<T> {
  readonly location: "cpu-pinned";
  readonly data: Tensor.DataTypeMap[T];
}

export interface TextureConstructorParameters<
  T extends Tensor.TextureDataTypes = Tensor.TextureDataTypes,
> extends CommonParameters<T>, GpuParameters<T> {
  readonly location: "texture";
  readonly texture: Tensor.TextureType;
}

export interface GpuBufferConstructorParameters<
  T extends Tensor.GpuBufferDataTypes = Tensor.GpuBufferDataTypes,
> extends CommonParameters<T>, GpuParameters<T> {
  readonly location: "gpu-buffer";
  readonly gpuBuffer: Tensor.GpuBufferType;
}

export interface MLTensorConstructorParameters<
  T extends Tensor.MLTensorDataTypes = Tensor.MLTensorDataTypes,
> extends CommonParameters<T>, GpuParameters<T> {
  readonly location: "ml-tensor";
  readonly mlTensor: Tensor.MLTensorType;
}

export interface TensorFromTextureOptions<T extends Tensor.TextureDataTypes> extends GpuParameters<T> {
  height: number;
  width: number;
  format?: "RGB" | "RGBA" | "BGR" | "RBG";
}

export interface TensorFromGpuBufferOptions<T extends Tensor.GpuBufferDataTypes>
  extends Pick<Tensor, "dims">, GpuParameters<T> {
  dataType?: T;
}

export interface TensorFromMLTensorOptions<T extends Tensor.MLTensorDataTypes>
  extends Pick<Tensor, "dims">, GpuParameters<T> {
  dataType?: T;
}

type ImageTensor = TypedTensor<"float32"> | TypedTensor<"uint8">;

/** Tensors of other things than arrays. */
export interface TensorFactory {
  /** A tensor `[1, 3 or 4, height, width]` of pixels. */
  fromImage(imageData: ImageData, options?: TensorFromImageOptions): Promise<ImageTensor>;
  /** The same of an element of the page. */
  fromImage(imageElement: HTMLImageElement, options?: TensorFromImageOptions): Promise<ImageTensor>;
  /** The same of a picture's address. */
  fromImage(urlSource: string, options?: TensorFromUrlOptions): Promise<ImageTensor>;
  /** The same of a decoded picture. */
  fromImage(bitmap: ImageBitmap, options: TensorFromBitmapOptions): Promise<ImageTensor>;
  /** Throws `LETHE-UNSUPPORTED`: Lethe has no WebGL. */
  fromTexture<T extends Tensor.TextureDataTypes = "float32">(
    texture: Tensor.TextureType, options: TensorFromTextureOptions<T>,
  ): TypedTensor<"float32">;
  /** Throws `LETHE-UNSUPPORTED`: tensors of a GPU come with the model's inputs and outputs on it. */
  fromGpuBuffer<T extends Tensor.GpuBufferDataTypes>(
    buffer: Tensor.GpuBufferType, options: TensorFromGpuBufferOptions<T>,
  ): TypedTensor<T>;
  /** Throws `LETHE-UNSUPPORTED`: Lethe has no WebNN. */
  fromMLTensor<T extends Tensor.MLTensorDataTypes>(
    tensor: Tensor.MLTensorType, options: TensorFromMLTensorOptions<T>,
  ): TypedTensor<T>;
  /** A tensor over these elements: the memory of the CPU is all the same here. */
  fromPinnedBuffer<T extends Exclude<Tensor.Type, "string">>(
    type: T, buffer: Tensor.DataTypeMap[T], dims?: readonly number[],
  ): TypedTensor<T>;
}

type Dims = readonly number[];

/** Makes tensors; `LETHE-TENSOR` is thrown where data do not fit type and shape. */
export interface TensorConstructor extends TensorFactory {
  new (type: "string", data: Tensor.DataTypeMap["string"] | readonly string[], dims?: Dims): TypedTensor<"string">;
  new (type: "bool", data: Tensor.DataTypeMap["bool"] | readonly boolean[], dims?: Dims): TypedTensor<"bool">;
  new (type: "uint8", data: Uint8ClampedArray, dims?: Dims): TypedTensor<"uint8">;
  new <T extends "uint64" | "int64">(
    type: T, data: Tensor.DataTypeMap[T] | readonly bigint[] | readonly number[], dims?: Dims,
  ): TypedTensor<T>;
  new <T extends Exclude<Tensor.Type, "string" | "bool" | "uint64" | "int64">>(
    type: T, data: Tensor.DataTypeMap[T] | readonly number[], dims?: Dims,
  ): TypedTensor<T>;
  new <T extends Tensor.MoreTypes>(type: T, data: Tensor.MoreDataTypeMap[T], dims?: Dims): MoreTypedTensor<T>;
  new (data: Float32Array, dims?: Dims): TypedTensor<"float32">;
  new (data: Int8Array, dims?: Dims): TypedTensor<"int8">;
  new (data: Uint8Array, dims?: Dims): TypedTensor<"uint8">;
  new (data: Uint8ClampedArray, dims?: Dims): TypedTensor<"uint8">;
  new (data: Uint16Array, dims?: Dims): TypedTensor<"uint16">;
  new (data: Int16Array, dims?: Dims): TypedTensor<"int16">;
  new (data: Int32Array, dims?: Dims): TypedTensor<"int32">;
  new (data: BigInt64Array, dims?: Dims): TypedTensor<"int64">;
  new (data: readonly string[], dims?: Dims): TypedTensor<"string">;
  new (data: readonly boolean[], dims?: Dims): TypedTensor<"bool">;
  new (data: Float64Array, dims?: Dims): TypedTensor<"float64">;
  new (data: Uint32Array, dims?: Dims): TypedTensor<"uint32">;
  new (data: BigUint64Array, dims?: Dims): TypedTensor<"uint64">;
  new (
    type: Tensor.Type,
    data: Tensor.DataType | readonly number[] | readonly string[] | readonly bigint[] | readonly boolean[],
    dims?: Dims,
  ): Tensor;
  new (data: Tensor.DataType, dims?: Dims): Tensor;
}

/** Says of an object that it is a tensor, whichever copy of the package made it. */
const BRAND = Symbol.for("lethe.tensor");

class LetheTensor {
  readonly type: TensorType;
  /** Free to be set, as callers of onnxruntime-web do; what does not fit is found at the next run. */
  dims: readonly number[];
  /** The elements; absent after `dispose`. onnxruntime's name, which some programs look at. */
  cpuData: TensorData | undefined;

  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && (value as { [BRAND]?: unknown })[BRAND] === true;
  }

  constructor(first: unknown, second?: unknown, third?: unknown) {
    if (isParameters(first)) {
      if (first.location !== "cpu-pinned") throw unsupported(`tensors at ${JSON.stringify(first.location)}`);
      [first, second, third] = [first.type, first.data, first.dims];
    }
    const isTyped = typeof first === "string";
    const data = isTyped ? second : first;
    if (!isArray(data)) {
      throw new LetheError("LETHE-TENSOR", `data: expected an array, found ${typeof data}`);
    }
    this.type = isTyped ? knownType(first as string) : inferType(data);
    this.cpuData = convert(this.type, data);
    const dims = isTyped ? third : second;
    this.dims = dims === undefined ? [elementsIn(this.type, this.cpuData.length)] : checkedDims(dims);
    checkFit(this.type, this.cpuData, this.dims);
  }

  static fromImage(source: ImageSource, options?: TensorFromUrlOptions): Promise<Tensor> {
    return fromImage(source, options).then(
      ({ type, data, dims }) => new LetheTensor(type, data, dims) as unknown as Tensor,
    );
  }

  static fromTexture(): never {
    throw unsupported("tensors in WebGL's textures");
  }

  static fromGpuBuffer(): never {
    throw unsupported("tensors in WebGPU's buffers");
  }

  static fromMLTensor(): never {
    throw unsupported("tensors of WebNN");
  }

  static fromPinnedBuffer(type: string, data: unknown, dims?: unknown): LetheTensor {
    return new LetheTensor(type, data, dims);
  }

  get [BRAND](): true {
    return true;
  }

  get size(): number {
    return sizeOf(this.dims);
  }

  get data(): TensorData {
    if (this.cpuData) return this.cpuData;
    throw new LetheError("LETHE-TENSOR", "the tensor was disposed of: its data are gone");
  }

  get location(): Tensor.DataLocation {
    return this.cpuData ? "cpu" : "none";
  }

  get gpuBuffer(): never {
    throw elsewhere("a WebGPU buffer");
  }

  get texture(): never {
    throw elsewhere("a WebGL texture");
  }

  get mlTensor(): never {
    throw elsewhere("a WebNN tensor");
  }

  async getData(): Promise<TensorData> {
    return this.data;
  }

  reshape(dims: readonly number[]): LetheTensor {
    return new LetheTensor(this.type, this.data, dims);
  }

  dispose(): void {
    this.cpuData = undefined;
  }

  toDataURL(options?: TensorToImageOptions): string {
    return toDataURL(this.#pixels(), options);
  }

  toImageData(options?: TensorToImageOptions): ImageData {
    return toImageData(this.#pixels(), options);
  }

  #pixels() {
    if (this.type === "string") throw new LetheError("LETHE-TENSOR", "a picture of a string tensor");
    return { data: this.data as NumberArray, dims: this.dims };
  }
}

export const Tensor = LetheTensor as unknown as TensorConstructor;

/** A tensor over what came out of the engine. */
export function tensorOf(type: TensorType, data: TensorData, dims: readonly number[]): Tensor {
  return new LetheTensor(type, data, dims) as unknown as Tensor;
}

/** A tensor in parts, as it crosses to a worker. */
export interface TensorParts {
  type: TensorType;
  dims: readonly number[];
  data: TensorData;
}

/**
 * What is in a tensor: of this package, of another copy of it, or of another library that calls its
 * parts the same. `undefined` where it is none.
 */
export function partsOf(value: unknown): TensorParts | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { type, dims } = value as { type?: unknown; dims?: unknown };
  if (typeof type !== "string" || !Array.isArray(dims)) return undefined;
  const known = knownType(type);
  const { data } = value as { data?: unknown };
  if (!isArray(data)) return undefined;
  const parts = { type: known, dims: checkedDims(dims), data: convert(known, data) };
  checkFit(parts.type, parts.data, parts.dims);
  return parts;
}

/** A tensor's elements as bytes; not for strings. */
export function bytesOf(data: TensorData): Uint8Array {
  const array = data as NumberArray;
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function sizeOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

function checkedDims(dims: unknown): number[] {
  const isSize = (dim: unknown) => Number.isInteger(dim) && (dim as number) >= 0 && (dim as number) <= 0xffffffff;
  if (Array.isArray(dims) && dims.every(isSize)) return [...(dims as number[])];
  const found = Array.isArray(dims) ? `[${dims.join(", ")}]` : typeof dims;
  throw new LetheError("LETHE-TENSOR", `dims: expected sizes, found ${found}`);
}

function checkFit(type: TensorType, data: TensorData, dims: readonly number[]): void {
  const expected = entriesOf(type, sizeOf(dims));
  if (data.length === expected) return;
  throw new LetheError(
    "LETHE-TENSOR",
    `a ${type} tensor of shape [${dims.join(", ")}] takes ${expected} entries, found ${data.length}`,
  );
}

/** The form of the constructor that onnxruntime's factories use. */
function isParameters(
  first: unknown,
): first is { location: string; type: unknown; data: unknown; dims: unknown } {
  return typeof first === "object" && first !== null && !isArray(first) && "location" in first;
}

function unsupported(what: string): LetheError {
  return new LetheError("LETHE-UNSUPPORTED", `${what} are not supported: use new Tensor(type, data, dims)`);
}

function elsewhere(where: string): LetheError {
  return new LetheError("LETHE-UNSUPPORTED", `the tensor is not in ${where}: its elements are in \`data\``);
}
