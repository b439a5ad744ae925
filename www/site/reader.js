import { InferenceSession, Tensor } from "./lethe/index.js";

const MODEL = "models/digits/model.onnx";
const CLASSES = 10;
/** Runs behind each time that is shown. */
const TIMED_RUNS = 15;

/** The ways in which this page can compute, in the order of the table. */
export const BACKENDS = [
  {
    id: "worker",
    name: "WebAssembly, in a worker",
    about: "the default: there and back, the page stays free",
    options: { backend: "wasm" },
  },
  {
    id: "direct",
    name: "WebAssembly, in the page",
    about: "the computation alone",
    options: { backend: "wasm", worker: false },
  },
  {
    id: "webgpu",
    name: "WebGPU",
    about: "on the graphics processor",
    options: { backend: "webgpu" },
  },
];

/** Reads digits on every backend that this browser and this build have. */
export class Reader {
  /** Backend → its session, or the error that says why there is none. */
  #sessions = new Map();

  /** Loads the model on the default backend, and then on the others. */
  async load(onProgress, onBackend) {
    for (const { id, options } of BACKENDS) {
      try {
        const progress = id === BACKENDS[0].id ? { onProgress } : {};
        this.#sessions.set(id, await InferenceSession.create(MODEL, { ...options, ...progress }));
      } catch (error) {
        if (id === BACKENDS[0].id) throw error;
        this.#sessions.set(id, error);
      }
      onBackend(id, this.#sessions.get(id));
    }
  }

  /** Probabilities of the ten digits, by the default backend. */
  async read(pixels) {
    return softmax(await this.#logits(BACKENDS[0].id, pixels));
  }

  /** The median time of a run in milliseconds and the digit read, or `undefined` without backend. */
  async time(id, pixels) {
    if (!(this.#sessions.get(id) instanceof InferenceSession)) return undefined;
    const times = [];
    let digit;
    for (let i = 0; i < TIMED_RUNS; i += 1) {
      const began = performance.now();
      const logits = await this.#logits(id, pixels);
      times.push(performance.now() - began);
      digit = logits.indexOf(Math.max(...logits));
    }
    times.sort((a, b) => a - b);
    return { milliseconds: times[TIMED_RUNS >> 1], digit };
  }

  /** How many of the steps run on the GPU, in words. */
  async onGpu(id) {
    const input = new Tensor("float32", new Float32Array(784), [1, 1, 28, 28]);
    const steps = await this.#sessions.get(id).placement({ input });
    const there = steps.filter(({ device }) => device === "webgpu").length;
    return `${there} of ${steps.length} steps on the graphics processor`;
  }

  async #logits(id, pixels) {
    const input = new Tensor("float32", pixels, [1, 1, 28, 28]);
    const { logits } = await this.#sessions.get(id).run({ input });
    return logits.data;
  }
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from({ length: CLASSES }, (_, i) => Math.exp(logits[i] - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
