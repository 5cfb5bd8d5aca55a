// The stream of one task.

import { call, Refusal } from "./api.js";
import { say } from "./page.js";

const AGAIN_MS = 1000;

// The events after which what a model was writing is there, or will never be.
const WRITTEN = [
  "plan.proposed", "plan.revision_requested", "step.started", "model.answered", "step.completed", "step.failed",
];

// Tells `heard` of every log line (`line`), of what a model writes (`writing`) and of the end of that (`written`),
// until the function that it gives is called. A lost connection the browser mends by itself, until the ticket has
// expired: then another one is asked for.
export function follow(id, heard) {
  let last = "";
  let stream;
  let closed = false;

  async function open() {
    const { ticket } = await call(`/v1/tasks/${id}/stream-ticket`, {});
    if (closed) return;
    stream = new EventSource(`v1/tasks/${id}/stream?ticket=${encodeURIComponent(ticket)}&after=${last}`);
    stream.onmessage = ({ data, lastEventId }) => {
      last = lastEventId;
      if (data === "[DONE]") stream.close();
      heard.line(data);
    };
    stream.addEventListener("progress", ({ data }) => heard.writing(JSON.parse(data)));
    for (const type of WRITTEN) {
      stream.addEventListener(type, ({ data }) => heard.written(JSON.parse(data).data.step_id ?? null));
    }
    stream.onerror = () => stream.readyState === EventSource.CLOSED && again();
  }

  function again() {
    setTimeout(() => closed || open().catch(lost), AGAIN_MS);
  }

  function lost(error) {
    if (closed) return;
    say(error.message);
    if (!(error instanceof Refusal) || error.status >= 500) again();
  }

  open().catch(lost);
  return () => {
    closed = true;
    stream?.close();
  };
}
