// One open task: its questions, its plan, its log and its result.

/** @import { Part } from "./page.js" */
import { call, Refusal } from "./api.js";
import { isChanged, planQuestion, question } from "./decide.js";
import { follow } from "./follow.js";
import { differencesOf, planOf, showSteps } from "./plan.js";
import { planningOf } from "./planning.js";
import { button, element, group, place, quietly, say, timeOf } from "./page.js";
import { visible } from "./text.js";

/** @param {number} count @param {string} noun */
const countText = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** @param {string} title @param {string | null} text @param {string} [className] */
const textSection = (title, text, className) => group("section", className, element("h3", title), element("pre", text));

/**
 * Append text to a box, and scroll to its end unless the reader has scrolled back.
 * @param {Element} box @param {string} text
 */
function append(box, text) {
  const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
  box.append(visible(text));
  if (atEnd) box.scrollTop = box.scrollHeight;
}

/** @param {TaskView} task */
function footOf({ usage, approvals }) {
  const used = [
    countText(usage.tool_calls, "call"),
    countText(usage.input_tokens, "token") + " read",
    countText(usage.output_tokens, "token") + " written",
  ];
  const node = group("section", "foot", element("p", `Used: ${used.join(", ")}.`));
  for (const { who, when, decision, comment, step_id: step } of approvals) {
    const about = step ? ` (step ${step})` : "";
    const said = comment ? `: ${comment}` : "";
    node.append(element("p", `${timeOf(when)}, ${who}: ${decision}${about}${said}`));
  }
  return node;
}

/**
 * Show a task in a box, and keep it up to date. Calls `changed` with each new state, and `started` with the id of a task
 * that runs this one again. Return `close`, and `reload`, which requests the task, and requests it again if it is called
 * before the answer arrives. `texts` are the texts that models are writing, by step id, null for the plan; `boxes` are
 * their elements. `reports` are the progress reports of servers about their calls.
 * @param {HTMLElement} box @param {string} id @param {(task: TaskView) => void} changed
 * @param {(id: string) => Promise<void>} started
 */
export function openTask(box, id, changed, started) {
  const path = `/v1/tasks/${id}`;
  const lines = group("pre", "log");
  lines.setAttribute("role", "log");
  lines.tabIndex = 0;
  lines.setAttribute("aria-label", "What happened");
  const log = group("section", "", element("h3", "What happened"), lines);
  /** @type {Map<string | null, string>} */
  const texts = new Map();
  /** @type {Map<string | null, Element>} */
  const boxes = new Map();
  /** @type {Map<string, string>} */
  const reports = new Map();
  /** @type {TaskView | undefined} */
  let task;
  let asked = 0;
  /** @type {Promise<void> | null} */
  let loading = null;
  let closed = false;

  /** @param {"start" | "failed_step"} from */
  const rerun = (from) => async () => {
    /** @type {{ task_id: string }} */
    const made = await call(`${path}/rerun`, { from });
    await started(made.task_id);
  };

  /** @param {TaskView} task */
  function rerunButtons(task) {
    const buttons = [button("Run again", rerun("start"))];
    if (task.status === "failed" && task.steps.some((step) => step.status === "completed")) {
      buttons.push(button("Run again from the failed step", rerun("failed_step")));
    }
    return group("p", "buttons", ...buttons);
  }

  /** @param {string} verb @param {object | string} body */
  async function decide(verb, body) {
    try {
      await call(`${path}/${verb}`, body);
    } catch (error) {
      if (!(error instanceof Refusal && error.outdated)) throw error;
      await reload();
      say(`Not done: the task has changed. The page now shows its current state. ${error.message}`);
      return;
    }
    await reload();
    if (document.activeElement === document.body) box.parentElement?.querySelector("summary")?.focus();
  }

  function reload() {
    asked += 1;
    loading ??= load();
    return loading;
  }

  async function load() {
    let known;
    try {
      do {
        known = asked;
        /** @type {TaskView} */
        const loaded = await call(path);
        if (closed) return;
        task = loaded;
        show(loaded);
        changed(loaded);
      } while (known !== asked);
    } finally {
      loading = null;
    }
  }

  /** @param {TaskView} task @param {string | null} step */
  const isWriting = (task, step) =>
    step === null ? task.status === "pending" : task.steps.some((one) => one.id === step && one.status === "running");

  /** @param {TaskView} task @returns {Part[]} */
  function writing(task) {
    return [...texts].filter(([step]) => isWriting(task, step)).map(([step]) => {
      const title = step === null ? "The model is writing the plan" : `The model is writing in step ${step}`;
      return [`writing ${step}`, () => {
        const text = element("pre", texts.get(step));
        boxes.set(step, text);
        return group("section", "writing", element("h3", title), text);
      }];
    });
  }

  /** @param {TaskView} task */
  function show(task) {
    const { status, error, plan_object: plan, plan_digest: digest, plan_revision: revision } = task;
    /** @type {Part[]} */
    const parts = [];
    /** @param {Part} part */
    const add = (...part) => parts.push(part);
    if (task.prompt.includes("\n") || task.prompt.length > 200) add("prompt", () => textSection("Prompt", task.prompt));
    if (error) add("error", () => element("p", error.message, "error"));
    if (status === "completed") add("result", () => textSection("Result", task.result, "result"));
    for (const one of task.attention) add(`asked ${JSON.stringify(one)}`, () => question(one, decide));
    const waiting = task.waiting_for;
    if (waiting) add(`waiting ${waiting.attempt}`, () => element("p", task.result, "note"));
    parts.push(...writing(task));
    for (const [step, text] of reports) {
      if (isWriting(task, step)) add(`report ${step} ${text}`, () => element("p", text, "note"));
    }
    if (plan) {
      const unwanted = "This plan is being replaced by another one.";
      if (status === "pending") add("unwanted", () => element("p", unwanted, "note"));
      add(`plan ${digest}`, () => planOf(task, plan));
      if (revision > 1) add(`changes ${revision}`, () => differencesOf(task));
    }
    if (status === "awaiting_approval") add(`decide ${digest}`, () => planQuestion(task, decide));
    add("log", () => log);
    if (task.usage.input_tokens) add(`planning ${revision} ${status === "pending"}`, () => planningOf(path));
    add(`foot ${JSON.stringify([task.usage, task.approvals])}`, () => footOf(task));
    if (task.cancel_requested && !task.terminal) add("ending", () => element("p", "The task is being cancelled.", "note"));
    else if (!task.terminal && !isChanged(task)) add("cancel", () => group("p", "buttons", button("Cancel", () => decide("cancel", {}))));
    if (task.terminal) add("again", () => rerunButtons(task));
    place(box, parts);
    const shown = box.querySelector(".plan");
    if (plan && shown) showSteps(shown, task, plan);
  }

  const unfollow = follow(id, {
    line(text) {
      if (text !== "[DONE]") append(lines, `${text}\n`);
      quietly(reload);
    },
    writing({ step_id: step, text }) {
      texts.set(step, `${texts.get(step) ?? ""}${text}`);
      const shown = boxes.get(step);
      if (shown?.isConnected) append(shown, text);
      else if (task) show(task);
    },
    reporting({ step_id: step, text }) {
      reports.set(step, text);
      if (task) show(task);
    },
    written(step) {
      texts.delete(step);
      if (step !== null) reports.delete(step);
      if (task) show(task);
    },
  });

  quietly(reload);
  return {
    reload,
    close() {
      closed = true;
      unfollow();
    },
  };
}
