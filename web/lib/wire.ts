/** Values on their way between a session, a worker and the engine. */

import type { Engine } from "./engine.js";
import type { Value } from "./simd128/lethe.js";
import { LetheError } from "./errors.js";
import {
  bytesOf, codeOfType, Tensor, tensorOfBytes, typeOfCode, type TensorData, type TensorType,
} from "./tensor.js";

/** A tensor, a list of values (ONNX's sequence), a map, or nothing (an empty optional). */
export type OnnxValue = Tensor | OnnxValue[] | Map<bigint | string, unknown> | null;

/** The same in a form that survives `postMessage`. */
export type WireValue =
  | { type: TensorType; dims: readonly number[]; data: TensorData }
  | { list: WireValue[] }
  | { keys: WireValue; values: WireValue }
  | null;

/** An input, checked: a tensor or a list of them. */
export function toWire(name: string, value: unknown): WireValue {
  if (value instanceof Tensor) return { type: value.type, dims: value.dims, data: value.data };
  if (Array.isArray(value)) return { list: value.map((part) => toWire(name, part)) };
  throw new LetheError("LETHE-INPUT-TYPE", `input ${JSON.stringify(name)}: expected a Tensor`);
}

/** An output as the caller gets it. */
export function fromWire(wire: WireValue): OnnxValue {
  if (wire === null) return null;
  if ("list" in wire) return wire.list.map(fromWire);
  if ("keys" in wire) {
    const [keys, values] = [fromWire(wire.keys) as Tensor, fromWire(wire.values) as Tensor];
    return new Map((keys.data as string[]).map((key, i) => [key, values.data[i]]));
  }
  return new Tensor(wire.type, wire.data, wire.dims);
}

/** A value in the engine's memory. */
export function toEngine(engine: Engine, wire: WireValue): Value {
  if (wire === null || "keys" in wire) {
    throw new LetheError("LETHE-UNSUPPORTED", "maps and empty optionals cannot be inputs");
  }
  if ("list" in wire) return engine.Value.sequence(wire.list.map((part) => toEngine(engine, part)));
  const dims = Uint32Array.from(wire.dims);
  if (wire.type === "string") return engine.Value.stringTensor(dims, wire.data as string[]);
  const tensor = new Tensor(wire.type, wire.data, wire.dims);
  return engine.Value.tensor(codeOfType(wire.type), dims, bytesOf(tensor));
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
    const dims = [...value.dims];
    const data = type === "string" ? value.strings : tensorOfBytes(type, value.bytes, dims).data;
    return { type, dims, data };
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
