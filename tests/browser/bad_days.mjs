/** The npm package on bad days: aborts, wrong answers of servers, full and changed caches, policies, memory. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { serve } from "../../www/serve.mjs";
import { ROOT } from "./chromium.mjs";

const MOUNTS = { "/harness/": join(import.meta.dirname, "harness"), "/": join(ROOT, "www", "dist") };

/** Bytes that the browser's processes of pages have in memory, once what is not used has been given back. */
async function resident(page) {
  const ofPage = await page.context().newCDPSession(page);
  await ofPage.send("HeapProfiler.collectGarbage");
  await page.waitForTimeout(300);
  await ofPage.send("HeapProfiler.collectGarbage");
  await ofPage.detach();
  const ofBrowser = await page.context().browser().newBrowserCDPSession();
  const { processInfo } = await ofBrowser.send("SystemInfo.getProcessInfo");
  await ofBrowser.detach();
  const pages = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => Number(id));
  assert.ok(pages.length > 0, "there is a process of pages");
  const kilobytes = pages.map((id) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, "utf8"))[1]));
  return kilobytes.reduce((sum, kb) => sum + kb * 1024, 0);
}

export async function testBadDays(suite, browser) {
  const server = await serve(MOUNTS, 0, {});
  const page = await browser.newPage();
  await page.goto(`${server.origin}/harness/bad_days.html`);
  await page.waitForFunction(() => globalThis.days);
  const day = (name, argument) => page.evaluate(([name, argument]) => globalThis.days[name](argument), [name, argument]);
  const ways = [[true, "in a worker"], [false, "in the page"]];

  for (const [worker, where] of ways) {
    await suite.test(`loading is aborted at every phase, ${where}`, async () => {
      const seen = await day("abortsAtEveryPhase", worker);
      for (const phase of ["download", "prepare", "warmup"]) assert.match(seen[phase], /AbortError|20:/, `${phase}: ${JSON.stringify(seen)}`);
    });
    await suite.test(`a session is released while it runs, ${where}`, async () => {
      const { sizes, after } = await day("releasedWhileItRuns", worker);
      assert.deepEqual(sizes, [10, 10]);
      assert.match(after, /^LETHE-RELEASED/);
    });
    await suite.test(`300 runs in turn take no more memory, ${where}`, async () => {
      const { some, all } = await day("manyRuns", worker);
      assert.ok(some > 0);
      assert.equal(all, some);
    });
    await suite.test(`50 sessions in turn give their memory back, ${where}`, async () => {
      await day("manySessions", { worker });
      const before = await resident(page);
      await day("manySessions", { worker });
      const after = await resident(page);
      // Of the memory of an engine that has run digits about one megabyte was written to.
      assert.ok(after - before < 25e6, `${before} bytes, then ${after}`);
      return `${((after - before) / 1e6).toFixed(1)} MB more`;
    });
  }
  await suite.test("that measure sees sessions that are kept", async () => {
    const before = await resident(page);
    await day("manySessions", { worker: false, isKept: true });
    const after = await resident(page);
    await page.evaluate(() => Promise.all(globalThis.kept.splice(0).map((session) => session.release())));
    assert.ok(after - before > 25e6, `${before} bytes, then ${after}`);
    return `${((after - before) / 1e6).toFixed(1)} MB more`;
  });
  await suite.test("a server that has an HTML page, or nothing, where WebAssembly is", async () => {
    const { missing, html } = await day("htmlForWebAssembly");
    assert.match(missing, /^LETHE-FETCH: .*nowhere-lethe-\w+\.wasm: the server answered 404.*wasmPaths/);
    assert.match(html, /^LETHE-FETCH: .*HTML page where WebAssembly is expected/);
  });
  await suite.test("a server that has an HTML page where the model is", async () => {
    assert.match(await day("htmlForTheModel"), /^LETHE-MODEL-MALFORMED: .*HTML page; is the address right/);
  });
  await suite.test("a kept model that was changed is downloaded again", async () => {
    const { kept, hash, gone } = await day("changedCacheEntry");
    assert.deepEqual(kept, [hash]);
    assert.match(gone, /^LETHE-FETCH/);
  });
  await suite.test("a browser without room for the model", async () => {
    const { said, size } = await day("quotaExceeded");
    assert.equal(size, 10);
    assert.equal(said.length, 1);
    assert.match(said[0], /LETHE-CACHE: .*no room.*clearModelCache/);
  });
  await suite.test("loads at once download a model once", async () => {
    let asked = 0;
    await page.route("**/once.onnx", async (route) => {
      asked += 1;
      await route.fulfill({ path: join(ROOT, "models", "digits", "model.onnx") });
    });
    await day("loadsAtOnce", "/once.onnx");
    assert.equal(asked, 1);
  });
  await suite.test("pictures become tensors and tensors pictures", async () => {
    const found = await day("images");
    assert.deepEqual(found.dims, [1, 3, 2, 3]);
    assert.equal(found.first, 0);
    assert.ok(found.same);
    assert.deepEqual(found.last, ["uint8", [1, 2, 3, 3], [20, 10, 0]]);
    assert.ok(found.again);
    assert.deepEqual(found.element, [1, 3, 4, 6]);
    assert.equal(found.bitmap, -1);
    assert.match(found.wrong, /^LETHE-OPTION: tensorFormat/);
    assert.match(found.none, /^LETHE-FETCH/);
    assert.match(found.shape, /^LETHE-TENSOR: a picture takes the shape/);
  });
  await page.close();
  server.close();

  const policies = [
    ["no worker", "worker-src 'none'", {}, /^LETHE-WORKER: .*worker-src 'self'.*worker: false/],
    ["no worker, and none wanted", "worker-src 'none'", { worker: false }, /nothing was thrown/],
    ["no WebAssembly", "script-src 'self'", {}, /^LETHE-FETCH: .*'wasm-unsafe-eval'/],
  ];
  for (const [name, policy, options, expected] of policies) {
    await suite.test(`a policy that allows ${name}`, async () => {
      const strict = await serve(MOUNTS, 0, { "content-security-policy": policy });
      const page = await browser.newPage();
      await page.goto(`${strict.origin}/harness/bad_days.html`);
      await page.waitForFunction(() => globalThis.days);
      assert.match(await page.evaluate((options) => globalThis.days.create(options), options), expected);
      await page.close();
      strict.close();
    });
  }
}
