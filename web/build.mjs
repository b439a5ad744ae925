#!/usr/bin/env node
/**
 * Builds the npm package into `web/pkg`: `node web/build.mjs`, after `npm ci` in `web`.
 *
 *     cargo build (SIMD128, relaxed SIMD, WebGPU) → wasm-bindgen → wasm-opt → tsc
 *
 * The command line of wasm-bindgen is that of the version in Cargo.lock: the one in
 * target/tools/bin or in PATH, otherwise it is installed into target/tools.
 *
 * `node web/build.mjs relaxed` makes only that build again, to try something out.
 *
 * Prints the size of each build's WebAssembly, raw and compressed with brotli, and leaves the
 * figures in `pkg/sizes.json` for the site.
 */
import { execFile, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompressSync, constants } from "node:zlib";

const WEB = import.meta.dirname;
const ROOT = join(WEB, "..");
const PKG = join(WEB, "pkg");
const TOOLS = join(ROOT, "target", "tools");
/** The build for WebGPU does with what every browser has: the heavy work is the GPU's. */
const BUILDS = [
  { name: "simd128", instructions: "+simd128", cargoFeatures: "" },
  { name: "relaxed", instructions: "+simd128,+relaxed-simd", cargoFeatures: "" },
  { name: "webgpu", instructions: "+simd128", cargoFeatures: "webgpu" },
];
/** The instructions that the builds may use. */
const WASM_FEATURES = [
  "--enable-bulk-memory", "--enable-bulk-memory-opt", "--enable-mutable-globals",
  "--enable-nontrapping-float-to-int", "--enable-sign-ext", "--enable-multivalue",
  "--enable-reference-types", "--enable-simd",
];

/** Runs a command; what it says is shown when it fails. */
async function run(command, args, options = {}) {
  try {
    await promisify(execFile)(command, args, { cwd: ROOT, maxBuffer: 1 << 26, ...options });
  } catch (failure) {
    console.error(`${failure.stdout ?? ""}${failure.stderr ?? ""}`);
    throw new Error(`${command} failed`, { cause: failure.code });
  }
}

async function wasmBindgen() {
  const lock = await readFile(join(ROOT, "Cargo.lock"), "utf8");
  const version = lock.match(/name = "wasm-bindgen"\nversion = "([^"]+)"/)?.[1];
  if (!version) throw new Error("Cargo.lock does not name wasm-bindgen");
  const ours = join(TOOLS, "bin", "wasm-bindgen");
  for (const candidate of [ours, "wasm-bindgen"]) {
    try {
      const said = execFileSync(candidate, ["--version"], { stdio: ["ignore", "pipe", "ignore"] });
      if (said.toString().trim().endsWith(` ${version}`)) return candidate;
    } catch {
      // Not there.
    }
  }
  console.log(`installing wasm-bindgen-cli ${version} into target/tools (some minutes, once)`);
  await run("cargo", ["install", "wasm-bindgen-cli", "--version", version, "--root", TOOLS, "--quiet"]);
  return ours;
}

async function buildWasm({ name, instructions, cargoFeatures }, bindgen) {
  console.log(`building ${name}`);
  // A folder each: the builds go on side by side, and half of each is done by one thread.
  const target = join(ROOT, "target", "web", name);
  const jobs = process.env.CARGO_BUILD_JOBS ?? String(availableParallelism());
  const cargo = [
    "build", "--quiet", "--package", "lethe-web", "--lib", "--profile", "wasm",
    "--target", "wasm32-unknown-unknown", "--target-dir", target, "--jobs", jobs,
    "--features", cargoFeatures,
  ];
  // Stripping is left to wasm-opt: wasm-bindgen reads the section that names the features.
  const env = { RUSTFLAGS: `-C target-feature=${instructions}`, CARGO_PROFILE_WASM_STRIP: "none" };
  await run("cargo", cargo, { env: { ...process.env, ...env } });
  const out = join(PKG, name);
  await run(bindgen, [
    join(target, "wasm32-unknown-unknown", "wasm", "lethe_web.wasm"),
    "--target", "web", "--omit-default-module-path", "--out-name", "lethe", "--out-dir", out,
    "--remove-name-section", "--remove-producers-section",
  ]);
  await rm(join(out, "lethe_bg.wasm.d.ts"));
  const wasm = join(out, "lethe_bg.wasm");
  await run(process.execPath, [
    join(WEB, "node_modules", "binaryen", "bin", "wasm-opt"), wasm, "-o", wasm, "-O3",
    ...WASM_FEATURES, ...(name === "relaxed" ? ["--enable-relaxed-simd"] : []),
    "--strip-debug", "--strip-target-features",
  ]);
  const bytes = await readFile(wasm);
  const brotli = brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
  return { rawBytes: bytes.length, brotliBytes: brotli.length };
}

if (!existsSync(join(WEB, "node_modules"))) {
  console.error("run `npm ci` in web first");
  process.exit(2);
}
const chosen = process.argv.slice(2);
const sizesFile = join(PKG, "sizes.json");
if (chosen.length === 0) await rm(PKG, { recursive: true, force: true });
await mkdir(PKG, { recursive: true });
const bindgen = await wasmBindgen();
const sizes = existsSync(sizesFile) ? JSON.parse(await readFile(sizesFile, "utf8")) : {};
const waiting = BUILDS.filter(({ name }) => chosen.length === 0 || chosen.includes(name));
/** Takes one build after the other. */
async function work() {
  for (let build = waiting.shift(); build; build = waiting.shift()) {
    sizes[build.name] = await buildWasm(build, bindgen);
  }
}
await Promise.all(Array.from({ length: Math.min(2, availableParallelism()) }, work));
await run(process.execPath, [join(WEB, "node_modules", "typescript", "bin", "tsc"), "--project", WEB]);
await writeFile(sizesFile, `${JSON.stringify(sizes)}\n`);
for (const [name, { rawBytes, brotliBytes }] of Object.entries(sizes)) {
  console.log(`${name}: ${rawBytes} bytes of wasm, ${brotliBytes} with brotli`);
}
