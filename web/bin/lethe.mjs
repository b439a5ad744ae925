#!/usr/bin/env node
/**
 * `npx lethe check MODEL…`: whether models run here, and what they need.
 * `npx lethe migrate [FOLDER]`: what changes in a project that uses onnxruntime-web; `--write` makes the changes.
 */
import { check } from "./check.mjs";
import { migrate } from "./migrate.mjs";

const USAGE = `usage: lethe check MODEL… [--json]      runs models once, and says what they need
       lethe migrate [FOLDER] [--write]  swaps onnxruntime-web for lethe in a project
`;

const words = process.argv.slice(2);
const flags = words.filter((word) => word.startsWith("--"));
const [command, ...rest] = words.filter((word) => !word.startsWith("--"));
const known = { check: ["--json"], migrate: ["--write"] }[command] ?? [];
const unknown = flags.find((flag) => !known.includes(flag));

if (words.length === 0 || words.includes("--help") || words.includes("-h")) {
  process.stdout.write(USAGE);
} else if (!["check", "migrate"].includes(command) || unknown || (command === "check" && rest.length === 0)) {
  const wrong = unknown ? `there is no option ${unknown}` : command === "check" ? "no model is named" : `there is no command ${command ?? ""}`;
  process.stderr.write(`lethe: ${wrong}\n${USAGE}`);
  process.exitCode = 2;
} else if (command === "check") {
  process.exitCode = await check(rest, flags.includes("--json"));
} else {
  process.exitCode = await migrate(rest[0] ?? ".", flags.includes("--write"));
}
