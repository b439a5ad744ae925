#!/usr/bin/env node
/**
 * The places where people put the package: bundlers, frameworks, pages without a build, extensions, service
 * workers, other runtimes. `node tests/recipes/run.mjs [RECIPE…]`, after `npm ci` here and in
 * `tests/browser`, and `node web/build.mjs`.
 *
 * Each recipe is built in a folder of its own, with the package in its `node_modules` as npm puts it there, and
 * then run; the answer must be the one that Node gets. They are the recipes of docs/bundlers.md. The last line is
 * `N passed, N failed[, N skipped]`.
 */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { promisify } from "node:util";
import { serve } from "../../www/serve.mjs";
import { launch, launchWithExtension, ROOT } from "../browser/chromium.mjs";
import { Skip, Suite } from "../browser/suite.mjs";

const HERE = import.meta.dirname;
const OUT = join(ROOT, "target", "recipes");
const PKG = join(ROOT, "web", "pkg");
const MODULES = join(HERE, "node_modules");
const run = promisify(execFile);

/** The policy of a strict page: no inline scripts, no eval, one origin. */
const STRICT = {
  "content-security-policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'",
};
const ISOLATED = {
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-opener-policy": "same-origin",
};

/** A project's folder: the app, the model, and the package installed. */
async function project(name) {
  const folder = join(OUT, name);
  await rm(folder, { recursive: true, force: true });
  await mkdir(join(folder, "node_modules"), { recursive: true });
  await cp(join(HERE, "app"), folder, { recursive: true });
  await cp(join(ROOT, "models", "digits", "model.onnx"), join(folder, "public", "model.onnx"));
  const lethe = join(folder, "node_modules", "lethe");
  await cp(join(ROOT, "web", "package.json"), join(lethe, "package.json"));
  await cp(PKG, join(lethe, "pkg"), { recursive: true });
  for (const entry of await readdir(MODULES)) {
    if (!existsSync(join(folder, "node_modules", entry))) await symlink(join(MODULES, entry), join(folder, "node_modules", entry));
  }
  await writeFile(join(folder, "package.json"), '{ "type": "module", "private": true }\n');
  return folder;
}

let expected;
function check({ logits, error }) {
  assert.equal(error, undefined);
  assert.equal(logits.length, 10);
  logits.forEach((x, i) => assert.ok(Math.abs(x - expected[i]) < 1e-3, `${logits}, not ${expected}`));
}

let browser;
/** What a page answers that is served from `folder` under `base`. */
async function answerOf(folder, { base = "/", path = "", headers = {}, before = async () => {} } = {}) {
  const server = await serve({ [base]: folder }, 0, headers);
  const context = await browser.newContext();
  const said = [];
  try {
    const page = await context.newPage();
    page.on("console", (message) => said.push(message.text()));
    page.on("pageerror", (error) => said.push(`${error}`));
    await before(page, `${server.origin}${base}`);
    await page.goto(`${server.origin}${base}${path}`);
    const waited = page.waitForFunction(() => globalThis.answer, undefined, { timeout: 20_000 });
    const handle = await waited.catch((error) => assert.fail(`${error.message}\n${said.join("\n")}`));
    return await handle.jsonValue();
  } finally {
    await context.close();
    server.close();
  }
}

/** A built site is tried in all the ways in which it may be served. */
async function checkEverywhere(dist) {
  check(await answerOf(dist));
  check(await answerOf(dist, { base: "/some/where/" }));
  check(await answerOf(dist, { headers: { ...STRICT, ...ISOLATED } }));
  check(await answerOf(dist, { path: "?here" }));
}

async function vite(name, module) {
  const folder = await project(name);
  const { build } = await import(createRequire(join(HERE, "x.js")).resolve(module).replace(/\.cjs$/, ".js")).catch(() => import(module));
  await build({ root: folder, base: "./", logLevel: "error", configFile: false });
  await checkEverywhere(join(folder, "dist"));
}

const RECIPES = {
  "Vite 8": () => vite("vite", "vite"),

  "Vite 6": () => vite("vite6", "vite6"),

  async "Vite, its server for development"() {
    const folder = await project("vite-dev");
    const { createServer } = await import("vite");
    const server = await createServer({
      root: folder, configFile: false, logLevel: "error", optimizeDeps: { exclude: ["lethe"] },
      server: { host: "127.0.0.1", port: 0 }, cacheDir: join(folder, ".vite"),
    });
    await server.listen();
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await page.goto(server.resolvedUrls.local[0]);
      const handle = await page.waitForFunction(() => globalThis.answer, undefined, { timeout: 20_000 });
      check(await handle.jsonValue());
    } finally {
      await context.close();
      await server.close();
    }
  },

  async webpack() {
    const folder = await project("webpack");
    const { default: webpack } = await import("webpack");
    const dist = join(folder, "dist");
    const stats = await promisify(webpack)({
      mode: "production", context: folder, entry: "./page.js", output: { path: dist, filename: "page.js", publicPath: "auto" },
      performance: { hints: false },
    });
    assert.ok(!stats.hasErrors() && !stats.hasWarnings(), stats.toString());
    await cp(join(folder, "index.html"), join(dist, "index.html"));
    await cp(join(folder, "public"), dist, { recursive: true });
    await checkEverywhere(dist);
  },

  async Rollup() {
    const folder = await project("rollup");
    const { rollup } = await import("rollup");
    const { nodeResolve } = await import("@rollup/plugin-node-resolve");
    const { importMetaAssets } = await import("@web/rollup-plugin-import-meta-assets");
    const dist = join(folder, "dist");
    const bundle = await rollup({ input: join(folder, "page.js"), plugins: [nodeResolve({ browser: true }), importMetaAssets()] });
    await bundle.write({ dir: dist, format: "es" });
    await bundle.close();
    await cp(join(folder, "index.html"), join(dist, "index.html"));
    await cp(join(folder, "public"), dist, { recursive: true });
    await checkEverywhere(dist);
  },

  async "esbuild, with the package's files copied"() {
    const folder = await project("esbuild");
    const esbuild = createRequire(join(ROOT, "web", "package.json"))("esbuild");
    const dist = join(folder, "dist");
    await esbuild.build({ entryPoints: [join(folder, "page.js")], outdir: dist, bundle: true, format: "esm", minify: true });
    for (const file of await readdir(PKG)) if (/\.wasm$|^worker\.js$/.test(file)) await cp(join(PKG, file), join(dist, file));
    await cp(join(folder, "index.html"), join(dist, "index.html"));
    await cp(join(folder, "public"), dist, { recursive: true });
    await checkEverywhere(dist);
  },

  async "esbuild, in one file"() {
    const folder = await project("esbuild-inline");
    const esbuild = createRequire(join(ROOT, "web", "package.json"))("esbuild");
    const dist = join(folder, "dist");
    await esbuild.build({
      absWorkingDir: folder, entryPoints: ["page.js"], outdir: dist, bundle: true, format: "esm",
      alias: { lethe: "lethe/inline" },
    });
    await cp(join(folder, "index.html"), join(dist, "index.html"));
    await cp(join(folder, "public"), dist, { recursive: true });
    check(await answerOf(dist));
    check(await answerOf(dist, { headers: STRICT }));
  },

  async "Next, on the client, imported on the server, and run there"() {
    const folder = await project("next");
    await cp(join(HERE, "next"), folder, { recursive: true });
    const next = join(MODULES, "next", "dist", "bin", "next");
    // It takes for its root the folder that has the modules.
    await rm(join(folder, "node_modules"), { recursive: true });
    await mkdir(join(folder, "node_modules"));
    for (const name of ["next", "react", "react-dom", "@next", "@swc", "styled-jsx", "client-only", "postcss", "nanoid", "picocolors", "source-map-js", "scheduler", "caniuse-lite", "baseline-browser-mapping", "tslib"]) {
      const from = join(MODULES, name);
      if (existsSync(from)) await cp(from, join(folder, "node_modules", name), { recursive: true, verbatimSymlinks: true });
    }
    await cp(join(ROOT, "web", "package.json"), join(folder, "node_modules", "lethe", "package.json"));
    await cp(PKG, join(folder, "node_modules", "lethe", "pkg"), { recursive: true });
    const environment = { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" };
    const local = join(folder, "node_modules", "next", "dist", "bin", "next");
    await run(process.execPath, [existsSync(local) ? local : next, "build"], { cwd: folder, env: environment, maxBuffer: 1 << 24 }).catch(
      (error) => assert.fail(`${error.stdout}${error.stderr}`.slice(-3000)),
    );
    const server = spawn(process.execPath, [local, "start", "-H", "127.0.0.1", "-p", "0"], { cwd: folder, env: environment });
    try {
      const url = await new Promise((resolve, reject) => {
        let said = "";
        server.stdout.on("data", (data) => {
          said += data;
          const found = said.match(/http:\/\/127\.0\.0\.1:\d+/);
          if (found && /Ready/.test(said)) resolve(found[0]);
        });
        server.on("exit", () => reject(new Error(said)));
      });
      const context = await browser.newContext();
      const page = await context.newPage();
      await page.goto(url);
      const handle = await page.waitForFunction(() => globalThis.answer, undefined, { timeout: 20_000 });
      check(await handle.jsonValue());
      await context.close();
      check({ logits: await (await fetch(`${url}/api`)).json() });
    } finally {
      server.kill();
    }
  },

  async "plain HTML with an import map"() {
    const folder = await project("import-map");
    await plain(folder);
    check(await answerOf(folder));
    check(await answerOf(folder, { base: "/some/where/" }));
    check(await answerOf(folder, { headers: ISOLATED }));
  },

  async "<script>, with the global ort"() {
    const folder = await project("script");
    await cp(PKG, join(folder, "lethe"), { recursive: true });
    await cp(join(folder, "public", "model.onnx"), join(folder, "model.onnx"));
    await writeFile(join(folder, "app.js"), `
      const pixels = Float32Array.from({ length: 784 }, (_, i) => (i % 28 > 12 && i % 28 < 16 ? 1 : 0));
      ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] })
        .then((session) => session.run({ input: new ort.Tensor("float32", pixels, [1, 1, 28, 28]) }))
        .then(({ logits }) => (globalThis.answer = { logits: [...logits.data] }), (error) => (globalThis.answer = { error: error.message }));`);
    await writeFile(join(folder, "index.html"), '<!doctype html><script src="lethe/script.js"></script><script src="app.js"></script>');
    check(await answerOf(folder, { headers: { ...STRICT, ...ISOLATED } }));
    check(await answerOf(folder, { base: "/some/where/" }));
  },

  async "a page without network, by a service worker"() {
    const folder = await project("offline");
    await plain(folder);
    const server = await serve({ "/": folder }, 0, {});
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await page.goto(`${server.origin}/`);
      await page.evaluate(async () => {
        await navigator.serviceWorker.register("offline.js");
        await navigator.serviceWorker.ready;
      });
      await context.setOffline(true);
      await page.reload();
      const handle = await page.waitForFunction(() => globalThis.answer, undefined, { timeout: 20_000 });
      check(await handle.jsonValue());
    } finally {
      await context.close();
      server.close();
    }
  },

  async "a service worker that runs the model"() {
    const folder = await project("service-worker");
    const esbuild = createRequire(join(ROOT, "web", "package.json"))("esbuild");
    await esbuild.build({ entryPoints: [join(folder, "service-worker.js")], outfile: join(folder, "built.js"), bundle: true, format: "iife" });
    await cp(join(folder, "public", "model.onnx"), join(folder, "model.onnx"));
    await writeFile(join(folder, "index.html"), "<!doctype html>");
    const server = await serve({ "/": folder }, 0, {});
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await page.goto(`${server.origin}/`);
      const logits = await page.evaluate(async () => {
        await navigator.serviceWorker.register("built.js");
        await navigator.serviceWorker.ready;
        if (!navigator.serviceWorker.controller) {
          await new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
        }
        return (await fetch("read")).json();
      });
      check(Array.isArray(logits) ? { logits } : logits);
    } finally {
      await context.close();
      server.close();
    }
  },

  async "an extension (Manifest V3)"() {
    const folder = await project("extension");
    const esbuild = createRequire(join(ROOT, "web", "package.json"))("esbuild");
    const built = join(folder, "built");
    await esbuild.build({ entryPoints: [join(folder, "page.js")], outdir: built, bundle: true, format: "esm" });
    for (const file of await readdir(PKG)) if (/\.wasm$|^worker\.js$/.test(file)) await cp(join(PKG, file), join(built, file));
    await cp(join(HERE, "extension"), built, { recursive: true });
    await cp(join(folder, "public", "model.onnx"), join(built, "model.onnx"));
    await cp(join(folder, "index.html"), join(built, "index.html"));
    const context = await launchWithExtension(built, join(folder, "profile"));
    try {
      const page = await context.newPage();
      await page.goto("chrome://extensions/");
      const id = await page.evaluate(async () => (await chrome.developerPrivate.getExtensionsInfo())[0]?.id);
      if (!id) throw new Skip("this Chromium loads no extensions");
      await page.goto(`chrome-extension://${id}/index.html`);
      const handle = await page.waitForFunction(() => globalThis.answer, undefined, { timeout: 20_000 });
      check(await handle.jsonValue());
    } finally {
      await context.close();
    }
  },

  async "Node, import and require"() {
    const folder = await project("node");
    for (const [file, text] of [
      ["a.mjs", 'import { read } from "./main.js"; console.log(JSON.stringify(await read("public/model.onnx")));'],
      ["b.cjs", `const { InferenceSession, Tensor, default: all } = require("lethe");
        if (all.Tensor !== Tensor) throw new Error("default");
        const pixels = Float32Array.from({ length: 784 }, (_, i) => (i % 28 > 12 && i % 28 < 16 ? 1 : 0));
        InferenceSession.create("public/model.onnx")
          .then((session) => session.run({ input: new Tensor("float32", pixels, [1, 1, 28, 28]) }))
          .then(({ logits }) => console.log(JSON.stringify([...logits.data])));`],
    ]) {
      await writeFile(join(folder, file), text);
      check({ logits: JSON.parse((await run(process.execPath, [file], { cwd: folder })).stdout) });
    }
  },

  async "the package as publint and attw see it"() {
    const folder = await project("published");
    const { stdout } = await run("npm", ["pack", "--silent", "--pack-destination", folder], { cwd: join(ROOT, "web") });
    const tarball = join(folder, stdout.trim());
    const bin = (name) => join(MODULES, ".bin", name);
    const seen = await run(bin("publint"), ["run", tarball, "--strict"]).catch((error) => assert.fail(error.stdout + error.stderr));
    assert.match(seen.stdout, /All good/);
    // `lethe/inline` is for bundlers and pages alone.
    const attw = ["--exclude-entrypoints", "inline", "--format", "json", tarball];
    // It ends with 1 also for what is passed over here: no entry points for Node before 16.
    const said = await run(bin("attw"), attw, { maxBuffer: 1 << 26 }).catch((error) => error);
    const { problems = {} } = JSON.parse(said.stdout);
    assert.deepEqual(Object.keys(problems).filter((kind) => kind !== "NoResolution"), []);
    // What is published, and how large: all of it as npm sends it, in a budget.
    const bytes = (await readFile(tarball)).length;
    const sizes = JSON.parse(await readFile(join(PKG, "sizes.json"), "utf8"));
    assert.ok(Object.values(sizes).every(({ brotliBytes }) => brotliBytes < 1e6), JSON.stringify(sizes));
    return `${(bytes / 1e6).toFixed(1)} MB`;
  },

  Deno: () => runtime("deno", join(MODULES, "@deno"), ["run", "--allow-all", "--node-modules-dir=manual"]),

  Bun: () => runtime("bun", join(MODULES, "@oven"), ["run"]),
};

/** The app as it is, with the package beside it. */
async function plain(folder) {
  await cp(PKG, join(folder, "lethe"), { recursive: true });
  await cp(join(folder, "public", "model.onnx"), join(folder, "model.onnx"));
  await writeFile(join(folder, "index.html"), `<!doctype html><title>a digit</title>
    <script type="importmap">{ "imports": { "lethe": "./lethe/index.js" } }</script>
    <script type="module" src="page.js"></script>`);
}

/** A runtime that npm has as a program. */
async function runtime(name, packages, args) {
  const found = existsSync(packages)
    ? (await readdir(packages, { recursive: true })).find((path) => path.split("/").at(-1) === name)
    : undefined;
  if (!found) throw new Skip(`npm has no ${name} for this machine`);
  const folder = await project(name);
  await writeFile(join(folder, "a.mjs"), `import { read } from "./main.js";
    for (const worker of [true, false]) console.log(JSON.stringify(await read("public/model.onnx", { worker })));`);
  const program = join(packages, found);
  await run("chmod", ["+x", program]);
  const { stdout } = await run(program, [...args, "a.mjs"], { cwd: folder, timeout: 60_000 }).catch((error) =>
    assert.fail(`${error.message}\n${error.stdout}${error.stderr}`));
  const answers = stdout.trim().split("\n");
  assert.equal(answers.length, 2, stdout);
  for (const line of answers) check({ logits: JSON.parse(line) });
}

const named = process.argv.slice(2);
const suite = new Suite();
const reference = await project("reference");
await writeFile(join(reference, "a.mjs"), 'import { read } from "./main.js"; console.log(JSON.stringify(await read("public/model.onnx", { worker: false })));');
expected = JSON.parse((await run(process.execPath, ["a.mjs"], { cwd: reference })).stdout);
browser = await launch();
try {
  for (const [name, recipe] of Object.entries(RECIPES)) {
    if (named.length === 0 || named.some((word) => name.toLowerCase().startsWith(word.toLowerCase()))) await suite.test(name, recipe);
  }
} finally {
  await browser.close();
}
process.exitCode = suite.end();
