#!/usr/bin/env node
/**
 * Serves the built site: `node www/serve.mjs [PORT]`, by default on http://localhost:8000.
 *
 * The headers are those that a public host should send: cross-origin isolation, and a content
 * security policy that lets the page talk to its own origin only.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { pathToFileURL } from "node:url";

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".mjs": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".woff2": "font/woff2",
};

const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; " +
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cache-control": "no-cache",
};

/** The file under one of `mounts` (address prefix → folder) that `path` names, if there is one. */
async function find(mounts, path) {
  for (const [prefix, folder] of Object.entries(mounts)) {
    if (!path.startsWith(prefix)) continue;
    let file = normalize(join(folder, path.slice(prefix.length)));
    if (file !== folder && !file.startsWith(folder + sep)) continue;
    let found = await stat(file).catch(() => undefined);
    if (found?.isDirectory()) {
      file = join(file, "index.html");
      found = await stat(file).catch(() => undefined);
    }
    if (found?.isFile()) return { file, size: found.size };
  }
  return undefined;
}

/**
 * Starts a server of static files on the loopback interface.
 *
 * @param {Record<string, string>} mounts address prefix → folder; the first that has the file wins
 * @param {number} port 0 for any free one
 * @param {Record<string, string>} headers of each answer
 * @returns {Promise<{origin: string, close: () => void}>}
 */
export async function serve(mounts, port = 0, headers = HEADERS) {
  const server = createServer(async (request, response) => {
    const answer = (status, more = {}) => response.writeHead(status, { ...headers, ...more });
    if (request.method !== "GET" && request.method !== "HEAD") return answer(405).end();
    let path;
    try {
      path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    } catch {
      return answer(400).end();
    }
    const found = path.includes("\0") ? undefined : await find(mounts, path);
    if (!found) return answer(404, { "content-type": "text/plain" }).end("not found\n");
    const type = TYPES[extname(found.file)] ?? "application/octet-stream";
    answer(200, { "content-type": type, "content-length": found.size });
    if (request.method === "HEAD") return response.end();
    createReadStream(found.file).pipe(response);
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "localhost", resolve);
  });
  return {
    origin: `http://localhost:${server.address().port}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { origin } = await serve(
    { "/": join(import.meta.dirname, "dist") }, Number(process.argv[2] ?? 8000),
  );
  console.log(`${origin}, Ctrl+C ends it`);
}
