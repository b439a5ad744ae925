/** Swaps onnxruntime-web for lethe in a project: imports of its own, and an alias for those of others. */

import { readFile, readdir, writeFile } from "node:fs/promises";
import { extname, join, relative } from "node:path";

const { version } = JSON.parse(await readFile(new URL("../package.json", import.meta.url), "utf8"));

const SOURCES = [".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx", ".vue", ".svelte", ".astro", ".html"];
const PASSED_OVER = ["node_modules", ".git", "dist", "build", ".next", "coverage"];

/** `"onnxruntime-web/wasm"` and the like, as a whole text: in imports, requires and import maps. */
const NAME = /(["'])onnxruntime-(web|common|node)((?:\/[\w.-]+)*)\1/g;
const PATHS = ["", "/all", "/jspi", "/wasm", "/webgl", "/webgpu"];

/** Settings that have no use any more, with what to know. */
const HINTS = [
  [/\benv\.wasm\.numThreads\b/, "env.wasm.numThreads is taken and not used: WebAssembly computes on one thread"],
  [/\benv\.wasm\.wasmPaths\b/, "env.wasm.wasmPaths: Lethe's files have other names; leave it out, they are found beside the package"],
  [/\benv\.wasm\.proxy\b/, "env.wasm.proxy is not needed: a worker is the default on a page"],
  [/\bpreferredOutputLocation\b/, "preferredOutputLocation is taken; outputs come on the CPU"],
  [/\bfromGpuBuffer|fromTexture|fromMLTensor\b/, "tensors on a GPU are refused, with LETHE-UNSUPPORTED"],
  [/jsdelivr\.net\/npm\/onnxruntime-web|unpkg\.com\/onnxruntime-web/, "a script from a network of others: serve node_modules/lethe/pkg/script.js yourself"],
];

async function* sources(folder) {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (!PASSED_OVER.includes(entry.name)) yield* sources(path);
    } else if (entry.isFile() && SOURCES.includes(extname(entry.name))) {
      yield path;
    }
  }
}

/** A file's text with the names swapped, and what to say of it. */
function swapped(text) {
  const said = [];
  let count = 0;
  const out = text.replace(NAME, (whole, quote, which, path) => {
    if (!PATHS.includes(path)) {
      said.push(`${whole}: a file inside of onnxruntime-${which}, which Lethe does not have`);
      return whole;
    }
    count += 1;
    return `${quote}lethe${which === "web" ? path : ""}${quote}`;
  });
  for (const [pattern, hint] of HINTS) if (pattern.test(text)) said.push(hint);
  return { out, count, said };
}

/** What a package.json has to say for Lethe to stand in for onnxruntime's packages, also for others. */
function manifest(text) {
  const json = JSON.parse(text);
  const own = [];
  for (const kind of ["dependencies", "devDependencies", "peerDependencies", "optionalDependencies"]) {
    for (const name of ["onnxruntime-web", "onnxruntime-node", "onnxruntime-common"]) {
      if (json[kind]?.[name] === undefined) continue;
      own.push(name);
      delete json[kind][name];
    }
  }
  const alias = `npm:lethe@${version}`;
  json.dependencies = { ...json.dependencies, lethe: version, "onnxruntime-common": alias };
  json.overrides = { ...json.overrides, "onnxruntime-web": alias, "onnxruntime-node": alias };
  const indent = /^[ \t]+/m.exec(text)?.[0] ?? "  ";
  return { out: `${JSON.stringify(json, undefined, indent)}\n`, own };
}

/** Goes through a project; the exit status. */
export async function migrate(folder, isWriting) {
  let [files, names] = [0, 0];
  const manifestPath = join(folder, "package.json");
  const text = await readFile(manifestPath, "utf8").catch(() => undefined);
  if (text === undefined) {
    process.stderr.write(`lethe: ${manifestPath} is not there: name the project's folder\n`);
    return 2;
  }
  let made;
  try {
    made = manifest(text);
  } catch (error) {
    process.stderr.write(`lethe: ${manifestPath}: ${error.message}\n`);
    return 2;
  }
  for await (const path of sources(folder)) {
    const before = await readFile(path, "utf8");
    const { out, count, said } = swapped(before);
    for (const line of said) process.stdout.write(`${relative(folder, path)}: ${line}\n`);
    if (count === 0) continue;
    process.stdout.write(`${relative(folder, path)}: ${count} ${count === 1 ? "import" : "imports"}\n`);
    files += 1;
    names += count;
    if (isWriting) await writeFile(path, out);
  }
  if (isWriting) await writeFile(manifestPath, made.out);
  process.stdout.write(`package.json: lethe ${version}, and overrides for the packages that others import\n`);
  process.stdout.write(
    `${names} imports in ${files} files ${isWriting ? "were swapped; now run npm install" : "would be swapped; --write does it"}\n`,
  );
  return 0;
}
