// Lists the tasks, takes a prompt, and asks for approval. All text goes in as text, never as HTML.

import { withKey } from "/console/key.js";

const list = document.getElementById("tasks");
const said = document.getElementById("said");
const prompt = document.getElementById("prompt");
const watched = new Set();

const element = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
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
  try {
    said.textContent = "";
    await work();
  } catch (error) {
    said.textContent = error.message;
  }
}

function button(text, work) {
  const node = element("button", text);
  node.type = "button";
  node.addEventListener("click", () => attempt(work));
  return node;
}

async function details(row, id) {
  const task = await call(`/v1/tasks/${id}`);
  const parts = [];
  if (task.plan) parts.push(element("pre", task.plan));
  for (const asked of task.attention) parts.push(element("p", `${asked.step_id}: ${asked.reason}`));
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

// Which rows are open stays as it is; `wanted` is opened too.
async function show(wanted) {
  const open = new Set([...list.querySelectorAll("details[open]")].map((node) => node.dataset.task).concat(wanted));
  const { tasks } = await call("/v1/tasks?limit=50");
  list.replaceChildren(...tasks.map((task) => {
    const row = element("li");
    const head = element("details");
    const line = element("summary");
    line.append(element("span", task.status.replaceAll("_", " "), `status ${task.status}`));
    line.append(element("span", task.prompt.slice(0, 200)));
    head.append(line, element("div", undefined, "details"));
    head.addEventListener("toggle", () => head.open && attempt(() => details(row, task.task_id)));
    head.dataset.task = task.task_id;
    head.open = open.has(task.task_id) || (task.status === "awaiting_approval" && tasks[0] === task);
    row.append(head);
    return row;
  }));
  if (!tasks.length) list.append(element("li", "None yet."));
}

async function watch(id) {
  if (watched.has(id)) return;
  await follow(id, "");
  watched.add(id);
}

// A lost connection the browser mends by itself, until the ticket has expired: then another one is asked for.
async function follow(id, after) {
  const { url } = await call(`/v1/tasks/${id}/stream-ticket`, {});
  const stream = new EventSource(`${url}&view=log&after=${after}`);
  let last = after;
  stream.onmessage = ({ data, lastEventId }) => {
    last = lastEventId;
    if (data === "[DONE]") stream.close();
    else said.textContent = data;
    if (data === "[DONE]" || data.startsWith("Plan proposed")) attempt(() => show(id));
  };
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => attempt(() => follow(id, last)), 1000);
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
attempt(() => show());
