import type { Tensor } from "./tensor.js";

/** onnxruntime-common's name for values that are no tensors, of which its types know none. */
export type NonTensorType = never;
/** What a run takes and gives, as far as onnxruntime-common's types go. */
export type OnnxValue = Tensor | NonTensorType;
export type OnnxValueDataLocation = Tensor.DataLocation;

/**
 * What a run gives in full: a tensor, a list of values (ONNX's sequence), a map, or nothing (an empty
 * optional). `run`'s type says tensors, as onnxruntime-web's does: cast where the model has others.
 */
export type AnyValue = Tensor | AnyValue[] | Map<bigint | string, unknown> | null;
