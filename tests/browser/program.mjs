/** The program `lethe` that browsers are compared with. */

import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./chromium.mjs";
import { Skip } from "./suite.mjs";

/** The one that was built last. */
export function program() {
  const built = ["debug", "release"].map((p) => join(ROOT, "target", p, "lethe")).filter(existsSync);
  if (built.length === 0) throw new Skip("no target/*/lethe");
  return built.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
}
