import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { InferenceSession, LetheError, Tensor, registerBackend } from "lethe";

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
    if (request.url === "/cut.onnx") {
      response.writeHead(200, { "content-length": bytes.length });
      return response.write(bytes.subarray(0, 1000), () => response.destroy());
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
    await assert.rejects(session.run({ input: input() }, { outputs: [] }), code("LETHE-OPTION"));
    await assert.rejects(session.run({ input: input() }, { tag: 7 }), code("LETHE-OPTION"));
    for (const feeds of [null, undefined, 42, [input()], input()]) {
      await assert.rejects(session.run(feeds), code("LETHE-INPUT-TYPE"), `${feeds}`);
    }
    const gone = input();
    gone.dispose();
    await assert.rejects(session.run({ input: gone }), code("LETHE-TENSOR"));
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
      const downloads = seen.filter(({ phase }) => phase === "download");
      assert.equal(downloads[0].loaded, 0);
      assert.equal(downloads.at(-1).loaded, bytes.length);
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
    { executionProviders: ["cudda"] },
    { executionProviders: "wasm" },
    { graphOptimizationLevel: "most" },
    { freeDimensionOverrides: { batch: "one" } },
    { preferredOutputLocation: { logits: "gpu" } },
    { logSeverityLevel: 9 },
    { signal: {} },
    { backend: "cuda" },
    { numerics: "exact" },
    { sha256: "abc" },
    { cache: true },
    { build: "mvp" },
  ]) {
    await assert.rejects(InferenceSession.create(bytes, options), code("LETHE-OPTION"));
  }
  await assert.rejects(InferenceSession.create(42), code("LETHE-OPTION"));
  await assert.rejects(InferenceSession.create(bytes, { executionProviders: ["cuda"] }), code("LETHE-DEVICE"));
  await assert.rejects(InferenceSession.create(bytes, { executionProviders: ["webgpu"] }), code("LETHE-DEVICE"));
});

test("an unknown option is said once, with the one that is meant", async () => {
  const [said, warn] = [[], console.warn];
  console.warn = (text) => said.push(text);
  try {
    for (let i = 0; i < 2; i += 1) {
      await (await InferenceSession.create(bytes, { graphOptimisationLevel: "all" })).release();
    }
  } finally {
    console.warn = warn;
  }
  assert.deepEqual(said, [
    'lethe: LETHE-OPTION: there is no option "graphOptimisationLevel"; did you mean graphOptimizationLevel?',
  ]);
});

test("options of onnxruntime-web are taken, and mean what they say", async () => {
  const session = await InferenceSession.create(bytes, {
    executionProviders: ["webgpu", { name: "wasm" }], graphOptimizationLevel: "disabled",
    freeDimensionOverrides: { batch: 2 }, preferredOutputLocation: "gpu-buffer", enableCpuMemArena: true,
    intraOpNumThreads: 1, logSeverityLevel: 3, extra: {}, enableGraphCapture: false, executionMode: "sequential",
  });
  assert.deepEqual(session.inputMetadata[0].shape, [2, 1, 28, 28]);
  // Nothing was fused.
  assert.ok(session.description.operators.Relu > 0);
  await assert.rejects(session.run({ input: input() }), code("LETHE-INPUT-SHAPE"));
  const two = new Tensor("float32", new Float32Array(2 * 784), [2, 1, 28, 28]);
  const { logits } = await session.run({ input: two }, { tag: "a", logVerbosityLevel: 0, terminate: false });
  assert.deepEqual([logits.dims, logits.location], [[2, 10], "cpu"]);
  await assert.rejects(session.run({ input: two }, { terminate: true }), { name: "AbortError" });
  await session.release();
});

test("a model is taken from a part of a buffer, in pieces and as a Blob", async () => {
  const padded = new Uint8Array(bytes.length + 20);
  padded.set(bytes, 7);
  const pieces = [bytes.subarray(0, 1000), new Blob([bytes.subarray(1000, 5000)]), bytes.slice(5000)];
  for (const worker of [true, false]) {
    for (const args of [
      [padded.buffer, 7, bytes.length, { worker }],
      [bytes.slice().buffer, 0, { worker }],
      [pieces, { worker }],
      [new Blob([bytes]), { worker }],
    ]) {
      const session = await InferenceSession.create(...args);
      assert.equal(session.description.fileBytes, bytes.length);
      await session.release();
    }
  }
  for (const args of [[padded.buffer, 7, padded.length], [padded.buffer, -1], [padded.buffer, 0.5], [bytes, 1, 2]]) {
    await assert.rejects(InferenceSession.create(...args), code("LETHE-OPTION"));
  }
});

test("outputs are put into tensors that are given for them", async () => {
  const session = await InferenceSession.create(bytes);
  const place = new Tensor("float32", new Float32Array(10), [1, 10]);
  const { logits } = await session.run({ input: input() }, { logits: place });
  assert.equal(logits, place);
  const fresh = await session.run({ input: input() }, { logits: null }, { tag: "again" });
  assert.deepEqual(fresh.logits.data, place.data);
  for (const wrong of [new Tensor("float32", new Float32Array(20), [2, 10]), new Tensor("int32", new Int32Array(10), [1, 10])]) {
    await assert.rejects(session.run({ input: input() }, { logits: wrong }), code("LETHE-OUTPUT-SHAPE"));
  }
  await assert.rejects(session.run({ input: input() }, place), code("LETHE-OPTION"));
  await session.release();
});

test("tensors of another library are taken by their parts", async () => {
  const session = await InferenceSession.create(bytes);
  const { Tensor: Other } = await import("onnxruntime-common");
  const theirs = new Other("float32", new Float32Array(784).fill(0.5), [1, 1, 28, 28]);
  const { logits } = await session.run({ input: theirs });
  assert.deepEqual(logits.data, (await session.run({ input: input() })).logits.data);
  // The results are a plain object, which programs write to.
  const results = await session.run({ input: { type: "float32", data: new Float32Array(784), dims: [1, 1, 28, 28] } });
  results.logits = 1;
  await session.release();
});

test("an input that the model does not have is left out where it has all that it needs", async () => {
  const [said, warn] = [[], console.warn];
  console.warn = (text) => said.push(text);
  const session = await InferenceSession.create(bytes);
  for (let i = 0; i < 2; i += 1) await session.run({ input: input(), rate: new Tensor("int64", [16000]) });
  console.warn = warn;
  assert.deepEqual(said, ['lethe: LETHE-INPUT-UNKNOWN: the model has no input "rate": it is left out']);
  await assert.rejects(session.run({ inputs: input() }), code("LETHE-INPUT-UNKNOWN"));
  await session.release();
});

test("NaN is refused where that is wanted", async () => {
  const session = await InferenceSession.create(bytes, { refuseNaN: true });
  const pixels = new Float32Array(784);
  await session.run({ input: new Tensor("float32", pixels, [1, 1, 28, 28]) });
  pixels[783] = NaN;
  await assert.rejects(session.run({ input: new Tensor("float32", pixels, [1, 1, 28, 28]) }), code("LETHE-INPUT-NAN"));
  await session.release();
});

test("steps are measured", async () => {
  const session = await InferenceSession.create(bytes);
  const times = await session.profile({ input: input() });
  assert.ok(times.some(({ operator, ms }) => operator.endsWith("Conv") && ms >= 0));
  const [said, log] = [[], console.log];
  console.log = (text) => said.push(text);
  const folder = await mkdtemp(join(tmpdir(), "lethe-profile-"));
  const profiled = await InferenceSession.create(bytes, { enableProfiling: true, profileFilePrefix: join(folder, "p") });
  await profiled.run({ input: input() });
  profiled.endProfiling();
  while (said.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  console.log = log;
  const [file] = await readdir(folder);
  const trace = JSON.parse(await readFile(join(folder, file)));
  assert.ok(trace.filter(({ cat, ph, dur }) => cat === "Node" && ph === "X" && dur >= 0).length >= times.length);
  await rm(folder, { recursive: true });
  await session.release();
  await profiled.release();
});

test("a run without a worker is aborted between two steps", async () => {
  const session = await InferenceSession.create(bytes, { worker: false });
  const big = new Tensor("float32", new Float32Array(784 * 3000), [3000, 1, 28, 28]);
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 1);
  await assert.rejects(session.run({ input: big }, { signal: controller.signal }), { name: "AbortError" });
  const reason = new Error("enough");
  const another = new AbortController();
  setTimeout(() => another.abort(reason), 1);
  await assert.rejects(session.run({ input: big }, { signal: another.signal }), (error) => error === reason);
  assert.equal((await session.run({ input: input() }, { signal: new AbortController().signal })).logits.size, 10);
  await session.release();
});

test("a model is warmed up while it loads", async () => {
  const [said, warn] = [[], console.warn];
  console.warn = (text) => said.push(text);
  for (const warmup of [true, { input: input() }, { input: new Tensor("float32", [1], [1]) }]) {
    const phases = [];
    const session = await InferenceSession.create(bytes, { warmup, onProgress: ({ phase }) => phases.push(phase) });
    assert.deepEqual([...new Set(phases)], ["download", "prepare", "warmup", "ready"]);
    await session.release();
  }
  console.warn = warn;
  assert.equal(said.length, 1);
  assert.match(said[0], /LETHE-INPUT-SHAPE: the warm-up did not run/);
});

test("what is no model is named", async () => {
  const png = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10);
  const text = (words) => new TextEncoder().encode(words);
  for (const [content, named] of [
    [png, /PNG picture/],
    [text("<!DOCTYPE html><html></html>"), /HTML page/],
    [text("version https://git-lfs.github.com/spec/v1\n"), /Git LFS pointer.*git lfs pull/],
    [text("PK\x03\x04"), /ZIP archive/],
    [text('{"error": 1}'), /JSON/],
  ]) {
    await assert.rejects(InferenceSession.create(content), (error) => {
      assert.equal(error.code, "LETHE-MODEL-MALFORMED");
      assert.match(error.message, named);
      return true;
    });
  }
});

test("a truncated download says how much came", async () => {
  await assert.rejects(InferenceSession.create(`${origin}/cut.onnx`), (error) => {
    assert.equal(error.code, "LETHE-FETCH", error.message);
    assert.match(error.message, /ended after 1000 of \d+ bytes/);
    return true;
  });
});

test("backends that a program registers are found by their name", async () => {
  const made = [];
  const handler = {
    inputNames: ["x"], outputNames: ["y"], inputMetadata: [], outputMetadata: [],
    startProfiling() {}, endProfiling() {}, dispose: async () => {},
    run: async (feeds, fetches) => Object.fromEntries(Object.keys(fetches).map((name) => [name, feeds.x])),
  };
  registerBackend("mine", {
    init: async (name) => void made.push(name),
    createInferenceSessionHandler: async (model) => (made.push(model.length), handler),
  }, 10);
  const session = await InferenceSession.create(bytes, { executionProviders: ["mine", "wasm"] });
  const x = new Tensor("float32", [1]);
  assert.equal((await session.run({ x })).y, x);
  assert.deepEqual(made, ["mine", bytes.length]);
  assert.throws(() => registerBackend("mine", {}, 1), code("LETHE-OPTION"));
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
