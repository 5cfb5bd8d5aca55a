// Lists the tasks, takes a prompt, and opens one task at a time, since a browser keeps few connections to a service.

import { call } from "./api.js";
import { attempt, element, group, place, quietly, say, timeOf } from "./page.js";
import { openTask } from "./task.js";

const LOOK_AGAIN_MS = 3000;
const PAGE = 50;
const MOST_AT_ONCE = 200;

const list = document.getElementById("tasks");
const prompt = document.getElementById("prompt");
const more = document.getElementById("more");
// How many are looked at again and again, those as they were then, the older ones that were asked for, and where to
// go on.
let head = PAGE;
let newest = [];
let older = [];
let cursor = null;
// Whether a task is open, and the service could be asked.
let changing = false;
let wanted = null;
// The task that is opened: its row, and what `openTask` gave.
let opened = null;

const isOpen = (row) => row.firstChild.open;

function rowOf(task) {
  const row = element("li");
  const text = [...task.prompt.slice(0, 400)].slice(0, 200).join("");
  const line = group("summary", "", element("span"), element("span", text, "prompt"));
  if (task.created_at) line.append(element("time", timeOf(task.created_at)));
  const box = element("div", undefined, "details");
  row.append(group("details", "", line, box));
  row.dataset.task = task.task_id;
  row.firstChild.addEventListener("toggle", () => {
    if (isOpen(row) && opened?.row !== row) {
      close();
      opened = { row, ...openTask(box, task.task_id, (now) => mark(row, now)) };
    } else if (!isOpen(row) && opened?.row === row) {
      close();
    }
  });
  return row;
}

function close() {
  if (!opened) return;
  opened.close();
  opened.row.firstChild.open = false;
  opened.row.querySelector(".details").replaceChildren();
  opened = null;
}

// Whether anything has changed; if so, the row says it.
function mark(row, task) {
  const state = `${task.status} ${task.updated_at}`;
  if (row.dataset.state === state) return false;
  row.dataset.state = state;
  const status = row.querySelector("summary span");
  status.textContent = task.status.replaceAll("_", " ");
  status.className = `status ${task.status}`;
  return true;
}

async function show() {
  const page = await call(`/v1/tasks?limit=${head}`);
  const fresh = new Set(page.tasks.map((task) => task.task_id));
  if (older.length) older = [...newest, ...older].filter((task) => !fresh.has(task.task_id));
  newest = page.tasks;
  if (!older.length) cursor = page.next_cursor;
  changing = page.tasks.some((task) => !task.terminal);
  showRows([...page.tasks, ...older]);
}

function showRows(tasks) {
  const known = new Set([...list.children].map((row) => row.dataset.task));
  const rowsOf = tasks.map((task) => [task.task_id, () => rowOf(task)]);
  const open = opened?.row.dataset.task;
  if (open && !tasks.some((task) => task.task_id === open)) rowsOf.push([open, () => opened.row]);
  const none = [["", () => element("li", "None yet.")]];
  place(list, rowsOf.length ? rowsOf : none);
  const rows = new Map([...list.children].map((row) => [row.dataset.task, row]));
  for (const task of tasks) {
    const row = rows.get(task.task_id);
    if (mark(row, task) && opened?.row === row) quietly(opened.reload);
  }
  more.hidden = cursor === null;
  const [first] = tasks;
  const asks = first?.status === "awaiting_approval" && !known.has(first.task_id) && !opened;
  const row = rows.get(wanted) ?? (asks ? rows.get(first.task_id) : undefined);
  wanted = null;
  if (row) row.firstChild.open = true;
}

async function showMore() {
  if (head < MOST_AT_ONCE) {
    head += PAGE;
    await show();
    return;
  }
  const page = await call(`/v1/tasks?limit=${PAGE}&cursor=${encodeURIComponent(cursor)}`);
  older = [...older, ...page.tasks];
  cursor = page.next_cursor;
  await show();
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

document.getElementById("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    ({ task_id: wanted } = await call("/v1/tasks", { prompt: prompt.value }));
    prompt.value = "";
    await show();
  });
});
more.addEventListener("click", () => attempt(showMore));
document.getElementById("refresh").addEventListener("click", () => attempt(show));
document.addEventListener("visibilitychange", () => document.hidden || quietly(show));
attempt(show);
lookAgain();
