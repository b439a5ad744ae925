/**
 * Lethe: runs ONNX models in the browser and in Node, and forgets the data.
 *
 * Names follow onnxruntime-web, so that moving over is a change of one import.
 *
 * @module
 */
export { clearModelCache } from "./cache.js";
export { LetheError } from "./errors.js";
export type { Backend, Description, Numerics, Placement, Progress, ValueMetadata } from "./model.js";
export { InferenceSession, type Feeds, type RunOptions, type SessionOptions } from "./session.js";
export type { ModelInput } from "./source.js";
export { Tensor, type TensorData, type TensorInput, type TensorType } from "./tensor.js";
export type { OnnxValue } from "./wire.js";
