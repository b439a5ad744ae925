/** @huggingface/transformers 4: its pipelines, written as its users write them. */

import { AutoTokenizer, RawImage, env, pipeline } from "@huggingface/transformers";

const TEXT = "There was a long day and the people made their words about it";

/** A picture and a sound that need no decoder. */
function picture() {
  const pixels = Uint8ClampedArray.from({ length: 48 * 40 * 3 }, (_, i) => (i * 37 + (i % 7) * 11) % 256);
  return new RawImage(pixels, 48, 40, 3);
}
const sound = () => Float32Array.from({ length: 8000 }, (_, i) => Math.sin(i / 9) * Math.cos(i / 700));

/** What a tensor or a picture holds, as a list of numbers. */
const numbers = (holder) => [...(holder.data ?? holder)].map(Number);

const TASKS = {
  async features(options) {
    const extract = await pipeline("feature-extraction", "features", options);
    const output = await extract([TEXT, "a day"], { pooling: "mean", normalize: true });
    return [output.dims, numbers(output)];
  },
  async "features in half floats"(options) {
    const extract = await pipeline("feature-extraction", "features", { ...options, dtype: "fp16" });
    return numbers(await extract(TEXT, { pooling: "mean", normalize: true }));
  },
  async sentiment(options) {
    return (await pipeline("text-classification", "sentiment", options))([TEXT, "a day"], { top_k: 2 });
  },
  async "zero shot"(options) {
    return (await pipeline("zero-shot-classification", "entailment", options))(TEXT, ["people", "day", "water"]);
  },
  async names(options) {
    return (await pipeline("token-classification", "names", options))(TEXT);
  },
  async questions(options) {
    return (await pipeline("question-answering", "questions", options))("what was there", TEXT);
  },
  async blanks(options) {
    return (await pipeline("fill-mask", "blanks", options))("There was a [MASK] day");
  },
  async pictures(options) {
    return (await pipeline("image-classification", "pictures", options))(picture(), { top_k: 5 });
  },
  async objects(options) {
    return (await pipeline("object-detection", "objects", options))(picture(), { threshold: 0.2 });
  },
  async segments(options) {
    const found = await (await pipeline("image-segmentation", "segments", options))(picture());
    return found.map(({ label, score, mask }) => [label, score, numbers(mask)]);
  },
  async depth(options) {
    const { predicted_depth: depth } = await (await pipeline("depth-estimation", "depth", options))(picture());
    return [depth.dims, numbers(depth)];
  },
  async speech(options) {
    return (await pipeline("automatic-speech-recognition", "speech", options))(sound());
  },
  async writer(options) {
    const write = await pipeline("text-generation", "writer", options);
    return write("There was a", { max_new_tokens: 12, do_sample: false });
  },
  async "writer, word by word"(options) {
    const write = await pipeline("text-generation", "writer", options);
    const tokenizer = await AutoTokenizer.from_pretrained("writer");
    const { input_ids: ids } = tokenizer("the people", { add_special_tokens: false });
    const written = await write.model.generate({ inputs: ids, max_new_tokens: 5, num_beams: 1, do_sample: false });
    return numbers(written);
  },
};

/** Answers by task; `models` is the folder or address of the models. */
export async function run({ models, options = {} }) {
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = models;
  env.useBrowserCache = false;
  // As their documentation has it.
  env.backends.onnx.wasm.numThreads = 1;
  const answers = {};
  // Without arrays of half floats the library takes their bits for numbers, on every runtime.
  if (!globalThis.Float16Array) delete TASKS["features in half floats"];
  for (const [name, task] of Object.entries(TASKS)) answers[name] = await task({ dtype: "fp32", ...options });
  return answers;
}
