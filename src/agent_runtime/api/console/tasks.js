// The tasks that the inbox shows. The feed says which have changed; they are then loaded again, at most once a second.

import { ApiError } from "../client.js";
import { client, textOf } from "./api.js";
import { onChange } from "./feed.js";
import { notifyOf } from "./notify.js";
import { Pages, byAge } from "./pages.js";
import { Store } from "./store.js";

const MOST_WAITING = 200;
const PAUSE_MS = 1000;

/** The statuses of a task that waits for a person. */
const WAITING = ["awaiting_approval", "needs_attention"];

/** The groups of tasks that can be shown, with their statuses; none stands for all. @type {Record<string, string[]>} */
export const GROUPS = {
  all: [],
  waiting: WAITING,
  running: ["pending", "approved", "executing"],
  completed: ["completed"],
  failed: ["failed"],
  stopped: ["rejected", "cancelled", "expired"],
};

/**
 * @typedef {object} Inbox
 * @property {SummaryView[]} waiting The tasks that wait for a person, newest first, but at most some hundreds.
 * @property {number} count How many tasks wait for a person.
 * @property {SummaryView[]} tasks The tasks that match the filter, newest first, as far as they are loaded.
 * @property {boolean} ended True if all tasks that match are loaded.
 * @property {boolean} loaded
 * @property {string} error
 */

/** @type {Inbox} */
const EMPTY = { waiting: [], count: 0, tasks: [], ended: true, loaded: false, error: "" };

export const inbox = new Store(EMPTY);

let filter = { group: "all", words: "" };
let pages = new Pages([], "");
/** @type {Set<string>} */
let changed = new Set();
/** @type {Set<string> | null} */
let known = null;
/** @type {Promise<void> | null} */
let loading = null;
let again = false;

const statuses = () => GROUPS[filter.group] ?? [];

/** Show the tasks of a group that have all of these words. @param {string} group @param {string} words */
export async function filterTasks(group, words) {
  if (group === filter.group && words === filter.words && inbox.value.loaded) return;
  filter = { group, words };
  pages = new Pages(statuses(), words);
  inbox.patch({ tasks: [], ended: true, loaded: false });
  await refresh();
}

/** Load the next page. If a refresh replaces the pages meanwhile, the next page of the new ones is loaded. */
export async function loadMore() {
  const wanted = filter;
  let current;
  do {
    current = pages;
    await current.load();
    if (wanted !== filter) return;
  } while (current !== pages);
  inbox.patch({ tasks: pages.tasks, ended: pages.ended });
}

/** Load what has changed. It is loaded once more if this is called meanwhile. */
export function refresh() {
  again = true;
  loading ??= load().finally(() => {
    loading = null;
  });
  return loading;
}

async function load() {
  while (again) {
    again = false;
    const dirty = changed;
    changed = new Set();
    try {
      await Promise.all([dirty.size || !known ? loadWaiting() : null, loadTasks(dirty)]);
      if (inbox.value.error) inbox.patch({ error: "" });
    } catch (error) {
      for (const id of dirty) changed.add(id);
      inbox.patch({ error: textOf(error) });
    }
  }
}

async function loadWaiting() {
  const loaded = await Promise.all(WAITING.map((status) => client.listTasks({ limit: MOST_WAITING, status })));
  const waiting = loaded.flatMap(({ tasks }) => tasks).sort(byAge);
  const isCut = loaded.some((page) => page.next_cursor !== null);
  const count = isCut ? await countWaiting() : waiting.length;
  const before = known;
  known = new Set(waiting.map((task) => task.task_id));
  inbox.patch({ waiting, count });
  if (before) notifyOf(waiting.filter((task) => !before.has(task.task_id)));
}

async function countWaiting() {
  const { tasks } = await client.call("/v1/status");
  return WAITING.reduce((sum, status) => sum + (tasks[status] ?? 0), 0);
}

/** @param {Set<string>} dirty The tasks that have changed; an empty id stands for all. */
async function loadTasks(dirty) {
  const current = pages;
  const head = new Pages(statuses(), filter.words);
  await head.load();
  const fresh = new Set(head.tasks.map((task) => task.task_id));
  const known = current.tasks;
  // If none of the newest was known, there may be others between them and those that are.
  const isJoined = head.ended || known.some((task) => fresh.has(task.task_id));
  const before = dirty.has("") || !isJoined ? [] : known.filter((task) => !fresh.has(task.task_id));
  const older = await reload(before, dirty);
  if (current !== pages) {
    again = true;
    return;
  }
  // A page may have come meanwhile.
  const meanwhile = current.tasks.slice(known.length);
  if (older.length) current.tasks = [...head.tasks, ...older, ...meanwhile];
  else pages = head;
  inbox.patch({ tasks: pages.tasks, ended: pages.ended, loaded: true });
}

/**
 * Return tasks of older pages as they are now, without those that are gone or no longer match.
 * @param {SummaryView[]} tasks @param {Set<string>} dirty
 */
async function reload(tasks, dirty) {
  /** @param {SummaryView} task @returns {Promise<SummaryView[]>} */
  const now = async (task) => {
    if (!dirty.has(task.task_id)) return [task];
    try {
      const found = await client.getTask(task.task_id);
      return !statuses().length || statuses().includes(found.status) ? [found] : [];
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return [];
      throw error;
    }
  };
  return (await Promise.all(tasks.map(now))).flat();
}

/** Keep the inbox up to date. Return a function that ends this. */
export function keepFresh() {
  let timer = 0;
  let last = 0;
  const stop = onChange(({ task_id: id }) => {
    changed.add(id);
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      last = Date.now();
      refresh();
    }, Math.max(0, last + PAUSE_MS - Date.now()));
  });
  return () => {
    clearTimeout(timer);
    stop();
    known = null;
    inbox.set(EMPTY);
  };
}
