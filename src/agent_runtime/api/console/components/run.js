// The run of a task: each step that has begun, with its calls and the turns of its model, how long they took and what
// they gave.

/** @import { Call, Entry, StepRun, Turn } from "../run.js" */
/** @import { TaskState } from "../open-task.js" */
import { countText, cut, durationText, oneLine } from "../format.js";
import { hrefOf } from "../router.js";
import { axisOf, earlierResults, runOf } from "../run.js";
import { html, useEffect, useMemo, useState } from "../ui.js";
import { Growing, Json, Status } from "./basics.js";
import { Conversation } from "./conversation.js";
import { CallResult, TextResult } from "./result.js";

/** @typedef {(at: number) => number} Axis */

const MOST_INLINE = 90;
const OBJECTIONS = /** @type {Record<string, string>} */ ({
  call_as_text: "It wrote a call as text, so nothing was called. It was told so and asked again.",
  only_thoughts: "Its answer held nothing but thoughts. It was told so and asked again.",
});

/** Return the time, again and again while something runs. @param {boolean} runs */
function useNow(runs) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (!runs) return;
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [runs]);
  return runs ? Math.max(now, Date.now()) : now;
}

/** When an entry ran, on the axis of the whole run. @param {{ axis: Axis, began: number, ended: number }} props */
function Bar({ axis, began, ended }) {
  const from = 100 * axis(began);
  const width = Math.max(1, 100 * axis(ended) - from);
  return html`
    <svg class="bar-of-time" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
      <rect class="track" width="100" height="6" /><rect x=${Math.min(from, 99)} width=${width} height="6" />
    </svg>
  `;
}

/** Format arguments in short. @param {Record<string, any>} args */
function inShort(args) {
  const text = Object.entries(args).map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join(", ");
  return oneLine(cut(text, MOST_INLINE));
}

/** @param {Call} call */
function outcomeOf({ began, result, refused, asks, ended }) {
  if (refused) return "not sent";
  if (asks) return began === null ? "waits for a person" : "outcome unknown";
  if (result) return result.is_error ? "error" : "";
  return began === null ? "" : ended === null ? "running" : "outcome unknown";
}

/** @param {{ call: Call, axis: Axis, now: number, name: string, taskId: string, alone: boolean, running: boolean }} props */
function CallEntry({ call, axis, now, name, taskId, alone, running }) {
  const { server, tool, args, attempt, began, ended, ms, result, notes, refused } = call;
  const isOpen = began !== null && ended === null && running;
  const view = result && html`<${CallResult} result=${result} name=${name} taskId=${taskId} source=${`${server}.${tool}`} />`;
  const outcome = isOpen || outcomeOf(call) !== "running" ? outcomeOf(call) : "";
  return html`
    <li class=${`entry call ${outcome.replaceAll(" ", "-")}`}>
      <p class="entry-head">
        <code class="tool">${server}.${tool}</code>
        <span class="given">${inShort(args)}</span>
        ${attempt > 1 && html`<span>attempt ${attempt}</span>`}
        ${outcome && html`<span class="entry-outcome">${outcome}</span>`}
        ${began !== null && html`<span class="took">${durationText(ms ?? now - began)}</span>`}
        ${began !== null && html`<${Bar} axis=${axis} began=${began} ended=${ended ?? (isOpen ? now : began)} />`}
      </p>
      ${refused && html`<p class="error">${refused}</p>`}
      ${notes.map((note) => html`<p class="note">${note}</p>`)}
      ${Object.keys(args).length > 0 && html`<details class="raw"><summary>Arguments</summary><${Json} value=${args} /></details>`}
      ${result && (alone ? view : html`<details class="raw" open=${result.is_error || Boolean(result.images)}><summary>Result</summary>${view}</details>`)}
    </li>
  `;
}

/** @param {{ turn: Turn, axis: Axis, name: string, taskId: string, stepId: string }} props */
function TurnEntry({ turn: { turn, began, ended, ms, calls, answer, objection, usage }, axis, name, taskId, stepId }) {
  const asked = calls.map((call) => call.name).join(", ");
  const text = asked ? `The model asks for ${asked}` : objection ? "The model gave no result" : "The model answered";
  return html`
    <li class="entry turn">
      <p class="entry-head">
        <span class="turn-number">Turn ${turn}</span> <span>${text}</span>
        <span class="tokens">${countText(usage.input_tokens, "token")} in, ${usage.output_tokens.toLocaleString("en")} out</span>
        <span class="took">${durationText(ms)}</span>
        <${Bar} axis=${axis} began=${began} ended=${ended} />
      </p>
      ${objection && html`<p class="error">${OBJECTIONS[objection] ?? objection}</p>`}
      <${Conversation} taskId=${taskId} stepId=${stepId} turn=${turn} />
      ${answer?.text && html`<${TextResult} text=${answer.text} name=${`${name}.md`} />`}
    </li>
  `;
}

/** What a server reports of a call. @param {{ report: import("../open-task.js").Report }} props */
const Reported = ({ report: { text, progress, total } }) => html`
  <p class="report note">
    ${total ? html`<progress value=${progress ?? 0} max=${total} aria-label="Progress" />` : null} <span>${text}</span>
  </p>
`;

/** Return the full name of the tool of a step; null if a model does its work. @param {Contract["steps"][number]} step */
const toolOf = (step) => (step.kind === "tool" ? `${step.server}.${step.tool}` : null);

/**
 * @param {{ number: number, title: string, tool: string | null, state: StepView, run: StepRun, axis: Axis, now: number, taskId: string,
 *   writing: string | undefined, report: import("../open-task.js").Report | undefined }} props
 */
function StepOfRun({ number, title, tool, state, run, axis, now, taskId, writing, report }) {
  const { began, ended, entries, tokens, calls } = run;
  const running = state.status === "running";
  const alone = entries.filter(({ kind }) => kind === "call").length === 1 && !entries.some(({ kind }) => kind === "turn");
  const last = entries.at(-1);
  const toldByCall = last?.kind === "call" && ((alone && last.result?.is_error) || last.notes.includes(state.error?.message ?? ""));
  const turns = entries.filter(({ kind }) => kind === "turn").length;
  const isIdle = entries.every((entry) => entry.kind !== "call" || entry.ended !== null || entry.refused);
  const unanswered = tool === null && isIdle && (running || state.error?.code.startsWith("model_"));
  const used = [tool === null && countText(calls, "call"), tokens > 0 && countText(tokens, "token")].filter(Boolean).join(", ");
  const name = `${taskId}-${state.id}`;
  const isEnded = ended !== null && !running;
  const writingTitle = `The model is writing in step ${state.id}`;
  return html`
    <li class=${`run-step ${state.status}`}>
      <p class="run-head">
        <strong>${number}. ${oneLine(title || tool || "Work for the model")}</strong>
        <${Status} status=${state.status} />
        ${used && html`<span class="note">${used}</span>`}
        ${began !== null && (isEnded || running) && html`<span class="took">${durationText((isEnded ? ended : now) - began)}</span>`}
      </p>
      ${state.error && !toldByCall && html`<p class="error">${state.error.message}</p>`}
      <ol class="entries">
        ${entries.map((entry, at) => {
          if (entry.kind === "note") return html`<li key=${at} class="entry note">${entry.text}</li>`;
          const given = { axis, taskId, name: `${name}-${at + 1}` };
          return entry.kind === "turn"
            ? html`<${TurnEntry} key=${at} turn=${entry} stepId=${state.id} ...${given} />`
            : html`<${CallEntry} key=${at} call=${entry} now=${now} alone=${alone} running=${running} ...${given} />`;
        })}
        ${unanswered && html`
          <li class="entry turn">
            <p class="entry-head"><span class="turn-number">Turn ${turns + 1}</span> <span>${running ? "The model is asked" : "The model was asked"}</span></p>
            <${Conversation} taskId=${taskId} stepId=${state.id} turn=${turns + 1} />
          </li>
        `}
      </ol>
      ${running && report && html`<${Reported} report=${report} />`}
      ${running && writing && html`<section class="writing"><h3>${writingTitle}</h3><${Growing} text=${writing} label=${writingTitle} /></section>`}
    </li>
  `;
}

/**
 * A step whose result is that of the task `from`.
 * @param {{ number: number, step: Contract["steps"][number], result: StoredResult, from: string, taskId: string }} props
 */
function ReusedStep({ number, step, result, from, taskId }) {
  const source = toolOf(step) ?? "the model";
  return html`
    <li class="run-step completed">
      <p class="run-head"><strong>${number}. ${oneLine(step.title || source)}</strong> <${Status} status="completed" /></p>
      <p class="note">Nothing is called: the result is that of <a href=${hrefOf(["tasks", from])}>the earlier task</a>.</p>
      <${CallResult} result=${result} name=${`${taskId}-${step.id}`} taskId=${taskId} source=${source} />
    </li>
  `;
}

/** @param {TaskView} task @param {ReadonlyMap<string, StepRun>} steps @param {number} now */
function summaryOf({ usage, terminal, status }, steps, now) {
  const runs = [...steps.values()];
  const began = Math.min(...runs.map((step) => step.began ?? Infinity));
  const ended = terminal ? Math.max(...runs.map((step) => step.ended ?? 0)) : now;
  const tokens = usage.input_tokens + usage.output_tokens;
  return [
    (terminal || status === "executing") && ended > began && Number.isFinite(began) && `${terminal ? "took" : "for"} ${durationText(ended - began)}`,
    countText(usage.tool_calls, "call"),
    tokens > 0 && countText(tokens, "token"),
  ].filter(Boolean).join(", ");
}

/** @param {{ task: TaskView, plan: Contract } & Pick<TaskState, "events" | "texts" | "reports">} props */
export function Run({ task, plan, events, texts, reports }) {
  const steps = useMemo(() => runOf(events), [events]);
  const now = useNow(task.status === "executing");
  const axis = useMemo(() => axisOf(steps.values(), now), [steps, now]);
  const earlier = useMemo(() => earlierResults(events), [events]);
  const { task_id: from, reused } = task.rerun_of ?? { task_id: "", reused: [] };
  if (!plan.steps.some(({ id }) => steps.has(id))) return null;
  return html`
    <section class="run" aria-label="Run">
      <h2>Run</h2>
      <p class="marks">${summaryOf(task, steps, now)}</p>
      <ol class="timeline">
        ${plan.steps.map((step, at) => {
          const [run, result] = [steps.get(step.id), earlier.get(step.id)];
          const given = { key: step.id, number: at + 1, taskId: task.task_id };
          if (run) {
            return html`
              <${StepOfRun} ...${given} title=${step.title} tool=${toolOf(step)} state=${task.steps[at]} run=${run} axis=${axis} now=${now}
                writing=${texts.get(step.id)} report=${reports.get(step.id)} />
            `;
          }
          return result && reused.includes(step.id) && html`<${ReusedStep} ...${given} step=${step} result=${result} from=${from} />`;
        })}
      </ol>
    </section>
  `;
}
