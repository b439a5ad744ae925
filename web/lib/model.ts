/** A model loaded in this thread: what a worker holds, or a session without one. */

import type { DecodedModel, ExternalFiles, ModelBytes, Session, Value, ValueDescription as EngineValue } from "../glue/lethe.js";
import { alone, forget, hashOf, keep, kept } from "./cache.js";
import type {
  Backend, Build, Description, Numerics, Placement, Progress, StepTime, ValueDescription,
} from "./description.js";
import { entriesOf, typeOfCode, zeros } from "./element_types.js";
import { instantiate, type Engine } from "./engine.js";
import { LetheError, toRecord, type ErrorRecord } from "./errors.js";
import { foreign } from "./foreign.js";
import type { Ran, WireFeeds } from "./messages.js";
import { nextTurn } from "./platform.js";
import { open, type Download, type FileSource, type Source } from "./source.js";
import { fromEngine, toEngine, type WireValue } from "./wire.js";

/** All that loading needs, in a form that a worker can be sent. */
export interface LoadRequest {
  build: Build;
  module: WebAssembly.Module;
  source: Source;
  files: FileSource[];
  backend: Backend;
  numerics: Numerics;
  rewrite: boolean;
  freeDimensions: Record<string, number>;
  sha256: string | undefined;
  cache: boolean;
  /** Inputs of a first run; `true` for zeros. */
  warmup: boolean | WireFeeds;
}

/** Whom loading tells how it goes. */
export interface Listener {
  progress(progress: Progress): void;
  warning(warning: ErrorRecord): void;
}

/** The least time between two reports of one phase, in milliseconds. */
const PAUSE = 100;

/** A loaded model in this thread. */
export class Model {
  private constructor(
    readonly description: Description,
    private readonly engine: Engine,
    private session: Session | undefined,
  ) {}

  /** Downloads and prepares a model. */
  static async load(request: LoadRequest, listener: Listener, signal?: AbortSignal): Promise<Model> {
    const loader = new Loader(await instantiate(request.build, request.module), listener, signal);
    try {
      return await Model.#loaded(request, loader, listener, signal);
    } finally {
      loader.hush();
    }
  }

  static async #loaded(
    request: LoadRequest, loader: Loader, listener: Listener, signal: AbortSignal | undefined,
  ): Promise<Model> {
    const { engine } = loader;
    // Takes the bytes with it, whether it succeeds or not.
    const decoded = (await loader.model(request)).decode();
    let files: ExternalFiles;
    try {
      files = await loader.files(decoded, request);
      loader.report("prepare");
      signal?.throwIfAborted();
    } catch (thrown) {
      decoded.free();
      throw thrown;
    }
    const free = Object.entries(request.freeDimensions);
    // The engine takes model and files with it, whether it succeeds or not.
    const session = await engine.Session.load(
      decoded, files, request.backend, request.numerics, request.rewrite,
      free.map(([name]) => name), Float64Array.from(free, ([, size]) => size),
    );
    const model = new Model(describe(session, engine, request.backend, loader.loaded), engine, session);
    try {
      if (request.warmup !== false) {
        loader.report("warmup");
        await model.#warmUp(request.warmup, listener, signal);
      }
      signal?.throwIfAborted();
    } catch (thrown) {
      model.release();
      throw thrown;
    }
    loader.report("ready");
    return model;
  }

  /**
   * Runs the model; outputs in the order of `wanted`, or of the model. With a signal, the thread has its
   * turn now and then between two steps, so that somebody can abort.
   */
  async run(
    feeds: WireFeeds, wanted: string[] | undefined, timed: boolean, signal?: AbortSignal,
  ): Promise<Ran> {
    const session = this.#alive();
    const [names, values] = this.#inputs(feeds);
    if (!timed) {
      const outputs = await session.run(names, values, wanted, signal && pauses(signal));
      return this.#ran(outputs, []);
    }
    const ran = session.runTimed(names, values, wanted, () => performance.now());
    const [nodes, operators, ms, outputs] = [ran.nodes, ran.operators, ran.ms, ran.takeOutputs()];
    ran.free();
    const times = nodes.map((node, i) => ({ node, operator: operators[i] ?? "", ms: ms[i] ?? 0 }));
    return this.#ran(outputs, times);
  }

  #ran(outputs: Value[], times: StepTime[]): Ran {
    const memoryBytes = this.engine.memoryBytes();
    this.description.memoryBytes = memoryBytes;
    return { outputs: outputs.map(fromEngine), times, memoryBytes };
  }

  /** Where each step that runs on data would run for such inputs. */
  async placement(feeds: WireFeeds): Promise<Placement[]> {
    return this.#alive().placement(...this.#inputs(feeds)).map((step) => {
      const { node, operator, device, reason } = step;
      step.free();
      return { node, operator, device: device as Placement["device"], reason };
    });
  }

  /** Overwrites what runs left in memory, and lets go of the engine with all its memory. */
  release(): void {
    this.session?.wipe();
    this.session?.free();
    this.session = undefined;
  }

  /** A first run, whose failure is no error: the sizes may have been none that the model takes. */
  async #warmUp(inputs: true | WireFeeds, listener: Listener, signal?: AbortSignal): Promise<void> {
    try {
      await this.run(inputs === true ? madeUp(this.description.inputs) : inputs, undefined, false, signal);
    } catch (thrown) {
      signal?.throwIfAborted();
      const { code, message } = toRecord(thrown);
      if (code === "LETHE-CRASHED") throw thrown;
      listener.warning({ code, message: `the warm-up did not run, give it inputs: ${message}` });
    }
  }

  #alive(): Session {
    if (this.session) return this.session;
    throw new LetheError("LETHE-RELEASED", "the session was released");
  }

  #inputs(feeds: WireFeeds): [string[], Value[]] {
    return [feeds.map(([name]) => name), feeds.map(([, wire]) => toEngine(this.engine, wire))];
  }
}

/** A model on its way into the engine's memory. */
class Loader {
  /** Bytes of the model and of the files beside it. */
  loaded = 0;
  #total: number | undefined = 0;
  #reported = 0;
  #phase: Progress["phase"] | undefined;
  /** A report that is due. */
  #late: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly engine: Engine,
    private readonly listener: Listener,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** Tells of a phase: when it begins and ends, and now and then while it goes on. */
  report(phase: Progress["phase"]): void {
    const since = performance.now() - this.#reported;
    if (phase === this.#phase && since < PAUSE) {
      this.#late ??= setTimeout(() => this.#tell(), PAUSE - since);
      return;
    }
    if (phase !== this.#phase && this.#late !== undefined) this.#tell();
    this.#phase = phase;
    this.#tell();
  }

  #tell(): void {
    clearTimeout(this.#late);
    this.#late = undefined;
    if (!this.#phase) return;
    this.#reported = performance.now();
    const total = this.#phase === "download" ? this.#total : this.loaded;
    this.listener.progress({ phase: this.#phase, loaded: this.loaded, total });
  }

  /** Says nothing any more. */
  hush(): void {
    clearTimeout(this.#late);
  }

  /** The model's own file. */
  async model({ source, sha256, cache }: LoadRequest): Promise<ModelBytes> {
    if (!sha256) return this.#read(await open(source, this.signal), true);
    if (!cache) return (await this.#verified(await open(source, this.signal), sha256)).bytes;
    return alone(sha256, this.signal, async () => {
      const there = await kept(sha256);
      if (there) {
        try {
          return (await this.#verified(there, sha256)).bytes;
        } catch (thrown) {
          if (!(thrown instanceof LetheError)) throw thrown;
          // Somebody changed it, or it was cut: the address has it.
          await forget(sha256);
          this.loaded = 0;
          this.#total = 0;
        }
      }
      const { bytes, copy } = await this.#verified(await open(source, this.signal), sha256);
      await keep(sha256, copy);
      return bytes;
    });
  }

  async #verified(download: Download, sha256: string) {
    const bytes = await this.#read(download, true);
    try {
      const copy = bytes.copy() as Uint8Array<ArrayBuffer>;
      const found = await hashOf(copy);
      if (found !== sha256) {
        throw new LetheError("LETHE-MODEL-HASH", `expected a model with sha256 ${sha256}, found ${found}`);
      }
      return { bytes, copy };
    } catch (thrown) {
      bytes.free();
      throw thrown;
    }
  }

  /** The files beside the model: those given, and by their names those beside its address. */
  async files(model: DecodedModel, { source, files }: LoadRequest): Promise<ExternalFiles> {
    const all = new this.engine.ExternalFiles();
    for (const name of model.externalLocations()) {
      const given = files.find(({ path }) => isNamed(path, name));
      const from = given?.source ?? beside(source, name);
      if (!from) {
        throw new LetheError(
          "LETHE-MODEL-EXTERNAL-DATA", `the model has weights in the file ${JSON.stringify(name)}: give it as externalData`,
        );
      }
      all.add(name, await this.#read(await open(from, this.signal), false));
    }
    return all;
  }

  async #read({ pieces, length }: Download, isModel: boolean): Promise<ModelBytes> {
    this.#total = length === undefined || this.#total === undefined ? undefined : this.#total + length;
    const bytes = new this.engine.ModelBytes(length ?? 0);
    const start = this.loaded;
    try {
      this.report("download");
      for await (const piece of pieces) {
        this.signal?.throwIfAborted();
        const what = isModel && this.loaded === start && piece.length > 0 ? foreign(piece) : undefined;
        if (what) throw new LetheError("LETHE-MODEL-MALFORMED", `expected an ONNX model, found ${what}`);
        bytes.push(piece);
        this.loaded += piece.length;
        this.report("download");
      }
      this.signal?.throwIfAborted();
      return bytes;
    } catch (thrown) {
      bytes.free();
      throw thrown;
    }
  }
}

/** How long a run goes on without a pause, in milliseconds: as long as a picture of the page stands. */
const TURN = 16;

/** Between two steps: nothing, or a promise of going on, which an abort breaks. */
function pauses(signal: AbortSignal): () => Promise<void> | undefined {
  let since = performance.now();
  return () => {
    if (performance.now() - since < TURN) return undefined;
    return nextTurn().then(() => {
      since = performance.now();
      signal.throwIfAborted();
    });
  };
}

/** Whether a file that was given is the one that a model means: a name, or an address that ends in it. */
function isNamed(path: string, name: string): boolean {
  const plain = path.replace(/^(\.\/)+/, "").replace(/[?#].*$/, "");
  return plain === name.replace(/^(\.\/)+/, "") || plain.endsWith(`/${name}`);
}

/** The file of a name in the folder of a model that has an address. */
function beside(source: Source, name: string): Source | undefined {
  if (!("url" in source) || !/^(https?|file):/.test(source.url)) return undefined;
  const parts = name.replace(/^(\.\/)+/, "").split("/");
  // A model is somebody else's: it names no file outside of its folder.
  if (parts.some((part) => ["", ".", ".."].includes(part))) return undefined;
  const url = new URL(parts.map(encodeURIComponent).join("/"), source.url);
  // The page's own right to an address may hang on its query.
  url.search = new URL(source.url).search;
  return { url: url.href };
}

/** The most elements of an input that is made up: a model may declare any size. */
const MOST_MADE_UP = 1 << 26;

/** Zeros for inputs, where an axis that may have any size has one element. */
export function madeUp(inputs: readonly ValueDescription[]): WireFeeds {
  return inputs.map((input): [string, WireValue] => {
    if (!input.isTensor) return [input.name, { list: [] }];
    const dims = input.shape.map((size) => (typeof size === "number" ? size : 1));
    const entries = entriesOf(input.type, dims.reduce((product, dim) => product * dim, 1));
    if (!(entries <= MOST_MADE_UP)) {
      throw new LetheError("LETHE-BUDGET", `input ${JSON.stringify(input.name)}: ${entries} elements are not made up`);
    }
    return [input.name, { type: input.type, dims, data: zeros(input.type, entries) }];
  });
}

function describe(session: Session, engine: Engine, backend: Backend, fileBytes: number): Description {
  return {
    backend,
    inputs: session.inputs.map(value),
    optionalInputs: session.optionalInputs.map(value),
    outputs: session.outputs.map(value),
    producer: session.producer,
    properties: Object.fromEntries(pairs(session.properties)),
    opsets: counts(session.opsets),
    operators: counts(session.operators),
    fileBytes,
    weightBytes: session.weightBytes,
    memoryBytes: engine.memoryBytes(),
  };
}

function value(engine: EngineValue): ValueDescription {
  const { name, dataType, dims } = engine;
  engine.free();
  if (dataType === 0) return { name, isTensor: false };
  const shape = (dims as (number | string | undefined)[]).map((dim) => dim ?? "");
  return { name, isTensor: true, type: typeOfCode(dataType), shape };
}

/** A list of names and values in turn as pairs. */
function pairs(flat: string[]): [string, string][] {
  return flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1] ?? ""] as [string, string]] : []));
}

/** Lines of a name and a number as an object. */
function counts(lines: string[]): Record<string, number> {
  return Object.fromEntries(
    lines.map((line) => {
      const space = line.lastIndexOf(" ");
      return [line.slice(0, space), Number(line.slice(space + 1))];
    }),
  );
}
