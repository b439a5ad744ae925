import { InferenceSession, LetheError } from "./lethe/index.js";

const drop = document.getElementById("drop");
const file = document.getElementById("file");
const report = document.getElementById("report");

let controller = new AbortController();

/** Opens a model, shows what it is, and lets it go. A newer call takes over. */
async function inspect(name, model) {
  controller.abort();
  controller = new AbortController();
  const { signal } = controller;
  report.hidden = false;
  const verdict = element("p", "verdict", "Opening…");
  report.replaceChildren(element("h3", "", name), verdict);
  const began = performance.now();
  try {
    const session = await InferenceSession.create(model, {
      signal,
      onProgress: ({ phase, loaded, total }) => {
        verdict.textContent =
          phase === "download" && total ? `Reading, ${Math.floor((100 * loaded) / total)} %` : "Preparing…";
      },
    });
    const took = performance.now() - began;
    verdict.textContent = `Lethe runs it. Loaded in ${time(took)}.`;
    report.append(facts(session));
    await session.release();
  } catch (error) {
    if (signal.aborted) return;
    verdict.textContent = "Not yet: ";
    const code = error instanceof LetheError ? error.code : error.name;
    verdict.append(element("code", "", code), ` ${error.message}`);
  }
}

function facts(session) {
  const { producer, opsets, operators, fileBytes, weightBytes } = session.description;
  const list = document.createElement("dl");
  const row = (term, ...contents) => {
    const value = document.createElement("dd");
    value.append(...contents);
    list.append(element("dt", "", term), value);
  };
  row("Takes", ...values(session.inputMetadata));
  row("Gives", ...values(session.outputMetadata));
  row("Size", `${bytes(fileBytes)}, ${bytes(weightBytes)} of it weights`);
  row("Opsets", Object.entries(opsets).map(([domain, version]) => `${domain} ${version}`).join(", "));
  if (producer) row("Made by", producer);
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

function values(metadata) {
  return metadata.map(({ name, isTensor, type, shape }) => {
    const dims = isTensor ? ` ${type} [${shape.map((dim) => dim ?? "?").join(", ")}]` : "";
    return element("div", "", `${name}${dims}`);
  });
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

/** Makes the section alive. */
export function startInspector() {
  file.addEventListener("change", () => {
    const [chosen] = file.files;
    if (chosen) void inspect(chosen.name, chosen);
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
    const [dropped] = event.dataTransfer.files;
    if (dropped) void inspect(dropped.name, dropped);
  });
}
