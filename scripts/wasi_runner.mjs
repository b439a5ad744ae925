// Runs a wasm32-wasip1 program under Node, as cargo's runner: node wasi_runner.mjs PROGRAM [ARGUMENT…]
//
// So the engine's own tests run in wasm with nothing installed but Node. Its standard streams are
// ours and its exit status becomes ours. It sees the working directory and no other files.
import { readFile } from "node:fs/promises";
import process from "node:process";

// node:wasi announces at import that it is experimental; that is no news to a test run.
process.removeAllListeners("warning");
const { WASI } = await import("node:wasi");

const [program, ...programArguments] = process.argv.slice(2);
const wasi = new WASI({
  version: "preview1",
  args: [program, ...programArguments],
  env: { RUST_BACKTRACE: "1" },
  preopens: { ".": process.cwd() },
  returnOnExit: true,
});
const module = await WebAssembly.compile(await readFile(program));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
process.exitCode = wasi.start(instance);
