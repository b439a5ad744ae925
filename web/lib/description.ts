/** What is said of a model and of its loading and running. */

import type { TensorType } from "./element_types.js";

/** Where a session computes. */
export type Backend = "wasm" | "webgpu";

/** How results are defined; see the option `numerics`. */
export type Numerics = "fast" | "reproducible";

/** A build of the engine: for the CPU with or without relaxed SIMD, or with WebGPU. */
export type Build = "simd128" | "relaxed" | "webgpu";

/** How far loading is. */
export interface Progress {
  /**
   * `download`: bytes come in; `prepare`: the model is being optimised; `warmup`: it runs for the
   * first time, where that is asked for; `ready`: it can be run.
   */
  phase: "download" | "prepare" | "warmup" | "ready";
  /** Bytes of the model and of the files beside it so far. */
  loaded: number;
  /** Bytes of all of them; `undefined` where a server did not say. */
  total: number | undefined;
}

/** Name, type and shape of an input or output. */
export type ValueDescription =
  | {
      readonly name: string;
      readonly isTensor: true;
      readonly type: TensorType;
      /** Sizes of the axes: a number, a name, or an empty name where anything goes. */
      readonly shape: readonly (number | string)[];
    }
  | { readonly name: string; readonly isTensor: false };

/** What there is to know of a loaded model. */
export interface Description {
  backend: Backend;
  /** Those that a run needs. */
  inputs: ValueDescription[];
  /** Those that have defaults in the model. */
  optionalInputs: ValueDescription[];
  outputs: ValueDescription[];
  /** The tool that wrote the file, with its version. */
  producer: string;
  /** What the file says of itself beyond that: `metadata_props`. */
  properties: Record<string, string>;
  /** Opset versions by domain. */
  opsets: Record<string, number>;
  /** How often each operator runs, after optimisation; those of subgraphs are not counted. */
  operators: Record<string, number>;
  /** Bytes of the model's file and of those beside it. */
  fileBytes: number;
  /** Bytes of the weights that the model runs with. */
  weightBytes: number;
  /** Bytes of WebAssembly's memory, after loading or the latest run: it grows only. */
  memoryBytes: number;
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

/** The time that a step of the plan took. */
export interface StepTime {
  /** The node's name. */
  node: string;
  /** The operator's type, such as `Conv`. */
  operator: string;
  /** How long it ran, in milliseconds, in all its rounds where it is in a loop. */
  ms: number;
}
