/** The pages of `lethe serve`: the dashboard while requests come, and the page of the API. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ROOT } from "./chromium.mjs";
import { program } from "./program.mjs";

/** A server of the embedded digits model, and how to end it. */
async function serve() {
  const model = join(ROOT, "models", "digits", "model.onnx");
  const server = spawn(program(), ["serve", "--port", "0", model], { stdio: ["ignore", "pipe", "ignore"] });
  const ended = new Promise((resolve) => server.on("exit", resolve));
  for await (const line of createInterface({ input: server.stdout })) {
    const origin = line.match(/http:\S+/)?.[0];
    if (origin) return { origin, end: () => (server.kill("SIGTERM"), ended) };
  }
  throw new Error("the server did not start");
}

async function infer(origin, model = "digits") {
  const data = Array(784).fill(0.5);
  const inputs = [{ name: "input", shape: [1, 1, 28, 28], datatype: "FP32", data }];
  const headers = { "content-type": "application/json" };
  await fetch(`${origin}/api/v1/infer`, { method: "POST", headers, body: JSON.stringify({ model, inputs }) });
}

async function open(browser, url, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  await page.goto(url);
  return { page, problems, close: () => context.close() };
}

/** How many pixels of a chart are painted. */
const painted = (page, id) =>
  page.evaluate((id) => {
    const { width, height } = document.getElementById(id);
    const { data } = document.getElementById(id).getContext("2d").getImageData(0, 0, width, height);
    return data.filter((value, i) => i % 4 === 3 && value > 0).length;
  }, id);

export async function testServer(suite, browser) {
  let server;
  await suite.test("server: starts", async () => void (server = await serve()));
  if (!server) return;
  for (const [kind, options] of [
    ["desktop", { viewport: { width: 1280, height: 900 } }],
    ["phone, dark", { viewport: { width: 360, height: 740 }, colorScheme: "dark" }],
  ]) {
    await suite.test(`server: dashboard, ${kind}`, async () => {
      const { page, problems, close } = await open(browser, server.origin, options);
      await page.waitForSelector("#state.ok");
      const before = await painted(page, "rates");
      for (let i = 0; i < 30; i += 1) await infer(server.origin);
      await infer(server.origin, "nothing");
      await page.waitForFunction(() => /\d/.test(document.querySelector("#p50").textContent));
      await page.waitForFunction(() => document.querySelectorAll("#models tr").length > 0);
      assert.match(await page.textContent("#models"), /digits.*ready.*anonymous/i);
      await page.waitForFunction(() => parseFloat(document.querySelector("#wiped").textContent) > 0);
      await page.waitForTimeout(1500);
      assert.ok((await painted(page, "rates")) > before, "the chart is drawn");
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${wide} pixels stand out`);
      assert.deepEqual(problems, []);
      await close();
    });
  }
  await suite.test("server: page of the API", async () => {
    const { page, problems, close } = await open(browser, `${server.origin}/docs`);
    await page.waitForSelector("details");
    const paths = await page.locator("summary code").allTextContents();
    for (const path of ["/api/v1/infer", "/v2/models/{model}/infer", "/v2/repository/index"]) {
      assert.ok(paths.includes(path), path);
    }
    assert.deepEqual(problems, []);
    await close();
  });
  await suite.test("server: ends well", async () => assert.equal(await server.end(), 0));
}
