import * as ort from "onnxruntime-common";
export { ort };
