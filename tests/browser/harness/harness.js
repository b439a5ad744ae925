/** What the tests call in the page: models in the ONNX test layout, run and compared here. */

import { InferenceSession, Tensor } from "/lethe/index.js";
import { readTensor } from "./tensor-proto.js";

const read = async (url) => {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
};

async function sha256({ data }) {
  const bytes = Array.isArray(data)
    ? new TextEncoder().encode(data.join("\0"))
    : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** IEEE binary16 as a number. */
function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, mantissa] = [(bits >> 10) & 31, bits & 1023];
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** Where `found` differs from `wanted` beyond the tolerance; `undefined` where it does not. */
function difference(found, wanted, { rtol = 1e-3, atol = 1e-7, atol_rms = 0, outliers = 0 }) {
  if (found.type !== wanted.type) return `expected ${wanted.type}, found ${found.type}`;
  if (String(found.dims) !== String(wanted.dims)) {
    return `expected shape [${wanted.dims}], found [${found.dims}]`;
  }
  if (!["float16", "float32", "float64"].includes(found.type)) {
    const at = [...wanted.data].findIndex((value, i) => value !== found.data[i]);
    return at < 0 ? undefined : `at ${at} expected ${wanted.data[at]}, found ${found.data[at]}`;
  }
  const numbers = ({ type, data }) => (type === "float16" ? Float64Array.from(data, halfToNumber) : data);
  const [x, y] = [numbers(found), numbers(wanted)];
  let squares = 0;
  for (const value of y) squares += value * value;
  const rms = Math.sqrt(squares / Math.max(y.length, 1));
  let [off, first] = [0, -1];
  for (let i = 0; i < y.length; i += 1) {
    const same = Object.is(x[i], y[i]) || x[i] === y[i];
    if (same || Math.abs(x[i] - y[i]) <= atol + atol_rms * rms + rtol * Math.abs(y[i])) continue;
    off += 1;
    if (first < 0) first = i;
  }
  if (off <= outliers * y.length) return undefined;
  return `${off} of ${y.length} elements; at ${first} expected ${y[first]}, found ${x[first]}`;
}

/**
 * Runs the data sets of a model.
 *
 * @param {{model: string, options: object, tolerance: object,
 *   sets: {inputs: string[], outputs: string[]}[]}} request addresses of files
 * @returns {Promise<{backend: string, milliseconds: number[], differences: string[],
 *   digests: Record<string, string>[]}>}
 */
async function verifyModel({ model, options, tolerance, sets }) {
  const session = await InferenceSession.create(model, options);
  const result = { backend: session.backend, milliseconds: [], differences: [], digests: [] };
  for (const [k, { inputs, outputs }] of sets.entries()) {
    const feeds = {};
    for (const [i, url] of inputs.entries()) {
      const { name, tensor } = readTensor(await read(url));
      feeds[session.inputNames.includes(name) ? name : session.inputNames[i]] = tensor;
    }
    const began = performance.now();
    const found = await session.run(feeds);
    result.milliseconds.push(performance.now() - began);
    const digests = {};
    for (const [i, url] of outputs.entries()) {
      const { name, tensor } = readTensor(await read(url));
      const output = session.outputNames.includes(name) ? name : session.outputNames[i];
      const problem = difference(found[output], tensor, tolerance);
      if (problem) result.differences.push(`set ${k}, ${output}: ${problem}`);
      digests[output] = await sha256(found[output]);
    }
    result.digests.push(digests);
  }
  await session.release();
  return result;
}

/** Silero VAD over a 16 kHz recording, the state carried from chunk to chunk. */
async function speechProbabilities({ model, audio, chunk, context, options }) {
  const session = await InferenceSession.create(model, options);
  const wav = await read(audio);
  const samples = Float32Array.from(new Int16Array(wav.buffer, 44), (sample) => sample / 32768);
  const rate = new Tensor("int64", [16000], []);
  let state = new Tensor("float32", new Float32Array(2 * 128), [2, 1, 128]);
  const probabilities = [];
  for (let at = 0; at + chunk <= samples.length; at += chunk) {
    const window = new Float32Array(context + chunk);
    const from = Math.max(0, at - context);
    window.set(samples.subarray(from, at + chunk), context - (at - from));
    const input = new Tensor("float32", window, [1, context + chunk]);
    const { output, stateN } = await session.run({ input, state, sr: rate });
    probabilities.push(output.data[0]);
    state = stateN;
  }
  await session.release();
  return probabilities;
}

/** Names of a model's inputs, each by the file that feeds it. */
async function inputNames({ model, sets: [{ inputs }] }) {
  const session = await InferenceSession.create(model, { backend: "wasm" });
  const names = [];
  for (const [i, url] of inputs.entries()) {
    const { name } = readTensor(await read(url));
    names.push(session.inputNames.includes(name) ? name : session.inputNames[i]);
  }
  await session.release();
  return names;
}

/** One request of the REST API, all of whose tensors are FP32, and its outputs as the API gives them. */
async function infer({ model, options, inputs }) {
  const session = await InferenceSession.create(model, options);
  const feeds = inputs.map(({ name, shape, data }) => [
    name, new Tensor("float32", Float32Array.from(data), shape),
  ]);
  const outputs = await session.run(Object.fromEntries(feeds));
  await session.release();
  return Object.entries(outputs).map(([name, { data, dims }]) => ({
    name, datatype: "FP32", shape: dims, data: [...data],
  }));
}

globalThis.harness = { verifyModel, speechProbabilities, inputNames, infer };
