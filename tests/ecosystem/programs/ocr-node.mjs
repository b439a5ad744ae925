/** @gutenye/ocr-node: the lines of a page. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Ocr from "@gutenye/ocr-node";
import sharp from "sharp";
import { page } from "./data.mjs";

export async function run() {
  const folder = await mkdtemp(join(tmpdir(), "lethe-ocr-"));
  const { width, height, data } = page();
  const file = join(folder, "page.png");
  await sharp(Buffer.from(data.buffer), { raw: { width, height, channels: 4 } }).removeAlpha().png().toFile(file);
  const ocr = await Ocr.create();
  const lines = await ocr.detect(file);
  await rm(folder, { recursive: true });
  return lines.map(({ text, mean, box }) => ({ text, mean, box }));
}
