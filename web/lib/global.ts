/** The global type of a name, where the program has its declarations, such as those of WebGPU. */
export type Global<Name extends string, Fallback = unknown> = typeof globalThis extends {
  [name in Name]: { prototype: infer T };
} ? T : Fallback;
