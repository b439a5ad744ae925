/** The worker: holds one model and answers a session's requests. */

import { toRecord } from "./errors.js";
import type { Answer, Request } from "./messages.js";
import { Model } from "./model.js";
import { workerPort } from "./platform.js";
import { buffersOf } from "./wire.js";

let model: Model | undefined;

async function answer(request: Request): Promise<Answer> {
  if ("load" in request) {
    model = await Model.load(request.load, {
      progress: (progress) => post({ progress }, []),
      warning: (warning) => post({ warning }, []),
    });
    return { loaded: model.description };
  }
  if (!model) throw new Error("a run before a load");
  if ("place" in request) return { placement: await model.placement(request.place.feeds) };
  const { feeds, wanted, timed } = request.run;
  return { ran: await model.run(feeds, wanted, timed) };
}

const post: (answer: Answer, transfer: ArrayBuffer[]) => void = workerPort((message) => {
  void answer(message as Request)
    .catch((thrown): Answer => ({ error: toRecord(thrown) }))
    .then((reply) => post(reply, "ran" in reply ? buffersOf(reply.ran.outputs) : []));
});
post({ started: true }, []);
