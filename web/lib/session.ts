/** Sessions at work: behind `InferenceSession`. */

import { registered, type InferenceSessionHandler } from "./backend.js";
import type { Backend, Build, Description, Placement, StepTime } from "./description.js";
import { bestBuild } from "./engine.js";
import { warnOnce } from "./env.js";
import { LetheError, toLetheError } from "./errors.js";
import type { Feeds, InferenceSession } from "./inference_session.js";
import type { WireFeeds } from "./messages.js";
import { madeUp, Model, type Listener, type LoadRequest } from "./model.js";
import { compile, findGpu } from "./modules.js";
import { runOptions, sessionSettings, type Settings } from "./options.js";
import { hasWorker, writeFile } from "./platform.js";
import { chromeTrace, type TimedRun } from "./profile.js";
import { RemoteModel } from "./remote.js";
import { open, type ModelInput } from "./source.js";
import { partsOf, type Tensor } from "./tensor.js";
import type { AnyValue } from "./values.js";
import { disagreement, fromWire, toWire } from "./wire.js";

/** Says of an object that it is a session, whichever copy of the package made it. */
const BRAND = Symbol.for("lethe.session");

/** A model here, in a worker, or of a backend that the program brought. */
type Loaded = Model | RemoteModel;

export class LetheSession implements InferenceSession {
  readonly #model: Loaded;
  readonly #settings: Settings;
  /** The names of all inputs, and of those that a run needs. */
  readonly #known: ReadonlySet<string>;
  readonly #needed: readonly string[];
  #released = false;
  #pending = 0;
  #idle: (() => void) | undefined;
  /** The runs that were measured, while that goes on. */
  #timed: TimedRun[] | undefined;

  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && (value as { [BRAND]?: unknown })[BRAND] === true;
  }

  private constructor(model: Loaded, settings: Settings) {
    this.#model = model;
    this.#settings = settings;
    const { inputs, optionalInputs } = model.description;
    this.#known = new Set([...inputs, ...optionalInputs].map(({ name }) => name));
    this.#needed = inputs.map(({ name }) => name);
    if (settings.profiling) this.#timed = [];
  }

  static async create(model: ModelInput, ...rest: unknown[]): Promise<InferenceSession> {
    try {
      const [input, options] = modelAndOptions(model, rest);
      const settings = sessionSettings(input, options);
      settings.signal?.throwIfAborted();
      return await firstThatWorks(input, settings, (loaded) => new LetheSession(loaded, settings));
    } catch (thrown) {
      throw toLetheError(thrown);
    }
  }

  get [BRAND](): true {
    return true;
  }

  get inputNames(): readonly string[] {
    return this.description.inputs.map((input) => input.name);
  }

  get outputNames(): readonly string[] {
    return this.description.outputs.map((output) => output.name);
  }

  get inputMetadata(): readonly InferenceSession.ValueMetadata[] {
    return this.description.inputs as InferenceSession.ValueMetadata[];
  }

  get outputMetadata(): readonly InferenceSession.ValueMetadata[] {
    return this.description.outputs as InferenceSession.ValueMetadata[];
  }

  get backend(): Backend {
    return this.description.backend;
  }

  get description(): Readonly<Description> {
    return this.#model.description;
  }

  async run(
    feeds: Feeds, second?: InferenceSession.FetchesType | InferenceSession.RunOptions,
    third?: InferenceSession.RunOptions,
  ): Promise<InferenceSession.ReturnType> {
    const { options, names, places } = this.#wanted(second, third);
    if (options.terminate) throw new DOMException("the run was to be terminated", "AbortError");
    const values = await this.#measured(feeds, names, options.signal);
    const wanted = names ?? this.outputNames;
    const entries = wanted.map((name, i): [string, AnyValue] => {
      const value = values[i] as AnyValue;
      const place = places.get(name);
      return [name, place ? putInto(name, place, value) : value];
    });
    return Object.fromEntries(entries) as InferenceSession.ReturnType;
  }

  async placement(feeds: Feeds): Promise<Placement[]> {
    return this.#busy(() => this.#model.placement(this.#wires(feeds)));
  }

  async profile(feeds: Feeds): Promise<StepTime[]> {
    return this.#busy(async () => (await this.#model.run(this.#wires(feeds), undefined, true)).times);
  }

  startProfiling(): void {
    this.#timed ??= [];
  }

  endProfiling(): void {
    const runs = this.#timed;
    this.#timed = undefined;
    if (!runs) return;
    const name = `${this.#settings.profileFilePrefix}${new Date().toISOString().replaceAll(/[:.]/g, "-")}.json`;
    const text = JSON.stringify(chromeTrace(runs));
    writeFile(name, text).then(
      (isWritten) => console.log(isWritten ? `lethe: profile in ${name}` : `lethe: profile ${text}`),
      (thrown: Error) => console.warn(`lethe: ${name}: ${thrown.message}`),
    );
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    if (this.#pending > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.#model.release();
  }

  /** Which outputs are wanted, and the tensors that some are to be put in. */
  #wanted(
    second: InferenceSession.FetchesType | InferenceSession.RunOptions | undefined,
    third: InferenceSession.RunOptions | undefined,
  ) {
    const places = new Map<string, Tensor>();
    if (Array.isArray(second)) {
      const options = runOptions(third);
      return { options, names: names(second), places };
    }
    if (partsOf(second)) {
      throw new LetheError("LETHE-OPTION", "the second argument of run: expected names, outputs by name or options, found a Tensor");
    }
    // As onnxruntime-web tells the two apart: by the name of an output that is there.
    const outputs = this.outputNames;
    const fetches = Object.entries(second ?? {}).filter(
      ([name, value]) => outputs.includes(name) && (value === null || partsOf(value)),
    );
    if (fetches.length === 0) {
      const options = runOptions(second);
      return { options, names: options.outputs && names(options.outputs), places };
    }
    for (const [name, value] of fetches) if (value !== null) places.set(name, value as Tensor);
    return { options: runOptions(third), names: fetches.map(([name]) => name), places };
  }

  async #measured(feeds: Feeds, names: string[] | undefined, signal: AbortSignal | undefined) {
    return this.#busy(async () => {
      signal?.throwIfAborted();
      const wire = this.#wires(feeds);
      const timed = this.#timed;
      const start = performance.now();
      const ran = await this.#model.run(wire, names, timed !== undefined, signal);
      timed?.push({ start, end: performance.now(), steps: ran.times });
      // Without a worker an abort in the last step is noticed only now.
      signal?.throwIfAborted();
      return ran.outputs.map(fromWire);
    }, signal);
  }

  /** Does something that a release waits for. */
  async #busy<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.#released) throw new LetheError("LETHE-RELEASED", "the session was released");
    this.#pending += 1;
    try {
      return await work();
    } catch (thrown) {
      if (signal?.aborted) throw signal.reason;
      throw toLetheError(thrown);
    } finally {
      this.#pending -= 1;
      if (this.#pending === 0) this.#idle?.();
    }
  }

  /** The inputs; onnxruntime in Node passes over what the model does not have, and programs rely on it. */
  #wires(feeds: unknown): WireFeeds {
    const given = toWires(feeds, this.#settings.refuseNaN);
    const names = new Set(given.map(([name]) => name));
    // Where one is missing, the other may be meant for it.
    if (!this.#needed.every((name) => names.has(name))) return given;
    return given.filter(([name]) => {
      const isKnown = this.#known.has(name);
      if (!isKnown) warnOnce("LETHE-INPUT-UNKNOWN", `the model has no input ${JSON.stringify(name)}: it is left out`);
      return isKnown;
    });
  }
}

/** The forms of `create`: onnxruntime-web takes a part of a buffer by its place and length. */
function modelAndOptions(model: ModelInput, rest: unknown[]): [ModelInput, unknown] {
  const [second, third, fourth] = rest;
  if (typeof second !== "number") return [model, second];
  const hasLength = typeof third === "number";
  const options = third === undefined || hasLength ? fourth : third;
  const buffer = model as ArrayBufferLike;
  const total = typeof buffer === "object" ? buffer.byteLength : NaN;
  const length = hasLength ? third : total - second;
  const isWhole = Number.isSafeInteger(second) && Number.isSafeInteger(length);
  if (ArrayBuffer.isView(model) || !isWhole || second < 0 || length <= 0 || second + length > total) {
    throw new LetheError(
      "LETHE-OPTION", `byteOffset, byteLength: expected a part of a buffer of ${total} bytes, found ${second}, ${length}`,
    );
  }
  return [new Uint8Array(buffer, second, length), options];
}

/** Goes through the ways to compute, and gives a session of the first that is to be had. */
async function firstThatWorks(
  model: ModelInput, settings: Settings, session: (loaded: Loaded) => LetheSession,
): Promise<InferenceSession> {
  let refused: unknown;
  for (const candidate of settings.candidates) {
    if ("registered" in candidate) {
      const backend = await registered(candidate.registered);
      const uriOrBuffer = typeof model === "string" ? model : await bytesOfModel(settings);
      const handler = await backend?.createInferenceSessionHandler(uriOrBuffer, settings.given);
      if (handler) return handled(handler);
      continue;
    }
    try {
      return session(await loadOn(candidate.lethe, settings));
    } catch (thrown) {
      if ((thrown as { code?: unknown }).code !== "LETHE-DEVICE") throw thrown;
      refused ??= thrown;
    }
  }
  throw refused ?? new LetheError("LETHE-DEVICE", "no backend is to be had");
}

async function loadOn(where: "auto" | Backend, settings: Settings): Promise<Loaded> {
  if (where === "wasm") return load("wasm", settings);
  const gpu = await findGpu();
  if (where === "webgpu") {
    if (gpu !== "none") return verified(await load("webgpu", settings), settings);
    throw new LetheError("LETHE-DEVICE", "device webgpu: this platform offers no graphics adapter");
  }
  // An adapter in software would be slower than WebAssembly.
  if (gpu !== "hardware") return load("wasm", settings);
  try {
    return await verified(await load("webgpu", settings), settings);
  } catch (thrown) {
    if ((thrown as { code?: unknown }).code !== "LETHE-DEVICE") throw thrown;
    return load("wasm", settings);
  }
}

async function load(backend: Backend, settings: Settings): Promise<Loaded> {
  const { signal, onProgress } = settings;
  const request = await loadRequest(settings, backend);
  signal?.throwIfAborted();
  const listener: Listener = {
    progress: (progress) => onProgress?.(progress),
    warning: ({ code, message }) => warnOnce(code, message),
  };
  // A form of the package without a worker has the model here, as where none is wanted.
  const door = settings.worker && hasWorker() ? RemoteModel : Model;
  return door.load(request, listener, signal);
}

async function loadRequest(settings: Settings, backend: Backend): Promise<LoadRequest> {
  const { source, files, numerics, rewrite, freeDimensions, sha256, cache } = settings;
  const build: Build = backend === "webgpu" ? "webgpu" : settings.build === "auto" ? bestBuild() : settings.build;
  const warmup = typeof settings.warmup === "boolean" ? settings.warmup : toWires(settings.warmup, false);
  return {
    build, module: await compile(build), source, files, backend, numerics, rewrite, freeDimensions, sha256,
    cache, warmup,
  };
}

/** With the option `verify`: the model on the CPU, where its first answer is another than the GPU's. */
async function verified(onGpu: Loaded, settings: Settings): Promise<Loaded> {
  if (!settings.verify) return onGpu;
  const onCpu = await load("wasm", settings);
  const feeds = typeof settings.warmup === "object"
    ? toWires(settings.warmup, false)
    : madeUp(onCpu.description.inputs);
  try {
    const expected = (await onCpu.run(feeds, undefined, false)).outputs;
    let difference: string | undefined;
    try {
      difference = disagreement((await onGpu.run(feeds, undefined, false)).outputs, expected);
    } catch (thrown) {
      difference = (thrown as Error).message;
    }
    if (difference === undefined) {
      onCpu.release();
      return onGpu;
    }
    warnOnce("LETHE-VERIFY", `webgpu answers otherwise than the CPU, which is taken: ${difference}`);
    onGpu.release();
    return onCpu;
  } catch (thrown) {
    // The CPU cannot say: these inputs are none that the model takes.
    warnOnce("LETHE-VERIFY", `not verified, give inputs by the option warmup: ${(thrown as Error).message}`);
    onCpu.release();
    return onGpu;
  }
}

function toWires(feeds: unknown, refuseNaN: boolean): WireFeeds {
  if (typeof feeds !== "object" || feeds === null || Array.isArray(feeds) || partsOf(feeds)) {
    const found = feeds === null ? "null" : Array.isArray(feeds) ? "a list" : typeof feeds;
    throw new LetheError("LETHE-INPUT-TYPE", `inputs: expected an object of tensors by name, found ${found}`);
  }
  return Object.entries(feeds).map(([name, value]) => [name, toWire(name, value, refuseNaN)]);
}

/** Names of outputs, each once. */
function names(given: readonly unknown[]): string[] {
  if (given.length === 0) throw new LetheError("LETHE-OPTION", "outputs: expected names, found an empty list");
  for (const name of given) {
    if (typeof name !== "string") throw new LetheError("LETHE-OPTION", `outputs: expected names, found ${typeof name}`);
  }
  return [...(given as string[])];
}

/** Puts an output into a tensor that the caller has for it. */
function putInto(name: string, place: Tensor, value: AnyValue): Tensor {
  const [there, made] = [partsOf(place), partsOf(value)];
  const fits = there && made && there.type === made.type && String(there.dims) === String(made.dims);
  if (!fits) {
    const found = made ? `${made.type} [${made.dims.join(", ")}]` : "no tensor";
    throw new LetheError(
      "LETHE-OUTPUT-SHAPE",
      `output ${JSON.stringify(name)}: the tensor given for it is ${there?.type} [${there?.dims.join(", ")}], the output ${found}`,
    );
  }
  if (Array.isArray(there.data)) (there.data as string[]).splice(0, Infinity, ...(made.data as string[]));
  else (there.data as Uint8Array).set(made.data as Uint8Array);
  return place;
}

/** A session of a backend that the program brought, which has not all that Lethe's have. */
function handled(handler: InferenceSessionHandler): InferenceSession {
  const none = (): never => {
    throw new LetheError("LETHE-UNSUPPORTED", "a backend that the program registered does not tell that");
  };
  return {
    inputNames: handler.inputNames,
    outputNames: handler.outputNames,
    inputMetadata: handler.inputMetadata,
    outputMetadata: handler.outputMetadata,
    startProfiling: () => handler.startProfiling(),
    endProfiling: () => handler.endProfiling(),
    release: () => handler.dispose(),
    run: async (feeds: Feeds, second?: unknown, third?: InferenceSession.RunOptions) => {
      const isNames = Array.isArray(second);
      const wanted: readonly string[] = isNames ? second : handler.outputNames;
      const options = (isNames ? third : second) as InferenceSession.RunOptions | undefined;
      const fetches = Object.fromEntries(wanted.map((name) => [name, null]));
      return handler.run(feeds as Record<string, Tensor>, fetches, options ?? {});
    },
    placement: async () => none(),
    profile: async () => none(),
    get backend() {
      return none();
    },
    get description() {
      return none();
    },
  };
}

async function bytesOfModel({ source, signal }: Settings): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const piece of (await open(source, signal)).pieces) parts.push(piece);
  return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
}
