#!/usr/bin/env node
/**
 * Builds the npm package into `web/pkg`: `node web/build.mjs [--quick] [NAME…]`, after `npm ci` in
 * `web`.
 *
 *     cargo build (SIMD128, relaxed SIMD, WebGPU) → wasm-bindgen → wasm-opt → tsc
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
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants } from "node:zlib";

const WEB = import.meta.dirname;
const ROOT = join(WEB, "..");
const PKG = join(WEB, "pkg");
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

/** Binds and shrinks a compiled module into the package; its sizes. */
async function finish({ name }, module, bind) {
  const start = performance.now();
  const out = join(PKG, name);
  await rm(out, { recursive: true, force: true });
  const compiled = join(ROOT, "target", "web", `${name}.wasm`);
  await writeFile(compiled, module);
  await run(bind, [compiled, out]);
  await rm(join(out, "lethe_bg.wasm.d.ts"));
  const wasm = join(out, "lethe_bg.wasm");
  await run(process.execPath, [
    join(WEB, "node_modules", "binaryen", "bin", "wasm-opt"), wasm, "-o", wasm, quick ? "-O0" : "-O3",
    ...WASM_FEATURES, ...(name === "relaxed" ? ["--enable-relaxed-simd"] : []),
    "--strip-debug", "--strip-target-features",
  ]);
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

if (!existsSync(join(WEB, "node_modules"))) {
  console.error("run `npm ci` in web first");
  process.exit(2);
}
await mkdir(PKG, { recursive: true });
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
  const wasm = join(PKG, options.name, "lethe_bg.wasm");
  if (stands?.key === key && existsSync(wasm) && sha256(await readFile(wasm)) === stands.sha256) return;
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
for (const entry of await readdir(PKG)) {
  if (!BUILDS.some(({ name }) => name === entry)) await rm(join(PKG, entry), { recursive: true });
}
await run(process.execPath, [join(WEB, "node_modules", "typescript", "bin", "tsc"), "--project", WEB]);
const sizes = Object.fromEntries(BUILDS.map(({ name }) => [name, made[name]?.sizes]));
await writeFile(join(PKG, "sizes.json"), `${JSON.stringify(sizes)}\n`);
for (const { name } of wanted) {
  const { rawBytes, brotliBytes } = sizes[name];
  console.log(`${name}: ${rawBytes} bytes of wasm, ${brotliBytes} with brotli`);
}
