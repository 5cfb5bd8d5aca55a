// What changed between the last two revisions of a plan, step by step.

import { client, taskPath } from "../api.js";
import { html } from "../ui.js";
import { Problem, useLoaded } from "./basics.js";
import { Value, numbersOf } from "./values.js";

/** @import { Numbers } from "./values.js" */

/** @type {Record<string, string>} */
const VERBS = { added: "Added", removed: "Removed", changed: "Changed" };
/** The fields that a sentence tells already, where the whole step is new or gone. */
const IN_SENTENCE = /^(arguments\.|kind$|server$|tool$|title$|instruction$|depends_on$|when$)/;

/** @param {string} name */
const fieldName = (name) => name.replace(/^arguments\./, "").replaceAll("_", " ");

/** @param {{ name: string, field: DifferenceView, numbers: Numbers }} props */
const Field = ({ name, field, numbers }) => html`
  <dt>${fieldName(name)}</dt>
  <dd>
    <del><span class="hidden">before: </span><${Value} value=${field.from} numbers=${numbers} /></del>
    <ins><span class="hidden">now: </span><${Value} value=${field.to} numbers=${numbers} /></ins>
  </dd>
`;

/** @param {{ change: ChangeView, numbers: Numbers }} props */
function Change({ change: { step_id: id, change, fields, sentence }, numbers }) {
  const whole = id !== null && change !== "changed";
  const rows = Object.entries(fields).filter(([name]) => !whole || !IN_SENTENCE.test(name));
  const number = id === null ? undefined : numbers.get(id);
  const subject = id === null ? "the plan as a whole" : number === undefined ? `step ${id}` : `step ${number}`;
  return html`
    <li class=${`change ${change}`}>
      <p><strong>${VERBS[change] ?? change} ${subject}</strong></p>
      ${sentence.from !== sentence.to && sentence.from && html`<p><del><span class="hidden">before: </span>${sentence.from}</del></p>`}
      ${sentence.from !== sentence.to && sentence.to && html`<p><ins><span class="hidden">now: </span>${sentence.to}</ins></p>`}
      ${!whole && rows.length > 0 && html`
        <dl class="values">${rows.map(([name, field]) => html`<${Field} name=${name} field=${field} numbers=${numbers} />`)}</dl>
      `}
    </li>
  `;
}

/** The differences from the previous revision. @param {{ task: TaskView, plan: Contract }} props */
export function PlanChanges({ task, plan }) {
  const [from, to] = [task.plan_revision - 1, task.plan_revision];
  const path = taskPath(task.task_id, `plan/diff?from=${from}&to=${to}`);
  /** @type {{ value: DiffView | null, error: string }} */
  const { value, error } = useLoaded(() => client.call(path), [path]);
  const numbers = numbersOf(plan);
  return html`
    <details class="changes" open>
      <summary>What changed since revision ${from}</summary>
      <${Problem} text=${error} />
      ${value && !value.changes.length && html`<p class="note">Nothing that counts.</p>`}
      ${value && html`
        <ul>${value.changes.map((change) => html`<${Change} key=${change.step_id} change=${change} numbers=${numbers} />`)}</ul>
        <details><summary>As text</summary><pre>${value.text}</pre></details>
      `}
    </details>
  `;
}
