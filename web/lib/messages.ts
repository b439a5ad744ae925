/** What a session and its worker say to each other; one request at a time. */

import type { ErrorRecord } from "./errors.js";
import type { Description, LoadRequest, Placement, Progress } from "./model.js";
import type { WireValue } from "./wire.js";

/** To the worker. */
export type Request =
  | { load: LoadRequest }
  | { run: { feeds: [string, WireValue][]; wanted: string[] | undefined } }
  | { place: { feeds: [string, WireValue][] } };

/** From the worker. */
export type Answer =
  | { progress: Progress }
  | { loaded: Description }
  | { outputs: WireValue[] }
  | { placement: Placement[] }
  | { error: ErrorRecord };
