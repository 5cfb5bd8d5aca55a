// What can be done with a task that has ended: run it again, change its plan first, or begin a new one like it. And why
// it did not end well, with what to do.

/** @import { OpenTask } from "../open-task.js" */
import { client } from "../api.js";
import { oneLine } from "../format.js";
import { go, hrefOf } from "../router.js";
import { html } from "../ui.js";
import { Allowed, Button } from "./basics.js";
import { isChanged } from "./questions.js";

/** @param {TaskView} task */
const canResume = (task) => task.status === "failed" && task.steps.some((step) => step.status === "completed");

/**
 * Run a task again, as a new one, and show that. With `edit`, the step that failed is open for changes.
 * @param {TaskView} task @param {"start" | "failed_step"} from @param {{ edit?: boolean }} [how]
 */
async function runAgain(task, from, { edit = false } = {}) {
  const made = await client.rerun(task.task_id, from);
  const step = task.error?.step_id ?? task.steps[0]?.id ?? "";
  go(hrefOf(["tasks", made.task_id], edit ? { edit: step } : {}));
}

/** @param {{ task: TaskView }} props */
function Again({ task }) {
  const from = canResume(task) ? "failed_step" : "start";
  const failed = task.status === "failed";
  const needsWords = failed && NEED_OTHER_WORDS.has(task.error?.code ?? "");
  return html`
    <${Allowed} needs=${["submit"]}>
      <p class="buttons">
        ${canResume(task) && html`
          <${Button} kind="primary" action=${() => runAgain(task, "failed_step")}>Run again from the failed step<//>
        `}
        <${Button} kind=${failed && !canResume(task) && !needsWords ? "primary" : undefined} action=${() => runAgain(task, "start")}>Run again<//>
        ${task.plan_object && html`<${Button} action=${() => runAgain(task, from, { edit: true })}>Edit and try again<//>`}
        <a class=${needsWords ? "button primary" : "button"} href=${hrefOf(["new"], { from: task.task_id })}>Duplicate</a>
      </p>
      <p class="note">The new task shows its plan, and runs when that is approved.</p>
    <//>
  `;
}

/** What can be done with a task whatever it waits for. @param {{ task: TaskView, opened: OpenTask }} props */
export function Actions({ task, opened }) {
  if (task.terminal) return html`<${Again} task=${task} />`;
  if (task.cancel_requested) return html`<p class="note">The task is being cancelled.</p>`;
  if (isChanged(task)) return null;
  return html`
    <${Allowed} needs=${["submit", "approve"]}>
      <p class="buttons"><${Button} kind="quiet" action=${() => opened.decide("cancel")}>Cancel<//></p>
    <//>
  `;
}

const MODEL = "Look at Models in the menu for the state of the language model. When it can be used, run the task again.";
const CHANGE_STEP = "change the step with “Edit and try again”";

/** The errors that come again if the same words are planned again. */
const NEED_OTHER_WORDS = new Set(["planning_refused", "tool_missing", "invalid_plan"]);

/** What to do about the codes of docs/reference/errors.md. @type {Record<string, string>} */
const ADVICE = {
  result_unreadable: "The server sent something that is no result. Ask its maintainer; running it again may give the same.",
  call_denied: `Nothing was sent. To agree to its call, ${CHANGE_STEP}.`,
  condition_failed: `Its condition does not fit what the earlier steps gave. To go on, ${CHANGE_STEP}.`,
  reference_failed: `It needs something that an earlier step did not give. To go on, ${CHANGE_STEP}.`,
  max_turns: `The model was not done in the turns that the step allows. To make it smaller or allow more turns, ${CHANGE_STEP}.`,
  budget_exceeded: "The limits of the task are used up. Begin a new one with “Duplicate”, and ask for less at once.",
  planning_refused: "Say it in other words: “Duplicate” begins a new task with these.",
  tool_missing: "Look at Servers in the menu for the tools that there are, or say it in other words with “Duplicate”.",
  invalid_plan: "Say it in other words, or in smaller parts: “Duplicate” begins a new task with these.",
  definition_changed: "The plan was approved for something else. Run the task again: you then see the plan as it is now.",
  server_unavailable: "Look at Servers in the menu for the state of the server. When it is there, run the task again.",
  no_model: MODEL,
};

/** The ends without a result. @type {Record<string, string>} */
const ENDS = {
  rejected: "The plan was rejected, so nothing was done.",
  expired: "Nobody approved the plan in time, so nothing was done. Run the task again to decide about its plan.",
};

/** @param {TaskView} task */
function adviceFor({ error }) {
  if (!error) return "";
  if (error.code.startsWith("model_")) return MODEL;
  return ADVICE[error.code] ?? `If the cause is gone, run it again. Otherwise ${CHANGE_STEP}.`;
}

/** @param {TaskView} task */
function placeOf({ error, steps, plan_object: plan }) {
  const at = steps.findIndex(({ id }) => id === error?.step_id);
  if (at < 0) return plan ? "The task failed." : "No plan could be made.";
  const step = plan?.steps[at];
  const tool = step?.kind === "tool" ? `${step.server}.${step.tool}` : "work for the model";
  return oneLine(`Step ${at + 1} failed: ${step?.title || tool}.`);
}

/** Why a task ended without a result: in one sentence, then what to do. @param {{ task: TaskView }} props */
export function Failure({ task }) {
  const { status, error } = task;
  if (status in ENDS) return html`<section class="failure ended" aria-label="How it ended"><p>${ENDS[status]}</p></section>`;
  if (status !== "failed" || !error) return error ? html`<p class="error">${error.message}</p>` : null;
  return html`
    <section class="failure" aria-label="Why it failed">
      <h2>${placeOf(task)}</h2>
      <p class="reason">${error.message}</p>
      <p>${adviceFor(task)}</p>
      <${Again} task=${task} />
    </section>
  `;
}
