/** What the package exports, in each of its forms. */

export {
  registerBackend, TRACE, TRACE_EVENT_BEGIN, TRACE_EVENT_END, TRACE_FUNC_BEGIN, TRACE_FUNC_END,
  type Backend, type InferenceSessionHandler, type SessionHandler,
} from "./backend.js";
export { clearModelCache } from "./cache.js";
export type {
  Backend as SessionBackend, Description, Numerics, Placement, Progress, StepTime, ValueDescription,
} from "./description.js";
export { env, type Env } from "./env.js";
export type { TensorData, TensorInput, TensorType } from "./element_types.js";
export { LetheError } from "./errors.js";
export {
  InferenceSession, type ExternalDataFileDescription, type ExternalDataFileType, type Feeds, type FileBlob,
  type FileData, type FileType, type FileUrlOrPath, type InferenceSessionFactory,
  type LetheRunOptions, type LetheSessionOptions, type OnnxModelOptions,
} from "./inference_session.js";
export type { ModelInput, Piece } from "./source.js";
export {
  Tensor, type ConversionUtils, type CpuPinnedConstructorParameters, type GpuBufferConstructorParameters,
  type MLTensorConstructorParameters, type MoreTypedTensor, type TensorConstructor, type TensorFactory,
  type TensorFromGpuBufferOptions, type TensorFromMLTensorOptions, type TensorFromTextureOptions,
  type TensorUtils, type TextureConstructorParameters, type TypedShapeUtils, type TypedTensor,
  type TypedTensorUtils,
} from "./tensor.js";
export type {
  ImageFormat, ImageTensorLayout, OptionResizedDimensions, OptionsDimensions, OptionsFormat,
  OptionsNormalizationParameters, OptionsTensorDataType, OptionsTensorFormat, OptionsTensorLayout,
  TensorFromImageBitmapOptions, TensorFromImageDataOptions, TensorFromImageElementOptions,
  TensorFromUrlOptions, TensorToDataUrlOptions, TensorToImageDataOptions,
} from "./tensor_image.js";
export type { AnyValue, NonTensorType, OnnxValue, OnnxValueDataLocation } from "./values.js";
