/**
 * Drawings as strokes: lists of points [x, y] in the unit square, y downwards.
 */

/** Pen width on the pad, as a share of its width. */
const PAD_PEN = 0.062;
/** The network's paper, the box that the ink fills on it, and the pen, in pixels. */
const PAPER = 28;
const BOX = 20;
const PEN = 3.2;
/** Ink smaller than this share of the pad is not enlarged further: a dot stays a dot. */
const SMALLEST = 0.2;

/** Draws strokes in the current colour; `place` maps a point to canvas coordinates. */
function trace(context, strokes, width, place) {
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    const points = stroke.map(place);
    context.moveTo(...points[0]);
    // Through the midpoints, so that slow sampling does not show corners.
    for (let i = 1; i < points.length - 1; i += 1) {
      const [[x, y], [nextX, nextY]] = [points[i], points[i + 1]];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    context.lineTo(...points.at(-1));
    context.stroke();
  }
}

/** Draws strokes as ink on the pad. */
export function drawInk(canvas, strokes) {
  const { width } = canvas;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, width);
  context.strokeStyle = "#f2fbf8";
  context.shadowColor = "rgb(120 230 215 / 0.55)";
  context.shadowBlur = width * 0.025;
  trace(context, strokes, width * PAD_PEN, ([x, y]) => [x * width, y * width]);
}

/**
 * Draws strokes the way the network learned them: cut to the box around the ink, its longer side
 * 20 pixels, in the middle of 28 × 28. The pen has one width, however large the drawing was.
 *
 * @returns {Float32Array} 784 values, 0 for paper to 1 for ink
 */
export function toPixels(canvas, strokes) {
  const points = strokes.flat();
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [left, right, top, bottom] = [
    Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys),
  ];
  const scale = (BOX - PEN) / Math.max(right - left, bottom - top, SMALLEST);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#000";
  context.fillRect(0, 0, PAPER, PAPER);
  context.strokeStyle = "#fff";
  trace(context, strokes, PEN, ([x, y]) => [
    PAPER / 2 + (x - (left + right) / 2) * scale,
    PAPER / 2 + (y - (top + bottom) / 2) * scale,
  ]);
  const { data } = context.getImageData(0, 0, PAPER, PAPER);
  return Float32Array.from({ length: PAPER * PAPER }, (_, i) => data[4 * i] / 255);
}
