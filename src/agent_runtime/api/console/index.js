// Lists the tasks, takes a prompt, and asks for approval. All text goes in as visible text, never as HTML.

import { withKey } from "/console/key.js";
import { visible } from "/console/text.js";

const LOOK_AGAIN_MS = 3000;

const list = document.getElementById("tasks");
const said = document.getElementById("said");
const prompt = document.getElementById("prompt");
// Whether a task is open, and the service could be asked.
let changing = false;
// The task whose log lines are shown: one, since a browser keeps few connections to a service.
let watched;
let stream;

const say = (text) => { said.textContent = visible(text); };

const element = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = visible(text);
  if (className) node.className = className;
  return node;
};

async function call(path, body) {
  const request = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await withKey(path, request);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

async function attempt(work) {
  say("");
  await quietly(work);
}

// As `attempt`, and what was said before stays.
async function quietly(work) {
  try {
    await work();
  } catch (error) {
    say(error.message);
  }
}

function button(text, work) {
  const node = element("button", text);
  node.type = "button";
  node.addEventListener("click", () => attempt(work));
  return node;
}

async function details(row) {
  const id = row.dataset.task;
  const task = await call(`/v1/tasks/${id}`);
  const parts = [];
  if (task.plan) parts.push(element("pre", task.plan));
  for (const asked of task.attention) {
    parts.push(element("p", `${asked.step_id} called ${asked.server}.${asked.tool}: ${asked.reason}`));
    if (asked.needed_by.length) {
      parts.push(element("p", `To skip it also skips the steps that need it: ${asked.needed_by.join(", ")}.`));
    }
  }
  if (task.error) parts.push(element("p", task.error.message));
  if (task.result) parts.push(element("pre", task.result));
  if (task.status === "awaiting_approval") {
    const decide = (verb, body) => async () => {
      await call(`/v1/tasks/${id}/${verb}`, body);
      await show();
      await watch(id);
    };
    parts.push(button("Approve", decide("approve", { plan_digest: task.plan_digest })));
    parts.push(button("Reject", decide("reject", {})));
  }
  row.querySelector(".details").replaceChildren(...parts);
}

function rowOf(task) {
  const row = element("li");
  const head = element("details");
  const line = element("summary");
  line.append(element("span"), element("span", [...task.prompt.slice(0, 400)].slice(0, 200).join("")));
  head.append(line, element("div", undefined, "details"));
  head.addEventListener("toggle", () => head.open && quietly(() => details(row)));
  row.dataset.task = task.task_id;
  row.append(head);
  return row;
}

// A row stays the same one, open or not, so that nothing is moved or closed under a hand; what has changed is shown.
function update(row, task) {
  const state = `${task.status} ${task.updated_at}`;
  if (row.dataset.state === state) return;
  row.dataset.state = state;
  const status = row.querySelector("summary span");
  status.textContent = task.status.replaceAll("_", " ");
  status.className = `status ${task.status}`;
  if (row.firstChild.open) quietly(() => details(row));
}

async function show(wanted) {
  const { tasks } = await call("/v1/tasks?limit=50");
  changing = tasks.some((task) => !task.terminal);
  const known = new Map([...list.children].map((row) => [row.dataset.task, row]));
  const rows = tasks.map((task) => {
    const row = known.get(task.task_id) ?? rowOf(task);
    update(row, task);
    const isNew = !known.has(task.task_id) && task.status === "awaiting_approval" && tasks[0] === task;
    if (isNew || task.task_id === wanted) row.firstChild.open = true;
    return row;
  });
  const same = rows.length && rows.length === list.children.length && rows.every((row, n) => row === list.children[n]);
  if (!same) list.replaceChildren(...(rows.length ? rows : [element("li", "None yet.")]));
}

// What happens elsewhere is seen here, as long as something can happen and somebody can see it. After a lost
// connection (a TypeError) it goes on; a refusal stays one.
async function lookAgain() {
  if (changing && !document.hidden) {
    try {
      await show();
    } catch (error) {
      changing = error instanceof TypeError;
      say(error.message);
    }
  }
  setTimeout(lookAgain, LOOK_AGAIN_MS);
}

async function watch(id) {
  if (watched === id) return;
  watched = id;
  await follow(id, "");
}

// A lost connection the browser mends by itself, until the ticket has expired: then another one is asked for.
async function follow(id, after) {
  const { url } = await call(`/v1/tasks/${id}/stream-ticket`, {});
  if (watched !== id) return;
  stream?.close();
  const mine = stream = new EventSource(`${url}&view=log&after=${after}`);
  let last = after;
  mine.onmessage = ({ data, lastEventId }) => {
    last = lastEventId;
    if (data === "[DONE]") mine.close();
    else say(data);
    if (data === "[DONE]" || data.startsWith("Plan proposed")) quietly(() => show(id));
  };
  mine.onerror = () => {
    if (mine.readyState !== EventSource.CLOSED) return;
    setTimeout(() => watched === id && quietly(() => follow(id, last)), 1000);
  };
}

document.getElementById("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const { task_id: id } = await call("/v1/tasks", { prompt: prompt.value });
    prompt.value = "";
    await show();
    await watch(id);
  });
});
document.getElementById("refresh").addEventListener("click", () => attempt(() => show()));
document.addEventListener("visibilitychange", () => document.hidden || quietly(() => show()));
attempt(() => show());
lookAgain();
