/** Settings of the whole package: onnxruntime-web's `env`. */

import { LetheError } from "./errors.js";
import type { Global } from "./global.js";

export declare namespace Env {
  type WasmPathPrefix = string;
  interface WasmFilePaths {
    /** Where the WebAssembly is: the build that this machine takes (`relaxed`, `simd128` or `webgpu`). */
    wasm?: URL | string;
    /** Not used: Lethe has no such file. */
    mjs?: URL | string;
  }
  type WasmPrefixOrFilePaths = WasmPathPrefix | WasmFilePaths;

  interface WebAssemblyFlags {
    /** Not used yet: WebAssembly computes on one thread. */
    numThreads?: number;
    /** Not used: the best instructions that the machine has are taken; see the option `build`. */
    simd?: boolean | "fixed" | "relaxed";
    trace?: boolean;
    /** Milliseconds until a worker that does not answer is given up; 0, the default, for never. */
    initTimeout?: number;
    /**
     * Where the package's WebAssembly is, if not beside its JavaScript: a folder, which has
     * `simd128/lethe_bg.wasm` and the like in it, or the file.
     */
    wasmPaths?: WasmPrefixOrFilePaths;
    /** The WebAssembly itself: the content of `simd128/lethe_bg.wasm` or of the build that is wanted. */
    wasmBinary?: ArrayBufferLike | Uint8Array;
    /** `true`: sessions live in a worker of their own also when they are made in a worker. */
    proxy?: boolean;
  }

  interface WebGLFlags {
    contextId?: "webgl" | "webgl2";
    readonly context: WebGLRenderingContext;
    matmulMaxBatchSize?: number;
    textureCacheMode?: "initializerOnly" | "full";
    pack?: boolean;
    async?: boolean;
  }

  interface WebGpuProfilingDataV1TensorMetadata {
    dims: readonly number[];
    dataType: string;
  }
  interface WebGpuProfilingDataV1 {
    version: 1;
    inputsMetadata: readonly WebGpuProfilingDataV1TensorMetadata[];
    outputsMetadata: readonly WebGpuProfilingDataV1TensorMetadata[];
    kernelId: number;
    kernelType: string;
    kernelName: string;
    programName: string;
    startTime: number;
    endTime: number;
  }
  type WebGpuProfilingData = WebGpuProfilingDataV1;

  interface WebGpuFlags {
    profilingMode?: "off" | "default";
    profiling: { mode?: "off" | "default"; ondata?: (data: WebGpuProfilingData) => void };
    /** Which adapter is asked for. */
    powerPreference?: "low-power" | "high-performance";
    /** Asks for the adapter in software. */
    forceFallbackAdapter?: boolean;
    adapter: Global<"GPUAdapter">;
    get device(): Promise<Global<"GPUDevice">>;
    set device(value: Global<"GPUDevice">);
    validateInputContent?: boolean;
  }
}

/** Settings of the whole package. Those that Lethe has no use for are taken and kept. */
export interface Env {
  /** What the console is told: `warning` by default. */
  logLevel?: "verbose" | "info" | "warning" | "error" | "fatal";
  debug?: boolean;
  trace?: boolean;
  /** `common` is the version of onnxruntime-common whose surface this is. */
  readonly versions: {
    readonly common: string;
    readonly web?: string;
    readonly node?: string;
    readonly "react-native"?: string;
    readonly lethe?: string;
  };
  readonly wasm: Env.WebAssemblyFlags;
  readonly webgl: Env.WebGLFlags;
  readonly webgpu: Env.WebGpuFlags;
  [name: string]: unknown;
}

/** The package's own version; `build.mjs` writes it here. */
declare const LETHE_VERSION: string;

const LEVELS = ["verbose", "info", "warning", "error", "fatal"] as const;
type Level = (typeof LEVELS)[number];

let level: Level = "warning";

/**
 * Settings of the whole package; read when a session is made.
 *
 * There is no `versions.web`: programs take it for the version of the files that they then fetch from
 * onnxruntime-web's own network.
 */
export const env: Env = {
  get logLevel(): Level {
    return level;
  },
  set logLevel(value: Level | undefined) {
    if (value === undefined) return;
    if (!LEVELS.includes(value)) {
      throw new LetheError("LETHE-OPTION", `logLevel: expected ${LEVELS.join(", ")}, found ${JSON.stringify(value)}`);
    }
    level = value;
  },
  debug: false,
  trace: false,
  versions: { common: "1.30.0", lethe: LETHE_VERSION },
  wasm: {},
  webgl: {} as Env.WebGLFlags,
  webgpu: { profiling: {} } as Env.WebGpuFlags,
};

const told = new Set<string>();

/** Tells the console of something once, unless only errors are to be told. */
export function warnOnce(code: string, text: string): void {
  if (LEVELS.indexOf(level) > LEVELS.indexOf("warning")) return;
  const line = `${code}: ${text}`;
  if (told.has(line)) return;
  told.add(line);
  console.warn(`lethe: ${line}`);
}
