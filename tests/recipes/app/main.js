// What every recipe builds: it reads one digit, and leaves the answer where the test looks for it.
import { InferenceSession, Tensor } from "lethe";

export async function read(model, options) {
  const session = await InferenceSession.create(model, options);
  const pixels = Float32Array.from({ length: 784 }, (_, i) => (i % 28 > 12 && i % 28 < 16 ? 1 : 0));
  const { logits } = await session.run({ input: new Tensor("float32", pixels, [1, 1, 28, 28]) });
  await session.release();
  return [...logits.data];
}
