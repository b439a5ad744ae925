/** Sessions as programs see them: onnxruntime-common's names, and what Lethe has beyond them. */

import type { Backend, Build, Description, Numerics, Placement, Progress, StepTime } from "./description.js";
import type { Global } from "./global.js";
import { LetheSession } from "./session.js";
import type { ModelInput, Piece } from "./source.js";
import type { Tensor } from "./tensor.js";
import type { OnnxValue, OnnxValueDataLocation } from "./values.js";

export type FileUrlOrPath = string;
export type FileBlob = Blob;
export type FileData = Uint8Array | ArrayBufferLike;
export type FileType = FileUrlOrPath | FileBlob | FileData;

/** A file beside the model, with weights in it. */
export interface ExternalDataFileDescription {
  /** Its content, or where it is. */
  data: FileType | readonly Piece[];
  /** Its name in the model. */
  path: string;
}
/** The same, or an address whose end is the name. */
export type ExternalDataFileType = ExternalDataFileDescription | FileUrlOrPath;

export interface OnnxModelOptions {
  /** Files beside the model, with weights in them. */
  externalData?: readonly ExternalDataFileType[];
}

export declare namespace InferenceSession {
  type OnnxValueMapType = { readonly [name: string]: OnnxValue };
  type NullableOnnxValueMapType = { readonly [name: string]: OnnxValue | null };
  /** Inputs by name. */
  type FeedsType = OnnxValueMapType;
  /** The outputs to give: names, or tensors to put them in (`null` for a new one). */
  type FetchesType = readonly string[] | NullableOnnxValueMapType;
  /** Outputs by name. */
  type ReturnType = OnnxValueMapType;

  /** Options of `InferenceSession.create`. */
  interface SessionOptions extends OnnxModelOptions, LetheSessionOptions {
    /**
     * Where to compute, the first that can be had: `wasm` and `cpu` are WebAssembly, `webgpu` is
     * WebGPU; for `webnn` and `webgl` Lethe takes whichever of the two is there.
     */
    executionProviders?: readonly ExecutionProviderConfig[];
    /** Taken; WebAssembly computes on one thread. */
    intraOpNumThreads?: number;
    /** Taken, and without effect. */
    interOpNumThreads?: number;
    /** Sizes for axes that the model gives names. */
    freeDimensionOverrides?: { readonly [dimensionName: string]: number };
    /** `disabled` leaves the graph as it is; anything else is Lethe's only other level. */
    graphOptimizationLevel?: "disabled" | "basic" | "extended" | "layout" | "all";
    /** Taken, and without effect. */
    enableCpuMemArena?: boolean;
    /** Taken, and without effect. */
    enableMemPattern?: boolean;
    /** Taken, and without effect. */
    executionMode?: "sequential" | "parallel";
    /** Taken, and without effect: Lethe writes no models. */
    optimizedModelFilePath?: string;
    /** Measures each step of each run from the start; see `startProfiling`. */
    enableProfiling?: boolean;
    /** How the file's name begins that `endProfiling` writes in Node. */
    profileFilePrefix?: string;
    logId?: string;
    logSeverityLevel?: 0 | 1 | 2 | 3 | 4;
    logVerbosityLevel?: number;
    /** Where outputs are wanted. They are given on the CPU, which callers see by `location`. */
    preferredOutputLocation?:
      | OnnxValueDataLocation
      | { readonly [outputName: string]: OnnxValueDataLocation };
    /** Taken, and without effect. */
    enableGraphCapture?: boolean;
    /** Taken, and without effect. */
    extra?: Record<string, unknown>;
  }

  interface ExecutionProviderOptionMap {
    coreml: CoreMLExecutionProviderOption;
    cpu: CpuExecutionProviderOption;
    cuda: CudaExecutionProviderOption;
    dml: DmlExecutionProviderOption;
    nnapi: NnapiExecutionProviderOption;
    tensorrt: TensorRtExecutionProviderOption;
    wasm: WebAssemblyExecutionProviderOption;
    webgl: WebGLExecutionProviderOption;
    webgpu: WebGpuExecutionProviderOption;
    webnn: WebNNExecutionProviderOption;
    qnn: QnnExecutionProviderOption;
    xnnpack: XnnpackExecutionProviderOption;
  }
  type ExecutionProviderName = keyof ExecutionProviderOptionMap;
  type ExecutionProviderConfig =
    | ExecutionProviderOptionMap[ExecutionProviderName] | ExecutionProviderOption | ExecutionProviderName | string;
  interface ExecutionProviderOption {
    readonly name: string;
  }
  interface CpuExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "cpu";
    useArena?: boolean;
  }
  interface CudaExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "cuda";
    deviceId?: number;
  }
  interface DmlExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "dml";
    deviceId?: number;
  }
  interface TensorRtExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "tensorrt";
    deviceId?: number;
  }
  interface WebAssemblyExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "wasm";
  }
  interface WebGLExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "webgl";
  }
  interface XnnpackExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "xnnpack";
  }
  type CacheMode = "disabled" | "lazyRelease" | "simple" | "bucket";
  interface WebGpuExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "webgpu";
    preferredLayout?: "NCHW" | "NHWC";
    forceCpuNodeNames?: readonly string[];
    validationMode?: "disabled" | "wgpuOnly" | "basic" | "full";
    enableRobustness?: boolean;
    storageBufferCacheMode?: CacheMode;
    uniformBufferCacheMode?: CacheMode;
    queryResolveBufferCacheMode?: CacheMode;
    defaultBufferCacheMode?: CacheMode;
    device?: Global<"GPUDevice">;
  }
  interface WebNNExecutionProviderName extends ExecutionProviderOption {
    readonly name: "webnn";
  }
  interface WebNNContextOptions {
    deviceType?: "cpu" | "gpu" | "npu";
    numThreads?: number;
    powerPreference?: "default" | "low-power" | "high-performance";
  }
  interface WebNNOptionsWithoutMLContext extends WebNNExecutionProviderName, WebNNContextOptions {
    context?: never;
  }
  interface WebNNOptionsWithMLContext
    extends WebNNExecutionProviderName, Omit<WebNNContextOptions, "deviceType">,
      Required<Pick<WebNNContextOptions, "deviceType">> {
    context: Global<"MLContext">;
  }
  interface WebNNOptionsWebGpu extends WebNNExecutionProviderName {
    context: Global<"MLContext">;
    gpuDevice: Global<"GPUDevice">;
  }
  type WebNNExecutionProviderOption =
    | WebNNOptionsWithoutMLContext | WebNNOptionsWithMLContext | WebNNOptionsWebGpu;
  interface QnnExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "qnn";
    backendType?: string;
    backendPath?: string;
    enableFp16Precision?: boolean;
  }
  interface CoreMLExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "coreml";
    coreMlFlags?: number;
    useCPUOnly?: boolean;
    useCPUAndGPU?: boolean;
    enableOnSubgraph?: boolean;
    onlyEnableDeviceWithANE?: boolean;
  }
  interface NnapiExecutionProviderOption extends ExecutionProviderOption {
    readonly name: "nnapi";
    useFP16?: boolean;
    useNCHW?: boolean;
    cpuDisabled?: boolean;
    cpuOnly?: boolean;
  }

  /** Options of `session.run`. */
  interface RunOptions extends LetheRunOptions {
    logSeverityLevel?: 0 | 1 | 2 | 3 | 4;
    logVerbosityLevel?: number;
    /** `true`: the run ends before it begins. See `signal`. */
    terminate?: boolean;
    tag?: string;
    extra?: Record<string, unknown>;
  }

  interface ValueMetadataBase {
    readonly name: string;
  }
  interface NonTensorValueMetadata extends ValueMetadataBase {
    readonly isTensor: false;
  }
  interface TensorValueMetadata extends ValueMetadataBase {
    readonly isTensor: true;
    readonly type: Tensor.Type;
    /** Sizes of the axes: a number, a name, or an empty name where anything goes. */
    readonly shape: ReadonlyArray<number | string>;
  }
  type ValueMetadata = NonTensorValueMetadata | TensorValueMetadata;
}

/** What Lethe takes beyond onnxruntime-web's options. */
export interface LetheSessionOptions {
  /**
   * Where to compute, if `executionProviders` does not say. `auto`, the default, takes WebGPU where
   * there is a GPU that can be had, and WebAssembly otherwise or for reproducible numerics; `webgpu`
   * fails with `LETHE-DEVICE` where it is not to be had.
   */
  backend?: "auto" | Backend;
  /**
   * `fast`, the default, or `reproducible`: the same bits as on every other machine and door of
   * Lethe.
   */
  numerics?: Numerics;
  /**
   * Whether the model lives in a worker; by default where this is a page or Node's main thread.
   * Without one, loading and running block this thread, but a run saves the way there and back.
   */
  worker?: boolean;
  /** Called while the model loads: at the start and end of each phase, and ten times a second. */
  onProgress?: (progress: Progress) => void;
  /** Gives up loading; `create` rejects with the signal's reason. */
  signal?: AbortSignal;
  /** The SHA-256 that the model must have, in hexadecimal. */
  sha256?: string;
  /** Keeps the model in the browser under its `sha256`, which must be given. */
  cache?: boolean;
  /** The build of the engine for `wasm`; by default the best that the machine runs. */
  build?: "auto" | Exclude<Build, "webgpu">;
  /**
   * Runs the model while it loads, so that its first answer comes as quickly as the others: on
   * these inputs, or `true` for zeros in the sizes that the model declares.
   */
  warmup?: boolean | InferenceSession.FeedsType;
  /** Refuses inputs with NaN in them (`LETHE-INPUT-NAN`). */
  refuseNaN?: boolean;
  /**
   * Runs the model once on WebGPU and once on the CPU when it loads; where they differ, the CPU is
   * taken, and the console says so (`LETHE-VERIFY`).
   */
  verify?: boolean;
}

/** What Lethe takes beyond onnxruntime-web's options of a run. */
export interface LetheRunOptions {
  /** Stops the run; it rejects with the signal's reason. */
  signal?: AbortSignal;
  /** The outputs to give; all by default. */
  outputs?: readonly string[];
}

/** Inputs by name; sequences are lists of tensors. */
export type Feeds = Readonly<Record<string, Tensor | readonly Tensor[]>>;

/**
 * A loaded model.
 *
 * ```js
 * const session = await InferenceSession.create("model.onnx", { onProgress, signal });
 * const { logits } = await session.run({ input: new Tensor("float32", pixels, [1, 1, 28, 28]) });
 * await session.release();
 * ```
 */
export interface InferenceSession {
  /**
   * Runs the model and gives its outputs by name. Runs asked for at the same time wait for each
   * other.
   *
   * @throws {LetheError} where an input is missing, unknown or wrong, or a node fails.
   */
  run(feeds: Feeds, options?: InferenceSession.RunOptions): Promise<InferenceSession.ReturnType>;
  /** The same for some outputs: names, or tensors of the right type and shape to put them in. */
  run(
    feeds: Feeds, fetches: InferenceSession.FetchesType, options?: InferenceSession.RunOptions,
  ): Promise<InferenceSession.ReturnType>;
  /** Waits for the runs under way, then frees the model; what runs left in memory is overwritten. */
  release(): Promise<void>;
  /** Measures the steps of the runs from now on, which are computed on the CPU. */
  startProfiling(): void;
  /**
   * Ends that, and hands over what was measured in the format of Chrome's traces: in Node a file, whose
   * name is told, elsewhere a line in the console. See `profile`.
   */
  endProfiling(): void;
  /** Names of the inputs, in the model's order. */
  readonly inputNames: readonly string[];
  /** Names of the outputs, in the model's order. */
  readonly outputNames: readonly string[];
  /** Names, types and shapes of the inputs. */
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  /** Names, types and shapes of the outputs. */
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  /** Where the session computes: what `auto` came to. */
  readonly backend: Backend;
  /** What there is to know of the model: producer, properties, opsets, operators, sizes. */
  readonly description: Readonly<Description>;
  /**
   * Where each step that runs on data would run for inputs of these shapes: with `webgpu`, which
   * ones fall back to the CPU, and why.
   */
  placement(feeds: Feeds): Promise<Placement[]>;
  /** Runs the model once on the CPU, and gives the time of each step of it. */
  profile(feeds: Feeds): Promise<StepTime[]>;
}

/** Makes sessions. */
export interface InferenceSessionFactory {
  /**
   * Loads a model from an address, a `Blob`, bytes, or a list of pieces of bytes.
   *
   * @throws {LetheError} where the model cannot be had, is invalid or unsupported.
   */
  create(uri: string, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
  create(buffer: ArrayBufferLike, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
  create(
    buffer: ArrayBufferLike, byteOffset: number, byteLength?: number, options?: InferenceSession.SessionOptions,
  ): Promise<InferenceSession>;
  create(buffer: Uint8Array, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
  create(model: ModelInput, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
}

export const InferenceSession: InferenceSessionFactory = LetheSession;
