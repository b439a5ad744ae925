import { LetheError } from "./errors.js";
import { open, type Download, type Source } from "./source.js";

/**
 * Models kept in the browser's Cache API under their own SHA-256, so that a model is downloaded
 * once, whatever address it came from, and never mistaken for another version.
 */
const CACHE = "lethe-models";

/** The entry's address; the domain is reserved and never resolves. */
const entry = (sha256: string) => `https://lethe.invalid/sha256/${sha256}`;

/** The model from the cache, or from its source; `store` says that it is not in the cache yet. */
export async function openCached(
  source: Source,
  sha256: string | undefined,
  cached: boolean,
  signal?: AbortSignal,
): Promise<{ download: Download; store: boolean }> {
  if (cached && sha256 && typeof caches === "object") {
    const hit = await (await caches.open(CACHE)).match(entry(sha256));
    if (hit?.body) {
      const length = Number(hit.headers.get("content-length"));
      return { download: { stream: hit.body, length }, store: false };
    }
    return { download: await open(source, signal), store: true };
  }
  return { download: await open(source, signal), store: false };
}

/** Keeps a model. Where the browser has no room, the model is downloaded again next time. */
export async function store(sha256: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const headers = { "content-length": String(bytes.length), "content-type": "application/octet-stream" };
  try {
    await (await caches.open(CACHE)).put(entry(sha256), new Response(bytes, { headers }));
  } catch (thrown) {
    if (!(thrown instanceof DOMException)) throw thrown;
  }
}

/** Forgets all kept models. */
export async function clearModelCache(): Promise<void> {
  if (typeof caches === "object") await caches.delete(CACHE);
}

/** Rejects bytes that are not what `sha256` promised. */
export async function verify(bytes: Uint8Array<ArrayBuffer>, sha256: string): Promise<void> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) {
    throw new LetheError("LETHE-MODEL-HASH", `expected a model with sha256 ${sha256}, found ${found}`);
  }
}
