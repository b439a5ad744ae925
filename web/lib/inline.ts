/**
 * `lethe/inline`: Lethe in one file, for places that take no second one (service workers, pages from
 * `file:`, artifacts). The WebAssembly is in it, with SIMD128 and for the CPU; models are loaded in
 * this thread.
 *
 * @module
 */
import { COMPRESSED } from "../glue/inline.js";
import * as lethe from "./exports.js";
import { supplyModules } from "./modules.js";

supplyModules(async () => {
  const bytes = Uint8Array.from(atob(COMPRESSED), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
});

export * from "./exports.js";
export default lethe;
