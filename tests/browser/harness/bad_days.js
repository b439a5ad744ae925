/** Bad days of the npm package: each test asks for one by name and gets what came of it. */

import * as lethe from "/lethe/index.js";

const MODEL = "/models/digits/model.onnx";
const input = () => new lethe.Tensor("float32", new Float32Array(784).fill(0.5), [1, 1, 28, 28]);
const failed = async (promise) => {
  try {
    await promise;
    return "nothing was thrown";
  } catch (error) {
    return `${error.code ?? error.name}: ${error.message}`;
  }
};
const sha256 = async (bytes) =>
  [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");

globalThis.days = {
  /** Aborts `create` when each phase is told of. */
  async abortsAtEveryPhase(worker) {
    const seen = {};
    for (const phase of ["download", "prepare", "warmup"]) {
      const controller = new AbortController();
      seen[phase] = await failed(lethe.InferenceSession.create(MODEL, {
        worker, warmup: true, signal: controller.signal,
        onProgress: (progress) => progress.phase === phase && controller.abort(),
      }));
    }
    return seen;
  },

  /** A server that answers HTML where WebAssembly is. */
  async htmlForWebAssembly() {
    lethe.env.wasm.wasmPaths = "/harness/nowhere-";
    const missing = await failed(lethe.InferenceSession.create(MODEL));
    lethe.env.wasm.wasmPaths = { wasm: "/harness/bad_days.html" };
    const html = await failed(lethe.InferenceSession.create(MODEL));
    lethe.env.wasm.wasmPaths = undefined;
    const right = await lethe.InferenceSession.create(MODEL);
    await right.release();
    lethe.env.wasm.wasmPaths = "/lethe/";
    await (await lethe.InferenceSession.create(MODEL)).release();
    lethe.env.wasm.wasmPaths = undefined;
    lethe.env.wasm.wasmBinary = await (await fetch("/lethe/lethe-simd128.wasm")).arrayBuffer();
    await (await lethe.InferenceSession.create(MODEL)).release();
    lethe.env.wasm.wasmBinary = undefined;
    return { missing, html };
  },

  async htmlForTheModel() {
    return failed(lethe.InferenceSession.create("/harness/bad_days.html"));
  },

  /** A kept model that somebody changed, and one that is whole. */
  async changedCacheEntry() {
    await lethe.clearModelCache();
    const bytes = await (await fetch(MODEL)).arrayBuffer();
    const options = { sha256: await sha256(bytes), cache: true };
    const cache = await caches.open("lethe-models");
    const names = async () => (await cache.keys()).map(({ url }) => url.split("/").at(-1));
    await (await lethe.InferenceSession.create(MODEL, options)).release();
    const kept = await names();
    // From the cache alone.
    await (await lethe.InferenceSession.create("/nowhere.onnx", options)).release();
    await cache.put((await cache.keys())[0], new Response("something else"));
    await (await lethe.InferenceSession.create(MODEL, options)).release();
    await (await lethe.InferenceSession.create("/nowhere.onnx", options)).release();
    await cache.put((await cache.keys())[0], new Response("something else"));
    const gone = await failed(lethe.InferenceSession.create("/nowhere.onnx", options));
    await lethe.clearModelCache();
    return { kept, hash: options.sha256, gone };
  },

  /** No room for the model in the browser. */
  async quotaExceeded() {
    const [put, said, warn] = [Cache.prototype.put, [], console.warn];
    Cache.prototype.put = () => Promise.reject(new DOMException("full", "QuotaExceededError"));
    console.warn = (text) => said.push(text);
    const bytes = await (await fetch(MODEL)).arrayBuffer();
    const session = await lethe.InferenceSession.create(MODEL, { worker: false, sha256: await sha256(bytes), cache: true });
    const { logits } = await session.run({ input: input() });
    await session.release();
    Cache.prototype.put = put;
    console.warn = warn;
    return { said, size: logits.size };
  },

  /** Two loads at once download the model once. */
  async loadsAtOnce(url) {
    await lethe.clearModelCache();
    const options = { sha256: await sha256(await (await fetch(MODEL)).arrayBuffer()), cache: true };
    const sessions = await Promise.all([1, 2, 3].map(() => lethe.InferenceSession.create(url, options)));
    await Promise.all(sessions.map((session) => session.release()));
    await lethe.clearModelCache();
  },

  async releasedWhileItRuns(worker) {
    const session = await lethe.InferenceSession.create(MODEL, { worker });
    const runs = [session.run({ input: input() }), session.run({ input: input() })];
    const released = session.release();
    const sizes = (await Promise.all(runs)).map(({ logits }) => logits.size);
    await released;
    return { sizes, after: await failed(session.run({ input: input() })) };
  },

  /** Many runs: WebAssembly's memory after some, and after all. */
  async manyRuns(worker) {
    const session = await lethe.InferenceSession.create(MODEL, { worker });
    const bytes = [];
    for (let i = 0; i < 300; i += 1) {
      await session.run({ input: input() });
      bytes.push(session.description.memoryBytes);
    }
    await session.release();
    return { some: bytes[20], all: bytes.at(-1) };
  },

  /** Many sessions in turn. `isKept` keeps them, as a page does that leaks. */
  async manySessions({ worker, isKept }) {
    for (let i = 0; i < 50; i += 1) {
      const session = await lethe.InferenceSession.create(MODEL, { worker });
      await session.run({ input: input() });
      if (isKept) (globalThis.kept ??= []).push(session);
      else await session.release();
    }
  },

  /** A page that is not isolated, or is not allowed a worker. */
  create: (options) => failed(lethe.InferenceSession.create(MODEL, options)),

  async images() {
    const { Tensor } = lethe;
    const pixels = Uint8ClampedArray.from({ length: 4 * 3 * 2 }, (_, i) => (i % 4 === 3 ? 255 : i * 10));
    const image = new ImageData(pixels, 3, 2);
    const tensor = await Tensor.fromImage(image);
    const back = tensor.toImageData();
    const last = await Tensor.fromImage(image, { tensorLayout: "NHWC", tensorFormat: "BGR", dataType: "uint8" });
    const url = tensor.toDataURL();
    const again = await Tensor.fromImage(url);
    const element = Object.assign(new Image(), { src: url });
    const ofElement = await Tensor.fromImage(element, { resizedWidth: 6, resizedHeight: 4 });
    const ofBitmap = await Tensor.fromImage(await createImageBitmap(image), { norm: { mean: [1, 1, 1], bias: [-1, 0, 0] } });
    return {
      dims: tensor.dims, first: tensor.data[0], same: [...back.data].every((x, i) => x === pixels[i]),
      last: [last.type, last.dims, [...last.data.slice(0, 3)]],
      again: [...again.data].every((x, i) => Math.abs(x - tensor.data[i]) < 0.01),
      element: ofElement.dims, bitmap: ofBitmap.data[0],
      wrong: await failed(Tensor.fromImage(image, { tensorFormat: "HSV" })),
      none: await failed(Tensor.fromImage("/nowhere.png")),
      shape: await failed((async () => new Tensor("float32", [1, 2]).toImageData())()),
    };
  },
};
