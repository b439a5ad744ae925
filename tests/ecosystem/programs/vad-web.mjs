/** @ricky0123/vad-web: where there is speech in a sound. */

import { NonRealTimeVAD } from "@ricky0123/vad-web";
import { voice } from "./data.mjs";

export async function run({ read, modules }) {
  const vad = await NonRealTimeVAD.new({
    modelURL: `${modules}/@ricky0123/vad-web/dist/silero_vad_legacy.onnx`,
    modelFetcher: async (path) => (await read(path)).buffer,
    positiveSpeechThreshold: 0.1,
    negativeSpeechThreshold: 0.05,
    // As their documentation has it.
    ortConfig: (ort) => {
      ort.env.logLevel = "error";
      ort.env.wasm.numThreads = 1;
    },
  });
  const found = [];
  for await (const { start, end } of vad.run(voice(), 16000)) found.push([start, end]);
  const chances = [];
  for (let i = 0; i < 30; i += 1) {
    const frame = voice().subarray(16000 + i * 1536, 16000 + (i + 1) * 1536);
    chances.push((await vad.frameProcessor.modelProcessFunc(frame)).isSpeech);
  }
  return { found, chances };
}
