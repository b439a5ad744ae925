#!/usr/bin/env node
/**
 * The browser tests, in headless Chromium: `node tests/browser/run.mjs [site] [models]`, after
 * `npm ci` here, `node web/build.mjs` and `node www/build.mjs`.
 *
 * `CHROMIUM` names the browser, by default the first of /usr/bin/chromium and Google's names that
 * is there. Models that are not in target/models are skipped, and so is WebGPU where the browser
 * has no adapter. The last line is `N passed, N failed[, N skipped]`.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "../../www/serve.mjs";
import { MOUNT, testModels } from "./models.mjs";
import { testSite } from "./site.mjs";
import { Suite } from "./suite.mjs";

const ROOT = join(import.meta.dirname, "..", "..");
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = [
  "--headless=new", "--no-sandbox", "--enable-unsafe-webgpu", "--disable-background-networking",
  "--no-first-run", "--disable-component-update", "--disable-sync",
];

const executablePath = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
if (!executablePath) {
  console.error("no Chromium: install it, or name it in CHROMIUM");
  process.exit(2);
}
const chosen = process.argv.slice(2);
const wanted = (part) => chosen.length === 0 || chosen.includes(part);

const server = await serve({
  "/harness/": join(import.meta.dirname, "harness"),
  [MOUNT]: ROOT,
  "/": join(ROOT, "www", "dist"),
});
const browser = await chromium.launch({ executablePath, args: FLAGS });
console.log(`Chromium ${browser.version()}`);
const suite = new Suite();
try {
  if (wanted("site")) await testSite(suite, browser, server.origin);
  if (wanted("models")) await testModels(suite, browser, server.origin);
} finally {
  await browser.close();
  server.close();
}
process.exitCode = suite.end();
