/** Where the WebAssembly is, and how it is had; on the page's side only. */

import type { Build } from "./description.js";
import { env } from "./env.js";
import { LetheError } from "./errors.js";
import { absoluteUrl, fetchUrl } from "./platform.js";

/** Gives the bytes of a build, or where they are. */
type Supply = (build: Build) => URL | Promise<BufferSource>;

let supply: Supply = (build) => {
  throw new LetheError("LETHE-DEVICE", `this form of the package has no build ${build}`);
};

/** Says where the builds are: beside the package's files, or in them. */
export function supplyModules(by: Supply): void {
  supply = by;
}

const compiled = new Map<string, Promise<WebAssembly.Module>>();
/** By the bytes that `env.wasm.wasmBinary` was. */
const given = new WeakMap<object, Promise<WebAssembly.Module>>();

/** The compiled module; compiled once a page, and workers are sent it. */
export function compile(build: Build): Promise<WebAssembly.Module> {
  const { wasmBinary, wasmPaths } = env.wasm;
  if (wasmBinary) {
    let module = given.get(wasmBinary);
    if (!module) {
      module = ofBytes(wasmBinary as BufferSource);
      given.set(wasmBinary, module);
    }
    return module;
  }
  const url = wasmPaths === undefined ? supply(build) : addressOf(build, wasmPaths);
  const key = url instanceof URL ? url.href : build;
  let module = compiled.get(key);
  if (!module) {
    module = url instanceof URL ? download(url.href) : url.then(ofBytes);
    compiled.set(key, module);
    module.catch(() => compiled.delete(key));
  }
  return module;
}

function addressOf(build: Build, paths: NonNullable<typeof env.wasm.wasmPaths>): URL {
  if (typeof paths === "string") return new URL(absoluteUrl(`${paths}lethe-${build}.wasm`));
  // A program written for onnxruntime-web may name only that one's script.
  if (paths.wasm === undefined) {
    const found = supply(build);
    if (found instanceof URL) return found;
    throw new LetheError("LETHE-OPTION", "env.wasm.wasmPaths: there is no address in it");
  }
  return new URL(absoluteUrl(paths.wasm));
}

async function download(url: string): Promise<WebAssembly.Module> {
  const remedy = "; the package's files must be served, or env.wasm.wasmPaths say where they are";
  let response: Response;
  try {
    response = await fetchUrl(url);
  } catch (thrown) {
    throw new LetheError("LETHE-FETCH", `${url}: ${(thrown as Error).message}${remedy}`);
  }
  const type = response.headers.get("content-type") ?? "";
  if (!response.ok) throw new LetheError("LETHE-FETCH", `${url}: the server answered ${response.status}${remedy}`);
  if (/^text\/html/.test(type)) {
    throw new LetheError("LETHE-FETCH", `${url}: the server answered an HTML page where WebAssembly is expected${remedy}`);
  }
  // Of some other type it cannot be compiled while it comes.
  if (type.startsWith("application/wasm")) {
    return WebAssembly.compileStreaming(response).catch((thrown) => Promise.reject(notCompiled(url, thrown)));
  }
  return ofBytes(await response.arrayBuffer(), url);
}

async function ofBytes(bytes: BufferSource, name = "env.wasm.wasmBinary"): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(bytes);
  } catch (thrown) {
    throw notCompiled(name, thrown);
  }
}

function notCompiled(name: string, thrown: unknown): LetheError {
  const { message } = thrown as Error;
  const hint = /policy|unsafe-eval/i.test(message)
    ? "; the page's content security policy must allow 'wasm-unsafe-eval' for scripts"
    : "";
  return new LetheError("LETHE-FETCH", `${name}: ${message}${hint}`);
}

/** What the platform has to compute on with WebGPU. */
export async function findGpu(): Promise<"none" | "software" | "hardware"> {
  const gpu = typeof navigator === "object" ? (navigator as { gpu?: Gpu }).gpu : undefined;
  const { powerPreference, forceFallbackAdapter } = env.webgpu;
  const wanted = {
    ...(powerPreference && { powerPreference }), ...(forceFallbackAdapter && { forceFallbackAdapter }),
  };
  const adapter = await gpu?.requestAdapter(wanted).catch(() => null);
  if (adapter == null) return "none";
  return adapter.info?.isFallbackAdapter ? "software" : "hardware";
}

/** The part of WebGPU that is asked; TypeScript's `dom` library has none. */
interface Gpu {
  requestAdapter(wanted: object): Promise<{ info?: { isFallbackAdapter?: boolean } } | null>;
}
