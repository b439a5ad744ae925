import { LetheError, isAbort } from "./errors.js";
import { absoluteUrl, fetchUrl } from "./platform.js";

/** Where a model comes from, in a form that a worker can be sent. */
export type Source = { url: string } | { blob: Blob };

/** What `InferenceSession.create` takes as a model. */
export type ModelInput = string | URL | Blob | ArrayBuffer | ArrayBufferView;

/** The model as a worker can be sent it; bytes become a `Blob`, which the browser keeps. */
export function toSource(model: ModelInput): Source {
  if (typeof model === "string" || model instanceof URL) return { url: absoluteUrl(model) };
  if (model instanceof Blob) return { blob: model };
  if (model instanceof ArrayBuffer || ArrayBuffer.isView(model)) {
    return { blob: new Blob([model as BlobPart]) };
  }
  throw new LetheError(
    "LETHE-OPTION",
    `model: expected an address, a Blob or bytes, found ${model === null ? "null" : typeof model}`,
  );
}

/** A model on its way: its pieces, and its length where it is known beforehand. */
export interface Download {
  stream: ReadableStream<Uint8Array>;
  length: number | undefined;
}

/** Begins to read a model. */
export async function open(source: Source, signal?: AbortSignal): Promise<Download> {
  if ("blob" in source) {
    return { stream: source.blob.stream() as ReadableStream<Uint8Array>, length: source.blob.size };
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
  return { stream: response.body, length: Number.isSafeInteger(length) ? length : undefined };
}
