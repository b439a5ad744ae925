/** The WebAssembly module: which build, where it is, and how it becomes callable. */

import type * as Glue from "./simd128/lethe.js";
import { LetheError } from "./errors.js";
import { fetchUrl } from "./platform.js";

/** A build of the engine: for the CPU with or without relaxed SIMD, or with WebGPU. */
export type Build = "simd128" | "relaxed" | "webgpu";

/** What wasm-bindgen makes of the crate `lethe-web`; all builds have the same face. */
export type Engine = Pick<typeof Glue, "default" | "ModelBytes" | "Session" | "Value" | "version">;

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

const MODULES: Record<Build, URL> = {
  simd128: new URL("./simd128/lethe_bg.wasm", import.meta.url),
  relaxed: new URL("./relaxed/lethe_bg.wasm", import.meta.url),
  webgpu: new URL("./webgpu/lethe_bg.wasm", import.meta.url),
};

const compiled = new Map<Build, Promise<WebAssembly.Module>>();

/** The compiled module; compiled once a page, and workers are sent it. */
export function compile(build: Build): Promise<WebAssembly.Module> {
  let module = compiled.get(build);
  if (!module) {
    module = download(MODULES[build].href);
    compiled.set(build, module);
    module.catch(() => compiled.delete(build));
  }
  return module;
}

async function download(url: string): Promise<WebAssembly.Module> {
  try {
    const response = await fetchUrl(url);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    return response.headers.get("content-type") === "application/wasm"
      ? await WebAssembly.compileStreaming(response)
      : await WebAssembly.compile(await response.arrayBuffer());
  } catch (thrown) {
    const hint =
      thrown instanceof WebAssembly.CompileError && /policy|unsafe-eval/i.test(thrown.message)
        ? "; the page's content security policy must allow 'wasm-unsafe-eval'"
        : "";
    throw new LetheError("LETHE-FETCH", `${url}: ${(thrown as Error).message}${hint}`);
  }
}

/** What the platform has to compute on with WebGPU. */
export async function findGpu(): Promise<"none" | "software" | "hardware"> {
  const gpu = typeof navigator === "object" ? (navigator as { gpu?: Gpu }).gpu : undefined;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  if (adapter == null) return "none";
  return adapter.info?.isFallbackAdapter ? "software" : "hardware";
}

/** The part of WebGPU that is asked; TypeScript's `dom` library has none. */
interface Gpu {
  requestAdapter(): Promise<{ info?: { isFallbackAdapter?: boolean } } | null>;
}

const instances = new Map<Build, Promise<Engine>>();

/** The engine in this thread; one instance of a build, which all sessions here share. */
export function instantiate(build: Build, module: WebAssembly.Module): Promise<Engine> {
  let engine = instances.get(build);
  if (!engine) {
    engine = (async () => {
      const glue = await importGlue(build);
      await glue.default({ module_or_path: module });
      return glue;
    })();
    instances.set(build, engine);
    engine.catch(() => instances.delete(build));
  }
  return engine;
}

/** Bundlers need to see each address. */
function importGlue(build: Build): Promise<Engine> {
  switch (build) {
    case "simd128":
      return import("./simd128/lethe.js") as Promise<Engine>;
    case "relaxed":
      return import("./relaxed/lethe.js") as unknown as Promise<Engine>;
    case "webgpu":
      return import("./webgpu/lethe.js") as unknown as Promise<Engine>;
  }
}
