/**
 * An error with a stable code, the same as on the command line and in REST answers.
 *
 * Codes of the engine are listed in `docs/errors.md`. This package adds:
 *
 * | code | meaning |
 * | --- | --- |
 * | `LETHE-OPTION` | an option has a wrong value (an unknown one is a warning) |
 * | `LETHE-TENSOR` | a tensor's data do not fit its type or shape, or are gone |
 * | `LETHE-INPUT-NAN` | an input has NaN in it, which the option `refuseNaN` forbids |
 * | `LETHE-FETCH` | the model or the package's WebAssembly could not be downloaded or read |
 * | `LETHE-MODEL-HASH` | the model is not the one that `sha256` promised |
 * | `LETHE-WORKER` | the worker cannot be started |
 * | `LETHE-RELEASED` | the session was released before |
 * | `LETHE-CRASHED` | the engine stopped in the middle, as when memory ran out |
 *
 * Two come to the console only: `LETHE-CACHE` (the model could not be kept) and `LETHE-VERIFY` (a
 * backend gave other answers than the CPU).
 */
export class LetheError extends Error {
  override readonly name = "LetheError";

  constructor(
    /** The stable code, such as `LETHE-INPUT-SHAPE`. */
    readonly code: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** An error as it crosses from a worker, where classes do not survive. */
export interface ErrorRecord {
  code: string;
  message: string;
}

/** Anything thrown below, as a `LetheError`; an abort stays what it was. */
export function toLetheError(thrown: unknown): unknown {
  if (thrown instanceof LetheError || isAbort(thrown)) return thrown;
  if (thrown instanceof Error) {
    const code = (thrown as { code?: unknown }).code;
    if (typeof code === "string" && code.startsWith("LETHE-")) {
      return new LetheError(code, thrown.message);
    }
    // A trap, or a stack that is full: the engine's memory is in no known state.
    if (thrown instanceof WebAssembly.RuntimeError || thrown instanceof RangeError) {
      return new LetheError("LETHE-CRASHED", `the engine stopped: ${thrown.message}`);
    }
  }
  return thrown;
}

/** Whether this is what an `AbortSignal` throws when it is aborted without a reason. */
export function isAbort(thrown: unknown): boolean {
  return thrown instanceof DOMException && thrown.name === "AbortError";
}

/** For `postMessage`. */
export function toRecord(thrown: unknown): ErrorRecord {
  const error = toLetheError(thrown);
  if (error instanceof LetheError) return { code: error.code, message: error.message };
  return { code: "LETHE-INTERNAL", message: error instanceof Error ? error.message : String(error) };
}
