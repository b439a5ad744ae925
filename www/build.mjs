#!/usr/bin/env node
/**
 * Puts the site together in `www/dist`, ready for any static host: `node www/build.mjs`, after
 * `npm ci` in `www` and `node web/build.mjs`.
 *
 *     site/            → dist/
 *     web/pkg          → dist/lethe/
 *     models/digits    → dist/models/digits/
 *     fonts from npm   → dist/fonts/
 */
import { existsSync } from "node:fs";
import { cp, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

const WWW = import.meta.dirname;
const ROOT = join(WWW, "..");
const DIST = join(WWW, "dist");

const FONTS = {
  "dm-serif-text.woff2": "@fontsource/dm-serif-text/files/dm-serif-text-latin-400-normal.woff2",
  "young-serif.woff2": "@fontsource/young-serif/files/young-serif-latin-400-normal.woff2",
  "instrument-sans.woff2":
    "@fontsource-variable/instrument-sans/files/instrument-sans-latin-wght-normal.woff2",
  "plex-mono.woff2": "@fontsource/ibm-plex-mono/files/ibm-plex-mono-latin-400-normal.woff2",
};

for (const [path, remedy] of [
  ["web/pkg/sizes.json", "node web/build.mjs"],
  ["www/node_modules", "npm ci in www"],
]) {
  if (!existsSync(join(ROOT, path))) {
    console.error(`${path} is missing: run ${remedy} first`);
    process.exit(2);
  }
}
await rm(DIST, { recursive: true, force: true });
await cp(join(WWW, "site"), DIST, { recursive: true });
await cp(join(ROOT, "web", "pkg"), join(DIST, "lethe"), {
  recursive: true,
  // Pages take the module, its worker and its WebAssembly.
  filter: (path) => !/\.d\.c?ts$|\.cjs$|inline\.js$/.test(path),
});
for (const file of ["model.onnx", "strokes.json"]) {
  await cp(join(ROOT, "models", "digits", file), join(DIST, "models", "digits", file));
}
await mkdir(join(DIST, "fonts"));
for (const [name, source] of Object.entries(FONTS)) {
  await cp(join(WWW, "node_modules", source), join(DIST, "fonts", name));
}
console.log(`built ${DIST}`);
