// The stream of one task.

import { call, Refusal } from "./api.js";
import { say, wordsOf } from "./page.js";

const AGAIN_MS = 1000;

// The events after which what a model was writing is there, or will never be, and a report is of a call that has ended.
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
 * Tells `heard` of every log line (`line`), of what a model writes (`writing`), of what a server reports of a
 * call (`reporting`) and of the end of both (`written`), until the function that it gives is called. A lost connection the browser mends by itself, until the ticket has
 * expired: then another one is asked for.
 * @param {string} id @param {Listener} heard
 */
export function follow(id, heard) {
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
      if (!lastEventId || lastEventId === last) return; // the line of a report, which comes as an event too
      last = lastEventId;
      if (data === "[DONE]") opened.close();
      heard.line(data);
    };
    opened.addEventListener("progress", ({ data }) => heard.writing(JSON.parse(data)));
    opened.addEventListener("call.progress", ({ data }) => heard.reporting(JSON.parse(data)));
    for (const type of WRITTEN) {
      opened.addEventListener(type, ({ data }) => heard.written(JSON.parse(data).data.step_id ?? null));
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
