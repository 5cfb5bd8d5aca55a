// Tasks of several statuses as one list, newest first, a page at a time.

import { client } from "./api.js";

const PAGE = 50;

/** @typedef {{ status: string, ahead: SummaryView[], cursor: string | null, ended: boolean }} Part The tasks of one status. */

/** A list that is loaded page by page. `tasks` are those loaded so far. */
export class Pages {
  /** @type {SummaryView[]} */
  tasks = [];
  /** @type {Part[]} */
  #parts;

  /** @param {readonly string[]} statuses None stands for all. @param {string} words Those to search for; may be empty. */
  constructor(statuses, words) {
    this.words = words;
    this.#parts = (statuses.length ? statuses : [""]).map((status) => ({ status, ahead: [], cursor: null, ended: false }));
  }

  /** True if all tasks are loaded. */
  get ended() {
    return this.#parts.every(({ ahead, ended }) => ended && !ahead.length);
  }

  /** Load the next page: up to 50 tasks. */
  async load() {
    /** @type {SummaryView[]} */
    const page = [];
    while (page.length < PAGE && !this.ended) {
      await Promise.all(this.#parts.map((part) => this.#fill(part)));
      const [newest] = this.#parts.filter(({ ahead }) => ahead.length).sort((one, other) => byAge(one.ahead[0], other.ahead[0]));
      const next = newest?.ahead.shift();
      if (next) page.push(next);
    }
    this.tasks = [...this.tasks, ...page];
  }

  /** Load tasks of one status, until there is one ahead or there are no more. @param {Part} part */
  async #fill(part) {
    while (!part.ended && !part.ahead.length) await this.#loadPart(part);
  }

  /** @param {Part} part */
  async #loadPart(part) {
    const page = await client.listTasks({
      limit: PAGE, cursor: part.cursor, status: part.status || undefined, q: this.words || undefined,
    });
    part.ahead = page.tasks;
    part.cursor = page.next_cursor;
    part.ended = page.next_cursor === null;
  }
}

/** Sorts tasks, newest first. @param {SummaryView} one @param {SummaryView} other */
export const byAge = (one, other) => (other.created_at ?? "").localeCompare(one.created_at ?? "");
