/** What people give for a model by mistake, told by its first bytes. */

const text = (start: string) => [...start].map((letter) => letter.charCodeAt(0));

const KINDS: readonly { start: number[]; what: string; remedy: string }[] = [
  {
    start: text("version https://git-lfs"),
    what: "a Git LFS pointer, not the file that it stands for",
    remedy: "fetch the file itself, with `git lfs pull` or from the host's download address",
  },
  { start: [0x89, ...text("PNG")], what: "a PNG picture", remedy: "" },
  { start: [0xff, 0xd8, 0xff], what: "a JPEG picture", remedy: "" },
  { start: text("GIF8"), what: "a GIF picture", remedy: "" },
  { start: text("%PDF"), what: "a PDF", remedy: "" },
  { start: text("GGUF"), what: "a model of llama.cpp (GGUF)", remedy: "export it to ONNX" },
  { start: text("\x89HDF"), what: "an HDF5 file, as Keras writes", remedy: "export it to ONNX" },
  { start: text("PK\x03\x04"), what: "a ZIP archive, as PyTorch and NumPy write", remedy: "unpack it, or export the model to ONNX" },
  { start: [0x1f, 0x8b], what: "a gzip archive", remedy: "unpack it" },
  { start: text("\0asm"), what: "a WebAssembly module", remedy: "" },
  { start: text("\x93NUMPY"), what: "an array of NumPy", remedy: "" },
];

/** What is wrong with these first bytes of a file: a clause, or `undefined` where nothing is. */
export function foreign(start: Uint8Array): string | undefined {
  if (start.length === 0) return "an empty file";
  for (const kind of KINDS) {
    if (kind.start.every((byte, i) => start[i] === byte)) {
      return kind.what + (kind.remedy && `; ${kind.remedy}`);
    }
  }
  // TensorFlow Lite's mark comes after a flatbuffer's offset.
  if (text("TFL3").every((byte, i) => start[i + 4] === byte)) {
    return "a model of TensorFlow Lite; export it to ONNX";
  }
  const words = new TextDecoder().decode(start.subarray(0, 200)).trimStart().toLowerCase();
  if (/^<(!doctype html|html|head|body)/.test(words)) {
    return "an HTML page; is the address right, and does the server have the file?";
  }
  if (/^<\?xml|^<error/.test(words)) return "an XML document, such as a server's error";
  if (/^\{\s*"/.test(words)) return "a JSON document";
  return undefined;
}
