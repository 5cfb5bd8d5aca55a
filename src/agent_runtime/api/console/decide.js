// The questions to a person: about the plan, a call, a call of unknown outcome, or from a server. And the notice that
// the stored journal of the task was changed.

/** @import { Work } from "./page.js" */
import { button, element, field, group, json, say, short } from "./page.js";

/** @typedef {(verb: string, body: object | string) => Promise<void>} Decide Sends a decision about the task. */

/** @param {TaskView} task @param {Decide} decide */
export function planQuestion(task, decide) {
  const { input, node } = field("Changes to the plan, or a reason to reject it", 2);
  const revise = () => {
    if (input.value.trim()) return decide("revise", { feedback: input.value });
    input.focus();
    say("Describe the changes first. Then the task is planned again.");
  };
  const reject = () => decide("reject", input.value.trim() ? { reason: input.value } : {});
  return group(
    "section",
    "question",
    element("h3", "Should this plan run?"),
    group(
      "p",
      "buttons",
      button("Approve", () => decide("approve", { plan_digest: task.plan_digest }), "primary"),
      group("span", "note", `approves revision ${task.plan_revision}, `, short(task.plan_digest ?? "")),
    ),
    node,
    group("p", "buttons", button("Revise", revise), button("Reject", reject)),
  );
}

/** @param {AttentionView} asked */
const dependents = (asked) => asked.needed_by.join(", ");

/** @param {AttentionView} asked @param {string} title @returns {Node[]} */
function callParts(asked, title) {
  return [
    element("h3", title),
    element("p", asked.reason),
    group("p", "marks", element("code", `${asked.server}.${asked.tool}`), "arguments ", short(asked.arguments_digest)),
    json(asked.arguments),
  ];
}

/** @param {AttentionView} asked @param {Decide} decide */
function callQuestion(asked, decide) {
  const { input, node } = field("Comment (optional)");
  /** @param {"approve" | "deny"} verb @returns {Work} */
  const answer = (verb) => () => decide(`calls/${encodeURIComponent(asked.call_id)}/${verb}`, {
    arguments_digest: asked.arguments_digest,
    ...(input.value.trim() ? { comment: input.value } : {}),
  });
  const parts = callParts(asked, `May step ${asked.step_id} make this call?`);
  if (asked.needed_by.length) {
    parts.push(element("p", `If you deny it, the step fails, and the steps that need it are skipped: ${dependents(asked)}.`, "note"));
  }
  parts.push(node);
  parts.push(group("p", "buttons", button("Approve", answer("approve"), "primary"), button("Deny", answer("deny"))));
  return group("section", "question", ...parts);
}

/**
 * Return the typed text unchanged if it is JSON, so that no number loses a digit; otherwise as a JSON string.
 * @param {string} text
 */
function outputOf(text) {
  if (!text.trim()) return undefined;
  try {
    JSON.parse(text);
    return text;
  } catch {
    return JSON.stringify(text);
  }
}

/** @param {AttentionView} asked @param {Decide} decide */
function outcomeQuestion(asked, decide) {
  const { input, node } = field("The output of the call, as JSON or text (optional)", 2);
  /** @param {string} resolution @param {() => string | undefined} [output] @returns {Work} */
  const resolve = (resolution, output) => () => {
    const body = JSON.stringify({ step_id: asked.step_id, call_id: asked.call_id, resolution });
    const given = output?.();
    return decide("resolve", given === undefined ? body : `${body.slice(0, -1)},"output":${given}}`);
  };
  const also = asked.needed_by.length ? ` So are the steps that need it: ${dependents(asked)}.` : "";
  /** @type {[text: string, means: string, work: Work, ...more: Node[]][]} */
  const choices = [
    ["Done", "It took effect. The task continues with its output.", resolve("done", () => outputOf(input.value)), node],
    ["Retry", "It did not take effect, or it may safely happen twice. It is called again.", resolve("retry")],
    ["Skip", `The step is skipped.${also}`, resolve("skip")],
    ["Fail", "The step counts as failed, and the task fails.", resolve("fail")],
  ];
  const list = group("div", "choices");
  for (const [text, means, work, ...more] of choices) {
    list.append(button(text, work), group("div", "", element("p", means), ...more));
  }
  const parts = callParts(asked, `Did this call of step ${asked.step_id} take effect?`);
  const needed = asked.needed_by.length ? `Needed by: ${dependents(asked)}.` : "No other step needs it.";
  return group("section", "question", ...parts, element("p", needed, "note"), list);
}

/**
 * Return a draft of an answer: each field with its default, or with an empty value of its type.
 * @param {InputView["schema"]} schema
 */
function draft({ properties }) {
  /** @type {Record<string, Json>} */
  const empty = { boolean: false, integer: 0, number: 0, array: [] };
  const fields = Object.entries(properties).map(([name, { type, default: given }]) => [name, given ?? empty[type ?? ""] ?? ""]);
  return JSON.stringify(Object.fromEntries(fields), null, 2);
}

/** @param {InputView} asked @param {Decide} decide */
function inputQuestion(asked, decide) {
  const { input, node } = field("Your answer, as JSON", 4);
  input.value = draft(asked.schema);
  const path = `answers/${encodeURIComponent(asked.question_id)}`;
  /* The text is sent unchanged, so that no number loses a digit. The service names the faults. */
  const accept = () => decide(path, `{"action":"accept","content":${input.value.trim() || "{}"}}`);
  return group(
    "section",
    "question",
    element("h3", `The server ${asked.server} asks you`),
    element("p", asked.message),
    group("p", "marks", element("code", `${asked.server}.${asked.tool}`), `in step ${asked.step_id}`),
    element("p", "What you write goes to this server. Do not give it secrets that are not meant for it.", "note"),
    json(asked.schema.properties),
    node,
    group("p", "buttons", button("Answer", accept, "primary"), button("Decline", () => decide(path, { action: "decline" }))),
  );
}

/** @param {JournalChangedView} asked */
function changeNotice(asked) {
  return group(
    "section",
    "question",
    element("h3", `The stored journal was changed at record ${asked.record}`),
    element("p", asked.reason),
    element("p", "This task no longer runs. An administrator can delete it.", "note"),
  );
}

/** @param {TaskView} task */
export const isChanged = (task) => task.attention.some(({ kind }) => kind === "journal_changed");

/** @param {AttentionView | InputView | JournalChangedView} asked @param {Decide} decide */
export function question(asked, decide) {
  if (asked.kind === "input") return inputQuestion(asked, decide);
  if (asked.kind === "journal_changed") return changeNotice(asked);
  return asked.kind === "call_approval" ? callQuestion(asked, decide) : outcomeQuestion(asked, decide);
}
