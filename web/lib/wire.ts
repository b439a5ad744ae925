/** Values on their way between a session, a worker and the engine. */

import type { Value } from "../glue/lethe.js";
import { arrayOfBytes, codeOfType, typeOfCode, type NumberArray, type TensorType } from "./element_types.js";
import type { Engine } from "./engine.js";
import { LetheError } from "./errors.js";
import { bytesOf, partsOf, tensorOf, type Tensor, type TensorParts } from "./tensor.js";
import type { AnyValue } from "./values.js";

/** A value in a form that survives `postMessage`. */
export type WireValue =
  | TensorParts
  | { list: WireValue[] }
  | { keys: WireValue; values: WireValue }
  | null;

/** An input, checked: a tensor or a list of them. */
export function toWire(name: string, value: unknown, refuseNaN: boolean): WireValue {
  if (Array.isArray(value)) return { list: value.map((part) => toWire(name, part, refuseNaN)) };
  const input = `input ${JSON.stringify(name)}`;
  let parts: TensorParts | undefined;
  try {
    parts = partsOf(value);
  } catch (thrown) {
    if (!(thrown instanceof LetheError)) throw thrown;
    throw new LetheError(thrown.code, `${input}: ${thrown.message}`);
  }
  if (!parts) throw new LetheError("LETHE-INPUT-TYPE", `${input}: expected a Tensor, found ${kindOf(value)}`);
  if (refuseNaN && hasNaN(parts)) throw new LetheError("LETHE-INPUT-NAN", `${input}: NaN is in it`);
  return parts;
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return typeof value === "object" ? `an object ${value.constructor?.name ?? ""}`.trimEnd() : `a ${typeof value}`;
}

/** Types whose elements are bit patterns here: where all of these bits and one more are set, it is NaN. */
const EXPONENTS: Partial<Record<TensorType, number>> = { float16: 0x7c00, bfloat16: 0x7f80 };

function hasNaN({ type, data }: TensorParts): boolean {
  const exponent = EXPONENTS[type];
  if (data instanceof Uint16Array && exponent !== undefined) {
    return data.some((bits) => (bits & 0x7fff) > exponent);
  }
  if (!/^(float16|float32|float64|complex)/.test(type)) return false;
  const numbers = data as Float32Array;
  for (let i = 0; i < numbers.length; i += 1) if (numbers[i] !== numbers[i]) return true;
  return false;
}

/** An output as the caller gets it. */
export function fromWire(wire: WireValue): AnyValue {
  if (wire === null) return null;
  if ("list" in wire) return wire.list.map(fromWire);
  if ("keys" in wire) {
    const [keys, values] = [fromWire(wire.keys) as Tensor, fromWire(wire.values) as Tensor];
    return new Map((keys.data as string[]).map((key, i) => [key, values.data[i]]));
  }
  return tensorOf(wire.type, wire.data, wire.dims);
}

/** A value in the engine's memory. */
export function toEngine(engine: Engine, wire: WireValue): Value {
  if (wire === null || "keys" in wire) {
    throw new LetheError("LETHE-UNSUPPORTED", "maps and empty optionals cannot be inputs");
  }
  if ("list" in wire) return engine.Value.sequence(wire.list.map((part) => toEngine(engine, part)));
  const dims = Uint32Array.from(wire.dims);
  if (wire.type === "string") return engine.Value.stringTensor(dims, wire.data as string[]);
  return engine.Value.tensor(codeOfType(wire.type), dims, bytesOf(wire.data));
}

/** Takes a value out of the engine's memory and frees it there. */
export function fromEngine(value: Value): WireValue {
  try {
    switch (value.kind) {
      case "none":
        return null;
      case "sequence":
        return { list: value.parts.map(fromEngine) };
      case "map": {
        const [keys, values] = value.parts.map(fromEngine);
        return { keys: keys ?? null, values: values ?? null };
      }
    }
    const type = typeOfCode(value.dataType);
    const data = type === "string" ? value.strings : arrayOfBytes(type, value.bytes);
    return { type, dims: [...value.dims], data };
  } finally {
    value.free();
  }
}

/** The buffers that can be handed over instead of copied. */
export function buffersOf(values: WireValue[]): ArrayBuffer[] {
  return values.flatMap((wire) => {
    if (wire === null) return [];
    if ("list" in wire) return buffersOf(wire.list);
    if ("keys" in wire) return buffersOf([wire.keys, wire.values]);
    return ArrayBuffer.isView(wire.data) ? [wire.data.buffer as ArrayBuffer] : [];
  });
}

/**
 * A value to be copied to a worker. Copying an array copies the whole buffer under it, so that a piece
 * of a long one is cut out first.
 */
export function trimmed(wire: WireValue): WireValue {
  if (wire === null) return null;
  if ("list" in wire) return { list: wire.list.map(trimmed) };
  if ("keys" in wire) return wire;
  const data = wire.data as NumberArray;
  if (!ArrayBuffer.isView(data) || data.byteLength === data.buffer.byteLength) return wire;
  return { ...wire, data: data.slice() };
}

/** By how much floats of two backends may differ, of the largest of them. */
const TOLERANCE = 1e-2;

/** Where two runs gave other outputs: a clause, or `undefined` where they gave the same. */
export function disagreement(found: WireValue[], expected: WireValue[]): string | undefined {
  for (const [i, wanted] of expected.entries()) {
    const got = found[i] ?? null;
    if (wanted === null || got === null || !("data" in wanted) || !("data" in got)) continue;
    if (wanted.type !== got.type || String(wanted.dims) !== String(got.dims)) {
      return `output ${i} is ${got.type} [${got.dims.join(", ")}], not ${wanted.type} [${wanted.dims.join(", ")}]`;
    }
    if (wanted.type !== "float32" && wanted.type !== "float64") continue;
    const [a, b] = [got.data as Float32Array, wanted.data as Float32Array];
    const largest = b.reduce((most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most), 0);
    const bound = TOLERANCE * Math.max(largest, 1e-6);
    for (let k = 0; k < b.length; k += 1) {
      const [x, y] = [a[k] as number, b[k] as number];
      const same = Object.is(x, y) || Math.abs(x - y) <= bound;
      if (!same) return `element ${k} of output ${i} is ${x}, not ${y}`;
    }
  }
  return undefined;
}
