#!/usr/bin/env node
/**
 * The browser as a door like the others: `node tests/browser/door.mjs PORT FOLDER` listens on
 * 127.0.0.1 and has `POST /api/v1/infer` answered by the npm package in headless Chromium, with
 * reproducible numerics. For the test that sends one request through every door; FOLDER is the
 * model's, relative to the repository.
 */
import { createServer } from "node:http";
import { basename } from "node:path";
import { json } from "node:stream/consumers";
import { MOUNT, open } from "./chromium.mjs";

const [port, folder] = process.argv.slice(2);
const { browser, origin, close } = await open();
const page = await browser.newPage();
await page.goto(`${origin}/harness/`);
await page.waitForFunction(() => globalThis.harness);

const door = createServer(async (request, response) => {
  const { model, id, inputs } = await json(request);
  const outputs = await page.evaluate((call) => globalThis.harness.infer(call), {
    model: `${MOUNT}${folder}/model.onnx`,
    options: { backend: "wasm", numerics: "reproducible" },
    inputs,
  });
  const known = model === basename(folder);
  response.writeHead(known ? 200 : 404, { "content-type": "application/json" });
  response.end(JSON.stringify(known ? { model, id, outputs } : { status: 404 }));
});
door.listen(Number(port), "127.0.0.1");
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => close().then(() => process.exit()));
// Whoever started this may be killed: its end of the pipe goes with it.
process.stdin.resume().on("end", () => close().then(() => process.exit()));
