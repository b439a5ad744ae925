import { bestBuild, compile, findGpu, type Build } from "./engine.js";
import { LetheError, toLetheError } from "./errors.js";
import {
  Model, type Backend, type Description, type LoadRequest, type Numerics, type Placement,
  type Progress, type ValueMetadata,
} from "./model.js";
import { RemoteModel } from "./remote.js";
import { toSource, type ModelInput, type Source } from "./source.js";
import type { Tensor } from "./tensor.js";
import { fromWire, toWire, type OnnxValue, type WireValue } from "./wire.js";

/** Options of `InferenceSession.create`; an unknown one is an error. */
export interface SessionOptions {
  /**
   * Where to compute. `auto`, the default, takes WebGPU where there is a GPU that can be had, and
   * WebAssembly otherwise or for reproducible numerics; `webgpu` fails with `LETHE-DEVICE` where
   * it is not to be had.
   */
  backend?: "auto" | Backend;
  /**
   * `fast`, the default, or `reproducible`: the same bits as on every other machine and door of
   * Lethe.
   */
  numerics?: Numerics;
  /**
   * Whether the model lives in a worker; the default. Without one, loading and running block this
   * thread and cannot be aborted halfway, but a run saves the way there and back.
   */
  worker?: boolean;
  /** Called while the model loads. */
  onProgress?: (progress: Progress) => void;
  /** Gives up loading; `create` rejects with the signal's reason. */
  signal?: AbortSignal;
  /** The SHA-256 that the model must have, in hexadecimal. */
  sha256?: string;
  /** Keeps the model in the browser under its `sha256`, which must be given. */
  cache?: boolean;
  /** The build of the engine for `wasm`; by default the best that the machine runs. */
  build?: "auto" | "simd128" | "relaxed";
}

/** Options of `session.run`. */
export interface RunOptions {
  /** Stops the run; it rejects with the signal's reason. */
  signal?: AbortSignal;
  /** The outputs to give; all by default. */
  outputs?: readonly string[];
}

/** Inputs by name. */
export type Feeds = Readonly<Record<string, Tensor | readonly Tensor[]>>;

/**
 * A loaded model.
 *
 * ```js
 * const session = await InferenceSession.create("model.onnx", { onProgress, signal });
 * const { logits } = await session.run({ input: new Tensor("float32", pixels, [1, 1, 28, 28]) });
 * await session.release();
 * ```
 */
export class InferenceSession {
  readonly #model: Model | RemoteModel;
  readonly #description: Description;
  #released = false;
  #pending = 0;
  #idle: (() => void) | undefined;

  private constructor(model: Model | RemoteModel) {
    this.#model = model;
    this.#description = model.description;
  }

  /**
   * Loads a model from an address, a `Blob` or bytes.
   *
   * @throws {LetheError} where the model cannot be had, is invalid or unsupported.
   */
  static async create(model: ModelInput, options: SessionOptions = {}): Promise<InferenceSession> {
    const { signal, onProgress = () => {}, worker = true } = options;
    try {
      signal?.throwIfAborted();
      const settings = checked(model, options);
      const door = worker ? RemoteModel : Model;
      const load = async (backend: Backend) => {
        const request = await loadRequest(settings, backend);
        signal?.throwIfAborted();
        return new InferenceSession(await door.load(request, onProgress, signal));
      };
      if (settings.backend === "wasm" || settings.numerics === "reproducible") {
        return await load("wasm");
      }
      const gpu = await findGpu();
      if (settings.backend === "webgpu") {
        if (gpu !== "none") return await load("webgpu");
        throw new LetheError("LETHE-DEVICE", "device webgpu: this platform offers no graphics adapter");
      }
      // An adapter in software would be slower than WebAssembly.
      if (gpu !== "hardware") return await load("wasm");
      try {
        return await load("webgpu");
      } catch (thrown) {
        if ((thrown as { code?: unknown }).code !== "LETHE-DEVICE") throw thrown;
        return await load("wasm");
      }
    } catch (thrown) {
      throw toLetheError(thrown);
    }
  }

  /** Names of the inputs, in the model's order. */
  get inputNames(): readonly string[] {
    return this.#description.inputs.map((input) => input.name);
  }

  /** Names of the outputs, in the model's order. */
  get outputNames(): readonly string[] {
    return this.#description.outputs.map((output) => output.name);
  }

  /** Names, types and shapes of the inputs. */
  get inputMetadata(): readonly ValueMetadata[] {
    return this.#description.inputs;
  }

  /** Names, types and shapes of the outputs. */
  get outputMetadata(): readonly ValueMetadata[] {
    return this.#description.outputs;
  }

  /** Where the session computes: what `auto` came to. */
  get backend(): Backend {
    return this.#description.backend;
  }

  /** What there is to know of the model: producer, opsets, operators, sizes. */
  get description(): Readonly<Description> {
    return this.#description;
  }

  /**
   * Runs the model and gives its outputs by name. Runs asked for at the same time wait for each
   * other.
   *
   * The second argument may be a list of output names, as with onnxruntime-web.
   *
   * @throws {LetheError} where an input is missing, unknown or wrong, or a node fails.
   */
  async run(feeds: Feeds, options?: RunOptions): Promise<Record<string, Tensor>>;
  async run(
    feeds: Feeds, outputs: readonly string[], options?: RunOptions,
  ): Promise<Record<string, Tensor>>;
  async run(
    feeds: Feeds, second: RunOptions | readonly string[] = {}, third: RunOptions = {},
  ): Promise<Record<string, Tensor>> {
    const options = isNames(second) ? { outputs: second, ...third } : second;
    checkOptions(options, ["signal", "outputs"]);
    if (this.#released) throw new LetheError("LETHE-RELEASED", "the session was released");
    const { signal, outputs } = options;
    signal?.throwIfAborted();
    const wire = toWires(feeds);
    this.#pending += 1;
    try {
      const values = await this.#model.run(wire, outputs && [...outputs], signal);
      // Without a worker an abort can only be noticed afterwards.
      signal?.throwIfAborted();
      const names = outputs ?? this.outputNames;
      const entries = names.map((name, i): [string, OnnxValue] => [name, fromWire(values[i] ?? null)]);
      return Object.fromEntries(entries) as Record<string, Tensor>;
    } catch (thrown) {
      throw toLetheError(thrown);
    } finally {
      this.#pending -= 1;
      if (this.#pending === 0) this.#idle?.();
    }
  }

  /**
   * Where each step that runs on data would run for inputs of these shapes: with `webgpu`, which
   * ones fall back to the CPU, and why.
   */
  async placement(feeds: Feeds): Promise<Placement[]> {
    if (this.#released) throw new LetheError("LETHE-RELEASED", "the session was released");
    try {
      return await this.#model.placement(toWires(feeds));
    } catch (thrown) {
      throw toLetheError(thrown);
    }
  }

  /** Waits for the runs under way, then frees the model; what runs left in memory is overwritten. */
  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    if (this.#pending > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.#model.release();
  }
}

function toWires(feeds: Feeds): [string, WireValue][] {
  return Object.entries(feeds).map(([name, value]) => [name, toWire(name, value)]);
}

/** Options that were found to be sound. */
interface Settings {
  source: Source;
  backend: "auto" | Backend;
  numerics: Numerics;
  build: "auto" | Build;
  sha256: string | undefined;
  cache: boolean;
}

function checked(model: ModelInput, options: SessionOptions): Settings {
  checkOptions(options, [
    "backend", "numerics", "worker", "onProgress", "signal", "sha256", "cache", "build",
  ]);
  const backend = choice("backend", options.backend ?? "auto", ["auto", "wasm", "webgpu"]);
  const numerics = choice("numerics", options.numerics ?? "fast", ["fast", "reproducible"]);
  const build = choice("build", options.build ?? "auto", ["auto", "simd128", "relaxed"]);
  const sha256 = options.sha256?.toLowerCase();
  if (backend === "webgpu" && numerics === "reproducible") {
    throw new LetheError("LETHE-OPTION", "numerics: reproducible needs backend wasm");
  }
  if (sha256 !== undefined && !/^[0-9a-f]{64}$/.test(sha256)) {
    throw new LetheError("LETHE-OPTION", "sha256: expected 64 hexadecimal digits");
  }
  if (options.cache && !sha256) {
    throw new LetheError("LETHE-OPTION", "cache: needs sha256, the name under which it keeps");
  }
  return { source: toSource(model), backend, numerics, build, sha256, cache: options.cache ?? false };
}

async function loadRequest(settings: Settings, backend: Backend): Promise<LoadRequest> {
  const { source, numerics, sha256, cache } = settings;
  const cpuBuild = () => (settings.build === "auto" ? bestBuild() : settings.build);
  const build = backend === "webgpu" ? "webgpu" : cpuBuild();
  return { build, module: await compile(build), source, backend, numerics, sha256, cache };
}

function isNames(second: RunOptions | readonly string[]): second is readonly string[] {
  return Array.isArray(second);
}

function choice<T extends string>(name: string, value: T, known: readonly T[]): T {
  if (known.includes(value)) return value;
  throw new LetheError(
    "LETHE-OPTION", `${name}: expected ${known.join(", ")}, found ${JSON.stringify(value)}`,
  );
}

function checkOptions(options: object, known: readonly string[]): void {
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new LetheError(
      "LETHE-OPTION", `unknown option ${JSON.stringify(unknown)}; there are ${known.join(", ")}`,
    );
  }
}
