import assert from "node:assert/strict";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { InferenceSession, LetheError, Tensor } from "lethe";

const MODEL = new URL("../../models/digits/model.onnx", import.meta.url);
const SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const bytes = await readFile(MODEL);
const input = () => new Tensor("float32", new Float32Array(784).fill(0.5), [1, 1, 28, 28]);
const code = (expected) => (error) => {
  assert.ok(error instanceof LetheError, `${error}`);
  assert.equal(error.code, expected, error.message);
  return true;
};

/** Serves the model in small pieces; `/slow` never ends. */
let server, origin;
before(async () => {
  server = createServer((request, response) => {
    if (request.url === "/missing.onnx") return response.writeHead(404).end();
    if (request.url === "/slow.onnx") {
      response.writeHead(200, { "content-length": bytes.length });
      return response.write(bytes.subarray(0, 1000));
    }
    response.writeHead(200, request.url === "/unsized.onnx" ? {} : { "content-length": bytes.length });
    for (let i = 0; i < bytes.length; i += 10_000) response.write(bytes.subarray(i, i + 10_000));
    response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${server.address().port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

for (const worker of [true, false]) {
  const where = worker ? "in a worker" : "in this thread";

  test(`${where}: a model is described and runs`, async () => {
    const session = await InferenceSession.create(bytes, { worker });
    assert.deepEqual(session.inputNames, ["input"]);
    assert.deepEqual(session.outputNames, ["logits"]);
    assert.deepEqual(session.inputMetadata, [
      { name: "input", isTensor: true, type: "float32", shape: ["batch", 1, 28, 28] },
    ]);
    assert.equal(session.backend, "wasm");
    assert.equal(session.description.fileBytes, bytes.length);
    assert.deepEqual(session.description.opsets, { "ai.onnx": 17 });
    const { logits } = await session.run({ input: input() });
    assert.ok(logits instanceof Tensor);
    assert.deepEqual([logits.type, logits.dims], ["float32", [1, 10]]);
    assert.ok(logits.data.every(Number.isFinite));
    const placement = await session.placement({ input: input() });
    assert.ok(placement.some(({ operator }) => operator.endsWith("Conv")));
    assert.ok(placement.every(({ device, reason }) => device === "cpu" && reason === undefined));
    const listed = await session.run({ input: input() }, ["logits"]);
    assert.deepEqual(listed.logits.data, logits.data);
    await session.release();
    await assert.rejects(session.run({ input: input() }), code("LETHE-RELEASED"));
    await session.release();
  });

  test(`${where}: errors keep their codes`, async () => {
    const session = await InferenceSession.create(bytes, { worker });
    const wide = new Tensor("float32", new Float32Array(2), [1, 1, 1, 2]);
    await assert.rejects(session.run({}), code("LETHE-INPUT-MISSING"));
    await assert.rejects(session.run({ input: wide }), code("LETHE-INPUT-SHAPE"));
    await assert.rejects(session.run({ image: input() }), code("LETHE-INPUT-UNKNOWN"));
    await assert.rejects(session.run({ input: [1, 2] }), code("LETHE-INPUT-TYPE"));
    await assert.rejects(
      session.run({ input: input() }, { outputs: ["class"] }), code("LETHE-OUTPUT-UNKNOWN"),
    );
    await assert.rejects(session.run({ input: input() }, { output: [] }), code("LETHE-OPTION"));
    const { logits } = await session.run({ input: input() });
    assert.equal(logits.size, 10, "the session goes on");
    await session.release();
    const half = bytes.subarray(0, bytes.length / 2);
    await assert.rejects(InferenceSession.create(half, { worker }), code("LETHE-MODEL-MALFORMED"));
    await assert.rejects(
      InferenceSession.create(bytes, { worker, backend: "webgpu" }), code("LETHE-DEVICE"),
    );
  });

  test(`${where}: loading tells its progress`, async () => {
    for (const [path, total] of [["model.onnx", bytes.length], ["unsized.onnx", undefined]]) {
      const seen = [];
      const session = await InferenceSession.create(`${origin}/${path}`, {
        worker, onProgress: (progress) => seen.push(progress),
      });
      await session.release();
      assert.equal(seen[0].total, total);
      assert.ok(seen.filter(({ phase }) => phase === "download").length > 1);
      const loaded = seen.map((progress) => progress.loaded);
      assert.deepEqual(loaded, loaded.toSorted((a, b) => a - b));
      assert.deepEqual(seen.slice(-2).map(({ phase }) => phase), ["prepare", "ready"]);
      assert.equal(loaded.at(-1), bytes.length);
    }
  });

  test(`${where}: loading can be aborted`, async () => {
    const controller = new AbortController();
    const loading = InferenceSession.create(`${origin}/slow.onnx`, {
      worker, signal: controller.signal, onProgress: ({ loaded }) => loaded && controller.abort(),
    });
    await assert.rejects(loading, { name: "AbortError" });
    const reason = new Error("not now");
    await assert.rejects(
      InferenceSession.create(bytes, { worker, signal: AbortSignal.abort(reason) }),
      (error) => error === reason,
    );
  });

  test(`${where}: runs asked for at once all come back`, async () => {
    const session = await InferenceSession.create(bytes, { worker });
    const runs = Array.from({ length: 5 }, (_, n) => {
      const feed = new Tensor("float32", new Float32Array(784 * n).fill(0.1), [n, 1, 28, 28]);
      return session.run({ input: feed });
    });
    const releasing = session.release();
    const dims = (await Promise.all(runs)).map(({ logits }) => logits.dims);
    assert.deepEqual(dims, [0, 1, 2, 3, 4].map((n) => [n, 10]));
    await releasing;
  });
}

test("an aborted run ends its worker at once and the session goes on", async () => {
  const session = await InferenceSession.create(MODEL);
  const big = new Tensor("float32", new Float32Array(784 * 5_000), [5_000, 1, 28, 28]);
  const controller = new AbortController();
  const run = session.run({ input: big }, { signal: controller.signal });
  const next = session.run({ input: input() });
  setTimeout(() => controller.abort(), 20);
  const started = performance.now();
  await assert.rejects(run, { name: "AbortError" });
  assert.ok(performance.now() - started < 1000, "promptly");
  assert.equal((await next).logits.size, 10);
  await session.release();
});

test("a run that waits for its turn can be aborted", async () => {
  const session = await InferenceSession.create(bytes);
  const first = session.run({ input: input() });
  const controller = new AbortController();
  const second = session.run({ input: input() }, { signal: controller.signal });
  controller.abort();
  await assert.rejects(second, { name: "AbortError" });
  assert.equal((await first).logits.size, 10);
  await session.release();
});

test("options are checked", async () => {
  for (const options of [
    { executionProviders: ["wasm"] },
    { backend: "cuda" },
    { numerics: "exact" },
    { sha256: "abc" },
    { cache: true },
    { build: "mvp" },
  ]) {
    await assert.rejects(InferenceSession.create(bytes, options), code("LETHE-OPTION"));
  }
  await assert.rejects(InferenceSession.create(42), code("LETHE-OPTION"));
});

test("a model that is not there or not the promised one is refused", async () => {
  await assert.rejects(InferenceSession.create(`${origin}/missing.onnx`), code("LETHE-FETCH"));
  await assert.rejects(InferenceSession.create("no/such/file.onnx"), code("LETHE-FETCH"));
  await assert.rejects(InferenceSession.create("http://127.0.0.1:1/model.onnx"), code("LETHE-FETCH"));
  await assert.rejects(
    InferenceSession.create(bytes, { sha256: SHA256_OF_NOTHING }), code("LETHE-MODEL-HASH"),
  );
  const digest = Buffer.from(await crypto.subtle.digest("SHA-256", bytes)).toString("hex");
  await (await InferenceSession.create(bytes, { sha256: digest })).release();
});

test("reproducible numerics give the same bits in both builds that the machine has", async () => {
  const outputs = [];
  for (const build of ["simd128", "auto"]) {
    const session = await InferenceSession.create(bytes, { build, numerics: "reproducible" });
    outputs.push((await session.run({ input: input() })).logits.data);
    await session.release();
  }
  assert.deepEqual(...outputs);
});
