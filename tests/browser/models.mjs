/** Models in the ONNX test layout, run by the npm package in the browser. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MOUNT, ROOT } from "./chromium.mjs";
import { program } from "./program.mjs";
import { Skip } from "./suite.mjs";

/**
 * The models; `gpuSets` is how many data sets WebGPU gets, whose adapter may be software, and
 * `reproducible` says that the bits are compared.
 */
const MODELS = [
  { folder: "models/digits", gpuSets: Infinity, reproducible: true },
  { folder: "target/models/real/silero_vad", gpuSets: 2, reproducible: true },
  { folder: "target/models/real/minilm_fp32", gpuSets: 1, reproducible: true },
  { folder: "target/models/real/minilm_int8", gpuSets: 1, reproducible: true },
  { folder: "target/models/real/stories260k", gpuSets: 0, reproducible: true },
  { folder: "target/models/real/stories260k_kv", gpuSets: 0, reproducible: true },
];

/** Addresses of a model and its data sets, as the harness takes them. */
function describe(folder, mostSets = Infinity) {
  const at = join(ROOT, folder);
  if (!existsSync(join(at, "model.onnx"))) throw new Skip(`no ${folder}/model.onnx`);
  const sets = [];
  for (let k = 0; k < mostSets && existsSync(join(at, `test_data_set_${k}`)); k += 1) {
    const files = (kind) =>
      readdirSync(join(at, `test_data_set_${k}`))
        .filter((name) => name.startsWith(kind))
        .sort((a, b) => parseInt(a.match(/\d+/)[0]) - parseInt(b.match(/\d+/)[0]))
        .map((name) => `${MOUNT}${folder}/test_data_set_${k}/${name}`);
    sets.push({ inputs: files("input_"), outputs: files("output_") });
  }
  const data = join(at, "data.json");
  const tolerance = existsSync(data) ? JSON.parse(readFileSync(data, "utf8")) : {};
  return { model: `${MOUNT}${folder}/model.onnx`, sets, tolerance };
}

/** The sha256 of each output of `lethe run --numerics reproducible`. */
function nativeDigests(folder, { inputs }, inputNames) {
  const file = (url) => join(ROOT, url.slice(MOUNT.length));
  const given = inputs.flatMap((url, i) => ["--input", `${inputNames[i]}=${file(url)}`]);
  const said = execFileSync(
    program(),
    ["run", join(ROOT, folder, "model.onnx"), "--numerics", "reproducible", "--json", ...given],
    { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] },
  );
  return Object.fromEntries(JSON.parse(said).outputs.map(({ name, sha256 }) => [name, sha256]));
}

const median = (times) => [...times].sort((a, b) => a - b)[times.length >> 1];

/** Runs the tests of the models in a page of the harness. */
export async function testModels(suite, browser, origin) {
  const page = await browser.newPage();
  await page.goto(`${origin}/harness/`);
  await page.waitForFunction(() => globalThis.harness);
  const verify = (request) => page.evaluate((r) => globalThis.harness.verifyModel(r), request);

  for (const { folder, gpuSets, reproducible } of MODELS) {
    const name = folder.split("/").at(-1);
    const check = async (options, sets) => {
      const request = { ...describe(folder, sets), options };
      const result = await verify(request);
      assert.equal(result.backend, options.backend);
      assert.deepEqual(result.differences, []);
      return { result, note: `${median(result.milliseconds).toFixed(1)} ms a run, ${request.sets.length} data sets` };
    };

    for (const build of ["simd128", "relaxed"]) {
      await suite.test(`${name}, wasm ${build}`, async () => {
        return (await check({ backend: "wasm", build })).note;
      });
    }

    if (gpuSets > 0) {
      await suite.test(`${name}, webgpu`, async () => {
        if (!(await page.evaluate(async () => Boolean(await navigator.gpu?.requestAdapter())))) {
          throw new Skip("this browser has no WebGPU adapter");
        }
        return (await check({ backend: "webgpu" }, gpuSets)).note;
      });
    }

    if (reproducible) {
      await suite.test(`${name}, reproducible: the same bits in every build and natively`, async () => {
        const digests = [];
        for (const build of ["simd128", "relaxed"]) {
          const options = { backend: "wasm", numerics: "reproducible", build };
          digests.push((await check(options, 1)).result.digests[0]);
        }
        assert.deepEqual(digests[0], digests[1]);
        for (const [output, digest] of Object.entries(digests[0])) {
          console.log(`    sha256 ${digest}  ${name} test_data_set_0 ${output}`);
        }
        const names = await page.evaluate((r) => globalThis.harness.inputNames(r), describe(folder, 1));
        const native = nativeDigests(folder, describe(folder, 1).sets[0], names);
        assert.deepEqual(digests[0], native);
        return "as the command line gives them";
      });
    }
  }

  await suite.test("silero_vad follows a recording, chunk by chunk", async () => {
    const folder = "target/models/real/silero_vad";
    const { model } = describe(folder, 0);
    const expected = JSON.parse(readFileSync(join(ROOT, folder, "expected.json"), "utf8"));
    const found = await page.evaluate((r) => globalThis.harness.speechProbabilities(r), {
      model, audio: `${MOUNT}${folder}/speech.wav`, chunk: expected.chunk, context: expected.context,
      options: { backend: "wasm" },
    });
    assert.equal(found.length, expected.probabilities.length);
    const worst = Math.max(...found.map((p, i) => Math.abs(p - expected.probabilities[i])));
    assert.ok(worst < 1e-3, `off by ${worst}`);
    return `${found.length} chunks, off by at most ${worst.toExponential(1)}`;
  });

  await page.close();
}
