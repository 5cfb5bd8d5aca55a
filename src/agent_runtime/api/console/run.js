// What has happened in the steps of a task: its events, put in order for people. The state of a step is that of the
// service; this only says what was called and asked, when, and for how long.

/**
 * @typedef {{ seq: number, type: string, at: string, data: Record<string, any> }} TaskEvent
 *
 * @typedef {object} Call A call of a tool, from its question to a person or its dispatch to its result.
 * @property {"call"} kind
 * @property {string} id
 * @property {string} server
 * @property {string} tool
 * @property {Record<string, any>} args
 * @property {number} attempt
 * @property {number | null} began Milliseconds since 1970; null until it is sent.
 * @property {number | null} ended
 * @property {number | null} ms
 * @property {StoredResult | null} result
 * @property {string[]} notes What people and rules said about it.
 * @property {string} refused Why it was not sent.
 * @property {boolean} asks It waits for a person.
 *
 * @typedef {object} Turn An answer of a model.
 * @property {"turn"} kind
 * @property {number} turn
 * @property {number} began
 * @property {number} ended
 * @property {number} ms
 * @property {{ name: string, arguments: string }[]} calls
 * @property {StoredResult | null} answer
 * @property {string | null} objection
 * @property {TokensView} usage
 *
 * @typedef {{ kind: "note", at: number, text: string }} Note Something that a person or a server said.
 *
 * @typedef {Call | Turn | Note} Entry
 *
 * @typedef {object} StepRun
 * @property {number | null} began
 * @property {number | null} ended
 * @property {Entry[]} entries In the order in which they began.
 * @property {number} tokens
 * @property {number} calls
 */

/** Events that hold whole plans or nothing about a step; the page needs only their log lines. */
const OTHERS = /^(?:plan|task)\./;

/** Return true for what happened in a step, and for the submission of a rerun, which holds the results that it reuses. @param {TaskEvent} event */
export const isOfRun = ({ type, data }) => !OTHERS.test(type) || Boolean(data.rerun);

/** @param {string | undefined} actor */
const by = (actor) => (!actor || actor === "anonymous" ? "" : actor === "policy" ? " by the operator's policy" : ` by ${actor}`);

/** @param {string | null | undefined} reason */
const because = (reason) => (reason ? `: ${reason}` : ".");

/** @type {Record<string, string>} */
const ANSWERED = { accept: "answered", decline: "declined", cancel: "dismissed" };

/** @param {TaskEvent} event @returns {Call} */
const newCall = ({ data }) => ({
  kind: "call", id: data.call_id ?? "", server: data.server, tool: data.tool, args: data.arguments ?? {}, attempt: data.attempt ?? 1,
  began: null, ended: null, ms: null, result: null, notes: [], refused: "", asks: false,
});

/** @param {StepRun} step @param {string} id @returns {Call | undefined} */
const callOf = (step, id) => step.entries.filter((one) => one.kind === "call").filter((one) => one.id === id && !one.result).at(-1);

/** @type {Record<string, (step: StepRun, event: TaskEvent, at: number) => void>} */
const EVENTS = {
  "step.started": (step, _, at) => {
    step.began ??= at;
  },
  "step.completed": (step, { data }, at) => {
    step.ended = at;
    if (data.note) step.entries.push({ kind: "note", at, text: data.note });
  },
  "step.failed": (step, { data }, at) => {
    step.ended = at;
    step.tokens += (data.usage?.input_tokens ?? 0) + (data.usage?.output_tokens ?? 0);
  },
  "step.skipped": (step, { data }, at) => {
    step.ended = at;
    step.entries.push({ kind: "note", at, text: `Skipped: ${data.reason}` });
  },
  "model.answered": (step, { data }, at) => {
    const { turn, calls = [], answer, objection, usage, duration_ms: ms } = data;
    step.entries.push({ kind: "turn", turn, began: at - ms, ended: at, ms, calls, answer, objection, usage });
    step.tokens += usage.input_tokens + usage.output_tokens;
  },
  "call.approval_requested": (step, event) => {
    step.entries.push({ ...newCall(event), asks: true, notes: [`A person was asked: ${event.data.reason}`] });
  },
  "call.approved": (step, { data }) => {
    const call = callOf(step, data.call_id);
    if (!call) return;
    call.asks = false;
    const edited = data.edited_arguments ? " with edited arguments" : "";
    call.notes.push(`Approved${by(data.actor)}${edited}${because(data.comment)}`);
  },
  "call.denied": (step, { data }) => {
    const call = callOf(step, data.call_id);
    if (call) Object.assign(call, { asks: false, refused: `Denied${by(data.actor)}${because(data.comment)}` });
  },
  "tool.called": (step, event, at) => {
    let call = callOf(step, event.data.call_id);
    if (!call || call.began !== null) step.entries.push((call = newCall(event)));
    Object.assign(call, { began: at, args: event.data.arguments, attempt: event.data.attempt, asks: false });
    step.calls += 1;
  },
  "tool.returned": (step, { data }, at) => {
    const call = callOf(step, data.call_id);
    if (call) Object.assign(call, { result: data.result, ended: at, ms: data.duration_ms });
  },
  "tool.denied": (step, event) => {
    step.entries.push({ ...newCall(event), refused: event.data.message });
  },
  "step.outcome_unknown": (step, { data }, at) => {
    const call = callOf(step, data.call_id);
    if (call) Object.assign(call, { ended: at, ms: call.began && at - call.began, asks: true, notes: [...call.notes, data.reason] });
  },
  "step.resolved": (step, { data }) => {
    const call = callOf(step, data.call_id);
    if (call) Object.assign(call, { asks: false, notes: [...call.notes, `Resolved${by(data.actor)} as “${data.resolution}”${because(data.comment)}`] });
  },
  "input.requested": (step, { data }, at) => {
    step.entries.push({ kind: "note", at, text: `${data.server} asks: ${data.message}` });
  },
  "input.answered": (step, { data }, at) => {
    const content = data.action === "accept" ? `: ${JSON.stringify(data.content)}` : ".";
    const text = `${ANSWERED[data.action]}${by(data.actor)}${content}`;
    step.entries.push({ kind: "note", at, text: `The question was ${text}` });
  },
  "input.withdrawn": (step, { data }, at) => {
    step.entries.push({ kind: "note", at, text: `The question was closed: ${data.reason}` });
  },
};

/** Return the results of an earlier task that a rerun can reuse, by step. @param {readonly TaskEvent[]} events @returns {Map<string, StoredResult>} */
export function earlierResults(events) {
  const { results = {} } = events.find(({ type }) => type === "task.submitted")?.data.rerun ?? {};
  return new Map(Object.keys(results).map((id) => [id, results[id].result]));
}

/**
 * Return the images of results that a text names, each once.
 * @param {readonly TaskEvent[]} events @param {string} text @returns {ImageReference[]}
 */
export function imagesIn(events, text) {
  const returned = events.filter(({ type }) => type === "tool.returned").map(({ data }) => data.result);
  const results = [...earlierResults(events).values(), ...returned];
  /** @type {ImageReference[]} */
  const images = results.flatMap((result) => result.images ?? []);
  const named = images.filter(({ digest }) => text.includes(`kept as ${digest.slice(0, "sha256:".length + 12)}`));
  return [...new Map(named.map((image) => [image.digest, image])).values()];
}

/** Return what happened in each step that has begun. @param {readonly TaskEvent[]} events @returns {Map<string, StepRun>} */
export function runOf(events) {
  /** @type {Map<string, StepRun>} */
  const steps = new Map();
  for (const event of events) {
    const id = event.data.step_id;
    const apply = EVENTS[event.type];
    if (!apply || !id) continue;
    const step = steps.get(id) ?? { began: null, ended: null, entries: [], tokens: 0, calls: 0 };
    steps.set(id, step);
    apply(step, event, Date.parse(event.at));
  }
  return steps;
}

/**
 * Return a function that maps a time to its place, from 0 to 1, on an axis without the times in which nothing was done:
 * else a call of a second could not be seen beside the hour in which a person was asked.
 * @param {Iterable<StepRun>} steps @param {number} now
 */
export function axisOf(steps, now) {
  /** @type {[number, number][]} */
  const busy = [];
  for (const { entries } of steps) {
    for (const entry of entries) {
      if (entry.kind !== "note" && entry.began !== null) busy.push([entry.began, Math.max(entry.began + 1, entry.ended ?? now)]);
    }
  }
  busy.sort(([one], [other]) => one - other);
  /** @type {[number, number][]} */
  const merged = [];
  for (const [from, to] of busy) {
    const last = merged.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  const total = merged.reduce((sum, [from, to]) => sum + to - from, 0) || 1;
  /** @param {number} at */
  return (at) => merged.reduce((sum, [from, to]) => sum + Math.max(0, Math.min(at, to) - from), 0) / total;
}
