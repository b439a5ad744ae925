/** Backends that a program brings itself: onnxruntime-common's interface for them. */

import { LetheError } from "./errors.js";
import type { InferenceSession } from "./inference_session.js";
import type { OnnxValue } from "./values.js";

export declare namespace SessionHandler {
  type FeedsType = { [name: string]: OnnxValue };
  type FetchesType = { [name: string]: OnnxValue | null };
  type ReturnType = { [name: string]: OnnxValue };
}

interface SessionHandler {
  dispose(): Promise<void>;
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
}

/** A session of such a backend. */
export interface InferenceSessionHandler extends SessionHandler {
  startProfiling(): void;
  endProfiling(): void;
  run(
    feeds: SessionHandler.FeedsType, fetches: SessionHandler.FetchesType, options: InferenceSession.RunOptions,
  ): Promise<SessionHandler.ReturnType>;
}

/** What makes sessions in a program's own way. */
export interface Backend {
  init(backendName: string): Promise<void>;
  createInferenceSessionHandler(
    uriOrBuffer: string | Uint8Array, options?: InferenceSession.SessionOptions,
  ): Promise<InferenceSessionHandler>;
}

interface Registered {
  backend: Backend;
  priority: number;
  ready?: Promise<void>;
}

const backends = new Map<string, Registered>();

/**
 * Makes a backend known under a name, by which `executionProviders` then finds it. One that has the name
 * already stays where its `priority` is higher.
 */
export const registerBackend = (name: string, backend: Backend, priority: number): void => {
  const isBackend =
    typeof backend?.init === "function" && typeof backend?.createInferenceSessionHandler === "function";
  if (typeof name !== "string" || !isBackend || typeof priority !== "number") {
    throw new LetheError("LETHE-OPTION", "registerBackend: expected a name, a backend and a priority");
  }
  const there = backends.get(name);
  if (there && there.backend !== backend && there.priority === priority) {
    throw new LetheError("LETHE-OPTION", `registerBackend: there is a backend ${name} of priority ${priority}`);
  }
  if (!there || there.priority <= priority) backends.set(name, { backend, priority });
};

/** The backend of a name, ready to be used; `undefined` where none has it. */
export async function registered(name: string): Promise<Backend | undefined> {
  const found = backends.get(name);
  if (!found) return undefined;
  found.ready ??= found.backend.init(name);
  await found.ready;
  return found.backend;
}

/** Whether a backend has this name. */
export const isRegistered = (name: string): boolean => backends.has(name);

/** onnxruntime-common's marks in the browser's profiler; they do nothing here. */
export const TRACE = (_deviceType: string, _label: string): void => {};
export const TRACE_FUNC_BEGIN = (_extraMsg?: string): void => {};
export const TRACE_FUNC_END = (_extraMsg?: string): void => {};
export const TRACE_EVENT_BEGIN = (_extraMsg?: string): void => {};
export const TRACE_EVENT_END = (_extraMsg?: string): void => {};
