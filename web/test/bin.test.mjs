import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const PROGRAM = new URL("../bin/lethe.mjs", import.meta.url).pathname;
const DIGITS = new URL("../../models/digits/model.onnx", import.meta.url).pathname;
const lethe = (...args) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [PROGRAM, ...args], { encoding: "utf8" });
  return { status, stdout, stderr };
};

test("check says what runs and what does not", () => {
  const both = lethe("check", "--json", DIGITS, PROGRAM);
  assert.equal(both.status, 1);
  const [digits, none] = JSON.parse(both.stdout);
  assert.ok(digits.loads && digits.runs && digits.runMs > 0 && digits.slowest.length > 0);
  assert.deepEqual(digits.inputs, ["input: float32 [batch, 1, 28, 28]"]);
  assert.deepEqual([none.loads, none.error.code], [false, "LETHE-MODEL-MALFORMED"]);
  const one = lethe("check", DIGITS);
  assert.equal(one.status, 0);
  assert.match(one.stdout, /runs {7}on wasm/);
});

test("what is not understood is said, with how it is used", () => {
  for (const args of [["frob"], ["check"], ["check", DIGITS, "--fast"], ["migrate", "/nowhere"]]) {
    const { status, stderr } = lethe(...args);
    assert.equal(status, 2, args.join(" "));
    assert.match(stderr, /^lethe: /);
  }
  assert.match(lethe("--help").stdout, /check MODEL/);
});

test("migrate swaps a project's imports, and says what to look at", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lethe-migrate-"));
  const files = {
    "package.json": '{\n    "name": "app",\n    "dependencies": { "onnxruntime-web": "^1.20.0", "react": "19.0.0" }\n}\n',
    "src/a.ts": 'import * as ort from "onnxruntime-web/webgpu";\nimport type { Tensor } from \'onnxruntime-common\';\nort.env.wasm.numThreads = 4;\n',
    "src/b.cjs": 'const ort = require("onnxruntime-node");\nconst text = "about onnxruntime-web";\n',
    "src/c.js": 'import wasm from "onnxruntime-web/dist/ort-wasm-simd.wasm";\n',
    "node_modules/x/index.js": 'require("onnxruntime-web");\n',
  };
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(folder, name, ".."), { recursive: true });
    await writeFile(join(folder, name), text);
  }
  const dry = lethe("migrate", folder);
  assert.equal(dry.status, 0, dry.stderr);
  assert.match(dry.stdout, /3 imports in 2 files would be swapped/);
  assert.equal(await readFile(join(folder, "src/a.ts"), "utf8"), files["src/a.ts"]);
  const { stdout } = lethe("migrate", folder, "--write");
  assert.match(stdout, /numThreads/);
  assert.match(stdout, /c\.js: .*a file inside of onnxruntime-web/);
  const read = (name) => readFile(join(folder, name), "utf8");
  assert.match(await read("src/a.ts"), /from "lethe\/webgpu";\n.*from 'lethe';/);
  assert.equal(await read("src/b.cjs"), 'const ort = require("lethe");\nconst text = "about onnxruntime-web";\n');
  for (const same of ["src/c.js", "node_modules/x/index.js"]) assert.equal(await read(same), files[same]);
  const { dependencies, overrides } = JSON.parse(await read("package.json"));
  assert.deepEqual(Object.keys(dependencies).sort(), ["lethe", "onnxruntime-common", "react"]);
  assert.deepEqual(Object.keys(overrides), ["onnxruntime-web", "onnxruntime-node"]);
  await rm(folder, { recursive: true });
});
