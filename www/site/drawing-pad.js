import { drawInk } from "./strokes.js";

const KEY_STEP = 1 / 28;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * The pad: strokes by mouse, touch, pen and keyboard.
 *
 * `oninput` is called while a stroke grows, `onchange` when the drawing has changed and rests;
 * both get the strokes.
 */
export class DrawingPad {
  strokes = [];
  oninput = () => {};
  onchange = () => {};
  #element;
  #ink;
  #ghost;
  #growing = false;
  #cursor = [0.5, 0.5];
  #penDown = false;
  #showing = 0;

  constructor(element) {
    this.#element = element;
    this.#ink = element.querySelector(".ink");
    this.#ghost = element.querySelector(".ghost");
    this.#ghost.addEventListener("animationend", () => this.#ghost.classList.remove("dissolving"));
    new ResizeObserver(() => this.#resize()).observe(element);
    element.addEventListener("pointerdown", (event) => this.#begin(event));
    element.addEventListener("pointermove", (event) => this.#extend(event));
    for (const end of ["pointerup", "pointercancel"]) {
      element.addEventListener(end, () => this.#end());
    }
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("blur", () => this.#lift());
    this.#resize();
  }

  /** Washes the drawing away. */
  clear() {
    this.#showing += 1;
    this.#growing = this.#penDown = false;
    if (this.strokes.length > 0) this.#dissolve();
    this.strokes = [];
    this.#draw();
    this.onchange(this.strokes);
  }

  /** Replaces the drawing, as if somebody drew it; at once for people who want no motion. */
  async show(strokes) {
    this.clear();
    const turn = this.#showing;
    const total = strokes.flat().length;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const began = performance.now();
    for (let shown = still ? total : 1; ; ) {
      this.strokes = beginning(strokes, shown);
      this.#draw();
      if (shown >= total) break;
      this.oninput(this.strokes);
      await new Promise(requestAnimationFrame);
      if (turn !== this.#showing) return;
      shown = Math.ceil(((performance.now() - began) / 600) * total);
    }
    this.onchange(this.strokes);
  }

  #begin(event) {
    if (event.button !== 0 || this.#growing) return;
    this.#showing += 1;
    this.#lift();
    this.#element.setPointerCapture(event.pointerId);
    this.#growing = true;
    this.strokes.push([this.#point(event)]);
    this.#grown();
  }

  #extend(event) {
    if (!this.#growing) return;
    // A browser may have seen more points than it had time to report.
    const events = event.getCoalescedEvents?.() ?? [];
    const stroke = this.strokes.at(-1);
    stroke.push(...(events.length > 0 ? events : [event]).map((each) => this.#point(each)));
    this.#grown();
  }

  #end() {
    if (!this.#growing) return;
    this.#growing = false;
    this.onchange(this.strokes);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = MOVES[event.key];
    if (move) {
      this.#cursor = this.#cursor.map((at, i) => Math.min(0.97, Math.max(0.03, at + move[i] * KEY_STEP)));
      if (this.#penDown) this.strokes.at(-1).push(this.#cursor);
    } else if (event.key === " " || event.key === "Enter") {
      this.#showing += 1;
      this.#penDown = !this.#penDown;
      if (this.#penDown) this.strokes.push([this.#cursor]);
      else this.onchange(this.strokes);
    } else if (event.key === "Backspace") {
      this.#penDown = false;
      this.strokes.pop();
      this.onchange(this.strokes);
    } else if (event.key === "Escape" || event.key === "Delete") {
      this.clear();
    } else {
      return;
    }
    event.preventDefault();
    this.#grown();
  }

  /** Lifts the keyboard's pen. */
  #lift() {
    if (!this.#penDown) return;
    this.#penDown = false;
    this.#draw();
    this.onchange(this.strokes);
  }

  #grown() {
    this.#draw();
    if (this.strokes.length > 0) this.oninput(this.strokes);
  }

  #point(event) {
    const { left, top, width, height } = this.#element.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  #resize() {
    const size = Math.round(this.#element.clientWidth * Math.min(devicePixelRatio, 3));
    if (size === 0 || size === this.#ink.width) return;
    for (const canvas of [this.#ink, this.#ghost]) canvas.width = canvas.height = size;
    this.#draw();
  }

  #draw() {
    this.#element.classList.toggle("inked", this.strokes.length > 0);
    drawInk(this.#ink, this.strokes);
    if (this.#element.matches(":focus-visible")) this.#drawCursor();
  }

  #drawCursor() {
    const context = this.#ink.getContext("2d");
    const { width } = this.#ink;
    const [x, y] = this.#cursor.map((at) => at * width);
    context.shadowBlur = 0;
    context.lineWidth = width / 180;
    context.strokeStyle = "#ff6b4a";
    context.beginPath();
    context.arc(x, y, width * (this.#penDown ? 0.02 : 0.035), 0, 2 * Math.PI);
    context.stroke();
  }

  #dissolve() {
    this.#ghost.getContext("2d").clearRect(0, 0, this.#ghost.width, this.#ghost.width);
    this.#ghost.getContext("2d").drawImage(this.#ink, 0, 0);
    this.#ghost.classList.remove("dissolving");
    // Reading a layout property lets the animation start anew.
    void this.#ghost.offsetWidth;
    this.#ghost.classList.add("dissolving");
  }
}

/** The first `count` points of a drawing. */
function beginning(strokes, count) {
  const begun = [];
  for (const stroke of strokes) {
    if (count <= 0) break;
    begun.push(stroke.slice(0, count));
    count -= stroke.length;
  }
  return begun;
}
