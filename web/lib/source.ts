/** Where models and the files beside them come from. */

import { LetheError, isAbort } from "./errors.js";
import { absoluteUrl, fetchUrl } from "./platform.js";

/** Bytes, or a `Blob`. */
export type Piece = Blob | ArrayBufferLike | ArrayBufferView;

/** What `InferenceSession.create` takes as a model: where it is, its bytes, or they in pieces. */
export type ModelInput = string | URL | Piece | readonly Piece[];

/** Where a file comes from, in a form that a worker can be sent. */
export type Source = { url: string } | { pieces: Part[] };

/** Bytes or a `Blob`: what can be sent and be read in order. */
export type Part = Blob | Uint8Array<ArrayBuffer>;

/** A file beside a model. */
export interface FileSource {
  /** Its name in the model. */
  path: string;
  source: Source;
}

export function toSource(model: ModelInput, option = "model"): Source {
  if (typeof model === "string" || model instanceof URL) return { url: absoluteUrl(model) };
  const pieces = (Array.isArray(model) ? model : [model]).map(toPart);
  if (pieces.length > 0 && pieces.every((piece) => piece !== undefined)) {
    return { pieces: pieces as Part[] };
  }
  throw new LetheError(
    "LETHE-OPTION",
    `${option}: expected an address, a Blob, bytes or a list of them, found ${model === null ? "null" : typeof model}`,
  );
}

function toPart(piece: unknown): Part | undefined {
  if (piece instanceof Blob) return piece;
  if (ArrayBuffer.isView(piece)) {
    const bytes = new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength);
    return unshared(bytes);
  }
  if (Object.prototype.toString.call(piece) === "[object ArrayBuffer]") {
    return new Uint8Array(piece as ArrayBuffer);
  }
  if (Object.prototype.toString.call(piece) === "[object SharedArrayBuffer]") {
    return unshared(new Uint8Array(piece as SharedArrayBuffer));
  }
  return undefined;
}

/** Memory that others may write to is read once. */
function unshared(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const isShared = Object.prototype.toString.call(bytes.buffer) === "[object SharedArrayBuffer]";
  return isShared ? bytes.slice() as Uint8Array<ArrayBuffer> : bytes as Uint8Array<ArrayBuffer>;
}

/** The files of the option `externalData`. */
export function toFiles(files: readonly unknown[]): FileSource[] {
  return files.map((file): FileSource => {
    if (typeof file === "string") return { path: file, source: toSource(file) };
    const { path, data } = (file ?? {}) as { path?: unknown; data?: unknown };
    if (typeof path !== "string") {
      throw new LetheError("LETHE-OPTION", "externalData: expected addresses, or objects with path and data");
    }
    return { path, source: toSource(data as ModelInput, `externalData ${JSON.stringify(path)}`) };
  });
}

/**
 * What a session keeps of a source, to load the model again: bytes become a `Blob`, since their owner
 * may change them afterwards, and the browser keeps it out of the page's memory.
 */
export function kept(source: Source): Source {
  return "url" in source ? source : { pieces: [new Blob(source.pieces)] };
}

/** A file on its way: its pieces, and its length where it is known beforehand. */
export interface Download {
  pieces: AsyncIterable<Uint8Array>;
  length: number | undefined;
}

/** Begins to read a file. */
export async function open(source: Source, signal?: AbortSignal): Promise<Download> {
  if ("pieces" in source) {
    const lengths = source.pieces.map((piece) => (piece instanceof Blob ? piece.size : piece.length));
    return { pieces: inOrder(source.pieces), length: lengths.reduce((sum, length) => sum + length, 0) };
  }
  let response: Response;
  try {
    response = await fetchUrl(source.url, signal);
  } catch (thrown) {
    if (isAbort(thrown) || signal?.aborted) throw thrown;
    throw new LetheError("LETHE-FETCH", `${source.url}: ${(thrown as Error).message}`);
  }
  if (!response.ok || !response.body) {
    const status = [response.status, response.statusText].filter(Boolean).join(" ");
    throw new LetheError("LETHE-FETCH", `${source.url}: the server answered ${status}`);
  }
  // A compressed answer's length is not that of what comes out.
  const length = response.headers.has("content-encoding")
    ? NaN
    : Number(response.headers.get("content-length") ?? NaN);
  const known = Number.isSafeInteger(length) ? length : undefined;
  return { pieces: downloaded(source.url, response.body, known, signal), length: known };
}

async function* inOrder(pieces: readonly Part[]): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) {
    if (piece instanceof Blob) yield* chunks(piece.stream());
    else yield piece;
  }
}

/** The pieces of a download, which must be as many bytes as it announced. */
async function* downloaded(
  url: string, body: ReadableStream<Uint8Array>, length: number | undefined, signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let loaded = 0;
  const ended = (reason: string) => new LetheError(
    "LETHE-FETCH",
    `${url}: the download ended after ${loaded}${length === undefined ? "" : ` of ${length}`} bytes${reason}; try again`,
  );
  try {
    for await (const piece of chunks(body)) {
      loaded += piece.length;
      yield piece;
    }
  } catch (thrown) {
    if (isAbort(thrown) || signal?.aborted || thrown instanceof LetheError) throw thrown;
    throw ended(`: ${(thrown as Error).message}`);
  }
  if (length !== undefined && loaded < length) throw ended("");
}

/** A stream's pieces: not all browsers can iterate one. Who stops early cancels it. */
async function* chunks(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  let done = false;
  try {
    for (;;) {
      const read = await reader.read();
      if (read.done) break;
      yield read.value;
    }
    done = true;
  } finally {
    if (!done) reader.cancel().catch(() => {});
  }
}
