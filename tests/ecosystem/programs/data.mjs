/** What the programs are run on: a sound and a picture of words, made here so that no file is needed. */

/** A second of silence, three of something like vowels (a buzz through two resonances), a second of silence. */
export function voice(rate = 16000) {
  const sound = new Float32Array(5 * rate);
  let [a1, a2, b1, b2] = [0, 0, 0, 0];
  for (let i = 0; i < 3 * rate; i += 1) {
    const t = i / rate;
    const pitch = 120 + 25 * Math.sin(2 * Math.PI * 0.9 * t);
    const phase = (t * pitch) % 1;
    const buzz = phase < 0.1 ? 1 - phase * 10 : 0;
    const syllable = Math.max(0, Math.sin(2 * Math.PI * 2.6 * t)) ** 0.5;
    const resonate = (input, one, two, frequency, width) => {
      const r = Math.exp((-Math.PI * width) / rate);
      return input + 2 * r * Math.cos((2 * Math.PI * frequency) / rate) * one - r * r * two;
    };
    const first = 500 + 250 * Math.sin(2 * Math.PI * 1.3 * t);
    const a = resonate(buzz, a1, a2, first, 90);
    [a1, a2] = [a, a1];
    const b = resonate(a, b1, b2, 1400 + 500 * Math.sin(2 * Math.PI * 0.7 * t), 120);
    [b1, b2] = [b, b1];
    sound[rate + i] = Math.max(-1, Math.min(1, b * 0.01 * syllable));
  }
  return sound;
}

/** The same as a WAV file of 16-bit samples. */
export function wav(sound, rate = 16000) {
  const view = new DataView(new ArrayBuffer(44 + sound.length * 2));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + sound.length * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, sound.length * 2, true);
  sound.forEach((x, i) => view.setInt16(44 + 2 * i, Math.round(x * 32767), true));
  return view.buffer;
}

/** Letters of five by seven dots, a number for each row. */
const LETTERS = {
  A: [14, 17, 17, 31, 17, 17, 17], D: [30, 17, 17, 17, 17, 17, 30], E: [31, 16, 16, 30, 16, 16, 31],
  G: [14, 17, 16, 23, 17, 17, 15], H: [17, 17, 17, 31, 17, 17, 17], I: [14, 4, 4, 4, 4, 4, 14],
  L: [16, 16, 16, 16, 16, 16, 31], M: [17, 27, 21, 21, 17, 17, 17], N: [17, 25, 21, 19, 17, 17, 17],
  O: [14, 17, 17, 17, 17, 17, 14], R: [30, 17, 17, 30, 20, 18, 17], T: [31, 4, 4, 4, 4, 4, 4],
  0: [14, 17, 19, 21, 25, 17, 14], 2: [14, 17, 1, 6, 8, 16, 31], 6: [14, 16, 16, 30, 17, 17, 14],
  " ": [0, 0, 0, 0, 0, 0, 0],
};
export const LINES = ["GOOD MORNING", "LETHE 2026"];

/** Black on white, each dot `dot` pixels wide: width, height, and RGBA. */
export function page(dot = 5) {
  const [width, height] = [480, 200];
  const data = new Uint8ClampedArray(width * height * 4).fill(255);
  LINES.forEach((line, row) =>
    [...line].forEach((letter, column) =>
      LETTERS[letter].forEach((bits, y) => {
        for (let x = 0; x < 5; x += 1) {
          if (!((bits >> (4 - x)) & 1)) continue;
          for (let i = 0; i < dot * dot; i += 1) {
            const px = 30 + (column * 6 + x) * dot + (i % dot);
            const py = 35 + row * 80 + y * dot + Math.floor(i / dot);
            data.fill(0, (py * width + px) * 4, (py * width + px) * 4 + 3);
          }
        }
      }),
    ),
  );
  return { width, height, data };
}
