/** A model loaded in this thread: what a worker holds, or a session without one. */

import { openCached, store, verify } from "./cache.js";
import { instantiate, type Build, type Engine } from "./engine.js";
import type { Session, Value, ValueDescription } from "./simd128/lethe.js";
import type { Source } from "./source.js";
import { typeOfCode, type TensorType } from "./tensor.js";
import { fromEngine, toEngine, type WireValue } from "./wire.js";

/** Where a session computes. */
export type Backend = "wasm" | "webgpu";

/** How results are defined; see the option `numerics`. */
export type Numerics = "fast" | "reproducible";

/** How far loading is. */
export interface Progress {
  /** `download`: bytes come in; `prepare`: the model is being optimised; `ready`: it can be run. */
  phase: "download" | "prepare" | "ready";
  /** Bytes of the model so far. */
  loaded: number;
  /** Bytes of the model; `undefined` where the server did not say. */
  total: number | undefined;
}

/** All that loading needs, in a form that a worker can be sent. */
export interface LoadRequest {
  build: Build;
  module: WebAssembly.Module;
  source: Source;
  backend: Backend;
  numerics: Numerics;
  sha256: string | undefined;
  cache: boolean;
}

/** Name, type and shape of an input or output. */
export type ValueMetadata =
  | {
      readonly name: string;
      readonly isTensor: true;
      readonly type: TensorType;
      /** Sizes of the axes: a number, a name, or `undefined` where anything goes. */
      readonly shape: readonly (number | string | undefined)[];
    }
  | { readonly name: string; readonly isTensor: false };

/** What there is to know of a loaded model. */
export interface Description {
  backend: Backend;
  inputs: ValueMetadata[];
  outputs: ValueMetadata[];
  /** The tool that wrote the file, with its version. */
  producer: string;
  /** Opset versions by domain. */
  opsets: Record<string, number>;
  /** How often each operator runs, after optimisation; those of subgraphs are not counted. */
  operators: Record<string, number>;
  /** Bytes of the file. */
  fileBytes: number;
  /** Bytes of the weights that the model runs with. */
  weightBytes: number;
}

/** Where a step of the plan runs. */
export interface Placement {
  /** The node's name. */
  node: string;
  /** The operator's type, such as `Conv`. */
  operator: string;
  device: "cpu" | "webgpu";
  /** Why it runs on the CPU, where another device was asked for. */
  reason: string | undefined;
}

/** A loaded model in this thread. */
export class Model {
  private constructor(
    readonly description: Description,
    private readonly engine: Engine,
    private readonly session: Session,
  ) {}

  /** Downloads and prepares a model. */
  static async load(
    request: LoadRequest,
    onProgress: (progress: Progress) => void,
    signal?: AbortSignal,
  ): Promise<Model> {
    const engine = await instantiate(request.build, request.module);
    const { download, store: keep } = await openCached(
      request.source, request.sha256, request.cache, signal,
    );
    const total = download.length;
    const bytes = new engine.ModelBytes(total ?? 0);
    let loaded = 0;
    try {
      onProgress({ phase: "download", loaded, total });
      const reader = download.stream.getReader();
      for (;;) {
        signal?.throwIfAborted();
        const { done, value } = await reader.read();
        if (done) break;
        bytes.push(value);
        loaded += value.length;
        onProgress({ phase: "download", loaded, total });
      }
      if (request.sha256) {
        const copy = bytes.copy() as Uint8Array<ArrayBuffer>;
        await verify(copy, request.sha256);
        if (keep) await store(request.sha256, copy);
      }
      onProgress({ phase: "prepare", loaded, total: loaded });
      signal?.throwIfAborted();
    } catch (thrown) {
      bytes.free();
      throw thrown;
    }
    // The engine takes the bytes with it, whether it succeeds or not.
    const session = await engine.Session.load(bytes, request.backend, request.numerics);
    onProgress({ phase: "ready", loaded, total: loaded });
    return new Model(describe(session, request.backend, loaded), engine, session);
  }

  /** Runs the model; outputs in the order of `wanted`, or of the model. */
  async run(feeds: [string, WireValue][], wanted: string[] | undefined): Promise<WireValue[]> {
    return (await this.session.run(...this.#inputs(feeds), wanted)).map(fromEngine);
  }

  /** Where each step that runs on data would run for such inputs. */
  async placement(feeds: [string, WireValue][]): Promise<Placement[]> {
    return this.session.placement(...this.#inputs(feeds)).map((step) => {
      const { node, operator, device, reason } = step;
      step.free();
      return { node, operator, device: device as Placement["device"], reason };
    });
  }

  /** Overwrites what runs left in memory, and frees the model. */
  release(): void {
    this.session.wipe();
    this.session.free();
  }

  #inputs(feeds: [string, WireValue][]): [string[], Value[]] {
    return [feeds.map(([name]) => name), feeds.map(([, wire]) => toEngine(this.engine, wire))];
  }
}

function describe(session: Session, backend: Backend, fileBytes: number): Description {
  return {
    backend,
    inputs: session.inputs.map(metadata),
    outputs: session.outputs.map(metadata),
    producer: session.producer,
    opsets: counts(session.opsets),
    operators: counts(session.operators),
    fileBytes,
    weightBytes: session.weightBytes,
  };
}

function metadata(value: ValueDescription): ValueMetadata {
  const { name, dataType, dims } = value;
  value.free();
  return dataType === 0
    ? { name, isTensor: false }
    : { name, isTensor: true, type: typeOfCode(dataType), shape: dims };
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
