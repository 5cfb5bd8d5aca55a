// A plan: its picture, and a sentence for each step. The exact call is one click away, its JSON a further one.

/** @import { OpenTask } from "../open-task.js" */
import { client, taskPath } from "../api.js";
import { oneLine, statusText, timeText } from "../format.js";
import { edgesTo } from "../plan-graph.js";
import { routeOf } from "../router.js";
import { html, useState } from "../ui.js";
import { Allowed, Digest, Json, Problem, useLoaded } from "./basics.js";
import { PlanPicture } from "./plan-picture.js";
import { StepEditor } from "./step-editor.js";
import { NamedValues, Value, numbersOf, stepName } from "./values.js";

/** @import { Numbers } from "./values.js" */

// See domain/patience.py.
const TIMES_THE_TIMEOUT = 10;

/** @typedef {[name: string, text: string | false | null | undefined]} Fact */

/** @param {string[]} words */
const listWords = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");

/** Say what a step takes from others, and what it waits for. @param {ToolStep | AgentStep} step @param {Numbers} numbers */
function flowText(step, numbers) {
  return edgesTo(step).map(({ from, kind, names }) => {
    const name = stepName(from, numbers);
    if (kind === "order") return `waits for ${name}`;
    return kind === "data" ? `takes ${listWords(names)} from ${name}` : `looks at the result of ${name}`;
  }).join("; ");
}

/** @param {AllowedTool} allowed */
function allowedText({ server, tool, max_calls: most, timeout_s: seconds }) {
  const times = most === 1 ? "once" : `${most} times`;
  return oneLine(`${tool} of ${server}, at most ${times}${seconds ? `, ${seconds} s each` : ""}`);
}

/** Say how long a call may take, by its time-out. @param {number} seconds @param {PinnedPolicy | undefined} policy */
function patienceText(seconds, policy) {
  const most = Math.max(seconds, policy?.max_timeout_s ?? TIMES_THE_TIMEOUT * seconds);
  return `at most ${seconds} s` + (most > seconds ? ` without progress, ${most} s in all` : "");
}

/** @param {ToolStep | AgentStep} step @param {Contract} plan @returns {Fact[]} */
function factsOf(step, plan) {
  const policy = step.kind === "tool" ? plan.policy[`${step.server}/${step.tool}`] : undefined;
  return [
    ["Title", step.title && oneLine(step.title)],
    ["Reasoning", step.reasoning && oneLine(step.reasoning)],
    ["Condition", step.when],
    ["Time", step.kind === "tool" && step.timeout_s ? patienceText(step.timeout_s, policy) : null],
    ["Retries", step.kind === "tool" && step.retries ? `up to ${step.retries}` : null],
    ["May use", step.kind === "agent" && (step.tools.map(allowedText).join("\n") || "nothing: it only writes text")],
    ["Turns", step.kind === "agent" && `at most ${step.max_turns ?? 10}`],
  ];
}

/** @param {{ facts: Fact[] }} props */
const Facts = ({ facts }) => html`
  <dl class="facts">${facts.map(([name, text]) => text && html`<dt>${name}</dt><dd>${text}</dd>`)}</dl>
`;

/** The whole step, as it was approved or will be. @param {{ step: ToolStep | AgentStep, plan: Contract, numbers: Numbers }} props */
const Exact = ({ step, plan, numbers }) => html`
  ${step.kind === "agent"
    ? html`<dl class="values"><dt>instruction</dt><dd><${Value} value=${step.instruction} numbers=${numbers} /></dd></dl>`
    : html`<p class="caption">Tool ${step.tool} of server ${step.server}</p><${NamedValues} values=${step.arguments} numbers=${numbers} />`}
  <${Facts} facts=${factsOf(step, plan)} />
  <details class="raw"><summary>As JSON</summary><${Json} value=${step} /></details>
`;

/** What a person must know before the plan is approved. @param {{ step: ToolStep | AgentStep, preview: PreviewView }} props */
const Warnings = ({ step, preview: { asks, covers } }) => html`
  ${asks && html`<p class="note">You will be asked again before its call: ${asks}.</p>`}
  ${covers && html`<p class="warning">Its call will not be shown to you before it is sent, although ${covers}.</p>`}
  ${step.preapproved && !covers && html`<p class="warning">Its calls need no separate approval.</p>`}
`;

/**
 * @param {{ number: number, step: ToolStep | AgentStep, state: StepView, preview: PreviewView, task: TaskView, plan: Contract,
 *   opened: OpenTask, numbers: Numbers }} props
 */
function Step({ number, step, state, preview, task, plan, opened, numbers }) {
  const [open, setOpen] = useState(false);
  // A link may name the step to edit, in the plan as it was when the task was made.
  const isNamed = () => task.plan_revision === 1 && routeOf(location.hash).query.get("edit") === step.id;
  const [editing, setEditing] = useState(isNamed);
  const flow = flowText(step, numbers);
  const mayEdit = task.status === "awaiting_approval";
  return html`
    <li class="step" id=${`step-${step.id}`} tabindex="-1">
      <span class="number" aria-hidden="true">${number}</span>
      <div class="step-body">
        <p class="sentence"><span class="hidden">Step ${number}: </span>${preview.sentence}</p>
        <p class="marks">
          ${step.id !== `s${number}` && html`<code>${step.id}</code>`}
          <span class=${`effect ${preview.likely_effect}`}>${preview.effect_text}</span>
          ${state.status !== "pending" && html`<span class=${`state ${state.status}`}>${statusText(state.status)}</span>`}
          ${state.attempts > 1 && html`<span>attempt ${state.attempts}</span>`}
          ${flow && html`<span>${flow}</span>`}
        </p>
        <${Warnings} step=${step} preview=${preview} />
        ${state.note && html`<p class="note">${state.note}</p>`}
        ${editing && mayEdit
          ? html`<${Allowed} needs=${["submit"]}>
              <${StepEditor} task=${task} plan=${plan} step=${step} number=${number} opened=${opened} close=${() => setEditing(false)} />
            <//>`
          : html`<p class="step-buttons">
              <button type="button" class="quiet" aria-expanded=${open} aria-label=${`Exact call of step ${number}`}
                onClick=${() => setOpen(!open)}>Exact call</button>
              ${mayEdit && html`
                <button type="button" class="quiet" aria-label=${`Edit step ${number}`} onClick=${() => setEditing(true)}>Edit</button>
              `}
            </p>`}
        ${open && !(editing && mayEdit) && html`<${Exact} step=${step} plan=${plan} numbers=${numbers} />`}
      </div>
    </li>
  `;
}

/** @param {Limits} limits */
function limitsText({ budget, max_steps: most }) {
  /** @type {Record<string, string>} */
  const words = { tool_calls: "calls", seconds: "seconds of calls", tokens: "tokens" };
  const found = Object.entries(budget ?? {}).filter(([, limit]) => limit !== null);
  return [`${most} steps`, ...found.map(([name, limit]) => `${limit} ${words[name] ?? name}`)].join(", ");
}

/** Show a step of the list, and move the focus to it. @param {string} id */
function showStep(id) {
  const step = document.getElementById(`step-${id}`);
  step?.scrollIntoView({ block: "center" });
  step?.focus({ preventScroll: true });
}

/** The plan of a task, with the state of its steps. @param {{ task: TaskView, plan: Contract, opened: OpenTask }} props */
export function Plan({ task, plan, opened }) {
  const waits = task.status === "awaiting_approval";
  const look = async () => (waits ? client.call(taskPath(task.task_id, "preview"), {}) : null);
  /** @type {{ value: PlanPreview | null, error: string, reload: () => void }} */
  const { value, error, reload } = useLoaded(look, [task.task_id, task.plan_digest, waits]);
  const current = waits && value?.plan_digest === task.plan_digest ? value : null;
  const previews = plan.steps.map((_, at) => current?.steps[at] ?? task.steps[at].preview);
  const numbers = numbersOf(plan);
  return html`
    <section class="plan" aria-label="Plan">
      <h2>Plan</h2>
      ${task.status === "pending" && html`<p class="note">This plan is being replaced by another one.</p>`}
      <p class="marks">
        Revision ${task.plan_revision} <${Digest} digest=${task.plan_digest ?? ""} /> <span>at most ${limitsText(plan.limits)}</span>
        ${current?.as_of && html`
          <span>files as of ${timeText(current.as_of)} <button type="button" class="link" onClick=${reload}>Look again</button></span>
        `}
      </p>
      ${plan.goal && plan.goal !== task.prompt && html`<p>Goal: ${plan.goal}</p>`}
      ${task.plan_notes.map((note) => html`<p class="warning">${note}</p>`)}
      ${plan.steps.length > 1 && html`<${PlanPicture} task=${task} plan=${plan} previews=${previews} choose=${showStep} />`}
      <${Problem} text=${error} />
      <ol class="steps">
        ${plan.steps.map((step, at) => html`
          <${Step} key=${`${step.id} ${task.plan_digest}`} number=${at + 1} step=${step} state=${task.steps[at]} preview=${previews[at]}
            task=${task} plan=${plan} opened=${opened} numbers=${numbers} />
        `)}
      </ol>
    </section>
  `;
}
