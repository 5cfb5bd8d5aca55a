// The questions to a person: about the plan, a call, a call of unknown outcome, or from a server. And the notice that
// the stored journal of the task was changed.

/** @import { OpenTask } from "../open-task.js" */
/** @import { Schema } from "./schema-form.js" */
import { agoText, timeText } from "../format.js";
import { reasonAgainst, session } from "../session.js";
import { useStore } from "../store.js";
import { html, useRef, useState } from "../ui.js";
import { Allowed, Button, Digest, Field, Form, Json } from "./basics.js";
import { RevisionFailed, useRevisionHelp } from "./revising.js";
import { SchemaForm } from "./schema-form.js";
import { NamedValues } from "./values.js";

/** @param {{ task: TaskView, opened: OpenTask }} props */
export function PlanQuestion({ task, opened }) {
  const [text, setText] = useState("");
  const [missing, setMissing] = useState(false);
  const field = useRef(/** @type {HTMLElement | null} */ (null));
  const revise = () => {
    setMissing(!text.trim());
    if (text.trim()) return opened.decide("revise", { feedback: text });
    field.current?.querySelector("textarea")?.focus();
  };
  const reject = () => opened.decide("reject", text.trim() ? { reason: text } : {});
  const approve = () => opened.decide("approve", { plan_digest: task.plan_digest });
  useStore(session);
  const against = reasonAgainst("approve");
  const help = useRevisionHelp();
  return html`
    <section class="question" aria-label="Your decision">
      <h2>Should this plan run?</h2>
      <${RevisionFailed} failed=${task.revision_failed} />
      <p class="buttons">
        <${Button} kind="primary" action=${approve} disabled=${Boolean(against)}>Approve<//>
        <span class="note">approves revision ${task.plan_revision}, <${Digest} digest=${task.plan_digest ?? ""} /></span>
      </p>
      ${against && html`<p class="note">${against}</p>`}
      <${Allowed} needs=${["approve", "submit"]}>
        <div ref=${field}>
          <${Field} label="Changes to the plan, or a reason to reject it" rows=${2} value=${text} set=${setText} note=${help} />
        </div>
        ${missing && !text.trim() && html`
          <p class="problem" role="alert">Describe the changes first. Then the task is planned again.</p>
        `}
        <p class="buttons">
          <${Button} action=${revise}>Revise<//>
          <${Button} action=${reject} disabled=${Boolean(against)}>Reject<//>
        </p>
      <//>
    </section>
  `;
}

/** @param {AttentionView} asked */
const dependents = (asked) => asked.needed_by.join(", ");

/** Return the reason of a question about a call, which is a part of a sentence, as a sentence. @param {AttentionView} asked */
function reasonOf({ kind, reason }) {
  const end = /[.!?]$/.test(reason) ? "" : ".";
  return `${kind === "call_approval" ? "You are asked because" : "Nobody knows:"} ${reason}${end}`;
}

/** The call that a question is about, with all that would be sent or was sent. @param {{ asked: AttentionView }} props */
const Call = ({ asked }) => html`
  <p class="reason">${reasonOf(asked)}</p>
  <p class="marks"><code>${asked.server}.${asked.tool}</code> arguments <${Digest} digest=${asked.arguments_digest} /></p>
  <${NamedValues} values=${asked.arguments} />
  <details class="raw"><summary>As JSON</summary><${Json} value=${asked.arguments} /></details>
`;

/** @param {Record<string, unknown>} one @param {Record<string, unknown>} other */
const changedNames = (one, other) =>
  [...new Set([...Object.keys(one), ...Object.keys(other)])].filter((name) => JSON.stringify(one[name]) !== JSON.stringify(other[name]));

/**
 * A form for the arguments of a call. The call is sent with those of the form as soon as that is submitted.
 * @param {{ asked: AttentionView, send: (edited: Record<string, unknown>) => Promise<void>, close: () => void }} props
 */
function ArgumentsForm({ asked, send, close }) {
  const [draft, setDraft] = useState(/** @type {Record<string, any>} */ (asked.arguments));
  const changed = changedNames(asked.arguments, draft);
  const discard = html`<button type="button" onClick=${close}>Discard changes</button>`;
  return html`
    <${Form} class="editor" aria-label="Arguments of the call" verb="Approve with these arguments" action=${() => send(draft)}
      disabled=${!changed.length} more=${discard}>
      <${SchemaForm} schema=${asked.input_schema} value=${draft} set=${setDraft} />
      <p class="note" role="status">${changed.length ? `Changed: ${changed.join(", ")}.` : "Nothing is changed yet."}</p>
    <//>
  `;
}

/** @param {{ asked: AttentionView, opened: OpenTask }} props */
function CallQuestion({ asked, opened }) {
  const [comment, setComment] = useState("");
  const [editing, setEditing] = useState(false);
  /** @param {"approve" | "deny"} verb @param {Record<string, unknown>} [edited] */
  const answer = (verb, edited) => opened.decide(`calls/${encodeURIComponent(asked.call_id)}/${verb}`, {
    arguments_digest: asked.arguments_digest,
    ...(edited ? { edited_arguments: edited } : {}),
    ...(comment.trim() ? { comment } : {}),
  });
  return html`
    <section class="question" aria-label="A call to decide">
      <h2>May step ${asked.step_id} make this call?</h2>
      <${Call} asked=${asked} />
      ${asked.edited_by && html`<p class="note">These arguments were edited by ${asked.edited_by}.</p>`}
      ${asked.needed_by.length > 0 && html`
        <p class="note">If you deny it, the step fails, and the steps that need it are skipped: ${dependents(asked)}.</p>
      `}
      <${Allowed} needs=${["approve"]}>
        <${Field} label="Comment (optional)" value=${comment} set=${setComment} />
        ${!editing && html`
          <p class="buttons">
            <${Button} kind="primary" action=${() => answer("approve")}>Approve<//>
            <${Button} action=${() => answer("deny")}>Deny<//>
          </p>
        `}
        <${Allowed} needs=${["submit"]}>
          ${editing
            ? html`<${ArgumentsForm} asked=${asked} send=${(/** @type {Record<string, unknown>} */ edited) => answer("approve", edited)}
                close=${() => setEditing(false)} />`
            : html`<p class="buttons"><button type="button" class="quiet" onClick=${() => setEditing(true)}>Edit the arguments</button></p>`}
        <//>
      <//>
    </section>
  `;
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

const EFFECTS = {
  read: "it only reads, so a second call should do no harm",
  write: "it changes something, and a second call may do so twice",
  destructive: "it destroys or replaces something",
  unknown: "nobody has said whether it changes anything",
};

/** @type {Record<string, [whenTrue: string, whenFalse: string]>} */
const CLAIMS = {
  readOnlyHint: ["it only reads", "it changes something"],
  destructiveHint: ["it may destroy something", "it destroys nothing"],
  idempotentHint: ["a second call changes nothing more", "a second call may do more"],
  openWorldHint: ["it reaches other systems", "it reaches no other systems"],
};

/** What is known of a call of unknown outcome. @param {{ asked: AttentionView }} props */
function Known({ asked: { sent_at: sent, attempt, effect, idempotent, hints, server } }) {
  const claims = Object.entries(hints).flatMap(([hint, is]) => CLAIMS[hint]?.[is ? 0 : 1] ?? []);
  return html`
    <dl class="facts">
      ${sent && html`<dt>Sent</dt><dd>${timeText(sent)} (${agoText(sent)})${attempt > 1 && `, attempt ${attempt}`}. No answer came.</dd>`}
      <dt>Effect</dt><dd>By the plan, ${EFFECTS[effect]}.</dd>
      <dt>Repeating</dt><dd>${idempotent ? "The operator says that it may be repeated." : "The operator does not say that it may be repeated."}</dd>
      ${claims.length > 0 && html`<dt>Claims</dt><dd>The server ${server} says: ${claims.join("; ")}.</dd>`}
    </dl>
    <p class="note">Look where the call would have had its effect, then answer.</p>
  `;
}

/** @param {{ asked: AttentionView, opened: OpenTask }} props */
function OutcomeQuestion({ asked, opened }) {
  const [output, setOutput] = useState("");
  /** @param {string} resolution */
  const resolve = (resolution) => () => {
    const body = JSON.stringify({ step_id: asked.step_id, call_id: asked.call_id, resolution });
    const given = resolution === "done" ? outputOf(output) : undefined;
    return opened.decide("resolve", given === undefined ? body : `${body.slice(0, -1)},"output":${given}}`);
  };
  const also = asked.needed_by.length ? ` So are the steps that need it: ${dependents(asked)}.` : "";
  /** @type {[text: string, resolution: string, means: string][]} */
  const choices = [
    ["Done", "done", "It took effect. The task continues with its output."],
    ["Retry", "retry", "It did not take effect, or it may safely happen twice. It is called again."],
    ["Skip", "skip", `The step is skipped.${also}`],
    ["Fail", "fail", "The step counts as failed, and the task fails."],
  ];
  return html`
    <section class="question" aria-label="An outcome to decide">
      <h2>Did this call of step ${asked.step_id} take effect?</h2>
      <${Call} asked=${asked} />
      <${Known} asked=${asked} />
      <p class="note">${asked.needed_by.length ? `Needed by: ${dependents(asked)}.` : "No other step needs it."}</p>
      <${Allowed} needs=${["approve"]}>
        <div class="choices">
          ${choices.map(([text, resolution, means]) => html`
            <div><${Button} action=${resolve(resolution)}>${text}<//></div>
            <div>
              <p>${means}</p>
              ${resolution === "done" && html`
                <${Field} label="The output of the call, as JSON or text (optional)" rows=${2} value=${output} set=${setOutput} />
              `}
            </div>
          `)}
        </div>
      <//>
    </section>
  `;
}

/**
 * Return a field of a question as the form takes it: choices with their names in `enum`, and the title where it is read.
 * @param {Schema} field @returns {Schema}
 */
function fieldOf({ oneOf, anyOf, items, title, description, ...field }) {
  const choices = oneOf ?? anyOf;
  return {
    ...field,
    ...(choices && { enum: choices.map((one) => one.const), enumNames: choices.map((one) => one.title ?? String(one.const)) }),
    ...(items && { items: fieldOf(items) }),
    description: [title, description].filter(Boolean).join(": ") || undefined,
  };
}

/** @param {InputView["schema"]} schema @returns {Schema} */
function formOf({ properties, required }) {
  const fields = Object.entries(properties).map(([name, field]) => [name, fieldOf(field)]);
  return { type: "object", properties: Object.fromEntries(fields), required };
}

/** Return what the server fills in itself. @param {InputView["schema"]} schema */
const defaultsOf = ({ properties }) =>
  Object.fromEntries(Object.entries(properties).flatMap(([name, { default: given }]) => (given === undefined ? [] : [[name, given]])));

/** @param {{ asked: InputView, opened: OpenTask }} props */
function InputQuestion({ asked, opened }) {
  const [content, setContent] = useState(() => /** @type {Record<string, any>} */ (defaultsOf(asked.schema)));
  /** @param {object} answer */
  const send = (answer) => opened.decide(`answers/${encodeURIComponent(asked.question_id)}`, answer);
  const others = html`
    <${Button} action=${() => send({ action: "decline" })}>Decline<//>
    <${Button} action=${() => send({ action: "cancel" })}>Dismiss<//>
  `;
  return html`
    <section class="question" aria-label="A question of a server">
      <h2>The server ${asked.server} asks you</h2>
      <p class="reason">${asked.message}</p>
      <p class="marks"><code>${asked.server}.${asked.tool}</code> in step ${asked.step_id}</p>
      <p class="note">What you write goes to this server. Do not give it secrets that are not meant for it.</p>
      <${Allowed} needs=${["approve"]}>
        <${Form} aria-label="Your answer" verb="Answer" action=${() => send({ action: "accept", content })} more=${others}>
          <${SchemaForm} schema=${formOf(asked.schema)} value=${content} set=${setContent} />
        <//>
        <p class="note">
          ${"Decline tells the server that you refuse to answer, Dismiss that you do not decide. "}
          It goes on as it likes. To stop the whole task, cancel it below.
        </p>
      <//>
    </section>
  `;
}

/** @param {{ asked: JournalChangedView }} props */
const ChangeNotice = ({ asked }) => html`
  <section class="question" aria-label="A changed journal">
    <h2>The stored journal was changed at record ${asked.record}</h2>
    <p>${asked.reason}</p>
    <p class="note">This task no longer runs. An administrator can delete it.</p>
  </section>
`;

/** @param {TaskView} task */
export const isChanged = (task) => task.attention.some(({ kind }) => kind === "journal_changed");

/** @param {AttentionView | InputView | JournalChangedView} asked */
const keyOf = (asked) => {
  if (asked.kind === "journal_changed") return asked.kind;
  return asked.kind === "input" ? asked.question_id : `${asked.kind} ${asked.call_id}`;
};

/** All open questions of a task. @param {{ task: TaskView, opened: OpenTask }} props */
export const Questions = ({ task, opened }) => task.attention.map((asked) => {
  const key = keyOf(asked);
  if (asked.kind === "input") return html`<${InputQuestion} key=${key} asked=${asked} opened=${opened} />`;
  if (asked.kind === "journal_changed") return html`<${ChangeNotice} key=${key} asked=${asked} />`;
  const Kind = asked.kind === "call_approval" ? CallQuestion : OutcomeQuestion;
  return html`<${Kind} key=${key} asked=${asked} opened=${opened} />`;
});
