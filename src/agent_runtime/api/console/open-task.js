// One task that is being looked at: its state, its log, and what models and servers say while it runs.

import { ApiError, parseExactly } from "../client.js";
import { client, textOf } from "./api.js";
import { onChange } from "./feed.js";
import { isOfRun } from "./run.js";
import { Store, useStore } from "./store.js";
import { useEffect, useMemo } from "./ui.js";

// The events after which the text of a model is complete or discarded, or a call has ended and reports no more.
const WRITTEN = new Set([
  "plan.proposed", "plan.revision_requested", "plan.revision_failed", "step.started", "model.answered", "tool.called",
  "tool.returned", "step.completed", "step.failed",
]);

// How long frames of the stream are gathered before they are shown: a long journal arrives at once.
const GATHER_MS = 40;

/**
 * @typedef {{ text: string, progress: number | null, total: number | null }} Report What a server reports of a call.
 *
 * @typedef {object} TaskState
 * @property {TaskView | null} task
 * @property {string} error Why the task cannot be shown or followed.
 * @property {string} notice What the person should know about the last decision.
 * @property {string} log The log lines.
 * @property {ReadonlyMap<string | null, string>} texts What models are writing, by step; null: the plan.
 * @property {ReadonlyMap<string, Report>} reports What servers report of calls, by step.
 * @property {readonly import("./run.js").TaskEvent[]} events The events of steps, oldest first.
 */

export class OpenTask {
  /** @type {Store<TaskState>} */
  state = new Store(
    /** @type {TaskState} */ ({ task: null, error: "", notice: "", log: "", texts: new Map(), reports: new Map(), events: [] }),
  );
  #stop = new AbortController();
  #asked = 0;
  /** @type {Promise<void> | null} */
  #loading = null;

  /** @param {string} id */
  constructor(id) {
    this.id = id;
  }

  /** Keep the task up to date. Return a function that ends this. */
  follow() {
    this.#stop = new AbortController();
    this.state.patch({ log: "", texts: new Map(), reports: new Map(), events: [] });
    this.reload();
    this.#read(this.#stop.signal).catch((error) => {
      if (!this.#stop.signal.aborted && this.state.value.task) this.state.patch({ error: textOf(error) });
    });
    const unlisten = onChange(({ task_id: id, type }) => {
      if (type === "restart" || id === this.id) this.reload();
    });
    return () => {
      unlisten();
      this.#stop.abort();
    };
  }

  /** Load the task. It is loaded once more if this is called before the answer arrives. */
  reload() {
    this.#asked += 1;
    this.#loading ??= this.#load().finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  }

  async #load() {
    let known;
    do {
      known = this.#asked;
      try {
        this.state.patch({ task: await client.getTask(this.id), error: "" });
      } catch (error) {
        const isGone = error instanceof ApiError && error.status === 404;
        this.state.patch({ error: textOf(error), ...(isGone ? { task: null } : {}) });
      }
    } while (known !== this.#asked);
  }

  /**
   * Decide something about the task, and show it as it then is. If the task has changed meanwhile, say so.
   * @param {string} verb @param {object | string} [body] An object, or JSON as text.
   */
  async decide(verb, body = {}) {
    this.state.patch({ notice: "" });
    try {
      await client.decide(this.id, verb, body);
    } catch (error) {
      if (!(error instanceof ApiError && error.isConflict)) throw error;
      await this.reload();
      const notice = `Not done: the task has changed. The page now shows its current state. ${error.message}`;
      this.state.patch({ notice });
      return;
    }
    await this.reload();
    // The button that was pressed is gone: keep the focus in the task, and show its top, where results and questions are.
    requestAnimationFrame(() => {
      const title = /** @type {HTMLElement | null} */ (document.querySelector("main .task h1"));
      if (!title || document.activeElement !== document.body) return;
      title.focus({ preventScroll: true });
      scrollTo(0, 0);
    });
  }

  /** @param {AbortSignal} signal */
  async #read(signal) {
    /** @type {import("../client.js").Frame[]} */
    let gathered = [];
    const show = () => {
      const frames = gathered;
      gathered = [];
      if (!signal.aborted) this.#take(frames);
    };
    for await (const frame of client.follow(this.id, { signal })) {
      if (!gathered.length) setTimeout(show, GATHER_MS);
      gathered.push(frame);
    }
  }

  /** Add frames of the stream to the state. @param {import("../client.js").Frame[]} frames */
  #take(frames) {
    const { log, events } = this.state.value;
    const [texts, reports] = [new Map(this.state.value.texts), new Map(this.state.value.reports)];
    const [lines, found] = [/** @type {string[]} */ ([]), /** @type {import("./run.js").TaskEvent[]} */ ([])];
    for (const { event, id, data } of frames) {
      if (event === "message") {
        // A line without an id is that of a report, which arrives as an event too.
        if (id) lines.push(`${data}\n`);
        continue;
      }
      const told = parseExactly(data);
      if (event === "progress") texts.set(told.step_id, `${texts.get(told.step_id) ?? ""}${told.text}`);
      else if (event === "call.progress") reports.set(told.step_id, told);
      else if (isOfRun(told)) found.push(told);
      const step = told.data?.step_id ?? null;
      if (WRITTEN.has(event)) texts.delete(step);
      if (WRITTEN.has(event) && step !== null) reports.delete(step);
    }
    this.state.patch({ log: log + lines.join(""), texts, reports, events: found.length ? [...events, ...found] : events });
  }
}

/** Return the open task with this id and its state, and follow it. @param {string} id */
export function useTask(id) {
  const opened = useMemo(() => new OpenTask(id), [id]);
  useEffect(() => opened.follow(), [opened]);
  return { opened, ...useStore(opened.state) };
}
