/**
 * Lethe: runs ONNX models in the browser and in Node, and forgets the data.
 *
 * Names are onnxruntime-web's, so that moving over is a change of one import.
 *
 * @module
 */
import * as lethe from "./exports.js";
import { supplyModules } from "./modules.js";
import { supplyWorker } from "./platform.js";

// Bundlers copy what such addresses name: each stands here once, in full.
supplyModules((build) => {
  switch (build) {
    case "simd128":
      return new URL("./lethe-simd128.wasm", import.meta.url);
    case "relaxed":
      return new URL("./lethe-relaxed.wasm", import.meta.url);
    case "webgpu":
      return new URL("./lethe-webgpu.wasm", import.meta.url);
  }
});
supplyWorker(() => new URL("./worker.js", import.meta.url));

export * from "./exports.js";
export default lethe;
