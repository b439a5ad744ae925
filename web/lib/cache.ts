import { LetheError } from "./errors.js";
import { warnOnce } from "./env.js";
import { open, type Download } from "./source.js";

/**
 * Models kept in the browser's Cache API under their own SHA-256, so that a model is downloaded
 * once, whatever address it came from, and never mistaken for another version.
 */
const CACHE = "lethe-models";

/** The entry's address; the domain is reserved and never resolves. */
const entry = (sha256: string) => `https://lethe.invalid/sha256/${sha256}`;

/** Browsers have the Cache API where the page came securely; a page may be forbidden to use it. */
async function opened(): Promise<Cache | undefined> {
  if (typeof caches !== "object") return undefined;
  try {
    return await caches.open(CACHE);
  } catch (thrown) {
    warnOnce("LETHE-CACHE", `the model is not kept: ${(thrown as Error).message}`);
    return undefined;
  }
}

/** A kept model. */
export async function kept(sha256: string): Promise<Download | undefined> {
  const hit = await (await opened())?.match(entry(sha256));
  if (!hit) return undefined;
  return open({ pieces: [await hit.blob()] });
}

/** Keeps a model. Where the browser has no room, the model is downloaded again next time. */
export async function keep(sha256: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const cache = await opened();
  if (!cache) return;
  const headers = { "content-length": String(bytes.length), "content-type": "application/octet-stream" };
  try {
    await cache.put(entry(sha256), new Response(bytes, { headers }));
  } catch (thrown) {
    const why = (thrown as Error).name === "QuotaExceededError"
      ? "the browser has no room for it; clearModelCache() makes some"
      : (thrown as Error).message;
    warnOnce("LETHE-CACHE", `the model of ${bytes.length} bytes is not kept: ${why}`);
  }
}

/** Forgets a model. */
export async function forget(sha256: string): Promise<void> {
  await (await opened())?.delete(entry(sha256));
}

/** Forgets all kept models. */
export async function clearModelCache(): Promise<void> {
  if (typeof caches === "object") await caches.delete(CACHE);
}

/**
 * Does something while no other page of this origin does it for the same model, so that two tabs do
 * not download it at once: the second finds it kept.
 */
export async function alone<T>(sha256: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  const locks = typeof navigator === "object" ? navigator.locks : undefined;
  if (!locks) return work();
  // A signal that was aborted would be refused with an error of its own.
  signal?.throwIfAborted();
  return await locks.request(`lethe-model-${sha256}`, signal ? { signal } : {}, work) as T;
}

/**
 * The SHA-256 of bytes, in hexadecimal.
 *
 * @throws {LetheError} `LETHE-MODEL-HASH` where the platform does not compute it.
 */
export async function hashOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  if (!globalThis.crypto?.subtle) {
    throw new LetheError("LETHE-MODEL-HASH", "sha256: this page cannot compute it; it must be served by https or from localhost");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

