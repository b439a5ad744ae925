// A server that runs the model itself.
import { join } from "node:path";
import { read } from "../../main.js";

export const dynamic = "force-dynamic";
export async function GET() {
  return Response.json(await read(join(process.cwd(), "public", "model.onnx"), { worker: false }));
}
