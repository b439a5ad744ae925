import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { InferenceSession, LetheError, Tensor } from "lethe";
import { sumModel } from "./support/model.mjs";

const LEN = 1000;
const weights = Float32Array.from({ length: LEN }, (_, i) => i / 7);
/** The weights begin at an odd place. */
const OFFSET = 64;
const content = new Uint8Array(OFFSET + LEN * 4);
content.set(new Uint8Array(weights.buffer), OFFSET);
const NAME = "weights/part 1.bin";
const model = sumModel(LEN, NAME, OFFSET, { author: "somebody", "labels": '["a"]' });

const x = () => new Tensor("float32", new Float32Array(LEN).fill(1), [1, LEN]);
async function check(session) {
  const { y } = await session.run({ x: x() });
  assert.deepEqual([...y.data], [...weights.map((w) => w + 1)]);
  assert.equal(session.description.fileBytes, model.length + content.length);
  await session.release();
}

test("weights beside the model are given as bytes, pieces, Blobs and addresses", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lethe-external-"));
  const file = join(folder, "w.bin");
  await writeFile(file, content);
  const cuts = [0, 3, 100, 2001, content.length];
  const pieces = cuts.slice(1).map((end, i) => content.slice(cuts[i], end));
  for (const data of [content, content.buffer, pieces, new Blob([content]), file]) {
    for (const path of [NAME, `./${NAME}`]) {
      for (const worker of [true, false]) {
        await check(await InferenceSession.create(model, { worker, externalData: [{ path, data }] }));
      }
    }
  }
  await rm(folder, { recursive: true });
});

test("weights beside a model that has an address are found there", async () => {
  const asked = [];
  const server = createServer((request, response) => {
    asked.push(request.url);
    if (request.url.startsWith("/m/model.onnx")) return response.end(model);
    if (request.url === "/m/weights/part%201.bin?token=7") return response.end(content);
    response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  await check(await InferenceSession.create(`${origin}/m/model.onnx?token=7`));
  assert.deepEqual(asked, ["/m/model.onnx?token=7", "/m/weights/part%201.bin?token=7"]);
  await assert.rejects(InferenceSession.create(`${origin}/m/model.onnx`), { code: "LETHE-FETCH" });
  asked.length = 0;
  let evil;
  for (const name of ["../secret.bin", "/secret.bin", "//127.0.0.1/secret.bin", "a/../../secret.bin", ".//secret.bin"]) {
    evil = createServer((request, response) => (asked.push(request.url), response.end(sumModel(LEN, name))));
    await new Promise((resolve) => evil.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${evil.address().port}/m/model.onnx`;
    await assert.rejects(InferenceSession.create(url), { code: "LETHE-MODEL-EXTERNAL-DATA" });
    evil.closeAllConnections();
    evil.close();
  }
  assert.ok(asked.every((url) => url === "/m/model.onnx"), `${asked}`);
  // An address whose end is the name.
  await check(await InferenceSession.create(model, { externalData: [`${origin}/m/weights/part%201.bin?token=7`.replace("%20", " ")] }));
  server.closeAllConnections();
  server.close();
});

test("a file beside a model on the disk is found", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lethe external #"));
  await writeFile(join(folder, "model.onnx"), sumModel(LEN, "w.bin", OFFSET));
  await writeFile(join(folder, "w.bin"), content);
  const session = await InferenceSession.create(join(folder, "model.onnx"));
  assert.deepEqual((await session.run({ x: x() })).y.data[7], 2);
  await session.release();
  await rm(folder, { recursive: true });
});

test("weights that are missing, short or elsewhere are named", async () => {
  const code = (expected, words) => (error) => {
    assert.ok(error instanceof LetheError, `${error}`);
    assert.equal(error.code, expected, error.message);
    assert.match(error.message, words);
    return true;
  };
  await assert.rejects(InferenceSession.create(model), code("LETHE-MODEL-EXTERNAL-DATA", /weights\/part 1\.bin/));
  for (const worker of [true, false]) {
    const cut = [{ path: NAME, data: content.subarray(0, 100) }];
    await assert.rejects(
      InferenceSession.create(model, { worker, externalData: cut }), code("LETHE-MODEL-EXTERNAL-DATA", /of 100 bytes/),
    );
    const outside = sumModel(LEN, "../w.bin");
    await assert.rejects(
      InferenceSession.create(outside, { worker, externalData: [{ path: "../w.bin", data: content }] }),
      code("LETHE-MODEL-EXTERNAL-DATA", /outside/),
    );
  }
  await assert.rejects(InferenceSession.create(model, { externalData: [{ data: content }] }), code("LETHE-OPTION", /path/));
});

test("what a model says of itself is told", async () => {
  const session = await InferenceSession.create(model, { externalData: [{ path: NAME, data: content }] });
  assert.deepEqual(session.description.properties, { author: "somebody", labels: '["a"]' });
  await session.release();
});
