// What a language model was asked for the plans of a task, and what it answered.

import { call } from "./api.js";
import { element, group, quietly } from "./page.js";

/** @param {PlanningAttemptView} attempt */
function attemptOf({ number, revision, outcome, usage, cut, instructions, messages, answer, faults, message }) {
  const cost = `${usage.input_tokens + usage.output_tokens} tokens`;
  const title = `Attempt ${number}, for revision ${revision}: ${outcome.replaceAll("_", " ")}, ${cost}`;
  const node = group("div", "attempt", element("p", title, "line"));
  if (cut) node.append(element("p", "Long texts are shown in part.", "note"));
  /** @param {string} caption @param {string | null} text */
  const add = (caption, text) => {
    if (text !== null) node.append(element("p", caption, "caption"), element("pre", text));
  };
  add("Instructions", instructions);
  for (const { role, content } of messages) add(role === "user" ? "Asked" : "Answered before", content);
  add("Answer", answer);
  for (const fault of faults) node.append(element("p", [fault.field, fault.message].filter(Boolean).join(": "), "error"));
  if (message) node.append(element("p", message, "error"));
  return node;
}

/** Create a fold that loads the attempts of a task when it is opened. @param {string} path */
export function planningOf(path) {
  const content = element("div");
  const node = group("details", "planning", element("summary", "What the model was asked"), content);
  const load = async () => {
    /** @type {PlanningView} */
    const { attempts } = await call(`${path}/planning`);
    const none = element("p", "No language model was asked for a plan of this task.", "note");
    content.replaceChildren(...(attempts.length ? attempts.map(attemptOf) : [none]));
  };
  node.addEventListener("toggle", () => { if (node.open) quietly(load); });
  return group("section", "", node);
}
