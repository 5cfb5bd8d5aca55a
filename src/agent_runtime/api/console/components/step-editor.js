// Changes one step of a plan that awaits approval, in place. The changed plan is the next revision.

/** @import { OpenTask } from "../open-task.js" */
/** @import { Schema } from "./schema-form.js" */
import { client, findTool } from "../api.js";
import { html, useState } from "../ui.js";
import { Button, Field, Form, Problem, useLoaded } from "./basics.js";
import { SchemaForm } from "./schema-form.js";
import { numbersOf } from "./values.js";

/** @param {ToolStep} step @returns {Promise<Schema>} */
const schemaOf = async ({ server, tool }) => /** @type {Schema} */ ((await findTool(server, tool))?.input_schema ?? {});

/**
 * Have the service judge the plan with these steps, and show it as the next revision.
 * @param {OpenTask} opened @param {TaskView} task @param {Contract} plan @param {(ToolStep | AgentStep)[]} steps
 */
async function save(opened, task, plan, steps) {
  await client.edit(task.task_id, { goal: plan.goal, steps }, task.plan_digest ?? "");
  await opened.reload();
}

/** @param {{ step: ToolStep, set: (step: ToolStep) => void, plan: Contract }} props */
function Arguments({ step, set, plan }) {
  const { value: schema, error } = useLoaded(() => schemaOf(step), [step.server, step.tool]);
  if (!schema) return html`<${Problem} text=${error} />${!error && html`<p class="note">Loading the form…</p>`}`;
  const change = (/** @type {ToolStep["arguments"]} */ next) => set({ ...step, arguments: next });
  return html`<${SchemaForm} schema=${schema} value=${step.arguments} set=${change} numbers=${numbersOf(plan)} />`;
}

/**
 * @param {{ task: TaskView, plan: Contract, step: ToolStep | AgentStep, number: number, opened: OpenTask,
 *   close: () => void }} props
 */
export function StepEditor({ task, plan, step, number, opened, close }) {
  const [draft, setDraft] = useState(step);
  const send = () => save(opened, task, plan, plan.steps.map((one) => (one.id === step.id ? draft : one)));
  const remove = () => save(opened, task, plan, plan.steps.filter(({ id }) => id !== step.id));
  /** @param {KeyboardEvent} event */
  const escape = (event) => {
    if (event.key === "Escape") close();
  };
  const condition = (/** @type {string} */ text) => setDraft({ ...draft, when: text.trim() ? text : null });
  const others = html`
    <button type="button" onClick=${close}>Discard</button>
    ${plan.steps.length > 1 && html`<${Button} kind="danger" action=${remove}>Remove step ${number}<//>`}
  `;
  return html`
    <${Form} class="editor" onKeyDown=${escape} aria-label=${`Edit step ${number}`} action=${send}
      verb=${`Save as revision ${task.plan_revision + 1}`} more=${others}>
      ${draft.kind === "agent"
        ? html`<${Field} label="Instruction" rows=${5} value=${draft.instruction}
            set=${(/** @type {string} */ text) => setDraft({ ...draft, instruction: text })} />`
        : html`<${Arguments} step=${draft} set=${setDraft} plan=${plan} />`}
      ${step.when && html`<${Field} label="Only if" value=${draft.when ?? ""} set=${condition} />`}
    <//>
  `;
}
