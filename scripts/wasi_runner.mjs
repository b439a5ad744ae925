// Runs a wasm32-wasip1 program under Node, as cargo's runner: node wasi_runner.mjs PROGRAM [ARGUMENT…]
//
// So the engine's own tests run in wasm with nothing installed but Node. Its standard streams are
// ours and its exit status becomes ours. It sees the working directory and no other files.
import { readFile } from "node:fs/promises";
import process from "node:process";
import v8 from "node:v8";

// Relaxed SIMD is part of WebAssembly 3; Node 20 still has it behind a flag.
if (Number(process.versions.node.split(".")[0]) < 22) {
  v8.setFlagsFromString("--experimental-wasm-relaxed-simd");
}
// node:wasi announces at import that it is experimental; that is no news to a test run.
process.removeAllListeners("warning");
const { WASI } = await import("node:wasi");

const [program, ...programArguments] = process.argv.slice(2);
const module = await WebAssembly.compile(await readFile(program));

async function run(...moreArguments) {
  const wasi = new WASI({
    version: "preview1",
    args: [program, ...programArguments, ...moreArguments],
    env: { RUST_BACKTRACE: "0" },
    preopens: { ".": process.cwd() },
    returnOnExit: true,
  });
  const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
  return wasi.start(instance);
}

try {
  process.exitCode = await run();
} catch (trap) {
  // In wasm a panic ends the program, and what it said is lost with the test harness's buffer.
  console.error(`\n${trap}; again, with what the tests print:`);
  await run("--nocapture");
}
