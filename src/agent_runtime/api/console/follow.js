// The stream of one task.

import { call, Refusal } from "./api.js";
import { say, wordsOf } from "./page.js";

const AGAIN_MS = 1000;

// The events after which the text of a model is complete or discarded, or a call has ended and reports no more.
const WRITTEN = [
  "plan.proposed", "plan.revision_requested", "step.started", "model.answered", "tool.called", "tool.returned",
  "step.completed", "step.failed",
];

/**
 * @typedef {object} Listener
 * @property {(text: string) => void} line
 * @property {(piece: { step_id: string | null, text: string }) => void} writing
 * @property {(report: { step_id: string, text: string }) => void} reporting
 * @property {(step: string | null) => void} written
 */

/**
 * Call `listener` with every log line (`line`), with text of a model (`writing`), with progress reports of a server
 * (`reporting`), and at the end of both (`written`). Return a function that stops it. The browser reconnects by itself
 * until the ticket expires; then this requests another ticket. Log lines without a new id are those of reports, which
 * arrive as events too, so they are ignored.
 * @param {string} id @param {Listener} listener
 */
export function follow(id, listener) {
  let last = "";
  /** @type {EventSource | undefined} */
  let stream;
  let closed = false;

  async function open() {
    const { ticket } = await call(`/v1/tasks/${id}/stream-ticket`, {});
    if (closed) return;
    const opened = new EventSource(`v1/tasks/${id}/stream?ticket=${encodeURIComponent(ticket)}&after=${last}`);
    stream = opened;
    opened.onmessage = ({ data, lastEventId }) => {
     
      if (!lastEventId || lastEventId === last) return;
      last = lastEventId;
      if (data === "[DONE]") opened.close();
      listener.line(data);
    };
    opened.addEventListener("progress", ({ data }) => listener.writing(JSON.parse(data)));
    opened.addEventListener("call.progress", ({ data }) => listener.reporting(JSON.parse(data)));
    for (const type of WRITTEN) {
      opened.addEventListener(type, ({ data }) => listener.written(JSON.parse(data).data.step_id ?? null));
    }
    opened.onerror = () => opened.readyState === EventSource.CLOSED && again();
  }

  function again() {
    setTimeout(() => closed || open().catch(lost), AGAIN_MS);
  }

  /** @param {unknown} error */
  function lost(error) {
    if (closed) return;
    say(wordsOf(error));
    if (!(error instanceof Refusal) || error.status >= 500) again();
  }

  open().catch(lost);
  return () => {
    closed = true;
    stream?.close();
  };
}
