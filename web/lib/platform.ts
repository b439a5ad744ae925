/**
 * What differs between browsers and Node: workers and files. Node's modules are named at run time
 * only, so that bundlers leave them alone.
 */

/** Whether this is Node (or runs as if it were). */
export const isNode = typeof process === "object" && typeof process.versions?.node === "string";

const nodeModule = (name: string): Promise<unknown> =>
  import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`);

/** A worker, as far as both platforms agree. */
export interface WorkerHandle {
  post(message: unknown): void;
  terminate(): void;
  /** Whether it keeps Node's process alive. */
  keepAlive(busy: boolean): void;
}

/**
 * Starts `worker.js` and hands its messages to `receive`, and its death to `fail`. Once it has been
 * terminated it says nothing more: its end comes late, when another may have taken its place.
 */
export async function startWorker(
  receive: (message: unknown) => void,
  fail: (reason: string) => void,
): Promise<WorkerHandle> {
  let over = false;
  const hear = (message: unknown) => void (over || receive(message));
  const die = (reason: string) => void (over || fail(reason));
  if (isNode) {
    const { Worker } = (await nodeModule("worker_threads")) as typeof import("node:worker_threads");
    const worker = new Worker(new URL("./worker.js", import.meta.url));
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
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "lethe" });
  worker.onmessage = (event) => hear(event.data);
  worker.onerror = (event) => {
    event.preventDefault();
    die(event.message || "the worker could not be started");
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

/** The worker's own end: hands each message to `receive`, and gives the function that answers. */
export async function workerPort(
  receive: (message: unknown) => void,
): Promise<(message: unknown, transfer: ArrayBuffer[]) => void> {
  if (isNode) {
    const { parentPort } = (await nodeModule("worker_threads")) as typeof import("node:worker_threads");
    if (!parentPort) throw new Error("worker.js runs in a worker only");
    parentPort.on("message", receive);
    return (message, transfer) => parentPort.postMessage(message, transfer);
  }
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
    const fs = (await nodeModule("fs")) as typeof import("node:fs");
    const blob = await fs.openAsBlob(new URL(url));
    const headers = { "content-length": String(blob.size) };
    return new Response(blob.stream() as unknown as ReadableStream, { headers });
  }
  return fetch(url, signal ? { signal } : {});
}

/** An absolute address: relative to the page, in Node to the working directory. */
export function absoluteUrl(address: string | URL): string {
  if (address instanceof URL) return address.href;
  if (URL.canParse(address)) return address;
  const base = isNode ? `file://${process.cwd()}/` : document.baseURI;
  return new URL(address, base).href;
}
