/**
 * What differs between browsers and Node: workers and files. Node's modules are named at run time
 * only, so that bundlers leave them alone.
 */

import { LetheError } from "./errors.js";

/** Whether this is Node (or runs as if it were): a page of Electron, which has both, is a page. */
export const isNode =
  typeof process === "object" && typeof process.versions?.node === "string" && typeof document === "undefined";

/** One of Node's modules. Those that have no `getBuiltinModule` load it in the slow way. */
async function nodeModule<T>(name: string): Promise<T> {
  const builtin = (process as { getBuiltinModule?: (name: string) => unknown }).getBuiltinModule;
  return (builtin?.(`node:${name}`) ??
    (await import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`))) as T;
}

/** Whether this is a page's own thread, or Node's main one. */
export function isMainThread(): boolean {
  if (isNode) {
    const builtin = (process as { getBuiltinModule?: (name: string) => unknown }).getBuiltinModule;
    const threads = builtin?.("node:worker_threads") as { isMainThread?: boolean } | undefined;
    return threads?.isMainThread ?? true;
  }
  return typeof document !== "undefined" && typeof Worker === "function";
}

/** A worker, as far as both platforms agree. */
export interface WorkerHandle {
  post(message: unknown): void;
  terminate(): void;
  /** Whether it keeps Node's process alive. */
  keepAlive(busy: boolean): void;
}

let script: (() => URL) | undefined;

/** Says where `worker.js` is; a form of the package that has none does not. */
export function supplyWorker(where: () => URL): void {
  script = where;
}

/** Whether this form of the package has a worker. */
export const hasWorker = (): boolean => script !== undefined;

/**
 * Starts `worker.js` and hands its messages to `receive`, and its death to `fail`. Once it has been
 * terminated it says nothing more: its end comes late, when another may have taken its place.
 *
 * @throws {LetheError} `LETHE-WORKER` where it cannot be started.
 */
export async function startWorker(
  receive: (message: unknown) => void,
  fail: (reason: string) => void,
): Promise<WorkerHandle> {
  if (!script) throw new LetheError("LETHE-WORKER", "this form of the package has no worker: take worker: false");
  const url = script();
  let over = false;
  const hear = (message: unknown) => void (over || receive(message));
  const die = (reason: string) => void (over || fail(reason));
  if (isNode) {
    const { Worker } = await nodeModule<typeof import("node:worker_threads")>("worker_threads");
    // Options of the program's own, such as how its text is read, are not the worker's.
    const worker = new Worker(url, { execArgv: [] });
    worker.on("message", hear);
    worker.on("error", (error) => die(String(error)));
    worker.on("exit", () => die("the worker ended"));
    return {
      post: (message) => worker.postMessage(message),
      terminate: () => {
        over = true;
        void worker.terminate();
      },
      keepAlive: (busy) => (busy ? worker.ref() : worker.unref()),
    };
  }
  let worker: Worker;
  try {
    worker = new Worker(url, { type: "module", name: "lethe" });
  } catch (thrown) {
    throw notStarted(url, (thrown as Error).message);
  }
  worker.onmessage = (event) => hear(event.data);
  worker.onerror = (event) => {
    event.preventDefault();
    die(event.message || notStarted(url, "").message);
  };
  return {
    post: (message) => worker.postMessage(message),
    terminate: () => {
      over = true;
      worker.terminate();
    },
    keepAlive: () => {},
  };
}

/** A worker that does not start, with what to do. */
export function notStarted(url: URL | string | undefined, reason: string): LetheError {
  const remedy = isNode
    ? "take worker: false"
    : "it must be served from the page's own origin, and the content security policy must allow it " +
      "(worker-src 'self'); or take worker: false";
  return new LetheError(
    "LETHE-WORKER", `the worker ${url ?? "worker.js"} does not start${reason && `: ${reason}`}; ${remedy}`,
  );
}

/** Where the worker is, for errors. */
export const workerAddress = (): URL | undefined => script?.();

/** The worker's own end: hands each message to `receive`, and gives the function that answers. */
export function workerPort(
  receive: (message: unknown) => void,
): (message: unknown, transfer: ArrayBuffer[]) => void {
  if (isNode) {
    const port = nodeModule<typeof import("node:worker_threads")>("worker_threads").then(({ parentPort }) => {
      if (!parentPort) throw new Error("worker.js runs in a worker only");
      parentPort.on("message", receive);
      return parentPort;
    });
    return (message, transfer) => void port.then((port) => port.postMessage(message, transfer));
  }
  // At once: a message that comes before there is a listener is lost.
  const scope = globalThis as unknown as DedicatedWorkerGlobalScopeLike;
  scope.onmessage = (event) => receive(event.data);
  return (message, transfer) => scope.postMessage(message, transfer);
}

/** The part of the worker's global scope that is used; TypeScript's `dom` library has none. */
interface DedicatedWorkerGlobalScopeLike {
  onmessage: (event: MessageEvent) => void;
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
}

/** `fetch`, and files in Node. */
export async function fetchUrl(url: string, signal?: AbortSignal): Promise<Response> {
  if (isNode && url.startsWith("file:")) {
    const fs = await nodeModule<typeof import("node:fs")>("fs");
    const blob = await fs.openAsBlob(new URL(url));
    const headers = { "content-length": String(blob.size) };
    return new Response(blob.stream() as unknown as ReadableStream, { headers });
  }
  return fetch(url, signal ? { signal } : {});
}

/** An absolute address: relative to the page, in Node to the working directory. */
export function absoluteUrl(address: string | URL): string {
  if (address instanceof URL) return address.href;
  if (isNode) {
    // A path is no address: a letter and a colon may be a disk, and # and % are letters like others.
    if (/^[a-z][a-z0-9+.-]+:/i.test(address)) return address;
    const { pathToFileURL } = (process as unknown as NodeProcess).getBuiltinModule?.("node:url") ?? {};
    return pathToFileURL ? pathToFileURL(address).href : new URL(address, `file://${process.cwd()}/`).href;
  }
  if (URL.canParse(address)) return address;
  return new URL(address, typeof document === "undefined" ? location.href : document.baseURI).href;
}

interface NodeProcess {
  getBuiltinModule?: (name: "node:url") => { pathToFileURL(path: string): URL } | undefined;
}

/** Writes a file, in Node; says whether it could be. */
export async function writeFile(name: string, text: string): Promise<boolean> {
  if (!isNode) return false;
  const fs = await nodeModule<typeof import("node:fs")>("fs");
  await fs.promises.writeFile(name, text);
  return true;
}

/** Lets whatever waits for this thread have it. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (isNode) return void setImmediate(resolve);
    // Not a timer: those wait for milliseconds when they follow each other.
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
