// A plan as numbered steps, with everything that an approval allows.

import { call } from "./api.js";
import { element, group, json, oneLine, place, quietly, short } from "./page.js";

const EFFECTS = { read: "reads", write: "writes", destructive: "destructive", unknown: "effect unknown" };
const MOST_INLINE = 120;
// See domain/patience.py.
const TIMES_THE_TIMEOUT = 10;
// Characters that a name must not contain without quotes, and that end a title: see text/escaping.py.
const UNCLEAR = /[ ()=,"'\u2012-\u2015\u2e3a\u2e3b]|^$/;
const DASH = /[\u2012-\u2015\u2e3a\u2e3b]/;

/** Quote a name that could be mistaken for more than a name. @param {string} name */
const clear = (name) => (UNCLEAR.test(name) ? JSON.stringify(name) : name);

/** Format short arguments as Python keyword arguments; null if they are long. @param {ToolStep["arguments"]} given */
function inline(given) {
  const text = Object.entries(given).map(([name, value]) => `${clear(name)}=${JSON.stringify(value)}`).join(", ");
  return text.length <= MOST_INLINE ? text : null;
}

/** @param {ToolStep | AgentStep} step */
function lineOf(step) {
  const name = step.kind === "agent" ? "work for the model" : `${step.server}.${clear(step.tool)}`;
  const given = step.kind === "agent" ? null : inline(step.arguments);
  const call = given === null ? name : `${name}(${given})`;
  const title = DASH.test(step.title) ? JSON.stringify(step.title) : step.title;
  return title && title !== name ? `${title} — ${call}` : call;
}

/** @param {TouchView} touch */
function touchText({ argument, value, resolved }) {
  return oneLine(`${argument}: ${value}${resolved ? "" : " (known when the step runs)"}`);
}

/** @param {AgentStep} step */
function tools(step) {
  if (!step.tools.length) return "nothing: it only writes text";
  /** @param {AllowedTool} allowed */
  const one = ({ server, tool, max_calls: most, timeout_s: seconds }) => {
    const times = most === 1 ? "once" : `${most} times`;
    return oneLine(`${server}.${clear(tool)}, at most ${times}${seconds ? `, ${seconds} s each` : ""}`);
  };
  return step.tools.map(one).join("\n");
}

/** @param {ToolStep | AgentStep} step @param {PreviewView} preview @returns {[name: string, text: string][]} */
function facts(step, preview) {
  const touches = preview.touches.filter((touch) => touch.argument !== null).map(touchText);
  const after = preview.waits_on.join(", ");
  /** @type {[name: string, text: string | false | null | undefined][]} */
  const found = [
    ["Touches", touches.join("\n")],
    ["Only when", step.when],
    ["After", after],
    ["Asks again", preview.asks && `before its call: ${preview.asks}`],
    ["Also approved", preview.covers && `its call, without showing it to you before it is sent, although ${preview.covers}`],
    ["Preapproved", step.preapproved && "its calls need no separate approval"],
    ["Retries", step.kind === "tool" && step.retries ? `up to ${step.retries}` : null],
  ];
  if (step.kind === "agent") {
    found.push(["May call", tools(step)], ["Turns", `at most ${step.max_turns ?? 10}`]);
  }
  return found.flatMap(([name, text]) => (text ? [[name, text]] : []));
}

/** How long a call may take, by its time-out. @param {number} seconds @param {PinnedPolicy | undefined} policy */
function patience(seconds, policy) {
  const most = Math.max(seconds, policy?.max_timeout_s ?? TIMES_THE_TIMEOUT * seconds);
  return `at most ${seconds} s` + (most > seconds ? ` without progress, ${most} s in all` : "");
}

/** @param {number} number @param {ToolStep | AgentStep} step @param {StepView} state @param {Contract} plan */
function stepOf(number, step, state, plan) {
  const { effect } = state.preview;
  const line = element("p", oneLine(`${number}. ${lineOf(step)}`), "line");
  const marks = group("p", "marks", element("code", step.id), element("span", EFFECTS[effect], `effect ${effect}`));
  if (state.status !== "pending") {
    marks.append(element("span", state.status.replaceAll("_", " "), `state ${state.status}`));
  }
  if (step.kind === "tool" && step.timeout_s) {
    marks.append(element("span", patience(step.timeout_s, plan.policy[`${step.server}/${step.tool}`])));
  }
  if (state.attempts > 1) marks.append(element("span", `attempt ${state.attempts}`));
  const list = element("dl");
  for (const [name, text] of facts(step, state.preview)) list.append(element("dt", name), element("dd", text));
  const node = group("li", "step", line, marks, list);
  if (step.kind === "agent") node.append(element("p", "Instruction", "caption"), element("pre", step.instruction));
  else if (inline(step.arguments) === null) node.append(json(step.arguments));
  if (state.error) node.append(element("p", state.error.message, "error"));
  if (state.note) node.append(element("p", state.note, "note"));
  if (state.output) node.append(element("p", "Output", "caption"), element("pre", state.output));
  return node;
}

/** @param {Limits} limits */
function limits({ budget, max_steps: most }) {
  /** @type {Record<string, string>} */
  const words = { tool_calls: "calls", seconds: "seconds of calls", tokens: "tokens" };
  const found = Object.entries(budget ?? {}).filter(([, limit]) => limit !== null);
  return [`${most} steps`, ...found.map(([name, limit]) => `${limit} ${words[name] ?? name}`)].join(", ");
}

/** @param {TaskView} task @param {Contract} plan */
export function planOf(task, plan) {
  const head = group("p", "marks", `Revision ${task.plan_revision}`, short(task.plan_digest ?? ""));
  const node = group("section", "plan", element("h3", "Plan"), head);
  const list = element("dl");
  if (plan.goal && plan.goal !== task.prompt) list.append(element("dt", "Goal"), element("dd", plan.goal));
  list.append(element("dt", "At most"), element("dd", limits(plan.limits)));
  node.append(list, element("ol"), ...task.plan_notes.map((note) => element("p", note, "error")));
  return node;
}

/**
 * Show the current state of the steps. Only changed steps are rendered again.
 * @param {Element} node @param {TaskView} task @param {Contract} plan
 */
export function showSteps(node, task, plan) {
  const list = /** @type {Element} */ (node.querySelector("ol"));
  place(list, plan.steps.map((step, at) => {
    const state = task.steps[at];
    return [`${step.id} ${JSON.stringify(state)}`, () => stepOf(at + 1, step, state, plan)];
  }));
}

/** @type {Record<string, string>} */
const MARKS = { "+": "added", "-": "removed" };

/** Show the differences from the previous revision, as the service formats them. @param {TaskView} task */
export function differencesOf(task) {
  const [from, to] = [task.plan_revision - 1, task.plan_revision];
  const lines = element("pre", "…", "diff");
  const node = group("details", "changes", element("summary", `What changed since revision ${from}`), lines);
  node.open = true;
  quietly(async () => {
    const { text } = await call(`/v1/tasks/${task.task_id}/plan/diff?from=${from}&to=${to}`);
    /** @param {string} line @param {number} at */
    const marked = (line, at) => element("span", `${line}\n`, at < 2 ? "note" : MARKS[line[0]]);
    lines.replaceChildren(...text.split("\n").map(marked));
  });
  return node;
}
