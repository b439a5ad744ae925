/** The WebAssembly module in this thread: which build is best, and how it becomes callable. */

import { makeGlue as makeRelaxed } from "../glue/relaxed.js";
import { makeGlue as makeSimd128 } from "../glue/simd128.js";
import { makeGlue as makeWebgpu } from "../glue/webgpu.js";
import type * as Glue from "../glue/lethe.js";
import type { Build } from "./description.js";
import { LetheError } from "./errors.js";

/** What wasm-bindgen makes of the crate `lethe-web`; all builds have the same face. */
export type Engine = Pick<typeof Glue, "ExternalFiles" | "ModelBytes" | "Session" | "Value" | "version"> & {
  /** Bytes of its memory, which grows only. */
  memoryBytes(): number;
};

/** The smallest modules that are valid only with the instructions in question. */
const i8x16_splat = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
];
const f32x4_relaxed_madd = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 8, 1, 96, 3, 123, 123, 123, 1, 123, 3, 2, 1, 0, 10, 13, 1, 11, 0, 32,
  0, 32, 1, 32, 2, 253, 133, 2, 11,
];
const valid = (bytes: number[]) => WebAssembly.validate(new Uint8Array(bytes));

/** The best build that computes on this machine's CPU. */
export function bestBuild(): Build {
  if (valid(f32x4_relaxed_madd)) return "relaxed";
  if (valid(i8x16_splat)) return "simd128";
  throw new LetheError("LETHE-DEVICE", "this browser's WebAssembly has no SIMD");
}

const GLUE: Record<Build, () => typeof Glue> = {
  simd128: makeSimd128, relaxed: makeRelaxed, webgpu: makeWebgpu,
};

/**
 * An engine of its own: the memory of an instance is given back only with the whole of it, and a session
 * that crashes takes no other with it.
 */
export async function instantiate(build: Build, module: WebAssembly.Module): Promise<Engine> {
  const glue = GLUE[build]();
  const { memory } = await glue.default({ module_or_path: module });
  const { ExternalFiles, ModelBytes, Session, Value, version } = glue;
  return { ExternalFiles, ModelBytes, Session, Value, version, memoryBytes: () => memory.buffer.byteLength };
}
