/** Runs a model once and says what it needs. */

import { InferenceSession, LetheError, Tensor } from "lethe";

/** The most elements of an input that is made up, and the longest that loading and a run may take. */
const MOST_ELEMENTS = 1 << 26;
const MOST_MS = 120_000;

const mb = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;
const axes = ({ type, shape, isTensor }) =>
  isTensor ? `${type} [${shape.map((size) => (size === "" ? "any" : size)).join(", ")}]` : "a sequence, map or optional";

/** Inputs of ones in the smallest sizes that the model declares. */
function inputs(metadata, size) {
  return Object.fromEntries(metadata.map((input) => {
    if (!input.isTensor) return [input.name, []];
    const dims = input.shape.map((axis) => (typeof axis === "number" ? axis : size));
    const count = dims.reduce((product, dim) => product * dim, 1);
    if (!(count <= MOST_ELEMENTS)) {
      throw new LetheError("LETHE-BUDGET", `input ${JSON.stringify(input.name)} [${dims.join(", ")}] has more than ${MOST_ELEMENTS} elements`);
    }
    const one = input.type === "string" ? "a" : input.type.endsWith("int64") ? 1n : 1;
    if (/^(bfloat|float8|float4|complex|u?int[24]$)/.test(input.type)) throw new LetheError("LETHE-UNSUPPORTED", `inputs of ${input.type} are not made up here`);
    return [input.name, new Tensor(input.type, Array.from({ length: count }, () => one), dims)];
  }));
}

function said(error) {
  if (error.name === "TimeoutError") return { code: "LETHE-DEADLINE", message: `it took more than ${MOST_MS / 1000} s` };
  return { code: error.code ?? "LETHE-INTERNAL", message: error.message };
}

/** What is found of one model. */
async function examine(model) {
  const began = performance.now();
  const found = { model, loads: false, runs: false };
  let session;
  try {
    session = await InferenceSession.create(model, { signal: AbortSignal.timeout(MOST_MS) });
  } catch (error) {
    return { ...found, error: said(error) };
  }
  const { description } = session;
  Object.assign(found, {
    loads: true, loadMs: performance.now() - began, downloadBytes: description.fileBytes,
    weightBytes: description.weightBytes, producer: description.producer, opsets: description.opsets,
    operators: description.operators, inputs: session.inputMetadata.map((one) => `${one.name}: ${axes(one)}`),
    outputs: session.outputMetadata.map((one) => `${one.name}: ${axes(one)}`), backend: session.backend,
  });
  // Some models take no axis of one element.
  for (const size of [1, 8, 16, 64, 224]) {
    try {
      const feeds = inputs(session.inputMetadata, size);
      await session.run(feeds, { signal: AbortSignal.timeout(MOST_MS) });
      const start = performance.now();
      const times = await session.profile(feeds);
      Object.assign(found, {
        runs: true, runMs: performance.now() - start, freeAxes: size, error: undefined,
        slowest: [...times].sort((a, b) => b.ms - a.ms).slice(0, 5),
      });
      break;
    } catch (error) {
      found.error ??= said(error);
      if (found.error.code === "LETHE-DEADLINE") break;
    }
  }
  await session.release();
  return found;
}

function say(found) {
  const lines = [`${found.model}`];
  if (found.loads) {
    const operators = Object.entries(found.operators).sort((a, b) => b[1] - a[1]);
    lines.push(
      `  loads      in ${found.loadMs.toFixed(0)} ms; ${mb(found.downloadBytes)} to download, ${mb(found.weightBytes)} of weights in memory`,
      found.runs
        ? `  runs       on ${found.backend}, in ${found.runMs.toFixed(1)} ms with free axes of ${found.freeAxes}`
        : "  runs       NOT on inputs made up here",
      `  made by    ${found.producer || "(it does not say)"}; opsets ${Object.entries(found.opsets).map(([d, v]) => `${d} ${v}`).join(", ")}`,
      ...found.inputs.map((text, i) => `  ${i ? "          " : "inputs    "} ${text}`),
      ...found.outputs.map((text, i) => `  ${i ? "          " : "outputs   "} ${text}`),
      `  operators  ${operators.slice(0, 12).map(([name, count]) => `${count} ${name}`).join(", ")}${operators.length > 12 ? `, and ${operators.length - 12} kinds more` : ""}`,
    );
    for (const [i, { node, operator, ms }] of (found.slowest ?? []).entries()) {
      lines.push(`  ${i ? "          " : "slowest   "} ${ms.toFixed(2)} ms ${operator} ${node}`);
    }
  } else {
    lines.push("  loads      NO");
  }
  if (found.error) lines.push(`  ${found.error.code}: ${found.error.message}`);
  return `${lines.join("\n")}\n`;
}

/** Examines models; the exit status: 0 where all run, 1 otherwise. */
export async function check(models, asJson) {
  const all = [];
  for (const model of models) {
    const found = await examine(model);
    all.push(found);
    if (!asJson) process.stdout.write(say(found));
  }
  if (asJson) process.stdout.write(`${JSON.stringify(all, undefined, 2)}\n`);
  return all.every(({ runs }) => runs) ? 0 : 1;
}
