/**
 * Holds the package against the declarations of onnxruntime-common: every name of it is here, as a type
 * that the other can be put in place of, and as a value.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import * as lethe from "lethe";
import * as ort from "onnxruntime-common";
import ts from "typescript";

/** In the package's folder, so that both names are found from there. */
let folder;
before(async () => void (folder = await mkdtemp(join(import.meta.dirname, "types-"))));
after(() => rm(folder, { recursive: true }));

const OPTIONS = {
  strict: true, noEmit: true, skipLibCheck: false, types: [], lib: ["lib.es2022.d.ts", "lib.dom.d.ts"],
  target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
};

/** Compiles a text; what the compiler says of it. */
async function compiled(name, text) {
  const file = join(folder, name);
  await writeFile(file, text);
  const program = ts.createProgram([file], OPTIONS);
  const said = ts.getPreEmitDiagnostics(program).map((diagnostic) => {
    const line = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start).line;
    const where = diagnostic.file?.fileName === file ? text.split("\n")[line] : diagnostic.file?.fileName;
    return `${where}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n")}`;
  });
  return { said, program, file };
}

/** Every name that a module exports, with those of its namespaces: `Tensor.Type`. */
function namesOf(checker, module, prefix = "") {
  return checker.getExportsOfModule(module).flatMap((symbol) => {
    const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    const name = `${prefix}${symbol.name}`;
    const isNamespace = target.flags & ts.SymbolFlags.Namespace;
    const below = isNamespace ? namesOf(checker, target, `${name}.`) : [];
    const declaration = target.declarations?.find((d) => ts.isInterfaceDeclaration(d) || ts.isTypeAliasDeclaration(d));
    const parameters = declaration?.typeParameters?.map((p) => p.default ?? p.constraint) ?? [];
    return [{
      name,
      isType: declaration !== undefined,
      isValue: (target.flags & ts.SymbolFlags.Value) !== 0 && !isNamespace || (target.flags & ts.SymbolFlags.Variable) !== 0,
      parameters: parameters.map((node) => checker.typeToString(checker.getTypeFromTypeNode(node), node, ts.TypeFormatFlags.NoTruncation)),
    }, ...below];
  });
}

/** What Lethe takes more of than onnxruntime: the content of a file may come in pieces. */
const TAKES_MORE = new Set([
  "ExternalDataFileDescription", "ExternalDataFileType", "OnnxModelOptions", "InferenceSession.SessionOptions",
]);
/** What Lethe gives more of: its sessions have more members, which those of another cannot have. */
const GIVES_MORE = new Set(["InferenceSession", "InferenceSessionFactory"]);

test("every type and value of onnxruntime-common has its like here", async () => {
  const { program, file } = await compiled("names.ts", 'import * as ort from "onnxruntime-common";\nexport { ort };\n');
  const checker = program.getTypeChecker();
  const imported = program.getSourceFile(file).statements[0].importClause.namedBindings.name;
  const module = checker.getAliasedSymbol(checker.getSymbolAtLocation(imported));
  const names = namesOf(checker, module);
  assert.ok(names.length > 80, `only ${names.length} names were found`);
  const lines = ['import * as ort from "onnxruntime-common";', 'import * as lethe from "lethe";'];
  names.forEach(({ name, isType, isValue, parameters }, i) => {
    if (isType) {
      const filled = parameters.length ? `<${parameters.map(() => '"float32"').join(", ")}>` : "";
      if (!GIVES_MORE.has(name)) lines.push(`export const a${i} = (it: ort.${name}${filled}): lethe.${name}${filled} => it;`);
      if (!TAKES_MORE.has(name)) lines.push(`export const b${i} = (it: lethe.${name}${filled}): ort.${name}${filled} => it;`);
    }
    if (isValue) lines.push(`export const c${i}: typeof ort.${name} = lethe.${name};`);
  });
  const { said } = await compiled("surface.ts", lines.join("\n"));
  assert.deepEqual(said, []);
});

test("the check of types sees what is missing", async () => {
  const text = 'import * as lethe from "lethe";\nexport const a = (it: number): lethe.Tensor.Nothing => it;\n';
  assert.equal((await compiled("missing.ts", text)).said.length, 1);
});

test("every value of onnxruntime-common is here at run time", async () => {
  const own = (object) => Object.getOwnPropertyNames(object).filter((name) => !["length", "name"].includes(name));
  const missing = (theirs, ours, where) => theirs.filter((name) => !(name in ours)).map((name) => `${where}${name}`);
  const session = await lethe.InferenceSession.create(
    new URL("../../models/digits/model.onnx", import.meta.url).href, { worker: false },
  );
  // `handler` is private to onnxruntime's sessions.
  const members = own(ort.InferenceSession.prototype).filter((name) => name !== "handler");
  assert.deepEqual([
    ...missing(Object.keys(ort), lethe, ""),
    ...missing(own(ort.Tensor), lethe.Tensor, "Tensor."),
    ...missing(own(ort.Tensor.prototype).filter((name) => name !== "ensureValid"), lethe.Tensor.prototype, "tensor."),
    ...missing(own(ort.InferenceSession), lethe.InferenceSession, "InferenceSession."),
    ...missing(members, session, "session."),
    ...missing(Object.keys(ort.env), lethe.env, "env."),
  ], []);
  await session.release();
});

test("a program in strict TypeScript compiles, with the types of data known", async () => {
  const text = `
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
  `;
  assert.deepEqual((await compiled("program.mts", text)).said, []);
  const required = 'import ort = require("lethe");\nexport const tensor: ort.Tensor = new ort.Tensor("bool", [true]);\n';
  assert.deepEqual((await compiled("program.cts", required)).said, []);
});
