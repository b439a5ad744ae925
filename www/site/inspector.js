import { InferenceSession, LetheError, Tensor } from "./lethe/index.js";

const drop = document.getElementById("drop");
const file = document.getElementById("file");
const report = document.getElementById("report");

let controller = new AbortController();

/** Opens a model with the files beside it, runs it once, shows what it is, and lets it go. A newer call takes over. */
async function inspect(name, model, beside = []) {
  controller.abort();
  controller = new AbortController();
  const { signal } = controller;
  report.hidden = false;
  const verdict = element("p", "verdict", "Opening…");
  report.replaceChildren(element("h3", "", name), verdict);
  const began = performance.now();
  let session;
  try {
    session = await InferenceSession.create(model, {
      signal,
      externalData: beside.map((one) => ({ path: one.webkitRelativePath || one.name, data: one })),
      onProgress: ({ phase, loaded, total }) => {
        verdict.textContent =
          phase === "download" && total ? `Reading, ${Math.floor((100 * loaded) / total)} %` : "Preparing…";
      },
    });
    const loaded = performance.now() - began;
    verdict.textContent = `Loaded in ${time(loaded)}, running it once…`;
    report.append(facts(session));
    verdict.replaceChildren(...(await firstRun(session, loaded, signal)));
  } catch (error) {
    if (signal.aborted) return;
    verdict.replaceChildren("Not yet: ", ...said(error));
  } finally {
    await session?.release();
  }
}

/** What a run says on inputs made up here: ones, in the smallest sizes that the model takes. */
async function firstRun(session, loaded, signal) {
  let first;
  for (const size of [1, 8, 64, 224]) {
    const start = performance.now();
    try {
      await session.run(madeUp(session.inputMetadata, size), { signal });
      return [`Lethe runs it. Loaded in ${time(loaded)}, first answer in ${time(performance.now() - start)} more.`];
    } catch (error) {
      if (signal.aborted) throw error;
      first ??= error;
    }
  }
  return [`It loads, in ${time(loaded)}; on inputs made up here it does not run: `, ...said(first)];
}

function madeUp(metadata, size) {
  return Object.fromEntries(metadata.map(({ name, isTensor, type, shape }) => {
    if (!isTensor) return [name, []];
    const dims = shape.map((axis) => (typeof axis === "number" ? axis : size));
    const one = type === "string" ? "a" : type.endsWith("int64") ? 1n : 1;
    const length = dims.reduce((a, b) => a * b, 1);
    // A model may declare any size.
    if (!(length <= 1 << 26)) throw new LetheError("LETHE-BUDGET", `input ${name}: ${length} elements are not made up here`);
    return [name, new Tensor(type, Array.from({ length }, () => one), dims)];
  }));
}

function said(error) {
  const code = error instanceof LetheError ? error.code : error.name;
  return [element("code", "", code), ` ${error.message}`];
}

function facts(session) {
  const { producer, properties, opsets, operators, fileBytes, weightBytes } = session.description;
  const list = document.createElement("dl");
  const row = (term, ...contents) => {
    const value = document.createElement("dd");
    value.append(...contents);
    list.append(element("dt", "", term), value);
  };
  row("Takes", ...values(session.inputMetadata));
  row("Gives", ...values(session.outputMetadata));
  row("Size", `${bytes(fileBytes)} of files; ${bytes(weightBytes)} of weights in memory`);
  row("Opsets", Object.entries(opsets).map(([domain, version]) => `${domain} ${version}`).join(", "));
  if (producer) row("Made by", producer);
  const entries = Object.entries(properties);
  if (entries.length) row("Says", ...entries.slice(0, 8).map(([name, text]) => element("div", "", `${name}: ${text.slice(0, 200)}`)));
  const chips = element("div", "chips");
  const sorted = Object.entries(operators).sort(([, a], [, b]) => b - a);
  for (const [operator, count] of sorted) {
    const chip = element("span", "", `${operator} `);
    chip.append(element("b", "", `× ${count}`));
    chips.append(chip);
  }
  row("Operators", chips);
  return list;
}

/** Values a line each; those whose names differ in a number alone, as caches do, in one. */
function values(metadata) {
  const lines = new Map();
  for (const { name, isTensor, type, shape } of metadata) {
    const dims = isTensor ? ` ${type} [${shape.map((dim) => (dim === "" ? "?" : dim)).join(", ")}]` : "";
    const kind = `${name.replace(/\d+/, "N")}${dims}`;
    const there = lines.get(kind);
    lines.set(kind, { first: there?.first ?? `${name}${dims}`, count: (there?.count ?? 0) + 1 });
  }
  return [...lines].map(([kind, { first, count }]) =>
    element("div", "", count === 1 ? first : `${kind}, ${count} of them`));
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

const bytes = (count) =>
  count < 1e6 ? `${(count / 1e3).toFixed(0)} KB` : `${(count / 1e6).toFixed(1)} MB`;
const time = (ms) => (ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** Inspects the model among files, with the others as what lies beside it. */
function inspectFiles(files) {
  const all = [...files];
  const model = all.find(({ name }) => /\.onnx$/i.test(name)) ?? all[0];
  if (model) void inspect(model.name, model, all.filter((one) => one !== model));
}

/** Makes the section alive. */
export function startInspector() {
  file.addEventListener("change", () => {
    inspectFiles(file.files);
    file.value = "";
  });
  document.getElementById("inspect-digits").addEventListener("click", () => {
    void inspect("digits/model.onnx", "models/digits/model.onnx");
  });
  for (const type of ["dragenter", "dragover"]) {
    drop.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    inspectFiles(event.dataTransfer.files);
  });
}
