import { read } from "./main.js";

const answer = new URLSearchParams(location.search).has("here") ? { worker: false } : {};
read("model.onnx", answer).then(
  (logits) => (globalThis.answer = { logits }),
  (error) => (globalThis.answer = { error: `${error.code} ${error.message}` }),
);
