import { DrawingPad } from "./drawing-pad.js";
import { startInspector } from "./inspector.js";
import { LetheError } from "./lethe/index.js";
import { BACKENDS, Reader } from "./reader.js";
import { toPixels } from "./strokes.js";

const element = (id) => document.getElementById(id);
const [digit, certainty, bars, times, clear, announce] = [
  "digit", "certainty", "bars", "times", "clear", "announce",
].map(element);
const seen = document.querySelector(".seen canvas");
const pad = new DrawingPad(element("pad"));
const reader = new Reader();
let ready = false;

for (let i = 0; i < 10; i += 1) {
  bars.insertAdjacentHTML(
    "beforeend",
    `<div class="bar"><div class="tube"><div class="level"></div></div><i>${i}</i><small>0</small></div>`,
  );
}
for (const { id, name, about } of BACKENDS) {
  times.insertAdjacentHTML(
    "beforeend", `<tr id="time-${id}"><th scope="row">${name}<span>${about}</span></th><td>–</td></tr>`,
  );
}

/**
 * Reads a drawing. One reading is under way at a time; of the drawings that come meanwhile only the
 * last counts. Done when that one has been read.
 */
let reading;
let latest;
function read(strokes) {
  if (!ready || strokes.length === 0) return undefined;
  latest = strokes;
  reading ??= readLatest().finally(() => (reading = undefined));
  return reading;
}

async function readLatest() {
  while (latest) {
    const pixels = toPixels(seen, latest);
    latest = undefined;
    const probabilities = await reader.read(pixels);
    // The drawing may have been washed away in between.
    if (pad.strokes.length > 0) showReading(probabilities);
  }
}

function showReading(probabilities) {
  const share = Math.max(...probabilities);
  const best = probabilities.indexOf(share);
  if (digit.textContent !== String(best) || digit.dataset.state === "empty") {
    digit.classList.remove("arrived");
    void digit.offsetWidth;
    digit.classList.add("arrived");
  }
  digit.textContent = best;
  digit.dataset.state = share < 0.6 ? "unsure" : "sure";
  const percent = Math.min(99.9, 100 * share).toFixed(1);
  certainty.innerHTML = `<b>${percent} %</b> ${share < 0.6 ? "perhaps, or something else" : "certain"}`;
  [...bars.children].forEach((bar, i) => {
    bar.classList.toggle("best", i === best);
    bar.querySelector(".level").style.setProperty("--share", probabilities[i]);
    bar.querySelector("small").textContent = Math.round(100 * probabilities[i]);
  });
  bars.setAttribute(
    "aria-label",
    probabilities.map((p, i) => `${i}: ${Math.round(100 * p)} percent`).join(", "),
  );
}

function showNothing() {
  digit.textContent = "?";
  digit.dataset.state = "empty";
  certainty.textContent = "Ready when you are.";
  bars.setAttribute("aria-label", "No digit yet");
  for (const bar of bars.children) {
    bar.classList.remove("best");
    bar.querySelector(".level").style.setProperty("--share", 0);
    bar.querySelector("small").textContent = 0;
  }
}

/** Times the drawing on every backend, one after the other; a newer drawing takes over. */
let timing = 0;
async function measure(strokes) {
  const turn = (timing += 1);
  const pixels = toPixels(seen, strokes);
  for (const { id } of BACKENDS) {
    const result = await reader.time(id, pixels);
    if (turn !== timing) return;
    if (!result) continue;
    const row = element(`time-${id}`);
    const ms = result.milliseconds;
    row.dataset.digit = result.digit;
    // Timers are coarser than a run may be.
    row.querySelector("td").textContent = ms < 0.05 ? "< 0.05 ms" : `${ms.toFixed(2)} ms`;
  }
}

pad.oninput = (strokes) => void read(strokes);
pad.onchange = async (strokes) => {
  clear.disabled = strokes.length === 0;
  if (!ready) return;
  if (strokes.length === 0) return showNothing();
  await read(strokes);
  if (pad.strokes.length === 0) return;
  announce.textContent = `Reads ${digit.textContent}, ${certainty.textContent}`;
  await measure(strokes);
};
clear.addEventListener("click", () => pad.clear());

async function startSamples() {
  const { digits } = await (await fetch("models/digits/strokes.json")).json();
  let turn = 0;
  document.querySelector(".samples").addEventListener("click", (event) => {
    const drawings = digits[event.target.dataset?.digit];
    if (!drawings) return;
    turn += 1;
    void pad.show(inset(drawings[turn % drawings.length]));
  });
}

/** A drawing of the unit square, with air around it. */
function inset(strokes) {
  return strokes.map((stroke) => stroke.map(([x, y]) => [0.2 + 0.6 * x, 0.14 + 0.72 * y]));
}

async function showSize() {
  const { relaxed } = await (await fetch("lethe/sizes.json")).json();
  if (!relaxed) return; // Only some of the builds were made.
  const kilobytes = Math.round(relaxed.brotliBytes / 1000);
  element("size").textContent = `${kilobytes} KB of WebAssembly over the wire`;
}

startInspector();
const besides = Promise.all([startSamples(), showSize()]);
try {
  await reader.load(
    ({ phase, loaded, total }) => {
      if (phase === "download" && total) {
        certainty.textContent = `Loading, ${Math.round((100 * loaded) / total)} %`;
      }
    },
    (id, session) => {
      if (id === BACKENDS[0].id) {
        ready = true;
        showNothing();
        pad.onchange(pad.strokes);
      }
      const row = element(`time-${id}`);
      if (session.backend === "webgpu") {
        reader.onGpu(id).then((words) => (row.querySelector("span").textContent = words));
      }
      if (session instanceof Error) {
        row.classList.add("absent");
        row.querySelector("td").textContent = "not here";
        row.querySelector("span").textContent = session.message;
      }
    },
  );
} catch (error) {
  certainty.textContent =
    error instanceof LetheError ? `${error.message} (${error.code})` : `The engine did not start: ${error.message}`;
}
await besides;
document.documentElement.dataset.loaded = "true";
