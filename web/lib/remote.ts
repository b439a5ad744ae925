/** A model in a worker: nothing blocks the page, and an abort stops the computation at once. */

import type { Description, Placement } from "./description.js";
import { env } from "./env.js";
import { LetheError, toRecord, type ErrorRecord } from "./errors.js";
import type { Answer, Ran, Request, WireFeeds } from "./messages.js";
import type { Listener, LoadRequest } from "./model.js";
import { notStarted, startWorker, workerAddress, type WorkerHandle } from "./platform.js";
import { kept } from "./source.js";
import { trimmed } from "./wire.js";

const DEAF: Listener = { progress: () => {}, warning: () => {} };

/**
 * A model in a worker.
 *
 * WebAssembly cannot be interrupted from outside, so aborting a run ends the worker, and the next
 * run starts another one from the compiled module and loads the model again from its source.
 */
export class RemoteModel {
  description!: Description;
  #worker: WorkerHandle | undefined;
  #receive: (answer: Answer) => void = () => {};
  /** The end of the requests before: one is under way at a time. */
  #queue: Promise<unknown> = Promise.resolve();
  readonly #request: LoadRequest;

  private constructor(request: LoadRequest) {
    this.#request = request;
  }

  /** Starts a worker and loads the model in it. */
  static async load(request: LoadRequest, listener: Listener, signal?: AbortSignal): Promise<RemoteModel> {
    const again = {
      ...request,
      source: kept(request.source),
      files: request.files.map(({ path, source }) => ({ path, source: kept(source) })),
    };
    const model = new RemoteModel(again);
    model.description = await model.#start(request, listener, signal);
    return model;
  }

  /** Runs the model, after what was asked for before. */
  async run(
    feeds: WireFeeds, wanted: string[] | undefined, timed: boolean, signal?: AbortSignal,
  ): Promise<Ran> {
    const answer = await this.#inTurn({ run: { feeds: copied(feeds), wanted, timed } }, signal);
    const { ran } = answer as { ran: Ran };
    this.description.memoryBytes = ran.memoryBytes;
    return ran;
  }

  /** Where each step that runs on data would run for such inputs. */
  async placement(feeds: WireFeeds): Promise<Placement[]> {
    const answer = await this.#inTurn({ place: { feeds: copied(feeds) } });
    return (answer as { placement: Placement[] }).placement;
  }

  /** Ends the worker: all its memory is gone. */
  release(): void {
    this.#stop();
  }

  /** Does a request after those before, in a new worker if the last one has ended. */
  #inTurn(request: Request, signal?: AbortSignal): Promise<Answer> {
    const turn = this.#queue.then(async () => {
      signal?.throwIfAborted();
      if (!this.#worker) await this.#restart(signal);
      return this.#ask(request, signal);
    });
    this.#queue = turn.catch(() => {});
    return signal ? Promise.race([turn, aborted(signal, turn)]) : turn;
  }

  async #start(request: LoadRequest, listener: Listener, signal?: AbortSignal): Promise<Description> {
    let started = false;
    const died = (reason: string) => {
      this.#stop();
      const error = started
        ? { code: "LETHE-CRASHED", message: reason }
        : toRecord(notStarted(workerAddress(), reason));
      this.#receive({ error });
    };
    const receive = (message: unknown) => {
      const answer = message as Answer;
      if ("started" in answer) started = true;
      else if ("progress" in answer) listener.progress(answer.progress);
      else if ("warning" in answer) listener.warning(answer.warning);
      else this.#receive(answer);
    };
    this.#worker = await startWorker(receive, died);
    const { initTimeout } = env.wasm;
    const late = initTimeout
      ? setTimeout(() => started || died(`it said nothing for ${initTimeout} ms`), initTimeout)
      : undefined;
    try {
      const answer = await this.#ask({ load: request }, signal);
      return (answer as { loaded: Description }).loaded;
    } catch (thrown) {
      this.#stop();
      throw thrown;
    } finally {
      clearTimeout(late);
    }
  }

  async #restart(signal?: AbortSignal): Promise<void> {
    const description = await this.#start(this.#request, DEAF, signal);
    if (description.fileBytes !== this.description.fileBytes) {
      this.#stop();
      throw new LetheError("LETHE-FETCH", "the model at its address is not the one loaded before");
    }
  }

  /** Sends a request and waits for its answer, or for the abort, which ends the worker. */
  #ask(request: Request, signal?: AbortSignal): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const worker = this.#worker;
      const abort = () => {
        this.#stop();
        finish();
        reject(signal?.reason);
      };
      const finish = () => {
        signal?.removeEventListener("abort", abort);
        this.#receive = () => {};
        worker?.keepAlive(false);
      };
      if (!worker) return reject(new LetheError("LETHE-CRASHED", "the worker has ended"));
      if (signal?.aborted) return abort();
      signal?.addEventListener("abort", abort);
      this.#receive = (answer) => {
        finish();
        if ("error" in answer) reject(this.#failure(answer.error));
        else resolve(answer);
      };
      worker.keepAlive(true);
      worker.post(request);
    });
  }

  /** After a crash the worker's memory is in no known state: the next run gets a fresh one. */
  #failure({ code, message }: ErrorRecord): LetheError {
    if (code === "LETHE-CRASHED") this.#stop();
    return new LetheError(code, message);
  }

  #stop(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }
}

/** Copying an array to a worker copies all of the buffer under it. */
function copied(feeds: WireFeeds): WireFeeds {
  return feeds.map(([name, value]) => [name, trimmed(value)]);
}

/** Rejects with the signal's reason, so that a request that still waits for its turn is given up. */
function aborted(signal: AbortSignal, turn: Promise<unknown>): Promise<never> {
  return new Promise((_, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort);
    const forget = () => signal.removeEventListener("abort", abort);
    turn.then(forget, forget);
  });
}
