#!/usr/bin/env node
/**
 * The browser tests, in headless Chromium: `node tests/browser/run.mjs [site] [models] [bad_days] [server]`, after
 * `npm ci` here, `node web/build.mjs` and `node www/build.mjs`.
 *
 * `CHROMIUM` names the browser, by default the first of /usr/bin/chromium and Google's names that
 * is there. Models that are not in target/models are skipped, and so is WebGPU where the browser
 * has no adapter. The last line is `N passed, N failed[, N skipped]`.
 */
import { testBadDays } from "./bad_days.mjs";
import { open } from "./chromium.mjs";
import { testModels } from "./models.mjs";
import { testServer } from "./server.mjs";
import { testSite } from "./site.mjs";
import { Suite } from "./suite.mjs";

const chosen = process.argv.slice(2);
const wanted = (part) => chosen.length === 0 || chosen.includes(part);

const { browser, origin, close } = await open();
console.log(`Chromium ${browser.version()}`);
const suite = new Suite();
try {
  if (wanted("site")) await testSite(suite, browser, origin);
  if (wanted("models")) await testModels(suite, browser, origin);
  if (wanted("bad_days")) await testBadDays(suite, browser);
  if (wanted("server")) await testServer(suite, browser);
} finally {
  await close();
}
process.exitCode = suite.end();
