
    import ort, { InferenceSession, Tensor, type TypedTensor } from "lethe";
    import * as all from "lethe/webgpu";
    import { env } from "lethe/wasm";
    env.wasm.numThreads = 1;
    const tensor = new Tensor("float32", new Float32Array(6), [2, 3]);
    const floats: Float32Array = tensor.data;
    const longs: BigInt64Array = new Tensor("int64", [1, 2, 3]).data;
    const typed: TypedTensor<"float32"> = tensor.reshape([6]);
    const bits: Uint16Array = new Tensor("bfloat16", new Uint16Array(1)).data;
    export async function run(session: InferenceSession): Promise<Float32Array> {
      const options: InferenceSession.RunOptions = { tag: "a" };
      const results = await session.run({ input: tensor }, ["logits"], options);
      const feeds: Record<string, ort.Tensor> = { input: typed };
      await session.run(feeds, { logits: null });
      return results.logits!.data as Float32Array;
    }
    export const created: Promise<all.InferenceSession> = InferenceSession.create("model.onnx", {
      executionProviders: [{ name: "webgpu", preferredLayout: "NHWC" }, "wasm"],
      graphOptimizationLevel: "all", freeDimensionOverrides: { batch: 1 },
    });
    void [floats, longs, bits];
  