// Lists the tasks, submits prompts, and opens one task at a time: browsers allow few connections to a service.

/** @import { Part } from "./page.js" */
import { call } from "./api.js";
import { attempt, byId, element, group, place, quietly, say, timeOf, wordsOf } from "./page.js";
import { openTask } from "./task.js";

const LOOK_AGAIN_MS = 3000;
const PAGE = 50;
const MOST_AT_ONCE = 200;

const list = byId("tasks", HTMLUListElement);
const prompt = byId("prompt", HTMLTextAreaElement);
const more = byId("more", HTMLButtonElement);
// `head` newest tasks are polled. `newest` are their last known states, `older` the tasks loaded with "More", and
// `cursor` is where the next page begins.
let head = PAGE;
/** @type {SummaryView[]} */
let newest = [];
/** @type {SummaryView[]} */
let older = [];
/** @type {string | null} */
let cursor = null;
// True while a task is unfinished and the service answers.
let changing = false;
/** @type {string | null} */
let wanted = null;
// The open task: its row, and the result of `openTask`.
/** @type {{ row: HTMLElement, box: HTMLElement, reload: () => Promise<void>, close: () => void } | null} */
let opened = null;

const rowsShown = () => /** @type {HTMLElement[]} */ ([...list.children]);

/** The <details> of a row. @param {HTMLElement} row */
const detailsOf = (row) => /** @type {HTMLDetailsElement} */ (row.firstElementChild);

/** @param {SummaryView} task */
function rowOf(task) {
  const row = element("li");
  const text = [...task.prompt.slice(0, 400)].slice(0, 200).join("");
  const line = group("summary", "", element("span"), element("span", text, "prompt"));
  if (task.created_at) line.append(element("time", timeOf(task.created_at)));
  const box = element("div", undefined, "details");
  const details = group("details", "", line, box);
  row.append(details);
  row.dataset.task = task.task_id;
  details.addEventListener("toggle", () => {
    if (details.open && opened?.row !== row) {
      close();
      opened = { row, box, ...openTask(box, task.task_id, (now) => mark(row, now), open) };
    } else if (!details.open && opened?.row === row) {
      close();
    }
  });
  return row;
}

/** Open this task, a new one. @param {string} id */
async function open(id) {
  wanted = id;
  await show();
}

function close() {
  if (!opened) return;
  opened.close();
  detailsOf(opened.row).open = false;
  opened.box.replaceChildren();
  opened = null;
}

/** Show the status of a task in its row. Return true if it has changed. @param {HTMLElement} row @param {SummaryView} task */
function mark(row, task) {
  const state = `${task.status} ${task.updated_at}`;
  if (row.dataset.state === state) return false;
  row.dataset.state = state;
  const status = /** @type {Element} */ (row.querySelector("summary span"));
  status.textContent = task.status.replaceAll("_", " ");
  status.className = `status ${task.status}`;
  return true;
}

async function show() {
  /** @type {PageView} */
  const page = await call(`/v1/tasks?limit=${head}`);
  const fresh = new Set(page.tasks.map((task) => task.task_id));
  if (older.length) older = [...newest, ...older].filter((task) => !fresh.has(task.task_id));
  newest = page.tasks;
  if (!older.length) cursor = page.next_cursor;
  changing = page.tasks.some((task) => !task.terminal);
  showRows([...page.tasks, ...older]);
}

/** @param {SummaryView[]} tasks */
function showRows(tasks) {
  const known = new Set(rowsShown().map((row) => row.dataset.task));
  /** @type {Part[]} */
  const rowsOf = tasks.map((task) => [task.task_id, () => rowOf(task)]);
  const open = opened?.row;
  const id = open?.dataset.task;
  if (open && id && !tasks.some((task) => task.task_id === id)) rowsOf.push([id, () => open]);
  if (!rowsOf.length) rowsOf.push(["", () => element("li", "No tasks yet.")]);
  place(list, rowsOf);
  const rows = new Map(rowsShown().map((row) => [row.dataset.task, row]));
  for (const task of tasks) {
    const row = rows.get(task.task_id);
    if (row && mark(row, task) && opened?.row === row) quietly(opened.reload);
  }
  more.hidden = cursor === null;
  const [first] = tasks;
  const asks = first?.status === "awaiting_approval" && !known.has(first.task_id) && !opened;
  const row = (wanted && rows.get(wanted)) || (asks ? rows.get(first.task_id) : undefined);
  wanted = null;
  if (row) detailsOf(row).open = true;
}

async function showMore() {
  if (head < MOST_AT_ONCE) {
    head += PAGE;
    await show();
    return;
  }
  if (cursor === null) return;
  /** @type {PageView} */
  const page = await call(`/v1/tasks?limit=${PAGE}&cursor=${encodeURIComponent(cursor)}`);
  older = [...older, ...page.tasks];
  cursor = page.next_cursor;
  await show();
}

// Poll for changes while a task is unfinished and the page is visible. Continue after a lost connection (a TypeError),
// but not after a refusal.
async function lookAgain() {
  if (changing && !document.hidden) {
    try {
      await show();
    } catch (error) {
      changing = error instanceof TypeError;
      say(wordsOf(error));
    }
  }
  setTimeout(lookAgain, LOOK_AGAIN_MS);
}

byId("ask", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    /** @type {{ task_id: string }} */
    const made = await call("/v1/tasks", { prompt: prompt.value });
    prompt.value = "";
    await open(made.task_id);
  });
});
more.addEventListener("click", () => attempt(showMore));
byId("refresh", HTMLButtonElement).addEventListener("click", () => attempt(show));
document.addEventListener("visibilitychange", () => document.hidden || quietly(show));
attempt(show);
lookAgain();
