// One task, opened: what it asks, its plan, what happens to it, and what came of it.

import { call, Refusal } from "./api.js";
import { isChanged, planQuestion, question } from "./decide.js";
import { follow } from "./follow.js";
import { differencesOf, planOf, showSteps } from "./plan.js";
import { button, element, group, place, quietly, say, timeOf } from "./page.js";
import { visible } from "./text.js";

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

const titled = (title, text, className) => group("section", className, element("h3", title), element("pre", text));

// The end of a box is what is read, unless somebody has scrolled back in it.
function append(box, text) {
  const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
  box.append(visible(text));
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function footOf({ usage, approvals }) {
  const used = [
    counted(usage.tool_calls, "call"),
    counted(usage.input_tokens, "token") + " read",
    counted(usage.output_tokens, "token") + " written",
  ];
  const node = group("section", "foot", element("p", `Used: ${used.join(", ")}.`));
  for (const { who, when, decision, comment, step_id: step } of approvals) {
    const about = step ? ` (step ${step})` : "";
    const said = comment ? `: ${comment}` : "";
    node.append(element("p", `${timeOf(when)}, ${who}: ${decision}${about}${said}`));
  }
  return node;
}

// Show a task in a box, and keep it as it stands. `changed(task)` hears of it. Gives `reload`, which asks for the task,
// once more where it was asked for while an answer was under way, and `close`. `texts` is what models are writing, by
// step, null for the plan; `boxes` is where it stands.
export function openTask(box, id, changed) {
  const path = `/v1/tasks/${id}`;
  const lines = group("pre", "log");
  lines.setAttribute("role", "log");
  lines.tabIndex = 0;
  lines.setAttribute("aria-label", "What happened");
  const log = group("section", "", element("h3", "What happened"), lines);
  const texts = new Map();
  const boxes = new Map();
  let task;
  let asked = 0;
  let loading = null;
  let closed = false;

  async function decide(verb, body) {
    try {
      await call(`${path}/${verb}`, body);
    } catch (error) {
      if (!(error instanceof Refusal && error.outdated)) throw error;
      await reload();
      say(`Not done, because the task has changed meanwhile; this is how it stands now. ${error.message}`);
      return;
    }
    await reload();
    if (document.activeElement === document.body) box.parentElement.querySelector("summary").focus();
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
        task = await call(path);
        if (closed) return;
        show();
        changed(task);
      } while (known !== asked);
    } finally {
      loading = null;
    }
  }

  const isWriting = (step) =>
    step === null ? task.status === "pending" : task.steps.some((one) => one.id === step && one.status === "running");

  function writing() {
    return [...texts.keys()].filter(isWriting).map((step) => {
      const title = step === null ? "The model is writing the plan" : `The model is writing in step ${step}`;
      return [`writing ${step}`, () => {
        const node = titled(title, texts.get(step), "writing");
        boxes.set(step, node.lastChild);
        return node;
      }];
    });
  }

  function show() {
    const { status, plan_digest: digest, plan_revision: revision } = task;
    const parts = [];
    const add = (key, make) => parts.push([key, make]);
    if (task.prompt.includes("\n") || task.prompt.length > 200) add("prompt", () => titled("Asked for", task.prompt));
    if (task.error) add("error", () => element("p", task.error.message, "error"));
    if (status === "completed") add("result", () => titled("Result", task.result, "result"));
    for (const one of task.attention) add(`asked ${JSON.stringify(one)}`, () => question(one, decide));
    parts.push(...writing());
    if (task.plan_object) {
      const unwanted = "Not this plan: another one is being made.";
      if (status === "pending") add("unwanted", () => element("p", unwanted, "note"));
      add(`plan ${digest}`, () => planOf(task));
      if (revision > 1) add(`changes ${revision}`, () => differencesOf(task));
    }
    if (status === "awaiting_approval") add(`decide ${digest}`, () => planQuestion(task, decide));
    add("log", () => log);
    add(`foot ${JSON.stringify([task.usage, task.approvals])}`, () => footOf(task));
    if (task.cancel_requested && !task.terminal) add("ending", () => element("p", "It is being cancelled.", "note"));
    else if (!task.terminal && !isChanged(task)) add("cancel", () => group("p", "buttons", button("Cancel", () => decide("cancel", {}))));
    place(box, parts);
    if (task.plan_object) showSteps(box.querySelector(".plan"), task);
  }

  const unfollow = follow(id, {
    line(text) {
      if (text !== "[DONE]") append(lines, `${text}\n`);
      quietly(reload);
    },
    writing({ step_id: step, text }) {
      texts.set(step, `${texts.get(step) ?? ""}${text}`);
      if (boxes.get(step)?.isConnected) append(boxes.get(step), text);
      else if (task) show();
    },
    written(step) {
      texts.delete(step);
      if (task) show();
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
