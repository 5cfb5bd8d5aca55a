// What a language model was asked for the plans of a task, and what it answered.

import { client, taskPath } from "../api.js";
import { html } from "../ui.js";
import { Captioned, Fold, Problem, useLoaded } from "./basics.js";

/** @param {{ attempt: PlanningAttemptView }} props */
function Attempt({ attempt }) {
  const { number, revision, outcome, usage, cut, instructions, messages, answer, faults, message } = attempt;
  const cost = `${usage.input_tokens + usage.output_tokens} tokens`;
  return html`
    <div class="attempt">
      <p class="line">${`Attempt ${number}, for revision ${revision}: ${outcome.replaceAll("_", " ")}, ${cost}`}</p>
      ${cut && html`<p class="note">Long texts are shown in part.</p>`}
      <${Captioned} caption="Instructions" text=${instructions} />
      ${messages.map(({ role, content }) => html`
        <${Captioned} caption=${role === "user" ? "Asked" : "Answered before"} text=${content} />
      `)}
      <${Captioned} caption="Answer" text=${answer} />
      ${faults.map((fault) => html`<p class="error">${[fault.field, fault.message].filter(Boolean).join(": ")}</p>`)}
      ${message && html`<p class="error">${message}</p>`}
    </div>
  `;
}

/** @param {{ id: string, turn: string }} props */
function Attempts({ id, turn }) {
  const load = () => client.call(taskPath(id, "planning"));
  const { value, error } = useLoaded(/** @type {() => Promise<PlanningView>} */ (load), [id, turn]);
  if (error) return html`<${Problem} text=${error} />`;
  if (!value) return html`<p class="note">Loading…</p>`;
  if (!value.attempts.length) return html`<p class="note">No language model was asked for a plan of this task.</p>`;
  return value.attempts.map((attempt) => html`<${Attempt} attempt=${attempt} />`);
}

/** A fold that loads the attempts of a task when it is opened. @param {{ task: TaskView }} props */
export function Planning({ task: { task_id: id, plan_revision: revision, status } }) {
  const show = () => html`<${Attempts} id=${id} turn=${`${revision} ${status === "pending"}`} />`;
  return html`<${Fold} class="planning" title="What the model was asked" show=${show} />`;
}
