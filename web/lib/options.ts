/** Options of sessions and runs: which there are, and whether their values are sound. */

import { isRegistered } from "./backend.js";
import type { Build, Numerics } from "./description.js";
import { env, warnOnce } from "./env.js";
import { LetheError } from "./errors.js";
import type { InferenceSession } from "./inference_session.js";
import { isMainThread } from "./platform.js";
import { toFiles, toSource, type FileSource, type ModelInput, type Source } from "./source.js";

/** A way to compute that is tried: one of Lethe's, or a backend that the program registered. */
export type Candidate = { lethe: "auto" | "wasm" | "webgpu" } | { registered: string };

/** Options that were found to be sound. */
export interface Settings {
  /** As they were given: for backends that the program brings itself. */
  given: InferenceSession.SessionOptions;
  source: Source;
  files: FileSource[];
  candidates: Candidate[];
  numerics: Numerics;
  rewrite: boolean;
  freeDimensions: Record<string, number>;
  build: "auto" | Build;
  sha256: string | undefined;
  cache: boolean;
  worker: boolean;
  signal: AbortSignal | undefined;
  onProgress: InferenceSession.SessionOptions["onProgress"];
  warmup: boolean | InferenceSession.FeedsType;
  refuseNaN: boolean;
  verify: boolean;
  profiling: boolean;
  profileFilePrefix: string;
}

type Check = (name: string, value: unknown) => void;

const is = (...types: string[]): Check => (name, value) => {
  if (types.includes(typeof value)) return;
  throw wrong(name, `a ${types.join(" or a ")}`, value);
};
const oneOf = (...known: unknown[]): Check => (name, value) => {
  if (!known.includes(value)) throw wrong(name, known.join(", "), value);
};
const count = (least: number): Check => (name, value) => {
  if (!Number.isInteger(value) || (value as number) < least) throw wrong(name, `a whole number from ${least}`, value);
};
const object: Check = (name, value) => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong(name, "an object", value);
};
const list: Check = (name, value) => {
  if (!Array.isArray(value)) throw wrong(name, "a list", value);
};
const signal: Check = (name, value) => {
  if (!(value instanceof AbortSignal)) throw wrong(name, "an AbortSignal", value);
};

const LOCATIONS = ["none", "cpu", "cpu-pinned", "texture", "gpu-buffer", "ml-tensor"];
const location: Check = (name, value) => {
  if (typeof value !== "object" || value === null) return oneOf(...LOCATIONS)(name, value);
  for (const [output, place] of Object.entries(value)) oneOf(...LOCATIONS)(`${name}.${output}`, place);
};

/** Of `InferenceSession.create`: onnxruntime-web's first, then Lethe's. */
const SESSION: Record<keyof InferenceSession.SessionOptions, Check> = {
  executionProviders: list,
  intraOpNumThreads: count(0),
  interOpNumThreads: count(0),
  freeDimensionOverrides: (name, value) => {
    object(name, value);
    for (const [axis, size] of Object.entries(value as object)) count(0)(`${name}.${axis}`, size);
  },
  graphOptimizationLevel: oneOf("disabled", "basic", "extended", "layout", "all"),
  enableCpuMemArena: is("boolean"),
  enableMemPattern: is("boolean"),
  executionMode: oneOf("sequential", "parallel"),
  optimizedModelFilePath: is("string"),
  enableProfiling: is("boolean"),
  profileFilePrefix: is("string"),
  logId: is("string"),
  logSeverityLevel: oneOf(0, 1, 2, 3, 4),
  logVerbosityLevel: count(0),
  preferredOutputLocation: location,
  enableGraphCapture: is("boolean"),
  externalData: list,
  extra: object,
  backend: oneOf("auto", "wasm", "webgpu"),
  numerics: oneOf("fast", "reproducible"),
  worker: is("boolean"),
  onProgress: is("function"),
  signal,
  sha256: (name, value) => {
    if (typeof value !== "string" || !/^[0-9a-fA-F]{64}$/.test(value)) throw wrong(name, "64 hexadecimal digits", value);
  },
  cache: is("boolean"),
  build: oneOf("auto", "simd128", "relaxed"),
  warmup: (name, value) => {
    if (typeof value !== "boolean") object(name, value);
  },
  refuseNaN: is("boolean"),
  verify: is("boolean"),
};

/** Of `session.run`. */
const RUN: Record<keyof InferenceSession.RunOptions, Check> = {
  logSeverityLevel: oneOf(0, 1, 2, 3, 4),
  logVerbosityLevel: count(0),
  terminate: is("boolean"),
  tag: is("string"),
  extra: object,
  signal,
  outputs: list,
};

/**
 * The settings of a session.
 *
 * @throws {LetheError} `LETHE-OPTION` where an option has a wrong value. One that is not known is said
 * once to the console.
 */
export function sessionSettings(model: ModelInput, given: unknown): Settings {
  const options = checked<InferenceSession.SessionOptions>(SESSION, given);
  const source = toSource(model);
  const numerics = options.numerics ?? "fast";
  const candidates = candidatesOf(options, numerics);
  const sha256 = options.sha256?.toLowerCase();
  if (options.cache && !sha256) {
    throw new LetheError("LETHE-OPTION", "cache: needs sha256, the name under which it keeps");
  }
  return {
    given: options,
    source,
    files: toFiles(options.externalData ?? []),
    candidates,
    numerics,
    rewrite: options.graphOptimizationLevel !== "disabled",
    freeDimensions: { ...options.freeDimensionOverrides },
    build: options.build ?? "auto",
    sha256,
    cache: options.cache ?? false,
    // In a worker the page is free already.
    worker: options.worker ?? (env.wasm.proxy === true || isMainThread()),
    signal: options.signal,
    onProgress: options.onProgress,
    warmup: options.warmup ?? false,
    refuseNaN: options.refuseNaN ?? false,
    verify: options.verify ?? false,
    profiling: options.enableProfiling ?? false,
    profileFilePrefix: options.profileFilePrefix ?? "lethe_profile_",
  };
}

/** The options of a run; as for {@link sessionSettings}. */
export function runOptions(given: unknown): InferenceSession.RunOptions {
  const options = checked<InferenceSession.RunOptions>(RUN, given);
  for (const output of options.outputs ?? []) is("string")("outputs", output);
  return options;
}

function checked<Options extends object>(known: Record<keyof Options, Check>, given: unknown): Options {
  if (given === undefined || given === null) return {} as Options;
  if (typeof given !== "object" || Array.isArray(given)) throw wrong("options", "an object", given);
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(known, name)) {
      const nearest = nearestTo(name, Object.keys(known));
      const meant = nearest ? `; did you mean ${nearest}?` : "";
      warnOnce("LETHE-OPTION", `there is no option ${JSON.stringify(name)}${meant}`);
    } else if (value !== undefined) {
      known[name as keyof Options](name, value);
    }
  }
  return given as Options;
}

/** What each of onnxruntime's execution providers is here; those of other platforms are not to be had. */
const PROVIDERS: Record<string, Candidate | undefined> = {
  wasm: { lethe: "wasm" },
  cpu: { lethe: "wasm" },
  webgpu: { lethe: "webgpu" },
  webnn: { lethe: "auto" },
  webgl: { lethe: "auto" },
  js: { lethe: "webgpu" },
  ...Object.fromEntries(
    ["coreml", "cuda", "dml", "nnapi", "tensorrt", "qnn", "xnnpack"].map((name) => [name, undefined]),
  ),
};

function candidatesOf(options: InferenceSession.SessionOptions, numerics: Numerics): Candidate[] {
  const { backend } = options;
  const providers = options.executionProviders ?? [];
  if (backend !== undefined || providers.length === 0) {
    if (backend === "webgpu" && numerics === "reproducible") {
      throw new LetheError("LETHE-OPTION", "numerics: reproducible needs backend wasm");
    }
    return [{ lethe: numerics === "reproducible" ? "wasm" : (backend ?? "auto") }];
  }
  const names = providers.map((provider) => (typeof provider === "string" ? provider : provider?.name));
  const candidates = names.flatMap((name): Candidate[] => {
    if (typeof name !== "string") throw wrong("executionProviders", "names, or objects with a name", name);
    if (isRegistered(name)) return [{ registered: name }];
    if (!Object.hasOwn(PROVIDERS, name)) {
      const nearest = nearestTo(name, Object.keys(PROVIDERS));
      throw new LetheError(
        "LETHE-OPTION", `executionProviders: there is no ${JSON.stringify(name)}` + (nearest ? `; did you mean ${nearest}?` : ""),
      );
    }
    const found = PROVIDERS[name];
    return found ? [found] : [];
  });
  if (candidates.length === 0) {
    throw new LetheError("LETHE-DEVICE", `executionProviders: none of ${names.join(", ")} is to be had; wasm and webgpu may be`);
  }
  if (numerics === "reproducible") return [{ lethe: "wasm" }];
  return candidates;
}

function wrong(name: string, expected: string, found: unknown): LetheError {
  const shown = typeof found === "string" || typeof found === "number" ? JSON.stringify(found) : kindOf(found);
  return new LetheError("LETHE-OPTION", `${name}: expected ${expected}, found ${shown}`);
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : typeof value;
}

/** The known name that is meant, if one is near enough to be it. */
export function nearestTo(name: string, known: readonly string[]): string | undefined {
  const near = known
    .map((other) => ({ other, steps: editDistance(name.toLowerCase(), other.toLowerCase()) }))
    .sort((a, b) => a.steps - b.steps)[0];
  return near && near.steps <= Math.max(2, name.length / 3) ? near.other : undefined;
}

/** Letters to insert, remove or replace: Wagner and Fischer's table, a row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= Math.min(a.length, 64); i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
