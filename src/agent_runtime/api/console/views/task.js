// One task: its questions, its plan, its log and its result. `#/tasks/ID`

/** @import { Route } from "../router.js" */
import { Actions, Failure } from "../components/again.js";
import { Ago, Growing, Problem, Status, Title } from "../components/basics.js";
import { ResultImages } from "../components/images.js";
import { PlanChanges } from "../components/plan-changes.js";
import { Plan } from "../components/plan.js";
import { Planning } from "../components/planning.js";
import { PlanQuestion, Questions } from "../components/questions.js";
import { TextResult } from "../components/result.js";
import { Run } from "../components/run.js";
import { countText, timeText } from "../format.js";
import { useTask } from "../open-task.js";
import { hrefOf } from "../router.js";
import { imagesIn } from "../run.js";
import { html } from "../ui.js";

/** The plan that a model is writing. @param {{ text: string | undefined }} props */
function PlanInWriting({ text }) {
  const title = "The model is writing the plan";
  return text === undefined
    ? null
    : html`<section class="writing"><h2>${title}</h2><${Growing} text=${text} label=${title} /></section>`;
}

/** @param {{ task: TaskView }} props */
function Foot({ task: { usage, approvals } }) {
  const used = [
    countText(usage.tool_calls, "call"),
    countText(usage.input_tokens, "token") + " read",
    countText(usage.output_tokens, "token") + " written",
  ];
  return html`
    <section class="foot" aria-label="Usage and decisions">
      <p>Used: ${used.join(", ")}.</p>
      ${approvals.map(({ who, when, decision, comment, step_id: step }) => html`
        <p>${`${timeText(when)}, ${who}: ${decision}${step ? ` (step ${step})` : ""}${comment ? `: ${comment}` : ""}`}</p>
      `)}
    </section>
  `;
}

/** @param {{ title: string, text: string }} props */
const Text = ({ title, text }) => html`
  <section aria-label=${title}><h2>${title}</h2><pre>${text}</pre></section>
`;

/** @param {{ route: Route }} props */
export function Task({ route: { path: [, id], query } }) {
  const { opened, task, error, notice, log, texts, reports, events } = useTask(id);
  const back = html`<a class="back" href=${hrefOf([], Object.fromEntries(query))}>← Inbox</a>`;
  if (!task) {
    return html`
      <article class="task">
        ${back}
        <h1>Task</h1>
        ${error ? html`<${Problem} text=${error} />` : html`<p class="note">Loading…</p>`}
      </article>
    `;
  }
  const { status, plan_object: plan } = task;
  const long = task.prompt.includes("\n") || task.prompt.length > 200;
  return html`
    <article class="task" data-task=${id}>
      ${back}
      <header>
        <${Title}>${long ? task.prompt.slice(0, 200).split("\n")[0] : task.prompt}<//>
        <p class="marks"><span role="status"><${Status} status=${status} /></span> ${task.created_at && html`<${Ago} at=${task.created_at} />`} <code>${id}</code></p>
      </header>
      <${Problem} text=${error} />
      <${Problem} text=${notice} />
      ${long && html`<${Text} title="Prompt" text=${task.prompt} />`}
      <${Failure} task=${task} />
      ${status === "completed" && html`
        <section class="result" aria-label="Result">
          <h2>Result</h2>
          <${ResultImages} taskId=${id} images=${imagesIn(events, task.result ?? "")} source="the result" name=${id} />
          <${TextResult} text=${task.result ?? ""} name=${`${id}.txt`} />
        </section>
      `}
      <${Questions} task=${task} opened=${opened} />
      ${task.waiting_for && html`<p class="note">${task.result}</p>`}
      ${status === "pending" && html`<${PlanInWriting} text=${texts.get(null)} />`}
      ${plan && html`<${Run} task=${task} plan=${plan} events=${events} texts=${texts} reports=${reports} />`}
      ${plan && html`<${Plan} task=${task} plan=${plan} opened=${opened} />`}
      ${plan && task.plan_revision > 1 && html`<${PlanChanges} task=${task} plan=${plan} />`}
      ${status === "awaiting_approval" && html`
        <${PlanQuestion} key=${task.plan_digest} task=${task} opened=${opened} />
      `}
      <section aria-label="Log"><h2>What happened</h2><${Growing} text=${log} label="What happened" /></section>
      ${task.usage.input_tokens > 0 && html`<${Planning} task=${task} />`}
      <${Foot} task=${task} />
      ${status !== "failed" && html`<${Actions} task=${task} opened=${opened} />`}
    </article>
  `;
}
