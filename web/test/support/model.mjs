/** Small models, written as Protocol Buffers are: https://protobuf.dev/programming-guides/encoding/ */

function varint(value) {
  const bytes = [];
  let rest = BigInt(value);
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest ? low | 0x80 : low);
  } while (rest);
  return bytes;
}

/** A field: a number, a text, bytes or a message, which is a list of fields. */
function field(number, value) {
  if (typeof value === "number" || typeof value === "bigint") return [...varint(number << 3), ...varint(value)];
  const content =
    typeof value === "string" ? [...new TextEncoder().encode(value)] : Array.isArray(value) ? value.flat() : [...value];
  return [...varint((number << 3) | 2), ...varint(content.length), ...content];
}

const FLOAT = 1;

const tensorType = (dims) => [
  field(1, [field(1, FLOAT), field(2, dims.map((dim) => field(1, [field(typeof dim === "number" ? 1 : 2, dim)])))]),
];
const value = (name, dims) => [field(1, name), field(2, tensorType(dims))];

/**
 * `y = x + w` for `x: [n, len]`, where `w: [len]` is in the file `location`, from `offset` on.
 */
export function sumModel(len, location, offset = 0, properties = {}) {
  const entry = (key, text) => field(13, [field(1, key), field(2, text)]);
  const weights = [
    field(1, len), field(2, FLOAT), field(8, "w"), field(14, 1),
    entry("location", location), entry("offset", `${offset}`), entry("length", `${len * 4}`),
  ];
  const node = [field(1, "x"), field(1, "w"), field(2, "y"), field(3, "sum"), field(4, "Add")];
  const graph = [
    field(1, node), field(2, "g"), field(5, weights), field(11, value("x", ["n", len])),
    field(12, value("y", ["n", len])),
  ];
  const metadata = Object.entries(properties).map(([key, text]) => field(14, [field(1, key), field(2, text)]));
  return Uint8Array.from([
    field(1, 8), field(2, "test"), field(7, graph), field(8, [field(1, ""), field(2, 17)]), ...metadata,
  ].flat());
}
