/** What a session and its worker say to each other; one request at a time. */

import type { Description, Placement, Progress, StepTime } from "./description.js";
import type { ErrorRecord } from "./errors.js";
import type { LoadRequest } from "./model.js";
import type { WireValue } from "./wire.js";

/** Inputs by name. */
export type WireFeeds = [string, WireValue][];

/** To the worker. */
export type Request =
  | { load: LoadRequest }
  | { run: { feeds: WireFeeds; wanted: string[] | undefined; timed: boolean } }
  | { place: { feeds: WireFeeds } };

/** What a run gives: outputs in the order that was asked for, and the times of its steps where they were. */
export interface Ran {
  outputs: WireValue[];
  times: StepTime[];
  /** Bytes of WebAssembly's memory now. */
  memoryBytes: number;
}

/** From the worker. */
export type Answer =
  | { started: true }
  | { progress: Progress }
  | { warning: ErrorRecord }
  | { loaded: Description }
  | { ran: Ran }
  | { placement: Placement[] }
  | { error: ErrorRecord };
