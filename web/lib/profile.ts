/** What was measured of runs, in the format that Chrome's and Perfetto's viewers read. */

import type { StepTime } from "./description.js";

/** A run with the times of its steps; `start` and `end` in milliseconds of `performance.now()`. */
export interface TimedRun {
  start: number;
  end: number;
  steps: StepTime[];
}

/** Trace events: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU */
export function chromeTrace(runs: readonly TimedRun[]): object[] {
  const event = (cat: string, name: string, ts: number, dur: number, args: object) => ({
    cat, name, ph: "X", pid: 1, tid: 1, ts: Math.round(ts * 1000), dur: Math.round(dur * 1000), args,
  });
  return runs.flatMap(({ start, end, steps }) => {
    // Steps run one after the other.
    let at = start;
    const nodes = steps.map(({ node, operator, ms }) => {
      const made = event("Node", node || operator, at, ms, { op_name: operator });
      at += ms;
      return made;
    });
    return [event("Session", "model_run", start, end - start, {}), ...nodes];
  });
}
