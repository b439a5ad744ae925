#!/usr/bin/env node
/**
 * Builds the npm package into `web/pkg`: `node web/build.mjs [--quick] [NAME…]`, after `npm ci` in
 * `web`.
 *
 *     cargo build (SIMD128, relaxed SIMD, WebGPU) → wasm-bindgen → wasm-opt → pkg/lethe-*.wasm
 *                                                       └► glue/*.js ┐
 *                                                           lib/*.ts ┴► esbuild → pkg/*.js, *.cjs
 *                                                                    └► dts-bundle-generator → pkg/*.d.ts
 *
 * wasm-bindgen comes out of its library, by the crate `web/tools`. With `--quick` the modules are
 * those of a debug build, as tests use them: the same code, compiled in a fraction of the time and
 * several times as large and slow.
 *
 * A module that stands is not made again: what follows cargo is done where cargo's module, the tools
 * or the options are others than those that `target/web/made.json` names.
 * A name, such as `relaxed`, makes only that build.
 *
 * Prints the size of each build's WebAssembly, raw and compressed with brotli, and leaves the
 * figures in `pkg/sizes.json` for the site.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants, gzipSync } from "node:zlib";

const WEB = import.meta.dirname;
const ROOT = join(WEB, "..");
const PKG = join(WEB, "pkg");
/** What wasm-bindgen makes, in the form that `lib` takes it. */
const GLUE = join(WEB, "glue");
const MADE = join(ROOT, "target", "web", "made.json");
/**
 * The build for WebGPU does with what every browser has: the heavy work is the GPU's. Where folder
 * and instructions are those of a guest (`wasm-host/sandbox/build.rs`), the engine is compiled once
 * for both.
 */
const BUILDS = [
  { name: "simd128", instructions: "+simd128", target: "guest", cargoFeatures: "" },
  { name: "webgpu", instructions: "+simd128", target: "guest", cargoFeatures: "webgpu" },
  { name: "relaxed", instructions: "+simd128,+relaxed-simd", target: "guest-relaxed", cargoFeatures: "" },
];
/** The instructions that the builds may use. */
const WASM_FEATURES = [
  "--enable-bulk-memory", "--enable-bulk-memory-opt", "--enable-mutable-globals",
  "--enable-nontrapping-float-to-int", "--enable-sign-ext", "--enable-multivalue",
  "--enable-reference-types", "--enable-simd",
];
const JOBS = process.env.CARGO_BUILD_JOBS ? ["--jobs", process.env.CARGO_BUILD_JOBS] : [];

const words = process.argv.slice(2);
const quick = words.includes("--quick");
const chosen = words.filter((word) => word !== "--quick");
const unknown = chosen.find((word) => !BUILDS.some(({ name }) => name === word));
if (unknown) {
  console.error(`no build is named ${unknown}: there are ${BUILDS.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}
const profile = quick ? "wasm-dev" : "wasm";

/** Runs a command; what it says is shown when it fails. */
async function run(command, args, options = {}) {
  try {
    await promisify(execFile)(command, args, { cwd: ROOT, maxBuffer: 1 << 26, ...options });
  } catch (failure) {
    console.error(`${failure.stdout ?? ""}${failure.stderr ?? ""}`);
    throw new Error(`${command} failed`, { cause: failure.code });
  }
}

const sha256 = (...parts) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part).update("\0");
  return hash.digest("hex");
};

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(0)} s`;

/** Compiles a module with cargo, which leaves alone what stands; its bytes. */
async function compile({ name, instructions, target, cargoFeatures }) {
  const folder = join(ROOT, "target", target);
  const home = process.env.CARGO_HOME ?? join(homedir(), ".cargo");
  // As in `wasm-host/sandbox/build.rs`. Nothing published says where it was built.
  const flags = [
    `-Ctarget-feature=${instructions}`,
    `--remap-path-prefix=${ROOT}=lethe`,
    `--remap-path-prefix=${home}=cargo`,
  ];
  const start = performance.now();
  await run(
    "cargo",
    [
      "build", "--quiet", "--package", "lethe-web", "--lib", "--profile", profile, ...JOBS,
      "--target", "wasm32-unknown-unknown", "--target-dir", folder, "--features", cargoFeatures,
    ],
    { env: { ...process.env, CARGO_ENCODED_RUSTFLAGS: flags.join("\x1f") } },
  );
  console.log(`${name}: compiled in ${seconds(start)}`);
  return readFile(join(folder, "wasm32-unknown-unknown", profile, "lethe_web.wasm"));
}

/** Where a build's glue is, before `lib` takes it. */
const bindingsOf = (name) => join(ROOT, "target", "web", name, "glue.js");

/**
 * Makes wasm-bindgen's glue a function, each call of which makes a binding of its own: wasm-bindgen's knows one
 * instance.
 */
async function bindings(name, module) {
  const { outputFiles: [glue] } = await esbuild.build({
    stdin: { contents: await readFile(module, "utf8") }, bundle: true, format: "iife", globalName: "glue",
    write: false, target: "es2022",
  });
  await writeFile(bindingsOf(name), `export function makeGlue() {\n${glue.text}return glue;\n}\n`);
}

/** Puts the glue of all builds where `lib` takes it. Builds of one kind that differ in their instructions share it. */
async function shareBindings() {
  const simd128 = await readFile(bindingsOf("simd128"), "utf8");
  for (const { name } of BUILDS) {
    const own = await readFile(bindingsOf(name), "utf8");
    const isShared = name !== "simd128" && own === simd128;
    await writeFile(join(GLUE, `${name}.js`), isShared ? 'export { makeGlue } from "./simd128.js";\n' : own);
    await writeFile(join(GLUE, `${name}.d.ts`), 'export declare function makeGlue(): typeof import("./lethe.js");\n');
  }
}

/** Binds and shrinks a compiled module into the package; its sizes. */
async function finish({ name }, module, bind) {
  const start = performance.now();
  const compiled = join(ROOT, "target", "web", `${name}.wasm`);
  const out = join(ROOT, "target", "web", name);
  await writeFile(compiled, module);
  await run(bind, [compiled, out]);
  const wasm = join(PKG, `lethe-${name}.wasm`);
  await run(process.execPath, [
    join(WEB, "node_modules", "binaryen", "bin", "wasm-opt"), join(out, "lethe_bg.wasm"), "-o", wasm,
    quick ? "-O0" : "-O3", ...WASM_FEATURES, ...(name === "relaxed" ? ["--enable-relaxed-simd"] : []),
    "--strip-debug", "--strip-target-features",
  ]);
  await bindings(name, join(out, "lethe.js"));
  await copyFile(join(out, "lethe.d.ts"), join(GLUE, "lethe.d.ts"));
  const bytes = await readFile(wasm);
  const brotli = await promisify(brotliCompress)(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: quick ? 5 : constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
  console.log(`${name}: bound and shrunk in ${seconds(start)}`);
  return { rawBytes: bytes.length, brotliBytes: brotli.length };
}

/** The forms of the package's JavaScript. What says where it is differs between them. */
const HERE = {
  cjs: 'const lethe_here = require("node:url").pathToFileURL(__filename).href;',
  // A page's script, or a worker's that was imported.
  iife: 'const lethe_here = globalThis.document?.currentScript?.src ?? location.href;',
};
const FORMS = [
  { entry: "index", out: "index.js", format: "esm" },
  { entry: "index", out: "index.cjs", format: "cjs" },
  { entry: "index", out: "script.js", format: "iife", globalName: "ort", minify: true },
  { entry: "inline", out: "inline.js", format: "esm", minify: true },
  { entry: "worker", out: "worker.js", format: "iife", minify: true, hasNoAddress: true },
];

/** Bundles `lib` into the forms of the package: each is one file, and no other is referred to in it. */
async function bundle() {
  const { version } = JSON.parse(await readFile(join(WEB, "package.json"), "utf8"));
  await shareBindings();
  const compressed = gzipSync(await readFile(join(PKG, "lethe-simd128.wasm")), { level: 9 });
  await writeFile(join(GLUE, "inline.js"), `export const COMPRESSED = "${compressed.toString("base64")}";\n`);
  await writeFile(join(GLUE, "inline.d.ts"), "export declare const COMPRESSED: string;\n");
  for (const { entry, out, format, globalName, minify = false, hasNoAddress = false } of FORMS) {
    const here = hasNoAddress ? undefined : HERE[format];
    await esbuild.build({
      entryPoints: [join(WEB, "lib", `${entry}.ts`)], outfile: join(PKG, out), bundle: true, format, minify,
      ...(globalName && { globalName }), target: "es2022", platform: "neutral", legalComments: "none",
      define: { LETHE_VERSION: JSON.stringify(version), ...(here && { "import.meta.url": "lethe_here" }) },
      ...(here && { banner: { js: here } }),
    });
  }
  const bin = join(WEB, "node_modules", ".bin");
  await run(process.execPath, [join(WEB, "node_modules", "typescript", "bin", "tsc"), "--project", WEB, "--noEmit"]);
  await run(join(bin, "dts-bundle-generator"), [
    "--project", join(WEB, "tsconfig.json"), "--no-banner", "--export-referenced-types", "false",
    "--out-file", join(PKG, "exports.d.ts"), join(WEB, "lib", "exports.ts"),
  ]);
  await copyFile(join(PKG, "exports.d.ts"), join(PKG, "exports.d.cts"));
  // The generator knows no default export that is the module itself.
  const everything = 'export * from "./exports.js";\nimport * as lethe from "./exports.js";\nexport default lethe;\n';
  for (const file of ["index.d.ts", "inline.d.ts"]) await writeFile(join(PKG, file), everything);
  // What `require` gives is the whole; who wants a default of it has the module.
  await writeFile(join(PKG, "index.d.cts"), 'export * from "./exports.cjs";\n');
}

if (!existsSync(join(WEB, "node_modules"))) {
  console.error("run `npm ci` in web first");
  process.exit(2);
}
const esbuild = await import("esbuild");
await mkdir(PKG, { recursive: true });
await mkdir(GLUE, { recursive: true });
await mkdir(join(ROOT, "target", "web"), { recursive: true });
const made = existsSync(MADE) ? JSON.parse(await readFile(MADE, "utf8")) : {};

console.log("building wasm-bindgen");
await run("cargo", ["build", "--quiet", "--package", "lethe-web-tools", "--bin", "bind", ...JOBS]);
const bind = join(ROOT, "target", "debug", "bind");
const tools = sha256(
  await readFile(bind),
  await readFile(join(WEB, "package-lock.json")),
  await readFile(import.meta.filename),
);

/** What follows cargo uses one core, and goes on beside the next compilation. */
async function build(options, module) {
  const key = sha256(module, tools, profile);
  const stands = made[options.name];
  const wasm = join(PKG, `lethe-${options.name}.wasm`);
  if (stands?.key === key && existsSync(bindingsOf(options.name)) && existsSync(wasm) && sha256(await readFile(wasm)) === stands.sha256) return;
  const sizes = await finish(options, module, bind);
  made[options.name] = { key, sha256: sha256(await readFile(wasm)), sizes };
}

const wanted = BUILDS.filter(({ name }) => chosen.length === 0 || chosen.includes(name));
/** Compiles the builds of one target folder one after the other: cargo would have the second wait. */
async function compileIn(target) {
  const finishing = [];
  for (const options of wanted.filter((options) => options.target === target)) {
    finishing.push(build(options, await compile(options)));
  }
  await Promise.all(finishing);
}
try {
  await Promise.all([...new Set(wanted.map(({ target }) => target))].map(compileIn));
} finally {
  await writeFile(MADE, `${JSON.stringify(made)}\n`);
}
// What an earlier version of the sources left is not to be published.
const modules = BUILDS.map(({ name }) => `lethe-${name}.wasm`);
for (const entry of await readdir(PKG)) {
  if (!modules.includes(entry)) await rm(join(PKG, entry), { recursive: true });
}
await bundle();
const sizes = Object.fromEntries(BUILDS.map(({ name }) => [name, made[name]?.sizes]));
await writeFile(join(PKG, "sizes.json"), `${JSON.stringify(sizes)}\n`);
for (const { name } of wanted) {
  const { rawBytes, brotliBytes } = sizes[name];
  console.log(`${name}: ${rawBytes} bytes of wasm, ${brotliBytes} with brotli`);
}
